"""Recording, replaying, collecting."""

from __future__ import annotations

import _thread
import codecs
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import reactivex
import zstandard
from reactivex.notification import OnError
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import Message, events, simulator
from rxtweets import operators as ops
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets._messages import compression, line_files
from rxtweets._messages.decoding import Decoder
from rxtweets._messages.payloads import Carries, Like, reader_for
from rxtweets.simulator._tweets import Tweets
from rxtweets.simulator.script import unauthorized
from rxtweets.streams import _replay as replay

PATIENCE = 20.0
AT = 1_764_028_461.25


def messages(*arrivals: float | None) -> list[Message[Any]]:
    frames = Tweets(seed=5, clock=lambda: AT).frames(0, len(arrivals))
    return [Message.from_line(*pair) for pair in zip(frames, arrivals, strict=True)]


def write(path: Path, recorded: list[Message[Any]]) -> None:
    rxtweets.collect(reactivex.from_iterable(recorded).pipe(rxtweets.record(path)), len(recorded))


def played(path: Path | list[Path], **options: Any) -> list[Message[Any]]:
    result: list[Message[Any]] = rxtweets.replay(path, None, **options).to_list().run()
    return result


def same(one: Message[Any], other: Message[Any]) -> bool:
    names = ("data", "id", "metadata", "raw", "received_at", "lag", "created_at", "matching_rules")
    return all(getattr(one, name) == getattr(other, name) for name in names)


# The round trip.


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_replay_emits_equal_messages(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.jsonl{suffix}"
    recorded = messages(*(AT + number / 7 for number in range(50)))
    write(path, recorded)
    back = played(path)
    assert len(back) == 50
    assert all(map(same, back, recorded))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_real_frames_are_replayed_byte_for_byte(tmp_path: Path, recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines()[:300]
    sent = [Message.from_line(line, AT) for line in lines]
    write(tmp_path / "t.jsonl.gz", sent)
    back = played(tmp_path / "t.jsonl.gz")
    assert [message.raw for message in back] == lines
    assert all(map(same, back, sent))


def test_events_are_replayed_as_dataclasses(tmp_path: Path) -> None:
    line = (
        b'{"data":{"delete":{"tweet":{"id":"60","author_id":"9"},'
        b'"event_at":"2026-11-24T10:00:01.000Z"}}}'
    )
    read = reader_for("compliance")
    assert read is not None
    found = read(json.loads(line))
    assert found is not None
    write(tmp_path / "t.jsonl", [Message.from_event(*found, line, AT)])
    [back] = played(tmp_path / "t.jsonl")
    assert isinstance(back.data, rxtweets.ComplianceEvent)
    assert (back.data, back.raw, back.received_at) == (found[0], line, AT)


def test_changed_messages_are_replayed(tmp_path: Path) -> None:
    one, two, three = messages(AT, AT, AT)
    changed = [one.put_data("x"), two.put_data({"raw": {"a": 1}}), three.put_data(None)]
    write(tmp_path / "t.jsonl", changed)
    back = played(tmp_path / "t.jsonl")
    assert [message.data for message in back] == ["x", {"raw": {"a": 1}}, None]
    assert [message.raw for message in back] == [message.raw for message in changed]


def test_messages_without_a_line_are_replayed(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [Message("hello", {"id": "7", "lang": "en"})])
    [back] = played(tmp_path / "t.jsonl")
    assert (back.data, back.id, dict(back.metadata)) == ("hello", "7", {"id": "7", "lang": "en"})
    assert back.received_at is None


def test_line_with_line_feeds_is_replayed(tmp_path: Path) -> None:
    line = b'{"data":\n{"id":"7","text":"x"}}'
    write(tmp_path / "t.jsonl", [Message.from_line(line, AT)])
    [back] = played(tmp_path / "t.jsonl")
    assert (back.raw, back.id) == (line, "7")


def test_rewritten_recording_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sent = messages(AT, AT + 1)
    write(path, sent)
    values = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(value, sort_keys=True) + "\r\n" for value in values))
    back = played(path)
    assert [(message.id, message.data, message.received_at) for message in back] == [
        (message.id, message.data, message.received_at) for message in sent
    ]


def test_bare_lines_are_replayed(tmp_path: Path) -> None:
    sent = messages(None, None)
    (tmp_path / "t.ndjson").write_bytes(b"\r\n".join(message.raw for message in sent) + b"\r\n")
    assert all(map(same, played(tmp_path / "t.ndjson"), sent))


# Recording.


def test_recording_completes_its_file_at_the_end(
    tmp_path: Path,
) -> None:
    source: Subject[Message[Any]] = Subject()
    got: list[Message[Any]] = []
    source.pipe(rxtweets.record(tmp_path / "t.jsonl")).subscribe(got.append)
    sent = messages(AT, AT)
    source.on_next(sent[0])
    assert got == sent[:1]
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl.part"]
    assert all(map(same, played(tmp_path / "t.jsonl"), sent[:1]))
    source.on_next(sent[1])
    source.on_completed()
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]


def test_recording_continues_when_its_file_is_removed(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    source.pipe(rxtweets.record(tmp_path / "t.jsonl.gz")).subscribe()
    sent = messages(AT, AT, AT)
    source.on_next(sent[0])
    (tmp_path / "t.jsonl.gz.part").unlink()
    source.on_next(sent[1])
    source.on_next(sent[2])
    source.on_completed()
    assert all(map(same, played(tmp_path / "t.jsonl.gz"), sent[1:]))


def test_recording_reports_a_file_removed_at_the_end(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    recorded = source.pipe(rxtweets.record(tmp_path / "t.jsonl"))
    recorded.subscribe()
    source.on_next(messages(AT)[0])
    (tmp_path / "t.jsonl.part").unlink()
    source.on_completed()
    assert recorded.stats().subscriber_errors == 1


def test_dispose_completes_the_recording(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    with source.pipe(rxtweets.record(tmp_path / "t.jsonl.gz")).subscribe():
        source.on_next(messages(AT)[0])
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl.gz"]


def test_recordings_get_names_and_are_replayed_as_one(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sent = messages(*[AT] * 12)
    for start in range(12):
        write(path, sent[start : start + 1])
    names = {"t.jsonl", *(f"t-{number}.jsonl" for number in range(2, 13))}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert all(map(same, played(path), sent))
    assert all(map(same, played(tmp_path / "t-3.jsonl"), sent[2:3]))
    assert all(map(same, played([tmp_path / "t-3.jsonl", tmp_path / "t-2.jsonl"]), sent[2:0:-1]))


def test_recording_rotates_by_size(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    sent = messages(*[AT] * 6)
    with source.pipe(rxtweets.record(tmp_path / "t.jsonl", rotate_size=2500)).subscribe():
        for message in sent:
            source.on_next(message)
    assert len(list(tmp_path.iterdir())) > 1
    assert all(map(same, played(tmp_path / "t.jsonl"), sent))


def test_unrecordable_messages_pass_and_are_reported(tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    source: Subject[Message[Any]] = Subject()
    stream: MessageStream[Any] = source.pipe(rxtweets.record(place / "t.jsonl"))
    got: list[Message[Any]] = []
    seen: list[events.Event] = []
    stream.events.subscribe(seen.append)
    stream.subscribe(got.append)
    place.rmdir()
    sent = messages(AT)
    source.on_next(sent[0])
    source.on_completed()
    assert got == sent
    assert stream.stats().subscriber_errors == 1
    assert stream.telemetry.bus.flush()
    assert any(isinstance(event, events.SubscriberFailed) for event in seen)


def test_recording_of_a_killed_process_is_replayed(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        path = tmp_path / f"t.jsonl{suffix}"
        sent = messages(AT, AT + 1, AT + 2)
        program = (
            "import os, sys; from pathlib import Path\n"
            "from rxtweets._messages.line_files import LineWriter\n"
            "writer = LineWriter(sys.argv[1])\n"
            "for line in Path(sys.argv[2]).read_bytes().splitlines(keepends=True):\n"
            "    writer.write(line)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        write(tmp_path / "source.jsonl", sent[:2])
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), str(tmp_path / "source.jsonl")],
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == -9
        (tmp_path / "source.jsonl").unlink()
        part = path.with_name(path.name + ".part")
        part.write_bytes(part.read_bytes() + b"\x00\x01torn")
        stream = rxtweets.replay(path, None)
        assert all(map(same, stream.to_list().run(), sent[:2]))
        assert stream.stats().undecodable == 1
        write(path, sent[2:])
        assert not part.exists()
        stream = rxtweets.replay(path, None)
        assert all(map(same, stream.to_list().run(), sent))
        assert stream.stats().undecodable == 0


# Replaying.


def test_replay_keeps_the_original_pace(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl").map(lambda message: message.received_at).subscribe(
        observer, scheduler=scheduler
    )
    scheduler.start()
    times = [(recorded.time - observer.messages[0].time) for recorded in observer.messages]
    assert times == [0, 5, 5, 65, 65]


@pytest.mark.parametrize("speed", [None, 1000.0])
def test_replay_completes_at_its_limit(tmp_path: Path, speed: float | None) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"data":{{"id":"{n}","text":"t"}}}}\n' for n in range(9)))
    stream = rxtweets.replay(path, speed, limit=3)
    assert [message.id for message in stream.to_list().run()] == ["0", "1", "2"]
    assert stream.stats().delivered == 3
    assert [message.id for message in stream.to_list().run()] == ["0", "1", "2"]


@pytest.mark.parametrize(("speed", "times"), [(0.5, [0, 10, 130, 130]), (5, [0, 1, 13, 13])])
def test_replay_pace_can_be_scaled(tmp_path: Path, speed: float, times: list[float]) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl", speed, scheduler=scheduler).subscribe(observer)
    scheduler.start()
    assert [(recorded.time - observer.messages[0].time) for recorded in observer.messages] == times


def test_replay_does_not_pause_when_the_clock_went_back(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 10, AT + 3, None, AT + 12))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl").subscribe(observer, scheduler=scheduler)
    scheduler.start()
    times = [(recorded.time - observer.messages[0].time) for recorded in observer.messages]
    assert times == [0, 10, 10, 10, 12, 12]


def test_dispose_ends_a_replay_in_virtual_time(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    subscription = rxtweets.replay(tmp_path / "t.jsonl").subscribe(observer, scheduler=scheduler)
    scheduler.schedule_relative(30, lambda *_: subscription.dispose())
    scheduler.start()
    assert len(observer.messages) == 2


def test_fast_replay_passes_lists_to_operators(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 300))
    sizes: list[int] = []
    over = threading.Event()
    observer: reactivex.Observer[list[Message[Any]]] = reactivex.Observer(
        lambda chunk: sizes.append(len(chunk)), on_completed=over.set
    )
    rxtweets.replay(tmp_path / "t.jsonl", None).subscribe_chunks(observer)
    assert over.wait(PATIENCE)
    assert sizes == [128, 128, 44]


def test_replay_waits_for_a_slow_subscriber(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 1000))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None)
    batches = stream.pipe(ops.process(lambda message: message, 2), ops.batch(20, 60.0))
    assert sum(batches.map(len).to_list().run()) == 1000
    stats = stream.stats()
    assert (stats.received, stats.delivered, stats.dropped) == (1000, 1000, 0)


def test_cold_replay_starts_again_for_each_subscriber(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT, AT))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None)
    assert len(stream.to_list().run()) == len(stream.to_list().run()) == 3


def test_hot_replay_is_shared(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 65))
    scheduler = TestScheduler()
    stream = rxtweets.replay(tmp_path / "t.jsonl", hot=True, scheduler=scheduler)
    first, second = scheduler.create_observer(), scheduler.create_observer()
    stream.subscribe(first)
    assert stream.state.name == "connected"
    scheduler.schedule_relative(30, lambda *_: stream.subscribe(second))
    scheduler.start()
    assert (len(first.messages), len(second.messages)) == (4, 2)
    assert stream.stats().delivered == 3


def test_handler_can_stop_a_waiting_replay(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 3 * replay.CHUNK))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None)
    handled: list[Message[Any]] = []

    def handle(message: Message[Any]) -> Message[Any]:
        handled.append(message)
        if len(handled) == 100:
            while stream.stats().received < 2 * replay.CHUNK:
                threading.Event().wait(0.001)
            pipeline.stop()
        return message

    pipeline = rxtweets.Pipeline(
        stream,
        handle_message=handle,
        concurrency=1,
        max_demand=1,
        batchers={"default": rxtweets.Batcher(lambda _: None)},
    )
    pipeline.start()
    assert pipeline.wait(PATIENCE)
    assert len(handled) == stream.stats().delivered == 2 * replay.CHUNK
    assert stream.stats().abandoned == 0


def test_replay_that_cannot_start_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.jsonl", messages(AT))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None, hot=True)
    refused: list[Exception] = []
    with monkeypatch.context() as patch:
        patch.setattr(replay, "start_thread", no_thread)
        stream.subscribe(on_error=refused.append)
    assert [str(error) for error in refused] == ["can't start new thread"]
    assert stream.state.name == "idle"
    assert len(stream.to_list().run()) == 1


def no_thread(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


def test_stop_completes_a_replay(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 3600))
    stream = rxtweets.replay(tmp_path / "t.jsonl")
    came, over = threading.Event(), threading.Event()
    stream.subscribe(lambda _: came.set(), on_completed=over.set)
    assert came.wait(PATIENCE)
    stream.stop()
    assert over.wait(PATIENCE)
    assert stream.state.name == "idle"


def test_pipeline_drains_a_replay(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT, AT + 3600))
    got: list[str] = []
    came = threading.Event()

    def handle(message: Message[Any]) -> Message[Any]:
        came.set()
        return message

    pipeline = rxtweets.Pipeline(
        rxtweets.replay(tmp_path / "t.jsonl"),
        handle_message=handle,
        batchers={"default": rxtweets.Batcher(lambda batch: got.extend(m.id for m in batch))},
    ).start()
    assert came.wait(PATIENCE)
    stats = pipeline.stop()
    assert len(got) == stats.delivered == 2


def test_unreadable_line_is_counted_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, messages(AT, AT))
    one, two = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one + b"nonsense\n[1]\n\n" + two)
    stream = rxtweets.replay(path, None)
    seen: list[events.Event] = []
    stream.events.subscribe(seen.append)
    assert len(stream.to_list().run()) == 2
    stats = stream.stats()
    assert (stats.received, stats.delivered) == (4, 2)
    assert (stats.undecodable, stats.unknown) == (1, 1)
    assert stream.telemetry.bus.flush()
    [bad] = [event for event in seen if isinstance(event, events.UndecodableLine)]
    [unknown] = [event for event in seen if isinstance(event, events.UnknownMessage)]
    assert (bad.error.line, bad.place) == (b"nonsense", f"{path}:2")
    assert (unknown.value, unknown.line, unknown.place) == ([1], b"[1]", f"{path}:3")


def tweet(number: int) -> bytes:
    return b'{"data":{"id":"%d","text":"hello %d"}}' % (1212092628029698000 + number, number)


def outcome(path: Path) -> tuple[list[Message[Any]], rxtweets._core.stats.Stats]:
    """Return the messages and counters of a replay; check metadata and sums."""
    stream = rxtweets.replay(path, None)
    got = stream.to_list().run()
    stats = stream.stats()
    assert stats.delivered == len(got)
    assert stats.received == stats.delivered + stats.undecodable + stats.control
    assert all(isinstance(message.metadata, Mapping) for message in got)
    return got, stats


FOREIGN = {
    "a flattened tweet": b'{"id":"1","text":"flat","author":{"id":"2"}}',
    "a tweet of version 1.1": b'{"id_str":"1","full_text":"old","user":{"id_str":"2"}}',
    "a deletion of version 1.1": b'{"delete":{"status":{"id_str":"1"}}}',
    "an entry of a compliance file": b'{"id":"1","action":"delete","reason":"deleted"}',
    "an empty object": b"{}",
    "a user": b'{"data":{"id":"1","name":"n","username":"u"}}',
    "a page of users": b'{"data":[{"id":"1","username":"u"}],"meta":{"result_count":1}}',
    "an empty page": b'{"data":[],"meta":{"result_count":0}}',
    "a page without data": b'{"meta":{"result_count":0}}',
    "a list of tweets": b"[" + tweet(7) + b"]",
    "a number": b"7",
    "a record of another program": b'{"received_at":1.0,"tweet":{"id":"1"}}',
    "a record without its line": b'{"id":"1","received_at":1.0,"data":"x","raw":null}',
    "a record of a number": b'{"id":"1","received_at":1.0,"data":"x","raw":7}',
}
"""JSON lines that are neither tweets nor events."""


@pytest.mark.parametrize("name", FOREIGN)
def test_line_of_another_shape_is_unknown(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([tweet(0), FOREIGN[name], tweet(1), FOREIGN[name], b""]))
    got, stats = outcome(path)
    assert [message.data for message in got] == ["hello 0", "hello 1"]
    assert (stats.unknown, stats.undecodable) == (2, 0)


@pytest.mark.parametrize("raw", [b'"{"', b'"hello"', b'"\\u0000"', b'""'])
def test_record_with_a_broken_raw_is_undecodable(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record = b'{"id":"1","received_at":1.0,"data":"x","raw":%s}' % raw
    path.write_bytes(b"\n".join([tweet(0), record, tweet(1), b""]))
    got, stats = outcome(path)
    assert [message.data for message in got] == ["hello 0", "hello 1"]
    assert stats.undecodable == 1


def test_lines_of_a_stream_are_counted_as_in_a_stream(tmp_path: Path) -> None:
    problem = b'{"disconnect_type":"OperationalDisconnect","title":"operational-disconnect"}'
    partial = b'{"data":{"id":"7","text":"RT"},"errors":[{"title":"Not Found Error"}]}'
    path = tmp_path / "t.ndjson"
    lines = [tweet(0), b"", b"", partial, b'{"errors":[%s]}' % problem, b""]
    path.write_bytes(b"\r\n".join(lines))
    stream = rxtweets.replay(path, None)
    seen: list[events.Event] = []
    stream.events.subscribe(seen.append)
    assert [message.data for message in stream.to_list().run()] == ["hello 0", "RT"]
    stats = stream.stats()
    assert (stats.received, stats.delivered, stats.disconnects, stats.partial) == (3, 2, 1, 1)
    assert stream.telemetry.bus.flush()
    [announced] = [event for event in seen if isinstance(event, events.DisconnectAnnounced)]
    assert announced.disconnect_type == "OperationalDisconnect"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_compression_is_detected_by_the_first_bytes(
    pack: Callable[[bytes], bytes], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"t.jsonl{suffix}"
    path.write_bytes(pack(tweet(0) + b"\n") + pack(tweet(1) + b"\n"))
    got, stats = outcome(path)
    assert [message.data for message in got] == ["hello 0", "hello 1"]
    assert stats.undecodable == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_last_line_without_a_line_feed_counts(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    text = '{"data":{"id":"1","text":"\u0a0a \U0001f600"}}\n' + tweet(1).decode()
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + text).encode(encoding))
    got, stats = outcome(path)
    assert [message.data for message in got] == ["\u0a0a \U0001f600", "hello 1"]
    assert stats.received == 2


def test_byte_order_marks_of_joined_files_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes((codecs.BOM_UTF8 + tweet(0) + b"\n") * 2)
    got, _ = outcome(path)
    assert [message.raw for message in got] == [tweet(0)] * 2


def test_last_line_that_is_cut_off_is_undecodable(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(tweet(0) + b"\n" + tweet(1)[:-3])
    stream = rxtweets.replay(path, None)
    assert len(stream.to_list().run()) == 1
    assert stream.telemetry.bus.flush()
    [failure] = stream.errors
    assert f"{path}:2" in failure.text
    assert "ends within this line" in failure.text


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_every_cut_of_compressed_data_is_reported_once(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    packed = pack(tweet(0) + b"\n") + pack(tweet(1) + b"\n")
    whole = len(pack(tweet(0) + b"\n"))
    for size in range(4, len(packed)):
        path.write_bytes(packed[:size])
        got, stats = outcome(path)
        assert len(got) >= (size >= whole)
        assert stats.undecodable == (size != whole), size


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\r\n \r\n", codecs.BOM_UTF8])
def test_file_without_lines_is_an_empty_recording(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    got, stats = outcome(path)
    assert (got, stats.received) == ([], 0)


def test_record_whose_keys_are_in_another_order_is_played(tmp_path: Path) -> None:
    sent = [message.put_data(data) for message in messages(AT, AT) for data in ("x", {"raw": [1]})]
    write(tmp_path / "t.jsonl", sent)
    for keys in ("id", "raw", "data"), ("raw", "received_at", "data"):
        path = tmp_path / "sorted.jsonl"
        values = [json.loads(line) for line in (tmp_path / "t.jsonl").read_bytes().splitlines()]
        anew = [{key: value.pop(key) for key in keys} | value for value in values]
        lines = [json.dumps(value, separators=(",", ":")) + " " for value in anew]
        path.write_text("\n".join(lines))
        got, _ = outcome(path)
        assert [(message.data, message.id, message.received_at) for message in got] == [
            (message.data, message.id, message.received_at) for message in sent
        ]
        assert [dict(message.metadata) for message in got] == [
            dict(message.metadata) for message in sent
        ]


def test_oversized_line_of_a_recording_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "READ", 100)
    monkeypatch.setattr(line_files, "LONGEST", 500)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([tweet(0), b"x" * 10_000, tweet(1), b"y" * 700]))
    stream = rxtweets.replay(path, None)
    assert [message.data for message in stream.to_list().run()] == ["hello 0", "hello 1"]
    assert stream.stats().undecodable == 2
    assert stream.telemetry.bus.flush()
    assert [
        f"{path}:{number}" in failure.text
        for number, failure in zip((2, 4), stream.errors, strict=True)
    ] == [True, True]


def test_messages_before_an_error_are_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    write(path, messages(*[AT] * 130))
    read = line_files.read_file

    def failing(file: Path) -> Iterator[Any]:
        yield from read(file)
        raise RuntimeError("broken")

    monkeypatch.setattr(replay, "read_file", failing)
    for hot in (False, True):
        stream = rxtweets.replay(path, None, hot=hot)
        got: list[Message[Any]] = []
        errors: list[Exception] = []
        over = threading.Event()
        stream.subscribe(got.append, partial(fail, errors, over))
        assert over.wait(PATIENCE)
        assert len(got) == stream.stats().delivered == 130
        [error] = errors
        assert isinstance(error, rxtweets.errors.StreamError)
        assert "broken" in str(error)
        assert stream.state.name == "idle"


def fail(errors: list[Exception], over: threading.Event, error: Exception) -> None:
    errors.append(error)
    over.set()


def test_replay_error_reaches_observers_in_virtual_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5))
    monkeypatch.setattr(replay, "timedelta", None)
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl", scheduler=scheduler).subscribe(observer)
    scheduler.start()
    [failure] = observer.messages
    assert isinstance(failure.value, OnError)


def test_raising_observer_ends_alone(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 300))
    scheduler = TestScheduler()
    stream = rxtweets.replay(tmp_path / "t.jsonl", None, hot=True, scheduler=scheduler)
    errors: list[Exception] = []
    got: list[list[Message[Any]]] = []
    over: list[bool] = []

    class Raising(reactivex.Observer[list[Message[Any]]]):
        def on_next(self, value: list[Message[Any]]) -> None:
            raise KeyError(len(value))

        def on_error(self, error: Exception) -> None:
            errors.append(error)
            raise RuntimeError

    stream.subscribe_chunks(Raising())
    stream.subscribe_chunks(reactivex.Observer(got.append, on_completed=lambda: over.append(True)))
    scheduler.start()
    assert (sum(map(len, got)), over) == (300, [True])
    [error] = errors
    assert isinstance(error, rxtweets.errors.StreamError)
    assert stream.stats().subscriber_errors == 2


@pytest.mark.parametrize("received_at", ["1e300", "-1e300", "-1", "true", '"x"', "[]", "null"])
def test_invalid_arrival_makes_no_pause(received_at: str, tmp_path: Path) -> None:
    record = '{"id":"1","received_at":%s,"data":"x","raw":{"data":{"text":"x"}}}\n'
    path = tmp_path / "t.jsonl"
    path.write_text(record % AT + record % received_at + record % (AT + 5))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(path).subscribe(observer, scheduler=scheduler)
    scheduler.start()
    assert [recorded.time - observer.messages[0].time for recorded in observer.messages] == [
        0,
        0,
        5,
        5,
    ]


def test_records_of_events_are_replayed(tmp_path: Path) -> None:
    lines: dict[Carries, bytes] = {
        "likes": b'{"data":{"id":"1","liked_tweet_id":"2"}}',
        "compliance": b'{"data":{"delete":{"tweet":{"id":"1"}}}}',
        "labels": b'{"data":{"public_tweet_notice":{"tweet":{"id":"1"},"application":"apply"}}}',
        "activity": b'{"data":{"event_type":"post.create","event_uuid":"1"}}',
    }
    sent = []
    for carries, line in lines.items():
        read = reader_for(carries)
        assert read is not None
        found = read(json.loads(line))
        assert found is not None
        sent.append(Message.from_event(*found, line, AT))
    sent.append(Message.from_event(Like("5", "", "", None), "5", b'{"data":{"id":"5"}}', AT))
    write(tmp_path / "t.jsonl", sent)
    assert all(map(same, played(tmp_path / "t.jsonl"), sent))
    bare = tmp_path / "bare.ndjson"
    bare.write_bytes(b"\n".join(lines.values()))
    assert [message.data for message in played(bare)] == [message.data for message in sent[:4]]


@pytest.mark.parametrize(
    "line",
    [
        b'{"data":{"id":"1","text":"a","x":1e400}}',
        b'{"data":{"id":"1","text":"a","x":%s}}' % (b"[" * 1_022 + b"]" * 1_022),
        b'{"data":{"id":"1","text":"a","x":%s}}' % (b"[" * 5_000 + b"]" * 5_000),
    ],
    ids=["a great number", "nested", "nested deep"],
)
def test_every_delivered_line_is_replayed(line: bytes, tmp_path: Path) -> None:
    [message] = Decoder(fast=True).decode([line], AT).messages
    sent = [message, message.put_data({"raw": 1}), message.put_data(None)]
    write(tmp_path / "t.jsonl", sent)
    back = played(tmp_path / "t.jsonl")
    assert [(message.raw, message.data, message.id) for message in back] == [
        (line, message.data, "1") for message in sent
    ]
    assert all(set(message.metadata) == {"id", "x"} for message in back)


# Pages.


def test_page_of_a_search_becomes_its_tweets(tmp_path: Path) -> None:
    people = [{"id": str(number), "username": f"User{number}"} for number in range(10, 20)]
    photos = [{"media_key": f"3_{number}", "type": "photo"} for number in range(4)]
    quoted = {
        "id": "90",
        "text": "quoted",
        "author_id": "17",
        "attachments": {"media_keys": ["3_3"]},
        "referenced_tweets": [{"type": "quoted", "id": "91"}],
    }
    page: dict[str, Any] = {
        "data": [
            {"id": "1", "text": "alone", "author_id": "10"},
            {
                "id": "2",
                "text": "User19",
                "author_id": "11",
                "in_reply_to_user_id": "12",
                "attachments": {"media_keys": ["3_1", "3_0"], "poll_ids": ["7"]},
                "geo": {"place_id": "place"},
                "entities": {"mentions": [{"username": "user13", "start": 0, "end": 7}]},
                "context_annotations": [{"entity": {"id": "15"}}],
                "referenced_tweets": [{"type": "quoted", "id": "90"}],
                "edit_history_tweet_ids": ["2"],
            },
            {"id": "3", "text": "no author"},
        ],
        "includes": {
            "users": people,
            "tweets": [quoted, {"id": "91", "text": "a third one", "author_id": "18"}],
            "media": photos,
            "polls": [{"id": "7"}, {"id": "8"}],
            "places": [{"id": "place"}, {"id": "other"}],
        },
        "errors": [{"resource_id": "10", "title": "Not Found Error"}, {"value": "55"}],
        "meta": {"result_count": 3},
        "__twarc": {"version": "2"},
    }
    path = tmp_path / "t.jsonl"
    path.write_bytes(tweet(0) + b"\n" + json.dumps(page).encode() + b"\n" + tweet(1))
    got, stats = outcome(path)
    assert [message.data for message in got] == [
        "hello 0",
        "alone",
        "User19",
        "no author",
        "hello 1",
    ]
    assert (stats.unknown, stats.partial) == (1, 1)
    _, alone, rich, bare, _ = got
    assert alone.metadata["includes"] == {"users": people[:1]}
    assert alone.metadata["errors"] == page["errors"][:1]
    included = rich.metadata["includes"]
    assert [user["id"] for user in included.pop("users")] == ["11", "12", "13", "17"]
    assert included == {
        "tweets": [quoted],
        "media": [photos[0], photos[1], photos[3]],
        "polls": [{"id": "7"}],
        "places": [{"id": "place"}],
    }
    assert dict(bare.metadata) == {"id": "3"}
    assert all(Message.from_line(message.raw).data == message.data for message in got)


def test_page_with_newer_names_is_read(tmp_path: Path) -> None:
    page = {
        "data": [{"id": "1", "text": "a", "referenced_posts": [{"type": "quoted", "id": "2"}]}],
        "includes": {"posts": [{"id": "2", "text": "b", "author_id": "3"}], "users": [{"id": "3"}]},
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(page))
    [message] = played(tmp_path / "t.jsonl")
    assert message.metadata["includes"] == page["includes"]


def test_other_entries_of_a_page_are_unknown(tmp_path: Path) -> None:
    page = {"data": [{"id": "1"}, 7, None, {"id": "2", "text": "a"}], "includes": [3], "errors": 5}
    (tmp_path / "t.jsonl").write_text(json.dumps(page))
    [message], stats = outcome(tmp_path / "t.jsonl")
    assert (message.id, dict(message.metadata)) == ("2", {"id": "2"})
    assert (stats.received, stats.unknown) == (4, 3)


def test_pages_of_real_tweets_are_split(tmp_path: Path, recorded: Path) -> None:
    payloads = [json.loads(line) for line in recorded.read_bytes().splitlines()[:200]]
    page: dict[str, Any] = {"data": [message["data"] for message in payloads], "includes": {}}
    for message in payloads:
        for name, parts in message.get("includes", {}).items():
            page["includes"].setdefault(name, []).extend(parts)
    (tmp_path / "t.jsonl").write_text(json.dumps(page))
    got = played(tmp_path / "t.jsonl")
    assert [message.id for message in got] == [message["data"]["id"] for message in payloads]
    for message, payload in zip(got, payloads, strict=True):
        author = payload["data"].get("author_id")
        users = message.metadata.get("includes", {}).get("users", [])
        own = payload.get("includes", {}).get("users", [])
        assert (author in {message["id"] for message in own}) <= (
            author in {user["id"] for user in users}
        )


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, messages(AT))
    stream = rxtweets.replay(path, None)
    path.unlink()
    with pytest.raises(rxtweets.errors.StreamError, match="recording"):
        stream.to_list().run()


def test_replay_refuses_invalid_arguments(tmp_path: Path) -> None:
    for path in (b"t.jsonl", 5, None):
        with pytest.raises(rxtweets.ConfigurationError, match=r"path=.*such as \['a.jsonl'"):
            rxtweets.replay(path)  # type: ignore[arg-type]  # the tested error
    with pytest.raises(rxtweets.ConfigurationError, match="no such recording"):
        rxtweets.replay(tmp_path / "t.jsonl")
    write(tmp_path / "t.jsonl", messages(AT))
    for speed in (0, -1, "fast"):
        with pytest.raises(rxtweets.ConfigurationError, match="speed"):
            rxtweets.replay(tmp_path / "t.jsonl", speed)  # type: ignore[arg-type]  # on purpose


def test_record_refuses_invalid_arguments(tmp_path: Path) -> None:
    wrongs: list[dict[str, Any]] = [
        {"path": tmp_path},
        {"path": tmp_path / "no" / "where"},
        {"path": tmp_path / "x.part"},
        {"path": tmp_path / "x", "rotate_size": 0},
        {"path": tmp_path / "x", "rotate_after": 0},
    ]
    for wrong in wrongs:
        with pytest.raises(rxtweets.ConfigurationError):
            rxtweets.record(**wrong)


# Collecting.


def test_collect_returns_the_count_and_disconnects() -> None:
    with simulator.serve(rate=2000) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url)
        closed = threading.Event()
        stream.events.subscribe(
            lambda event: closed.set() if isinstance(event, events.Disconnected) else None
        )
        batch = rxtweets.collect(stream, 50)
        assert (len(batch), batch.info.trigger, batch.info.batcher) == (50, "size", "collect")
        assert closed.wait(PATIENCE)


def test_collect_returns_early_when_time_is_up() -> None:
    source: Subject[Message[Any]] = Subject()
    one = Message("one")
    batch = rxtweets.collect(source.pipe(reactivex.operators.start_with(one)), 5, 0.05)
    assert (list(batch), batch.info.trigger) == ([one], "timeout")
    assert not source.observers


def test_collect_returns_early_when_the_source_ends() -> None:
    batch = rxtweets.collect(reactivex.of(Message("one"), Message("two")), 5)
    assert [message.data for message in batch] == ["one", "two"]
    assert batch.info.trigger == "flush"


def test_collect_returns_early_when_interrupted() -> None:
    source: Subject[Message[Any]] = Subject()

    def interrupt(_: Message[Any]) -> None:
        _thread.interrupt_main()

    stream = source.pipe(
        reactivex.operators.start_with(Message("one")), reactivex.operators.do_action(interrupt)
    )
    batch = rxtweets.collect(stream, 5)
    assert [message.data for message in batch] in ([], ["one"])
    assert not source.observers


def test_collect_raises_an_error_before_the_first_message() -> None:
    with simulator.serve(script=[unauthorized()]) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url)
        with pytest.raises(rxtweets.errors.AuthenticationError):
            rxtweets.collect(stream, 5)


def test_collect_acknowledges_its_messages() -> None:
    outcomes: list[tuple[list[str], list[str]]] = []
    acknowledger = rxtweets.CallerAcknowledger(
        lambda good, bad: outcomes.append(([m.data for m in good], [m.data for m in bad]))
    )
    chunk = [Message(text).with_acknowledger(acknowledger) for text in "abc"]

    def subscribe(observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        observer.on_next(chunk)
        return reactivex.disposable.Disposable()

    stream: MessageStream[Any] = MessageStream(subscribe, new_telemetry())
    assert [message.data for message in rxtweets.collect(stream, 2)] == ["a", "b"]
    assert outcomes == [([], ["c"]), (["a", "b"], [])]


def test_batch_becomes_a_table(tmp_path: Path) -> None:
    sent = messages(*(AT + number for number in range(20)))
    write(tmp_path / "t.jsonl", sent)
    batch = rxtweets.collect(rxtweets.replay(tmp_path / "t.jsonl", None), 20)
    arrow, polars, pandas = batch.to_arrow(), batch.to_polars(), batch.to_pandas()
    assert arrow.num_rows == len(polars) == len(pandas) == 20
    assert arrow.column_names == polars.columns == list(pandas.columns)
    for table in (arrow["id"].to_pylist(), polars["id"].to_list(), list(pandas["id"])):
        assert table == [message.id for message in sent]
    assert polars["created_at"].to_list() == [message.created_at for message in sent]
    assert polars["hashtags"].list.len().sum() > 0
    assert polars.equals(pl.DataFrame(arrow))


def test_empty_batch_becomes_an_empty_table() -> None:
    batch = rxtweets.Batch[Any]([])
    assert batch.to_polars().columns == batch.to_arrow().column_names
    assert len(batch.to_pandas()) == 0


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(rxtweets.ConfigurationError, match=r"rxtweets\[polars\]"):
        rxtweets.Batch(messages(AT)).to_polars()


def test_importing_needs_no_extra() -> None:
    program = (
        "import sys\n"
        "for name in ('pyarrow', 'polars', 'pandas', 'psycopg', 'rich', 'zstandard'):\n"
        "    sys.modules[name] = None\n"
        "import rxtweets, rxtweets.subscribers, rxtweets.cli._main\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE, env=os.environ)
