"""What the library can do, measured: each row beside its reference, in the same minutes.

Runs alternate between the library and its reference, so that a busy machine slows both. The server
(`server.py`) shares the machine; its own costs stand beside, and how long it waited for the client:
as long as that is not nothing, the client is the limit.

Usage: python -m tests.benchmarks.targets [ROW ...] [--runs 5] [--seconds 5] [--from FILE]
       --save JSON, --list, --curves DIRECTORY
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from tests.benchmarks.plot import Curve, plot

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD = 143_199
"""Tweets in the second from which they are counted: Twitter's record, 3 August 2013."""


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes:
        number: of the target.
        title: what is done.
        target: in words.
        work: for `workload.Workload`.
        server: arguments of `server.py`.
        reference: changes to the work for the run beside it.
        shown: figures beside the usual ones.
    """

    number: str
    title: str
    target: str
    work: Mapping[str, Any] = field(default_factory=dict)
    server: Sequence[str] = ()
    reference: Mapping[str, Any] | None = field(default_factory=lambda: {"kind": "naive"})
    shown: Sequence[str] = ()


ISOLATED = {"isolated": True}
NAIVE = {"kind": "naive", "isolated": False}
LARGE = ("--size", "large")
ROWS = [
    Row("1", "1 KB, isolated", f"{RECORD:,}/s", ISOLATED, (), NAIVE),
    Row("2", "1 KB, one process", "100,000/s"),
    Row(
        "3a", "1 KB, every field, isolated", "100,000/s", {**ISOLATED, "metadata": True}, (), NAIVE
    ),
    Row("3b", "1 KB, every field, one process", "70,000/s", {"metadata": True}),
    Row("4a", "2.5 KB, isolated", "60,000/s", ISOLATED, LARGE, NAIVE),
    Row("4b", "2.5 KB, one process", "60,000/s", {}, LARGE),
    Row("5a", "HTTP/2, 1 KB, one process", "80,000/s", {"http2": True}, ("--http2",)),
    Row(
        "5b", "HTTP/2, 1 KB, isolated", "80,000/s", {"http2": True, **ISOLATED}, ("--http2",), NAIVE
    ),
    Row("6a", "handlers that block 5 ms", "9,300/s", {"block": 0.005}),
    Row(
        "6b",
        "the same, 8,000/s offered: wait before the handler",
        "p99 10 ms",
        {"block": 0.005, "latency": True},
        ("--rate", "8000"),
        None,
        ("p50_ms", "p99_ms"),
    ),
    Row(
        "7",
        "1,000/s offered: from the socket to the handler",
        "p99 2 ms, 0.25 cores",
        {"latency": True},
        ("--rate", "1000"),
        None,
        ("p50_ms", "p99_ms"),
    ),
    Row(
        "8",
        "handlers that compute 1 ms on all processors, 10,000/s offered, isolated",
        "nothing unsent, all accounted",
        {**ISOLATED, "burn": 0.001, "overflow": "drop_oldest", "drain": True, "seconds": 30},
        ("--rate", "10000"),
        {"isolated": False},
        ("unaccounted", "dropped", "received"),
    ),
    Row(
        "9",
        "overload: handlers that block 5 ms, 20,000/s offered",
        "memory flat, drain 2 s",
        {"block": 0.005, "overflow": "drop_oldest", "drain": True, "seconds": 60},
        ("--rate", "20000"),
        None,
        ("drain_seconds", "unaccounted", "dropped"),
    ),
]
SUBSCRIBERS = (1, 2, 5, 10)
USUAL = {
    "tweets_per_second": "tweets/s",
    "cpu_seconds_per_million": "CPU s per million",
    "cores": "cores",
    "peak_rss_mb": "peak RSS MB",
}


class Bench:
    """Starts servers and runs.

    Args:
        runs: of each.
        seconds: of each run, where a row does not say otherwise.
        source: a file of frames, instead of simulated tweets.
    """

    def __init__(self, runs: int, seconds: float, source: str | None) -> None:
        self.runs = runs
        self._seconds = seconds
        self._source = ["--from", source] if source else []
        authority = trustme.CA()
        self._directory = tempfile.TemporaryDirectory()
        self._pem = Path(self._directory.name, "server.pem")
        self._cafile = Path(self._directory.name, "authority.pem")
        issued = authority.issue_cert("127.0.0.1")
        self._pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        authority.cert_pem.write_to_path(str(self._cafile))

    def run(self, work: Mapping[str, Any], server: Sequence[str]) -> dict[str, float]:
        """One run, and what the server says about it."""
        with self._server(server) as (url, ask):
            settings = {"url": url, "cafile": str(self._cafile), "seconds": self._seconds, **work}
            command = [sys.executable, str(HERE / "workload.py"), json.dumps(settings)]
            before, started = ask(), time.perf_counter()
            running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            unsent = 0
            while running.poll() is None:
                time.sleep(0.1)
                unsent = max(unsent, int(ask()["unsent"])) if server else unsent
            after, seconds = ask(), time.perf_counter() - started
        assert running.stdout is not None
        figures: dict[str, float] = json.loads(running.stdout.read())
        sent = max(1.0, after["sent"] - before["sent"])
        figures["server_cpu_seconds_per_million"] = (after["cpu"] - before["cpu"]) / sent * 1e6
        figures["server_waited_share"] = (after["waited"] - before["waited"]) / seconds
        figures["server_most_unsent_kb"] = unsent / 1024
        return figures

    @contextlib.contextmanager
    def _server(self, arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
        command = [sys.executable, str(HERE / "server.py"), "--cert", str(self._pem)]
        with subprocess.Popen(
            [*command, *arguments, *self._source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            source, sink = server.stdout, server.stdin

            def ask() -> dict[str, float]:
                sink.write("\n")
                answer: dict[str, float] = json.loads(source.readline())
                return answer

            port = json.loads(source.readline())["port"]
            try:
                yield f"https://127.0.0.1:{port}", ask
            finally:
                sink.close()


def measure(bench: Bench, row: Row) -> dict[str, Any]:
    """Print a row, and give its figures."""
    runs: dict[str, list[dict[str, float]]] = {"rxtweets": []}
    for _ in range(bench.runs):
        runs["rxtweets"].append(bench.run(row.work, row.server))
        if row.reference is not None:
            work = {**row.work, **row.reference}
            if work.get("kind") == "naive":
                work |= {"seconds": 3.0, "overflow": "block", "drain": False, "metadata": False}
            runs.setdefault("reference", []).append(bench.run(work, row.server))
    print(f"\n{row.number}. {row.title} (target: {row.target})")
    for kind, figures in runs.items():
        shown = list(USUAL) + [name for name in row.shown if name in figures[0]]
        if kind == "rxtweets":
            shown += ["server_waited_share", "server_cpu_seconds_per_million"]
            shown += ["server_most_unsent_kb"] if "--rate" in row.server else []
        for name in shown:
            print(f"   {kind:>9}  {USUAL.get(name, name):<32} {spread(figures, name)}")
    return {"row": row.number, "title": row.title, "target": row.target, "runs": runs}


def measure_subscribers(bench: Bench) -> dict[str, Any]:
    """What one more subscriber costs, as a share of the first."""
    runs: dict[str, list[dict[str, float]]] = {str(number): [] for number in SUBSCRIBERS}
    for _ in range(bench.runs):
        for number in SUBSCRIBERS:
            figures = bench.run({"subscribers": number}, ())
            # CPU for a tweet of the stream, not for one at a subscriber.
            figures["cpu_seconds_per_million"] *= number
            runs[str(number)].append(figures)
    print("\n10. Subscribers on one stream (target: 25 % of the first for each)")
    first = statistics.median(each["cpu_seconds_per_million"] for each in runs["1"])
    for name, several in runs.items():
        cost = statistics.median(each["cpu_seconds_per_million"] for each in several)
        extra = (cost - first) / first / max(1, int(name) - 1)
        print(
            f"   {name:>3}  CPU s per million tweets of the stream "
            f"{spread(several, 'cpu_seconds_per_million')}  each further one {extra:.0%}"
        )
    return {"row": "10", "title": "subscribers", "target": "25 %", "runs": runs}


IMPORT = """
import time, sys
import reactivex, httpx
start = time.perf_counter()
import rxtweets
print((time.perf_counter() - start) * 1000)
"""


def measure_import(bench: Bench) -> dict[str, Any]:
    """What importing takes beyond its two large dependencies."""
    times = []
    for _ in range(bench.runs):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True, cwd=ROOT
        )
        times.append({"ms": float(done.stdout)})
    print("\n11. import rxtweets, beyond reactivex and httpx (target: 150 ms)")
    print(f"   {spread(times, 'ms', 0)} ms")
    return {"row": "11", "title": "import", "target": "150 ms", "runs": {"rxtweets": times}}


def spread(figures: Sequence[Mapping[str, float]], name: str, digits: int | None = None) -> str:
    """Median, least and most."""
    values = [each[name] for each in figures]
    middle = statistics.median(values)
    digits = digits if digits is not None else (0 if middle >= 100 else 2)
    return f"{middle:,.{digits}f} [{min(values):,.{digits}f} .. {max(values):,.{digits}f}]"


def curves(bench: Bench, directory: Path) -> None:
    """How cost grows with rate, size, concurrency, batch size and subscribers, as SVG."""
    directory.mkdir(parents=True, exist_ok=True)
    rates = (100, 1_000, 10_000, 30_000, 60_000, 100_000, 150_000)
    plans: dict[str, tuple[str, Sequence[int], Any]] = {
        "rate": ("tweets/s offered", rates, lambda x: ({}, ("--rate", str(x)))),
        "concurrency": (
            "concurrency, handlers block 5 ms",
            (1, 5, 20, 50, 100, 200),
            lambda x: ({"concurrency": x, "block": 0.005}, ()),
        ),
        "batch": ("messages in a batch", (1, 5, 20, 100, 1000), lambda x: ({"batch": x}, ())),
        "subscribers": ("subscribers", SUBSCRIBERS, lambda x: ({"subscribers": x}, ())),
        "size": (
            "bytes of a tweet, mean",
            (959, 2500),
            lambda x: ({}, ("--size", "small" if x < 1000 else "large")),
        ),
    }
    for name, (label, values, plan) in plans.items():
        got: dict[str, list[float]] = {"tweets_per_second": [], "cores": []}
        for value in values:
            work, server = plan(value)
            runs = [bench.run(work, server) for _ in range(bench.runs)]
            for figure, points in got.items():
                points.append(statistics.median(each[figure] for each in runs))
            print(name, value, {figure: round(points[-1], 2) for figure, points in got.items()})
        drawn = [Curve(USUAL[figure], list(values), points) for figure, points in got.items()]
        (directory / f"{name}.svg").write_text(plot(label, drawn))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="such as 1 2 10; by default all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--from", dest="source", help="a file of frames, one a line")
    parser.add_argument("--save", type=Path, help="write all figures as JSON")
    parser.add_argument("--curves", type=Path, metavar="DIRECTORY", help="draw the curves")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            print(f"{row.number:>3}  {row.title} (target: {row.target})")
        return
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, median [least .. most] of {options.runs}"
    )
    bench = Bench(options.runs, options.seconds, options.source)
    if options.curves:
        curves(bench, options.curves)
        return
    wanted = options.rows or [row.number for row in ROWS] + ["10", "11"]
    results = [measure(bench, row) for row in ROWS if row.number in wanted]
    results += [measure_subscribers(bench)] if "10" in wanted else []
    results += [measure_import(bench)] if "11" in wanted else []
    if options.save:
        options.save.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
