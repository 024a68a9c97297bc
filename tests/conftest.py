from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rxtweets import telemetry

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OURS = ("rxtweets-", "simulator")
DEADLINE = 10.0


@pytest.fixture(autouse=True)
def _no_thread_outlives_a_test() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in before and thread.name.startswith(OURS):
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"{thread.name} is still there after the test"


@pytest.fixture(autouse=True)
def _event_threads_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LINGER", 0.01)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN", "RXTWEETS_BASE_URL")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in (*names, *proxies, *(proxy.lower() for proxy in proxies)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Real frames of X's stream, one a line."""
    return _shared("tweets.ndjson")


@pytest.fixture(scope="session")
def newer_description() -> Path:
    """X's description of its API, with the newer names."""
    return _shared("x-openapi-2.167.json")


@pytest.fixture(scope="session")
def older_description() -> Path:
    """X's description of its API, with the older names."""
    return _shared("x-openapi-2.159.json")


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here: real input lies beside a checkout, not in it")
    return path
