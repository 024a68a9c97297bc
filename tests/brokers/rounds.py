"""One round of a failure: its processes, what is done to them, and what has to hold afterwards."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

from rxtweets import brokers
from rxtweets.brokers import Queue
from rxtweets.errors import BrokerUnavailable
from tests.brokers._failing import SIZE, run
from tests.brokers.engines import ENGINES
from tests.brokers.outages import BROKERS, Broker, Disk, Network, Place, Server, Store, small_disk
from tests.brokers.waiting import eventually

__all__ = [
    "HANGS",
    "MOST",
    "Failure",
    "Figures",
    "Round",
    "Scene",
    "median_and_worst",
    "scene",
]

FORKS = multiprocessing.get_context("forkserver")  # so that processes start quickly
FORKS.set_forkserver_preload(["tests.brokers.rounds", "nats", "pika", "redis"])

HANGS = 90.0
"""Seconds after which a process counts as hanging."""

HANG = "hangs"

NOTICED = 10.0
"""Seconds within which each process must notice a failure that lasts longer."""

MOST = 40
"""Messages in flight of one worker."""

DISKS = {"sqlite": "64m", "jetstream": "64m", "rabbitmq": "256m"}
"""Sizes of the disks that become full; the memory of Redis does."""

TRACEBACKS = ("Exception in thread", "exception was never retrieved", "Fatal Python error")


@dataclass(frozen=True)
class Failure:
    """A failure.

    Attributes:
        name: in the table.
        act: makes it, and waits until it is over.
        prepare: is called before processes start.
        needs: ``network`` to cut or ``store`` to fill, beside a broker.
    """

    name: str
    act: Callable[[Round], None]
    prepare: Callable[[Round], None] = lambda _: None
    needs: str = ""


@dataclass
class Scene:
    """The broker of the rounds, with its network and its disk."""

    engine: str
    broker: Broker
    directory: Path
    network: Network | None = None
    disk: Disk | None = None

    @property
    def server(self) -> Server:
        assert self.broker.server is not None
        return self.broker.server

    @property
    def store(self) -> Store:
        store = self.broker.store or self.disk
        assert store is not None
        return store


@contextmanager
def scene(engine: str, needs: str = "") -> Iterator[Scene]:
    """Run a broker, in a network that can be cut or on a store that can be filled."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        place, network, disk = Place(directory), None, None
        if needs == "network":
            network = Network(stack)
            place = replace(place, host=network.host, prefix=network.prefix)
        if needs == "store" and engine in DISKS:
            disk = stack.enter_context(small_disk(DISKS[engine]))
            place = replace(place, directory=disk.directory)
        broker = stack.enter_context(BROKERS[engine](place))
        if disk is not None:
            disk.room = broker.room
        yield Scene(engine, broker, directory, network, disk)


class Line(NamedTuple):
    """A line of a process: an event, its time, and its details."""

    event: str
    at: float
    words: list[str]


class Child:
    """A process of a round.

    Attributes:
        lines: that it has recorded, as far as they were read.
        process: itself.
    """

    def __init__(self, directory: Path, role: str, url: str, **options: object) -> None:
        self.role = role
        self.lines: list[Line] = []
        self._record = directory / f"{role}-{uuid4().hex}"
        self._errors = self._record.with_suffix(".err")
        self._read = 0
        self._record.touch()
        self._errors.touch()
        theirs, self._end = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=run, args=(role, url, self._record, options, theirs))
        self.process.start()
        theirs.close()

    def read(self) -> list[Line]:
        """Return all lines until now; a killed process may leave a part of one."""
        with self._record.open("rb") as record:
            record.seek(self._read)
            found = record.read()
        found = found[: found.rfind(b"\n") + 1]
        self._read += len(found)
        for line in found.decode().splitlines():
            event, at, *words = line.split()
            self.lines.append(Line(event, float(at), words))
        return self.lines

    def first(self, event: str, since: float) -> float | None:
        """Return the time of the first such event since a time."""
        times = [line.at for line in self.read() if line.event == event and line.at >= since]
        return min(times, default=None)

    def errors(self) -> str:
        return self._errors.read_text()

    def end(self) -> None:
        """Ask it to end."""
        self._end.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.end()

    def dump(self) -> str:
        """Return what it wrote to standard error, with the tracebacks of its threads."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(0.5)  # the process writes them meanwhile
        return f"{self.role} {self.process.pid}:\n{self.errors()[-8000:]}"


@dataclass
class Figures:
    """The result of a round; counts are messages, and times are seconds.

    Attributes:
        published: acknowledged to a publisher.
        stored: confirmed by the broker.
        handled: at least once.
        doubles: handled again, each time.
        copies: the doubles that the broker delivered as if they were new.
        missing: published, and neither handled nor dead letters.
        redelivered: handled in a second or later attempt.
        lost_acks: outcomes that the broker did not get, as far as workers know.
        resent: put to the broker again.
        dead: dead letters.
        noticed: from the failure to the first report of each process.
        resumed: from its end to the first message of each worker.
        publishing: from its end to the first stored message of the publisher.
    """

    published: int = 0
    stored: int = 0
    handled: int = 0
    doubles: int = 0
    copies: int = 0
    missing: int = 0
    redelivered: int = 0
    lost_acks: int = 0
    resent: int = 0
    dead: int = 0
    noticed: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    publishing: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        counts = " ".join(
            f"{name}={value}" for name, value in vars(self).items() if isinstance(value, int)
        )
        noticed, resumed, publishing = map(
            median_and_worst, (self.noticed, self.resumed, self.publishing)
        )
        return (
            f"{counts}, noticed after {noticed}, workers resumed after {resumed}, "
            f"publisher after {publishing}"
        )


class Round:
    """One round: the processes, what is done to them, and what has to hold.

    Args:
        scene: where it takes place.
        failure: what is done.
        seed: of the moments, and of the choice between a plain publisher and one with a spool.
        seconds: of an outage; ``None`` for the full length.
        times: of kills.

    Attributes:
        poison: ids of messages, and what they do to their handlers.
        options: of the sources of workers.
        spool: directory of the publisher, or empty.
        workers_end: workers may end by themselves, or cannot end when they are asked to.
        acked_here: ids of messages that the failure itself has published.
        put_here: ids that it has sent, each time.
        problems: rules that were broken.
        actions: what was done, and when.
    """

    def __init__(
        self,
        scene: Scene,
        failure: Failure,
        seed: int,
        seconds: float | None = None,
        times: int = 3,
    ) -> None:
        self.scene = scene
        self.chance = random.Random(f"{scene.engine} {failure.name} {seed}")
        self.seconds = seconds
        self.times = times
        self.problems: list[str] = []
        self.actions: list[str] = []
        self.figures = Figures()
        self.poison: dict[str, str] = {}
        self.options: dict[str, float] = {}
        self.workers_end = False
        self.failure = failure
        self._stack = ExitStack()
        self.directory = Path(self._stack.enter_context(TemporaryDirectory()))
        self._url = scene.broker.url(f"t{uuid4().hex[:12]}")
        self.spool = self.chance.choice(["", str(self.directory / "spool")])
        self.children: list[Child] = []
        self.replaced: list[Child] = []
        self.acked_here: set[str] = set()
        self.put_here: list[str] = []
        self._started = 0.0

    def run(self) -> None:
        """Run the round, and fill in problems and figures."""
        self._started = time.monotonic()
        with self._stack:
            try:
                self._play()
            except AssertionError as error:
                self.problems.append(f"{error}")
                if str(error).startswith(HANG):
                    self.problems += [child.dump() for child in self._alive()]
            finally:
                for child in self.children:
                    child.kill()
            self._check()

    # The processes.

    @property
    def workers(self) -> list[Child]:
        return [child for child in self._alive() if child.role == "work"]

    @property
    def ingest(self) -> Child:
        [child] = [child for child in self._alive() if child.role == "ingest"]
        return child

    def new_worker(self) -> None:
        source = {"lease": 2.0, "max_in_flight": MOST, **self.options}
        self._start("work", source=source, poison=self.poison)

    def new_ingest(self) -> None:
        first = self.words("acked")
        self._start("ingest", first=len(set(first)) // SIZE * SIZE, spool=self.spool)

    def replace(self, child: Child) -> None:
        """Kill a process, if it has not ended, and start another one."""
        child.kill()
        self.replaced.append(child)
        self.new_worker() if child.role == "work" else self.new_ingest()

    def words(self, event: str, since: float = 0.0) -> list[str]:
        """Return the details of all such events."""
        return [
            word
            for child in self.children
            for line in child.read()
            if line.event == event and line.at >= since
            for word in line.words
        ]

    def wait(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        """Wait until a condition holds, and no process has ended; else fail with ``what``."""

        def holds() -> object:
            for child in self._alive():
                may_end = self.workers_end and child.role == "work"
                assert may_end or child.process.is_alive(), f"ended unasked: {child.dump()}"
            return condition()

        eventually(holds, lambda: f"{HANG}: {what if isinstance(what, str) else what()}", HANGS)

    def act(self, text: str) -> float:
        """Note what is done now, and return the time."""
        now = time.monotonic()
        self.actions.append(f"{text} at {now - self._started:.1f} s")
        return now

    def _start(self, role: str, **options: object) -> None:
        self.children.append(Child(self.directory, role, self._url, **options))

    def _alive(self) -> list[Child]:
        return [child for child in self.children if child not in self.replaced]

    # The course of a round.

    def _play(self) -> None:
        self.queue = self.connect()
        self.queue.engine.ensure(["workers"])
        self._stack.callback(self.queue.close)
        self.failure.prepare(self)
        self.new_ingest()
        for _ in range(3):
            self.new_worker()
        self.wait_for_traffic("the start")
        self.act("started")
        self.failure.act(self)
        self.act("ended")
        self._finish()
        self.act("settled")

    def connect(self) -> Queue:
        return brokers.connect(self._url, groups=["workers"])

    def wait_for_traffic(self, what: str) -> float:
        """Wait until each process has worked from now on; return the time now."""
        now = time.monotonic()
        self.wait(lambda: self._has_traffic(now), f"no traffic after: {what}")
        return now

    def _has_traffic(self, since: float) -> bool:
        """Return whether each process has worked since then."""
        return all(
            child.first("handled" if child.role == "work" else "stored", since) is not None
            for child in self._alive()
        )

    def _finish(self) -> None:
        self._end(self.ingest)
        self.wait(lambda: not self._missing(), "messages are missing")
        self.wait(self._is_empty, lambda: f"it keeps {self.queue.backlog()}")
        if not self.workers_end:
            self._end(*self.workers)

    def _end(self, *children: Child) -> None:
        self.replaced += children
        for child in children:
            child.end()
        for child in children:
            child.process.join(HANGS)
            code = child.process.exitcode
            assert code == 0, f"ended with {code}: {child.dump()}"
            [left] = [line.words for line in child.read() if line.event == "threads"]
            assert not left, f"threads are left: {left}, {child.role}"

    def _is_empty(self) -> bool:
        with suppress(BrokerUnavailable):
            backlog = self.queue.backlog()["workers"]
            # A killed server of NATS 2.9 can count acknowledged messages as in flight for ever.
            in_flight = 0 if self.scene.engine == "jetstream" else backlog.in_flight
            return (backlog.pending, in_flight) == (0, 0)
        return False

    def _missing(self) -> set[str]:
        handled = set(self.words("handled")[::2])
        missing = self._acked() - handled
        return missing - self.dead() if missing and self.poison else missing

    def _acked(self) -> set[str]:
        return {*self.words("acked"), *self.acked_here}

    def dead(self) -> set[str]:
        return {letter.key for letter in self.queue.dead_letters}

    # Outages.

    @contextmanager
    def outage(self, what: str) -> Iterator[float]:
        """Note an outage, and wait until all processes have worked after it."""
        began = self.act(what)
        yield began
        self.act("over")
        over = self.wait_for_traffic(what)
        figures, length = self.figures, over - began
        for child in self._alive():
            is_worker = child.role == "work"
            noticed = child.first("lost" if is_worker else "failed", began)
            resumed = child.first("handled" if is_worker else "stored", over)
            assert resumed is not None
            (figures.resumed if is_worker else figures.publishing).append(resumed - over)
            if noticed is not None:
                figures.noticed.append(noticed - began)
            self._expect(
                length < NOTICED or (noticed is not None and noticed - began <= NOTICED),
                f"{child.role}: a failure at {began} was noticed at {noticed}",
            )

    def lasting(self, full: float) -> float:
        return full if self.seconds is None else self.seconds

    def moment(self, most: float) -> None:
        time.sleep(self.chance.uniform(0.0, most))  # the failure is at a random moment

    # What has to hold.

    def _check(self) -> None:
        figures = self.figures
        keys, attempts = (self.words("handled")[start::2] for start in (0, 1))
        put, acked = self.words("put") + self.put_here, self._acked()
        figures.published = len(acked)
        figures.stored = len(stored := {*self.words("stored"), *self.acked_here})
        figures.handled = len(set(keys))
        figures.doubles = len(keys) - figures.handled
        new = Counter(key for key, attempt in zip(keys, attempts, strict=True) if attempt == "1")
        figures.copies = new.total() - len(new)
        figures.redelivered = len(keys) - new.total()
        figures.lost_acks = sum(map(int, self.words("unacked")))
        figures.resent = len(put) - len(set(put))
        figures.missing = len(acked - set(keys) if self.problems else self._missing())
        figures.dead = 0 if self.problems else len(self.dead())
        self._expect(figures.missing == 0, "messages are missing")
        self._expect(acked <= stored, "messages were acknowledged and not stored")
        self._expect(not any(map(int, self.words("left"))), "messages are left in the spool")
        self._expect(bool(self.poison) or figures.dead == 0, "there are dead letters")
        self._expect(figures.copies <= self._allowed_copies(), "there are copies without a cause")
        for child in self.children:
            found = [text for text in TRACEBACKS if text in child.errors()]
            self._expect(not found, f"{found}: {child.dump()}")

    def _allowed_copies(self) -> int:
        figures, engine = self.figures, self.scene.engine
        # A server of NATS that restarts knows only the keys of messages that are still there, and
        # may count their deliveries from one.
        if engine == "jetstream":
            return figures.resent + figures.lost_acks
        return 0 if ENGINES[engine].deduplicates else figures.resent

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


def median_and_worst(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f} s" if seconds else "–"
