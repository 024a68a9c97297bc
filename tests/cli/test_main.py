"""The command in a shell: output, exit codes, signals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest

from rxtweets import simulator
from rxtweets.cli import main
from rxtweets.cli._main import COMMANDS
from rxtweets.simulator.script import forbidden, unauthorized

COMMAND = [sys.executable, "-m", "rxtweets"]
PATIENCE = 30.0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    names = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN", "RXTWEETS_BASE_URL")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=inherited | environment,
        check=False,
    )


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline()


def test_run_prints_batches_of_upcased_texts() -> None:
    done = run("run", "--rate", "2000", "--limit", "100", "--json")
    *batches, last = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0
    assert [len(batch["messages"]) for batch in batches] == [20] * 5
    for batch in batches:
        assert all(message["data"] == message["data"].upper() for message in batch["messages"])
    stats = last["stats"]
    assert stats["delivered"] == stats["processed"] == stats["batched"] == 100
    assert stats["dropped"] == stats["abandoned"] == 0


def test_run_prints_a_line_a_batch_and_a_summary() -> None:
    done = run("run", "--rate", "2000", "--limit", "45")
    lines = done.stdout.splitlines()
    assert [line[:24] for line in lines] == [
        "    1 │  20 by size    │",
        "    2 │  20 by size    │",
        "    3 │   5 by flush   │",
    ]
    summary = done.stderr.splitlines()[-1]
    words = ("delivered 45", "processed 45", "batches 3", "dropped 0", "reconnects 0", "lag")
    for word in words:
        assert word in summary


def test_quiet_leaves_only_the_summary() -> None:
    done = run("run", "--rate", "2000", "--limit", "45", "--quiet")
    assert done.stdout == ""
    assert "processed" in done.stderr


def test_run_ends_after_its_duration() -> None:
    done = run("run", "--duration", "0.3", "--quiet")
    assert done.returncode == 0


def test_all_recorded_frames_come_through_simulate_and_run(recorded: Path) -> None:
    with running(
        "simulate", "--from", str(recorded), "--port", "0", "--json", "--rate", "max"
    ) as x:
        url = json.loads(line_of(x.stdout))["url"]
        done = run("run", "--base-url", url, "--limit", "1414", "--json", "--overflow", "block")
    *batches, last = map(json.loads, done.stdout.splitlines())
    assert sum(len(batch["messages"]) for batch in batches) == 1414
    assert last["stats"]["delivered"] == 1414
    assert last["stats"]["undecodable"] == 0


def test_live_takes_server_and_token_from_the_environment() -> None:
    with simulator.serve(rate=None, token="secret") as x:
        done = run(
            "run", "--live", "--limit", "20", "--quiet",
            RXTWEETS_BASE_URL=x.url, TWITTER_BEARER_TOKEN="secret",
        )  # fmt: skip
    assert done.returncode == 0
    assert [request.status for request in x.requests] == [200]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--live"], "X_BEARER_TOKEN"),
        (["run", "--live", "--base-url", "http://x"], "leave out --base-url"),
        (["run", "--batch-size", "0"], "size=0"),
        (["run", "--batch-timeout", "-1"], "timeout=-1"),
        (["run", "--concurrency", "0"], "concurrency=0"),
        (["run", "--buffer-size", "-5"], "buffer_size=-5"),
        (["run", "--overflow", "spill"], "drop_oldest, drop_newest, block"),
        (["run", "--rate", "fast"], "--rate"),
        (["run", "--rate", "-1"], "rate=-1"),
        (["run", "--limit", "0"], "--limit 0"),
        (["run", "--duration", "0"], "--duration=0.0"),
        (["run", "--base-url", "x.com"], "give scheme and host"),
        (["run", "--nonsense"], "--nonsense; see rxtweets run --help"),
        (["simulate", "--rate", "fast"], "'fast': give tweets a second, or max"),
        (["simulate", "--port", "99999"], "port=99999"),
        (["simulate", "--from", "no-such-file"], "no-such-file"),
        (["simulate", "--tls-cert", "a.pem"], "--tls-key"),
        (["simulate", "--close-after", "0"], "--close-after 0: give 1 or more"),
        (["simulate", "--token", ""], "token: it is empty"),
        (["simulate", "--history", "inf", "--live"], "history=inf"),
        (["simulate", "--rate", "inf", "--live"], "rate=inf"),
        (["simulate", "--from", os.devnull], "read twice"),
        (["simulate", "--chunking", "0"], "chunking=0"),
        (["frobnicate"], "frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_option_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as refused:
        code = refused.code
    said = capfd.readouterr()
    assert code == 2
    assert said.err.count("\n") == 1
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize("reply", [unauthorized(), forbidden()], ids=["401", "403"])
def test_refused_token_is_one_line_and_exit_code_1(reply: simulator.script.Reply) -> None:
    with simulator.serve(script=[reply]) as x:
        done = run("run", "--base-url", x.url, "--quiet")
    [line] = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"rxtweets: {reply.status}: ")


def test_run_exits_with_1_when_every_batch_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the printer is on fire")

    monkeypatch.setattr("rxtweets.cli._run.BatchPrinter.on_next", fail)
    assert main(["run", "--rate", "2000", "--limit", "40"]) == 1


def test_without_a_command_the_help_teaches() -> None:
    done = run()
    assert done.returncode == 0
    for words in ("rxtweets run --live", "rxtweets simulate --port 8080", "exit codes"):
        assert words in done.stdout


def test_help_lists_each_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for module in COMMANDS.values():
        summary = (module.__doc__ or "").partition(".\n")[0]
        assert shown.count(f"{summary[:1].lower()}{summary[1:]}\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_delivers_messages_in_flight_and_exits_with_0(number: signal.Signals) -> None:
    with running("run", "--rate", "500", "--json", "--batch-size", "7") as process:
        for _ in range(3):
            line_of(process.stdout)
        process.send_signal(number)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    stats = json.loads(out.splitlines()[-1])["stats"]
    assert stats["delivered"] == stats["processed"] == stats["batched"]
    assert stats["abandoned"] == stats["dropped"] == 0


def test_closed_pipe_ends_the_run_without_a_traceback() -> None:
    with running("run", "--rate", "2000") as process:
        line_of(process.stdout)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in said


def test_simulate_prints_its_url_and_the_served_tweets() -> None:
    with running("simulate", "--port", "0", "--rate", "max") as x:
        match = re.search(r"http://\S+", line_of(x.stdout))
        assert match is not None
        assert f"RXTWEETS_BASE_URL={match[0]}" in line_of(x.stdout)
        headers = {"authorization": "Bearer any"}
        stream = f"{match[0]}/2/tweets/sample/stream"
        with httpx.stream("GET", stream, headers=headers) as response:
            next(response.iter_bytes())
        x.send_signal(signal.SIGINT)
        _, said = x.communicate(timeout=PATIENCE)
        assert x.returncode == 0
    assert "in 1 requests" in said


def test_simulate_can_end_every_connection() -> None:
    with running("simulate", "--port", "0", "--close-after", "2", "--json") as x:
        url = json.loads(line_of(x.stdout))["url"]
        headers = {"authorization": "Bearer any"}
        with httpx.stream("GET", f"{url}/2/tweets/sample/stream", headers=headers) as response:
            assert b"".join(response.iter_bytes()).count(b"\r\n") == 2


def screen_of(
    arguments: list[str], until: bytes, then: signal.Signals, **environment: str
) -> tuple[bytes, int]:
    """Return the output to a terminal; a text in it causes a signal."""
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=os.environ | environment,
    ) as process:
        os.close(secondary)
        shown = b""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not select.select([primary], [], [], 0.1)[0]:
                continue
            try:
                shown += os.read(primary, 65536)
            except OSError:
                break
            if until in shown and process.poll() is None:
                process.send_signal(then)
                until = b"never again"
        os.close(primary)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
    return shown, process.returncode


def test_terminal_has_a_live_summary_that_is_cleared_at_the_end() -> None:
    shown, code = screen_of(["run", "--rate", "200"], b"connected", signal.SIGINT)
    text = shown.decode()
    assert code == 0
    assert "Ctrl-C stops" in text
    assert re.search(r"connected · \d+/s · deliv", text)
    assert text.splitlines()[-1].split("\x1b[K")[-1].startswith("stopped · delivered")


def test_named_server_is_not_called_a_simulation() -> None:
    with simulator.serve(rate=200) as x:
        shown, code = screen_of(["run", "--base-url", x.url], b"reconn", signal.SIGINT)
    assert code == 0
    assert f"reading {x.url};" in shown.decode()


def test_live_run_names_the_server_of_the_environment() -> None:
    with simulator.serve(rate=200) as x:
        shown, code = screen_of(
            ["run", "--live"], b"reconn", signal.SIGINT,
            RXTWEETS_BASE_URL=x.url, X_BEARER_TOKEN="any",
        )  # fmt: skip
    assert code == 0
    assert f"reading {x.url};" in shown.decode()


@pytest.mark.parametrize("source", [[], ["x"]])
def test_tail_reads_the_server_of_the_environment(source: list[str]) -> None:
    with simulator.serve(rate=None) as x:
        done = run("tail", *source, "--limit", "3", RXTWEETS_BASE_URL=x.url, X_BEARER_TOKEN="any")
    assert done.returncode == 0
    assert [request.status for request in x.requests] == [200]


def test_record_reads_the_server_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "tweets.jsonl"
    with simulator.serve(rate=None) as x:
        done = run("record", str(path), "--limit", "3", RXTWEETS_BASE_URL=x.url)
    assert done.returncode == 0
    assert [request.status for request in x.requests] == [200]


def test_named_simulator_ignores_the_server_of_the_environment() -> None:
    with simulator.serve(rate=None) as x:
        done = run("tail", "simulator", "--limit", "1", RXTWEETS_BASE_URL=x.url)
    assert done.returncode == 0
    assert x.requests == []


def test_second_signal_stops_immediately_with_130(tmp_path: Path) -> None:
    program = tmp_path / "stuck.py"
    program.write_text(
        "import sys, threading\n"
        "from rxtweets import cli\n"
        "from rxtweets.cli import _run\n"
        "from rxtweets.pipeline._intake import Intake\n"
        "shut = Intake.shut\n"
        "def saying(valve):\n"
        "    shut(valve)\n"
        "    print('draining', flush=True)\n"
        "Intake.shut = saying\n"
        "def stuck(message):\n"
        "    print('in flight', flush=True)\n"
        "    threading.Event().wait()\n"
        "_run.upcase = stuck\n"
        "sys.exit(cli.main(['run', '--quiet']))\n"
    )
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line_of(process.stdout)
            process.send_signal(signal.SIGINT)
            while line_of(process.stdout) not in {"draining\n", ""}:
                pass  # other messages may be in flight by now
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert process.stderr is not None
            assert "abandoned" in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_run_ends_when_the_disk_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "run", "--rate", "2000", "--batch-size", "5"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "10 batches" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_pipe_ends_a_list_without_a_complaint() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rxtweets", "completion", "bash"],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_standard_output_is_refused() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m rxtweets rules check cat >&-"],
        stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr
