"""Tweets a second through each broker: our pipelines beside the bare client.

Rows of one engine take turns. Those with *no queue* are the same pipeline without publisher and
source: its own cost. Those with *4 batches* publish four batches at once. Each run has a new queue,
and tweets of 1 KB that are decoded beforehand. CPU is that of this process, without the broker.
Brokers are started here.

Usage: python -m tests.benchmarks.brokers [ENGINE ...] [--runs 3] [--count 20000] [--markdown]
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryDirectory
from uuid import uuid4

from rxtweets import Batch, Batcher, Message, Pipeline, brokers, from_iterable
from rxtweets.brokers import Address
from rxtweets.simulator._tweets import Tweets
from tests.benchmarks.bare_clients import CLIENTS
from tests.benchmarks.running import ROOT, Figures, Runs, machine, spread
from tests.brokers import rabbitmq
from tests.brokers.nats_server import nats_server
from tests.brokers.redis_server import redis_server

PACK = 50
PATIENCE = 120.0
RECEIVED = 1_764_028_462.0

SLEEP, CONCURRENCY = 0.005, 10
"""Of the workers of the scaling rows: each handles 2,000 tweets a second at most."""

PROCESSES, SCALED = (1, 2, 4), 4_000
"""Numbers of workers, and tweets for each of them."""

UrlOf = Callable[[str], str]


@contextmanager
def running_broker(name: str) -> Iterator[UrlOf]:
    """Run the broker of an engine; Redis writes each change to disk before it confirms it."""
    with ExitStack() as stack:
        match name:
            case "sqlite":
                directory = stack.enter_context(TemporaryDirectory())
                yield lambda queue: f"sqlite:{directory}/{queue}"
            case "jetstream":
                port = stack.enter_context(nats_server()).port
                yield lambda queue: f"nats://127.0.0.1:{port}/{queue}"
            case "redis":
                yield stack.enter_context(redis_server()).url
            case "rabbitmq":
                yield stack.enter_context(rabbitmq.running_node()).url


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        version: the command that prints the version of the broker.
        client: package of the client.
        targets: tweets a second, by row.
    """

    version: tuple[str, ...] = ()
    client: str = ""
    targets: dict[str, int] = field(default_factory=dict)

    def about(self) -> str:
        """Return the versions of broker and client."""
        if not self.version:
            return f"SQLite {sqlite3.sqlite_version}"
        done = subprocess.run(self.version, check=True, capture_output=True, text=True)
        return f"{done.stdout.strip()}, {self.client} {version(self.client)}"


FAST = {
    "publish": 15_000,
    "publish, 4 batches": 15_000,
    "publish, packed": 100_000,
    "packed, 4 batches": 100_000,
}
ENGINES = {
    "sqlite": Engine(targets={"publish": 30_000, "work": 20_000}),
    "jetstream": Engine(("nats-server", "--version"), "nats-py", FAST),
    "redis": Engine(("redis-server", "--version"), "redis"),
    "rabbitmq": Engine(("rabbitmqctl", "version"), "pika", FAST),
}
LEAST_SHARE, LEAST_SCALING = 0.6, 3.6


class Run:
    """A new queue, and the tweets for it."""

    def __init__(self, name: str, url_of: UrlOf, tweets: Sequence[Message[str]]) -> None:
        self._client = CLIENTS[name]
        self._url = url_of(f"b{uuid4().hex[:12]}")
        self._queue = brokers.connect(self._url, groups=["workers"])
        self._queue.engine.ensure(["workers"])
        self._tweets = tweets

    def publish_bare(self) -> Figures:
        """Publish by the bare client."""
        pairs = [(message.id, message.raw) for message in self._tweets]
        with self._client(Address.parse(self._url)) as client:
            return measured(lambda: client.publish(pairs), len(pairs))

    def publish(self, pack: int = 1, concurrency: int = 1) -> Figures:
        """Publish by a pipeline."""
        batcher = Batcher(self._queue.publisher(pack=pack), size=200, concurrency=concurrency)
        pipeline = Pipeline(from_iterable(self._tweets, most=200), batchers={"default": batcher})
        figures = measured(pipeline.run, len(self._tweets))
        if pipeline.stats().batched_failed:
            raise RuntimeError(f"not all are published: {pipeline.errors[-1]}")
        return figures

    def publish_nothing(self) -> Figures:
        """Run the pipeline of `publish` without a queue."""
        batcher = Batcher(ignore, size=200)
        pipeline = Pipeline(from_iterable(self._tweets, most=200), batchers={"default": batcher})
        return measured(pipeline.run, len(self._tweets))

    def work_bare(self) -> Figures:
        """Take and acknowledge by the bare client."""
        pairs = [(message.id, message.raw) for message in self._tweets]
        with self._client(Address.parse(self._url)) as client:
            client.publish(pairs)
            return measured(lambda: client.work(len(pairs)), len(pairs))

    def work(self, pack: int = 1) -> Figures:
        """Handle by a pipeline."""
        self.publish(pack)
        done, handled = threading.Event(), 0

        def count(batch: Batch[str]) -> None:
            nonlocal handled
            handled += len(batch)
            if handled == len(self._tweets):
                done.set()

        pipeline = Pipeline(
            self._queue.source("workers"),
            handle_message=lambda message: message.update_data(str.upper),
            batchers={"default": Batcher(count, size=100, timeout=0.05)},
        )

        def work() -> None:
            pipeline.start()
            done.wait(PATIENCE)

        figures = measured(work, len(self._tweets))
        pipeline.stop()
        left = self._queue.backlog()["workers"]
        if (left.pending, left.in_flight, handled) != (0, 0, len(self._tweets)):
            raise RuntimeError(f"{handled} handled, left: {left}")
        return figures

    def work_on_nothing(self) -> Figures:
        """Decode lines, and run the pipeline of `work` without a queue."""
        lines = [message.raw for message in self._tweets]
        pipeline = Pipeline(
            from_iterable((Message.from_line(line, RECEIVED) for line in lines), most=100),
            handle_message=lambda message: message.update_data(str.upper),
            batchers={"default": Batcher(ignore, size=100, timeout=0.05)},
        )
        return measured(pipeline.run, len(lines))

    def close(self) -> None:
        self._queue.engine.purge()
        self._queue.close()

    def scaling(self, processes: int) -> Figures:
        """Handle by several processes, all of which have started before the first tweet."""
        read, write = os.pipe()
        command = [sys.executable, "-m", "tests.benchmarks.brokers", "--worker", self._url]
        with ExitStack() as stack:
            lines = stack.enter_context(os.fdopen(read))
            workers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write, cwd=ROOT)
                for _ in range(processes)
            ]
            os.close(write)
            for worker in workers:
                stack.callback(worker.wait)
                stack.callback(worker.kill)
            for _ in workers:
                lines.readline()  # it is ready
            self.publish()
            for worker in workers:
                if worker.stdin is not None:
                    worker.stdin.close()
            return {"rate": rate_of(lines, len(self._tweets))}


def ignore(batch: Batch[str]) -> None:
    """Do nothing with a batch."""


def measured(work: Callable[[], object], count: int) -> Figures:
    """Return the tweets a second, and the CPU of this process in µs a tweet."""
    gc.collect()
    gc.freeze()  # a stream keeps no tweets in memory as this program does
    started, busy = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    gc.unfreeze()
    return {"rate": count / seconds, "cpu": cpu / count * 1e6}


def rate_of(lines: Iterable[str], count: int) -> float:
    """Return the rate between the first and the last tenth of the tweets.

    Args:
        lines: of all workers; each is the number of tweets that were just handled.
        count: tweets in all.
    """
    handled, first = 0, (0, 0.0)
    for line in lines:
        handled += int(line)
        if handled >= 0.1 * count and not first[0]:
            first = handled, time.perf_counter()
        if handled >= 0.9 * count:
            return (handled - first[0]) / (time.perf_counter() - first[1])
    raise RuntimeError("the workers have ended")


def run_worker(url: str) -> None:
    """Handle tweets, and print their numbers, until this process is killed."""

    def sleep(message: Message[str]) -> Message[str]:
        time.sleep(SLEEP)
        return message

    def report(batch: Batch[str]) -> None:
        os.write(1, b"%d\n" % len(batch))

    pipeline = Pipeline(
        brokers.connect(url, groups=["workers"]).source("workers"),
        handle_message=sleep,
        concurrency=CONCURRENCY,
        batchers={"default": Batcher(report, size=100)},
    )
    os.write(1, b"ready\n")
    sys.stdin.read()
    pipeline.run()


# Rows.

ROWS: dict[str, Callable[[Run], Figures]] = {
    "publish, bare": Run.publish_bare,
    "publish, no queue": Run.publish_nothing,
    "publish": Run.publish,
    "publish, 4 batches": lambda run: run.publish(concurrency=4),
    "publish, packed": lambda run: run.publish(PACK),
    "packed, 4 batches": lambda run: run.publish(PACK, concurrency=4),
    "work, bare": Run.work_bare,
    "work, no queue": Run.work_on_nothing,
    "work": Run.work,
    "work, packed": lambda run: run.work(PACK),
}


def messages(frames: Iterable[bytes]) -> list[Message[str]]:
    """Return messages as a stream makes them; each run needs new ones, which keep their parts."""
    return [Message.from_line(frame, RECEIVED) for frame in frames]


def measure(name: str, url_of: UrlOf, frames: Sequence[bytes], count: int, runs: int) -> Runs:
    """Return the figures of all rows of an engine."""
    found: Runs = {row: [] for row in (*ROWS, *map(scaling_row, PROCESSES))}

    def once(row: str, step: Callable[[Run], Figures], some: Sequence[bytes]) -> None:
        load = os.getloadavg()[0]
        run = Run(name, url_of, messages(some))
        found[row].append({**step(run), "load": load})
        run.close()

    for _ in range(runs):
        for row, step in ROWS.items():
            once(row, step, frames[:count])
        for processes in PROCESSES:
            some = frames[: SCALED * processes]
            once(scaling_row(processes), partial(Run.scaling, processes=processes), some)
    return found


def scaling_row(processes: int) -> str:
    """Return the name of a row."""
    return f"work, {processes} process{'es' if processes > 1 else ''}"


def verdicts(engine: Engine, found: Runs) -> dict[str, list[str]]:
    """Return for each row its targets, and whether they are met."""

    def rate(row: str) -> float:
        return float(statistics.median(figures["rate"] for figures in found[row]))

    told: dict[str, list[str]] = {row: [] for row in found}

    def check(row: str, value: float, least: float, text: str) -> None:
        told[row].append(f"{text}: {'met' if value >= least else 'not met'}")

    for row in ("publish", "work"):
        share = rate(row) / rate(f"{row}, bare")
        check(row, share, LEAST_SHARE, f"{share:.0%} of bare, target {LEAST_SHARE:.0%}")
        # The queue alone: a pipeline without one decodes, batches and acknowledges all the same.
        in_turn = 1 / (1 / rate(f"{row}, bare") + 1 / rate(f"{row}, no queue"))
        told[row].append(f"{rate(row) / in_turn:.0%} of bare and no queue in turn")
    for row, least in engine.targets.items():
        check(row, rate(row), least, f"target {least:,}/s")
    one, *_, most = map(scaling_row, PROCESSES)
    ratio = rate(most) / rate(one)
    check(most, ratio, LEAST_SCALING, f"{ratio:.2f} times one, target {LEAST_SCALING}")
    return told


def table(name: str, found: Runs, told: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of an engine."""
    for row, figures in found.items():
        cpu = spread(figures, "cpu", 1) if "cpu" in figures[0] else ""
        load = spread(figures, "load", 1)
        yield name, row, spread(figures, "rate", 0), cpu, load, "; ".join(told[row])


HEAD = ("engine", "work", "tweets/s", "CPU µs a tweet", "load before", "targets")
FORMAT = "{:<10} {:<18} {:<29} {:<22} {:<18} {}"


def main() -> None:
    """Measure the requested engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument("--runs", type=int, default=3, help="of each row; by default 3")
    parser.add_argument("--count", type=int, default=20_000, help="tweets of a run")
    parser.add_argument("--markdown", action="store_true", help="a table at the end")
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker)
        return
    if unknown := set(options.engines) - set(ENGINES):
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    names = options.engines or list(ENGINES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the brokers are ended
    print(machine())
    print(*(f"{name}: {ENGINES[name].about()}" for name in names), sep="\n")
    print(f"median [least .. most] of {options.runs}, {options.count:,} tweets of 1 KB")
    print(FORMAT.format(*HEAD), flush=True)
    most = max(options.count, SCALED * PROCESSES[-1])
    frames = Tweets(seed=1, clock=lambda: RECEIVED - 1).frames(0, most)
    lines = [HEAD, ("---",) * len(HEAD)]
    for name in names:
        engine = ENGINES[name]
        with running_broker(name) as url_of:
            found = measure(name, url_of, frames, options.count, options.runs)
        for line in table(name, found, verdicts(engine, found)):
            lines.append(line)
            print(FORMAT.format(*line), flush=True)
    if options.markdown:
        print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
