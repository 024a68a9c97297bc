"""The processor time of a dashboard, and of the pipeline that it shows.

::

    python -m tests.benchmarks.dashboard --rate 10000 --seconds 10 --runs 3

Prints the time of the thread that serves the page, as a share of one core, with 0, 1 and 20
viewers, and the time of the whole process beside it, with and without a page.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil

import rxtweets
from rxtweets import Batcher, Message, Pipeline, dashboard

VIEWERS = (None, 0, 1, 20)
"""``None``: no page."""

READ = """
import sys, httpx
with httpx.stream("GET", sys.argv[1], timeout=60) as answer:
    print("reading", flush=True)
    for _ in answer.iter_bytes():
        pass
"""


def upcase(message: Message[str]) -> Message[str]:
    return message.update_data(str.upper)


@contextlib.contextmanager
def viewing(url: str, viewers: int) -> Iterator[None]:
    """Read the page's moments in another process for each viewer."""
    command = [sys.executable, "-c", READ, f"{url}moments"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(viewers)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        yield
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def seconds_of(thread: int) -> float:
    """Return the processor time of a thread of this process."""
    threads = {found.id: found for found in psutil.Process().threads()}
    return threads[thread].user_time + threads[thread].system_time


def measure(pipeline: Pipeline, viewers: int | None, seconds: float) -> tuple[float, float, float]:
    """Return shares of a core of the page and of the process, and tweets per second."""
    with contextlib.ExitStack() as stack:
        thread = None
        if viewers is not None:
            page = stack.enter_context(dashboard.serve(pipeline, port=0))
            stack.enter_context(viewing(page.url, viewers))
            named = (one for one in threading.enumerate() if one.name == "rxtweets-dashboard")
            thread = next(named).native_id
        before = 0.0 if thread is None else seconds_of(thread)
        delivered, spent, began = pipeline.stats().delivered, time.process_time(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        used = 0.0 if thread is None else seconds_of(thread) - before
        rate = (pipeline.stats().delivered - delivered) / took
        return used / took, (time.process_time() - spent) / took, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    command = [sys.executable, "-m", "rxtweets", "simulate", "--rate", f"{options.rate}"]
    simulating = subprocess.Popen([*command, "--port", "8599"], stdout=subprocess.DEVNULL)
    stream = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:8599")
    batchers = {"default": Batcher(lambda _: None, size=20, timeout=2.0)}
    print(
        f"load {os.getloadavg()[0]:.1f}, {options.rate:,.0f} tweets/s, {options.seconds:g} s each"
    )
    try:
        with Pipeline(stream, handle_message=upcase, batchers=batchers) as pipeline:
            time.sleep(3.0)
            runs: dict[int | None, list[tuple[float, float, float]]] = {
                kind: [] for kind in VIEWERS
            }
            for _ in range(options.runs):
                for kind in VIEWERS:
                    runs[kind].append(measure(pipeline, kind, options.seconds))
    finally:
        simulating.kill()
        simulating.wait()
    for kind, found in runs.items():
        pages, processes, rates = zip(*found, strict=True)
        spread = f"[{min(pages):.2%} .. {max(pages):.2%}]"
        name = "no page" if kind is None else f"{kind} viewers"
        print(
            f"{name:>10}: page {statistics.median(pages):.2%} of a core {spread}, process "
            f"{statistics.median(processes):.1%}, {statistics.median(rates):,.0f} tweets/s"
        )


if __name__ == "__main__":
    main()
