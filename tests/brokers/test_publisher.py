"""`Publisher`: what a broker does not store fails, and is never counted as stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from rxtweets import Batch, Batcher, Message, Pipeline, from_iterable
from rxtweets.brokers import Address, Envelope, Queue, Sender
from rxtweets.brokers._engines.memory import MemoryEngine
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, HandlerError
from rxtweets.subscribers import Spooled
from tests.brokers.waiting import PATIENCE

Tweet = Callable[[int], Message[str]]


class Refusing(Sender):
    """Answers with the same errors, one for each message of the broker."""

    def __init__(self, errors: list[Exception | None]) -> None:
        self._errors = errors
        self.sizes: list[int] = []
        self.given: list[Envelope] = []

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        self.given += envelopes
        self.sizes.append(len(envelopes))
        return self._errors[: len(envelopes)]

    def close(self) -> None:
        pass


class RefusingEngine(MemoryEngine):
    def __init__(self, *errors: Exception | None) -> None:
        super().__init__(Address.parse(f"memory:{uuid4().hex}"))
        self.made = Refusing(list(errors))

    def sender(self) -> Sender:
        return self.made


AWAY, NO = BrokerUnavailable("away"), BrokerError("too large")


def test_refused_messages_fail_with_their_reasons(tweet: Tweet) -> None:
    publisher = Queue(RefusingEngine(None, NO, AWAY)).publisher()
    returned = publisher.on_next(Batch([tweet(number) for number in range(3)]))
    assert [message.status for message in returned] == [
        "ok",
        returned[1].failed(NO).status,
        returned[2].failed(AWAY).status,
    ]


def test_batch_fails_when_the_broker_is_away(tweet: Tweet) -> None:
    publisher = Queue(RefusingEngine(AWAY, AWAY)).publisher()
    with pytest.raises(BrokerUnavailable, match="away"):
        publisher.on_next(Batch([tweet(1), tweet(2)]))


def test_all_messages_of_a_refused_pack_fail(tweet: Tweet) -> None:
    engine = RefusingEngine(None, NO)
    publisher = Queue(engine).publisher(pack=3)
    returned = publisher.on_next(Batch([tweet(number) for number in range(5)]))
    assert engine.made.sizes == [2]
    assert [message.is_failed for message in returned] == [False] * 3 + [True] * 2


def test_spooled_batch_is_tried_within_4_s(
    tweet: Tweet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Queue(RefusingEngine(AWAY)).publisher(spool=tmp_path)
    assert isinstance(publisher, Spooled)
    waits: list[float] = []
    enough = threading.Event()

    def wait_for(condition: Callable[[], bool], seconds: float | None = None) -> bool:
        if seconds is None:
            return original(condition)  # the end waits for the thread
        waits.append(seconds)
        if len(waits) == 50:
            enough.set()
        return original(condition, 0.0 if len(waits) < 50 else PATIENCE)

    original = publisher._changed.wait_for
    monkeypatch.setattr(publisher._changed, "wait_for", wait_for)
    publisher.on_next(Batch([tweet(1)]))
    assert enough.wait(PATIENCE)
    publisher.on_completed()
    assert max(waits) <= 4.0


def test_pipeline_counts_what_is_not_stored(tweet: Tweet) -> None:
    publisher = Queue(RefusingEngine(None, NO, None, NO)).publisher()
    stats = Pipeline(
        from_iterable([tweet(number) for number in range(4)]),
        batchers={"default": Batcher(publisher, size=4)},
    ).run()
    assert (stats.batched, stats.batched_failed) == (2, 2)


@pytest.mark.parametrize("returned", [None, "", True, 1.5])
def test_message_without_a_key_fails_alone(tweet: Tweet, returned: object) -> None:
    queue = Queue(RefusingEngine(None))
    publisher = queue.publisher(shard_by=lambda one: returned if one.id == tweet(1).id else 7)  # type: ignore[arg-type,return-value]
    failed, stored = publisher.on_next(Batch([tweet(1), tweet(2)]))
    assert isinstance(failed.status.reason, HandlerError)
    assert "shard_by returned" in str(failed.status.reason)
    assert stored.status == tweet(2).status


def test_message_on_which_shard_by_raises_fails_alone(tweet: Tweet) -> None:
    queue = Queue(RefusingEngine(None))
    publisher = queue.publisher(shard_by=lambda one: {tweet(2).id: 1}[one.id])
    failed, stored = publisher.on_next(Batch([tweet(1), tweet(2)]))
    assert isinstance(failed.status.reason, KeyError)
    assert stored.status == tweet(2).status


def test_keys_are_headers_of_ascii_text(tweet: Tweet) -> None:
    engine = RefusingEngine(None)
    publisher = Queue(engine).publisher(shard_by=lambda _: "é 1")
    assert publisher.on_next(Batch([tweet(1)])) is None
    assert [one.shard for one in engine.made.given] == ["%C3%A9%201"]


def test_shard_by_with_packs_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"shard_by with pack=50: .* leave out one"):
        Queue(RefusingEngine()).publisher(shard_by=lambda _: 1, pack=50)


def test_shard_by_without_a_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="shard_by='author_id': give a function"):
        Queue(RefusingEngine()).publisher(shard_by="author_id")  # type: ignore[call-overload]
