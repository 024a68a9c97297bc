from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from rxtweets._core import event_bus
from rxtweets.api import _client as client

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OURS = ("rxtweets-", "simulator")
DEADLINE = 10.0
OTHERS = {
    "test_dask",
    "test_lab",
    "test_notebooks",
    "test_notebook_pictures",
    "test_readme",
    "test_their_rules",
}
"""Files in which a cluster, a kernel or another client of X keeps sockets and processes open."""


SLOW = (
    "test_soak_with_backfill", "test_soak_without_backfill", "test_killed", "test_reconnects",
    "test_draining", "test_random_pipelines",
    "test_lab", "test_notebooks", "test_secrecy", "test_work", "test_threads", "test_isolated",
    "test_dashboard", "test_streaming", "test_commands", "test_main",
    "test_real_frames", "test_grammar", "test_schema", "test_bounds",
)  # fmt: skip
"""Files that take longest, besides those of brokers: they come first, so that all end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files of brokers, whose tests wait for leases, among those that compute."""
    files = [list(part) for _, part in groupby(items, key=lambda item: item.path)]
    waiting = [part for part in files if part[0].path.parent.name == "brokers"]
    others = [part for part in files if part[0].path.parent.name != "brokers"]
    others.sort(key=lambda part: SLOW.index(name) if (name := part[0].path.stem) in SLOW else 99)
    mixed: list[pytest.Item] = []
    while waiting or others:  # the former are through after two thirds of the latter
        for part in (*waiting[:1], *others[:3]):
            mixed += part
        waiting, others = waiting[1:], others[3:]
    items[:] = mixed


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test(request: pytest.FixtureRequest) -> Iterator[None]:
    threads, sockets, processes = set(threading.enumerate()), open_sockets(), child_processes()
    yield
    for thread in threading.enumerate():
        is_ours = thread.name.startswith(OURS) or isinstance(thread, threading.Timer)
        if thread not in threads and is_ours:
            # A thread that is starting is listed here, but cannot be joined yet.
            thread._started.wait(DEADLINE)  # type: ignore[attr-defined]
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"{thread.name} is left after the test"
    for kind, before, current in (
        ("sockets", sockets, open_sockets),
        ("processes", processes, child_processes),
    ):
        if request.path.stem in OTHERS:
            continue
        deadline = time.monotonic() + DEADLINE
        while left := current() - before:
            gc.collect()  # a client that a test forgot is not a leak of ours
            assert time.monotonic() < deadline, f"{kind} left after the test: {left}"
            threading.Event().wait(0.02)


def open_sockets() -> set[str]:
    """The sockets of this process; none where the system has no ``/proc``."""
    found = set()
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}


def child_processes() -> set[str]:
    """The child processes, without the one that multiprocessing keeps."""
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= set(children.read_text().split())
    return {process for process in found if b"resource_tracker" not in command_of(process)}


def command_of(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b"resource_tracker"  # gone meanwhile


@pytest.fixture(autouse=True)
def _event_threads_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_bus, "LINGER", 0.01)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN", "RXTWEETS_BASE_URL")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*names, *proxies, *(proxy.lower() for proxy in proxies)):
        monkeypatch.delenv(name, raising=False)


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    params: dict[str, str]
    body: Any


class Stub:
    """A server of fixed answers, over real HTTP: a body, or status and body, or headers too."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.authorizations: list[str] = []
        self._answers: list[Any] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.answer_to(self)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the names that are called

            def log_message(self, *_: object) -> None:
                """Do not log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answers(self, *answers: Any) -> None:
        """Set the answers to the next requests."""
        self._answers += answers

    def answer_to(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        sent = request.rfile.read(int(request.headers.get("content-length") or 0))
        body = orjson.loads(sent) if sent else None
        self.asked.append(Asked(request.command, url.path, dict(parse_qsl(url.query)), body))
        self.authorizations.append(request.headers.get("authorization") or "")
        answer = self._answers.pop(0) if self._answers else (599, {"title": "no answer left"})
        status, content, *more = answer if isinstance(answer, tuple) else (200, answer)
        raw = content if isinstance(content, bytes) else orjson.dumps(content)
        if status is None:
            request.connection.close()
            return
        request.send_response(status)
        for name, value in {**(more[0] if more else {}), "content-length": str(len(raw))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(raw)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A server of fixed answers; the client retries without a pause."""
    monkeypatch.setattr(client, "PAUSE", 0.0)
    server = Stub()
    yield server
    server.close()


@pytest.fixture
def other_stub() -> Iterator[Stub]:
    """Another one, on another port."""
    server = Stub()
    yield server
    server.close()


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Real frames of X's stream, one a line."""
    return _shared("tweets.ndjson")


@pytest.fixture(scope="session")
def newer_description() -> Path:
    """The OpenAPI description of X, with the newer names."""
    return _shared("x-openapi-2.167.json")


@pytest.fixture(scope="session")
def older_description() -> Path:
    """The OpenAPI description of X, with the older names."""
    return _shared("x-openapi-2.159.json")


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is missing: real input is not part of the repository")
    return path
