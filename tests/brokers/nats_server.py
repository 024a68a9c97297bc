"""A NATS server of a test: on a free port, in a temporary directory, ended by its id."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.brokers.waiting import PATIENCE, wait_for_server

__all__ = ["NatsServer", "nats_server"]


class NatsServer:
    """A server with JetStream.

    Args:
        directory: of its files.
        settings: more lines of its configuration.
        host: to listen on.
        prefix: the start of its command, such as another program that runs it.

    Attributes:
        port: which it keeps when it is started again.
    """

    def __init__(
        self,
        directory: Path,
        settings: str = "",
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._host = host
        self._prefix = prefix
        self.port = -1  # the server chooses one, and writes it to a file
        self.start()

    def start(self) -> None:
        config = self._directory / "nats.conf"
        config.write_text(
            f'listen: "{self._host}:{self.port}"\nports_file_dir: "{self._directory}"\n'
            f'jetstream {{ store_dir: "{self._directory}/store" }}\n{self._settings}'
        )
        self._process = subprocess.Popen(
            [*self._prefix, "nats-server", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.port = self._written_port()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """End it as an administrator would, so that it writes all positions."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def lose_messages(self) -> None:
        """Remove the messages of all streams from the disk, and keep the rest."""
        for messages in self._directory.glob("store/jetstream/*/streams/*/msgs"):
            shutil.rmtree(messages)

    def suspend(self) -> None:
        """Let it hang, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _written_port(self) -> int:
        ports = self._directory / f"nats-server_{self._process.pid}.ports"

        def port() -> int:
            try:
                [url] = json.loads(ports.read_text())["nats"]
            except (FileNotFoundError, ValueError):
                return 0
            return int(url.rpartition(":")[2])

        wait_for_server(port, self._process)
        return port()


@contextmanager
def nats_server(settings: str = "") -> Iterator[NatsServer]:
    """Run a server; skip the test where there is none."""
    from tests.brokers.engines import absent

    if shutil.which("nats-server") is None:
        absent("nats-server is not installed")
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory), settings)
        try:
            yield server
        finally:
            server.kill()
