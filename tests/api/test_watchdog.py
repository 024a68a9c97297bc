from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rxtweets.api._watchdog import Watchdog

PATIENCE = 20.0
SECONDS = 0.02
"""Seconds of the patched clock; in real time only the interval between readings."""


class Watched:
    """A watchdog with a patched clock, and its callbacks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = threading.Semaphore(0)
        self.suspected, self.silent = threading.Event(), threading.Event()
        self.dog = Watchdog(SECONDS, self.silent.set, self.suspected.set)

    def clock(self) -> float:
        self.looks.release()
        return self.now

    def until_it_has_looked(self) -> None:
        for _ in range(3):  # the first may have read the time from before
            assert self.looks.acquire(timeout=PATIENCE)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched()
    monkeypatch.setattr("rxtweets.api._watchdog.monotonic", watched.clock)
    watched.dog.start()
    yield watched
    watched.dog.stop()


def test_watchdog_suspects_before_it_reports_silence(watched: Watched) -> None:
    watched.now = SECONDS * 0.8
    assert watched.suspected.wait(PATIENCE)
    assert not watched.silent.is_set()
    watched.now = SECONDS
    assert watched.silent.wait(PATIENCE)


def test_watchdog_reports_nothing_while_held(watched: Watched) -> None:
    watched.dog.hold()
    watched.now = SECONDS * 1_000
    while watched.looks.acquire(blocking=False):
        pass
    watched.until_it_has_looked()
    assert not watched.suspected.is_set()
    assert not watched.silent.is_set()


def test_watchdog_reports_silence_after_a_touch(watched: Watched) -> None:
    watched.dog.hold()
    watched.dog.touch()
    watched.now = SECONDS
    assert watched.silent.wait(PATIENCE)
