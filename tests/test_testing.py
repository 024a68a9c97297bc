from __future__ import annotations

from typing import Any

import pytest

from rxtweets import Batcher, ConfigurationError, Message, Pipeline, testing
from rxtweets.errors import PipelineError
from rxtweets.testing import (
    DummySource,
    RecordingAcknowledger,
    VirtualTime,
    test_batch,
    test_message,
)

PATIENCE = 20.0


def same(message: Message[Any]) -> Message[Any]:
    return message


def test_a_dummy_source_gives_nothing_and_ends_with_its_pipeline() -> None:
    pipeline = Pipeline(DummySource(), handle_message=same).start()
    assert pipeline.wait(0.01) is False
    assert pipeline.stop().processed == 0
    assert pipeline.wait(PATIENCE)


def test_an_outcome_can_be_waited_for() -> None:
    with Pipeline(DummySource(), handle_message=same) as pipeline:
        acks = test_message(pipeline, "a")
        assert acks.wait_for(1)
    assert [message.data for message in acks.successful] == ["a"]
    assert acks.wait_for(2, timeout=0.001) is False


def test_a_recording_acknowledger_keeps_calls_and_outcomes() -> None:
    acks = RecordingAcknowledger()
    good, bad = Message(1), Message(2).failed("odd")
    acks.ack([good], [bad])
    assert acks.calls == [((good,), (bad,))]
    assert (acks.successful, acks.failed) == ([good], [bad])


def test_virtual_time_moves_only_when_it_is_moved() -> None:
    times: list[float] = []
    pipeline = Pipeline(
        DummySource(), batchers={"default": Batcher(lambda _: times.append(clock.now), 9, 3600.0)}
    )
    clock = VirtualTime(pipeline)
    with clock:
        test_batch(pipeline, "ab")
        clock.advance(3599.0)
        assert (times, clock.now) == ([], 3599.0)
        clock.advance(1.0)
        assert times == [3600.0]


def test_an_error_in_the_block_stops_at_once() -> None:
    pipeline = Pipeline(DummySource(), batchers={"default": Batcher(len, 9)})

    def block() -> None:
        with VirtualTime(pipeline):
            test_batch(pipeline, "ab")
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        block()
    assert pipeline.stats().abandoned == 2


def test_the_helpers_need_a_running_pipeline() -> None:
    with pytest.raises(PipelineError, match="pushed"):
        test_message(Pipeline(DummySource(), handle_message=same), "a")


def test_pytest_does_not_take_the_helpers_for_tests() -> None:
    helpers: Any = testing
    assert helpers.test_message.__test__ is helpers.test_batch.__test__ is False


def test_messages_with_ids_of_their_own_can_be_pushed() -> None:
    with Pipeline(DummySource(), handle_message=same) as pipeline:
        acks = test_batch(pipeline, [Message("a", {"id": "1"}), Message("b", {"id": "2"})])
        acks.wait_for(2)
    assert sorted((each.id, each.data) for each in acks.successful) == [("1", "a"), ("2", "b")]


def test_messages_are_given_no_other_metadata() -> None:
    with (
        Pipeline(DummySource(), handle_message=same) as pipeline,
        pytest.raises(ConfigurationError, match="metadata"),
    ):
        test_message(pipeline, Message("a"), metadata={"id": "1"})
