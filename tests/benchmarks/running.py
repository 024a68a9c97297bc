"""Servers and measured runs, in separate processes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
import trustme

from tests.benchmarks.server import frames_of

__all__ = ["ROOT", "Bench", "Figures", "Runs", "machine", "spread"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

GAUGED = 0.3
"""Seconds for which the speed of the machine is measured before each run."""

SAMPLE = 500
"""Tweets that are decoded to measure it."""

LOOK = 0.05
"""Seconds between two checks of the server's send buffer."""

Figures = dict[str, Any]
"""The results of one run: numbers, or series over time, by name."""

Runs = dict[str, list[Figures]]
"""Several runs of each kind."""

Ask = Callable[[], dict[str, float]]


class Bench:
    """Starts servers and measured runs.

    Args:
        runs: number of runs of each kind.
        seconds: of each run, unless a row sets another duration.
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

    def run(self, work: Mapping[str, Any], server: Sequence[str]) -> Figures:
        """Run once; return the figures of the run and of its server."""
        before = {"load_before": os.getloadavg()[0], "orjson_per_second": _orjson_alone()}
        with self._server(server) as (url, ask):
            settings = {"url": url, "cafile": str(self._cafile), "seconds": self._seconds, **work}
            command = [sys.executable, str(HERE / "workload.py"), json.dumps(settings)]
            # The other clients read the trusted authority from REQUESTS_CA_BUNDLE only.
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "REQUESTS_CA_BUNDLE": str(self._cafile),
            }
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            ) as running:
                figures = _followed(running, ask)
        return {**before, **figures}

    @contextlib.contextmanager
    def _server(self, arguments: Sequence[str]) -> Iterator[tuple[str, Ask]]:
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
            alone = threading.Lock()

            def ask() -> dict[str, float]:
                with alone:
                    sink.write("\n")
                    answer: dict[str, float] = json.loads(source.readline())
                return answer

            port = json.loads(source.readline())["port"]
            try:
                yield f"https://127.0.0.1:{port}", ask
            finally:
                sink.close()


@functools.cache
def _sample() -> list[bytes]:
    return frames_of("small", None)[:SAMPLE]


def _orjson_alone() -> float:
    """Return the machine's speed: tweets of 1 KB that orjson decodes per CPU second."""
    took = []
    until = time.perf_counter() + GAUGED
    while time.perf_counter() < until:
        start = time.thread_time()
        for frame in _sample():
            orjson.loads(frame)
        took.append(time.thread_time() - start)
    return len(_sample()) / statistics.median(took)


def _followed(running: subprocess.Popen[str], ask: Ask) -> Figures:
    """Return the figures of the run, and those of the server from its start to its end."""
    assert running.stdout is not None
    assert running.stderr is not None
    output: list[str] = []
    errors = threading.Thread(target=lambda: output.extend(running.stderr or ()), daemon=True)
    errors.start()
    marks: dict[str, dict[str, float]] = {}
    unsent: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            unsent.append(int(ask()["unsent"]))

    looking = threading.Thread(target=look, daemon=True)
    last = ""
    for line in running.stdout:
        last = line.strip()
        if last in {"begin", "end"}:
            marks[last] = {**ask(), "at": time.perf_counter()}
        if last == "begin":
            looking.start()
        if last == "end":
            over.set()
            looking.join()
    over.set()
    errors.join()
    if running.wait() or len(marks) < 2:
        raise RuntimeError(f"the run failed with {running.returncode}:\n{''.join(output[-20:])}")
    figures: Figures = json.loads(last)
    before, after = marks["begin"], marks["end"]
    took, sent = after["at"] - before["at"], max(1.0, after["sent"] - before["sent"])
    ordered = sorted(unsent) or [0]
    figures |= {
        "server_cpu_seconds_per_million": (after["cpu"] - before["cpu"]) / sent * 1e6,
        "server_waited_share": (after["waited"] - before["waited"]) / took,
        "server_sent_per_second": sent / took,
        "unsent_kb_p99": ordered[int(len(ordered) * 0.99)] / 1024,
        "unsent_kb_max": ordered[-1] / 1024,
        "unsent_kb": [round(size / 1024, 1) for size in unsent],
    }
    return figures


def spread(figures: Sequence[Figures], name: str, digits: int | None = None) -> str:
    """Return the median, the least and the most as text."""
    values = [run[name] for run in figures]
    middle = statistics.median(values)
    digits = digits if digits is not None else (0 if abs(middle) >= 100 else 2)
    return f"{middle:,.{digits}f} [{min(values):,.{digits}f} .. {max(values):,.{digits}f}]"


def machine() -> str:
    """Return the hardware, the system and the versions as text."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if "model name" in line), model)
    memory = psutil.virtual_memory().total / 2**30
    parts = ("rxtweets", "reactivex", "httpx", "httpcore", "orjson")
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, {platform.system()} "
        f"{platform.release()}, load {os.getloadavg()[0]:.1f}\n"
        f"Python {platform.python_version()}, "
        + ", ".join(f"{part} {version(part)}" for part in parts)
    )
