"""One measured run in a process of its own; prints its figures as one JSON object.

Usage: workload.py JSON, the fields of `Workload` and of its kind.
"""

from __future__ import annotations

import json
import os
import resource
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import psutil
import reactivex
from reactivex import operators as stock
from reactivex.disposable import Disposable
from reactivex.scheduler import ThreadPoolScheduler

import rxtweets
from rxtweets import operators as ops

WARM_UP = 1.0
"""Seconds after the first tweet that do not count."""


@dataclass
class Workload:
    """What is to be done, for how long.

    Attributes:
        url: of the server.
        cafile: of its authority.
        kind: ``rxtweets`` or ``naive``.
        seconds: measured.
        isolated: the reader is a process.
        http2: the protocol.
        metadata: handlers read every field.
        block: seconds that a handler sleeps.
        burn: seconds that a handler computes.
        concurrency: processors.
        batch: messages in a batch.
        subscribers: pipelines on the one stream.
        overflow: policy.
        latency: measure from the socket to the end of the handler.
        drain: after the time is over, measure how long stopping in order takes.
    """

    url: str
    cafile: str
    kind: str = "rxtweets"
    seconds: float = 5.0
    isolated: bool = False
    http2: bool = False
    metadata: bool = False
    block: float = 0.0
    burn: float = 0.0
    concurrency: int = 50
    batch: int = 20
    subscribers: int = 1
    overflow: str = "block"
    latency: bool = False
    drain: bool = False
    waits: list[float] = field(default_factory=list)
    count: int = 0

    def handler(self) -> Callable[[rxtweets.Message[str]], rxtweets.Message[str]]:
        """What the processors do with a message."""

        def handle(message: rxtweets.Message[str]) -> rxtweets.Message[str]:
            if self.latency:
                self.waits.append(time.time() - (message.received_at or 0.0))
            if self.block:
                time.sleep(self.block)
            if self.burn:
                until = time.thread_time() + self.burn
                while time.thread_time() < until:
                    pass
            if self.metadata:
                message.metadata  # noqa: B018 - reading it is what is measured
            return message.update_data(str.upper)

        return handle

    def take(self, batch: Sequence[Any]) -> None:
        """The subscriber: uses the id and the text of every tweet."""
        for message in batch:
            if not (message.id and message.data):
                raise ValueError(message)
        self.count += len(batch)


def run_rxtweets(work: Workload) -> dict[str, float]:
    """The article's pipeline."""
    trusted = ssl.create_default_context(cafile=work.cafile)
    options: dict[str, Any] = {"isolated": work.isolated, "overflow": work.overflow}
    stream = rxtweets.sample_stream(
        token="any", base_url=work.url, verify=trusted, http2=work.http2, compress=False, **options
    )
    subscriptions = [
        stream.pipe(
            ops.process(work.handler(), concurrency=work.concurrency), ops.batch(work.batch, 2.0)
        ).subscribe(work.take)
        for _ in range(work.subscribers)
    ]
    figures = _measured(work)
    if work.drain:
        before = time.perf_counter()
        stream.stop()
        while stream.stats().state != "stopped" or stream.stats().in_flight:
            time.sleep(0.005)
        figures["drain_seconds"] = time.perf_counter() - before
        stats = stream.stats()
        accounted = stats.delivered + stats.dropped + stats.undecodable + stats.control
        figures["unaccounted"] = stats.received - accounted
        figures["dropped"] = stats.dropped
        figures["received"] = stats.received
    for each in subscriptions:
        each.dispose()
    return figures


def run_naive(work: Workload) -> dict[str, float]:
    """What one writes with stock parts: httpx lines, flat_map on a thread pool, a buffer."""
    over = threading.Event()
    pool = ThreadPoolScheduler(work.concurrency)
    room = threading.Semaphore(10 * work.concurrency)
    trusted = ssl.create_default_context(cafile=work.cafile)

    def read(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        with (
            httpx.Client(http2=work.http2, timeout=None, verify=trusted) as client,  # noqa: S113 - a stream has no end
            client.stream("GET", f"{work.url}/2/tweets/sample/stream") as response,
        ):
            for line in response.iter_lines():
                if over.is_set():
                    break
                if line:
                    room.acquire()
                    observer.on_next(orjson.loads(line))
        return Disposable()

    def upcase(tweet: dict[str, Any]) -> str:
        room.release()
        if work.block:
            time.sleep(work.block)
        return str(tweet["data"]["text"]).upper()

    def take(batch: list[str]) -> None:
        work.count += len(batch)

    def upcased(tweet: dict[str, Any]) -> reactivex.Observable[str]:
        return reactivex.just(tweet).pipe(stock.map(upcase), stock.subscribe_on(pool))

    source: reactivex.Observable[dict[str, Any]] = reactivex.create(read)
    batches = source.pipe(stock.flat_map(upcased), stock.buffer_with_time_or_count(2.0, work.batch))
    thread = threading.Thread(target=lambda: batches.subscribe(take), daemon=True)
    thread.start()
    figures = _measured(work)
    over.set()
    return figures


def _measured(work: Workload) -> dict[str, float]:
    while not work.count:
        time.sleep(0.005)
    time.sleep(WARM_UP)
    work.waits.clear()
    started, cpu, count, reader = time.perf_counter(), time.process_time(), work.count, _reader()
    time.sleep(work.seconds)
    seconds = time.perf_counter() - started
    done = work.count - count
    now = _reader()
    spent = time.process_time() - cpu + now[0] - reader[0]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "tweets_per_second": done / seconds,
        "cpu_seconds_per_million": spent / max(1, done) * 1e6,
        "cores": spent / seconds,
        "peak_rss_mb": own + now[1],
    }
    if work.waits:
        waits = sorted(work.waits)
        figures["p50_ms"] = statistics.median(waits) * 1000
        figures["p99_ms"] = waits[int(len(waits) * 0.99)] * 1000
    return figures


def _reader() -> tuple[float, float]:
    """CPU seconds and memory in MB of the reader's process, if there is one."""
    cpu = memory = 0.0
    for child in psutil.Process().children():
        times = child.cpu_times()
        cpu += times.user + times.system
        memory += child.memory_info().rss / 2**20
    return cpu, memory


def main() -> None:
    """Run what the argument says."""
    work = Workload(**json.loads(sys.argv[1]))
    figures = {"rxtweets": run_rxtweets, "naive": run_naive}[work.kind](work)
    print(json.dumps(figures), flush=True)
    os._exit(0)  # the pool of the reference would hold the program up


if __name__ == "__main__":
    main()
