"""Print tweets as they come.

Print tweets as they come, until Ctrl-C.

  rxtweets tail                          from a simulator, or from RXTWEETS_BASE_URL
  rxtweets tail x --live                 from X, below figures that are kept up to date
  rxtweets tail tweets.jsonl.gz --speed 10

The last line on standard error counts the lines of a recording that were left out. The exit code is
1 if no line could be read.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._support.optional_imports import needed
from rxtweets.cli._command import ENDED, FAILED, add_flag, complain, repeating
from rxtweets.cli._sources import add_source, all_failed, ending, source_of
from rxtweets.display._live import Watch
from rxtweets.display._snapshot import Snapshot
from rxtweets.display._text import end_line, tweet_line
from rxtweets.display._topology import topology_text
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Batcher, Pipeline

__all__ = ["add_arguments"]

REFRESH = 4
"""Times a second."""

OTHER_LINES = 5
"""Lines of the terminal that are neither figures nor tweets."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_source(parser, recordings=True)
    add_flag(parser, "--json", "print the lines as they came")
    text = "show the last tweets below the figures of a notebook; needs the extra live"
    add_flag(parser, "--live", text)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print until the end or a signal; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, or the stream failed for good.
    """
    if options.live and options.json:
        raise ConfigurationError("--live is for people, --json for programs: choose one")
    with source_of(options) as source:
        printer = TweetPrinter(options)
        pipeline = Pipeline(source, batchers={"default": Batcher(printer, size=100, timeout=0.1)})
        printer.on_enough = pipeline.stop
        view = live_view(pipeline, printer) if options.live else contextlib.nullcontext()
        with view, ending(pipeline, options.duration):
            stats = pipeline.run()
    complain(end_line(stats))
    return FAILED if all_failed(stats) else ENDED


class TweetPrinter(Subscriber[Any]):
    """Prints tweets, or keeps the last ones for a live view."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self._options = options
        self._left = options.limit
        self.last: deque[Any] = deque(maxlen=100)
        self.on_enough: Callable[[], object] = lambda: None
        """Called at the limit, or when no program reads the output."""

    def on_next(self, batch: Batch[Any]) -> None:
        """Print a batch."""
        shown = batch[: self._left]
        if self._left is not None:
            self._left -= len(shown)
        try:
            self._print(shown)
        except BrokenPipeError:
            self._left = 0
        if self._left == 0:
            self.on_enough()

    def _print(self, messages: Any) -> None:
        if self._options.live:
            self.last.extend(messages)
            return
        width = shutil.get_terminal_size((120, 24)).columns
        for message in messages:
            if not self._options.json:
                sys.stdout.write(tweet_line(message, width) + "\n")
            elif message.raw:
                sys.stdout.write(message.raw.decode(errors="replace") + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def live_view(pipeline: Pipeline, printer: TweetPrinter) -> Iterator[None]:
    """Draw the figures and the last tweets again and again until the end of the block."""
    live = needed("rich.live", "live")
    console = needed("rich.console", "live").Console()
    watch = Watch(pipeline)

    def picture() -> Any:
        return picture_of(watch.look(), printer, console.width, console.height)

    def draw() -> None:
        screen.update(picture(), refresh=True)

    with live.Live(picture(), console=console, auto_refresh=False) as screen:
        try:
            with repeating("rxtweets-view", 1 / REFRESH, draw):
                yield
        finally:
            draw()


def picture_of(snapshot: Snapshot, printer: TweetPrinter, width: int, height: int) -> Any:
    """Return the picture of a live view, for rich."""
    # As Text, which reads no markup: tweets have many brackets.
    text = needed("rich.text", "live").Text
    figures = text(topology_text(snapshot), no_wrap=True, overflow="ellipsis")
    rows = max(1, height - figures.plain.count("\n") - OTHER_LINES)
    lines = [text(tweet_line(tweet, width - 1)) for tweet in list(printer.last)[-rows:]]
    frame = needed("rich.panel", "live").Panel(figures)
    return needed("rich.console", "live").Group(frame, *lines)
