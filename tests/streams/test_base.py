from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from reactivex import abc
from reactivex.disposable import Disposable

from rxtweets import ConnectionState, events
from rxtweets._core.connection_state import StateName
from rxtweets._core.telemetry import Telemetry
from rxtweets.streams._base import HotStream


class Stream(HotStream[Any]):
    """A stream whose state a test sets."""

    def __init__(self) -> None:
        def nothing(*_: object) -> abc.DisposableBase:
            return Disposable()

        super().__init__(nothing, Telemetry())
        self.now = ConnectionState("idle")
        self.on_read: Callable[[], object] = lambda: None

    @property
    def state(self) -> ConnectionState:
        now = self.now
        self.on_read()
        return now

    def stop(self) -> None:
        """Do nothing."""

    def enter(self, name: StateName, part: str = "") -> None:
        self.now = ConnectionState(name, number=self.telemetry.count_states())
        self.telemetry.publish(events.StateChanged(self.now, part=part))

    def settle(self) -> None:
        assert self.telemetry.bus.flush()


def names_of(stream: Stream) -> tuple[list[str], abc.DisposableBase]:
    names: list[str] = []
    return names, stream.states.subscribe(lambda state: names.append(state.name))


def test_states_emit_the_current_state_first() -> None:
    stream = Stream()
    stream.enter("connecting")
    stream.settle()
    names, subscription = names_of(stream)
    assert names == ["connecting"]
    stream.enter("connected")
    stream.enter("stalled")
    stream.settle()
    assert names == ["connecting", "connected", "stalled"]
    subscription.dispose()


def test_states_end_with_the_disposal() -> None:
    stream = Stream()
    names, subscription = names_of(stream)
    subscription.dispose()
    stream.enter("connecting")
    stream.settle()
    assert names == ["idle"]


def test_states_include_a_change_during_subscription() -> None:
    stream = Stream()

    def change() -> None:
        stream.on_read = lambda: None
        stream.enter("connecting")

    stream.on_read = change
    names, subscription = names_of(stream)
    stream.settle()
    assert names == ["idle", "connecting"]
    subscription.dispose()


def test_states_do_not_repeat_the_current_state() -> None:
    stream = Stream()
    stream.enter("connecting")
    names, subscription = names_of(stream)  # its event may come after this
    stream.settle()
    assert names == ["connecting"]
    subscription.dispose()


def test_states_leave_out_those_of_parts() -> None:
    stream = Stream()
    names, subscription = names_of(stream)
    stream.enter("connecting", part="partition 1")
    stream.settle()
    assert names == ["idle"]
    subscription.dispose()


def test_first_state_can_be_awaited() -> None:
    stream = Stream()
    stream.enter("connected")
    assert stream.states.first().run() == ConnectionState("connected")


def test_single_stream_is_its_only_part() -> None:
    stream = Stream()
    assert stream.parts == (stream,)


@pytest.mark.parametrize("name", get_args(StateName))
def test_state_shows_its_name(name: StateName) -> None:
    assert str(ConnectionState(name)) == name


def test_backing_off_shows_its_end() -> None:
    until = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)
    assert str(ConnectionState("backing off", until)) == "backing off until 12:30:05"


def test_state_comparison_ignores_the_number() -> None:
    assert ConnectionState("connected", number=1) == ConnectionState("connected", number=2)
