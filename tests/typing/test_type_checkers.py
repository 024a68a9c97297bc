"""Pyright checks the programs of users beside this file; mypy checks them with all others."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rxtweets
from rxtweets import brokers, dashboard, display, operators, simulator, subscribers, testing
from rxtweets.instrumentation import opentelemetry, prometheus
from rxtweets.simulator import script

HERE = Path(__file__).parent
PUBLIC: tuple[Any, ...] = (
    *(rxtweets, brokers, dashboard, display, operators, simulator, script, subscribers, testing),
    *(opentelemetry, prometheus),
)

with_pyright = pytest.mark.skipif(
    shutil.which("pyright") is None and os.environ.get("CI") != "true",
    reason="pyright is not installed: pip install 'pyright[nodejs]'",
)


def test_program_has_every_public_name() -> None:
    tree = ast.parse((HERE / "program.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {name for module in PUBLIC for name in module.__all__} - used == {"operators"}  # ops


def pyright(*arguments: str) -> dict[str, Any]:
    """The report of pyright, which sees the packages of this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [shutil.which("pyright", path=path) or "pyright", "--outputjson", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode in {0, 1}, done.stderr  # others: it did not check
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@with_pyright
@pytest.mark.timeout(300)
def test_pyright_accepts_the_program_and_finds_each_mistake() -> None:
    report = pyright("-p", str(HERE))
    assert report["summary"]["filesAnalyzed"] == 2
    assert report["generalDiagnostics"] == []


@with_pyright
@pytest.mark.timeout(300)
def test_every_public_type_is_known() -> None:
    completeness = pyright("--verifytypes", "rxtweets", "--ignoreexternal")["typeCompleteness"]
    symbols = completeness["symbols"]
    incomplete = {one["name"] for one in symbols if one["isExported"] and not one["isTypeKnown"]}
    assert incomplete == set()
    assert completeness["completenessScore"] == 1
