"""The command ``rxtweets tail``."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rxtweets.commands.sources import add_source, ending, source_of
from rxtweets.display.text import end_line, figures, tweet_line
from rxtweets.errors import ConfigurationError
from rxtweets.extras import needed
from rxtweets.message import Batch
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.subscriber import Subscriber
from rxtweets.telemetry import Stats

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Print tweets as they come, until Ctrl-C.

  rxtweets tail                          from a simulator
  rxtweets tail x --live                 from X, with figures that are kept up to date
  rxtweets tail tweets.jsonl.gz --speed 10
"""

REFRESH = 4
"""Times a second."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_source(parser, recordings=True)
    parser.add_argument("--json", action="store_true", help="the lines as they came")
    parser.add_argument(
        "--live",
        action="store_true",
        help="the last tweets under rate, lag, queue, drops and state (needs the extra live)",
    )


def run(options: argparse.Namespace) -> int:
    """Print until the end or a signal; the exit code.

    Raises:
        RxTweetsError: an option cannot work, or the stream failed for good.
    """
    if options.live and options.json:
        raise ConfigurationError("--live is for people, --json for programs: choose one")
    view = _view if options.live else _no_view
    with source_of(options) as source:
        tail = _Tail(options)
        pipeline = Pipeline(source, batchers={"default": Batcher(tail, size=100, timeout=0.1)})
        tail.enough = pipeline.stop
        with view(pipeline, tail), ending(pipeline, options.duration):
            stats = pipeline.run()
    with contextlib.suppress(BrokenPipeError):
        print(end_line(stats), file=sys.stderr)
    return 0


class _Tail(Subscriber[Any]):
    """Prints tweets, or keeps the last ones for a view; ends the run when there were enough."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self._options = options
        self._left = options.limit
        self.last: deque[Any] = deque(maxlen=100)
        self.enough: Callable[[], object] = lambda: None

    def on_next(self, batch: Batch[Any]) -> None:
        shown = batch[: self._left]
        if self._left is not None:
            self._left -= len(shown)
        try:
            self._show(shown)
        except BrokenPipeError:
            self._left = 0
        if self._left == 0:
            self.enough()

    def _show(self, messages: Any) -> None:
        if self._options.live:
            self.last.extend(messages)
            return
        width = shutil.get_terminal_size((120, 24)).columns
        for message in messages:
            if self._options.json:
                sys.stdout.write(message.raw.decode(errors="replace") + "\n")
            else:
                sys.stdout.write(tweet_line(message, width) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _no_view(_pipeline: Pipeline, _tail: _Tail) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _view(pipeline: Pipeline, tail: _Tail) -> Iterator[None]:
    """The figures and the last tweets, drawn anew until the end of the block."""
    live = needed("rich.live", "live")
    console = needed("rich.console", "live").Console()
    over = threading.Event()

    def draw(stats: Stats, rate: float) -> Any:
        return _picture(stats, rate, tail, console.width, max(1, console.height - 6))

    def work() -> None:
        before, since, rate = 0, time.monotonic(), 0.0
        while not over.wait(1 / REFRESH):
            stats, now = pipeline.stats(), time.monotonic()
            if now - since >= 1:
                rate = (stats.delivered - before) / (now - since)
                before, since = stats.delivered, now
            screen.update(draw(stats, rate), refresh=True)

    with live.Live(draw(pipeline.stats(), 0.0), console=console, auto_refresh=False) as screen:
        thread = threading.Thread(target=work, name="rxtweets-view", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            screen.update(draw(pipeline.stats(), 0.0), refresh=True)


def _picture(stats: Stats, rate: float, tail: _Tail, width: int, rows: int) -> Any:
    table = needed("rich.table", "live").Table(expand=True)
    text = needed("rich.text", "live").Text
    shown = figures(stats, rate)
    for name, _ in shown:
        table.add_column(name)
    table.add_row(*(value for _, value in shown))
    # As Text, which reads no markup: tweets are full of brackets.
    lines = [text(tweet_line(each, width - 1)) for each in list(tail.last)[-rows:]]
    return needed("rich.console", "live").Group(table, *lines)
