"""The command ``rxtweets simulate``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rxtweets.errors import ConfigurationError
from rxtweets.simulator._player import Chunking
from rxtweets.simulator._server import Script, Simulator, serve
from rxtweets.simulator.script import Close, Serve

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    where.add_argument("--port", type=int, default=8080, help="0 takes a free one (default 8080)")
    where.add_argument("--tls-cert", metavar="FILE", help="serve https with this certificate")
    where.add_argument("--tls-key", metavar="FILE", help="and this key")
    where.add_argument("--http1-only", action="store_true", help="do not speak HTTP/2")
    where.add_argument("--no-gzip", action="store_true", help="do not compress")
    where.add_argument("--token", help="the only bearer token to accept (default: any)")
    what = parser.add_argument_group("what")
    what.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="serve this recording: of rxtweets record, or lines of X's stream, or pages of tweets",
    )
    what.add_argument("--loop", action="store_true", help="begin the file anew at its end")
    what.add_argument("--seed", type=int, default=0, help="of the simulated tweets (default 0)")
    what.add_argument(
        "--size", choices=("small", "large"), default="small", help="1 KB or 2.5 KB (small)"
    )
    what.add_argument(
        "--names",
        choices=("both", "tweet", "post"),
        default="both",
        help="generation of field names: retweet_count, repost_count, or both (default both)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--rate", type=_rate, default=50.0, help="tweets a second, or max (default 50)"
    )
    how.add_argument(
        "--pace",
        choices=("rate", "recorded"),
        default="rate",
        help="recorded: at the pace of the recording, whatever the rate (default rate)",
    )
    how.add_argument("--burst", type=int, default=1, help="tweets that come together (default 1)")
    how.add_argument(
        "--live", action="store_true", help="by the clock, as X: what nobody reads is missed"
    )
    how.add_argument(
        "--history",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="of the stream that lie before the start, for backfill and replays; with --live",
    )
    how.add_argument(
        "--chunking",
        type=_chunking,
        default="frame",
        help="frame (a tweet a chunk), read (16 KB), or a number of bytes (default frame)",
    )
    how.add_argument(
        "--keep-alive", type=float, default=20.0, help="seconds of silence until one (default 20)"
    )
    how.add_argument("--time-scale", type=float, default=1.0, help="factor for the server's times")
    how.add_argument(
        "--close-after", type=int, metavar="N", help="end every connection after N tweets"
    )
    how.add_argument("--packet", type=int, default=0, metavar="BYTES", help="sent at a time")
    account = parser.add_argument_group("account")
    account.add_argument(
        "--rule",
        dest="rules",
        action="append",
        default=[],
        metavar="RULE",
        help="of the filtered stream, to begin with; may be repeated",
    )
    account.add_argument(
        "--connections",
        type=int,
        default=1,
        metavar="N",
        help="streams a token may hold of an endpoint and partition at a time (default 1)",
    )
    account.add_argument(
        "--forget-after",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for which a connection that broke unnoticed is held yet (default 0)",
    )
    account.add_argument("--no-backfill", action="store_true", help="refuse backfill_minutes")
    account.add_argument(
        "--lenient",
        action="store_true",
        help="accept parameters, fields and expansions that X was not known to have",
    )
    account.add_argument(
        "--buffer",
        type=int,
        default=10_000,
        metavar="TWEETS",
        help="that wait for a slow client before it is cut off; with --live (default 10,000)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON object with the URL")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; the exit code.

    Raises:
        ConfigurationError: an option cannot work.
    """
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ConfigurationError("--tls-cert and --tls-key belong together")
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    with _serve(options) as simulator:
        # Anybody who reads the URL may end the process at once, so the handlers come first.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        _report_left_out(simulator.left_out)
        _announce(simulator, as_json=options.json)
        asked.wait()
        print(_summary(simulator), file=sys.stderr)
    return 0


def _serve(options: argparse.Namespace) -> Simulator:
    script: Script = ()
    if options.close_after is not None:
        if options.close_after < 0:
            raise ConfigurationError(f"--close-after {options.close_after}: give 0 or more")
        part = [Serve(options.close_after), Close()]
        script = lambda _: part  # noqa: E731 - one part for all
    return serve(
        options.host,
        options.port,
        rate=options.rate,
        burst=options.burst,
        live=options.live,
        history=options.history,
        seed=options.seed,
        size=options.size,
        names=options.names,
        source=options.source and Path(options.source),
        loop=options.loop,
        pace=options.pace,
        rules=options.rules,
        chunking=options.chunking,
        packet=options.packet,
        script=script,
        token=options.token,
        connections=options.connections,
        forget_after=options.forget_after,
        backfill=not options.no_backfill,
        buffer=options.buffer,
        strict=not options.lenient,
        keep_alive=options.keep_alive,
        time_scale=options.time_scale,
        http2=not options.http1_only,
        gzip=not options.no_gzip,
        tls=(options.tls_cert, options.tls_key) if options.tls_cert else None,
    )


def _announce(simulator: Simulator, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": simulator.url}), flush=True)
        return
    print(
        f"serving X's streams, rules and connections on {simulator.url} (Ctrl-C ends)\n"
        f"  RXTWEETS_BASE_URL={simulator.url} X_BEARER_TOKEN=any rxtweets run --live",
        flush=True,
    )


def _report_left_out(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if lines:
        print(f"lines left out {len(lines):,}", file=sys.stderr)


SHOWN = 10
"""Lines left out that are named; of more, only the number is said."""


def _summary(simulator: Simulator) -> str:
    return f"served {simulator.sent:,} tweets in {simulator.answered:,} requests"


def _rate(text: str) -> float | None:
    try:
        return None if text == "max" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give tweets a second, or max") from None


def _chunking(text: str) -> Chunking:
    names: dict[str, Chunking] = {"frame": "frame", "read": "read"}
    try:
        return names[text] if text in names else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give frame, read or bytes") from None
