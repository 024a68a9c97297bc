"""Nodes of RabbitMQ for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trustme

from rxtweets._support.optional_imports import needed
from tests.brokers.waiting import eventually, free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The program behind the script of the package, which would change to another user."""

PATIENCE = 60.0


class Node:
    """A node with its own port and directory; it can be killed and started again.

    Args:
        directory: of its files.
        settings: more lines of its configuration.
        host: to listen on.
        prefix: the start of its command, such as another program that runs it.
    """

    def __init__(
        self,
        directory: Path,
        settings: str = "",
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self._host = host
        self._prefix = prefix
        self.port, self.tls_port = free_port(), free_port()
        self.ca = directory / "ca.pem"
        self._directory = directory
        self._distribution = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = {host}:{self.port}\n"
            f"listeners.ssl.local = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.ca}\n"
            f"ssl_options.certfile = {directory}/server.pem\n"
            f"ssl_options.keyfile = {directory}/server.pem\n"
            f"loopback_users = none\n{settings}"
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        directory = self._directory
        environment = {
            **os.environ,
            "HOME": str(directory),
            "RUNNING_UNDER_SYSTEMD": "true",  # the process is the node, not a shell around it
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"rxtweets{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        }
        with (directory / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [*self._prefix, SERVER],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        process = self._process
        eventually(
            lambda: process.poll() is not None or accepts(self.port, self._host),
            (directory / "out").read_text,
            PATIENCE,
        )
        assert process.poll() is None, (directory / "out").read_text()[-2000:]

    def kill(self) -> None:
        """Kill it with -9, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    def suspend(self) -> None:
        """Stop it with SIGSTOP."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def url(self, name: str) -> str:
        return f"amqp://guest:guest@{self._host}:{self.port}/{name}"


@contextlib.contextmanager
def running_node() -> Iterator[Node]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        node = Node(Path(directory))
        try:
            node.start()
            yield node
        finally:
            node.kill()


def has_server() -> bool:
    return SERVER.exists() and shutil.which("erl") is not None


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((host, port), 1.0) as connection:
            connection.sendall(b"AMQP\0\0\x09\x01")
            return bool(connection.recv(1))  # an answer: the node has booted
    except OSError:
        return False


@contextlib.contextmanager
def channel_to(port: int) -> Iterator[Any]:
    """A channel of pika's blocking client."""
    pika: Any = needed("pika", "rabbitmq")
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    try:
        yield connection.channel()
    finally:
        connection.close()
