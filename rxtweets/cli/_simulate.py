"""Serve a simulation of X's streams over HTTP.

Serve a simulation of X over HTTP, until Ctrl-C: all streams of X's API v2 (sample, sample10,
filtered, firehose and its languages, likes, compliance, labels, activity), the rules of the
filtered stream, and the connections API. In Python, rxtweets.simulator.serve() takes the same
options, and scripts of faults.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from rxtweets.api._options import BASE_URL_VARIABLE, TOKEN_VARIABLES
from rxtweets.cli._command import ENDED, add_flag, add_option, complain, write
from rxtweets.errors import ConfigurationError
from rxtweets.simulator._server import Script, Simulator, serve
from rxtweets.simulator.script import Close, Serve

__all__ = ["add_arguments"]

OWN = {"command", "arguments", "parser", "run", "json", "close_after", "tls_cert", "tls_key"}
"""Options of the command that `serve` does not have by the same name."""

MOST_SHOWN = 10
"""Lines of a recording that were left out and are shown; of more, only the number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    _add_server(parser.add_argument_group("where"))
    _add_content(parser.add_argument_group("content"))
    _add_delivery(parser.add_argument_group("how"))
    _add_account(parser.add_argument_group("account"))
    add_flag(parser.add_argument_group("output"), "--json", "print a JSON object with the URL")
    parser.set_defaults(run=run)


def _add_server(where: argparse._ArgumentGroup) -> None:
    add_option(where, "--host", "127.0.0.1", "address to listen on")
    add_option(where, "--port", 8080, "port to listen on; 0 takes a free one")
    add_option(where, "--tls-cert", None, "serve HTTPS with this certificate", metavar="FILE")
    add_option(where, "--tls-key", None, "the key of the certificate", metavar="FILE")
    add_flag(where, "--http1-only", "do not speak HTTP/2", clears="http2")
    add_flag(where, "--no-gzip", "do not compress", clears="gzip")
    add_option(where, "--token", None, "the only accepted bearer token (default: any)")


def _add_content(content: argparse._ArgumentGroup) -> None:
    text = "serve this recording: of rxtweets record, lines of X's stream, or pages of tweets"
    add_option(content, "--from", None, text, type=Path, dest="source", metavar="FILE")
    add_flag(content, "--loop", "start the recording again at its end")
    add_option(content, "--seed", 0, "seed of the simulated tweets")
    sizes, names = ("small", "large"), ("both", "tweet", "post")
    add_option(content, "--size", "small", "1 KB or 2.5 KB a tweet", choices=sizes)
    text = "generation of field names: retweet_count, repost_count, or both"
    add_option(content, "--names", "both", text, choices=names)


def _add_delivery(how: argparse._ArgumentGroup) -> None:
    add_option(how, "--rate", 50.0, "tweets a second, or max", type=_rate)
    text = "recorded: with the pauses of the recording, at any rate"
    add_option(how, "--pace", "rate", text, choices=("rate", "recorded"))
    add_option(how, "--burst", 1, "tweets sent together")
    add_flag(how, "--live", "tweets come by the clock, as on X: a disconnected client misses them")
    text = "seconds of the stream before the start, for backfill and replays; with --live"
    add_option(how, "--history", 0.0, text, metavar="SECONDS")
    text = "frame (a tweet a chunk), read (16 KB), or a number of bytes"
    add_option(how, "--chunking", "frame", text, type=_chunking)
    add_option(how, "--keep-alive", 20.0, "seconds of silence until a keep-alive")
    add_option(how, "--time-scale", 1.0, "factor for the server's times")
    text = "end every connection after N tweets"
    add_option(how, "--close-after", None, text, type=int, metavar="N")
    add_option(how, "--packet", 0, "bytes that are sent at a time; 0 for no limit", metavar="BYTES")


def _add_account(account: argparse._ArgumentGroup) -> None:
    text = "a rule of the filtered stream at the start; may be repeated"
    account.add_argument(
        "--rule", dest="rules", action="append", default=[], metavar="RULE", help=text
    )
    text = "connections of an endpoint and partition that a token may hold"
    add_option(account, "--connections", 1, text, metavar="N")
    text = "how long a connection counts as open after it broke unnoticed"
    add_option(account, "--forget-after", 0.0, text, metavar="SECONDS")
    add_flag(account, "--no-backfill", "refuse backfill_minutes", clears="backfill")
    text = "accept parameters, fields and expansions that X does not have"
    add_flag(account, "--lenient", text, clears="strict")
    text = "tweets that wait for a slow client before it is disconnected; with --live"
    add_option(account, "--buffer", 10_000, text, metavar="TWEETS")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    Raises:
        ConfigurationError: an option is invalid.
    """
    signalled = threading.Event()
    with _serve(options) as simulator:
        # A program that reads the URL may send a signal immediately, so the handlers come first.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: signalled.set())
        report_left_out(simulator.left_out)
        if options.json:
            write(json.dumps({"url": simulator.url}))
        else:
            variables = f"{BASE_URL_VARIABLE}={simulator.url} {TOKEN_VARIABLES[0]}=any"
            write(
                f"serving X's streams, rules and connections on {simulator.url} (Ctrl-C ends)",
                f"  {variables} rxtweets run --live",
            )
        signalled.wait()
        complain(f"served {simulator.sent:,} tweets in {simulator.answered:,} requests")
    return ENDED


def _serve(options: argparse.Namespace) -> Simulator:
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ConfigurationError("--tls-cert and --tls-key belong together")
    script: Script = ()
    if options.close_after is not None:
        if options.close_after < 1:
            raise ConfigurationError(f"--close-after {options.close_after}: give 1 or more")
        part = [Serve(options.close_after), Close()]
        script = lambda _: part  # noqa: E731 - the same part for every connection
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None
    given = {name: value for name, value in vars(options).items() if name not in OWN}
    return serve(script=script, tls=tls, **given)


def report_left_out(lines: Sequence[str]) -> None:
    """Report the lines of a recording that are not served."""
    complain(*(f"left out: {line}" for line in lines[:MOST_SHOWN]))
    if lines:
        complain(f"lines left out {len(lines):,}")


def _rate(text: str) -> float | None:
    try:
        return None if text == "max" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give tweets a second, or max") from None


def _chunking(text: str) -> str | int:
    try:
        return text if text in {"frame", "read"} else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give frame, read or bytes") from None
