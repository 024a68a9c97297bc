"""The README's pipeline over loopback HTTP, beside a naive composition of stock parts.

Stream → 50 processors that upcase the text → batches of 20 or 2 s → a subscriber that counts.
The simulator, the library and the naive composition of stock RxPY operators run in separate
processes. Runs alternate, so that a busy machine slows all of them. Times are from the first batch
to the last.

Usage: python tests/benchmarks/end_to_end.py [--runs 5] [--tweets 200000] [--chunking frame]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = Path(__file__).with_name("client.py")
FIGURES = {
    "tweets_per_second": "tweets/s",
    "cpu_seconds_per_million": "CPU s per million",
    "peak_rss_mb": "peak RSS in MB",
}


def main() -> None:
    """Measure and print; exit with 1 if the library is less than 20 times as fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--tweets", type=int, default=200_000, help="tweets of a run of the library"
    )
    parser.add_argument(
        "--naive-tweets", type=int, default=10_000, help="tweets of a run of the reference"
    )
    parser.add_argument("--chunking", default="frame", help="of the simulator: frame, read, bytes")
    parser.add_argument("--sizes", nargs="+", default=["small", "large"])
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, chunking {options.chunking}, "
        f"{'HTTP/2' if options.http2 else 'HTTP/1.1'}{', gzip' if options.gzip else ''}, "
        f"median [least .. most] of {options.runs}"
    )
    too_slow = [size for size in options.sizes if _compare(size, options) < 20]
    if too_slow:
        sys.exit(f"less than 20 times the naive composition: {', '.join(too_slow)}")


def _compare(size: str, options: argparse.Namespace) -> float:
    runs: dict[str, list[dict[str, float]]] = {"rxtweets": [], "naive": []}
    with _simulator(size, options.chunking) as url:
        for _ in range(options.runs):
            runs["rxtweets"].append(_run("rxtweets", url, options.tweets, options))
            runs["naive"].append(_run("naive", url, options.naive_tweets, options))
    for kind, figures in runs.items():
        shown = [
            f"{unit} {_spread([run[key] for run in figures])}" for key, unit in FIGURES.items()
        ]
        print(f"{size:>6}  {kind:>8}  " + "  ".join(shown))
    ours, naive = (
        statistics.median(run["tweets_per_second"] for run in runs[kind]) for kind in runs
    )
    print(f"{size:>6}  ratio {ours / naive:.1f}")
    return ours / naive


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} [{min(values):,.0f} .. {max(values):,.0f}]"


def _run(kind: str, url: str, tweets: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(CLIENT), kind, url, str(tweets)]
    command += ["--http2"] * options.http2 + ["--gzip"] * options.gzip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@contextmanager
def _simulator(size: str, chunking: str) -> Iterator[str]:
    command = [sys.executable, "-m", "rxtweets", "simulate", "--port", "0", "--json"]
    command += ["--rate", "max", "--size", size, "--chunking", chunking]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
