"""What becomes of every message, over a pipeline composed by hand and over the ready one.

The groups are those of Broadway's own tests; the behaviours are specified in our words. See
README.md in this directory for the table of what is the same, and what is not.
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
    """What a run left behind."""

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
        return [each.status.reason for each in self.acks.failed if isinstance(each.status, Failed)]

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
    """Runs messages 0, 1, 2 … through a handler and batchers until all are acknowledged."""

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
                batchers={n: Batcher(each, size, NEVER) for n, (each, size) in batchers.items()},
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
    def test_successful_messages_reach_the_subscriber_and_are_acknowledged(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        outcome = run(5, same, {"default": (taken.append, 5)})
        assert sorted(message.data for message in taken[0]) == [0, 1, 2, 3, 4]
        assert (outcome.good, outcome.bad) == ([0, 1, 2, 3, 4], [])

    def test_a_message_that_a_handler_fails_is_acknowledged_so_with_its_reason(
        self, run: Any
    ) -> None:
        outcome = run(3, lambda m: m.failed("odd") if m.data == 1 else m, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])
        assert outcome.reasons() == ["odd"]

    def test_a_failed_message_is_not_batched_even_if_it_names_no_batcher(self, run: Any) -> None:
        outcome = run(
            2,
            lambda m: m.put_batcher("nowhere").failed("odd") if m.data else m,
            {"default": (take, 10)},
        )
        assert outcome.reasons() == ["odd"]

    def test_a_handler_that_raises_fails_only_its_message(self, run: Any) -> None:
        fault = ValueError("cannot")

        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 1:
                raise fault
            return message

        outcome = run(3, handler, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])
        assert outcome.reasons() == [fault]
        assert len(outcome.of(events.HandlerFailed)) == 1

    def test_a_handler_that_returns_something_else_fails_its_message(self, run: Any) -> None:
        outcome = run(2, lambda m: "text" if m.data else m, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0], [1])
        assert isinstance(outcome.reasons()[0], HandlerError)

    def test_a_batcher_that_does_not_exist_fails_the_message_and_the_known_are_named(
        self, run: Any
    ) -> None:
        outcome = run(
            2, lambda m: m.put_batcher("nowhere") if m.data else m, {"default": (take, 10)}
        )
        assert (outcome.good, outcome.bad) == ([0], [1])
        assert str(outcome.reasons()[0]) == "there is no batcher 'nowhere'; known: 'default'"
        assert (outcome.stats.batched, outcome.stats.failed) == (1, 1)

    def test_a_handler_that_ends_its_thread_fails_its_message(self, run: Any) -> None:
        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 1:
                raise SystemExit(3)
            return message

        outcome = run(3, handler, {"default": (take, 10)})
        assert (outcome.good, outcome.bad) == ([0, 2], [1])

    def test_an_acknowledger_that_raises_stops_nobody(self, run: Any) -> None:
        class Broken:
            def ack(self, successful: Any, failed: Any) -> None:
                raise ValueError(f"no broker for {len(successful) + len(failed)}")

        fine, broken = RecordingAcknowledger(), Broken()

        def handler(message: Message[Any]) -> Message[Any]:
            return message.with_acknowledger(broken if message.data == 1 else fine)

        outcome = run(3, handler, {"default": (take, 3)})
        assert sorted(each.data for each in fine.successful) == [0, 2]
        assert outcome.stats.acknowledger_errors == 1
        assert len(outcome.of(events.AcknowledgerFailed)) == 1


class TestContext:
    def test_it_is_handed_to_every_callback(self, run: Any) -> None:
        contexts: list[Any] = []

        def handler(message: Message[Any], context: Any) -> Message[Any]:
            contexts.append(("handler", context))
            return message.failed("odd") if message.data else message

        def subscriber(batch: Batch[Any], context: Any) -> None:
            contexts.append(("subscriber" if batch else "nobody", context))

        def handle_failed(failed: list[Message[Any]], context: Any) -> list[Message[Any]]:
            contexts.append(("failed", context))
            return failed

        run(2, handler, {"default": (subscriber, 1)}, context=7, handle_failed=handle_failed)
        assert sorted(set(contexts)) == [("failed", 7), ("handler", 7), ("subscriber", 7)]


class TestWithoutBatchers:
    def test_processors_acknowledge_what_succeeded_and_what_failed(self, run: Any) -> None:
        outcome = run(4, lambda m: m.failed("odd") if m.data % 2 else m, {})
        assert (outcome.good, outcome.bad) == ([0, 2], [1, 3])
        assert (outcome.stats.acknowledged, outcome.stats.failed) == (2, 2)

    def test_no_batch_is_made(self, run: Any) -> None:
        assert run(4, same, {}).stats.batches == 0


class TestBatchers:
    def test_each_message_goes_to_the_batcher_that_it_names_in_batches_of_its_size(
        self, run: Any
    ) -> None:
        odd: list[Batch[Any]] = []
        even: list[Batch[Any]] = []

        def handler(message: Message[Any]) -> Message[Any]:
            return message.put_batcher("odd" if message.data % 2 else "even")

        run(40, handler, {"odd": (odd.append, 10), "even": (even.append, 5)})
        assert [len(batch) for batch in odd] == [10, 10]
        assert [len(batch) for batch in even] == [5, 5, 5, 5]
        assert {batch.info.batcher for batch in odd} == {"odd"}
        assert all(message.data % 2 for batch in odd for message in batch)

    def test_each_key_has_its_own_batches(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        run(20, lambda m: m.put_batch_key(m.data % 2), {"default": (taken.append, 5)})
        assert sorted((b.info.batch_key, len(b)) for b in taken) == [(0, 5), (0, 5), (1, 5), (1, 5)]
        assert all(len({message.data % 2 for message in batch}) == 1 for batch in taken)

    def test_a_message_may_ask_for_its_batch_to_be_sent_on_at_once(self, run: Any) -> None:
        taken: list[Batch[Any]] = []
        run(3, lambda m: m.put_batch_mode("flush"), {"default": (taken.append, 100)})
        assert [(len(batch), batch.info.trigger) for batch in taken] == [(1, "flush")] * 3


class TestBatches:
    def test_a_subscriber_that_raises_fails_the_whole_batch_and_gets_the_next(
        self, run: Any
    ) -> None:
        calls: list[int] = []

        def subscriber(batch: Batch[Any]) -> None:
            calls.append(len(batch))
            if len(calls) == 1:
                raise ValueError("no room")

        outcome = run(4, same, {"default": (subscriber, 2)})
        assert calls == [2, 2]
        assert (len(outcome.good), len(outcome.bad)) == (2, 2)
        assert [len(bad) for _, bad in outcome.acks.calls if bad] == [2]

    def test_a_subscriber_may_fail_some_messages_by_returning_all(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> list[Message[Any]]:
            return [each.failed("odd") if each.data % 2 else each for each in batch]

        outcome = run(6, same, {"default": (subscriber, 6)})
        assert (outcome.good, outcome.bad) == ([0, 2, 4], [1, 3, 5])
        assert (outcome.stats.batched, outcome.stats.batched_failed) == (3, 3)
        assert len(outcome.acks.calls) == 1  # one call for the group

    @pytest.mark.parametrize("answer", [lambda b: list(b)[:-1], lambda b: [*b, *b]])
    def test_a_subscriber_that_returns_fewer_or_more_messages_fails_its_batch(
        self, run: Any, answer: Any
    ) -> None:
        outcome = run(3, same, {"default": (answer, 3)})
        assert outcome.bad == [0, 1, 2]
        assert "return all" in str(outcome.reasons()[0])

    @pytest.mark.parametrize("answer", [None, 5, "text", [], [1, 2], {"ok": True}])
    def test_what_else_a_subscriber_returns_is_its_own_business(
        self, run: Any, answer: Any
    ) -> None:
        assert run(3, same, {"default": (lambda _: answer, 3)}).good == [0, 1, 2]

    def test_a_subscriber_that_ends_its_thread_fails_its_batch(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> None:
            raise SystemExit(len(batch))

        assert run(4, same, {"default": (subscriber, 2)}).bad == [0, 1, 2, 3]

    def test_acknowledgers_are_told_once_for_each_reference(self, run: Any) -> None:
        acks = RecordingAcknowledger()

        def handler(message: Message[Any]) -> Message[Any]:
            return message.with_acknowledger(acks, ref=message.data % 2)

        run(6, handler, {"default": (take, 6)})
        groups = [sorted(message.data for message in good) for good, _ in acks.calls]
        assert sorted(groups) == [[0, 2, 4], [1, 3, 5]]

    def test_a_subscriber_that_raises_does_not_stop_the_other_batcher(self, run: Any) -> None:
        def broken(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(
            10,
            lambda m: m.put_batcher("broken") if m.data % 2 else m,
            {"default": (take, 5), "broken": (broken, 5)},
        )
        assert (outcome.good, outcome.bad) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])


class TestAcknowledgeImmediately:
    def test_one_message_is_acknowledged_once(self, run: Any) -> None:
        outcome = run(3, rxtweets.ack_immediately, {"default": (take, 3)})
        assert outcome.good == [0, 1, 2]
        assert [len(good) for good, _ in outcome.acks.calls] == [1, 1, 1]

    def test_several_are_acknowledged_by_their_status_once(self, run: Any) -> None:
        def subscriber(batch: Batch[Any]) -> None:
            rxtweets.ack_immediately(
                [each.failed("odd") if each.data % 2 else each for each in batch]
            )
            rxtweets.ack_immediately(batch)

        outcome = run(1, same, {"default": (subscriber, 1)})
        assert (outcome.good, len(outcome.acks.calls)) == ([0], 1)

    def test_failed_messages_are_acknowledged_once_by_handle_failed(self, run: Any) -> None:
        def handle_failed(failed: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
            rxtweets.ack_immediately([each.put_data("dead") for each in failed])
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

    def test_a_failed_message_is_acknowledged_as_failed(self, run: Any) -> None:
        outcome = run(1, lambda m: rxtweets.ack_immediately(m.failed("odd")), {})
        assert (outcome.good, outcome.bad) == ([], [0])


class TestConfigureAck:
    def test_the_acknowledger_gets_the_options_and_gives_the_data(self, run: Any) -> None:
        class Configurable(RecordingAcknowledger):
            def configure(self, ref: Any, data: Any, options: Mapping[str, Any]) -> Any:
                return (ref, data, dict(options))

        acks = Configurable()

        def handler(message: Message[Any]) -> Message[Any]:
            named = message.with_acknowledger(acks, ref="q", data=5)
            return named.configure_ack(on_failure="requeue")

        run(1, handler, {"default": (take, 1)})
        assert acks.successful[0].ack_data == ("q", 5, {"on_failure": "requeue"})

    def test_one_that_cannot_be_configured_fails_the_message_with_a_typed_error(
        self, run: Any
    ) -> None:
        outcome = run(1, lambda m: m.configure_ack(on_failure="requeue"), {"default": (take, 1)})
        assert outcome.bad == [0]
        assert isinstance(outcome.reasons()[0], rxtweets.errors.AcknowledgerError)
        assert "on_failure" in str(outcome.reasons()[0])


class TestHandleFailed:
    def test_it_is_given_what_a_handler_failed_and_what_it_returns_is_acknowledged(
        self, run: Any
    ) -> None:
        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            return [each.put_data(-each.data) for each in failed]

        outcome = run(
            3,
            lambda m: m.failed("odd") if m.data == 1 else m,
            {"default": (take, 10)},
            handle_failed=handle_failed,
        )
        assert (outcome.good, outcome.bad) == ([0, 2], [-1])

    def test_it_is_given_what_raised_and_what_named_no_batcher(self, run: Any) -> None:
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

    def test_it_is_given_a_batch_that_a_subscriber_failed(self, run: Any) -> None:
        given: list[list[Any]] = []

        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        def handle_failed(failed: list[Message[Any]]) -> list[Message[Any]]:
            given.append(sorted(message.data for message in failed))
            return [each.put_data("dead") for each in failed]

        outcome = run(3, same, {"default": (subscriber, 3)}, handle_failed=handle_failed)
        assert given == [[0, 1, 2]]
        assert outcome.bad == ["dead"] * 3

    def test_it_is_given_only_the_messages_of_a_batch_that_failed(self, run: Any) -> None:
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
    def test_one_that_raises_is_contained_and_reported(self, run: Any, where: str) -> None:
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
    def test_one_that_does_not_keep_the_count_changes_nothing(
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

    def test_a_message_stays_failed_whatever_it_says(self, run: Any) -> None:
        def handle_failed(failed: Sequence[Message[Any]]) -> list[Message[Any]]:
            return [Message(each.data).with_acknowledger(each.acknowledger) for each in failed]

        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(2, same, {"default": (subscriber, 2)}, handle_failed=handle_failed)
        assert (outcome.good, outcome.bad) == ([], [0, 1])
        assert all(message.is_failed for message in outcome.acks.failed)


class TestEvents:
    def test_batches_are_reported_when_they_begin_and_when_they_are_over(self, run: Any) -> None:
        outcome = run(4, same, {"default": (take, 2)})
        started, delivered = outcome.of(events.BatchStarted), outcome.of(events.BatchDelivered)
        assert [len(event.batch) for event in started] == [2, 2]
        assert [event.batch for event in delivered] == [event.batch for event in started]
        assert all(event.seconds >= 0 for event in delivered)

    def test_failures_that_were_handled_are_reported(self, run: Any) -> None:
        def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        outcome = run(2, same, {"default": (subscriber, 2)}, handle_failed=list)
        assert [len(event.messages) for event in outcome.of(events.FailureHandled)] == [2]
