from __future__ import annotations

import logging
import threading
from dataclasses import FrozenInstanceError, fields

import pytest
from reactivex import operators as ops

from rxtweets import Stats
from rxtweets._core.event_bus import MAX_PENDING_EVENTS, EventBus
from rxtweets._core.telemetry import Telemetry
from rxtweets.events import Abandoned, Connecting, Event

PATIENCE = 20.0


def numbered(number: int) -> Connecting:
    return Connecting(number, "https://api.x.com")


def bus_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rxtweets-events"]


class Gatekeeper:
    """Blocks the thread of the bus inside an observer until ``released``."""

    def __init__(self, bus: EventBus) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self._bus = bus
        bus.tap(self._hold)

    def _hold(self, _event: Event) -> None:
        self.entered.set()
        assert self.released.wait(PATIENCE)

    def close(self) -> None:
        self._bus.publish(numbered(0))
        assert self.entered.wait(PATIENCE)


def test_counters_start_at_zero() -> None:
    assert Telemetry().stats() == Stats()


def test_counters_are_added_together() -> None:
    telemetry = Telemetry()
    telemetry.add(received=3, delivered=2, bytes=100)
    telemetry.add(received=1)
    assert telemetry.stats() == Stats(received=4, delivered=2, bytes=100)


def test_adding_to_an_unknown_counter_raises() -> None:
    with pytest.raises(KeyError, match="recieved"):
        Telemetry().add(recieved=1)


def test_counters_are_exact_when_many_threads_add() -> None:
    telemetry = Telemetry()
    start = threading.Barrier(8)

    def count() -> None:
        start.wait(PATIENCE)
        for _ in range(2000):
            telemetry.add(received=1, delivered=1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    stats = telemetry.stats()
    assert (stats.received, stats.delivered) == (16_000, 16_000)


def test_gauges_of_one_name_are_added() -> None:
    telemetry = Telemetry()
    telemetry.gauge("in_flight", lambda: 3)
    telemetry.gauge("in_flight", lambda: 4)
    assert telemetry.stats().in_flight == 7


def test_gauge_is_read_at_each_snapshot() -> None:
    telemetry = Telemetry()
    waiting: list[str] = []
    telemetry.gauge("queued", lambda: len(waiting))
    before = telemetry.stats().queued
    waiting.append("tweet")
    assert (before, telemetry.stats().queued) == (0, 1)


def test_removed_gauge_leaves_the_other_gauges() -> None:
    telemetry = Telemetry()
    remove = telemetry.gauge("in_flight", lambda: 3)
    telemetry.gauge("in_flight", lambda: 4)
    remove()
    assert telemetry.stats().in_flight == 4


def test_gauge_can_be_removed_twice() -> None:
    telemetry = Telemetry()
    remove = telemetry.gauge("queued", lambda: 3)
    remove()
    remove()
    assert telemetry.stats().queued == 0


def test_gauge_may_add_to_counters() -> None:
    telemetry = Telemetry()

    def read() -> int:
        telemetry.add(received=1)
        return 5

    telemetry.gauge("queued", read)
    assert telemetry.stats().queued == 5
    assert telemetry.stats().received == 1


def test_gauge_is_added_to_the_gauges_of_parts() -> None:
    parts = Telemetry(), Telemetry()
    for part in parts:
        part.gauge("in_flight", lambda: 8)
    merged = Telemetry(parts)
    remove = merged.gauge("in_flight", lambda: 3)
    before = merged.stats().in_flight
    remove()
    assert (before, merged.stats().in_flight) == (19, 16)


def test_counters_are_added_to_the_counters_of_parts() -> None:
    parts = Telemetry(), Telemetry()
    for part in parts:
        part.add(processed=8)
    merged = Telemetry(parts)
    merged.add(processed=3)
    assert merged.stats().processed == 19


def test_shown_figure_replaces_the_earlier_one() -> None:
    telemetry = Telemetry()
    telemetry.show("state", lambda: "connecting")
    telemetry.show("state", lambda: "connected")
    telemetry.show("lag", lambda: 1.5)
    stats = telemetry.stats()
    assert (stats.state, stats.lag) == ("connected", 1.5)


def test_stats_control_is_the_sum_of_lines_about_the_stream() -> None:
    assert Stats(keep_alives=1, disconnects=20, unknown=300).control == 321


def test_stats_as_dict_has_all_figures_and_control() -> None:
    figures = Stats(received=7, keep_alives=2).as_dict()
    assert figures.keys() == {field.name for field in fields(Stats)} | {"control"}
    assert (figures["received"], figures["control"], figures["lag"]) == (7, 2, None)


def test_stats_are_frozen() -> None:
    telemetry = Telemetry()
    before = telemetry.stats()
    telemetry.add(received=1)
    assert before.received == 0
    with pytest.raises(FrozenInstanceError):
        before.received = 5  # type: ignore[misc]


def test_events_are_delivered_in_order_on_the_bus_thread() -> None:
    bus = EventBus()
    seen: list[tuple[Event, threading.Thread]] = []
    with bus.events.subscribe(lambda event: seen.append((event, threading.current_thread()))):
        for number in range(1000):
            bus.publish(numbered(number))
        assert bus.flush(PATIENCE)
    assert [event for event, _ in seen] == [numbered(number) for number in range(1000)]
    assert threading.current_thread() not in {thread for _, thread in seen}


def test_events_of_one_publisher_stay_in_order() -> None:
    bus = EventBus()
    seen: list[Event] = []

    def publish(where: str) -> None:
        for count in range(500):
            bus.publish(Abandoned(count, where))

    with bus.events.subscribe(seen.append):
        threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert bus.flush(PATIENCE)
    for name in "abcd":
        mine = [event for event in seen if isinstance(event, Abandoned) and event.where == name]
        assert mine == [Abandoned(count, name) for count in range(500)]


def test_publish_does_not_wait_for_observers() -> None:
    bus = EventBus()
    keeper = Gatekeeper(bus)
    seen: list[Event] = []
    bus.events.subscribe(seen.append)
    keeper.close()
    bus.publish(numbered(1))
    assert seen == []
    keeper.released.set()
    assert bus.flush(PATIENCE)
    assert seen == [numbered(0), numbered(1)]


def test_event_observer_that_raises_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = EventBus()
    seen: list[Event] = []

    def stumble(_event: Event) -> None:
        raise ValueError("a fault in an observer")

    with (
        caplog.at_level(logging.ERROR, "rxtweets"),
        bus.events.subscribe(stumble),
        bus.events.subscribe(seen.append),
    ):
        bus.publish(numbered(1))
        bus.publish(numbered(2))
        assert bus.flush(PATIENCE)
    assert seen == [numbered(1), numbered(2)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "a fault in an observer" in caplog.text


def test_disposed_event_observer_gets_no_event() -> None:
    bus = EventBus()
    gone: list[Event] = []
    staying: list[Event] = []
    subscription = bus.events.subscribe(gone.append)
    bus.events.subscribe(staying.append)
    bus.publish(numbered(1))
    assert bus.flush(PATIENCE)
    subscription.dispose()
    bus.publish(numbered(2))
    assert bus.flush(PATIENCE)
    assert (gone, staying) == ([numbered(1)], [numbered(1), numbered(2)])


def test_bus_has_observers_from_subscription_to_disposal() -> None:
    bus = EventBus()
    bus.tap(lambda _event: None)
    before = bus.has_observers
    with bus.events.subscribe(lambda _event: None):
        during = bus.has_observers
    assert (before, during, bus.has_observers) == (False, True, False)


def test_events_pass_through_stock_operators() -> None:
    bus = EventBus()
    seen: list[int] = []
    stream = bus.events.pipe(
        ops.filter(lambda event: isinstance(event, Abandoned)),
        ops.map(lambda event: event.count if isinstance(event, Abandoned) else -1),
    )
    with stream.subscribe(seen.append):
        bus.publish(numbered(1))
        bus.publish(Abandoned(7, "processors"))
        assert bus.flush(PATIENCE)
    assert seen == [7]


def test_events_beyond_the_maximum_are_counted_as_lost() -> None:
    telemetry = Telemetry()
    keeper = Gatekeeper(telemetry.bus)
    seen: list[Event] = []
    telemetry.bus.events.subscribe(seen.append)
    keeper.close()
    for number in range(1, MAX_PENDING_EVENTS + 8):
        telemetry.publish(numbered(number))
    assert telemetry.stats().events_lost == 7
    keeper.released.set()
    assert telemetry.bus.flush(PATIENCE)
    assert seen == [numbered(number) for number in range(MAX_PENDING_EVENTS + 1)]


def test_flush_without_events_returns_immediately() -> None:
    assert EventBus().flush(0)


def test_flush_times_out_while_an_observer_blocks() -> None:
    bus = EventBus()
    keeper = Gatekeeper(bus)
    keeper.close()
    assert not bus.flush(0.01)
    keeper.released.set()
    assert bus.flush(PATIENCE)


def test_flush_inside_an_observer_returns_immediately() -> None:
    bus = EventBus()
    results: list[bool] = []
    bus.tap(lambda _event: results.append(bus.flush(PATIENCE)))
    bus.publish(numbered(1))
    assert bus.flush(PATIENCE)
    assert results == [False]


def test_event_observer_may_publish() -> None:
    bus = EventBus()
    seen: list[Event] = []

    def answer(event: Event) -> None:
        seen.append(event)
        if event == numbered(1):
            bus.publish(numbered(2))

    bus.tap(answer)
    bus.publish(numbered(1))
    assert bus.flush(PATIENCE)
    assert seen == [numbered(1), numbered(2)]


def test_bus_thread_ends_after_the_last_event_and_restarts() -> None:
    bus = EventBus()
    threads: list[threading.Thread] = []
    bus.tap(lambda _event: threads.append(threading.current_thread()))
    for number in (1, 2):
        bus.publish(numbered(number))
        assert bus.flush(PATIENCE)
        threads[-1].join(PATIENCE)
        assert not threads[-1].is_alive()
    assert threads[0] is not threads[1]


def test_bus_without_events_has_no_thread() -> None:
    before = set(bus_threads())
    Telemetry()
    assert set(bus_threads()) <= before


def test_bus_thread_is_a_daemon() -> None:
    bus = EventBus()
    daemons: list[bool] = []
    bus.tap(lambda _event: daemons.append(threading.current_thread().daemon))
    bus.publish(numbered(1))
    assert bus.flush(PATIENCE)
    assert daemons == [True]
