"""Start, demand, restarts, limits, introspection and end of a pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import Any

import pytest
import reactivex
import tenacity
from reactivex.disposable import Disposable
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, RateLimit, Restart, events
from rxtweets import operators as ops
from rxtweets.errors import PipelineError, SourceError
from rxtweets.pipeline import Topology, TopologyBatcher, TopologyProcessors, TopologySource
from rxtweets.testing import (
    DummySource,
    RecordingAcknowledger,
    VirtualTime,
    test_batch,
    test_message,
)

PATIENCE = 20.0
NEVER = 600.0


def same(message: Message[Any]) -> Message[Any]:
    return message


class Counted:
    """A service with endless messages, which keeps the requested numbers."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[int] = []
        self.given = 0
        self.fault = fault
        self.changed = threading.Condition()

    def __call__(self, wanted: int) -> list[Message[int]]:
        with self.changed:
            self.asked.append(wanted)
            numbers = range(self.given, self.given + wanted)
            self.given += wanted
            self.changed.notify_all()
        if self.fault is not None:
            raise self.fault
        return [Message(number) for number in numbers]

    def wait_for(self, given: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.given >= given, PATIENCE)


class Flaky(reactivex.Observable[Any]):
    """Emits one message per subscription; the first subscriptions fail."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        super().__init__()
        self.subscriptions = 0
        self._failures = failures
        self._error = error or OSError("gone")

    def _subscribe_core(self, observer: Any, scheduler: Any = None) -> Disposable:
        del scheduler
        self.subscriptions += 1
        observer.on_next(Message(self.subscriptions))
        if self.subscriptions <= self._failures:
            observer.on_error(self._error)
        else:
            observer.on_completed()
        return Disposable()


class TestSeveralSources:
    def test_pipeline_ends_with_last_of_several_sources(self) -> None:
        got: list[Any] = []
        sources = [rxtweets.from_iterable(range(n * 10, n * 10 + 10)) for n in range(3)]
        stats = Pipeline(
            sources,
            handle_message=same,
            batchers={"default": Batcher(lambda b: got.extend(m.data for m in b), 7, NEVER)},
        ).run()
        assert sorted(got) == list(range(30))
        assert (stats.delivered, stats.batched) == (30, 30)

    def test_events_name_their_source(self) -> None:
        faulty = rxtweets.polling_source(Counted(OSError("gone")))
        pipeline = Pipeline([DummySource(), faulty], handle_message=same, restart=None)
        seen: list[events.Event] = []
        pipeline.events.subscribe(seen.append)
        with pytest.raises(SourceError):
            pipeline.run()
        (failed,) = [event for event in seen if isinstance(event, events.SourceFailed)]
        assert failed.source == 1


class TestSourceCrash:
    def test_failed_source_is_restarted_while_rest_continues(self) -> None:
        flaky = Flaky(2)
        acks: list[Any] = []

        def handler(message: Message[Any]) -> Message[Any]:
            acks.append(message.data)
            return message

        pipeline = Pipeline(
            [flaky, DummySource()],
            handle_message=handler,
        )
        with VirtualTime(pipeline) as clock:
            clock.advance(0.05)
            test_message(pipeline, "beside")
            clock.advance(0.05)
            clock.advance(1.0)
            assert flaky.subscriptions == 3
        assert acks == [1, "beside", 2, 3]
        assert pipeline.stats().restarts == 2

    def test_three_restarts_in_five_seconds_are_allowed(self) -> None:
        flaky = Flaky(100)
        pipeline = Pipeline([flaky, DummySource()], handle_message=same)
        with VirtualTime(pipeline) as clock:
            clock.advance(10.0)
            with pytest.raises(SourceError) as caught:
                pipeline.wait(1.0)
        assert flaky.subscriptions == 4
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.source == 0

    def test_old_failures_are_not_counted(self) -> None:
        flaky = Flaky(9)
        restart = Restart(wait=tenacity.wait_fixed(6.0))
        pipeline = Pipeline(flaky, handle_message=same, restart=restart)
        with VirtualTime(pipeline) as clock:
            clock.advance(100.0)
            assert pipeline.wait(1.0)
        assert flaky.subscriptions == 10

    def test_policy_decides_which_errors_restart(self) -> None:
        flaky = Flaky(1, ValueError("broken for good"))
        restart = Restart(retry=tenacity.retry_if_exception_type(OSError))
        with pytest.raises(SourceError, match="broken for good"):
            Pipeline(flaky, handle_message=same, restart=restart).run()
        assert flaky.subscriptions == 1

    def test_errors_of_rxtweets_are_final(self) -> None:
        error = rxtweets.errors.ConnectionLost("gone")
        flaky = Flaky(1, error)
        with pytest.raises(rxtweets.errors.ConnectionLost) as caught:
            Pipeline(flaky, handle_message=same).run()
        assert caught.value is error
        assert flaky.subscriptions == 1

    def test_restarts_are_reported(self) -> None:
        pipeline = Pipeline(Flaky(1), handle_message=same)
        seen: list[events.Event] = []
        pipeline.events.subscribe(seen.append)
        with VirtualTime(pipeline) as clock:
            clock.advance(1.0)
        (event,) = [item for item in seen if isinstance(item, events.SourceRestarting)]
        assert (event.source, event.attempt, event.delay) == (0, 1, 0.1)

    def test_other_sources_are_drained_before_error(self) -> None:
        got: list[Any] = []
        pipeline = Pipeline(
            [Flaky(1), DummySource()],
            handle_message=same,
            restart=None,
            batchers={"default": Batcher(lambda b: got.extend(m.data for m in b), 9, NEVER)},
        )
        with pytest.raises(SourceError):
            pipeline.run()
        assert got == [1]

    def test_stop_is_immediate_while_source_waits_for_restart(self) -> None:
        flaky = Flaky(1)
        failed = threading.Event()
        pipeline = Pipeline(flaky, handle_message=same, restart=Restart(wait=lambda _: NEVER))
        pipeline.events.subscribe(
            lambda event: failed.set() if isinstance(event, events.SourceRestarting) else None
        )
        pipeline.start()
        assert failed.wait(PATIENCE)
        pipeline.stop()
        assert pipeline.wait(PATIENCE)
        assert flaky.subscriptions == 1


class TestDemand:
    def test_paused_pipeline_does_not_ask(self) -> None:
        service = Counted()
        pipeline = Pipeline(rxtweets.polling_source(service, most=5), handle_message=same)
        pipeline.pause()
        with VirtualTime(pipeline) as clock:
            clock.advance(10.0)
            assert service.asked == []
            # Virtual time does not block, so an endless source needs a limit.
            service.fault = OSError("enough")
            pipeline.resume()

    def test_full_pipeline_does_not_ask(self) -> None:
        service = Counted()
        held = threading.Event()

        def handler(message: Message[Any]) -> Message[Any]:
            assert held.wait(PATIENCE)
            return message

        pipeline = Pipeline(
            rxtweets.polling_source(service, most=5), handle_message=handler, concurrency=1
        ).start()
        assert service.wait_for(10)  # max_demand of one processor
        while pipeline.stats().in_flight < 10:
            pipeline.wait(0.001)
        assert pipeline.wait(0.1) is False
        assert (service.asked, pipeline.stats().in_flight) == ([5, 5], 10)
        pipeline.stop(drain=False)
        held.set()

    def test_pipeline_does_not_ask_when_paused_while_full(self) -> None:
        service = Counted()
        held = threading.Event()

        def handler(message: Message[Any]) -> Message[Any]:
            assert held.wait(PATIENCE)
            return message

        pipeline = Pipeline(
            rxtweets.polling_source(service, most=5), handle_message=handler, concurrency=1
        ).start()
        assert service.wait_for(10)
        pipeline.pause()
        held.set()
        assert pipeline.wait(0.1) is False
        assert service.asked == [5, 5]
        assert pipeline.stop().acknowledged == 10

    def test_pipeline_does_not_ask_when_paused_by_handler(self) -> None:
        service = Counted()
        paused = threading.Event()

        def handler(message: Message[Any]) -> Message[Any]:
            if message.data == 0:
                pipeline.pause()
                paused.set()
            return message

        pipeline = Pipeline(
            rxtweets.polling_source(service, most=1), handle_message=handler, concurrency=1
        )
        pipeline.start()
        assert paused.wait(PATIENCE)
        before = service.given
        assert pipeline.wait(0.1) is False
        assert service.given <= before + 1
        pipeline.stop()
        assert pipeline.stats().acknowledged == service.given

    def test_demand_equals_rate_limit(self) -> None:
        service = Counted()
        pipeline = Pipeline(
            rxtweets.polling_source(service, most=5),
            handle_message=same,
            rate_limit=RateLimit(7, NEVER),
        ).start()
        assert service.wait_for(7)
        assert pipeline.wait(0.1) is False
        assert service.asked == [5, 2]
        assert pipeline.stop().acknowledged == 7

    def test_empty_service_is_polled_again_after_interval(self) -> None:
        times: list[float] = []

        def poll(_: int) -> list[Message[Any]]:
            times.append(clock.now)
            return []

        source = rxtweets.polling_source(poll, interval=5.0)
        pipeline = Pipeline(source, handle_message=same)
        clock = VirtualTime(pipeline)
        with clock:
            clock.advance(14.0)
        assert times[:3] == [0.0, 5.0, 10.0]

    def test_pipeline_ends_when_service_returns_none(self) -> None:
        answers = [[Message(1)], [], [Message(2)], None]
        source = rxtweets.polling_source(lambda _: answers.pop(0), interval=0.001)
        assert Pipeline(source, handle_message=same).run().acknowledged == 2

    def test_drain_handles_messages_of_long_poll(self) -> None:
        asked, answer = threading.Event(), threading.Event()

        def poll(_: int) -> list[Message[Any]]:
            asked.set()
            assert answer.wait(PATIENCE)
            return [Message("late")]

        pipeline = Pipeline(rxtweets.polling_source(poll), handle_message=same).start()
        assert asked.wait(PATIENCE)
        stopper = threading.Thread(target=pipeline.stop)
        stopper.start()
        answer.set()
        stopper.join(PATIENCE)
        assert pipeline.stats().acknowledged == 1

    def test_queue_items_are_done_or_requeued(self) -> None:
        items: queue.Queue[int] = queue.Queue()
        for number in range(5):
            items.put(number)
        tries: list[int] = []

        def handler(message: Message[int]) -> Message[int]:
            tries.append(message.data)
            if message.data == 3 and tries.count(3) == 1:
                return message.configure_ack(on_failure="requeue").failed("once")
            return message

        with Pipeline(rxtweets.from_queue(items, wait=0.01), handle_message=handler):
            items.join()
        assert sorted(tries) == [0, 1, 2, 3, 3, 4]


class TestPause:
    def test_messages_wait_in_order_while_paused(self) -> None:
        source: Subject[Message[Any]] = Subject()
        got: list[Any] = []
        batchers = {"default": Batcher(lambda b: got.extend(m.data for m in b), 1)}
        pipeline = Pipeline(source, batchers=batchers)
        with VirtualTime(pipeline):
            pipeline.pause()
            assert pipeline.is_paused
            for number in range(3):
                source.on_next(Message(number))
            assert got == []
            pipeline.resume()
            assert got == [0, 1, 2]
            source.on_next(Message(3))
        assert got == [0, 1, 2, 3]

    def test_drain_delivers_messages_when_paused(self) -> None:
        source: Subject[Message[Any]] = Subject()
        got: list[Any] = []
        batchers = {"default": Batcher(lambda b: got.extend(m.data for m in b), 10)}
        pipeline = Pipeline(source, batchers=batchers)
        with VirtualTime(pipeline):
            pipeline.pause()
            source.on_next(Message(1))
        assert got == [1]

    def test_stop_abandons_messages_when_paused(self) -> None:
        source: Subject[Message[Any]] = Subject()
        pipeline = Pipeline(source, handle_message=same)
        with VirtualTime(pipeline):
            pipeline.pause()
            source.on_next(Message(1))
            stats = pipeline.stop(drain=False)
        assert (stats.acknowledged, stats.abandoned) == (0, 1)

    def test_stop_unblocks_waiting_thread(self) -> None:
        source: Subject[Message[Any]] = Subject()
        pipeline = Pipeline(source, handle_message=same).start()
        pipeline.pause()
        emitter = threading.Thread(target=lambda: source.on_next(Message(1)))
        emitter.start()
        pipeline.stop(drain=False)
        emitter.join(PATIENCE)
        assert not emitter.is_alive()
        assert pipeline.stats().acknowledged == 0

    def test_pause_and_resume_are_reported_once(self) -> None:
        pipeline = Pipeline(DummySource(), handle_message=same)
        seen: list[events.Event] = []
        pipeline.events.subscribe(seen.append)
        with VirtualTime(pipeline):
            pipeline.pause()
            pipeline.pause()
            pipeline.resume()
            pipeline.resume()
        assert [item for item in seen if isinstance(item, events.Paused | events.Resumed)] == [
            events.Paused(),
            events.Resumed(),
        ]


class TestRateLimiting:
    @staticmethod
    def started(limit: RateLimit, sources: int = 1) -> tuple[Pipeline, VirtualTime, Any, Any]:
        times: list[float] = []
        subjects: list[Subject[Message[Any]]] = [Subject() for _ in range(sources)]

        def subscriber(batch: Batch[Any]) -> None:
            times.extend(clock.now for _ in batch)

        pipeline = Pipeline(
            subjects, batchers={"default": Batcher(subscriber, 1)}, rate_limit=limit
        )
        clock = VirtualTime(pipeline)
        return pipeline, clock, subjects, times

    @staticmethod
    def emit(subject: Subject[Message[Any]], count: int) -> None:
        for number in range(count):
            subject.on_next(Message(number))

    def test_messages_beyond_limit_wait_for_next_interval(self) -> None:
        _, clock, (source,), times = self.started(RateLimit(2, 10.0))
        with clock:
            self.emit(source, 5)
            clock.advance(25.0)
        assert times == [0.0, 0.0, 10.0, 10.0, 20.0]

    def test_messages_within_limit_do_not_wait(self) -> None:
        _, clock, (source,), times = self.started(RateLimit(3, 10.0))
        with clock:
            self.emit(source, 3)
            assert times == [0.0, 0.0, 0.0]

    def test_rate_limit_is_shared_by_sources(self) -> None:
        _, clock, (one, two), times = self.started(RateLimit(3, 10.0), sources=2)
        with clock:
            self.emit(one, 2)
            self.emit(two, 2)
            clock.advance(15.0)
        assert times == [0.0, 0.0, 0.0, 10.0]

    def test_change_applies_from_next_interval(self) -> None:
        limit = RateLimit(1, 10.0)
        _, clock, (source,), times = self.started(limit)
        with clock:
            self.emit(source, 6)
            limit.update(allowed=2, interval=5.0)
            assert (limit.allowed, limit.interval) == (2, 5.0)
            clock.advance(22.0)
        assert times == [0.0, 10.0, 10.0, 15.0, 15.0, 20.0]

    def test_change_with_reset_applies_immediately(self) -> None:
        limit = RateLimit(1, 10.0)
        _, clock, (source,), times = self.started(limit)
        with clock:
            self.emit(source, 4)
            clock.advance(1.0)
            limit.update(allowed=2, reset=True)
            assert times == [0.0, 1.0, 1.0]
            clock.advance(11.0)
        assert times == [0.0, 1.0, 1.0, 11.0]

    def test_lifted_limit_passes_all_until_set_again(self) -> None:
        limit = RateLimit(1, 10.0)
        _, clock, (source,), times = self.started(limit)
        with clock:
            self.emit(source, 4)
            clock.advance(1.0)
            limit.lift()
            assert times == [0.0, 1.0, 1.0, 1.0]
            limit.update(allowed=1)
            self.emit(source, 2)
            assert len(times) == 5
            clock.advance(20.0)
        assert len(times) == 6

    def test_drain_ignores_rate_limit(self) -> None:
        _, clock, (source,), times = self.started(RateLimit(1, NEVER))
        with clock:
            self.emit(source, 5)
        assert times == [0.0] * 5

    def test_drain_ignores_rate_limit_on_threads(self) -> None:
        service = Counted()
        source = rxtweets.polling_source(service, most=5)
        pipeline = Pipeline(source, handle_message=same, rate_limit=RateLimit(2, NEVER)).start()
        assert service.wait_for(2)
        stats = pipeline.stop(timeout=PATIENCE)
        assert (stats.acknowledged, stats.abandoned) == (service.given, 0)

    def test_pushed_messages_ignore_rate_limit(self) -> None:
        pipeline, clock, _, times = self.started(RateLimit(1, NEVER))
        with clock:
            test_batch(pipeline, range(5))
            assert times == [0.0] * 5

    @pytest.mark.parametrize("arguments", [(0, 1.0), (1, 0), (1.5, 1.0), (1, "soon"), (True, 1.0)])
    def test_rate_limit_refuses_invalid_options(self, arguments: Any) -> None:
        with pytest.raises(rxtweets.ConfigurationError):
            RateLimit(*arguments)
        with pytest.raises(rxtweets.ConfigurationError, match="rate_limit"):
            Pipeline(DummySource(), handle_message=same, rate_limit=arguments)


class TestPartitions:
    def test_partition_is_handled_and_delivered_in_order(self) -> None:
        handled: dict[int, list[int]] = {0: [], 1: [], 2: []}
        delivered: dict[int, list[int]] = {0: [], 1: [], 2: []}

        def handler(message: Message[int]) -> Message[int]:
            threading.Event().wait(
                0.000_1 * (message.data % 4)
            )  # uneven durations, so that calls overtake each other
            handled[message.data % 3].append(message.data)
            return message

        def subscriber(batch: Batch[int]) -> None:
            threading.Event().wait(
                0.000_1 * (batch[0].data % 4)
            )  # uneven durations, so that calls overtake each other
            for message in batch:
                delivered[message.data % 3].append(message.data)

        Pipeline(
            rxtweets.from_iterable(range(300)),
            handle_message=handler,
            concurrency=6,
            partition_by=lambda message: message.data % 3,
            batchers={"default": Batcher(subscriber, 4, NEVER, concurrency=3)},
        ).run()
        expected = {part: list(range(part, 300, 3)) for part in range(3)}
        assert handled == expected
        assert delivered == expected


class TestDelivery:
    def test_concurrency_batches_are_delivered_together(self) -> None:
        together = threading.Barrier(3)

        def subscriber(_: Batch[Any]) -> None:
            together.wait(PATIENCE)

        stats = Pipeline(
            rxtweets.from_iterable(range(3)),
            batchers={"default": Batcher(subscriber, 1, concurrency=3)},
        ).run()
        assert stats.batches == 3

    def test_batches_of_one_key_are_delivered_in_order(self) -> None:
        order: list[Any] = []
        inside = threading.Lock()

        def subscriber(batch: Batch[Any]) -> None:
            assert inside.acquire(blocking=False), "two concurrent batches of one key"
            order.extend(message.data for message in batch)
            threading.Event().wait(0.001)  # lets another call overlap, if one can
            inside.release()

        stats = Pipeline(
            rxtweets.from_iterable(range(30)),
            handle_message=lambda m: m.put_batch_key("k"),
            ordered=True,
            batchers={"default": Batcher(subscriber, 2, NEVER, concurrency=4)},
        ).run()
        assert (order, stats.batches_failed) == (list(range(30)), 0)

    def test_slow_subscriber_does_not_block_other_batcher(self) -> None:
        held, other = threading.Event(), threading.Event()

        def slow(_: Batch[Any]) -> None:
            assert held.wait(PATIENCE)

        def quick(_: Batch[Any]) -> None:
            other.set()

        source: Subject[Message[Any]] = Subject()
        pipeline = Pipeline(
            source,
            handle_message=lambda m: m.put_batcher(m.data),
            batchers={"slow": Batcher(slow, 1), "quick": Batcher(quick, 1)},
        ).start()
        source.on_next(Message("slow"))
        source.on_next(Message("quick"))
        assert other.wait(PATIENCE)
        held.set()
        assert pipeline.stop().batches == 2

    def test_waiting_bounds_how_far_batcher_falls_behind(self) -> None:
        held, others = threading.Event(), threading.Semaphore(0)

        def slow(_: Batch[Any]) -> None:
            assert held.wait(PATIENCE)

        def quick(_: Batch[Any]) -> None:
            others.release()

        source: Subject[Message[Any]] = Subject()
        pipeline = Pipeline(
            source,
            handle_message=lambda m: m.put_batcher(m.data),
            ordered=True,
            batchers={"slow": Batcher(slow, 1, waiting=50), "quick": Batcher(quick, 1)},
        ).start()
        for name in ["slow"] * 50 + ["quick"]:
            source.on_next(Message(name))
        assert others.acquire(timeout=PATIENCE)
        held.set()
        assert pipeline.stop().batches == 51


class TestShutdown:
    def test_stop_flushes_batches_of_all_batchers(self) -> None:
        got: dict[str, int] = {}

        def subscriber(batch: Batch[Any]) -> None:
            got[batch.info.batcher] = len(batch)

        pipeline = Pipeline(
            [DummySource(), DummySource()],
            handle_message=lambda m: m.put_batcher("a" if m.data % 2 else "b"),
            batchers={name: Batcher(subscriber, 100, NEVER) for name in "ab"},
        )
        with pipeline:
            test_batch(pipeline, range(57))
        assert got == {"a": 28, "b": 29}

    def test_stop_timeout_covers_all_batchers(self) -> None:
        held = threading.Event()

        both = threading.Semaphore(0)

        def stuck(_: Batch[Any]) -> None:
            both.release()
            held.wait(PATIENCE)

        pipeline = Pipeline(
            DummySource(),
            handle_message=lambda m: m.put_batcher(m.data),
            batchers={"a": Batcher(stuck, 1), "b": Batcher(stuck, 1)},
        ).start()
        acks = test_batch(pipeline, "aabb")
        assert all(both.acquire(timeout=PATIENCE) for _ in "ab")
        stats = pipeline.stop(timeout=0.05)
        held.set()
        assert acks.wait_for(2)
        assert pipeline.wait(PATIENCE)
        assert (
            stats.abandoned == 2
        )  # the waiting ones; the subscriber settles those being delivered

    @pytest.mark.parametrize("where", ["prepare", "handler", "failed", "subscriber"])
    def test_callbacks_can_stop_pipeline(self, where: str) -> None:
        def at(place: str, result: Any) -> Any:
            if place == where:
                pipeline.stop()
            return result

        def handler(message: Message[Any]) -> Message[Any]:
            at("handler", None)
            return message.failed("odd") if where == "failed" else message

        pipeline = Pipeline(
            DummySource(),
            handle_message=handler,
            prepare_messages=lambda messages: at("prepare", messages),
            handle_failed=lambda messages: at("failed", messages),
            batchers={"default": Batcher(lambda batch: at("subscriber", batch), 1)},
        )
        pipeline.start()
        test_batch(pipeline, [1])
        assert pipeline.wait(PATIENCE)
        assert pipeline.stats().abandoned == 0

    @pytest.mark.parametrize("others", [0, 1])
    def test_source_can_stop_pipeline_when_polled(self, others: int) -> None:
        ready = threading.Event()

        def poll(_: int) -> list[Message[Any]]:
            assert ready.wait(PATIENCE)
            pipeline.stop()
            return [Message("last")]

        sources = [rxtweets.polling_source(poll), *(DummySource() for _ in range(others))]
        pipeline = Pipeline(sources, handle_message=same)
        pipeline.start()
        ready.set()
        assert pipeline.wait(PATIENCE)
        assert pipeline.stats().acknowledged == 1

    def test_push_is_refused_after_sources_end(self) -> None:
        entered, go = threading.Event(), threading.Event()

        def wait(batch: Batch[Any]) -> None:
            del batch
            entered.set()
            assert go.wait(PATIENCE)

        source = rxtweets.from_iterable([1])
        pipeline = Pipeline(source, batchers={"default": Batcher(wait, 10, NEVER)}).start()
        assert entered.wait(PATIENCE)  # with the batch that the end of the source flushes
        with pytest.raises(PipelineError):
            pipeline.push([Message(2)])
        go.set()
        assert pipeline.wait(PATIENCE)
        assert (pipeline.stats().batched, pipeline.stats().abandoned) == (1, 0)

    def test_push_is_refused_after_end(self) -> None:
        pipeline = Pipeline(DummySource(), handle_message=same)
        with pytest.raises(PipelineError):
            pipeline.push([Message(1)])
        with pipeline:
            pass
        with pytest.raises(PipelineError):
            pipeline.push([Message(1)])

    def test_start_and_end_are_reported(self) -> None:
        pipeline = Pipeline(DummySource(), handle_message=same)
        seen: list[events.Event] = []
        pipeline.events.subscribe(seen.append)
        with pipeline:
            pass
        assert isinstance(seen[0], events.PipelineStarted)
        assert seen[0].topology == pipeline.topology()
        assert isinstance(seen[-1], events.PipelineEnded)
        assert seen[-1].error is None


class TestAsyncSubscribers:
    def test_async_function_is_awaited_concurrently(self) -> None:
        together = asyncio.Barrier(3)

        async def subscriber(batch: Batch[Any], context: str) -> list[Message[Any]]:
            assert context == "c"
            await together.wait()
            return [message.failed("odd") if message.data % 2 else message for message in batch]

        stats = Pipeline(
            rxtweets.from_iterable(range(6)),
            context="c",
            batchers={"default": Batcher(subscriber, 2, NEVER, concurrency=3)},
        ).run()
        assert (stats.batched, stats.batched_failed) == (3, 3)

    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_async_subscriber_is_ended(self, concurrency: int) -> None:
        received: list[str] = []

        class Store(rxtweets.Subscriber[Any]):
            async def on_next(self, batch: Batch[Any]) -> None:  # type: ignore[override]  # it is awaited
                await asyncio.sleep(0)
                received.append(f"{len(batch)}")

            async def on_completed(self) -> None:  # type: ignore[override]  # it is awaited
                await asyncio.sleep(0)
                received.append("completed")

        batcher = Batcher(Store(), 2, NEVER, concurrency=concurrency)
        Pipeline(rxtweets.from_iterable(range(4)), batchers={"default": batcher}).run()
        assert received == ["2", "2", "completed"]

    def test_batch_fails_when_async_subscriber_raises(self) -> None:
        async def subscriber(_: Batch[Any]) -> None:
            raise ValueError("no room")

        stats = Pipeline(
            rxtweets.from_iterable(range(4)), batchers={"default": Batcher(subscriber, 2, NEVER)}
        ).run()
        assert (stats.batches_failed, stats.batched_failed) == (2, 4)

    def test_stop_cancels_async_subscriber_and_fails_batch(self) -> None:
        acks = RecordingAcknowledger()
        entered = threading.Event()

        async def subscriber(_: Batch[Any]) -> None:
            entered.set()
            await asyncio.sleep(NEVER)

        source = rxtweets.from_iterable([1], acknowledger=acks)
        pipeline = Pipeline(source, batchers={"default": Batcher(subscriber, 1, concurrency=2)})
        pipeline.start()
        assert entered.wait(PATIENCE)
        pipeline.stop(drain=False)
        assert acks.wait_for(1)
        assert len(acks.failed) == 1

    def test_async_subscriber_is_refused_without_deliver(self) -> None:
        async def subscriber(_: Batch[Any]) -> None:
            raise AssertionError("never awaited")

        over = threading.Event()
        stream = rxtweets.from_iterable([1]).pipe(ops.batch(1))
        seen: list[Any] = []
        stream.events.subscribe(seen.append)
        anything: Any = subscriber
        stream.subscribe(anything, on_completed=over.set)
        assert over.wait(PATIENCE)
        stream.telemetry.bus.flush()
        (event,) = [item for item in seen if isinstance(item, events.BatchFailed)]
        assert "ops.deliver" in str(event.error)


class TestOnALoopOfTheCaller:
    def test_async_for_settles_batches_one_by_one(self) -> None:
        acks = RecordingAcknowledger()
        source = rxtweets.from_iterable(range(7), acknowledger=acks)
        pipeline = Pipeline(source, batchers={"default": Batcher.awaited(size=3, timeout=NEVER)})
        settled: list[int] = []

        async def main() -> list[int]:
            sizes = []
            async for batch in pipeline.abatches():
                settled.append(len(acks.successful))
                sizes.append(len(batch))
            return sizes

        assert asyncio.run(main()) == [3, 3, 1]
        assert settled == [0, 3, 6]
        assert len(acks.successful) == 7

    def test_leaving_loop_fails_its_batch_and_drains(self) -> None:
        acks = RecordingAcknowledger()
        source = rxtweets.from_iterable(range(4), acknowledger=acks)
        pipeline = Pipeline(source, batchers={"default": Batcher.awaited(size=2, timeout=NEVER)})

        async def main() -> None:
            async with contextlib.aclosing(pipeline.abatches()) as batches:
                async for _ in batches:
                    break

        asyncio.run(main())
        assert [message.data for message in acks.failed] == [0, 1, 2, 3]
        assert pipeline.wait(PATIENCE)

    def test_closing_waits_for_the_drain_of_a_pipeline_that_starts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        acks = RecordingAcknowledger()
        source = rxtweets.from_iterable(range(4), acknowledger=acks)
        pipeline = Pipeline(source, batchers={"default": Batcher.awaited(size=2, timeout=NEVER)})
        start, left, closed = Pipeline._start, threading.Event(), threading.Event()

        def start_slowly(*args: Any) -> Any:
            started = start(*args)
            assert left.wait(PATIENCE)
            closed.wait(0.3)  # it is not closed before this returns
            return started

        async def main() -> list[Any]:
            async with contextlib.aclosing(pipeline.abatches()) as batches:
                async for _ in batches:
                    left.set()
                    break
            failed = [message.data for message in acks.failed]
            closed.set()
            return failed

        monkeypatch.setattr(Pipeline, "_start", start_slowly)
        assert asyncio.run(main()) == [0, 1, 2, 3]

    def test_abatches_raises_error_after_last_batch(self) -> None:
        pipeline = Pipeline(
            Flaky(1), restart=None, batchers={"default": Batcher.awaited(size=2, timeout=NEVER)}
        )
        sizes: list[int] = []

        async def main() -> None:
            async for batch in pipeline.abatches():
                sizes.append(len(batch))  # noqa: PERF401 - it is to have some when that raises

        with pytest.raises(SourceError):
            asyncio.run(main())
        assert sizes == [1]

    def test_astop_does_not_block_loop(self) -> None:
        async def main() -> int:
            held = threading.Event()

            def handler(message: Message[Any]) -> Message[Any]:
                assert held.wait(PATIENCE)
                return message

            pipeline = Pipeline(DummySource(), handle_message=handler).start()
            test_batch(pipeline, [1])
            stopping = asyncio.create_task(pipeline.astop())
            await asyncio.sleep(0)  # the loop runs while the pipeline drains
            held.set()
            return (await stopping).acknowledged

        assert asyncio.run(main()) == 1

    def test_batch_fails_when_loop_is_closed(self) -> None:
        acks = RecordingAcknowledger()
        source = rxtweets.from_iterable([1], acknowledger=acks)
        pipeline = Pipeline(source, batchers={"default": Batcher.awaited(size=1, timeout=NEVER)})
        batches = pipeline.abatches()
        loop = asyncio.new_event_loop()
        assert len(loop.run_until_complete(anext(batches))) == 1
        loop.close()
        assert pipeline.wait(PATIENCE)
        assert [message.data for message in acks.failed] == [1]
        asyncio.run(batches.aclose())

    def test_awaited_batcher_needs_abatches(self) -> None:
        pipeline = Pipeline(DummySource(), batchers={"default": Batcher.awaited()})
        with pytest.raises(PipelineError, match="abatches"):
            pipeline.start()


class TestIntrospection:
    def test_topology_names_all_stages(self) -> None:
        pipeline = Pipeline(
            [DummySource(), reactivex.never()],
            handle_message=same,
            concurrency=7,
            batchers={
                "default": Batcher(print, 20, 2.0),
                "alerts": Batcher(
                    Subject(),
                    (0, lambda _m, a: ("emit", a)),
                    1.0,
                    concurrency=2,
                    partition_by=lambda _: 0,
                ),
            },
        )
        assert pipeline.topology() == Topology(
            (TopologySource("0", "DummySource"), TopologySource("1", "Observable")),
            TopologyProcessors("same", 7, ordered=False, partitioned=False),
            (
                TopologyBatcher("default", "print", 1, 20, 2.0, partitioned=False),
                TopologyBatcher("alerts", "Subject", 2, None, 1.0, partitioned=True),
            ),
        )

    def test_topology_has_no_batchers_without_them(self) -> None:
        assert Pipeline(DummySource(), handle_message=same).topology().batchers == ()

    def test_topology_has_current_concurrency(self) -> None:
        pipeline = Pipeline(DummySource(), handle_message=same, concurrency=7)
        pipeline.concurrency.limit = 9
        topology = pipeline.topology()
        assert topology.processors is not None
        assert topology.processors.concurrency == 9

    def test_stages_count_messages_and_queues(self) -> None:
        pipeline = Pipeline(
            Subject(),
            handle_message=lambda m: m.put_batcher("b") if m.data == 2 else m,
            ordered=True,
            batchers={"default": Batcher(len, 2, NEVER), "b": Batcher(len, 5, NEVER)},
        )
        with VirtualTime(pipeline) as clock:
            test_batch(pipeline, [0, 1, 2, 3, 4])
            clock.advance(0.001)
            shown = {(item.kind, item.name): item for item in pipeline.stages()}
        assert [kind for kind, _ in shown] == [
            "source",
            "processors",
            "batcher",
            "batcher",
            "subscribers",
            "subscribers",
        ]
        assert (shown["batcher", "default"].received, shown["batcher", "default"].queued) == (4, 0)
        assert (shown["batcher", "b"].received, shown["batcher", "b"].queued) == (1, 1)
        assert shown["subscribers", "default"].done == 4
        assert shown["subscribers", "b"].done == 0


class TestConfiguration:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "nothing to do"),
            ({"batchers": {"a": print}}, r"batchers\['a'\]"),
            ({"handle_message": 5}, "handle"),
            ({"handle_message": same, "handle_failed": 5}, "handle_failed"),
            ({"handle_message": same, "partition_by": 5}, "partition_by"),
            ({"handle_message": same, "prepare_messages": 5}, "prepare"),
            ({"handle_message": same, "restart": 3}, "restart"),
            ({"handle_message": same, "rate_limit": 3}, "rate_limit"),
            ({"batchers": {"a": Batcher(print)}, "ordered": True}, "ordered"),
            ({"batchers": {"a": Batcher(print)}, "time_limit": 3}, "time_limit"),
        ],
    )
    def test_pipeline_refuses_invalid_options(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(rxtweets.ConfigurationError, match=words):
            Pipeline(DummySource(), **options)

    @pytest.mark.parametrize("source", [[], [5], (), [reactivex.never(), None]])
    def test_pipeline_refuses_invalid_sources(self, source: Any) -> None:
        with pytest.raises(rxtweets.ConfigurationError, match="source"):
            Pipeline(source, handle_message=same)

    @pytest.mark.parametrize("name", ["stop", "wait", "retry"])
    def test_restart_refuses_other_than_strategies(self, name: str) -> None:
        with pytest.raises(rxtweets.ConfigurationError, match=name):
            Restart(**{name: 3})  # type: ignore[arg-type]  # that is the point


class TestChainedPipelines:
    def test_pipeline_feeds_another_by_subject(self) -> None:
        between: Subject[Message[Any]] = Subject()
        got: list[Any] = []

        def forward(batch: Batch[Any]) -> None:
            for message in batch:
                between.on_next(Message(message.data * 2))

        with Pipeline(
            between, batchers={"default": Batcher(lambda b: got.extend(m.data for m in b), 10)}
        ):
            Pipeline(
                rxtweets.from_iterable(range(5)), batchers={"default": Batcher(forward, 2, NEVER)}
            ).run()
        assert got == [0, 2, 4, 6, 8]


def test_pipeline_takes_source_of_stock_operators() -> None:
    source = rxtweets.from_iterable(range(10)).filter(lambda message: message.data % 2 == 0)
    assert Pipeline(source, handle_message=same).run().acknowledged == 5
