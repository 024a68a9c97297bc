"""The cost of each part: CPU µs for one tweet, on one thread of an idle process.

Usage: python -m tests.benchmarks.parts [--rounds 15]
"""

from __future__ import annotations

import argparse
import gc
import marshal
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from reactivex import abc
from reactivex.disposable import Disposable

from rxtweets import Message
from rxtweets import operators as ops
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.decoding import Decoder, decode
from rxtweets._messages.lookup import LookedUp, look_up, quick_look_up
from rxtweets.api._http1 import Dechunker
from rxtweets.streams._lines import LineFramer
from tests.benchmarks.running import machine
from tests.benchmarks.server import chunked, frames_of
from tests.benchmarks.workload import Workload

CHUNK = 128
"""Messages of a chunk, as in a stream."""


class Given:
    """A source of chunks that the benchmark pushes."""

    def __init__(self) -> None:
        self.stream: MessageStream[str] = MessageStream(self._listen, new_telemetry())

    def _listen(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        self.give = observer.on_next
        return Disposable()


def parts_of(frames: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """Return the measured functions by name; each processes all tweets once."""
    lines = [frame.rstrip() for frame in frames]
    reads = [b"".join(map(chunked, block)) for block in _cut(frames)]
    bodies = [b"".join(block) for block in _cut(frames)]
    blocks = _cut(lines)
    quick = quick_look_up()
    looked_up = [look_up(block) for block in blocks]
    records = [
        marshal.dumps((block, known), 2) for block, known in zip(blocks, looked_up, strict=True)
    ]
    messages = [message for block in blocks for message in decode(block).messages]
    work = Workload("", "")
    handle, take = work.handler(), work.take
    handled = _cut([handle(message) for message in messages])
    results = [message for chunk in handled for message in chunk]
    batches = [Batch(part) for part in _cut(results, 20)]
    given = Given()
    given.stream.pipe(ops.batch(20, 2.0)).subscribe(take)

    def dechunk() -> None:
        dechunker = Dechunker()
        for data in reads:
            dechunker.feed(data)

    def cut() -> None:
        framer = LineFramer()
        for body in bodies:
            framer.feed(body)

    def read_metadata() -> None:
        for block in blocks:
            for message in decoder.decode(block, None, none).messages:
                message.metadata  # noqa: B018 - the read is measured

    none: LookedUp = [("", "")] * CHUNK
    decoder = Decoder()
    everything: dict[str, Callable[[], object]] = {
        "chunks of HTTP/1.1 to a body": dechunk,
        "a body to lines": cut,
        "orjson alone": lambda: deque(map(orjson.loads, lines), maxlen=0),
        "text and id looked up by orjson": lambda: [look_up(block) for block in blocks],
    }
    if quick is not None:
        everything["the same with the extra [fast]"] = lambda: [quick(block) for block in blocks]
    return everything | {
        "lines to messages, by orjson": lambda: [decode(block) for block in blocks],
        "lines that were looked up to messages": lambda: [
            decoder.decode(block, known=known)
            for block, known in zip(blocks, looked_up, strict=True)
        ],
        "the same, and metadata read": read_metadata,
        "a record between two processes, written": lambda: [
            marshal.dumps((block, known), 2) for block, known in zip(blocks, looked_up, strict=True)
        ],
        "and read": lambda: [marshal.loads(record) for record in records],  # noqa: S302 - our own
        "str.upper alone": lambda: [message.data.upper() for message in messages],
        "the handler": lambda: [handle(message) for message in messages],
        "the subscriber": lambda: [take(batch) for batch in batches],
        "batches to the subscriber, acknowledged": lambda: [given.give(chunk) for chunk in handled],
    }


def _cut(values: Sequence[Any], size: int = CHUNK) -> list[list[Any]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def main() -> None:
    """Print a table with the median and the spread of each part over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine())
    for size in ("small", "large"):
        frames = frames_of(size, None)[: 30 * CHUNK]
        parts = parts_of(frames)
        gc.collect()
        gc.freeze()  # the collector skips the inputs of the benchmark
        took: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(rounds):
            for name, part in parts.items():
                start = time.thread_time()
                part()
                took[name].append((time.thread_time() - start) / len(frames) * 1e6)
        print(f"\ntweets of {sum(map(len, frames)) / len(frames):,.0f} bytes; CPU µs for one")
        for name, values in took.items():
            middle = statistics.median(values)
            print(f"   {name:<44}{middle:7.2f} [{min(values):.2f} .. {max(values):.2f}]")


if __name__ == "__main__":
    main()
