"""A Redis server of a test's own."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from tests.brokers.waiting import free_port, wait_for_server

__all__ = ["RedisServer", "is_installed", "redis_server"]

PATIENCE = 30.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """A server on a free port, with its files in a directory.

    Args:
        directory: of its files.
        settings: more arguments of its command.
        password: of its user.
        host: to listen on.
        prefix: the start of its command, such as another program that runs it.
    """

    def __init__(
        self,
        directory: Path,
        settings: tuple[str, ...] = DURABLE,
        password: str = "",
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.prefix = prefix
        self.port = free_port()
        self.directory = directory
        self.settings = settings
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, name: str, options: str = "") -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}{self.host}:{self.port}/{name}{options}"

    def client(self) -> redis.Redis:
        return redis.Redis(self.host, self.port, password=self.password or None, protocol=2)

    def start(self) -> None:
        """Start it, and wait until it has loaded its data."""
        command = [*self.prefix, "redis-server", "--port", str(self.port), "--bind", self.host]
        command += ["--dir", str(self.directory), "--save", "", *self.settings]
        if self.password:
            command += ["--requirepass", self.password]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for_server(self.answers, self.process, PATIENCE)

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def suspend(self) -> None:
        """Let it hang, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as by ``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None


@contextmanager
def redis_server(*settings: str, password: str = "") -> Iterator[RedisServer]:
    """Run a server for the length of a block; by default it writes each change to disk."""
    with TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), settings or DURABLE, password)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def is_installed() -> bool:
    return shutil.which("redis-server") is not None
