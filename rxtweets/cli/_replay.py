"""The command ``rxtweets replay``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets.cli._sources import exit_code, speed_of
from rxtweets.display._text import end_line
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.streams._replay import replay

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Write the lines of a recording to standard output as they came from the stream, at the pace at
which they came, or faster. For tweets that people can read, see rxtweets tail.

Recordings of others are read as well: lines of X's streams, and pages of tweets, which become a
line for each tweet. The last line on standard error counts the lines that were left out. The exit
code is 1 if nothing could be read.

  rxtweets replay tweets.jsonl.gz --speed max | jq -r .data.lang | sort | uniq -c
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("file", metavar="FILE", nargs="+", help="recordings, played in their order")
    parser.add_argument("--speed", default="1", help="10 is ten times as fast, or max (default 1)")


def run(options: argparse.Namespace) -> int:
    """Play until the end or a signal; the exit code.

    Raises:
        RxTweetsError: an option cannot work, or a file cannot be read.
    """
    source = replay(options.file, speed_of(options.speed))
    out = sys.stdout.buffer
    bare: list[int] = []

    def write(batch: Batch[Any]) -> None:
        lines = [message.raw + b"\n" for message in batch if message.raw]
        bare.append(len(batch) - len(lines))
        try:
            out.write(b"".join(lines))
            out.flush()
        except BrokenPipeError:
            pipeline.stop()

    pipeline = Pipeline(source, batchers={"default": Batcher(write, size=128, timeout=0.01)})
    stats = pipeline.run()
    with contextlib.suppress(BrokenPipeError):
        without = f" · messages without a line {sum(bare):,}" if any(bare) else ""
        print(end_line(stats) + without, file=sys.stderr)
    return exit_code(stats)
