"""Gaps between connections: backfill, deduplication and reports."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from tenacity import wait_fixed

import rxtweets
from rxtweets import Backoff, events, simulator
from rxtweets.simulator._tweets import SNOWFLAKE_EPOCH_MS
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Fin,
    Part,
    Reply,
    Serve,
    Stall,
    forbidden,
    provisioning,
    too_many_connections,
    unavailable,
)
from rxtweets.streams._buffer import Buffer
from rxtweets.streams._gaps import LATENESS, MARGIN, MOST_MINUTES
from rxtweets.streams._run import StreamRun
from tests.streams.watching import Watched

SCALE = 0.01
"""A minute lasts 0.6 s: backfill reaches back 3 s."""

SCALED = Backoff(scale=SCALE, proved_after=0.0)
LIVE: dict[str, Any] = {"rate": 500, "live": True, "time_scale": SCALE, "connects": 10_000}


def known(x: simulator.Simulator, messages: Iterable[rxtweets.Message[Any]]) -> list[str]:
    """Return all ids of the server from the first to the last of these, in order."""
    ids = sorted(int(message.id) for message in messages)
    content = x._api._content
    timeline, tweets = content.timeline, content.tweets()
    assert timeline is not None
    last = timeline.due()
    frames = (tweets.at(position, timeline.time_of(position)) for position in range(last))
    every = (orjson.loads(frame)["data"]["id"] for frame in frames if frame is not None)
    return [identifier for identifier in every if ids[0] <= int(identifier) <= ids[-1]]


def missing(x: simulator.Simulator, messages: Sequence[rxtweets.Message[Any]]) -> set[str]:
    return set(known(x, messages)) - {message.id for message in messages}


def inside(gaps: Iterable[events.Gap], ids: Iterable[str]) -> set[str]:
    """Return the ids that lie in the gaps."""
    bounds = [(int(gap.after), int(gap.before)) for gap in gaps]
    return {
        identifier
        for identifier in ids
        if any(low < int(identifier) < high for low, high in bounds)
    }


def written_at(identifier: str) -> float:
    """Return when the tweet with this id was written, in seconds since 1970."""
    return ((int(identifier) >> 22) + SNOWFLAKE_EPOCH_MS) / 1000


def until_after(w: Watched, kind: type[events.Event], more: int = 200) -> None:
    """Wait for an event of this kind, and for more messages after it."""
    w.until_event(kind)
    seen = len(w.messages)
    w.until_messages(seen + more)


# Gaps.


def test_gap_holds_the_missing_tweets_without_backfill() -> None:
    script: list[Part] = [[Serve(100), Abort(mid_frame=True)], unavailable()]
    with simulator.serve(script=script, **LIVE) as x, Watched(x, backoff=SCALED) as w:
        until_after(w, events.Gap)
        lost = missing(x, w.messages)
        assert lost == inside(w.of(events.Gap), known(x, w.messages))
        assert len(lost) > 10
        assert w.stream.stats().gaps == 1


def test_gap_has_start_and_end() -> None:
    script: list[Part] = [[Serve(100), Close()], unavailable()]
    with simulator.serve(script=script, **LIVE) as x, Watched(x, backoff=SCALED) as w:
        [gap] = w.until_event(events.Gap)
        by_id = {message.id: message for message in list(w.messages)}
        last = by_id[gap.after]
        assert last.created_at is not None
        assert timedelta(0) <= gap.end - gap.start
        assert abs(gap.start - last.created_at) < timedelta(seconds=2)
        w.until(lambda: any(message.id == gap.before for message in w.messages))


def test_auto_backfill_closes_the_gap() -> None:
    script: list[Part] = [[Serve(100), Abort(mid_frame=True)], unavailable(), [Serve(300), Close()]]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        w.until_event(events.BackfillRequested, 2)
        until_after(w, events.BackfillRequested)
        ids = [message.id for message in w.messages]
        assert missing(x, w.messages) == set()
        assert len(ids) == len(set(ids))
        stats = w.stream.stats()
        assert stats.duplicates > 0
        assert stats.gaps == 0
        assert w.of(events.Gap) == []


def needed(w: Watched, request: simulator.Request) -> int:
    """Return the minutes of backfill that reach the last message before a request."""
    at = request.at + time.time() - time.monotonic()
    last = max(
        message.received_at or 0.0 for message in w.messages if (message.received_at or 0.0) < at
    )
    return min(MOST_MINUTES, math.ceil(((at - last) / SCALE + MARGIN) / 60))


def test_auto_backfill_requests_the_minutes_of_the_gap() -> None:
    script: list[Part] = [[Serve(100), Close()], provisioning(), [Serve(2_000), Close()]]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        w.until_event(events.Connected, 3)
        first, *others = x.requests[:4]
        most = [needed(w, request) for request in others]
    assert "backfill_minutes" not in first.query
    asked = [int(request.query["backfill_minutes"]) for request in others]
    # The second connection waited for a minute of provisioning.
    least = [1, 2, 1]
    assert all(a <= b <= c for a, b, c in zip(least, asked, most, strict=True)), (asked, most)


def test_fixed_backfill_is_sent_with_every_connection() -> None:
    with (
        simulator.serve(script=[[Serve(10), Close()]], **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes=3) as w,
    ):
        w.until_event(events.Connected, 2)
        assert [request.query["backfill_minutes"] for request in x.requests[:2]] == ["3", "3"]


def test_gap_ends_where_backfill_reaches() -> None:
    # Seven failures take longer than five minutes: 5, 10 … 320 s.
    script: list[Part] = [[Serve(100), Close()], *[unavailable()] * 7]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        [gap] = w.until_event(events.Gap)
        until_after(w, events.Gap)
        assert x.requests[8].query["backfill_minutes"] == "5"
        lost = missing(x, w.messages)
        assert lost == inside([gap], known(x, w.messages))
        ids = [message.id for message in w.messages]
        assert len(ids) == len(set(ids))
        whole = sum(event.delay for event in w.of(events.Reconnecting))
        assert gap.end - gap.start < timedelta(seconds=whole)


def test_backfill_is_requested_once_when_refused() -> None:
    script: list[Part] = [[Serve(100), Close()], [Serve(100), Close()]]
    with (
        simulator.serve(script=script, backfill=False, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        w.until_event(events.BackfillRefused)
        w.until_event(events.Connected, 3)
        until_after(w, events.Gap)
        asked = ["backfill_minutes" in request.query for request in x.requests[:4]]
        assert asked == [False, True, False, False]
        assert w.stream.stats().gaps == 2


def test_backfill_refusal_is_known_by_its_status() -> None:
    script: list[Part] = [[Serve(100), Close()], forbidden()]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        w.until_event(events.BackfillRefused)
        until_after(w, events.Gap)
        asked = ["backfill_minutes" in request.query for request in x.requests[:3]]
        assert asked == [False, True, False]


def test_broken_backfill_is_requested_again() -> None:
    # The second connection delivers the fifty oldest tweets and breaks: the rest is missing.
    script: list[Part] = [[Serve(300), Close()], provisioning(), [Serve(50), Abort()]]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto") as w,
    ):
        w.until_event(events.BackfillRequested, 2)
        until_after(w, events.BackfillRequested, more=300)
        assert missing(x, w.messages) == set()
        assert w.of(events.Gap) == []


def test_failed_stream_reports_its_last_gap() -> None:
    script: list[Part] = [[Serve(20), Close()], forbidden()]
    with simulator.serve(script=script, **LIVE) as x, Watched(x, backoff=SCALED) as w:
        w.until_error()
        [gap] = w.until_event(events.Gap)
        assert gap.after == w.messages[-1].id
        assert gap.before == ""


def test_stopped_stream_reports_its_last_gap_when_backing_off() -> None:
    script: list[Part] = [[Serve(20), Close()], Reply(503, {})]
    backoff = Backoff(scale=SCALE, proved_after=0.0, server=wait_fixed(6000))
    with simulator.serve(script=script, **LIVE) as x, Watched(x, backoff=backoff) as w:
        w.until_event(events.Reconnecting, 2)
        w.stream.stop()
        [gap] = w.until_event(events.Gap)
        assert gap.after == w.messages[-1].id


# Restarts of the program.


def test_state_file_lets_the_next_run_request_backfill(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    options: dict[str, Any] = {
        "backoff": SCALED,
        "backfill_minutes": "auto",
        "state_file": path,
    }
    with simulator.serve(**LIVE) as x:
        with Watched(x, **options) as first:
            first.until_messages(200)
            first.stream.stop()
            first.until_completed()
        with Watched(x, **options) as second:
            second.until_messages(400)
            messages = [*first.messages, *second.messages]
            assert missing(x, messages) == set()
            assert second.of(events.Gap) == []
        assert [request.query.get("backfill_minutes") for request in x.requests] == [None, "1"]


def test_state_file_lets_the_next_run_report_the_gap(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backoff": SCALED, "state_file": tmp_path / "position.json"}
    with simulator.serve(**LIVE) as x:
        with Watched(x, **options) as first:
            first.until_messages(200)
            first.stream.stop()
            first.until_completed()
        with Watched(x, **options) as second:
            second.until_messages(100)
            [gap] = second.until_event(events.Gap)
            messages = [*first.messages, *second.messages]
            assert gap.after == first.messages[-1].id
            assert missing(x, messages) == inside([gap], known(x, messages))


# Replays.


def test_replay_delivers_its_time_span_and_completes() -> None:
    with simulator.serve(rate=200, live=True, history=60) as x:
        now = datetime.now(UTC).replace(microsecond=0)
        start, end = now - timedelta(seconds=30), now - timedelta(seconds=20)
        with Watched(
            x, rxtweets.filtered_stream, rules=["lang:en the"], start_time=start, end_time=end
        ) as w:
            w.until_completed()
    times = [message.created_at for message in w.messages]
    assert len(times) > 20
    assert all(time is not None and start <= time <= end for time in times)


@pytest.mark.parametrize("options", [{"http2": False}, {"http1": False}, {"fast_paths": False}])
@pytest.mark.parametrize("ending", [Abort(mid_frame=True), Fin()], ids=str)
def test_replay_continues_after_a_broken_connection(ending: Any, options: dict[str, Any]) -> None:
    script: list[Part] = [[Serve(700), ending], unavailable()]
    with simulator.serve(rate=200, live=True, history=60, script=script) as x:
        now = datetime.now(UTC).replace(microsecond=0)
        start, end = now - timedelta(seconds=30), now - timedelta(seconds=10)
        times = {"start_time": start, "end_time": end}
        with Watched(x, rxtweets.sample10_stream, partition=1, **times, **options) as w:
            w.until_completed()
            assert len(x.requests) == 3
    ids = [message.id for message in w.messages]
    assert len(ids) == len(set(ids)) == 2000
    assert w.of(events.Gap) == []


# Two connections with the same content.


def by_connection(number: int, part: Part) -> Any:
    """Return a script that plays this part on one connection, and streams on all others."""
    seen = 0

    def script(_: simulator.Request) -> Part:
        nonlocal seen
        seen += 1
        return part if seen == number else ()

    return script


@pytest.mark.parametrize("ending", [[Abort()], [Disconnect(), Close()], [Stall()]], ids=str)
def test_second_connection_covers_the_first(ending: list[Any]) -> None:
    script = by_connection(2, [Serve(100), *ending])
    with (
        simulator.serve(script=script, connections=2, **LIVE) as x,
        Watched(x, backoff=SCALED, connections=2, stall_timeout=0.5) as w,
    ):
        until_after(w, events.Disconnected, more=400)
        ids = [message.id for message in w.messages]
        assert missing(x, w.messages) == set()
        assert len(ids) == len(set(ids))
        assert w.of(events.Gap) == []
        assert w.stream.stats().gaps == 0


def test_gap_is_reported_when_both_connections_missed_it() -> None:
    closing: Part = [Serve(200), Close()]
    script = [closing, closing, *[unavailable()] * 6]
    with (
        simulator.serve(script=script, connections=2, **LIVE) as x,
        Watched(x, backoff=SCALED, connections=2) as w,
    ):
        w.until_event(events.Connected, 4)
        w.until_event(events.Gap)
        seen = len(w.messages)
        w.until_messages(seen + 200)
        assert len(missing(x, w.messages)) > 10
        assert w.stream.stats().gaps >= 1


def test_gap_is_not_reported_after_a_limit() -> None:
    with (
        simulator.serve(script=[[Serve(20), Close()], Reply(503, {})], **LIVE) as x,
        Watched(x, backoff=SCALED, limit=20) as w,
    ):
        w.until_completed()
        w.until_event(events.StreamEnded)
        assert w.of(events.Gap) == []
        assert len(x.requests) == 1


def test_gap_is_reported_before_the_second_connection() -> None:
    # X allows one connection here: the second one opens after the first has ended.
    script: list[Part] = [[Serve(100), Close()], *[unavailable()] * 4]
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, connections=2) as w,
    ):
        w.until_messages(300)
        w.stream.stop()
        w.until_completed()
        lost = missing(x, w.messages)
        gaps = w.until_event(events.Gap)
        assert len(lost) > 10
        spans = [(gap.start.timestamp(), gap.end.timestamp()) for gap in gaps]
        for written in map(written_at, lost):
            # Tweets are late: one written just before the gap can be missing.
            assert any(start - LATENESS * SCALE <= written <= end for start, end in spans)


def test_two_connections_with_backfill_deliver_once() -> None:
    closing: Part = [Serve(200), Close()]
    script = [closing, closing, *[unavailable()] * 6]
    with (
        simulator.serve(script=script, connections=2, **LIVE) as x,
        Watched(x, backoff=SCALED, connections=2, backfill_minutes="auto") as w,
    ):
        w.until_event(events.Connected, 4)
        seen = len(w.messages)
        w.until_messages(seen + 600)
        ids = [message.id for message in w.messages]
        assert missing(x, w.messages) == set()
        assert len(ids) == len(set(ids))
        assert w.of(events.Gap) == []


# Partitions.


def test_partitions_deliver_each_tweet_once() -> None:
    with simulator.serve(**LIVE) as x, Watched(x, rxtweets.firehose_stream, lang="en") as w:
        w.until_event(events.Connected, 8)
        seen = len(w.messages)
        w.until_messages(seen + 50)
        assert sorted(request.query["partition"] for request in x.requests) == list("12345678")
        ids = [message.id for message in w.messages]
        assert len(ids) == len(set(ids))
        assert {message.metadata["lang"] for message in w.messages} == {"en"}


def test_failed_partition_leaves_the_others_running() -> None:
    def script(request: simulator.Request) -> Part:
        return forbidden() if request.query["partition"] == "2" else ()

    with simulator.serve(script=script, **LIVE) as x, Watched(x, rxtweets.sample10_stream) as w:
        [ended] = w.until_event(events.PartEnded)
        until_after(w, events.PartEnded)
        first, second = w.stream.parts
        assert ended.part == "partition 2"
        assert isinstance(ended.error, rxtweets.errors.AccessError)
        assert (first.state.name, second.state.name) == ("connected", "failed")
        assert w.stream.state.name == "failed"
        assert second.stats().received == 0
        assert first.stats().connects == second.stats().connects == 1
        assert w.error is None


def test_reconnecting_partition_leaves_the_others_running() -> None:
    seen: set[str] = set()

    def script(request: simulator.Request) -> Part:
        partition = request.query["partition"]
        is_first = partition not in seen
        seen.add(partition)
        return [Serve(5), Close()] if is_first and partition == "2" else ()

    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, rxtweets.sample10_stream, backoff=SCALED) as w,
    ):
        w.until(lambda: sum(part.stats().connects for part in w.stream.parts) == 3)
        first, second = w.stream.parts
        w.until(lambda: second.state.name == "connected")
        assert (first.stats().connects, second.stats().connects) == (1, 2)
        assert w.stream.stats().connects == 3


def test_stream_fails_when_all_partitions_have_failed() -> None:
    with (
        simulator.serve(script=[forbidden()] * 2, **LIVE) as x,
        Watched(x, rxtweets.sample10_stream) as w,
    ):
        assert isinstance(w.until_error(), rxtweets.errors.AccessError)
        assert len(w.until_event(events.PartEnded, 2)) == 2


# Held connections, and costs.


def test_held_connection_is_awaited() -> None:
    script: list[Part] = [[Serve(10), Abort(noticed=False)]]
    with (
        simulator.serve(script=script, forget_after=20, **LIVE) as x,
        Watched(x, backoff=SCALED) as w,
    ):
        w.until_event(events.Connected, 2)
        statuses = [request.status for request in x.requests]
        assert statuses[:2] == [200, 429]
        assert statuses[-1] == 200
        assert w.stream.stats().connection_limits == len(statuses) - 2


def test_held_connection_can_be_freed() -> None:
    script: list[Part] = [[Serve(10), Abort(noticed=False)]]
    with (
        simulator.serve(script=script, forget_after=100_000, **LIVE) as x,
        Watched(x, backoff=SCALED, free_stale_connections=True) as w,
    ):
        [freed] = w.until_event(events.ConnectionsClosed)
        w.until_event(events.Connected, 2)
        assert freed.count == 1
        assert [(request.method, request.status) for request in x.requests[:4]] == [
            ("GET", 200),
            ("GET", 429),
            ("DELETE", 200),
            ("GET", 200),
        ]


def test_failed_freeing_is_reported() -> None:
    def script(request: simulator.Request) -> Part:
        return too_many_connections() if request.number <= 3 else ()

    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, free_stale_connections=True) as w,
    ):
        w.until_event(events.Connected)
        assert [event.count for event in w.of(events.ConnectionsClosed)] == [0, 0]


@pytest.mark.parametrize("source", [rxtweets.sample_stream, rxtweets.sample10_stream])
def test_limit_delivers_exactly_its_messages(source: Any) -> None:
    with simulator.serve(**LIVE) as x, Watched(x, source, limit=137) as w:
        w.until_completed()
        [reached] = w.until_event(events.LimitReached)
        assert len(w.messages) == reached.messages == w.stream.stats().delivered == 137


def test_counters_add_up_beyond_a_limit() -> None:
    with simulator.serve(**LIVE) as x, Watched(x, limit=20) as w:
        w.until_completed()
        w.until(lambda: balance(w.stream.stats()) == 0)
        assert w.stream.stats().dropped == 0
        assert w.stream.stats().delivered == 20


def test_limit_disconnects_before_subscribers_are_done() -> None:
    assert ends_before_its_subscriber_is_done()


def test_limit_disconnects_when_the_reader_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_within, admit, waits = Buffer._is_within_quota, StreamRun._admit, threading.Event()

    def noticed(buffer: Buffer) -> bool:
        is_within_quota = is_within(buffer)
        if not is_within_quota:
            waits.set()
        return is_within_quota

    def late(run: StreamRun, messages: list[rxtweets.Message[Any]]) -> list[rxtweets.Message[Any]]:
        assert waits.wait(20)
        return admit(run, messages)

    monkeypatch.setattr(Buffer, "_is_within_quota", noticed)
    monkeypatch.setattr(StreamRun, "_admit", late)
    assert ends_before_its_subscriber_is_done()


def ends_before_its_subscriber_is_done() -> bool:
    with simulator.serve(**LIVE) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url, limit=1)
        stopped, over, waited = threading.Event(), threading.Event(), list[bool]()

        def look(state: rxtweets.ConnectionState) -> None:
            if state.name == "stopped":
                stopped.set()

        with stream.states.subscribe(look):
            stream.subscribe(lambda _: waited.append(stopped.wait(20)), on_completed=over.set)
            assert over.wait(40)
        return waited == [True]


def balance(stats: rxtweets.Stats) -> int:
    booked = stats.delivered + stats.dropped + stats.unsubscribed + stats.beyond_limit
    return stats.received - booked - stats.undecodable - stats.control


@pytest.mark.parametrize("source", [rxtweets.sample_stream, rxtweets.sample10_stream])
def test_limit_of_time_completes_the_stream(source: Any) -> None:
    limit = timedelta(seconds=0.3)
    with simulator.serve(**LIVE) as x, Watched(x, source, limit=limit) as w:
        w.until_completed()
        w.until_event(events.LimitReached)
        assert w.stream.stats().delivered == len(w.messages)


def test_posts_today_counts_distinct_posts() -> None:
    script: list[Part] = [[Serve(100), Close()]] * 3
    with (
        simulator.serve(script=script, **LIVE) as x,
        Watched(x, backoff=SCALED, backfill_minutes="auto", limit=500) as w,
    ):
        w.until_completed()
        stats = w.stream.stats()
        beyond = w.until_event(events.LimitReached)[0].left_out
        assert stats.duplicates > 0
        assert 500 <= stats.posts_today <= 500 + beyond + stats.beyond_limit
