"""Random pipelines lose no message and acknowledge none twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 60
"""Pipelines per seed."""


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1_000, 2_000, 3_000, 4_000])
def test_random_pipelines_acknowledge_each_message_once(seed: int) -> None:
    # In a separate process: the switch interval holds for all threads of one.
    command = [sys.executable, "-m", "tests.contract.random_pipelines", "--seed", f"{seed}"]
    ran = subprocess.run(
        [*command, "--count", f"{COUNT}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-20_000:]
