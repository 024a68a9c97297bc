"""One run of the README's pipeline over HTTP, in a separate process; prints its figures.

Usage: client.py {rxtweets,naive} URL TWEETS
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import reactivex
from reactivex import operators as stock
from reactivex.disposable import Disposable
from reactivex.scheduler import ThreadPoolScheduler

import rxtweets
from rxtweets import operators as ops

CONCURRENCY, SIZE, SECONDS = 50, 20, 2.0


class Meter:
    """Counts messages of batches up to a number; time runs from the first batch."""

    def __init__(self, tweets: int) -> None:
        self._tweets = tweets
        self.count = 0
        self.enough = threading.Event()
        self.started = 0.0
        self.first = 0

    def __call__(self, batch: Sequence[Any]) -> None:
        if not self.started:
            self.started = time.perf_counter()
            self.cpu = time.process_time()
            self.first = len(batch)
        self.count += len(batch)
        if self.count >= self._tweets and not self.enough.is_set():
            self.seconds = time.perf_counter() - self.started
            self.cpu = time.process_time() - self.cpu
            self.enough.set()


def run_rxtweets(url: str, meter: Meter) -> None:
    """Run the program of the README; it blocks instead of dropping, so that every tweet counts."""
    tweets = rxtweets.sample_stream(
        token="any",
        base_url=url,
        overflow="block",
        http1=_http1(),
        compress=_compressed(),
    )

    def upcase(message: rxtweets.Message[str]) -> rxtweets.Message[str]:
        return message.update_data(str.upper)

    batches = tweets.pipe(ops.process(upcase, concurrency=CONCURRENCY), ops.batch(SIZE, SECONDS))
    with batches.subscribe(meter):
        meter.enough.wait()


def run_naive(url: str, meter: Meter) -> None:
    """Run a pipeline of stock parts: httpx lines, flat_map on a thread pool, a buffer."""

    def read(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        encoding = "gzip" if _compressed() else "identity"
        headers = {"authorization": "Bearer any", "accept-encoding": encoding}
        with (
            httpx.Client(http1=_http1(), http2=not _http1(), timeout=None) as client,  # noqa: S113 - a stream has no end
            client.stream("GET", f"{url}/2/tweets/sample/stream", headers=headers) as response,
        ):
            for line in response.iter_lines():
                if meter.enough.is_set():
                    break
                if line:
                    room.acquire()
                    observer.on_next(orjson.loads(line))
        return Disposable()

    pool = ThreadPoolScheduler(CONCURRENCY)

    # `flat_map` is unbounded: without this limit, its backlog slows it further.
    room = threading.Semaphore(10 * CONCURRENCY)

    def upcase(tweet: dict[str, Any]) -> str:
        room.release()
        text: str = tweet["data"]["text"]
        return text.upper()

    def upcased(tweet: dict[str, Any]) -> reactivex.Observable[str]:
        # RxPY's documentation runs a function on a pool like this.
        return reactivex.just(tweet).pipe(stock.map(upcase), stock.subscribe_on(pool))

    source: reactivex.Observable[dict[str, Any]] = reactivex.create(read)
    batches: reactivex.Observable[list[str]] = source.pipe(
        stock.flat_map(upcased),
        stock.buffer_with_time_or_count(SECONDS, SIZE),
    )
    batches.filter(bool).subscribe(meter)


def _http1() -> bool:
    return "--http2" not in sys.argv


def _compressed() -> bool:
    return "--gzip" in sys.argv


def main() -> None:
    """Run a pipeline, and print its figures as one JSON object."""
    kind, url, tweets = sys.argv[1], sys.argv[2], int(sys.argv[3])
    meter = Meter(tweets)
    {"rxtweets": run_rxtweets, "naive": run_naive}[kind](url, meter)
    measured = meter.count - meter.first
    figures = {
        "tweets_per_second": measured / meter.seconds,
        "cpu_seconds_per_million": meter.cpu / measured * 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
