"""A hundred thousand tweets over a connection that breaks all the time, in every way there is."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import rxtweets
from rxtweets import Backoff, events, simulator
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Fin,
    GoAway,
    KeepAlive,
    Line,
    Part,
    ResetStream,
    Serve,
    Stall,
    Step,
    provisioning,
    rate_limited,
    too_many_connections,
    unavailable,
)
from rxtweets.simulator.tweets import snowflake
from tests.streams.watching import Watched

TWEETS = 100_000
BETWEEN_FAULTS = 500
RATE = 1_000
SCALE = 0.004
"""An outage of a minute is 0.24 s."""

RECOVERED = 0.02
"""With backfill, a minute is 1.2 s: the five that it reaches are longer than a machine pauses."""

LIVE: dict[str, Any] = {"rate": RATE, "live": True, "buffer": 1_000_000, "connects": 10**6}
BREAKS: list[list[Step]] = [
    [Close()],
    [Abort()],
    [Abort(mid_frame=True)],
    [Fin()],
    [GoAway()],
    [GoAway(2)],
    [ResetStream()],
    [ResetStream(2)],
    [Disconnect(), Close()],
    [Disconnect("UpstreamOperationalDisconnect", wrapped=False), Fin()],
    [Disconnect("ForceDisconnect"), Stall()],
    [Stall()],
]
INTERLUDES: list[list[Step]] = [
    [Line(b'{"data":{"id":"5","text":"unfini')],
    [Line(b'{"type":"connection_metadata"}')],
    [Line(b'{"errors":[{"title":"Something else"}]}')],
    [KeepAlive(), KeepAlive()],
    [Stall(2.0)],
]
REFUSALS: list[Part] = [
    unavailable(503),
    unavailable(500),
    rate_limited(reset=0),
    too_many_connections(),
    provisioning(),
]


def faults(seed: int, scale: float) -> Generator[Part, simulator.Request, None]:
    """Connections that end after five hundred new tweets on average, and some that are refused."""
    rng = random.Random(seed)
    request = yield ()
    while True:
        if rng.random() < 0.15:
            request = yield rng.choice(REFUSALS)
        again = int(request.query.get("backfill_minutes", "0")) * 60 * scale * RATE
        part: list[Step] = [Serve(int(again + rng.expovariate(1 / BETWEEN_FAULTS)))]
        if rng.random() < 0.2:
            part += [*rng.choice(INTERLUDES), Serve(int(rng.expovariate(1 / BETWEEN_FAULTS)))]
        request = yield [*part, *rng.choice(BREAKS)]


def ids_until(x: simulator.Simulator, first: int, last: int) -> list[int]:
    """All ids that the server had from the first to the last."""
    timeline = x._api._content.timeline
    assert timeline is not None
    count = timeline.until(timeline.now())
    every = (snowflake(timeline.time_of(position), position) for position in range(count))
    return [each for each in every if first <= each <= last]


class Soak:
    """What arrived of a stream, what its server had, and what was said of it."""

    def __init__(self, tweets: int, seed: int, scale: float = SCALE, **options: Any) -> None:
        parts = faults(seed, scale)
        next(parts)
        lock = threading.Lock()

        def script(request: simulator.Request) -> Part:
            with lock:
                return parts.send(request)

        settings: dict[str, Any] = {
            "backoff": Backoff(scale=scale, proved_after=0.0),
            "stall_timeout": 0.2,
            "overflow": "block",
            "limit": tweets,
        }
        with (
            simulator.serve(script=script, time_scale=scale, **LIVE) as x,
            Watched(x, **(settings | options)) as w,
        ):
            w.patience = 400.0
            w.until_completed()
            assert w.stream.telemetry.bus.flush()
            self.ids = [int(message.id) for message in w.messages]
            self.stats = w.stream.stats()
            self.gaps: list[events.Gap] = w.of(events.Gap)
            self.every = ids_until(x, self.ids[0], max(self.ids))

    @property
    def missing(self) -> set[int]:
        return set(self.every) - set(self.ids)

    @property
    def reported(self) -> set[int]:
        bounds = [(int(gap.after), int(gap.before)) for gap in self.gaps if gap.before]
        return {each for each in self.every if any(low < each < high for low, high in bounds)}


HTTP1: dict[str, Any] = {"http2": False}
HTTP2: dict[str, Any] = {"http1": False}
BACKFILL: dict[str, Any] = {"scale": RECOVERED, "backfill_minutes": "auto"}
RUNS: dict[str, dict[str, Any]] = {
    "backfill over HTTP/1.1": {"seed": 1, **BACKFILL, **HTTP1},
    "backfill over HTTP/2": {"seed": 2, **BACKFILL, **HTTP2},
    "no backfill over HTTP/1.1": {"seed": 3, **HTTP1},
    "no backfill over HTTP/2": {"seed": 4, **HTTP2},
}


@pytest.fixture(scope="module")
def soaks() -> dict[str, Soak]:
    """All runs side by side: the clock is what they wait for."""
    with ThreadPoolExecutor(len(RUNS)) as pool:
        futures = {name: pool.submit(Soak, TWEETS, **options) for name, options in RUNS.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.xdist_group("soak")
@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", RUNS)
def test_every_line_of_a_soak_is_accounted_for(soaks: dict[str, Soak], name: str) -> None:
    stats = soaks[name].stats
    assert stats.connects > 100
    accounted = stats.delivered + stats.dropped + stats.undecodable + stats.control
    assert stats.received == accounted
    assert stats.delivered == TWEETS + stats.duplicates


@pytest.mark.xdist_group("soak")
@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", RUNS)
def test_nothing_comes_twice(soaks: dict[str, Soak], name: str) -> None:
    ids = soaks[name].ids
    assert len(ids) == len(set(ids)) == TWEETS


@pytest.mark.xdist_group("soak")
@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("backfill")])
def test_with_backfill_nothing_is_missing(soaks: dict[str, Soak], name: str) -> None:
    soak = soaks[name]
    assert soak.gaps == []
    assert soak.missing == set()


@pytest.mark.xdist_group("soak")
@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("no backfill")])
def test_without_backfill_what_is_missing_is_what_the_gaps_say(
    soaks: dict[str, Soak], name: str
) -> None:
    soak = soaks[name]
    assert soak.missing == soak.reported
    assert len(soak.missing) > 1_000
    assert soak.stats.gaps == len(soak.gaps) > 100


def test_a_short_soak_with_backfill_misses_nothing() -> None:
    soak = Soak(4_000, 5, **BACKFILL)
    assert len(soak.ids) == len(set(soak.ids)) == 4_000
    assert soak.gaps == []
    assert soak.missing == set()


RECONNECTS = 10_000
SETTLED = 2_000


@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts what /proc shows")
def test_ten_thousand_reconnects_leave_nothing_behind() -> None:
    process = psutil.Process()

    def held() -> tuple[int, int]:
        gc.collect()
        return process.memory_info().rss, len(list(Path("/proc/self/fd").iterdir()))

    def script(_: simulator.Request) -> Part:
        return [Serve(2), Close()]

    at_once = Backoff(scale=0.0, proved_after=0.0, connects=10**6)
    with simulator.serve(script=script, rate=None, connects=10**6) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url, backoff=at_once)
        with stream.subscribe():
            assert x.wait_for_requests(SETTLED, 400)
            rss, descriptors = held()
            threads = threading.active_count()
            assert x.wait_for_requests(RECONNECTS, 400)
            grown, descriptors_now = held()
            assert grown - rss < 12 * 2**20
            assert abs(descriptors_now - descriptors) <= 8
            assert abs(threading.active_count() - threads) <= 6
            assert stream.stats().reconnects >= RECONNECTS - 2
