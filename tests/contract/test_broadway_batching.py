"""Batches by size, time, key, function, bytes and partition, at exact virtual times.

Over a pipeline composed of operators and over `Pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline
from rxtweets import operators as ops
from rxtweets.testing import DummySource, VirtualTime, test_batch, test_message


class Taken:
    """Keeps batches and their times."""

    def __init__(self, kind: str = "ready") -> None:
        self.kind = kind
        self.clock: VirtualTime | None = None
        self.batches: list[tuple[float, Batch[Any]]] = []

    def __call__(self, batch: Batch[Any]) -> None:
        assert self.clock is not None
        self.batches.append((self.clock.now, batch))

    @property
    def shown(self) -> list[tuple[float, list[Any], str]]:
        return [
            (time, [message.data for message in batch], batch.info.trigger)
            for time, batch in self.batches
        ]


class ByHand:
    """The same stages as operators, with the methods of a pipeline that these tests use."""

    def __init__(self, taken: Taken, handler: Any, concurrency: int = 1, **options: Any) -> None:
        self._source: Subject[Message[Any]] = Subject()
        batching: list[Any] = [
            ops.batch(**options, partitions=concurrency),
            ops.deliver(taken, concurrency),
        ]
        stream: Any = self._source
        if handler is not None:
            stream = stream.pipe(ops.process(handler, ordered=True))
        self._stream = stream.pipe(ops.route({"default": batching}))
        self.stats, self.stages = self._stream.stats, self._stream.stages
        self._scheduler: Any = None

    def start(self, *, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._stream.subscribe(lambda _: None, scheduler=scheduler)

    def push(self, messages: Sequence[Message[Any]]) -> None:
        for message in messages:
            self._source.on_next(message)

    def stop(self, *, drain: bool) -> None:
        del drain
        self._source.on_completed()
        self._scheduler.start()


def pipeline_of(taken: Taken, handler: Any = None, **given: Any) -> tuple[Any, VirtualTime]:
    options = {"size": 3, "timeout": 2.0, **given}
    pipeline: Any
    if taken.kind == "ready":
        batchers = {"default": Batcher(taken, **options)}
        pipeline = Pipeline(
            DummySource(), handle_message=handler, ordered=bool(handler), batchers=batchers
        )
    else:
        pipeline = ByHand(taken, handler, **options)
    taken.clock = VirtualTime(pipeline)
    return pipeline, taken.clock


@pytest.fixture(params=["ready", "by hand"])
def taken(request: pytest.FixtureRequest) -> Taken:
    return Taken(request.param)


class TestSizeAndTime:
    def test_full_batches_are_emitted_before_timeout(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken)
        with clock:
            test_batch(pipeline, "abcd")
            clock.advance(5.0)
        assert taken.shown == [(0.0, ["a", "b", "c"], "size"), (2.0, ["d"], "timeout")]

    def test_timeout_runs_from_first_message(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=100)
        with clock:
            for _ in range(3):
                test_batch(pipeline, "x")
                clock.advance(0.9)
        assert taken.shown[0] == (2.0, ["x", "x", "x"], "timeout")

    def test_drain_flushes_unfinished_batch(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken)
        with clock:
            test_batch(pipeline, "ab")
        assert taken.shown == [(0.0, ["a", "b"], "flush")]

    def test_no_batch_is_emitted_without_messages(self, taken: Taken) -> None:
        _, clock = pipeline_of(taken)
        with clock:
            clock.advance(100.0)
        assert taken.shown == []


class TestKeys:
    def test_keys_have_separate_sizes_and_timeouts(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, lambda m: m.put_batch_key(m.data[0]), size=2)
        with clock:
            test_batch(pipeline, ["a1"])
            clock.advance(1.0)
            test_batch(pipeline, ["b1", "b2", "b3"])
            clock.advance(5.0)
        assert taken.shown == [
            (1.0, ["b1", "b2"], "size"),
            (2.0, ["a1"], "timeout"),
            (3.0, ["b3"], "timeout"),
        ]

    def test_key_is_forgotten_after_its_batch(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, lambda m: m.put_batch_key(m.data), size=2)
        with clock:
            test_batch(pipeline, range(100))
            clock.advance(2.0)
            (batcher,) = [stage for stage in pipeline.stages() if stage.kind == "batcher"]
            assert (len(taken.batches), batcher.queued) == (100, 0)


class TestModes:
    def test_test_message_is_flushed(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken)
        with clock:
            test_message(pipeline, "a")
            assert taken.shown == [(0.0, ["a"], "flush")]

    def test_flush_includes_waiting_messages(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken)
        with clock:
            test_batch(pipeline, "a")
            test_message(pipeline, "b")
        assert taken.shown == [(0.0, ["a", "b"], "flush")]

    def test_flush_of_one_key_leaves_other_keys(self, taken: Taken) -> None:
        def handler(message: Message[Any]) -> Message[Any]:
            keyed = message.put_batch_key(message.data)
            return keyed.put_batch_mode("flush") if message.data == "b" else keyed

        pipeline, clock = pipeline_of(taken, handler)
        with clock:
            test_batch(pipeline, "ab")
            clock.advance(2.0)
        assert [(texts, trigger) for _, texts, trigger in taken.shown] == [
            (["b"], "flush"),
            (["a"], "timeout"),
        ]


def weigh(message: Message[int], weight: int) -> tuple[Any, int]:
    """End a batch with the message that raises its weight to 10."""
    total = weight + message.data
    return ("emit" if total >= 10 else "continue"), total


class TestSplitting:
    def test_size_function_ends_batch_with_message(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=(0, weigh))
        with clock:
            test_batch(pipeline, [50, 4, 4, 4, 1])
            clock.advance(2.0)
        assert taken.shown == [
            (0.0, [50], "size"),
            (0.0, [4, 4, 4], "size"),
            (2.0, [1], "timeout"),
        ]

    def test_size_function_ends_batch_before_message(self, taken: Taken) -> None:
        def same_sign(message: Message[int], sign: Any) -> tuple[Any, Any]:
            mine = message.data > 0
            return ("continue" if sign in (None, mine) else "before"), mine

        pipeline, clock = pipeline_of(taken, size=(None, same_sign))
        with clock:
            test_batch(pipeline, [1, 2, -3, -4, 5])
        assert [texts for _, texts, _ in taken.shown] == [[1, 2], [-3, -4], [5]]

    def test_keys_have_separate_accumulators(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, lambda m: m.put_batch_key(m.data % 2), size=(0, weigh))
        with clock:
            test_batch(pipeline, [8, 7, 2, 3])
        assert [texts for _, texts, _ in taken.shown] == [[8, 2], [7, 3]]

    @pytest.mark.parametrize("answer", [("what", 0), "emit", None])
    def test_message_fails_when_size_function_returns_other(
        self, taken: Taken, answer: Any
    ) -> None:
        pipeline, clock = pipeline_of(taken, size=(0, lambda _m, _a: answer))
        with clock:
            acks = test_batch(pipeline, [1])
        assert (len(acks.failed), taken.shown) == (1, [])

    def test_message_fails_when_size_function_raises(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=(0, weigh))
        with clock:
            acks = test_batch(pipeline, [4, "text", 6])
        assert [message.data for message in acks.failed] == ["text"]
        assert [texts for _, texts, _ in taken.shown] == [[4, 6]]


class TestBytes:
    def test_message_beyond_max_bytes_starts_next_batch(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=100, max_bytes=10)
        with clock:
            test_batch(pipeline, ["aaaa", "bbbb", "cccc", "dd", "eeee", "ffff"])
        assert [texts for _, texts, _ in taken.shown] == [
            ["aaaa", "bbbb"],
            ["cccc", "dd", "eeee"],
            ["ffff"],
        ]

    def test_only_single_message_exceeds_max_bytes(self, taken: Taken) -> None:
        texts = ["x" * (number * 7 % 13) for number in range(1, 60)]
        pipeline, clock = pipeline_of(taken, size=100, max_bytes=10)
        with clock:
            test_batch(pipeline, texts)
        sizes = [([len(text) for text in batch]) for _, batch, _ in taken.shown]
        assert [size for batch in sizes for size in batch] == [len(text) for text in texts]
        assert all(sum(batch) <= 10 or len(batch) == 1 for batch in sizes)

    def test_size_applies_beside_max_bytes(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=2, max_bytes=10)
        with clock:
            test_batch(pipeline, "abc")
        assert [texts for _, texts, _ in taken.shown] == [["a", "b"], ["c"]]

    def test_bytes_of_tweet_are_those_of_its_line(self, taken: Taken) -> None:
        line = b'{"data":{"id":"1","text":"x"}}'
        pipeline, clock = pipeline_of(taken, size=100, max_bytes=2 * len(line))
        with clock:
            test_batch(pipeline, [Message.from_line(line)] * 3)
        assert [len(texts) for _, texts, _ in taken.shown] == [2, 1]

    def test_message_fails_without_bytes_of_for_its_data(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, max_bytes=10)
        with clock:
            acks = test_batch(pipeline, [{}])
        assert "bytes_of" in str(acks.failed[0].status)
        other = Taken()
        pipeline, clock = pipeline_of(other, max_bytes=10, bytes_of=lambda _: 6)
        with clock:
            test_batch(pipeline, [{}, {}])
        assert [len(texts) for _, texts, _ in other.shown] == [1, 1]


class TestPartitions:
    def test_batch_has_messages_of_one_partition_in_order(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=2, concurrency=2, partition_by=lambda m: m.data)
        with clock:
            test_batch(pipeline, range(1, 13))
        by_partition: dict[Any, list[list[Any]]] = {0: [], 1: []}
        for _, batch in taken.batches:
            by_partition[batch.info.partition].append([message.data for message in batch])
        assert by_partition == {
            1: [[1, 3], [5, 7], [9, 11]],
            0: [[2, 4], [6, 8], [10, 12]],
        }

    def test_batches_are_divided_by_key_and_partition(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(
            taken,
            lambda m: m.put_batch_key(m.data > 4),
            size=2,
            concurrency=2,
            partition_by=lambda m: m.data,
        )
        with clock:
            test_batch(pipeline, range(1, 9))
        assert sorted(texts for _, texts, _ in taken.shown) == [[1, 3], [2, 4], [5, 7], [6, 8]]

    @pytest.mark.parametrize("number", [-1, "a", None, 1.5, True])
    def test_message_fails_when_partition_is_invalid(self, taken: Taken, number: Any) -> None:
        pipeline, clock = pipeline_of(taken, partition_by=lambda _: number)
        with clock:
            acks = test_batch(pipeline, "a")
        assert "whole number" in str(acks.failed[0].status)

    def test_stage_counts_messages_of_each_partition(self, taken: Taken) -> None:
        pipeline, clock = pipeline_of(taken, size=1, concurrency=3, partition_by=lambda m: m.data)
        with clock:
            test_batch(pipeline, [0, 1, 1, 2, 2, 2])
            [stage] = [item for item in pipeline.stages() if item.kind == "subscribers"]
        assert stage.partitions == (1, 2, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (0,)}, "size="),
        ({"size": (0, "function")}, "size="),
        ({"size": "20"}, "size="),
        ({"size": (0, weigh), "max_bytes": 5}, "max_bytes"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": 5, "bytes_of": 3}, "bytes_of"),
        ({"concurrency": 0}, "concurrency"),
        ({"partition_by": 3}, "partition_by"),
    ],
)
def test_batcher_refuses_invalid_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        Batcher(print, **options)


def test_helpers_pass_metadata_and_acknowledger(taken: Taken) -> None:
    acknowledged: list[Any] = []

    def record(good: Sequence[Message[Any]], _: Sequence[Message[Any]]) -> None:
        acknowledged.extend(message.metadata["lang"] for message in good)

    pipeline, clock = pipeline_of(taken)
    with clock:
        acks = test_message(
            pipeline,
            "a",
            metadata={"lang": "ja"},
            acknowledger=rxtweets.CallerAcknowledger(record),
        )
    assert acknowledged == ["ja"]
    assert [message.data for message in acks.successful] == ["a"]
