"""Measurements of the library, each beside its references.

Runs alternate between the library and its references, so that a busy machine slows all of them.
The server (`server.py`) shares the machine; its costs and the limiting part are printed too.

Usage: python -m tests.benchmarks.targets [ROW ...] [--runs 5] [--seconds 5] [--from FILE]
       --only NAME ..., --save JSON, --markdown, --list, --curves DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import curves
from tests.benchmarks.foreign import CLIENTS, version_of
from tests.benchmarks.running import ROOT, Bench, Figures, Runs, machine, spread

RECORD = 143_199
"""Tweets in one second: Twitter's record, 3 August 2013."""

Work = Mapping[str, Any]
ISOLATED: Work = {"isolated": True}
NAIVE: Work = {
    "kind": "naive",
    "isolated": False,
    "seconds": 3.0,
    "overflow": "block",
    "drain": False,
    "metadata": False,
}
LARGE = ("--size", "large")
OTHERS: Mapping[str, Work] = {name: {"kind": name} for name in CLIENTS}
FROZEN: Mapping[str, Work] = {"frozen": {"freeze": True}, "naive": NAIVE}
PLAIN: Mapping[str, Work] = {"without [fast]": {"fast": False}}
INLINE: Mapping[str, Work] = {"one bare loop": {"kind": "inline"}}
ONE_CORE: Mapping[str, Work] = {"on one core": {"one_core": True}}
CORE_EACH: Mapping[str, Work] = {"on a core each": {"one_core": True}}
APART: Mapping[str, Work] = {**CORE_EACH, "naive": NAIVE}
USUAL: Mapping[str, Work] = {**ONE_CORE, **PLAIN, **INLINE, "naive": NAIVE}


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes:
        number: of the target.
        title: description of the work.
        target: in words.
        work: options of `workload.Workload`.
        server: arguments of `server.py`.
        beside: names of further runs, and the options in which their work differs.
        shown: further figures.
        runs: most runs.
    """

    number: str
    title: str
    target: str
    work: Work = field(default_factory=dict)
    server: Sequence[str] = ()
    beside: Mapping[str, Work] = field(default_factory=lambda: {"naive": NAIVE})
    shown: Sequence[str] = ()
    runs: int = 100


ROWS = [
    Row("1", "1 KB, isolated", f"{RECORD:,}/s", ISOLATED, beside=APART),
    Row("2", "1 KB, one process", "100,000/s", beside=USUAL),
    Row(
        "3a",
        "1 KB, every field, isolated",
        "100,000/s",
        {**ISOLATED, "metadata": True},
        beside={**CORE_EACH, **FROZEN},
    ),
    Row(
        "3b",
        "1 KB, every field, one process",
        "70,000/s",
        {"metadata": True},
        beside={**ONE_CORE, **PLAIN, **INLINE, **FROZEN},
    ),
    Row("4a", "2.5 KB, isolated", "60,000/s", ISOLATED, LARGE, APART),
    Row("4b", "2.5 KB, one process", "60,000/s", {}, LARGE, USUAL),
    Row(
        "5a",
        "HTTP/2, 1 KB, one process",
        "80,000/s",
        {"http2": True},
        ("--http2",),
        {**ONE_CORE, "naive": NAIVE},
    ),
    Row(
        "5b",
        "HTTP/2, 1 KB, isolated",
        "80,000/s",
        {"http2": True, **ISOLATED},
        ("--http2",),
        APART,
    ),
    Row("6a", "handlers that block 5 ms", "9,300/s", {"block": 0.005}),
    Row(
        "6b",
        "the same, 8,000/s offered: wait before the handler",
        "p99 10 ms",
        {"block": 0.005, "latency": True},
        ("--rate", "8000"),
        {},
        ("p50_ms", "p99_ms"),
    ),
    Row(
        "7",
        "1,000/s offered: from the socket to the handler",
        "p99 2 ms, 0.25 cores",
        {"latency": True},
        ("--rate", "1000"),
        {},
        ("p50_ms", "p99_ms"),
    ),
    Row(
        "8",
        "handlers that compute 1 ms on all processors, 10,000/s offered, isolated",
        "nothing unsent, all accounted",
        {**ISOLATED, "burn": 0.001, "overflow": "drop_oldest", "drain": True, "seconds": 30},
        ("--rate", "10000"),
        {"on a thread": {"isolated": False}},
        ("received", "dropped", "unaccounted", "drain_seconds"),
        runs=3,
    ),
    Row(
        "9",
        "overload: handlers that block 5 ms, 20,000/s offered for 60 s",
        "memory flat, at most 150 MB above idle; drain 2 s",
        {"block": 0.005, "overflow": "drop_oldest", "drain": True, "seconds": 60},
        ("--rate", "20000"),
        {},
        (
            "rss_first_quarter_mb",
            "rss_last_quarter_mb",
            "rss_above_idle_mb",
            "received",
            "dropped",
            "unaccounted",
            "drain_seconds",
        ),
        runs=3,
    ),
    Row(
        "12",
        "1 KB, beside the clients of others",
        "5 times the fastest of them",
        beside={
            **ONE_CORE,
            "isolated": ISOLATED,
            "on a core each": {**ISOLATED, "one_core": True},
            **INLINE,
            "naive": NAIVE,
            **OTHERS,
        },
    ),
    Row(
        "12b",
        "the same, with handlers that block 5 ms",
        "5 times the fastest of them",
        {"block": 0.005},
        beside={"isolated": ISOLATED, "naive": NAIVE, **OTHERS},
    ),
]
SHOWN = {
    "tweets_per_second": "tweets/s",
    "cpu_seconds_per_million": "CPU s per million",
    "cores": "cores",
    "peak_rss_mb": "peak RSS MB",
}
OURS = "rxtweets"
OURS_TOO = ("on one core", "isolated", "on a core each")


def measure(bench: Bench, row: Row, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print a row; return its figures.

    Args:
        bench: makes the runs.
        row: the row.
        only: names of further runs; ``None`` for all.
    """
    print(f"\n{row.number}. {row.title} (target: {row.target})", flush=True)
    works = {OURS: row.work}
    for name, changes in row.beside.items():
        if only is not None and name not in only:
            continue
        if name in CLIENTS and version_of(name) is None:
            print(f"   {name}: left out, it is not installed; the extra [foreign] has it")
        else:
            works[name] = {**row.work, **changes}
    runs: Runs = {name: [] for name in works}
    for _ in range(min(bench.runs, row.runs)):
        for name, work in works.items():
            runs[name].append(bench.run(work, row.server))
    for name, figures in runs.items():
        _show(name, figures, row)
    if "isolated" in runs:
        _show_ratios(runs)
    return {"row": row.number, "title": row.title, "target": row.target, "runs": runs}


def _show(name: str, figures: list[Figures], row: Row) -> None:
    label = f"{name} {version_of(name)}" if name in CLIENTS else name
    own = [name for name in row.shown if name in figures[0]]
    for figure in (*SHOWN, *own):
        print(f"   {label:>14}  {SHOWN.get(figure, figure):<24} {spread(figures, figure)}")
    if "--rate" in row.server:
        print(
            f"   {label:>14}  sent {spread(figures, 'server_sent_per_second')}/s; not taken from "
            f"the server, KB: p99 {spread(figures, 'unsent_kb_p99')}, "
            f"most {spread(figures, 'unsent_kb_max')}"
        )
    else:
        print(f"   {label:>14}  {_limit(figures)}")
    print(
        f"   {label:>14}  load before each run {spread(figures, 'load_before')}; before each run, "
        f"orjson alone decoded {spread(figures, 'orjson_per_second')} tweets/s on one core"
    )


def _limit(figures: Sequence[Figures]) -> str:
    """Return the part that limited the run: the client, the server or the machine."""
    rate, cost, cores, waited = (
        statistics.median(run[name] for run in figures)
        for name in (
            "server_sent_per_second",
            "server_cpu_seconds_per_million",
            "cores",
            "server_waited_share",
        )
    )
    server, there = rate * cost / 1e6, os.cpu_count() or 1
    limit = "the client"
    if server > 0.9:
        limit = "the SERVER"
    elif server + cores > 0.95 * there:
        limit = "the machine"
    return (
        f"the limit was {limit}: {cores:.2f} cores beside the server's {server:.2f}, of {there}; "
        f"the server spent {min(1.0, waited):.0%} of the time in sending and waiting"
    )


def _middle(figures: Sequence[Figures], name: str = "tweets_per_second") -> float:
    return float(statistics.median(run[name] for run in figures))


def _show_ratios(runs: Runs) -> None:
    """Print how many times as fast as the other clients each run was."""
    theirs = {name: _middle(figures) for name, figures in runs.items() if name in CLIENTS}
    for ours in (name for name in (OURS, *OURS_TOO, *INLINE) if name in runs):
        rate = _middle(runs[ours])
        for name in (name for name in ("naive", *theirs) if name in runs):
            print(f"   {ours} is {rate / _middle(runs[name]):.1f} times as fast as {name}")
        if theirs:
            fastest = max(theirs, key=theirs.__getitem__)
            print(f"   {ours} / {fastest}, the fastest of them: {rate / theirs[fastest]:.1f}")


SUBSCRIBERS: Mapping[str, tuple[str, Work]] = {
    "10a": ("pipelines on one stream, each with its own handlers and batches", {}),
    "10b": ("subscribers of one pipeline, by share()", {"shared": True}),
    "10c": ("pipelines as in 10a, on one core", {"one_core": True}),
    "10d": ("subscribers of the stream itself, message by message", {"direct": True}),
}


def measure_subscribers(bench: Bench, row: str) -> dict[str, Any]:
    """Measure the cost of a further subscriber, as a share of the first."""
    title, work = SUBSCRIBERS[row]
    runs: Runs = {str(number): [] for number in curves.SUBSCRIBERS}
    for _ in range(bench.runs):
        for number in curves.SUBSCRIBERS:
            figures = bench.run({**work, "subscribers": number}, ())
            # Per tweet of the stream, not per delivered tweet.
            figures["cpu_seconds_per_million"] *= number
            runs[str(number)].append(figures)
    print(f"\n{row}. {title} (target: 25 % of the first for each)")
    for name, several in runs.items():
        print(
            f"   {name:>3}  CPU s per million tweets of the stream "
            f"{spread(several, 'cpu_seconds_per_million')}, "
            f"peak RSS MB {spread(several, 'peak_rss_mb')}"
        )
        if name != "1":
            extras = [{"share": share} for share in _shares(runs, int(name))]
            print(f"   {name:>3}  each further one: {spread(extras, 'share', 0)} % of the first")
    return {"row": row, "title": title, "target": "25 %", "runs": runs}


def _shares(runs: Runs, number: int) -> list[float]:
    """Return shares in per cent, each run against the run beside it."""
    return [
        (several["cpu_seconds_per_million"] / first["cpu_seconds_per_million"] - 1)
        / (number - 1)
        * 100
        for first, several in zip(runs["1"], runs[str(number)], strict=True)
    ]


IMPORT = """
import time, sys
before = time.perf_counter()
import reactivex, httpx
start = time.perf_counter()
import rxtweets
print((time.perf_counter() - start) * 1000, (start - before) * 1000)
"""


def measure_import(bench: Bench) -> dict[str, Any]:
    """Measure the import, without its two large dependencies."""
    times = []
    # An installed package is compiled, whatever the environment sets. The first run compiles it.
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in range(bench.runs + 1):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        if not number:
            continue
        own, theirs = map(float, done.stdout.split())
        times.append({"ms": own, "reactivex_and_httpx_ms": theirs})
    print("\n11. import rxtweets, beyond reactivex and httpx (target: 150 ms)")
    print(f"   {spread(times, 'ms', 0)} ms; those two {spread(times, 'reactivex_and_httpx_ms', 0)}")
    return {"row": "11", "title": "import", "target": "150 ms", "runs": {OURS: times}}


def as_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the usual figures as a table, a line for each kind of run."""
    head = ("#", "work", "target", "what ran", *SHOWN.values(), "runs")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for result in results:
        about = [result["row"], result["title"], result["target"]]
        for name, figures in result["runs"].items():
            if all(figure in figures[0] for figure in SHOWN):
                values = [spread(figures, figure) for figure in SHOWN]
                lines.append("| " + " | ".join([*about, name, *values, str(len(figures))]) + " |")
                about = ["", "", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure the requested rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="such as 1 2 10; by default all")
    parser.add_argument(
        "--runs", type=int, help="of each kind; by default 5, and 3 for a curve's point"
    )
    parser.add_argument(
        "--seconds", type=float, help="of each run; by default 5, and 3 for a curve's point"
    )
    parser.add_argument("--from", dest="source", help="a file of frames, one a line")
    parser.add_argument("--only", nargs="+", help="only these further runs")
    parser.add_argument("--save", type=Path, help="write all figures as JSON")
    parser.add_argument("--markdown", action="store_true", help="a table at the end")
    parser.add_argument("--curves", type=Path, metavar="DIRECTORY", help="draw the curves")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    names = {row.number: f"{row.title} (target: {row.target})" for row in ROWS}
    names |= {row: f"{title} (target: 25 %)" for row, (title, _) in SUBSCRIBERS.items()}
    names["11"] = "import (target: 150 ms)"
    if options.list:
        for number, name in names.items():
            print(f"{number:>3}  {name}")
        return
    if unknown := set(options.rows) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; --list shows them")
    usual = 3 if options.curves else 5
    bench = Bench(options.runs or usual, options.seconds or usual, options.source)
    print(f"{machine()}\nmedian [least .. most] of {bench.runs}", flush=True)
    if options.curves:
        curves.draw(bench, options.curves)
        return
    wanted = options.rows or list(names)
    results = [measure(bench, row, options.only) for row in ROWS if row.number in wanted]
    results += [measure_subscribers(bench, row) for row in SUBSCRIBERS if row in wanted]
    results += [measure_import(bench)] if "11" in wanted else []
    if options.markdown:
        print(f"\n{as_markdown(results)}")
    if options.save:
        options.save.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
