"""A SystemExit in a user's function acts like an Exception, and no thread ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import rxtweets
from rxtweets import Batcher, Message, Pipeline
from rxtweets import operators as ops
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0


def leave(*_: Any) -> Any:
    raise SystemExit("asked for")


def same(message: Message[Any]) -> Message[Any]:
    return message


class Leaving(rxtweets.Subscriber[Any]):
    """Leaves at the end."""

    def on_next(self, batch: Any) -> None:
        """Take everything."""

    def on_completed(self) -> None:
        raise SystemExit("asked for")


class LeavingAcknowledger:
    def ack(self, successful: Any, failed: Any) -> None:
        del successful, failed
        raise SystemExit("asked for")


def run(options: dict[str, Any], acknowledger: Any, **batcher: Any) -> Any:
    messages = [Message(n).with_acknowledger(acknowledger) for n in range(20)]
    subscriber = batcher.pop("subscriber", lambda _: None)
    options.setdefault("handle_message", same)
    pipeline = Pipeline(
        rxtweets.from_iterable(messages),
        batchers={"default": Batcher(subscriber, 5, 0.1, **batcher)},
        **options,
    )
    pipeline.start()
    assert pipeline.wait(PATIENCE)
    return pipeline.stats()


@pytest.mark.parametrize(
    ("options", "batcher"),
    [
        ({"handle_message": leave}, {}),
        ({"prepare_messages": leave}, {}),
        ({"partition_by": leave}, {}),
        ({"deadline": leave}, {}),
        ({"handle_message": leave, "handle_failed": leave}, {}),
        ({"handle_failed": leave}, {"subscriber": leave}),
        ({}, {"subscriber": leave}),
        ({}, {"subscriber": leave, "concurrency": 2}),
        ({}, {"partition_by": leave}),
        ({}, {"bytes_of": leave, "max_bytes": 100}),
    ],
)
def test_its_messages_fail_and_are_acknowledged_once(
    options: dict[str, Any], batcher: dict[str, Any]
) -> None:
    acks = RecordingAcknowledger()
    run(options, acks, **batcher)
    assert sorted(message.data for message in acks.failed) == list(range(20))
    assert acks.successful == []


@pytest.mark.parametrize("concurrency", [1, 2])
def test_pipeline_ends_when_its_subscriber_exits_at_the_end(
    concurrency: int,
) -> None:
    acks = RecordingAcknowledger()
    stats = run({}, acks, subscriber=Leaving(), concurrency=concurrency)
    assert (stats.batched, stats.subscriber_errors) == (20, 1)


def test_others_are_acknowledged_when_one_acknowledger_exits() -> None:
    acks, leaving = RecordingAcknowledger(), LeavingAcknowledger()
    messages = [
        Message(n).with_acknowledger(leaving if n % 2 else acks, ref=n % 3) for n in range(30)
    ]
    pipeline = Pipeline(
        rxtweets.from_iterable(messages),
        handle_message=same,
        ordered=True,
        batchers={"default": Batcher(lambda _: None, 10, 0.1)},
    ).start()
    assert pipeline.wait(PATIENCE)
    assert sorted(message.data for message in acks.successful) == list(range(0, 30, 2))
    assert pipeline.stats().acknowledger_errors == 9


def test_acknowledging_tells_others_when_one_acknowledger_exits() -> None:
    acks = RecordingAcknowledger()
    messages = [Message(1).with_acknowledger(LeavingAcknowledger())]
    messages.append(Message(2).with_acknowledger(acks))
    with pytest.raises(SystemExit):
        rxtweets.ack_immediately(messages)
    assert [message.data for message in acks.successful] == [2]


@pytest.mark.parametrize(
    "operator", [ops.deduplicate(by=leave), ops.partition(leave, 2, ops.process(same))]
)
def test_messages_fail_when_an_operator_s_function_exits(operator: Callable[..., Any]) -> None:
    acks = RecordingAcknowledger()
    over = threading.Event()
    messages = [Message(n).with_acknowledger(acks) for n in range(20)]
    stream: Any = rxtweets.from_iterable(messages).pipe(operator)
    stream.subscribe(lambda _: None, on_completed=over.set)
    assert over.wait(PATIENCE)
    assert sorted(message.data for message in acks.failed) == list(range(20))


def test_source_is_restarted_when_it_exits() -> None:
    calls: list[int] = []

    def poll(wanted: int) -> list[Message[int]] | None:
        calls.append(wanted)
        if len(calls) == 1:
            raise SystemExit("asked for")
        return None

    pipeline = Pipeline(rxtweets.polling_source(poll), handle_message=same).start()
    assert pipeline.wait(PATIENCE)
    assert pipeline.stats().restarts == 1
