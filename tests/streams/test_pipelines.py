"""Pipelines over the simulator, as users run them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, simulator
from rxtweets.simulator.script import Close, Serve, Stall, unauthorized

PATIENCE = 20.0


class Kept(rxtweets.Subscriber[Any]):
    """Collects batches, and waits for a number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch[Any]] = []
        self.ends: list[object] = []
        self.changed = threading.Condition()

    def on_next(self, batch: Batch[Any]) -> None:
        with self.changed:
            self.batches.append(batch)
            self.changed.notify_all()

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)

    def on_completed(self) -> None:
        self.ends.append("completed")

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.batches) >= count, PATIENCE)

    @property
    def texts(self) -> list[str]:
        return [message.data for batch in self.batches for message in batch]


def upcase(message: Message[str]) -> Message[str]:
    return message.update_data(str.upper)


def pipeline_of(stream: Any, subscriber: Any, **options: Any) -> Pipeline:
    return Pipeline(
        stream,
        handle_message=upcase,
        batchers={"default": Batcher(subscriber, size=20, timeout=2.0)},
        **options,
    )


def stream_of(x: simulator.Simulator, **options: Any) -> Any:
    return rxtweets.sample_stream(token="any", base_url=x.url, **options)


@pytest.mark.parametrize("ordered", [False, True])
def test_drain_delivers_all_received_messages(ordered: bool) -> None:
    kept = Kept()
    with simulator.serve(rate=2000) as x:
        pipeline = pipeline_of(stream_of(x), kept, ordered=ordered).start()
        kept.wait(5)
        stats = pipeline.stop()
    assert stats.delivered == stats.processed == stats.batched == len(kept.texts)
    assert stats.abandoned == stats.dropped == 0
    assert kept.ends == ["completed"]
    assert all(text == text.upper() for text in kept.texts)


def test_drain_interrupts_the_backoff() -> None:
    kept = Kept()
    with simulator.serve(rate=None, script=[[Serve(30), Close()], Close()]) as x:
        stream = stream_of(x, backoff=rxtweets.Backoff(scale=1e6))
        with pipeline_of(stream, kept) as pipeline:
            kept.wait(1)
            while pipeline.stats().state != "backing off":
                threading.Event().wait(0.01)
        assert len(kept.texts) == 30
        assert kept.ends == ["completed"]


def test_ordered_pipeline_keeps_the_order() -> None:
    kept = Kept()
    with (
        simulator.serve(rate=None, script=[[Serve(500), Stall()]]) as x,
        pipeline_of(stream_of(x), kept, ordered=True),
    ):
        kept.wait(25)
    ids = [int(message.id) for batch in kept.batches for message in batch]
    assert ids == sorted(ids)
    assert len(ids) == 500


def test_source_stage_has_the_queue_of_its_stream() -> None:
    stream = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:1")
    with pipeline_of(stream, Kept()) as pipeline:
        stream.telemetry.show("queued", lambda: 7)
        assert pipeline.stages()[0].queued == 7


def test_stopped_pipeline_leaves_others_running() -> None:
    one, two = Kept(), Kept()
    with simulator.serve(rate=2000) as x:
        stream = stream_of(x)
        first, second = pipeline_of(stream, one).start(), pipeline_of(stream, two).start()
        one.wait(3)
        first.stop()
        assert one.ends == ["completed"]
        two.wait(len(two.batches) + 3)
        second.stop()
        assert two.ends == ["completed"]
        assert len(x.requests) == 1


def test_final_error_is_raised_by_run() -> None:
    kept = Kept()
    with (
        simulator.serve(script=[unauthorized()]) as x,
        pytest.raises(rxtweets.errors.AuthenticationError),
    ):
        pipeline_of(stream_of(x), kept).run()
    assert isinstance(kept.ends[0], rxtweets.errors.AuthenticationError)


def test_messages_continue_after_a_reconnect() -> None:
    kept = Kept()
    fast = rxtweets.Backoff(scale=0.001)
    with simulator.serve(rate=None, script=[[Serve(50), Close()]] * 4) as x:
        with pipeline_of(stream_of(x, backoff=fast), kept):
            kept.wait(20)
        assert len(x.requests) >= 5
    assert len(set(kept.texts)) > 100


def test_paused_pipeline_leaves_drops_to_the_stream() -> None:
    kept = Kept()
    with simulator.serve(rate=2000, seed=1) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url, buffer_size=50)
        overflowed = threading.Event()
        stream.events.subscribe(
            lambda event: (
                overflowed.set() if isinstance(event, rxtweets.events.OverflowStarted) else None
            )
        )
        pipeline = Pipeline(stream, batchers={"default": Batcher(kept, size=10, timeout=0.05)})
        with pipeline:
            kept.wait(1)
            pipeline.pause()
            assert overflowed.wait(PATIENCE)
            before = len(kept.batches)
            pipeline.resume()
            kept.wait(before + 3)
    stats = pipeline.stats()
    assert stats.dropped > 0
    assert stats.delivered == stats.batched
    assert stats.received == stats.delivered + stats.dropped + stats.undecodable + stats.control


def test_pipeline_sums_up_two_streams() -> None:
    kept = Kept()
    with simulator.serve(rate=500, seed=1) as x, simulator.serve(rate=500, seed=2) as y:
        streams = [rxtweets.sample_stream(token="any", base_url=server.url) for server in (x, y)]
        pipeline = Pipeline(
            streams,
            handle_message=upcase,
            batchers={"default": Batcher(kept, size=10, timeout=0.05)},
        )
        seen: list[str] = []
        pipeline.events.subscribe(lambda event: seen.append(event.part))
        with pipeline:
            kept.wait(20)
            assert pipeline.stats().state == "connected"
            assert pipeline.stats().lag is not None
    stats = pipeline.stats()
    assert stats.delivered == stats.batched == sum(stream.stats().delivered for stream in streams)
    assert {"0", "1", ""} <= set(seen)


def test_refused_stream_ends_the_pipeline_after_the_other() -> None:
    kept = Kept()
    with simulator.serve(script=[unauthorized()]) as x, simulator.serve(rate=500) as y:
        streams = [rxtweets.sample_stream(token="any", base_url=server.url) for server in (x, y)]
        pipeline = Pipeline(streams, batchers={"default": Batcher(kept, size=10, timeout=0.05)})
        with pytest.raises(rxtweets.errors.AuthenticationError) as caught:
            pipeline.run()
    assert kept.ends == [caught.value]
    assert pipeline.stats().delivered == pipeline.stats().batched
