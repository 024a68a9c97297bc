"""The engines under test, each with a broker, or the reason why it has none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from rxtweets.brokers import Queue, connect
from tests.brokers import rabbitmq
from tests.brokers.nats_server import nats_server
from tests.brokers.plain_engine import PlainEngine
from tests.brokers.redis_server import is_installed, redis_server
from tests.brokers.waiting import accepts, free_port, wait_for_server

__all__ = ["ENGINES", "EngineUnderTest", "absent"]

UrlOf = Callable[[str], str]
"""Returns the URL of a queue with this name, on the broker that runs for the test."""


@dataclass(frozen=True)
class EngineUnderTest:
    """An engine and its abilities.

    Attributes:
        name: of the engine.
        broker: runs, or finds, a broker for the length of a block; skips where there is none.
        connect: returns the queue of a URL.
        deduplicates: drops messages of a known key.
        counts_attempts: knows the number of deliveries.
        leases: redelivers a message whose lease ends.
        keeps_before_first_group: a group gets messages published before it existed.
        lease: seconds of the shortest lease.
        releases_uncounted: a release is no attempt.
        counts_backlog: tells the number of messages.
        purges: the broker of the test removes messages reliably.
        shards: keeps the order of keys.
        redelivers_in_order: the broker of the test does so with messages of a key that return.
        rebalances: receivers of a group have partitions, which move when another one comes.
    """

    name: str
    broker: Callable[[], AbstractContextManager[UrlOf]]
    connect: Callable[..., Queue] = connect
    deduplicates: bool = True
    counts_attempts: bool = True
    leases: bool = True
    keeps_before_first_group: bool = True
    lease: float = 1.0
    releases_uncounted: bool = True
    counts_backlog: bool = True
    purges: bool = True
    shards: bool = True
    redelivers_in_order: bool = True
    rebalances: bool = False


def absent(reason: str) -> None:
    """Skip the test on a laptop; fail it where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _memory() -> Iterator[UrlOf]:
    suffix = uuid4().hex
    yield lambda name: f"memory:{name}-{suffix}"


def _plain_queue(url: str, *, groups: Iterable[str] = ()) -> Queue:
    return Queue(PlainEngine(url), groups)


@contextmanager
def _redis() -> Iterator[UrlOf]:
    if not is_installed():
        absent("redis-server is not installed")
    with redis_server() as server:
        yield server.url


@contextmanager
def _sqlite() -> Iterator[UrlOf]:
    with TemporaryDirectory() as directory:
        yield lambda name: f"sqlite:{directory}/{name}"


@contextmanager
def _jetstream() -> Iterator[UrlOf]:
    with nats_server() as server:
        yield lambda name: f"nats://127.0.0.1:{server.port}/{name}"


@contextmanager
def _rabbitmq() -> Iterator[UrlOf]:
    if not rabbitmq.has_server():
        absent("RabbitMQ is not installed")
    with rabbitmq.running_node() as node:
        yield node.url


MOTO = """
import functools, sys, threading, time
from moto.server import ThreadedMotoServer
from moto.sqs import models
from moto.sqs.models import SQSBackend

# It asks for the time of each message in the queue, for each message of a request.
models.unix_time = lambda: time.time()
models.unix_time_millis = lambda: time.time() * 1000

# Its queues lose and double messages when requests overlap.
lock = threading.RLock()

def alone(method):
    @functools.wraps(method)
    def call(*args, **options):
        with lock:
            return method(*args, **options)
    return call

@alone
def free(queue):  # else messages whose leases have ended block those before them of their group
    queue.pending_messages.difference_update([one for one in queue.pending_messages if one.visible])

@functools.wraps(receive := alone(SQSBackend.receive_message))
def poll(self, queue_name, count, wait_seconds_timeout, *args, **options):
    until = time.monotonic() + wait_seconds_timeout
    free(self.get_queue(queue_name))
    while not (found := receive(self, queue_name, count, 0, *args, **options)):
        if time.monotonic() >= until:
            break
        time.sleep(0.02)  # as the poll of the service, which does not wake up either
        free(self.get_queue(queue_name))
    return found

for name in ("send_message", "send_message_batch", "delete_message", "delete_message_batch",
             "change_message_visibility", "change_message_visibility_batch", "purge_queue",
             "create_queue", "get_queue_attributes"):
    setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))
SQSBackend.receive_message = poll

server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
print(f"{server._server.host}:{server._server.port}", flush=True)
sys.stdin.read()
"""


@contextmanager
def moto(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run an emulator of SQS; it ends with the block, or when this process does."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MOTO, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            host = server.stdout.readline().strip()
            assert re.fullmatch(r"127\.0\.0\.1:\d+", host), host
            yield host, server
        finally:
            server.kill()


@contextmanager
def _sqs(suffix: str = "") -> Iterator[UrlOf]:
    if given := os.environ.get("RXTWEETS_TEST_SQS"):  # HOST:PORT of another emulator
        with _environment(AWS):
            yield lambda name: f"sqs://{given}/{name}{suffix}"
        return
    with _environment(AWS), moto() as (host, _):
        yield lambda name: f"sqs://{host}/{name}{suffix}"


@contextmanager
def pubsub_emulator(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run Google's emulator of Pub/Sub until the end of the block."""
    jars = [jar for place in SDKS for jar in Path(place).expanduser().glob(PUBSUB_JAR)]
    java = shutil.which("java")
    if not jars or java is None:
        pytest.skip("needs java and Google's emulator: google-cloud-cli-pubsub-emulator")
    options = ["-Xmx256m", "-jar", str(jars[0]), "--host=127.0.0.1", f"--port={port}"]
    with subprocess.Popen(
        [java, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for_server(lambda: accepts(port), server, patience=40.0)
            yield server
        finally:
            server.kill()


SDKS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "~/google-cloud-sdk")
PUBSUB_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"


@contextmanager
def _pubsub(options: str = "") -> Iterator[UrlOf]:
    port = free_port()
    with _environment({"PUBSUB_EMULATOR_HOST": f"127.0.0.1:{port}"}), pubsub_emulator(port):
        yield lambda name: f"pubsub://project/{name}{options}"


AWS = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def _kafka() -> Iterator[UrlOf]:
    from tests.brokers.tansu import tansu

    with tansu() as broker:
        yield broker.url


ENGINES = {
    engine.name: engine
    for engine in (
        EngineUnderTest("memory", _memory),
        EngineUnderTest(
            "plain",
            _memory,
            _plain_queue,
            deduplicates=False,
            leases=False,
            keeps_before_first_group=False,
            shards=False,
        ),
        EngineUnderTest("redis", _redis, shards=False),
        EngineUnderTest("sqlite", _sqlite),
        EngineUnderTest("jetstream", _jetstream, releases_uncounted=False, shards=False),
        EngineUnderTest(
            "rabbitmq",
            _rabbitmq,
            deduplicates=False,
            leases=False,
            keeps_before_first_group=False,
            shards=False,
        ),
        EngineUnderTest(
            "pubsub",
            _pubsub,
            deduplicates=False,
            keeps_before_first_group=False,
            lease=3.0,
            releases_uncounted=False,
            counts_backlog=False,
            shards=False,
        ),
        EngineUnderTest(
            "pubsub.ordered",
            lambda: _pubsub("?ordered=1"),
            deduplicates=False,
            keeps_before_first_group=False,
            lease=3.0,
            releases_uncounted=False,
            counts_backlog=False,
            redelivers_in_order=False,  # the emulator puts them last, other than the service
            purges=False,  # the emulator seeks in no subscription with ordering
        ),
        EngineUnderTest(
            "sqs",
            _sqs,
            shards=False,
            deduplicates=False,
            keeps_before_first_group=False,
            lease=3.0,
            releases_uncounted=False,
        ),
        EngineUnderTest(
            "sqs.fifo",
            lambda: _sqs(".fifo"),
            keeps_before_first_group=False,
            lease=3.0,
            releases_uncounted=False,
        ),
        # Kafka counts no deliveries: attempts are those that `retry` has counted, and crashes.
        # A busy Tansu moves no group that has just lost a member, so it does not purge.
        EngineUnderTest(
            "kafka", _kafka, deduplicates=False, leases=False, rebalances=True, purges=False
        ),
    )
}
