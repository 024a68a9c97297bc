"""Merged streams over fake parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from reactivex import abc
from reactivex.disposable import Disposable

import rxtweets
from rxtweets import ConnectionState, Message, events
from rxtweets._core.connection_state import StateName
from rxtweets._core.telemetry import Telemetry
from rxtweets.streams._base import HotStream
from rxtweets.streams._billing import Limit, PostMeter, Quota
from rxtweets.streams._merged import MergedStream
from rxtweets.streams._single import LiveStream

NOON = datetime(2126, 3, 1, 12, tzinfo=UTC)
FATAL = rxtweets.errors.AccessError("403", 403, "", {})


class Part(HotStream[Any]):
    """A fake part of a merged stream."""

    def __init__(self) -> None:
        super().__init__(self._join, Telemetry())
        self.observers: list[abc.ObserverBase[list[Message[Any]]]] = []
        self.disposals = 0
        self.stops = 0
        self.refusal: Exception | None = None
        self.greeting: tuple[int, ...] = ()
        self.quota: Quota | None = None
        self._is_sending = False
        self.telemetry.show("state", lambda: self.state.name)
        self._state = ConnectionState("idle")

    @property
    def state(self) -> ConnectionState:
        return self._state

    def stop(self) -> None:
        self.stops += 1
        if not self._is_sending:  # a connection, too, delivers the current chunk first
            self.end(None)

    def enter(self, name: StateName) -> None:
        self._state = ConnectionState(name, number=self.telemetry.count_states())
        self.report_event(events.StateChanged(self._state))

    def report_event(self, event: events.Event) -> None:
        self.telemetry.publish(event)
        assert self.telemetry.bus.flush()

    def send(self, *ids: int) -> None:
        self.telemetry.add(received=len(ids), delivered=len(ids))
        stops, self._is_sending = self.stops, True
        for observer in self.observers:
            observer.on_next([Message(f"tweet {number}", {"id": number}) for number in ids])
        self._is_sending = False
        if self.stops > stops:
            self.end(None)

    def end(self, error: rxtweets.errors.StreamError | None) -> None:
        observers, self.observers = self.observers, []
        if observers:
            self.report_event(events.StreamEnded(error))
        for observer in observers:
            if error is None:
                observer.on_completed()
            else:
                observer.on_error(error)

    def _join(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        if self.refusal is not None:
            raise self.refusal
        self.observers.append(observer)
        if self.greeting:
            self.send(*self.greeting)
        return Disposable(self._leave)

    def _leave(self) -> None:
        self.disposals += 1
        self.observers.clear()


class Taker:
    """Records the messages and the end of a subscription."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.error: Exception | None = None
        self.completed = 0

    def subscribe(self, stream: MergedStream) -> abc.DisposableBase:
        return stream.subscribe(
            lambda message: self.ids.append(message.id), self._fail, self._complete
        )

    def _fail(self, error: Exception) -> None:
        self.error = error

    def _complete(self) -> None:
        self.completed += 1


@pytest.fixture
def parts() -> Iterator[dict[str, Part]]:
    several = {"partition 1": Part(), "partition 2": Part()}
    yield several
    for part in several.values():
        part.end(None)


def merged(parts: dict[str, Part], **options: Any) -> MergedStream:
    settings: dict[str, Any] = {"is_redundant": False, "limit": Limit(), "meter": None}
    return MergedStream(cast("dict[str, LiveStream]", parts), **(settings | options))


def recorded_events(stream: MergedStream) -> list[events.Event]:
    """Return a list that gets every later event."""
    found: list[events.Event] = []
    stream.telemetry.bus.events.subscribe(found.append)
    return found


def flush(stream: MergedStream) -> None:
    assert stream.telemetry.bus.flush()


def test_merge_subscribes_with_the_first_subscriber(parts: dict[str, Part]) -> None:
    merged(parts)
    assert [part.observers for part in parts.values()] == [[], []]


def test_merge_delivers_messages_of_all_parts(parts: dict[str, Part]) -> None:
    taker = Taker()
    one, two = parts.values()
    with taker.subscribe(merged(parts)):
        one.send(1, 2)
        two.send(3)
        one.send(4)
    assert taker.ids == ["1", "2", "3", "4"]


def test_merge_shares_its_parts(parts: dict[str, Part]) -> None:
    stream, first, second = merged(parts), Taker(), Taker()
    one, _ = parts.values()
    with first.subscribe(stream), second.subscribe(stream):
        assert len(one.observers) == 1
        one.send(1)
    assert first.ids == second.ids == ["1"]


def test_last_subscriber_disposes_of_every_part(parts: dict[str, Part]) -> None:
    stream, first, second = merged(parts), Taker(), Taker()
    ones, twos = first.subscribe(stream), second.subscribe(stream)
    ones.dispose()
    assert [part.disposals for part in parts.values()] == [0, 0]
    twos.dispose()
    assert [part.disposals for part in parts.values()] == [1, 1]


def test_failed_part_leaves_the_others_running(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    seen = recorded_events(stream)
    one, two = parts.values()
    with taker.subscribe(stream):
        one.end(FATAL)
        two.send(7)
        assert (taker.ids, taker.error, taker.completed) == (["7"], None, 0)
        flush(stream)
    assert events.PartEnded(FATAL, part="partition 1") in seen


def test_first_error_ends_the_merge_after_the_last_part(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    seen = recorded_events(stream)
    one, two = parts.values()
    taker.subscribe(stream)
    one.end(FATAL)
    two.end(rxtweets.errors.AuthenticationError("401", 401, "", {}))
    assert (taker.error, taker.completed) == (FATAL, 0)
    flush(stream)
    assert seen.count(events.StreamEnded(FATAL)) == 1


def test_merge_completes_with_the_last_part(parts: dict[str, Part]) -> None:
    taker = Taker()
    taker.subscribe(merged(parts))
    one, two = parts.values()
    one.end(None)
    assert taker.completed == 0
    two.end(None)
    assert (taker.completed, taker.error) == (1, None)


def test_stop_stops_every_part(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    taker.subscribe(stream)
    stream.stop()
    assert [part.stops for part in parts.values()] == [1, 1]
    assert taker.completed == 1


def test_stop_completes_when_a_part_has_failed(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    seen = recorded_events(stream)
    taker.subscribe(stream)
    parts["partition 1"].end(FATAL)
    stream.stop()
    assert (taker.completed, taker.error) == (1, None)
    flush(stream)
    assert events.PartEnded(FATAL, part="partition 1") in seen
    assert events.StreamEnded(None) in seen


def test_limit_completes_when_a_part_has_failed(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, limit=Limit(messages=1)), Taker()
    taker.subscribe(stream)
    parts["partition 1"].end(FATAL)
    parts["partition 2"].send(1)
    assert (taker.completed, taker.error) == (1, None)


def test_later_subscription_starts_a_new_run(parts: dict[str, Part]) -> None:
    stream, first, second = merged(parts), Taker(), Taker()
    first.subscribe(stream)
    stream.stop()
    with second.subscribe(stream):
        parts["partition 1"].send(1)
    assert (first.ids, second.ids) == ([], ["1"])


def test_part_that_cannot_start_is_reported(parts: dict[str, Part]) -> None:
    one, two = parts.values()
    two.refusal = rxtweets.ConfigurationError("state_file= is no file")
    stream, taker = merged(parts), Taker()
    seen = recorded_events(stream)
    with taker.subscribe(stream):
        one.send(1)
    assert taker.ids == ["1"]
    flush(stream)
    assert events.PartEnded(two.refusal, part="partition 2") in seen


def test_part_that_gets_no_thread_ends_alone(parts: dict[str, Part]) -> None:
    one, two = parts.values()
    two.refusal = RuntimeError("can't start new thread")
    stream, taker = merged(parts), Taker()
    seen = recorded_events(stream)
    with taker.subscribe(stream):
        one.send(1)
    assert taker.ids == ["1"]
    flush(stream)
    [ended] = [event for event in seen if isinstance(event, events.PartEnded)]
    assert ended.part == "partition 2"
    assert ended.error is not None
    assert ended.error.__cause__ is two.refusal


def test_stats_sum_up_the_parts(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    one, two = parts.values()
    with taker.subscribe(stream):
        one.send(1, 2)
        two.send(3)
        one.telemetry.add(reconnects=2)
        stats = stream.stats()
        assert (stats.received, stats.delivered, stats.reconnects) == (3, 3, 2)
        assert one.stats().delivered == 2


def test_parts_are_the_streams(parts: dict[str, Part]) -> None:
    assert merged(parts).parts == tuple(parts.values())


def test_state_is_furthest_from_connected(parts: dict[str, Part]) -> None:
    stream = merged(parts)
    one, two = parts.values()
    one.enter("connected")
    two.enter("connecting")
    assert (stream.state.name, stream.stats().state) == ("connecting", "connecting")
    two.enter("connected")
    assert str(stream.state) == "connected"
    one.enter("failed")
    assert str(stream.state) == "failed"


def test_states_of_a_merge_do_not_repeat(parts: dict[str, Part]) -> None:
    stream = merged(parts)
    names: list[str] = []
    with stream.states.subscribe(lambda state: names.append(state.name)):
        one, two = parts.values()
        names_of_states: tuple[StateName, ...] = ("connecting", "connected")
        for name in names_of_states:
            one.enter(name)
            two.enter(name)
            flush(stream)
    assert names == ["idle", "connecting", "connected"]


def test_events_of_parts_carry_their_names(parts: dict[str, Part]) -> None:
    stream = merged(parts)
    seen = recorded_events(stream)
    parts["partition 2"].report_event(events.Connected(3, "HTTP/2"))
    flush(stream)
    assert seen == [events.Connected(3, "HTTP/2", part="partition 2")]


def test_gaps_of_partitions_are_all_reported(parts: dict[str, Part]) -> None:
    stream = merged(parts)
    seen = recorded_events(stream)
    gap = events.Gap(NOON, NOON + timedelta(seconds=5), "1", "2")
    for part in parts.values():
        part.telemetry.add(gaps=1)
        part.report_event(gap)
    flush(stream)
    assert [event.part for event in seen] == ["partition 1", "partition 2"]
    assert stream.stats().gaps == 2


def between(start: float, end: float) -> events.Gap:
    return events.Gap(NOON + timedelta(seconds=start), NOON + timedelta(seconds=end), "", "")


@pytest.mark.parametrize(
    ("ones", "twos", "common"),
    [
        ([(0, 10)], [], []),
        ([(0, 10)], [(10, 20)], []),
        ([(0, 10)], [(5, 20)], [(5, 10)]),
        ([(0, 10)], [(2, 4)], [(2, 4)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(5, 10), (20, 25)]),
    ],
)
def test_redundant_gap_is_the_overlap(
    parts: dict[str, Part], ones: list[Any], twos: list[Any], common: list[Any]
) -> None:
    stream = merged(parts, is_redundant=True)
    for part in parts.values():
        part.report_event(events.Connected(1, "HTTP/2"))
    flush(stream)
    seen = recorded_events(stream)
    for part, gaps in zip(parts.values(), (ones, twos), strict=True):
        for start, end in gaps:
            part.telemetry.add(gaps=1)
            part.report_event(between(start, end))
    flush(stream)
    assert seen == [between(start, end) for start, end in common]
    assert stream.stats().gaps == len(common)


def test_redundant_gap_is_reported_when_the_other_part_ended(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, is_redundant=True), Taker()
    one, two = parts.values()
    with taker.subscribe(stream):
        one.report_event(events.Connected(1, "HTTP/2"))
        one.enter("failed")
        later = datetime.now(UTC) + timedelta(seconds=60)
        two.report_event(events.Gap(later, later + timedelta(seconds=5), "1", "2"))
        assert stream.stats().gaps == 1


def test_redundant_gap_is_reported_once(
    parts: dict[str, Part],
) -> None:
    stream = merged(parts, is_redundant=True)
    one, two = parts.values()
    one.report_event(events.Connected(1, "HTTP/2"))
    flush(stream)
    seen = recorded_events(stream)
    one.report_event(between(0, 5))
    two.report_event(between(-10, 10))
    flush(stream)
    assert seen == [between(0, 5)]


def test_redundant_gap_ends_when_a_part_reconnects(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, is_redundant=True), Taker()
    one, two = parts.values()
    with taker.subscribe(stream):
        one.enter("failed")
        one.report_event(events.Connected(2, "HTTP/2"))
        later = datetime.now(UTC) + timedelta(seconds=60)
        two.report_event(events.Gap(later, later + timedelta(seconds=5), "1", "2"))
        assert stream.stats().gaps == 0


def test_redundant_messages_are_delivered_once(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, is_redundant=True), Taker()
    one, two = parts.values()
    with taker.subscribe(stream):
        one.send(1, 2)
        two.send(1, 2, 3)
        one.send(3)
        stats = stream.stats()
    assert taker.ids == ["1", "2", "3"]
    assert (stats.delivered, stats.duplicates) == (6, 3)


def test_message_is_new_again_when_all_had_left(
    parts: dict[str, Part],
) -> None:
    stream, taker = merged(parts, is_redundant=True), Taker()
    one = parts["partition 1"]
    subscription = Taker().subscribe(stream)
    [late] = one.observers
    subscription.dispose()
    late.on_next([Message("tweet 1", {"id": 1})])
    with taker.subscribe(stream):
        one.send(1)
    assert taker.ids == ["1"]


def test_limit_counts_all_parts(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, limit=Limit(messages=3)), Taker()
    seen = recorded_events(stream)
    one, two = parts.values()
    taker.subscribe(stream)
    one.send(1, 2)
    two.send(3, 4, 5)
    assert (taker.ids, taker.completed) == (["1", "2", "3"], 1)
    stats = stream.stats()
    assert (stats.received, stats.delivered, stats.beyond_limit, stats.dropped) == (5, 3, 2, 0)
    flush(stream)
    assert events.LimitReached(3, 2) in seen


def test_limit_stops_a_part_that_starts_later(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, limit=Limit(messages=1)), Taker()
    parts["partition 1"].greeting = (1,)
    taker.subscribe(stream)
    assert (taker.ids, taker.completed) == (["1"], 1)


def test_parts_share_the_quota_of_a_limit(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts, limit=Limit(messages=3)), Taker()
    one, two = parts.values()
    with taker.subscribe(stream):
        assert one.quota is not None
        assert one.quota is two.quota
        assert one.quota.left == 3
        one.send(1)
        assert one.quota.left == 2


def test_limit_stops_the_parts_before_delivery(
    parts: dict[str, Part],
) -> None:
    stream, stops = merged(parts, limit=Limit(messages=1)), list[int]()
    stream.subscribe(lambda _: stops.extend(part.stops for part in parts.values()))
    parts["partition 1"].send(1)
    assert stops == [1, 1]


def test_limit_of_time_completes_the_merge(parts: dict[str, Part]) -> None:
    stream, over = merged(parts, limit=Limit(seconds=0.01)), threading.Event()
    stream.subscribe(on_completed=over.set)
    assert over.wait(10)
    assert [part.stops for part in parts.values()] == [1, 1]


def test_take_stops_every_part(parts: dict[str, Part]) -> None:
    stream, taker = merged(parts), Taker()
    stream.take(1).subscribe(lambda message: taker.ids.append(message.id))
    parts["partition 1"].send(1)
    assert taker.ids == ["1"]
    assert [part.observers for part in parts.values()] == [[], []]


def test_posts_today_counts_all_parts(parts: dict[str, Part]) -> None:
    meter = PostMeter()
    stream = merged(parts, meter=meter)
    meter.count([Message("a", {"id": "1"}), Message("b", {"id": "2"})])
    assert stream.stats().posts_today == 2
