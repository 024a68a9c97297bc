"""The command ``rxtweets``: run the main job, the simulator, or one of `rxtweets.commands`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO, cast

from rxtweets import simulator
from rxtweets._core.subscriber import Subscriber
from rxtweets._core.telemetry import Stats
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.workers import start_thread
from rxtweets.cli import _bench as bench
from rxtweets.cli import _connections as connections_command
from rxtweets.cli import _record as record
from rxtweets.cli import _replay as replay
from rxtweets.cli import _rules as rules_command
from rxtweets.cli import _simulate as simulate_command
from rxtweets.cli import _tail as tail
from rxtweets.cli._server import STAND_IN, server_options
from rxtweets.cli._sources import ending, exit_code
from rxtweets.display._text import batch_line, summary_line
from rxtweets.errors import ConfigurationError, RxTweetsError
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.streams._sources import StreamOptions, sample_stream

__all__ = ["main"]

ENDED, FAILED, USAGE, ABANDONED = 0, 1, 2, 130

MOST_FAILED = 10
"""Batches in a row that cannot be printed, as on a full disk, before the command gives up."""

LIVE_PAUSE = 0.5
"""Seconds between two summaries in a terminal."""

DESCRIPTION = """\
The X (Twitter) API v2 stream as a hot Observable, composed with RxPY.

Without a token, everything runs against a simulator of X's stream, over real HTTP:

  rxtweets run                       stream, 50 processors, batches of 20 or 2 s, printed
  rxtweets run --live                the same from X; needs X_BEARER_TOKEN
  rxtweets simulate --port 8080      the simulator alone, for programs of your own
  rxtweets rules sync rules.txt      the rules of the filtered stream, as in a file
  rxtweets connections free all      make X forget connections that are gone
  rxtweets tail                      tweets as they come, printed
  rxtweets record FILE               a stream into a file, which rxtweets replay plays
  rxtweets bench                     what this machine can do, in a minute
"""

RUN_DESCRIPTION = """\
Read the sample stream, upcase every text in concurrent processors, collect batches, print them.

Batches go to standard output, the live summary and the log to standard error. Ctrl-C closes the
connection, handles what is in flight and delivers the last batch; a second Ctrl-C stops at once.

Without --live, --base-url or RXTWEETS_BASE_URL, a simulator is started for the run, on this
machine only.
"""

SIMULATE_DESCRIPTION = """\
Serve a simulation of X over HTTP, until Ctrl-C: all streams of X's API v2 (sample, sample10,
filtered, firehose and its languages, likes, compliance, labels, activity), the rules of the
filtered stream, and the connections API.
"""

EXIT_CODES = """\
exit codes:
  0    the run ended as asked: by Ctrl-C, --limit or --duration
  1    the stream failed for good: a refused token, no access, a used-up cap; X refused a rule;
       every batch failed
  2    an option, the environment or a rule is wrong; nothing was connected
  130  a second Ctrl-C stopped at once; what was abandoned is in the summary
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code.

    Args:
        arguments: those of the command line by default.
    """
    parser = _parser()
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        here = " ".join(filter(None, ("rxtweets", parsed.command)))
        said = " ".join(unknown)
        parser.exit(USAGE, f"{here}: unrecognized arguments: {said}; see {here} --help\n")
    if parsed.run is None:
        parser.print_help()
        return ENDED
    if sys.stdout is None:  # Python's way to say that it is closed
        text = "standard output is closed; to print nothing, redirect it to the null device"
        return _complain(ConfigurationError(text), USAGE)
    try:
        return int(parsed.run(parsed))
    except ConfigurationError as error:
        return _complain(error, USAGE)
    except (RxTweetsError, OSError) as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return ABANDONED


def _logged(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command, with the log in the form of its other lines."""

    def run(options: argparse.Namespace) -> int:
        with _log_to(sys.stderr, verbose=False):
            return command(options)

    return run


def _complain(error: Exception, code: int) -> int:
    print(f"rxtweets: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="rxtweets", description=DESCRIPTION, epilog=EXIT_CODES, formatter_class=raw
    )
    version = importlib.metadata.version("rxtweets")
    parser.add_argument("--version", action="version", version=f"rxtweets {version}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    run = commands.add_parser(
        "run",
        help="stream → processors → batches, printed",
        description=RUN_DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=raw,
    )
    _add_run_arguments(run)
    run.set_defaults(run=_run)
    simulate = commands.add_parser(
        "simulate",
        help="serve a simulation of X's streams over HTTP",
        description=SIMULATE_DESCRIPTION,
        formatter_class=raw,
    )
    simulate_command.add_arguments(simulate)
    simulate.set_defaults(run=simulate_command.run)
    rules = commands.add_parser("rules", help="the rules of the filtered stream")
    rules_command.add_arguments(rules)
    held = commands.add_parser("connections", help="the connections that X holds")
    connections_command.add_arguments(held)
    others = {
        "tail": (tail, "print tweets as they come"),
        "record": (record, "write a stream to a file"),
        "replay": (replay, "write the lines of a recording at its pace"),
    }
    for name, (module, summary) in others.items():
        other = commands.add_parser(
            name, help=summary, description=module.DESCRIPTION, formatter_class=raw
        )
        module.add_arguments(other)
        other.set_defaults(run=_logged(module.run))
    measure = commands.add_parser(
        "bench",
        help="measure what this machine can do, in a minute",
        description="Run the main job against a simulator as fast as it goes; print one table.",
        formatter_class=raw,
    )
    bench.add_arguments(measure)
    measure.set_defaults(run=bench.run)
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("source")
    source.add_argument(
        "--live",
        action="store_true",
        help="read X itself (or the server in RXTWEETS_BASE_URL); the token comes from "
        "X_BEARER_TOKEN or TWITTER_BEARER_TOKEN",
    )
    source.add_argument("--base-url", metavar="URL", help="read this server instead")
    source.add_argument(
        "--rate", type=float, default=50.0, help="tweets a second of the simulator (default 50)"
    )
    source.add_argument("--seed", type=int, default=0, help="of the simulator (default 0)")
    work = parser.add_argument_group("work")
    work.add_argument("--concurrency", type=int, default=50, help="processors (default 50)")
    work.add_argument("--batch-size", type=int, default=20, help="messages (default 20)")
    work.add_argument("--batch-timeout", type=float, default=2.0, help="seconds (default 2)")
    work.add_argument("--buffer-size", type=int, default=10_000, help="tweets (default 10000)")
    work.add_argument(
        "--overflow",
        default="drop_oldest",
        help="drop_oldest, drop_newest or block, when the buffer is full (default drop_oldest)",
    )
    end = parser.add_argument_group("end")
    end.add_argument("--limit", type=int, metavar="N", help="stop after N messages")
    end.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a batch, and the end")
    output.add_argument("--quiet", action="store_true", help="no batches, only the summary")
    output.add_argument("-v", "--verbose", action="store_true", help="log connections too")


def upcase(message: Message[str]) -> Message[str]:
    """The handler of the main job."""
    return message.update_data(str.upper)


def _run(options: argparse.Namespace) -> int:
    if options.limit is not None and options.limit < 1:
        raise ConfigurationError(f"--limit {options.limit}: give 1 or more")
    screen = _Screen(sys.stdout, sys.stderr)
    with _log_to(screen, verbose=options.verbose), _source_options(options) as source:
        own = StreamOptions(
            buffer_size=options.buffer_size, overflow=options.overflow, limit=options.limit
        )
        stream = sample_stream(**(source | own))
        printer = _Printer(screen, options)
        pipeline = Pipeline(
            stream,
            handle_message=upcase,
            concurrency=options.concurrency,
            batchers={
                "default": Batcher(printer, size=options.batch_size, timeout=options.batch_timeout)
            },
            max_failed_batches=MOST_FAILED,
        )
        printer.unread = pipeline.stop
        if screen.is_live:
            where = _where(source, is_own=not (options.live or server_options(options)))
            screen.write(f"reading {where}; Ctrl-C stops and delivers what is in flight\n")
        with ending(pipeline, options.duration), _watching(pipeline, screen, options):
            stats = pipeline.run()
    _last_words(screen, stats, options)
    if stats.abandoned:
        return ABANDONED
    return FAILED if exit_code(stats) else ENDED


@contextlib.contextmanager
def _source_options(options: argparse.Namespace) -> Iterator[StreamOptions]:
    """Where to read: X, a named server, or a simulator that lives as long as the run."""
    if options.live and options.base_url:
        raise ConfigurationError("--live reads X itself; leave out --base-url")
    if options.live:
        yield StreamOptions()
    elif other := server_options(options):
        yield cast("StreamOptions", other)
    else:
        with simulator.serve(rate=options.rate, seed=options.seed) as x:
            yield StreamOptions(base_url=x.url, token=STAND_IN)


def _where(source: StreamOptions, *, is_own: bool) -> str:
    url = source.get("base_url")
    if url is None:
        return "X"
    return f"a simulation of X's stream on {url}" if is_own else str(url)


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as the rest of the command does."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Screen:
    """Two streams of one terminal: lines that stay, and a last line that is written anew."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._lock = threading.Lock()
        self.is_live = err.isatty()
        self._status = ""

    @property
    def width(self) -> int:
        return shutil.get_terminal_size((120, 24)).columns

    def print(self, line: str) -> None:
        """A line for standard output."""
        with self._lock:
            self._clear()
            self._out.write(line + "\n")
            self._out.flush()
            self._draw()

    def write(self, text: str) -> None:
        """A part of the log, for standard error."""
        with self._lock:
            self._clear()
            self._err.write(text)
            self._err.flush()
            self._draw()

    def flush(self) -> None:
        """A log handler asks for this; everything is flushed as it is written."""

    def show(self, status: str) -> None:
        """Write the last line anew."""
        with self._lock:
            self._clear()
            self._status = status
            self._draw()

    def _clear(self) -> None:
        if self._status:
            self._err.write("\r\x1b[K")
            self._err.flush()

    def _draw(self) -> None:
        if self._status:
            self._err.write(self._status)
            self._err.flush()


class _Printer(Subscriber[Any]):
    """Prints batches; stops the run when nobody reads them any more."""

    def __init__(self, screen: _Screen, options: argparse.Namespace) -> None:
        super().__init__()
        self._screen = screen
        self._options = options
        self._batches = 0
        self.unread: Any = None

    def on_next(self, batch: Batch[Any]) -> None:
        self._batches += 1
        if not self._options.quiet:
            self._print(batch)

    def _print(self, batch: Batch[Any]) -> None:
        try:
            if self._options.json:
                self._screen.print(_as_json(self._batches, batch))
            else:
                self._screen.print(batch_line(self._batches, batch, self._screen.width))
        except BrokenPipeError:
            self._options.quiet = True
            self.unread()


def _as_json(number: int, batch: Batch[Any]) -> str:
    messages = [{"id": message.id, "data": message.data} for message in batch]
    record = {"batch": number, "trigger": batch.info.trigger, "messages": messages}
    return json.dumps(record, ensure_ascii=False)


@contextlib.contextmanager
def _watching(pipeline: Pipeline, screen: _Screen, options: argparse.Namespace) -> Iterator[None]:
    """Show the summary: twice a second in the last line of a terminal, else every 5 s in a line."""
    over = threading.Event()

    def work() -> None:
        pause = LIVE_PAUSE if screen.is_live else 5.0
        before, since = 0, time.monotonic()
        while not over.wait(pause):
            stats, now = pipeline.stats(), time.monotonic()
            rate = (stats.delivered - before) / (now - since)
            line = summary_line(stats, rate, screen.width - 1 if screen.is_live else None)
            before, since = stats.delivered, now
            if screen.is_live:
                screen.show(line)
            elif not options.json:
                screen.write(line + "\n")

    thread = start_thread("rxtweets-summary", work, goes_on=True)
    try:
        yield
    finally:
        over.set()
        thread.join()
        screen.show("")


def _last_words(screen: _Screen, stats: Stats, options: argparse.Namespace) -> None:
    with contextlib.suppress(BrokenPipeError):
        if options.json:
            screen.print(json.dumps({"stats": stats.as_dict()}))
        else:
            screen.write(summary_line(stats) + "\n")


@contextlib.contextmanager
def _log_to(screen: _Screen | TextIO, *, verbose: bool) -> Iterator[None]:
    handler = logging.StreamHandler(screen)
    handler.setFormatter(logging.Formatter("rxtweets: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.ERROR)  # main says how it ended
    log = logging.getLogger("rxtweets")
    before = log.propagate, log.level
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate, log.level = before
