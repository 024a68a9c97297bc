from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from rxtweets import Batch, ConnectionState, Message, Pipeline, events, sample_stream
from rxtweets._core.log import FREQUENT, EventLog
from rxtweets.errors import AuthenticationError, ConnectionLost, DecodeError, ServerError
from rxtweets.testing import DummySource

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
URL = "https://api.x.com/2/tweets/sample/stream"
LOST = ConnectionLost("the server ended the response")
TWEET = Message("hello", {"id": "17"})
BATCH = Batch([TWEET, TWEET])
FAULT = ValueError("a fault of the user")

LEVELS: list[tuple[events.Event, str, str]] = [
    (events.Connecting(3, URL), "DEBUG", f"connection 3: connecting to {URL}"),
    (events.Connected(3, "HTTP/2"), "INFO", "connection 3: connected over HTTP/2"),
    (
        events.DisconnectAnnounced("OperationalDisconnect", "an upgrade"),
        "INFO",
        "the server announces a disconnect (OperationalDisconnect): an upgrade",
    ),
    (
        events.Disconnected(3, LOST, 12, 1.25),
        "INFO",
        "connection 3: over after 12 lines in 1.2 s: the server ended the response",
    ),
    (
        events.Disconnected(3, None, 12, 60.0),
        "INFO",
        "connection 3: over after 12 lines in 60.0 s: closed from here",
    ),
    (
        events.Reconnecting(0.25, 2, LOST),
        "WARNING",
        "connecting again in 0.25 s (backoff, failure 2 in a row): the server ended the response",
    ),
    (
        events.Reconnecting(120.0, 1, ServerError("503: no", 503, "", {}), "Retry-After"),
        "WARNING",
        "connecting again in 120.00 s (Retry-After, failure 1 in a row): 503: no",
    ),
    (events.StreamEnded(None), "INFO", "the stream is complete"),
    (
        events.StreamEnded(AuthenticationError("401: no", 401, "", {})),
        "ERROR",
        "the stream has failed: 401: no",
    ),
    (
        events.OverflowStarted("drop_oldest", 10),
        "WARNING",
        "10 messages are waiting: dropping (drop_oldest)",
    ),
    (
        events.OverflowEnded("drop_oldest", 99),
        "WARNING",
        "the burst is over: 99 messages dropped",
    ),
    (
        events.UndecodableLine(DecodeError("not JSON", b'{"data":')),
        "WARNING",
        "a line was left out: not JSON; it begins b'{\"data\":'",
    ),
    (
        events.UnknownMessage({"hello": 1}, b'{"hello":1}'),
        "WARNING",
        "a message of unknown shape: b'{\"hello\":1}'",
    ),
    (events.PartialErrors(TWEET), "DEBUG", "tweet 17 came with errors about parts of it"),
    (
        events.HandlerFailed(TWEET.failed(FAULT)),
        "WARNING",
        "the handler failed tweet 17: ValueError('a fault of the user')",
    ),
    (
        events.HandlerRetried(TWEET.failed(FAULT), 2, 0.4),
        "INFO",
        "tweet 17: attempt 2 failed, again in 0.40 s: ValueError('a fault of the user')",
    ),
    (
        events.FailureHandlerFailed((TWEET, TWEET), FAULT),
        "WARNING",
        "on_failed raised ValueError('a fault of the user') on 2 messages",
    ),
    (
        events.WorkerReplaced("executor", FAULT, 7),
        "WARNING",
        "executor died with 7 messages: ValueError('a fault of the user')",
    ),
    (
        events.WorkerReplaced("thread", FAULT, 1, lost=True),
        "WARNING",
        "thread hangs and is given up with 1 messages: ValueError('a fault of the user')",
    ),
    (
        events.SubscriberFailed(TWEET, FAULT),
        "WARNING",
        "a subscriber raised ValueError('a fault of the user') on Message('hello', id='17')",
    ),
    (
        events.BatchFailed(BATCH, FAULT),
        "WARNING",
        "a batch of 2 failed: ValueError('a fault of the user')",
    ),
    (
        events.PipelineStarted(
            Pipeline(DummySource(), handle_message=lambda message: message).topology()
        ),
        "DEBUG",
        "the pipeline has begun; batchers: none",
    ),
    (events.PipelineEnded(None, 1.5), "DEBUG", "the pipeline is over after 1.5 s"),
    (events.PipelineEnded(LOST, 1.5), "ERROR", f"the pipeline has failed after 1.5 s: {LOST}"),
    (events.Paused(), "INFO", "the pipeline is paused"),
    (
        events.DrainUnavailable(0, "sample_stream"),
        "WARNING",
        (
            "source 0 (sample_stream) cannot be drained: an operator subscribes to it later "
            "or on another thread; a stop drops and counts what waits in it"
        ),
    ),
    (events.Resumed(), "INFO", "the pipeline is resumed"),
    (
        events.SourceRestarting(1, 2, 0.1, LOST),
        "WARNING",
        f"source 1 restarts in 0.10 s (failure 2 in a row): {LOST!r}",
    ),
    (events.SourceFailed(1, LOST), "ERROR", f"source 1 has failed for good: {LOST}"),
    (events.BatchStarted(BATCH), "DEBUG", "a batch of 2 is being delivered"),
    (events.FailureHandled((TWEET,), 0.5), "DEBUG", "1 failures were handled in 0.500 s"),
    (
        events.AcknowledgerFailed((TWEET, TWEET), FAULT),
        "WARNING",
        "2 messages not acknowledged: ValueError('a fault of the user')",
    ),
    (
        events.Abandoned(7, "processors"),
        "WARNING",
        "7 messages in flight were abandoned in processors",
    ),
    (
        events.StateChanged(ConnectionState("backing off", until=NOON)),
        "DEBUG",
        "the connection is backing off until 12:00:00",
    ),
    (
        events.Gap(NOON, NOON + timedelta(seconds=90), "1", "2"),
        "WARNING",
        "missed what came from 2026-01-02 12:00:00 to 12:01:30 UTC (0:01:30)",
    ),
    (
        events.BackfillRequested(2, 5, NOON),
        "INFO",
        "connection 2: asked for the last 5 minutes too",
    ),
    (events.BackfillRefused(LOST), "WARNING", f"this account has no backfill: {LOST}"),
    (events.ConnectionsClosed(1, None), "WARNING", "X gave up 1 connections of this token"),
    (
        events.ConnectionsClosed(0, LOST),
        "WARNING",
        f"X could not be asked to give up connections: {LOST}",
    ),
    (events.LimitReached(7, 2), "INFO", "the limit is reached after 7 messages"),
    (
        events.PartEnded(LOST, part="partition 3"),
        "ERROR",
        f"partition 3: this connection is failed: {LOST}; the others go on",
    ),
    (
        events.PartEnded(None, part="partition 3"),
        "INFO",
        "partition 3: this connection is complete; the others go on",
    ),
    (
        events.StateFileFailed("position.json", OSError("disk full")),
        "WARNING",
        "the position was not written to position.json: disk full",
    ),
    (events.RulesSynced(1, 2, 3), "INFO", "rules: 1 added, 2 deleted, 3 kept"),
]

BURSTS: list[events.Event] = [
    events.AcknowledgerFailed((TWEET,), FAULT),
    events.BatchDelivered(BATCH),
    events.BatchFailed(BATCH, FAULT),
    events.BatchStarted(BATCH),
    events.FailureHandled((TWEET,), 0.5),
    events.FailureHandlerFailed((TWEET,), FAULT),
    events.HandlerFailed(TWEET.failed(FAULT)),
    events.HandlerRetried(TWEET.failed(FAULT), 1, 0.1),
    events.PartialErrors(TWEET),
    events.SubscriberFailed(TWEET, FAULT),
    events.UndecodableLine(DecodeError("not JSON", b"?")),
    events.UnknownMessage({}, b"{}"),
    events.WorkerReplaced("thread", FAULT, 1),
]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "rxtweets")
    return caplog


def name_of(event: events.Event) -> str:
    return type(event).__name__


@pytest.mark.parametrize(("event", "level", "text"), LEVELS)
def test_each_kind_of_event_has_its_level_and_its_sentence(
    log: pytest.LogCaptureFixture, event: events.Event, level: str, text: str
) -> None:
    EventLog()(event)
    assert [(record.name, record.levelname, record.message) for record in log.records] == [
        ("rxtweets", level, text)
    ]


def test_a_delivered_batch_is_for_those_who_debug(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.BatchDelivered(BATCH))
    assert [record.levelname for record in log.records] == ["DEBUG"]
    assert "2 messages" in log.text


def test_every_kind_of_event_but_spans_is_tried_here() -> None:
    every = {getattr(events, name) for name in events.__all__} - {events.Event}
    kinds = {kind for kind in every if not issubclass(kind, events.Span)}
    assert {type(event) for event, _, _ in LEVELS} | {events.BatchDelivered} == kinds


def test_every_frequent_kind_is_tried_here() -> None:
    assert {type(event) for event in BURSTS} == FREQUENT


@pytest.mark.parametrize("event", BURSTS, ids=name_of)
def test_a_frequent_kind_is_written_once_an_interval_with_its_count(
    log: pytest.LogCaptureFixture, event: events.Event
) -> None:
    clock = Clock()
    write = EventLog(interval=1.0, clock=clock)
    for now in (0.0, 0.1, 0.5, 0.999, 1.0):
        clock.now = now
        write(event)
    assert len(log.records) == 2
    assert "more like it" not in log.messages[0]
    assert log.messages[1] == f"{log.messages[0]} (and 3 more like it)"


def test_the_count_starts_anew_after_it_was_written(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    write = EventLog(interval=1.0, clock=clock)
    for now in (0.0, 0.5, 1.0, 2.0):
        clock.now = now
        write(events.HandlerFailed(TWEET.failed(FAULT)))
    assert ["more like it" in message for message in log.messages] == [False, True, False]


@pytest.mark.parametrize("end", [events.StreamEnded(None), events.PipelineEnded(None, 1.0)])
def test_at_the_end_those_that_were_left_out_are_counted(
    log: pytest.LogCaptureFixture, end: events.Event
) -> None:
    log.set_level(logging.WARNING, "rxtweets")
    write = EventLog(clock=Clock())
    for _ in range(3):
        write(events.HandlerFailed(TWEET.failed(FAULT)))
    write(end)
    write(end)
    assert log.messages[1:] == ["2 more of HandlerFailed, each left out here"]


def test_one_frequent_kind_does_not_silence_another(log: pytest.LogCaptureFixture) -> None:
    write = EventLog(clock=Clock())
    for event in BURSTS * 3:
        write(event)
    assert len(log.records) == len(BURSTS)


def test_rare_kinds_are_all_written(log: pytest.LogCaptureFixture) -> None:
    write = EventLog(clock=Clock())
    for _ in range(5):
        write(events.Reconnecting(1.0, 1, LOST))
    assert len(log.records) == 5


def test_two_logs_keep_their_own_counts(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    for _ in range(2):
        EventLog(clock=clock)(BURSTS[0])
    assert len(log.records) == 2


def test_what_the_level_hides_is_not_written_and_not_counted(
    log: pytest.LogCaptureFixture,
) -> None:
    write = EventLog(clock=Clock())
    log.set_level(logging.ERROR, "rxtweets")
    write(events.HandlerFailed(TWEET.failed(FAULT)))
    log.set_level(logging.DEBUG, "rxtweets")
    write(events.HandlerFailed(TWEET.failed(FAULT)))
    assert log.messages == ["the handler failed tweet 17: ValueError('a fault of the user')"]


def test_a_long_line_is_cut_short(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.UndecodableLine(DecodeError("too long", b"x" * 1_000_000)))
    EventLog()(events.UnknownMessage({}, b"y" * 1_000_000))
    EventLog()(events.SubscriberFailed("z" * 1_000_000, FAULT))
    assert len(log.records) == 3
    assert all(len(message) < 400 for message in log.messages)


def test_a_line_cannot_break_out_of_its_log_line(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.UndecodableLine(DecodeError("not JSON", b"a\nroot: all is well\x1b[2J")))
    assert "\n" not in log.messages[0]
    assert "\x1b" not in log.messages[0]


def test_a_percent_sign_in_a_text_is_just_a_percent_sign(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.DisconnectAnnounced("100 %s", "%d of %(all)s"))
    assert log.messages == ["the server announces a disconnect (100 %s): %d of %(all)s"]


def test_a_message_that_a_handler_failed_by_itself_shows_the_reason(
    log: pytest.LogCaptureFixture,
) -> None:
    EventLog()(events.HandlerFailed(TWEET.failed("no verdict")))
    assert log.messages == ["the handler failed tweet 17: 'no verdict'"]


def test_no_event_of_a_stream_writes_its_token(log: pytest.LogCaptureFixture) -> None:
    token = "AAAA-very-secret"
    stream = sample_stream(token=token, base_url="http://127.0.0.1:9")
    write = EventLog(clock=Clock())
    for event, _, _ in LEVELS:
        write(event)
    write(events.Disconnected(1, ServerError("503", 503, "", {}), 0, 0.0))
    write(events.SubscriberFailed(stream, FAULT))
    assert len(log.records) > len(LEVELS) // 2
    assert token not in log.text
