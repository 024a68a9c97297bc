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


def test_dummy_source_is_empty_and_ends_with_pipeline() -> None:
    pipeline = Pipeline(DummySource(), handle_message=same).start()
    assert pipeline.wait(0.01) is False
    assert pipeline.stop().processed == 0
    assert pipeline.wait(PATIENCE)


def test_acknowledger_waits_for_outcome() -> None:
    with Pipeline(DummySource(), handle_message=same) as pipeline:
        acks = test_message(pipeline, "a")
        assert acks.wait_for(1)
    assert [message.data for message in acks.successful] == ["a"]
    assert acks.wait_for(2, timeout=0.001) is False


def test_acknowledger_keeps_calls_and_outcomes() -> None:
    acks = RecordingAcknowledger()
    good, bad = Message(1), Message(2).failed("odd")
    acks.ack([good], [bad])
    assert acks.calls == [((good,), (bad,))]
    assert (acks.successful, acks.failed) == ([good], [bad])


def test_virtual_time_moves_only_on_advance() -> None:
    times: list[float] = []

    def note(_: object) -> None:
        times.append(clock.now)

    pipeline = Pipeline(DummySource(), batchers={"default": Batcher(note, 9, 3600.0)})
    clock = VirtualTime(pipeline)
    with clock:
        test_batch(pipeline, "ab")
        clock.advance(3599.0)
        assert (times, clock.now) == ([], 3599.0)
        clock.advance(1.0)
        assert times == [3600.0]


def test_virtual_time_stops_immediately_on_error() -> None:
    pipeline = Pipeline(DummySource(), batchers={"default": Batcher(len, 9)})

    def block() -> None:
        with VirtualTime(pipeline):
            test_batch(pipeline, "ab")
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        block()
    assert pipeline.stats().abandoned == 2


def test_helpers_refuse_pipeline_that_does_not_run() -> None:
    with pytest.raises(PipelineError, match="pushed"):
        test_message(Pipeline(DummySource(), handle_message=same), "a")


def test_helpers_are_not_collected_by_pytest() -> None:
    helpers: Any = testing
    assert helpers.test_message.__test__ is helpers.test_batch.__test__ is False


def test_pushed_messages_keep_their_ids() -> None:
    with Pipeline(DummySource(), handle_message=same) as pipeline:
        acks = test_batch(pipeline, [Message("a", {"id": "1"}), Message("b", {"id": "2"})])
        acks.wait_for(2)
    assert sorted((message.id, message.data) for message in acks.successful) == [
        ("1", "a"),
        ("2", "b"),
    ]


def test_metadata_is_refused_with_messages() -> None:
    with (
        Pipeline(DummySource(), handle_message=same) as pipeline,
        pytest.raises(ConfigurationError, match="metadata"),
    ):
        test_message(pipeline, Message("a"), metadata={"id": "1"})
