"""The command ``rxtweets record``."""

from __future__ import annotations

import argparse
import sys

from rxtweets.cli._sources import add_source, ending, source_of
from rxtweets.display._text import end_line
from rxtweets.operators._record import record
from rxtweets.pipeline import Batcher, Pipeline

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Write every tweet of a stream to a file, with its arrival time, until Ctrl-C, which completes the
file. What has come is in it, whatever happens to the process. A file that is there already is
kept: the recording goes on in another beside it, and replay FILE plays both.

  rxtweets record tweets.jsonl.gz x --duration 3600
  rxtweets replay tweets.jsonl.gz --speed 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("file", metavar="FILE", help="ends in .gz or .zst to be compressed")
    add_source(parser, recordings=False)
    parser.add_argument(
        "--rotate-size", type=int, metavar="BYTES", help="begin another file after so many"
    )
    parser.add_argument(
        "--rotate-after", type=float, metavar="S", help="begin another file after so many seconds"
    )


def run(options: argparse.Namespace) -> int:
    """Record until the end or a signal; the exit code.

    Raises:
        RxTweetsError: an option cannot work, or the stream failed for good.
    """
    recorded = record(
        options.file, rotate_size=options.rotate_size, rotate_after=options.rotate_after
    )
    with source_of(options) as source:
        pipeline = Pipeline(
            source.pipe(recorded), batchers={"default": Batcher(lambda _: None, size=1000)}
        )
        with ending(pipeline, options.duration):
            stats = pipeline.run()
    print(end_line(stats), file=sys.stderr)
    return 1 if stats.subscriber_errors else 0
