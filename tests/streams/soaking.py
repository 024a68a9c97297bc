"""Soak tests: a stream over connections that break often, in every way."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from rxtweets import Backoff, events, simulator
from rxtweets.simulator._tweets import snowflake
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
from rxtweets.streams._gaps import LATENESS, MARGIN
from tests.streams.watching import Watched

BETWEEN_FAULTS = 500
RATE = 1_000
SCALE = 0.004
"""A minute lasts 0.24 s."""

RECOVERED = 0.02
"""With backfill a minute lasts 1.2 s: five minutes are longer than a pause of the machine."""

TO_CONNECT = (MARGIN - LATENESS) * RECOVERED
"""Seconds that connecting may take. On an overloaded machine it can take longer; then the requested
backfill does not reach back far enough."""

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
    """Yield connections that end after 500 new tweets on average, and refused ones."""
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
    """Return all ids of the server from the first to the last."""
    timeline = x._api._content.timeline
    assert timeline is not None
    count = timeline.due()
    every = (snowflake(timeline.time_of(position), position) for position in range(count))
    return [identifier for identifier in every if first <= identifier <= last]


def slowest_to_connect(w: Watched) -> float:
    """Return the seconds that the slowest connect took."""
    began, slowest = 0.0, 0.0
    for event, at in zip(w.events, w.times, strict=False):
        if isinstance(event, events.Connecting):
            began = at
        elif isinstance(event, events.Connected):
            slowest = max(slowest, at - began)
    return slowest


class Soak:
    """A run of a stream: its messages, those of the server, its events and counters."""

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
            self.slowest = slowest_to_connect(w)
            self.every = ids_until(x, self.ids[0], max(self.ids))

    @property
    def missing(self) -> set[int]:
        return set(self.every) - set(self.ids)

    @property
    def reported(self) -> set[int]:
        bounds = [(int(gap.after), int(gap.before)) for gap in self.gaps if gap.before]
        return {
            identifier
            for identifier in self.every
            if any(low < identifier < high for low, high in bounds)
        }

    @classmethod
    def side_by_side(cls, tweets: int, runs: dict[str, dict[str, Any]]) -> dict[str, Self]:
        """Run several soaks concurrently: they mostly wait."""
        with ThreadPoolExecutor(len(runs)) as pool:
            futures = {name: pool.submit(cls, tweets, **options) for name, options in runs.items()}
            return {name: future.result() for name, future in futures.items()}


def every_line_is_accounted_for(soak: Soak) -> None:
    stats = soak.stats
    assert stats.connects > 100
    accounted = stats.delivered + stats.dropped + stats.undecodable + stats.control
    assert stats.received == accounted + stats.unsubscribed + stats.beyond_limit
    assert stats.delivered == len(soak.ids) + stats.duplicates


def nothing_came_twice(soak: Soak, tweets: int) -> None:
    assert len(soak.ids) == len(set(soak.ids)) == tweets


HTTP1: dict[str, Any] = {"http2": False}
HTTP2: dict[str, Any] = {"http1": False}
BACKFILL: dict[str, Any] = {"scale": RECOVERED, "backfill_minutes": "auto"}
