"""The option ``--dashboard`` of the commands that run pipelines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from rxtweets import Batch, Batcher, Message, Pipeline, brokers
from rxtweets.cli import _worker, main
from rxtweets.testing import DummySource

PATIENCE = 60.0

Cards = list[dict[str, Any]]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a command; return its process, and the address of its page."""
    command = [sys.executable, "-m", "rxtweets", *arguments, "--dashboard", "0"]
    process = stack.enter_context(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.fullmatch(r"dashboard: (http://127\.0\.0\.1:\d+/)\n", line):
            return process, found[1]
    raise AssertionError("the command has ended without a page")


def moments(url: str) -> Iterator[Cards]:
    with httpx.stream("GET", f"{url}moments", timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def test_run_shows_its_pipeline(stack: ExitStack) -> None:
    process, url = started(stack, "run", "--rate", "200", "--quiet")
    cards = next(cards for cards in moments(url) if cards[0].get("batches"))
    assert [card["name"] for card in cards] == ["pipeline"]
    assert cards[0]["actions"] == ["pause", "drain"]
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_ingest_shows_its_pipeline(stack: ExitStack, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'tweets.queue'}"
    _, page = started(stack, "ingest", url, "--rate", "200")
    cards = next(cards for cards in moments(page) if cards[0].get("batches"))
    assert any("to Publisher" in value for _, value in cards[0]["settings"])


def test_work_shows_each_of_its_processes(stack: ExitStack, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'tweets.queue'}"
    queue = brokers.connect(url)
    with ExitStack() as closing:
        closing.callback(queue.close)
        publisher = queue.publisher()
        queue.ensure()
        publisher.on_next(Batch([Message("text", {"id": str(number)}) for number in range(200)]))
        publisher.on_completed()
    store = f"jsonl:{tmp_path / 'out.jsonl'}"
    process, page = started(stack, "work", url, "--store", store, "--processes", "2")

    def has_worked(cards: Cards) -> bool:
        return all("figures" in card for card in cards) and sum(map(delivered, cards)) == 200

    cards = next(filter(has_worked, moments(page)))
    assert [card["name"] for card in cards] == ["worker 1", "worker 2"]
    assert all(card["actions"] == [] for card in cards)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_worker_outlives_a_card_that_cannot_be_shown() -> None:
    class Broken:
        def values(self) -> dict[str, Any]:
            raise ZeroDivisionError

    broken: Any = Broken()
    pipeline = Pipeline(DummySource(), batchers={"default": Batcher(print)})
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, _worker._reports(writing, pipeline, broken):
        assert "ZeroDivisionError" in json.loads(lines.readline())["card"]["problem"]


def delivered(card: dict[str, Any]) -> int:
    figures = {figure["name"]: figure["value"] for figure in card["figures"]}
    return int(figures["delivered"].replace(",", ""))


def test_port_that_is_taken_ends_with_2(
    stack: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = started(stack, "run", "--rate", "10", "--quiet")
    port = url.rstrip("/").rpartition(":")[2]
    assert main(["run", "--rate", "10", "--dashboard", port]) == 2
    assert f"port {port}" in capsys.readouterr().err
