"""Streams with ``isolated=True`` behave as those with a reader thread."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

import rxtweets
from rxtweets import ConfigurationError, events, simulator
from rxtweets.api._options import TOKEN_VARIABLES
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    KeepAlive,
    Line,
    Part,
    Raw,
    Serve,
    Stall,
    rate_limited,
    unauthorized,
    unavailable,
)
from rxtweets.streams import _isolated as isolated
from tests.streams.test_real_frames import read_all, texts_of
from tests.streams.watching import Watched, line

TOKEN = "AAAA-very-secret-token"


def watched(x: simulator.Simulator, **options: Any) -> Watched:
    return Watched(x, isolated=True, **options)


def readers() -> list[psutil.Process]:
    """Return the reader processes of this process."""
    found = []
    for child in psutil.Process().children():
        try:
            if any("reader_process" in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def _no_process_outlives_a_test() -> Iterator[None]:
    yield
    _, alive = psutil.wait_procs(readers(), timeout=10)
    assert alive == []


@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("chunking", ["frame", 509], ids=["frame", "509 B"])
def test_recorded_frames_arrive_once_and_intact(
    recorded: Path, http: dict[str, Any], compress: bool, chunking: Any
) -> None:
    expected = texts_of(recorded)
    with simulator.serve(rate=None, source=recorded, chunking=chunking) as x:
        got = read_all(x, len(expected), isolated=True, compress=compress, **http)
    assert len(got) == len(expected)
    assert {message.id: message.data for message in got} == expected


def test_private_authority_is_sent_to_the_process() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with simulator.serve(tls=served, rate=None) as x, watched(x, verify=trusted) as w:
        w.until_messages(20)
        assert w.until_event(events.Connected)[0].http_version == "HTTP/2"


def test_unknown_authority_is_refused_by_the_process() -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(served)
    with simulator.serve(tls=served) as x, watched(x) as w:
        assert isinstance(w.until_error(), rxtweets.errors.TLSError)


def test_context_is_refused_without_authorities() -> None:
    with pytest.raises(ConfigurationError, match=r"isolated=True.*authorities"):
        rxtweets.sample_stream(
            token="any", isolated=True, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )


def test_connections_share_one_process() -> None:
    script: list[Part] = [[Serve(2), Close()]] * 3
    with simulator.serve(script=script, rate=None, connects=1000) as x, watched(x) as w:
        w.until_event(events.Connected, 4)
        assert len(readers()) == 1
        ends = w.of(events.Disconnected)[:3]
        assert [end.lines for end in ends] == [2, 2, 2]
        assert all(isinstance(end.error, rxtweets.errors.ConnectionEnded) for end in ends)
        w.until(lambda: w.stream.stats().gaps == 3)
        assert w.stream.stats().reader_crashes == 0


def test_final_error_ends_the_stream_with_its_type() -> None:
    with simulator.serve(script=[unauthorized()]) as x, watched(x) as w:
        error = w.until_error()
        assert isinstance(error, rxtweets.errors.AuthenticationError)
        assert error.status == 401
        assert readers() == []


def test_temporary_errors_are_retried() -> None:
    script = [unavailable(), rate_limited(reset=0)]
    with simulator.serve(script=script, rate=None) as x, watched(x) as w:
        w.until_messages(1)
        errors = [type(event.error) for event in w.of(events.Reconnecting)]
        assert errors == [rxtweets.errors.ServerError, rxtweets.errors.RateLimitError]


def test_silence_is_a_stall() -> None:
    with (
        simulator.serve(script=[[Serve(2), Stall()]], rate=None) as x,
        watched(x, stall_timeout=0.4) as w,
    ):
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.StreamStalled)
        states = [event.state.name for event in w.of(events.StateChanged)]
        assert "stalled" in states
        w.until_messages(10)


def test_announced_disconnect_is_followed_by_a_connection() -> None:
    script: list[Part] = [[Serve(2), Disconnect(), Stall()]]
    with simulator.serve(script=script, rate=None) as x, watched(x) as w:
        w.until_messages(10)
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.ServerDisconnect)


def test_each_kind_of_line_is_counted() -> None:
    long = line(5, "x" * 3_000_000)
    steps = [KeepAlive(), Line(line(1)), Line(b"{broken"), Line(b"17"), Line(long), Line(line(2))]
    with (
        simulator.serve(script=[[*steps, Stall()]], chunking="read") as x,
        watched(x, max_line_mb=1) as w,
    ):
        w.until_messages(2)
        stats = w.stream.stats()
        found = stats.received, stats.delivered, stats.undecodable, stats.unknown, stats.keep_alives
        assert found == (6, 2, 2, 1, 1)
        assert stats.bytes == sum(
            len(content) + 2 for content in (b"", b"{broken", b"17", long)
        ) + 2 * (len(line(1)) + 2)


def test_line_cut_off_by_a_reset_is_counted_and_reported() -> None:
    script: list[Part] = [[Serve(3), Stall(0.2), Abort(mid_frame=True)]]
    with simulator.serve(script=script, rate=None) as x, watched(x) as w:
        w.until_messages(20)
        [lost] = w.until_event(events.UndecodableLine)[:1]
        assert lost.error.line.startswith(b'{"data":{')
        assert w.stream.stats().undecodable == 1


def test_last_line_without_its_end_is_counted_once() -> None:
    script: list[Part] = [[Raw(line(7)), Close()], [Stall()]]
    with simulator.serve(script=script, rate=0) as x, watched(x) as w:
        assert w.until_messages(1)[0].id == "7"
        w.until_event(events.Disconnected)
        assert w.stream.stats().bytes == len(line(7))


def test_stop_delivers_received_lines_and_completes() -> None:
    with simulator.serve(rate=None) as x, watched(x, overflow="block") as w:
        w.until_messages(500)
        w.stream.stop()
        w.until_completed()
        stats = w.stream.stats()
        assert stats.received == stats.delivered == len(w.messages)
        assert stats.dropped == stats.reader_crashes == 0
        assert readers() == []


def test_lines_are_dropped_and_counted_when_buffers_are_full() -> None:
    numbers = [line(number, "x" * 2_000) for number in range(20_000)]
    held = threading.Event()
    with simulator.serve(source=numbers, rate=None) as x:
        stream = rxtweets.sample_stream(
            token="any", base_url=x.url, isolated=True, buffer_size=100, overflow="drop_oldest"
        )
        seen: list[events.Event] = []
        got: list[str] = []
        stream.events.subscribe(seen.append)
        last = threading.Event()

        def take(message: rxtweets.Message[str]) -> None:
            got.append(message.id)
            if message.id == "19999":
                last.set()
            held.wait(20)

        with stream.subscribe(take):
            while x.sent < len(numbers):
                threading.Event().wait(0.01)
            threading.Event().wait(0.2)
            held.set()
            assert last.wait(20), stream.stats()
            stats = stream.stats()
        assert stats.received == len(numbers) == stats.delivered + stats.dropped
        assert stats.delivered == len(got)
        assert stats.dropped > 10_000
        assert got == sorted(got, key=int)
        assert any(isinstance(event, events.OverflowStarted) for event in seen)


def test_killed_process_is_counted_and_replaced() -> None:
    with simulator.serve(rate=200) as x, watched(x) as w:
        w.until_messages(5)
        readers()[0].kill()
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.ReaderCrashed)
        assert "signal 9" in str(end.error)
        before = len(w.messages)
        w.until_messages(before + 5)
        stats = w.stream.stats()
        assert (stats.reader_crashes, stats.gaps) == (1, 1)
        assert len(readers()) == 1


def test_halted_process_is_counted_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "PATIENCE", 0.5)
    with simulator.serve(rate=200) as x, watched(x, stall_timeout=0.5) as w:
        w.until_messages(5)
        [halted] = readers()
        halted.suspend()
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.ReaderCrashed)
        w.until_messages(len(w.messages) + 5)
        assert w.stream.stats().reader_crashes == 1
        assert halted not in readers()


def test_process_is_kept_when_a_subscriber_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "PATIENCE", 1.0)
    with simulator.serve(rate=None) as x:
        stream = rxtweets.sample_stream(
            token="any",
            base_url=x.url,
            isolated=True,
            stall_timeout=1.0,
            overflow="block",
            buffer_size=1,
        )
        taken: list[rxtweets.Message[str]] = []
        enough = threading.Event()

        def take(message: rxtweets.Message[str]) -> None:
            taken.append(message)
            if len(taken) in {1, 100}:
                threading.Event().wait(2.5)  # much longer than the allowed silence
            if len(taken) == 5_000:  # all were read after the pause
                enough.set()

        with stream.subscribe(take):
            assert enough.wait(20)
            stats = stream.stats()
        assert (stats.connects, stats.stalls, stats.reader_crashes) == (1, 0, 0)


def test_next_subscription_starts_another_process() -> None:
    with simulator.serve(rate=None) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url, isolated=True)
        for _ in range(2):
            some = threading.Event()

            def take(_: rxtweets.Message[str], some: threading.Event = some) -> None:
                some.set()

            with stream.subscribe(take):
                assert some.wait(20)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_token_is_not_in_arguments_or_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in TOKEN_VARIABLES:
        monkeypatch.setenv(name, TOKEN)
    with simulator.serve(rate=200, token=TOKEN) as x, Watched(x, isolated=True, token=None) as w:
        w.until_messages(1)
        [child] = readers()
        for name in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{child.pid}/{name}").read_bytes()


PROGRAM = """
import sys, threading
import rxtweets
stream = rxtweets.sample_stream(token="any", base_url=sys.argv[1], isolated=True)
stream.subscribe(lambda message: print(message.id, flush=True))
threading.Event().wait()
"""


def program(x: simulator.Simulator) -> subprocess.Popen[str]:
    """Start a program without a guard for its main module, and wait for a tweet."""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, x.url], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline().strip()
    return running


def test_process_ends_when_the_program_is_killed() -> None:
    with simulator.serve(rate=200) as x, program(x) as running:
        [child] = psutil.Process(running.pid).children()
        running.kill()
        running.wait()
        _, alive = psutil.wait_procs([child], timeout=10)
        assert alive == []


def test_process_ends_when_a_fork_holds_its_input_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "PATIENCE", 60.0)  # a busy machine starts processes slowly
    process = isolated._Process()
    copy = os.dup(process._orders.fileno())
    process.end()
    os.close(copy)
    assert process.how_it_ended() == "exit code 0"


def test_files_beside_the_package_hide_no_standard_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "typing.py").write_text("raise ImportError")
    monkeypatch.setattr(isolated, "PATIENCE", 60.0)
    monkeypatch.setattr(isolated, "__file__", str(tmp_path / "rxtweets" / "isolated.py"))
    process = isolated._Process()
    process.end()
    assert process.how_it_ended() == "exit code 0"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_process_runs_on_its_cores() -> None:
    all_cores = os.sched_getaffinity(0)
    core = min(all_cores)
    with simulator.serve(rate=200) as x, watched(x, reader_cores={core}) as w:
        w.until_messages(1)
        [reader] = readers()
        threads = [thread.id for thread in reader.threads()]
        assert len(threads) > 1
        assert {thread: os.sched_getaffinity(thread) for thread in threads} == {
            thread: {core} for thread in threads
        }
        assert os.sched_getaffinity(0) == all_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
@pytest.mark.parametrize(
    "cores", [{4095}, {-1}, [], "0", {0.5}, {True}, 0, {10**30}, [[0]], [0, 4095]], ids=repr
)
def test_cores_are_refused_when_they_are_not_usable(cores: Any) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigurationError, match=r"reader_cores=.* cores"):
        rxtweets.sample_stream(token="any", isolated=True, reader_cores=cores)
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_process_after_a_crash_runs_on_the_same_cores() -> None:
    core = min(os.sched_getaffinity(0))
    options = {"reader_cores": iter([core]), "backoff": rxtweets.Backoff(scale=0.001)}
    with simulator.serve(rate=200) as x, watched(x, **options) as w:
        w.until_messages(1)
        [first] = readers()
        first.kill()
        w.until_event(events.Connected, 2)
        [second] = [process for process in readers() if process.pid != first.pid]
        assert os.sched_getaffinity(second.pid) == {core}


def test_cores_are_refused_without_isolation() -> None:
    with pytest.raises(ConfigurationError, match="isolated=True"):
        rxtweets.sample_stream(token="any", reader_cores={0})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process_ignores_signals_that_make_a_program_drain(number: signal.Signals) -> None:
    with simulator.serve(rate=200) as x, watched(x) as w:
        w.until_messages(1)
        os.kill(readers()[0].pid, number)
        w.until_messages(len(w.messages) + 50)
        assert w.stream.stats().reader_crashes == 0


def test_isolated_is_refused_when_it_is_not_a_bool() -> None:
    options: dict[str, Any] = {"token": "any", "isolated": "yes"}
    with pytest.raises(ConfigurationError, match="isolated"):
        rxtweets.sample_stream(**options)
