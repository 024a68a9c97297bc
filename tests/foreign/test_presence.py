"""All clients of other projects are installed where that is required."""

from __future__ import annotations

import os
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
WANTED = PROJECT["project"]["optional-dependencies"]["foreign"]


@pytest.mark.skipif(
    os.environ.get("CI") != "true", reason="the extra [foreign] is a must in CI only"
)
@pytest.mark.parametrize("requirement", WANTED)
def test_client_is_installed_in_its_version(requirement: str) -> None:
    name, wanted = requirement.split("==")
    name = name.partition("[")[0]
    assert version(name) == wanted
    assert import_module(name)
