from __future__ import annotations

import contextlib
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import rxtweets
import rxtweets.testing
from rxtweets.instrumentation import opentelemetry, prometheus

CORE = {"reactivex", "httpx", "orjson", "tenacity"}
THEIRS = {
    *("anyio", "certifi", "click", "idna", "pygments", "rich", "sniffio", "socksio", "tornado"),
    *("typing_extensions", "zstandard"),
}
"""Imported by the core dependencies, some only if installed; httpcore only by a client."""

PROGRAM = """
import json, sys
before = set(sys.modules)
import rxtweets
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_import_loads_no_optional_dependency() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    imported = set(json.loads(done.stdout)) - set(sys.stdlib_module_names) - {"rxtweets"}
    outside = {name for name in imported if not name.startswith("_")} - CORE - THEIRS
    assert outside == set()


def test_simulator_is_imported_on_first_use() -> None:
    program = """
import sys
import rxtweets
assert "rxtweets.simulator" not in sys.modules
assert callable(rxtweets.simulator.serve)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


PUBLIC = (
    rxtweets,
    rxtweets.display,
    rxtweets.events,
    opentelemetry,
    prometheus,
    rxtweets.operators,
    rxtweets.simulator,
    rxtweets.simulator.script,
    rxtweets.subscribers,
    rxtweets.testing,
)


def public_callables() -> dict[str, Any]:
    """Functions, classes and methods, by their names."""
    names = [(module.__name__, module, name) for module in PUBLIC for name in module.__all__]
    found = {f"{where}.{name}": getattr(module, name) for where, module, name in names}
    methods = {
        f"{name}.{method}": value
        for name, kind in found.items()
        if inspect.isclass(kind)
        for method, value in inspect.getmembers(kind, callable)
        if not method.startswith("_")
        and str(getattr(value, "__module__", "")).startswith("rxtweets")
    }
    return {name: value for name, value in (found | methods).items() if callable(value)}


def test_signatures_show_no_address() -> None:
    shown = {}
    for name, value in public_callables().items():
        with contextlib.suppress(ValueError):  # one written in C
            shown[name] = str(inspect.signature(value))
    assert len(shown) > 200
    assert {name: text for name, text in shown.items() if " at 0x" in text} == {}


@pytest.mark.parametrize("kind", [rxtweets.Backoff, rxtweets.Restart, rxtweets.Retry])
def test_policies_show_no_address(kind: Any) -> None:
    assert " at 0x" not in repr(kind())
