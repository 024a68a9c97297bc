"""The programs and names of the README, taken from there and run."""

from __future__ import annotations

import builtins
import re
import threading
import tomllib
import types
from pathlib import Path

import pytest

import rxtweets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_readme_program_prints(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed = threading.Event()
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setattr(builtins, "print", lambda *_, **__: printed.set())
    monkeypatch.setattr(builtins, "input", lambda _: printed.wait(30))
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - it is ours
    assert printed.is_set()


def test_readme_uses_public_names() -> None:
    packages = {"instrumentation", "testing"}  # imported from there, where they are needed
    for name in re.findall(r"rxtweets\.(\w+)", " ".join(PROGRAMS)):
        assert name in {*rxtweets.__all__, *packages}


def test_public_names_are_unique_and_sorted() -> None:
    assert sorted(set(rxtweets.__all__)) == list(rxtweets.__all__)
    for name in rxtweets.__all__:
        assert hasattr(rxtweets, name)


def test_all_is_complete() -> None:
    public = {
        name
        for name, value in vars(rxtweets).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    modules = {
        "brokers",
        "dashboard",
        "display",
        "errors",
        "events",
        "operators",
        "simulator",
        "subscribers",
    }
    assert public | modules == set(rxtweets.__all__)


def test_failure_table_names_exist() -> None:
    table = README.split("## What happens when things fail")[1].split("## Speed")[0]
    for name in re.findall(r"`([A-Z]\w+)`", table):
        places = (rxtweets.events, rxtweets, rxtweets.errors, rxtweets.subscribers)
        known = any(hasattr(place, name) for place in places)
        assert known or name == "TooManyConnections", name


def test_counters_of_the_readme_exist() -> None:
    for name in re.findall(r"stats\(\)\.(\w+)", README):
        assert hasattr(rxtweets.Stats(), name), name


def test_rooms_table_matches_the_import_contract() -> None:
    table = README.split("A room imports only from the rooms below it:\n\n```\n")[1].split("\n```")[
        0
    ]
    shown = [re.split(r" {2,}", row)[0].split(" · ") for row in table.splitlines()]
    contract = (ROOT / ".importlinter").read_text(encoding="utf-8")
    layers = contract.split("layers =\n")[1].split("exhaustive")[0].strip().splitlines()
    assert shown == [re.split(r" [|:] ", layer.strip()) for layer in layers]


def test_readme_has_at_most_250_lines() -> None:
    assert len(README.splitlines()) <= 250


def test_readme_has_no_placeholder() -> None:
    assert "@@" not in README


def test_links_work_outside_of_the_repository() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hooks = project["tool"]["hatch"]["metadata"]["hooks"]
    text = README
    for change in hooks["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "01 (`notebooks/01-quickstart.ipynb`)" in text
