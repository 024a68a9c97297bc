"""The programs and names of the README, taken from there and run."""

from __future__ import annotations

import builtins
import re
import threading
import types
from pathlib import Path

import pytest

import rxtweets
from tests.display import kernels
from tests.display.reading import parsed

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CELLS = re.findall(r"```python notebook\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_every_program_runs_and_prints(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed = threading.Event()
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setattr(builtins, "print", lambda *_, **__: printed.set())
    monkeypatch.setattr(builtins, "input", lambda _: printed.wait(30))
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - it is ours
    assert printed.is_set()


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the machinery of notebooks
def test_every_cell_shows_a_picture_and_prints_nothing() -> None:
    with rxtweets.simulator.serve(rate=300) as x:
        setting = f"X_BEARER_TOKEN='any', RXTWEETS_BASE_URL={x.url!r}"
        cells = kernels.run(f"import os; os.environ.update({setting})", *CELLS, "live.stop()")
    assert len(CELLS) == 3
    for cell in cells[1:4]:
        assert parsed(kernels.picture(cell))
    assert kernels.streams(cells) == set()


def test_every_name_that_the_readme_uses_is_public() -> None:
    packages = {"instrumentation", "testing"}  # imported from there, where they are needed
    for name in re.findall(r"rxtweets\.(\w+)", " ".join(PROGRAMS + CELLS)):
        assert name in {*rxtweets.__all__, *packages}


def test_every_public_name_exists_once_and_in_order() -> None:
    assert sorted(set(rxtweets.__all__)) == list(rxtweets.__all__)
    for name in rxtweets.__all__:
        assert hasattr(rxtweets, name)


def test_nothing_public_is_left_out_of_all() -> None:
    public = {
        name
        for name, value in vars(rxtweets).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    modules = {"display", "errors", "events", "operators", "simulator", "subscribers"}
    assert public | modules == set(rxtweets.__all__)


def test_every_event_of_the_table_exists() -> None:
    table = README.split("## What happens when things fail")[1].split("## Speed")[0]
    for name in re.findall(r"`([A-Z]\w+)`", table):
        places = (rxtweets.events, rxtweets, rxtweets.errors, rxtweets.subscribers)
        known = any(hasattr(place, name) for place in places)
        assert known or name == "TooManyConnections", name


def test_every_counter_of_the_table_exists() -> None:
    for name in re.findall(r"stats\(\)\.(\w+)", README):
        assert hasattr(rxtweets.Stats(), name), name


def test_the_table_of_rooms_is_that_which_is_checked() -> None:
    table = README.split("`lint-imports` checks that:\n\n```\n")[1].split("\n```")[0]
    shown = [re.split(r" {2,}", row)[0].split(" · ") for row in table.splitlines()]
    contract = (Path(__file__).parents[1] / ".importlinter").read_text(encoding="utf-8")
    layers = contract.split("layers =\n")[1].split("exhaustive")[0].strip().splitlines()
    assert shown == [re.split(r" [|:] ", layer.strip()) for layer in layers]
