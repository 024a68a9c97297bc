"""The command ``rxtweets tail``."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._support.optional_imports import needed
from rxtweets._support.workers import start_thread
from rxtweets.cli._sources import add_source, ending, exit_code, source_of
from rxtweets.display._live import Watch
from rxtweets.display._snapshot import Snapshot
from rxtweets.display._text import end_line, tweet_line
from rxtweets.display._topology import topology_text
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Batcher, Pipeline

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Print tweets as they come, until Ctrl-C.

  rxtweets tail                          from a simulator
  rxtweets tail x --live                 from X, with figures that are kept up to date
  rxtweets tail tweets.jsonl.gz --speed 10
"""

REFRESH = 4
"""Times a second."""

AROUND = 5
"""Lines that are neither figures nor tweets: the frame, and what is written at the end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add_source(parser, recordings=True)
    parser.add_argument("--json", action="store_true", help="the lines as they came")
    parser.add_argument(
        "--live",
        action="store_true",
        help="the last tweets under the figures that a notebook shows (needs the extra live)",
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
        tail = Tail(options)
        pipeline = Pipeline(source, batchers={"default": Batcher(tail, size=100, timeout=0.1)})
        tail.enough = pipeline.stop
        with view(pipeline, tail), ending(pipeline, options.duration):
            stats = pipeline.run()
    with contextlib.suppress(BrokenPipeError):
        print(end_line(stats), file=sys.stderr)
    return exit_code(stats)


class Tail(Subscriber[Any]):
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
            if self._options.json and not message.raw:
                continue
            if self._options.json:
                sys.stdout.write(message.raw.decode(errors="replace") + "\n")
            else:
                sys.stdout.write(tweet_line(message, width) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _no_view(_pipeline: Pipeline, _tail: Tail) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _view(pipeline: Pipeline, tail: Tail) -> Iterator[None]:
    """The figures and the last tweets, drawn anew until the end of the block."""
    live = needed("rich.live", "live")
    console = needed("rich.console", "live").Console()
    over = threading.Event()
    watch = Watch(pipeline)

    def draw() -> Any:
        return _picture(watch.look(), tail, console.width, console.height)

    def work() -> None:
        while not over.wait(1 / REFRESH):
            screen.update(draw(), refresh=True)

    with live.Live(draw(), console=console, auto_refresh=False) as screen:
        thread = start_thread("rxtweets-view", work, goes_on=True)
        try:
            yield
        finally:
            over.set()
            thread.join()
            screen.update(draw(), refresh=True)


def _picture(snapshot: Snapshot, tail: Tail, width: int, height: int) -> Any:
    text = needed("rich.text", "live").Text
    # As Text, which reads no markup: tweets are full of brackets.
    said = text(topology_text(snapshot), no_wrap=True, overflow="ellipsis")
    rows = max(1, height - said.plain.count("\n") - AROUND)
    lines = [text(tweet_line(each, width - 1)) for each in list(tail.last)[-rows:]]
    frame = needed("rich.panel", "live").Panel(said)
    return needed("rich.console", "live").Group(frame, *lines)
