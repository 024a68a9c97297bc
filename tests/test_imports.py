from __future__ import annotations

import json
import subprocess
import sys

CORE = {"reactivex", "httpx", "orjson", "tenacity"}
THEIRS = {
    *("anyio", "certifi", "click", "idna", "pygments", "rich", "sniffio", "socksio", "tornado"),
    *("typing_extensions", "zstandard"),
}
"""What the core dependencies import, or use where it is there; httpcore and the protocols below it
only for a client."""

PROGRAM = """
import json, sys
before = set(sys.modules)
import rxtweets
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_imports_no_optional_dependency() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    imported = set(json.loads(done.stdout)) - set(sys.stdlib_module_names) - {"rxtweets"}
    outside = {name for name in imported if not name.startswith("_")} - CORE - THEIRS
    assert outside == set()


def test_the_simulator_is_imported_when_it_is_used() -> None:
    program = """
import sys
import rxtweets
assert "rxtweets.simulator" not in sys.modules
assert callable(rxtweets.simulator.serve)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
