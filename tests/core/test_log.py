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
        "connection 3: ended after 12 lines in 1.2 s: the server ended the response",
    ),
    (
        events.Disconnected(3, None, 12, 60.0),
        "INFO",
        "connection 3: ended after 12 lines in 60.0 s: closed by rxtweets",
    ),
    (
        events.Reconnecting(0.25, 2, LOST),
        "WARNING",
        "reconnecting in 0.25 s (backoff, failure 2 in a row): the server ended the response",
    ),
    (
        events.Reconnecting(120.0, 1, ServerError("503: no", 503, "", {}), "Retry-After"),
        "WARNING",
        "reconnecting in 120.00 s (Retry-After, failure 1 in a row): 503: no",
    ),
    (events.StreamEnded(None), "INFO", "the stream completed"),
    (
        events.StreamEnded(AuthenticationError("401: no", 401, "", {})),
        "ERROR",
        "the stream failed: 401: no",
    ),
    (
        events.OverflowStarted("drop_oldest", 10),
        "WARNING",
        "the buffer is full with 10 messages: dropping (drop_oldest)",
    ),
    (
        events.OverflowEnded("drop_oldest", 99),
        "WARNING",
        "the buffer has room again: 99 messages dropped",
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
    (events.PartialErrors(TWEET), "DEBUG", "tweet 17 carries errors about parts of it"),
    (
        events.HandlerFailed(TWEET.failed(FAULT)),
        "WARNING",
        "the handler failed tweet 17: ValueError('a fault of the user')",
    ),
    (
        events.HandlerRetried(TWEET.failed(FAULT), 2, 0.4),
        "INFO",
        "tweet 17: attempt 2 failed, next one in 0.40 s: ValueError('a fault of the user')",
    ),
    (
        events.FailureHandlerFailed((TWEET, TWEET), FAULT),
        "WARNING",
        "on_failed raised ValueError('a fault of the user') on 2 messages",
    ),
    (
        events.WorkerReplaced("executor", FAULT, 7),
        "WARNING",
        "executor died with 7 messages and was replaced: ValueError('a fault of the user')",
    ),
    (
        events.WorkerReplaced("thread", FAULT, 1, lost=True),
        "WARNING",
        "thread hangs with 1 messages and was replaced: ValueError('a fault of the user')",
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
        "the pipeline started; batchers: none",
    ),
    (events.PipelineEnded(None, 1.5), "DEBUG", "after 1.5 s the pipeline completed"),
    (events.PipelineEnded(LOST, 1.5), "ERROR", f"after 1.5 s the pipeline failed: {LOST}"),
    (events.Paused(), "INFO", "the pipeline is paused"),
    (
        events.DrainUnavailable(0, "sample_stream"),
        "WARNING",
        (
            "source 0 (sample_stream) cannot be drained: an operator subscribes to it later "
            "or on another thread; a stop drops and counts the messages that wait in it"
        ),
    ),
    (events.Resumed(), "INFO", "the pipeline is resumed"),
    (
        events.SourceRestarting(1, 2, 0.1, LOST),
        "WARNING",
        f"source 1 restarts in 0.10 s (failure 2 in a row): {LOST!r}",
    ),
    (events.SourceFailed(1, LOST), "ERROR", f"source 1 failed for good: {LOST}"),
    (events.BatchDelivered(BATCH, 0.5), "DEBUG", "a batch of 2 was delivered in 0.500 s"),
    (events.BatchStarted(BATCH), "DEBUG", "delivering a batch of 2"),
    (events.FailureHandled((TWEET,), 0.5), "DEBUG", "on_failed handled 1 messages in 0.500 s"),
    (
        events.AcknowledgerFailed((TWEET, TWEET), FAULT),
        "WARNING",
        "2 messages were not acknowledged: ValueError('a fault of the user')",
    ),
    (
        events.BrokerLost(FAULT, 1, 1.5),
        "WARNING",
        "the broker is lost, next attempt in 1.50 s (failure 1): a fault of the user",
    ),
    (
        events.BrokerLost(FAULT, 2, 1.5),
        "INFO",
        "the broker is lost, next attempt in 1.50 s (failure 2): a fault of the user",
    ),
    (
        events.BrokerLost(FAULT, 8, 30.0),
        "WARNING",
        "the broker is lost, next attempt in 30.00 s (failure 8): a fault of the user",
    ),
    (events.BrokerReconnected(61.25), "WARNING", "the broker is back after 61.2 s"),
    (
        events.AcknowledgementsLost(3, None),
        "WARNING",
        "3 messages will be delivered again: their lease had ended",
    ),
    (
        events.DeadLettered("7", 5, FAULT),
        "WARNING",
        "message 7 is a dead letter after 5 deliveries: ValueError('a fault of the user')",
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
        "gap of 0:01:30 from 2026-01-02 12:00:00 UTC",
    ),
    (
        events.BackfillRequested(2, 5, NOON),
        "INFO",
        "connection 2: requested a backfill of 5 minutes",
    ),
    (events.BackfillRefused(LOST), "WARNING", f"this account has no backfill: {LOST}"),
    (events.ConnectionsClosed(1, None), "WARNING", "X closed 1 connections of this token"),
    (
        events.ConnectionsClosed(0, LOST),
        "WARNING",
        f"the request to close connections of this token failed: {LOST}",
    ),
    (events.LimitReached(7, 2), "INFO", "the limit is reached after 7 messages"),
    (
        events.PartEnded(LOST, part="partition 3"),
        "ERROR",
        f"partition 3: this connection failed: {LOST}; the others continue",
    ),
    (
        events.PartEnded(None, part="partition 3"),
        "INFO",
        "partition 3: this connection completed; the others continue",
    ),
    (
        events.StateFileFailed("position.json", OSError("disk full")),
        "WARNING",
        "the state file position.json could not be written: disk full",
    ),
    (events.RulesSynced(1, 2, 3), "INFO", "rules: 1 added, 2 deleted, 3 kept"),
]

BURSTS: list[events.Event] = [
    events.AcknowledgerFailed((TWEET,), FAULT),
    events.AcknowledgementsLost(1, FAULT),
    events.BatchDelivered(BATCH),
    events.BatchFailed(BATCH, FAULT),
    events.BatchStarted(BATCH),
    events.BrokerLost(FAULT, 1, 0.5),
    events.DeadLettered("7", 5, FAULT),
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
def test_event_has_its_level_and_line(
    log: pytest.LogCaptureFixture, event: events.Event, level: str, text: str
) -> None:
    EventLog()(event)
    assert [(record.name, record.levelname, record.message) for record in log.records] == [
        ("rxtweets", level, text)
    ]


def test_log_lines_are_tested_for_every_event_but_spans() -> None:
    every = {getattr(events, name) for name in events.__all__} - {events.Event}
    kinds = {kind for kind in every if not issubclass(kind, events.Span)}
    assert {type(event) for event, _, _ in LEVELS} == kinds


def test_burst_is_tested_for_every_frequent_event() -> None:
    assert {type(event) for event in BURSTS} == set(FREQUENT)


@pytest.mark.parametrize("event", BURSTS, ids=name_of)
def test_frequent_event_is_logged_once_an_interval_and_counted(
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


def test_count_restarts_after_it_was_logged(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    write = EventLog(interval=1.0, clock=clock)
    for now in (0.0, 0.5, 1.0, 2.0):
        clock.now = now
        write(events.HandlerFailed(TWEET.failed(FAULT)))
    assert ["more like it" in message for message in log.messages] == [False, True, False]


@pytest.mark.parametrize("end", [events.StreamEnded(None), events.PipelineEnded(None, 1.0)])
def test_final_event_counts_the_events_left_out(
    log: pytest.LogCaptureFixture, end: events.Event
) -> None:
    log.set_level(logging.WARNING, "rxtweets")
    write = EventLog(clock=Clock())
    for _ in range(3):
        write(events.HandlerFailed(TWEET.failed(FAULT)))
    write(end)
    write(end)
    assert log.messages[1:] == ["2 more of HandlerFailed were left out"]


def test_frequent_events_do_not_silence_each_other(log: pytest.LogCaptureFixture) -> None:
    write = EventLog(clock=Clock())
    for event in BURSTS * 3:
        write(event)
    assert len(log.records) == len(BURSTS)


def test_rare_events_are_all_logged(log: pytest.LogCaptureFixture) -> None:
    write = EventLog(clock=Clock())
    for _ in range(5):
        write(events.Reconnecting(1.0, 1, LOST))
    assert len(log.records) == 5


def test_logs_keep_separate_counts(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    for _ in range(2):
        EventLog(clock=clock)(BURSTS[0])
    assert len(log.records) == 2


def test_event_below_the_level_is_neither_logged_nor_counted(
    log: pytest.LogCaptureFixture,
) -> None:
    write = EventLog(clock=Clock())
    log.set_level(logging.ERROR, "rxtweets")
    write(events.HandlerFailed(TWEET.failed(FAULT)))
    log.set_level(logging.DEBUG, "rxtweets")
    write(events.HandlerFailed(TWEET.failed(FAULT)))
    assert log.messages == ["the handler failed tweet 17: ValueError('a fault of the user')"]


def test_long_line_is_cut(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.UndecodableLine(DecodeError("too long", b"x" * 1_000_000)))
    EventLog()(events.UnknownMessage({}, b"y" * 1_000_000))
    EventLog()(events.SubscriberFailed("z" * 1_000_000, FAULT))
    assert len(log.records) == 3
    assert all(len(message) < 400 for message in log.messages)


def test_newline_of_a_server_stays_in_its_log_line(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.UndecodableLine(DecodeError("not JSON", b"a\nroot: all is well\x1b[2J")))
    assert "\n" not in log.messages[0]
    assert "\x1b" not in log.messages[0]


def test_percent_sign_is_logged_literally(log: pytest.LogCaptureFixture) -> None:
    EventLog()(events.DisconnectAnnounced("100 %s", "%d of %(all)s"))
    assert log.messages == ["the server announces a disconnect (100 %s): %d of %(all)s"]


def test_message_failed_by_its_handler_shows_the_reason(
    log: pytest.LogCaptureFixture,
) -> None:
    EventLog()(events.HandlerFailed(TWEET.failed("no verdict")))
    assert log.messages == ["the handler failed tweet 17: 'no verdict'"]


def test_no_event_logs_the_token(log: pytest.LogCaptureFixture) -> None:
    token = "AAAA-very-secret"
    stream = sample_stream(token=token, base_url="http://127.0.0.1:9")
    write = EventLog(clock=Clock())
    for event, _, _ in LEVELS:
        write(event)
    write(events.Disconnected(1, ServerError("503", 503, "", {}), 0, 0.0))
    write(events.SubscriberFailed(stream, FAULT))
    assert len(log.records) > len(LEVELS) // 2
    assert token not in log.text
