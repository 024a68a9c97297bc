"""Recording, replaying, collecting."""

from __future__ import annotations

import _thread
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import reactivex
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import Message, events, simulator
from rxtweets import operators as ops
from rxtweets.observable import MessageStream, new_telemetry
from rxtweets.payloads import reader_for
from rxtweets.simulator.script import unauthorized
from rxtweets.simulator.tweets import Tweets

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
def test_a_replay_gives_equal_messages(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.jsonl{suffix}"
    recorded = messages(*(AT + number / 7 for number in range(50)))
    write(path, recorded)
    back = played(path)
    assert len(back) == 50
    assert all(map(same, back, recorded))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_real_frames_come_back_byte_for_byte(tmp_path: Path, recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines()[:300]
    sent = [Message.from_line(line, AT) for line in lines]
    write(tmp_path / "t.jsonl.gz", sent)
    back = played(tmp_path / "t.jsonl.gz")
    assert [each.raw for each in back] == lines
    assert all(map(same, back, sent))


def test_events_come_back_as_their_dataclasses(tmp_path: Path) -> None:
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


def test_what_handlers_made_comes_back_too(tmp_path: Path) -> None:
    one, two, three = messages(AT, AT, AT)
    changed = [one.put_data("x"), two.put_data({"raw": {"a": 1}}), three.put_data(None)]
    write(tmp_path / "t.jsonl", changed)
    back = played(tmp_path / "t.jsonl")
    assert [each.data for each in back] == ["x", {"raw": {"a": 1}}, None]
    assert [each.raw for each in back] == [each.raw for each in changed]


def test_messages_of_no_stream_come_back(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [Message("hello", {"id": "7", "lang": "en"})])
    [back] = played(tmp_path / "t.jsonl")
    assert (back.data, back.id, dict(back.metadata)) == ("hello", "7", {"id": "7", "lang": "en"})
    assert back.received_at is None


def test_a_line_with_line_feeds_comes_back(tmp_path: Path) -> None:
    line = b'{"data":\n{"id":"7","text":"x"}}'
    write(tmp_path / "t.jsonl", [Message.from_line(line, AT)])
    [back] = played(tmp_path / "t.jsonl")
    assert (back.raw, back.id) == (line, "7")


def test_a_recording_that_another_tool_wrote_anew_can_be_played(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sent = messages(AT, AT + 1)
    write(path, sent)
    values = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(value, sort_keys=True) + "\r\n" for value in values))
    back = played(path)
    assert [(each.id, each.data, each.received_at) for each in back] == [
        (each.id, each.data, each.received_at) for each in sent
    ]


def test_lines_of_the_stream_alone_can_be_played(tmp_path: Path) -> None:
    sent = messages(None, None)
    (tmp_path / "t.ndjson").write_bytes(b"\r\n".join(each.raw for each in sent) + b"\r\n")
    assert all(map(same, played(tmp_path / "t.ndjson"), sent))


# Recording.


def test_messages_pass_as_they_are_recorded_and_the_file_is_complete_at_the_end(
    tmp_path: Path,
) -> None:
    source: Subject[Message[Any]] = Subject()
    got: list[Message[Any]] = []
    source.pipe(rxtweets.record(tmp_path / "t.jsonl")).subscribe(got.append)
    sent = messages(AT, AT)
    source.on_next(sent[0])
    assert got == sent[:1]
    assert [each.name for each in tmp_path.iterdir()] == ["t.jsonl.part"]
    assert all(map(same, played(tmp_path / "t.jsonl"), sent[:1]))
    source.on_next(sent[1])
    source.on_completed()
    assert [each.name for each in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_recording_that_was_removed_goes_on_in_another_file(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    source.pipe(rxtweets.record(tmp_path / "t.jsonl.gz")).subscribe()
    sent = messages(AT, AT, AT)
    source.on_next(sent[0])
    (tmp_path / "t.jsonl.gz.part").unlink()
    source.on_next(sent[1])
    source.on_next(sent[2])
    source.on_completed()
    assert all(map(same, played(tmp_path / "t.jsonl.gz"), sent[1:]))


def test_a_recording_that_was_removed_at_the_end_is_reported(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    recorded = source.pipe(rxtweets.record(tmp_path / "t.jsonl"))
    recorded.subscribe()
    source.on_next(messages(AT)[0])
    (tmp_path / "t.jsonl.part").unlink()
    source.on_completed()
    assert recorded.stats().subscriber_errors == 1


def test_disposing_completes_the_file(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    with source.pipe(rxtweets.record(tmp_path / "t.jsonl.gz")).subscribe():
        source.on_next(messages(AT)[0])
    assert [each.name for each in tmp_path.iterdir()] == ["t.jsonl.gz"]


def test_every_recording_has_a_name_of_its_own_and_together_they_are_one(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sent = messages(*[AT] * 12)
    for start in range(12):
        write(path, sent[start : start + 1])
    names = {"t.jsonl", *(f"t-{number}.jsonl" for number in range(2, 13))}
    assert {each.name for each in tmp_path.iterdir()} == names
    assert all(map(same, played(path), sent))
    assert all(map(same, played(tmp_path / "t-3.jsonl"), sent[2:3]))
    assert all(map(same, played([tmp_path / "t-3.jsonl", tmp_path / "t-2.jsonl"]), sent[2:0:-1]))


def test_a_recording_rotates_by_size(tmp_path: Path) -> None:
    source: Subject[Message[Any]] = Subject()
    sent = messages(*[AT] * 6)
    with source.pipe(rxtweets.record(tmp_path / "t.jsonl", rotate_size=2500)).subscribe():
        for message in sent:
            source.on_next(message)
    assert len(list(tmp_path.iterdir())) > 1
    assert all(map(same, played(tmp_path / "t.jsonl"), sent))


def test_what_cannot_be_recorded_passes_and_is_reported(tmp_path: Path) -> None:
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
    assert any(isinstance(each, events.SubscriberFailed) for each in seen)


def test_what_a_killed_process_left_is_played_and_then_completed(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        path = tmp_path / f"t.jsonl{suffix}"
        sent = messages(AT, AT + 1, AT + 2)
        program = (
            "import os, sys; from pathlib import Path\n"
            "from rxtweets.line_files import LineWriter\n"
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


def test_the_pace_is_the_original_one_in_virtual_time(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl").map(lambda each: each.received_at).subscribe(
        observer, scheduler=scheduler
    )
    scheduler.start()
    times = [(each.time - observer.messages[0].time) for each in observer.messages]
    assert times == [0, 5, 5, 65, 65]


@pytest.mark.parametrize(("speed", "times"), [(0.5, [0, 10, 130, 130]), (5, [0, 1, 13, 13])])
def test_the_pace_can_be_scaled(tmp_path: Path, speed: float, times: list[float]) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl", speed, scheduler=scheduler).subscribe(observer)
    scheduler.start()
    assert [(each.time - observer.messages[0].time) for each in observer.messages] == times


def test_a_clock_that_went_back_makes_no_pause(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 10, AT + 3, None, AT + 12))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    rxtweets.replay(tmp_path / "t.jsonl").subscribe(observer, scheduler=scheduler)
    scheduler.start()
    times = [(each.time - observer.messages[0].time) for each in observer.messages]
    assert times == [0, 10, 10, 10, 12, 12]


def test_disposing_ends_a_replay_in_virtual_time(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 5, AT + 65))
    scheduler = TestScheduler()
    observer = scheduler.create_observer()
    subscription = rxtweets.replay(tmp_path / "t.jsonl").subscribe(observer, scheduler=scheduler)
    scheduler.schedule_relative(30, lambda *_: subscription.dispose())
    scheduler.start()
    assert len(observer.messages) == 2


def test_a_fast_replay_goes_through_our_operators_in_lists(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 300))
    sizes: list[int] = []
    over = threading.Event()
    observer: reactivex.Observer[list[Message[Any]]] = reactivex.Observer(
        lambda chunk: sizes.append(len(chunk)), on_completed=over.set
    )
    rxtweets.replay(tmp_path / "t.jsonl", None).subscribe_chunks(observer)
    assert over.wait(PATIENCE)
    assert sizes == [128, 128, 44]


def test_a_replay_waits_for_a_slow_subscriber_and_drops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(*[AT] * 1000))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None)
    batches = stream.pipe(ops.process(lambda each: each, 2), ops.batch(20, 60.0))
    assert sum(batches.map(len).to_list().run()) == 1000
    stats = stream.stats()
    assert (stats.received, stats.delivered, stats.dropped) == (1000, 1000, 0)


def test_a_cold_replay_begins_anew_for_each_subscriber(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT, AT))
    stream = rxtweets.replay(tmp_path / "t.jsonl", None)
    assert len(stream.to_list().run()) == len(stream.to_list().run()) == 3


def test_a_hot_replay_is_shared(tmp_path: Path) -> None:
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


def test_stop_completes_a_replay(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", messages(AT, AT + 3600))
    stream = rxtweets.replay(tmp_path / "t.jsonl")
    came, over = threading.Event(), threading.Event()
    stream.subscribe(lambda _: came.set(), on_completed=over.set)
    assert came.wait(PATIENCE)
    stream.stop()
    assert over.wait(PATIENCE)
    assert stream.state.name == "idle"


def test_a_pipeline_drains_a_replay(tmp_path: Path) -> None:
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


def test_a_line_that_is_none_is_counted_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, messages(AT, AT))
    one, two = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one + b"nonsense\n[1]\n\n" + two)
    stream = rxtweets.replay(path, None)
    seen: list[events.Event] = []
    stream.events.subscribe(seen.append)
    assert len(stream.to_list().run()) == 2
    stats = stream.stats()
    assert (stats.received, stats.delivered, stats.undecodable) == (4, 2, 2)
    assert stream.telemetry.bus.flush()
    lines = [each.error.line for each in seen if isinstance(each, events.UndecodableLine)]
    assert lines == [b"nonsense", b"[1]"]


def test_a_file_that_vanishes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, messages(AT))
    stream = rxtweets.replay(path, None)
    path.unlink()
    with pytest.raises(rxtweets.StreamError, match="recording"):
        stream.to_list().run()


def test_a_replay_refuses_what_cannot_work(tmp_path: Path) -> None:
    for path in (b"t.jsonl", 5, None):
        with pytest.raises(rxtweets.ConfigurationError, match=r"path=.*such as \['a.jsonl'"):
            rxtweets.replay(path)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(rxtweets.ConfigurationError, match="no such recording"):
        rxtweets.replay(tmp_path / "t.jsonl")
    write(tmp_path / "t.jsonl", messages(AT))
    for speed in (0, -1, "fast"):
        with pytest.raises(rxtweets.ConfigurationError, match="speed"):
            rxtweets.replay(tmp_path / "t.jsonl", speed)  # type: ignore[arg-type]  # on purpose


def test_recording_refuses_what_cannot_work(tmp_path: Path) -> None:
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


def test_collect_gives_so_many_and_closes_the_connection() -> None:
    with simulator.serve(rate=2000) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url)
        closed = threading.Event()
        stream.events.subscribe(
            lambda event: closed.set() if isinstance(event, events.Disconnected) else None
        )
        batch = rxtweets.collect(stream, 50)
        assert (len(batch), batch.info.trigger, batch.info.batcher) == (50, "size", "collect")
        assert closed.wait(PATIENCE)


def test_collect_gives_what_it_has_when_the_time_is_over() -> None:
    source: Subject[Message[Any]] = Subject()
    one = Message("one")
    batch = rxtweets.collect(source.pipe(reactivex.operators.start_with(one)), 5, 0.05)
    assert (list(batch), batch.info.trigger) == ([one], "timeout")
    assert not source.observers


def test_collect_gives_what_it_has_when_the_source_ends() -> None:
    batch = rxtweets.collect(reactivex.of(Message("one"), Message("two")), 5)
    assert [each.data for each in batch] == ["one", "two"]
    assert batch.info.trigger == "flush"


def test_collect_gives_what_it_has_when_it_is_interrupted() -> None:
    source: Subject[Message[Any]] = Subject()

    def interrupt(_: Message[Any]) -> None:
        _thread.interrupt_main()

    stream = source.pipe(
        reactivex.operators.start_with(Message("one")), reactivex.operators.do_action(interrupt)
    )
    batch = rxtweets.collect(stream, 5)
    assert [each.data for each in batch] in ([], ["one"])
    assert not source.observers


def test_collect_raises_what_ended_the_source_before_the_first() -> None:
    with simulator.serve(script=[unauthorized()]) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url)
        with pytest.raises(rxtweets.AuthenticationError):
            rxtweets.collect(stream, 5)


def test_collect_acknowledges_what_it_gives_and_fails_the_rest() -> None:
    told: list[tuple[list[str], list[str]]] = []
    acknowledger = rxtweets.CallerAcknowledger(
        lambda good, bad: told.append(([m.data for m in good], [m.data for m in bad]))
    )
    chunk = [Message(text).with_acknowledger(acknowledger) for text in "abc"]

    def subscribe(observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        observer.on_next(chunk)
        return reactivex.disposable.Disposable()

    stream: MessageStream[Any] = MessageStream(subscribe, new_telemetry())
    assert [each.data for each in rxtweets.collect(stream, 2)] == ["a", "b"]
    assert told == [([], ["c"]), (["a", "b"], [])]


def test_a_batch_becomes_a_table(tmp_path: Path) -> None:
    sent = messages(*(AT + number for number in range(20)))
    write(tmp_path / "t.jsonl", sent)
    batch = rxtweets.collect(rxtweets.replay(tmp_path / "t.jsonl", None), 20)
    arrow, polars, pandas = batch.to_arrow(), batch.to_polars(), batch.to_pandas()
    assert arrow.num_rows == len(polars) == len(pandas) == 20
    assert arrow.column_names == polars.columns == list(pandas.columns)
    for table in (arrow["id"].to_pylist(), polars["id"].to_list(), list(pandas["id"])):
        assert table == [each.id for each in sent]
    assert polars["created_at"].to_list() == [each.created_at for each in sent]
    assert polars["hashtags"].list.len().sum() > 0
    assert polars.equals(pl.DataFrame(arrow))


def test_an_empty_batch_becomes_an_empty_table() -> None:
    batch = rxtweets.Batch[Any]([])
    assert batch.to_polars().columns == batch.to_arrow().column_names
    assert len(batch.to_pandas()) == 0


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(rxtweets.ConfigurationError, match=r"rxtweets\[polars\]"):
        rxtweets.Batch(messages(AT)).to_polars()


def test_importing_needs_no_extra() -> None:
    program = (
        "import sys\n"
        "for name in ('pyarrow', 'polars', 'pandas', 'psycopg', 'rich', 'zstandard'):\n"
        "    sys.modules[name] = None\n"
        "import rxtweets, rxtweets.subscribers, rxtweets.cli\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE, env=os.environ)
