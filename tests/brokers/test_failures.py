"""No message is lost when a broker is killed, or a worker where there is no broker.

The program has more failures, whose rounds take minutes: see the README beside this file.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.outages import BROKERS

PATIENCE = 550.0

Program = tuple["subprocess.Popen[str]", Path]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """A program for each engine, side by side, since they wait most of the time."""
    directory = tmp_path_factory.mktemp("failures")
    started: dict[str, Program] = {}
    try:
        for engine in BROKERS:
            failure = "kill-worker" if engine == "sqlite" else "kill-broker"
            command = [sys.executable, "-m", "tests.brokers.failures", "--engine", engine]
            command += ["--failure", failure]
            with (directory / engine).open("w") as output:
                process = subprocess.Popen(
                    [*command, "--seed", "1", "--seconds", "3", "--times", "1"],
                    cwd=Path(__file__).parents[2],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            started[engine] = process, directory / engine
        yield started
    finally:
        for process, _ in started.values():
            process.send_signal(signal.SIGTERM)  # so that it ends its brokers
            process.wait()


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", BROKERS)
def test_failures_lose_no_message(programs: dict[str, Program], engine: str) -> None:
    process, output = programs[engine]
    code = process.wait(PATIENCE)
    text = output.read_text()
    assert code == 0, text[-20_000:]
    if skipped := [line for line in text.splitlines() if "skipped: " in line]:
        pytest.skip("; ".join(skipped))
