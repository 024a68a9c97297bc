"""What the parts cost: CPU µs for one tweet, on one thread, nothing else running in the process.

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
"""Messages that go together, as in a stream."""


class Given:
    """Gives chunks to a pipeline, by hand."""

    def __init__(self) -> None:
        self.stream: MessageStream[str] = MessageStream(self._listen, new_telemetry())

    def _listen(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        self.give = observer.on_next
        return Disposable()


def parts_of(frames: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each is done once with all tweets."""
    lines = [frame.rstrip() for frame in frames]
    reads = [b"".join(map(chunked, each)) for each in _cut(frames)]
    bodies = [b"".join(each) for each in _cut(frames)]
    blocks = _cut(lines)
    quick = quick_look_up()
    known = [look_up(each) for each in blocks]
    records = [marshal.dumps((block, known), 2) for block, known in zip(blocks, known, strict=True)]
    messages = [each for block in blocks for each in decode(block).messages]
    work = Workload("", "")
    handle, take = work.handler(), work.take
    handled = _cut([handle(each) for each in messages])
    batches = [Batch(each) for each in _cut([each for part in handled for each in part], 20)]
    given = Given()
    given.stream.pipe(ops.batch(20, 2.0)).subscribe(take)

    def dechunk() -> None:
        dechunker = Dechunker()
        for each in reads:
            dechunker.feed(each)

    def cut() -> None:
        framer = LineFramer()
        for each in bodies:
            framer.feed(each)

    def read_metadata() -> None:
        for each in (
            each for block in blocks for each in decoder.decode(block, None, none).messages
        ):
            each.metadata  # noqa: B018 - reading it is what is measured

    none: LookedUp = [("", "")] * CHUNK
    decoder = Decoder()
    everything: dict[str, Callable[[], object]] = {
        "chunks of HTTP/1.1 to a body": dechunk,
        "a body to lines": cut,
        "orjson alone": lambda: deque(map(orjson.loads, lines), maxlen=0),
        "text and id looked up by orjson": lambda: [look_up(each) for each in blocks],
    }
    if quick is not None:
        everything["the same with the extra [fast]"] = lambda: [quick(each) for each in blocks]
    return everything | {
        "lines to messages, by orjson": lambda: [decode(each) for each in blocks],
        "lines that were looked up to messages": lambda: [
            decoder.decode(each, known=of) for each, of in zip(blocks, known, strict=True)
        ],
        "the same, and metadata read": read_metadata,
        "a record between two processes, written": lambda: [
            marshal.dumps((each, of), 2) for each, of in zip(blocks, known, strict=True)
        ],
        "and read": lambda: [marshal.loads(each) for each in records],  # noqa: S302 - our own
        "str.upper alone": lambda: [each.data.upper() for each in messages],
        "the handler": lambda: [handle(each) for each in messages],
        "the subscriber": lambda: [take(each) for each in batches],
        "batches to the subscriber, acknowledged": lambda: [given.give(each) for each in handled],
    }


def _cut(values: Sequence[Any], size: int = CHUNK) -> list[list[Any]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def main() -> None:
    """Print a table, median and spread of the rounds, all parts in each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine())
    for size in ("small", "large"):
        frames = frames_of(size, None)[: 30 * CHUNK]
        parts = parts_of(frames)
        gc.collect()
        gc.freeze()  # what is kept here for the measuring is not in the collector's way
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
