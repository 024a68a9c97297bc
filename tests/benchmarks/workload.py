"""One measured run in a separate process; prints its figures as one JSON object.

It first prints the lines ``begin`` and ``end``, at the start and the end of the measured time.

Usage: workload.py JSON, the fields of `Workload`.
"""

from __future__ import annotations

import gc
import json
import os
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.benchmarks import foreign

# Each client is imported where it is used: its memory is part of the figures.
if TYPE_CHECKING:
    from reactivex import Observable, abc

    from rxtweets import Batch, Message

WARM_UP = 1.0
"""Seconds after the first tweet that are not measured."""

LOOK = 0.25
"""Seconds between two readings of the memory."""

Handler = Callable[["Message[str]"], "Message[str]"]


@dataclass
class Workload:
    """The work of one run, and its duration.

    Attributes:
        url: of the server.
        cafile: of its authority.
        kind: ``rxtweets``, ``naive``, ``inline``, or the name of another project's client.
        seconds: measured.
        isolated: read in a separate process.
        http2: over HTTP/2.
        metadata: handlers read every field.
        block: seconds that a handler sleeps.
        burn: seconds that a handler computes.
        concurrency: processors.
        batch: messages in a batch.
        subscribers: pipelines on one stream.
        shared: subscribers of one pipeline instead.
        direct: subscribers of the stream instead, without a pipeline.
        overflow: the policy.
        latency: measure from the socket to the end of the handler.
        freeze: the garbage collector ignores the imported objects.
        one_core: the program keeps its threads on one core, an isolated reader on another.
        fast: with the extra of this name; in one process only.
        drain: then measure the duration of a drain.
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
    shared: bool = False
    direct: bool = False
    overflow: str = "block"
    latency: bool = False
    freeze: bool = False
    one_core: bool = False
    fast: bool = True
    drain: bool = False
    waits: list[float] = field(default_factory=list)
    count: int = 0
    idle_mb: float = 0.0

    def handler(self) -> Handler:
        """Return the handler of the processors."""

        def handle(message: Message[str]) -> Message[str]:
            if self.latency:
                self.waits.append(time.time() - (message.received_at or 0.0))
            if self.block:
                time.sleep(self.block)
            if self.burn:
                until = time.thread_time() + self.burn
                while time.thread_time() < until:
                    pass
            if self.metadata:
                message.metadata  # noqa: B018 - the read is measured
            return message.update_data(str.upper)

        return handle

    def take(self, batch: Sequence[Any]) -> None:
        """Read the id and the text of every tweet of a batch."""
        for message in batch:
            if not (message.id and message.data):
                raise ValueError(message)
        self.count += len(batch)

    def take_one(self, message: Message[str]) -> None:
        """Read the id and the text of one tweet."""
        if not (message.id and message.data):
            raise ValueError(message)
        self.count += 1


def run_rxtweets(work: Workload) -> dict[str, Any]:
    """Run the README's pipeline."""
    import rxtweets
    from rxtweets import operators as ops

    if not work.fast:
        sys.modules["msgspec"] = None  # type: ignore[assignment]  # so that importing it fails
    options: dict[str, Any] = {"isolated": work.isolated, "overflow": work.overflow}
    if work.one_core:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1]})
        if work.isolated:
            options["reader_cores"] = {cores[0]}
    work.idle_mb = _memory(psutil.Process())
    if work.freeze:
        gc.collect()
        gc.freeze()
    trusted = ssl.create_default_context(cafile=work.cafile)
    stream = rxtweets.sample_stream(
        token="any", base_url=work.url, verify=trusted, http2=work.http2, compress=False, **options
    )
    drained = threading.Semaphore(0)

    def pipeline() -> Observable[Batch[str]]:
        return stream.pipe(
            ops.process(work.handler(), concurrency=work.concurrency), ops.batch(work.batch, 2.0)
        )

    one = pipeline().share() if work.shared else None
    subscriptions = [
        stream.subscribe(work.take_one, on_completed=drained.release)
        if work.direct
        else (one or pipeline()).subscribe(work.take, on_completed=drained.release)
        for _ in range(work.subscribers)
    ]
    figures = _measured(work)
    if work.drain:
        before = time.perf_counter()
        stream.stop()
        for _ in subscriptions:
            drained.acquire()
        figures["drain_seconds"] = time.perf_counter() - before
        stats = stream.stats()
        accounted = stats.delivered + stats.dropped + stats.undecodable + stats.control
        figures["unaccounted"] = stats.received - accounted
        figures["dropped"] = stats.dropped
        figures["received"] = stats.received
    for subscription in subscriptions:
        subscription.dispose()
    return figures


def run_naive(work: Workload) -> dict[str, Any]:
    """Run a pipeline of stock parts: httpx lines, flat_map on a thread pool, a buffer."""
    import httpx
    import orjson
    import reactivex
    from reactivex import operators as stock
    from reactivex.disposable import Disposable
    from reactivex.scheduler import ThreadPoolScheduler

    over = threading.Event()
    pool = ThreadPoolScheduler(work.concurrency)
    room = threading.Semaphore(10 * work.concurrency)
    trusted = ssl.create_default_context(cafile=work.cafile)

    def read(observer: Any, _scheduler: Any) -> abc.DisposableBase:
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

    def upcased(tweet: dict[str, Any]) -> Observable[str]:
        return reactivex.just(tweet).pipe(stock.map(upcase), stock.subscribe_on(pool))

    source: Observable[dict[str, Any]] = reactivex.create(read)
    batches = source.pipe(stock.flat_map(upcased), stock.buffer_with_time_or_count(2.0, work.batch))
    thread = threading.Thread(target=lambda: batches.subscribe(take), daemon=True)
    thread.start()
    figures = _measured(work)
    over.set()
    return figures


def run_inline(work: Workload) -> dict[str, Any]:
    """Run the minimum of a client in one process: one loop that splits lines and decodes them.

    It relies on the server's format, which sends each tweet as one line. It has no threads, no
    batches, no counters, no acknowledgement, and handles neither errors nor the end.
    """
    import socket

    import orjson

    host, _, port = work.url.removeprefix("https://").partition(":")
    trusted = ssl.create_default_context(cafile=work.cafile)

    def read() -> None:
        source = trusted.wrap_socket(
            socket.create_connection((host, int(port))), server_hostname=host
        )
        source.sendall(b"GET /2/tweets/sample/stream HTTP/1.1\r\nHost: any\r\n\r\n")
        rest = b""
        while True:
            *lines, rest = (rest + source.recv(2**18)).split(b"\r\n")
            for line in lines:
                if line[:1] == b"{":
                    tweet = orjson.loads(line)["data"]
                    if tweet["id"] and tweet["text"].upper():
                        work.count += 1

    threading.Thread(target=read, daemon=True).start()
    return _measured(work)


def run_foreign(work: Workload) -> dict[str, Any]:
    """Run a client of another project on its one thread."""

    def use(identifier: str, text: str) -> None:
        if not (identifier and text):
            raise ValueError(identifier, text)
        if work.block:
            time.sleep(work.block)
        work.count += 1

    listen = foreign.CLIENTS[work.kind]
    threading.Thread(target=listen, args=(work.url, use), daemon=True).start()
    return _measured(work)


def _measured(work: Workload) -> dict[str, Any]:
    while not work.count:
        time.sleep(0.005)
    time.sleep(WARM_UP)
    own = psutil.Process()
    readers = own.children()  # the process of an isolated reader, if there is one
    work.waits.clear()
    memory = []
    print("begin", flush=True)
    started, count = time.perf_counter(), work.count
    cpu, reading = time.process_time(), _cpu(readers)
    while (rest := started + work.seconds - time.perf_counter()) > 0:
        time.sleep(min(LOOK, rest))
        memory.append(_memory(own, *readers))
    seconds, done = time.perf_counter() - started, work.count - count
    spent = time.process_time() - cpu + _cpu(readers) - reading
    print("end", flush=True)
    peak = _peak()
    quarter = max(1, len(memory) // 4)
    figures: dict[str, Any] = {
        "tweets_per_second": done / seconds,
        "cpu_seconds_per_million": spent / max(1, done) * 1e6,
        "cores": spent / seconds,
        "peak_rss_mb": max(peak + _memory(*readers), *memory),
        "rss_first_quarter_mb": statistics.fmean(memory[:quarter]),
        "rss_last_quarter_mb": statistics.fmean(memory[-quarter:]),
        "rss_mb": [round(size, 1) for size in memory],
    }
    if work.idle_mb:
        figures["rss_above_idle_mb"] = max(memory) - work.idle_mb
    if work.waits:
        waits = sorted(work.waits)
        figures["p50_ms"] = statistics.median(waits) * 1000
        figures["p99_ms"] = waits[int(len(waits) * 0.99)] * 1000
    return figures


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Return CPU seconds."""
    return sum(times.user + times.system for times in (one.cpu_times() for one in processes))


def _peak() -> float:
    """Return the peak in MB; getrusage would include the program that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _memory(*processes: psutil.Process) -> float:
    """Return MB."""
    return sum(process.memory_info().rss for process in processes) / 2**20


def main() -> None:
    """Run the workload of the argument."""
    work = Workload(**json.loads(sys.argv[1]))
    run = {"rxtweets": run_rxtweets, "naive": run_naive, "inline": run_inline}.get(
        work.kind, run_foreign
    )
    print(json.dumps(run(work)), flush=True)
    os._exit(0)  # the pool of the reference would delay the exit


if __name__ == "__main__":
    main()
