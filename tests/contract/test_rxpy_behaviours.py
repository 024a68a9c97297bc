"""The documented behaviour of buffer_with_time_or_count and flat_map, for batch and process.

Both are run on the same events under RxPY's own TestScheduler and compared; where ours differ on
purpose, a test says so.
"""

from __future__ import annotations

from typing import Any

import pytest
import reactivex
from reactivex import operators as stock
from reactivex.testing import ReactiveTest, TestScheduler

from rxtweets import Batch, Message
from rxtweets import operators as ops

on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)
END = on_completed(600)


def run(operator: Any, notes: Any, disposed: float = 1000.0) -> list[tuple[float, Any]]:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(*notes)
    observer: Any = scheduler.start(lambda: source.pipe(operator), disposed=disposed)
    return [(note.time, _value(note.value)) for note in observer.messages]


def _value(note: Any) -> Any:
    if note.kind != "N":
        return "completed" if note.kind == "C" else note.exception
    value = note.value
    if isinstance(value, list | Batch):
        return [message.data for message in value]
    return value.data


def notes_at(*times: int) -> list[Any]:
    return [on_next(time, Message(time)) for time in times]


class TestBufferWithTimeOrCount:
    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_full_batches_equal_full_buffers(self, count: int) -> None:
        notes = [*notes_at(*range(205, 560, 13)), END]
        theirs = run(stock.buffer_with_time_or_count(2000.0, count), notes)
        ours = run(ops.batch(count, 2000.0), notes)
        assert ours == [item for item in theirs if item[1] != []]

    def test_last_batch_is_emitted_on_completion(self) -> None:
        notes = [*notes_at(210, 220), END]
        assert run(ops.batch(5, 2000.0), notes) == run(
            stock.buffer_with_time_or_count(2000.0, 5), notes
        )

    def test_timeout_restarts_after_full_batch(self) -> None:
        notes = [*notes_at(205, 210, 215), END]
        theirs = run(stock.buffer_with_time_or_count(100.0, 2), notes)
        assert theirs[:2] == [(210, [205, 210]), (310, [215])]
        # The timeout runs from the first message of the batch: five ticks later.
        assert run(ops.batch(2, 100.0), notes)[:2] == [(210, [205, 210]), (315, [215])]

    def test_differs_empty_batches_are_not_emitted(self) -> None:
        theirs = run(stock.buffer_with_time_or_count(100.0, 2), [END])
        assert (300, []) in theirs
        assert run(ops.batch(2, 100.0), [END]) == [(600, "completed")]

    def test_differs_last_batch_is_emitted_before_error(self) -> None:
        fault = ValueError("source")
        notes = [*notes_at(210), on_error(250, fault)]
        assert run(stock.buffer_with_time_or_count(2000.0, 5), notes) == [(250, fault)]
        assert run(ops.batch(5, 2000.0), notes) == [(250, [210]), (250, fault)]

    def test_nothing_is_emitted_after_disposal(self) -> None:
        notes = notes_at(210, 220, 230, 240)
        operators = (ops.batch(3, 2000.0), stock.buffer_with_time_or_count(2000.0, 3))
        for operator in operators:
            assert run(operator, notes, disposed=225.0) == []


class TestFlatMap:
    @staticmethod
    def double(message: Message[Any]) -> Message[Any]:
        return message.put_data(message.data * 2)

    @classmethod
    def theirs(cls, notes: Any, disposed: float = 1000.0) -> list[tuple[float, Any]]:
        mapping: Any = stock.flat_map(lambda m: reactivex.just(cls.double(m)))
        return run(mapping, notes, disposed)

    def ours(self, notes: Any, disposed: float = 1000.0) -> list[tuple[float, Any]]:
        return run(ops.process(self.double), notes, disposed)

    def test_all_items_are_mapped(self) -> None:
        notes = [*notes_at(*range(210, 560, 11)), END]
        assert self.ours(notes) == self.theirs(notes)

    def test_completion_follows_last_result(self) -> None:
        notes = [*notes_at(210, 600), END]
        assert self.ours(notes)[-1][1] == self.theirs(notes)[-1][1] == "completed"

    def test_empty_source_completes_immediately(self) -> None:
        assert self.ours([END]) == self.theirs([END]) == [(600, "completed")]

    def test_error_of_source_is_passed_on(self) -> None:
        fault = ValueError("source")
        notes = [*notes_at(210), on_error(250, fault)]
        assert self.ours(notes)[-1][1] is self.theirs(notes)[-1][1] is fault

    def test_nothing_is_emitted_after_disposal(self) -> None:
        notes = notes_at(210, 300)
        assert len(self.ours(notes, disposed=250.0)) == len(self.theirs(notes, disposed=250.0)) == 1

    def test_differs_stream_continues_when_function_raises(self) -> None:
        def fragile(message: Message[Any]) -> Message[Any]:
            if message.data == 220:
                raise ValueError("cannot")
            return message

        notes = [*notes_at(210, 220, 230), END]
        stock_mapping: Any = stock.flat_map(lambda m: reactivex.just(fragile(m)))
        theirs = run(stock_mapping, notes)
        assert [type(value) for _, value in theirs] == [int, ValueError]
        values = [value for _, value in run(ops.process(fragile), notes)]
        assert values == [210, 230, "completed"]
