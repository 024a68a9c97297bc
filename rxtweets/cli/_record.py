"""Write a stream to a file.

Write every tweet of a stream to a file, with its arrival time, until Ctrl-C, which completes the
file. The file has every tweet that came, even if the process is killed. An existing file is kept:
the recording continues in another file beside it, and replay FILE plays both.

  rxtweets record tweets.jsonl.gz x --duration 3600
  rxtweets replay tweets.jsonl.gz --speed 10
"""

from __future__ import annotations

import argparse

from rxtweets.cli._command import ENDED, FAILED, add_option, complain
from rxtweets.cli._sources import add_source, ending, source_of
from rxtweets.display._text import end_line
from rxtweets.operators._record import record
from rxtweets.pipeline import Batcher, Pipeline

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", metavar="FILE", help="compressed if it ends in .gz or .zst")
    add_source(parser, recordings=False)
    text = "start another file after this many"
    add_option(parser, "--rotate-size", None, f"{text} bytes", type=int, metavar="BYTES")
    add_option(parser, "--rotate-after", None, f"{text} seconds", type=float, metavar="S")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record until the end or a signal; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, or the stream failed for good.
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
    complain(end_line(stats))
    return FAILED if stats.subscriber_errors else ENDED
