"""The options of ``rxtweets simulate``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from rxtweets.cli import _simulate as simulate
from rxtweets.cli import main
from rxtweets.errors import ConfigurationError
from rxtweets.simulator.script import Close, Serve

PATIENCE = 30.0


def options_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Return the arguments of `serve`."""
    given: dict[str, Any] = {}

    def serve(host: str, port: int, **options: Any) -> None:
        given.update(options, host=host, port=port)
        raise ConfigurationError("not started")

    monkeypatch.setattr(simulate, "serve", serve)
    assert main(["simulate", *arguments]) == 2
    return given


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--live"], "live", True),
        (["--history", "90.5"], "history", 90.5),
        (["--rule", "cat", "--rule", "#dog -is:retweet"], "rules", ["cat", "#dog -is:retweet"]),
        (["--forget-after", "300"], "forget_after", 300.0),
        (["--connections", "2"], "connections", 2),
        (["--packet", "1"], "packet", 1),
        (["--no-backfill"], "backfill", False),
        (["--lenient"], "strict", False),
        (["--buffer", "500"], "buffer", 500),
        (["--rate", "max"], "rate", None),
        (["--from", "x.ndjson"], "source", Path("x.ndjson")),
        (["--pace", "recorded"], "pace", "recorded"),
        (["--tls-cert", "a", "--tls-key", "b"], "tls", ("a", "b")),
        (["--http1-only"], "http2", False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_reach_the_server(
    arguments: list[str], name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options_of(monkeypatch, *arguments)[name] == value


def test_without_options_the_server_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options_of(monkeypatch)
    usual = {
        "live": False,
        "history": 0.0,
        "rules": [],
        "forget_after": 0.0,
        "connections": 1,
        "packet": 0,
        "backfill": True,
        "strict": True,
        "buffer": 10_000,
        "rate": 50.0,
        "pace": "rate",
        "script": (),
    }
    assert {name: given[name] for name in usual} == usual


def test_close_after_ends_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    script = options_of(monkeypatch, "--close-after", "3")["script"]
    assert [script(None) for _ in range(2)] == [[Serve(3), Close()]] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--history", "60"],
        ["--history", "-1", "--live"],
        ["--live", "--rate", "max"],
        ["--rule", "(cat"],
        ["--forget-after", "-1"],
        ["--connections", "0"],
        ["--packet", "-1"],
        ["--buffer", "0"],
    ],
    ids=" ".join,
)
def test_invalid_option_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--port", "0", *arguments]) == 2
    assert arguments[0].strip("-").replace("-", "_") in capsys.readouterr().err


def test_lines_left_out_are_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    simulate.report_left_out([f"t.jsonl:{number}: cut off" for number in range(1, 1_235)])
    first, *_, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("left out: t.jsonl:1: cut off", "lines left out 1,234")
    simulate.report_left_out([])
    assert capsys.readouterr().err == ""


def test_help_names_all_streams(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    said = capsys.readouterr().out
    for word in ("sample10", "filtered", "firehose", "likes", "compliance", "labels", "activity"):
        assert word in said
    for option in ("--live", "--history", "--rule", "--forget-after", "--connections", "--packet"):
        assert option in said


def test_filtered_stream_is_served_from_the_shell() -> None:
    arguments = ["--port", "0", "--json", "--live", "--rate", "100", "--rule", "#music OR #art"]
    with subprocess.Popen(
        [sys.executable, "-m", "rxtweets", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        killer = threading.Timer(PATIENCE, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            headers = {"authorization": "Bearer any"}
            with httpx.stream("GET", f"{url}/2/tweets/search/stream", headers=headers) as response:
                line = next(line_ for line_ in response.iter_lines() if line_)
            process.send_signal(signal.SIGINT)
            process.communicate()
        finally:
            killer.cancel()
            process.kill()
    assert process.returncode == 0
    assert json.loads(line)["matching_rules"]
