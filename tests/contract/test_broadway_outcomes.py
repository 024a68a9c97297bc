"""The outcome of every message, over a pipeline composed of operators and over `Pipeline`.

The groups are those of Broadway's own tests; the behaviours are specified in our words.
README.md in this directory lists the common behaviours and the differences.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import reactivex

import rxtweets
from rxtweets import Batch, Batcher, Failed, Message, Pipeline, Stats, events
from rxtweets import operators as ops
from rxtweets.errors import HandlerError
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0
NEVER = 600.0

Handler = Callable[[Message[Any]], Any]
Subscribers = Mapping[str, tuple[Any, int]]
"""The subscriber and the size of each batcher."""


class Outcome:
    """The results of a run."""

    def __init__(self, stats: Stats, acks: RecordingAcknowledger, seen: list[Any]) -> None:
        self.stats = stats
        self.acks = acks
        self.seen = seen

    @property
    def good(self) -> list[Any]:
        return sorted(message.data for message in self.acks.successful)

    @property
    def bad(self) -> list[Any]:
        return sorted(message.data for message in self.acks.failed)

    def reasons(self) -> list[Any]:
        return [
            message.status.reason
            for message in self.acks.failed
            if isinstance(message.status, Failed)
        ]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]


def by_hand(
    source: Any, handler: Handler, batchers: Subscribers, on_failed: Any, context: Any
) -> Any:
    options = {} if context is None else {"context": context}
    processed = source.pipe(ops.process(handler, 4, on_failed=on_failed, **options))
    bound: Any = on_failed
    if on_failed is not None and context is not None:
        bound = lambda failed: on_failed(failed, context)  # noqa: E731 - a name would say no more
    if not batchers:
        return processed.pipe(ops.acknowledge())
    return processed.pipe(
        ops.route(
            {
                name: [
                    ops.batch(size, NEVER, name=name, on_failed=bound),
                    ops.deliver(_bind(subscriber, context), 1, name=name, on_failed=bound),
                ]
                for name, (subscriber, size) in batchers.items()
            },
            on_failed=bound,
        )
    )


def _bind(subscriber: Any, context: Any) -> Any:
    return subscriber if context is None else lambda batch: subscriber(batch, context)


@pytest.fixture(params=["ready", "by hand"])
def run(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Run messages 0, 1, 2 … through a handler and batchers until all are acknowledged."""

    def go(
        count: int,
        handler: Handler,
        batchers: Subscribers,
        *,
        handle_failed: Any = None,
        context: Any = None,
        acknowledger: Any = None,
    ) -> Outcome:
        acks = RecordingAcknowledger()
        messages = [Message(n).with_acknowledger(acknowledger or acks) for n in range(count)]
        source = reactivex.from_iterable(messages)
        seen: list[Any] = []
        if request.param == "ready":
            options = {} if context is None else {"context": context}
            pipeline = Pipeline(
                source,
                handle_message=handler,
                concurrency=4,
                batchers={n: Batcher(item, size, NEVER) for n, (item, size) in batchers.items()},
                handle_failed=handle_failed,
                **options,
            )
            pipeline.events.subscribe(seen.append)
            stats = pipeline.run()
            return Outcome(stats, acks, seen)
        stream = by_hand(source, handler, batchers, handle_failed, context)
        stream.events.subscribe(seen.append)
        over = threading.Event()
        stream.subscribe(on_completed=over.set)
        assert over.wait(PATIENCE)
        stream.telemetry.bus.flush()
        return Outcome(stream.stats(), acks, seen)

    return go


def same(message: Message[Any]) -> Message[Any]:
    return message


def take(batch: Batch[Any]) -> None:
    del batch


class TestProcessor:
    def test_successful_messages_are_delivered_and_acknowledged(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        outcome = run(5, same, {"default": (taken.append, 5)})
        assert sorted(message.data for message in taken[0]) == [0, 1, 2, 3, 4]
        assert (outcome.good, outcome.bad) == ([0, 1, 2, 3, 4], [])

    def test_message_failed_by_handler_keeps_reason(self, run: Any) -> None:
        outcome = run(3, lambda m: m.failed("odd") if m.data == 1 else m, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])
        assert outcome.reasons() == ["odd"]

    def test_failed_message_is_not_batched(self, run: Any) -> None:
        outcome = run(
            2,
            lambda m: m.put_batcher("nowhere").failed("odd") if m.data else m,
            {"default": (take, 10)},
        )
        assert outcome.reasons() == ["odd"]

    def test_message_fails_when_handler_raises(self, run: Any) -> None:
        fault = ValueError("cannot")

        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 1:
                raise fault
            return message

        outcome = run(3, handler, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])
        assert outcome.reasons() == [fault]
        assert len(outcome.of(events.HandlerFailed)) == 1

    def test_message_fails_when_handler_returns_other(self, run: Any) -> None:
        outcome = run(2, lambda m: "text" if m.data else m, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0], [1])
        assert isinstance(outcome.reasons()[0], HandlerError)

    def test_message_fails_when_batcher_does_not_exist(self, run: Any) -> None:
        outcome = run(
            2, lambda m: m.put_batcher("nowhere") if m.data else m, {"default": (take, 10)}
        )
        assert (outcome.good, outcome.bad) == ([0], [1])
        assert str(outcome.reasons()[0]) == "there is no batcher 'nowhere'; known: 'default'"
        assert (outcome.stats.batched, outcome.stats.failed) == (1, 1)

    def test_message_fails_when_handler_exits(self, run: Any) -> None:
        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 1:
                raise SystemExit(3)
            return message

        outcome = run(3, handler, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])

    def test_pipeline_continues_when_acknowledger_raises(self, run: Any) -> None:
        class Broken:
            def ack(self, successful: Any, failed: Any) -> None:
                raise ValueError(f"no broker for {len(successful) + len(failed)}")

        fine, broken = RecordingAcknowledger(), Broken()

        def handler(message: Message[Any]) -> Message[Any]:
            return message.with_acknowledger(broken if message.data == 1 else fine)

        outcome = run(3, handler, {"default": (take, 3)})
        assert sorted(item.data for item in fine.successful) == [0, 2]
        assert outcome.stats.acknowledger_errors == 1
        assert len(outcome.of(events.AcknowledgerFailed)) == 1


class TestContext:
    def test_context_is_passed_to_all_functions(self, run: Any) -> None:
        contexts: list[Any] = []

        def handler(message: Message[Any], context: Any) -> Message[Any]:
            contexts.append(("handler", context))
            return message.failed("odd") if message.data else message

        def subscriber(batch: Batch[Any], context: Any) -> None:
            contexts.append(("subscriber" if batch else "empty batch", context))

        def handle_failed(failed: list[Message[Any]], context: Any) -> list[Message[Any]]:
            contexts.append(("failed", context))
            return failed

        run(2, handler, {"default": (subscriber, 1)}, context=7, handle_failed=handle_failed)
        assert sorted(set(contexts)) == [("failed", 7), ("handler", 7), ("subscriber", 7)]


class TestWithoutBatchers:
    def test_processors_acknowledge_by_outcome(self, run: Any) -> None:
        outcome = run(4, lambda m: m.failed("odd") if m.data % 2 else m, {})
        assert (outcome.good, outcome.bad) == ([0, 2], [1, 3])
        assert (outcome.stats.acknowledged, outcome.stats.failed) == (2, 2)

    def test_no_batches_without_batchers(self, run: Any) -> None:
        assert run(4, same, {}).stats.batches == 0


class TestBatchers:
    def test_message_goes_to_the_batcher_that_it_names(self, run: Any) -> None:
        odd: list[Batch[Any]] = []
        even: list[Batch[Any]] = []

        def handler(message: Message[Any]) -> Message[Any]:
            return message.put_batcher("odd" if message.data % 2 else "even")

        run(40, handler, {"odd": (odd.append, 10), "even": (even.append, 5)})
        assert [len(batch) for batch in odd] == [10, 10]
        assert [len(batch) for batch in even] == [5, 5, 5, 5]
        assert {batch.info.batcher for batch in odd} == {"odd"}
        assert all(message.data % 2 for batch in odd for message in batch)

    def test_keys_have_separate_batches(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        run(20, lambda m: m.put_batch_key(m.data % 2), {"default": (taken.append, 5)})
        assert sorted((b.info.batch_key, len(b)) for b in taken) == [(0, 5), (0, 5), (1, 5), (1, 5)]
        assert all(len({message.data % 2 for message in batch}) == 1 for batch in taken)

    def test_message_can_flush_its_batch(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        run(3, lambda m: m.put_batch_mode("flush"), {"default": (taken.append, 100)})
        assert [(len(batch), batch.info.trigger) for batch in taken] == [(1, "flush")] * 3


class TestBatches:
    def test_batch_fails_when_subscriber_raises(self, run: Any) -> None:
        calls: list[int] = []

        def subscriber(batch: Batch[Any]) -> None:
            calls.append(len(batch))
            if len(calls) == 1:
                raise ValueError("no room")

        outcome = run(4, same, {"default": (subscriber, 2)})
        assert calls == [2, 2]
        assert (len(outcome.good), len(outcome.bad)) == (2, 2)
        assert [len(bad) for _, bad in outcome.acks.calls if bad] == [2]

    def test_subscriber_can_fail_some_messages(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> list[Message[Any]]:
            return [message.failed("odd") if message.data % 2 else message for message in batch]

        outcome = run(6, same, {"default": (subscriber, 6)})
        assert (outcome.good, outcome.bad) == ([0, 2, 4], [1, 3, 5])
        assert (outcome.stats.batched, outcome.stats.batched_failed) == (3, 3)
        assert len(outcome.acks.calls) == 1  # one call per group

    @pytest.mark.parametrize("answer", [lambda b: list(b)[:-1], lambda b: [*b, *b]])
    def test_batch_fails_when_subscriber_returns_other_count(self, run: Any, answer: Any) -> None:
        outcome = run(3, same, {"default": (answer, 3)})
        assert outcome.bad == [0, 1, 2]
        assert "return all" in str(outcome.reasons()[0])

    @pytest.mark.parametrize("answer", [None, 5, "text", [], [1, 2], {"ok": True}])
    def test_other_return_values_of_subscriber_are_ignored(self, run: Any, answer: Any) -> None:
        assert run(3, same, {"default": (lambda _: answer, 3)}).good == [0, 1, 2]

    def test_batch_fails_when_subscriber_exits(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> None:
            raise SystemExit(len(batch))

        assert run(4, same, {"default": (subscriber, 2)}).bad == [0, 1, 2, 3]

    def test_acknowledger_is_called_once_for_each_reference(self, run: Any) -> None:
        acks = RecordingAcknowledger()

        def handler(message: Message[Any]) -> Message[Any]:
            return message.with_acknowledger(acks, ref=message.data % 2)

        run(6, handler, {"default": (take, 6)})
        groups = [sorted(message.data for message in good) for good, _ in acks.calls]
        assert sorted(groups) == [[0, 2, 4], [1, 3, 5]]

    def test_other_batcher_continues_when_subscriber_raises(self, run: Any) -> None:
        def broken(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(
            10,
            lambda m: m.put_batcher("broken") if m.data % 2 else m,
            {"default": (take, 5), "broken": (broken, 5)},
        )
        assert (outcome.good, outcome.bad) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])


class TestAcknowledgeImmediately:
    def test_ack_immediately_acknowledges_message_once(self, run: Any) -> None:
        outcome = run(3, rxtweets.ack_immediately, {"default": (take, 3)})
        assert outcome.good == [0, 1, 2]
        assert [len(good) for good, _ in outcome.acks.calls] == [1, 1, 1]

    def test_ack_immediately_follows_status(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> None:
            rxtweets.ack_immediately(
                [message.failed("odd") if message.data % 2 else message for message in batch]
            )
            rxtweets.ack_immediately(batch)

        outcome = run(1, same, {"default": (subscriber, 1)})
        assert (outcome.good, len(outcome.acks.calls)) == ([0], 1)

    def test_handle_failed_can_acknowledge_immediately(self, run: Any) -> None:
        def handle_failed(failed: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
            rxtweets.ack_immediately([message.put_data("dead") for message in failed])
            return failed

        outcome = run(2, same, {"nowhere": (take, 5)}, handle_failed=handle_failed)
        assert (outcome.good, outcome.bad) == ([], ["dead", "dead"])

    def test_message_is_acknowledged_once_when_stopped_between(self) -> None:
        acks = RecordingAcknowledger()
        acknowledged, stopped = threading.Event(), threading.Event()

        def handler(message: Message[Any]) -> Message[Any]:
            rxtweets.ack_immediately(message.put_data("early"))
            acknowledged.set()
            assert stopped.wait(PATIENCE)
            rxtweets.ack_immediately(message)
            return message

        source = rxtweets.from_iterable([1], acknowledger=acks)
        pipeline = Pipeline(source, handle_message=handler).start()
        assert acknowledged.wait(PATIENCE)
        stats = pipeline.stop(drain=False)
        stopped.set()
        assert [message.data for message in acks.successful] == ["early"]
        assert (acks.failed, stats.abandoned, stats.late_acknowledgements) == ([], 1, 0)

    def test_failed_message_is_acknowledged_as_failed(self, run: Any) -> None:
        outcome = run(1, lambda m: rxtweets.ack_immediately(m.failed("odd")), {})
        assert (outcome.good, outcome.bad) == ([], [0])


class TestConfigureAck:
    def test_acknowledger_turns_options_into_data(self, run: Any) -> None:
        class Configurable(RecordingAcknowledger):
            def configure(self, ref: Any, data: Any, options: Mapping[str, Any]) -> Any:
                return (ref, data, dict(options))

        acks = Configurable()

        def handler(message: Message[Any]) -> Message[Any]:
            named = message.with_acknowledger(acks, ref="q", data=5)
            return named.configure_ack(on_failure="requeue")

        run(1, handler, {"default": (take, 1)})
        assert acks.successful[0].ack_data == ("q", 5, {"on_failure": "requeue"})

    def test_message_fails_when_acknowledger_has_no_options(self, run: Any) -> None:
        outcome = run(1, lambda m: m.configure_ack(on_failure="requeue"), {"default": (take, 1)})
        assert outcome.bad == [0]
        assert isinstance(outcome.reasons()[0], rxtweets.errors.AcknowledgerError)
        assert "on_failure" in str(outcome.reasons()[0])


class TestHandleFailed:
    def test_handle_failed_result_is_acknowledged(self, run: Any) -> None:
        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            return [message.put_data(-message.data) for message in failed]

        outcome = run(
            3,
            lambda m: m.failed("odd") if m.data == 1 else m,
            {"default": (take, 10)},
            handle_failed=handle_failed,
        )
        assert (outcome.good, outcome.bad) == ([0, 2], [-1])

    def test_handle_failed_takes_raised_and_unrouted_messages(self, run: Any) -> None:
        given: list[Any] = []

        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 0:
                raise ValueError("cannot")
            return message.put_batcher("nowhere")

        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            given.extend(message.data for message in failed)
            return failed

        run(2, handler, {"default": (take, 10)}, handle_failed=handle_failed)
        assert sorted(given) == [0, 1]

    def test_handle_failed_takes_failed_batch(self, run: Any) -> None:
        given: list[list[Any]] = []

        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            given.append(sorted(message.data for message in failed))
            return [item.put_data("dead") for item in failed]

        outcome = run(3, same, {"default": (subscriber, 3)}, handle_failed=handle_failed)
        assert given == [[0, 1, 2]]
        assert outcome.bad == ["dead"] * 3

    def test_handle_failed_takes_failed_messages_of_batch(self, run: Any) -> None:
        given: list[Any] = []

        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            given.extend(message.data for message in failed)
            return failed

        outcome = run(
            3,
            same,
            {"default": (lambda b: [e.failed("odd") if e.data == 1 else e for e in b], 3)},
            handle_failed=handle_failed,
        )
        assert (given, outcome.good, outcome.bad) == ([1], [0, 2], [1])

    @pytest.mark.parametrize("where", ["handler", "subscriber"])
    def test_handle_failed_errors_are_reported(self, run: Any, where: str) -> None:
        def handle_failed(_: list[Message[Any]]) -> list[Message[Any]]:
            raise ValueError("cannot help")

        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(
            2,
            (lambda m: m.failed("odd")) if where == "handler" else same,
            {"default": (subscriber, 2)},
            handle_failed=handle_failed,
        )
        assert outcome.bad == [0, 1]
        assert outcome.stats.failure_handler_errors >= 1
        assert outcome.of(events.FailureHandlerFailed)

    @pytest.mark.parametrize("answer", [[], None, ["text"]])
    @pytest.mark.parametrize("where", ["handler", "subscriber"])
    def test_handle_failed_result_is_ignored_with_other_count(
        self, run: Any, where: str, answer: Any
    ) -> None:
        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(
            2,
            (lambda m: m.failed("odd")) if where == "handler" else same,
            {"default": (subscriber, 2)},
            handle_failed=lambda _: answer,
        )
        assert outcome.bad == [0, 1]
        assert outcome.stats.failure_handler_errors >= 1

    def test_message_stays_failed_after_handle_failed(self, run: Any) -> None:
        def handle_failed(failed: Sequence[Message[Any]]) -> list[Message[Any]]:
            return [Message(item.data).with_acknowledger(item.acknowledger) for item in failed]

        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(2, same, {"default": (subscriber, 2)}, handle_failed=handle_failed)
        assert (outcome.good, outcome.bad) == ([], [0, 1])
        assert all(message.is_failed for message in outcome.acks.failed)


class TestEvents:
    def test_start_and_end_of_batches_are_reported(self, run: Any) -> None:
        outcome = run(4, same, {"default": (take, 2)})
        started, delivered = outcome.of(events.BatchStarted), outcome.of(events.BatchDelivered)
        assert [len(event.batch) for event in started] == [2, 2]
        assert [event.batch for event in delivered] == [event.batch for event in started]
        assert all(event.seconds >= 0 for event in delivered)

    def test_handled_failures_are_reported(self, run: Any) -> None:
        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(2, same, {"default": (subscriber, 2)}, handle_failed=list)
        assert [len(event.messages) for event in outcome.of(events.FailureHandled)] == [2]
