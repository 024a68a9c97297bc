"""Write the lines of a recording at its pace.

Write the lines of a recording to standard output as they came from the stream, at the pace at
which they came, or faster. For readable tweets, see rxtweets tail.

It reads recordings of other programs as well: lines of X's streams, and pages of tweets, which
become a line for each tweet. The last line on standard error counts the lines that were left out.
The exit code is 1 if no line could be read.

  rxtweets replay tweets.jsonl.gz --speed max | jq -r .data.lang | sort | uniq -c
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets.cli._command import ENDED, FAILED, complain
from rxtweets.cli._sources import add_speed, all_failed, speed_of
from rxtweets.display._text import end_line
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.streams._replay import replay

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", metavar="FILE", nargs="+", help="recordings, played in this order")
    add_speed(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play until the end or a signal; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, or a file cannot be read.
    """
    source = replay(options.file, speed_of(options.speed))
    out = sys.stdout.buffer
    without_line = 0

    def write(batch: Batch[Any]) -> None:
        nonlocal without_line
        lines = [message.raw + b"\n" for message in batch if message.raw]
        without_line += len(batch) - len(lines)
        try:
            out.write(b"".join(lines))
            out.flush()
        except BrokenPipeError:
            pipeline.stop()

    pipeline = Pipeline(source, batchers={"default": Batcher(write, size=128, timeout=0.01)})
    stats = pipeline.run()
    more = f" · messages without a line {without_line:,}" if without_line else ""
    complain(end_line(stats) + more)
    return FAILED if all_failed(stats) else ENDED
