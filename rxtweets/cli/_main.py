"""The X (Twitter) API v2 stream as a hot Observable, composed with RxPY.

Without a token, everything runs against a simulator of X's stream, over real HTTP:

  rxtweets run                       tweets from a simulator, in batches
  rxtweets run --live                tweets from X; needs a token
  rxtweets simulate --port 8080      a simulator for your own programs

To handle a stream in several processes, put a durable queue between:

  rxtweets ingest sqlite:tweets.queue
  rxtweets work sqlite:tweets.queue --store jsonl:tweets.jsonl --processes 2
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rxtweets.api._options import BASE_URL_VARIABLE
from rxtweets.cli import (
    _backlog,
    _bench,
    _completion,
    _connections,
    _dead,
    _ingest,
    _record,
    _replay,
    _rules,
    _run,
    _simulate,
    _tail,
    _work,
)
from rxtweets.cli._command import ABANDONED, ENDED, EXIT_CODES, FAILED, USAGE, complain, log_to
from rxtweets.cli._sources import TOKEN_NAMES
from rxtweets.errors import ConfigurationError, QueueMissing, RxTweetsError
from rxtweets.errors._redaction import MASK

__all__ = ["main"]

COMMANDS = {
    "run": _run,
    "simulate": _simulate,
    "rules": _rules,
    "connections": _connections,
    "tail": _tail,
    "record": _record,
    "replay": _replay,
    "ingest": _ingest,
    "work": _work,
    "backlog": _backlog,
    "dead": _dead,
    "bench": _bench,
    "completion": _completion,
}
"""Each module has its help as docstring, and ``add_arguments(parser)``, which sets ``run``."""


ENVIRONMENT = f"""\
The token for X comes from {TOKEN_NAMES}, another server from
{BASE_URL_VARIABLE}. No command prints the token.
"""


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong option in one line; takes options before, between and after arguments."""

    _is_mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the options, then the arguments."""
        if self._is_mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_mixing = False

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(USAGE, without_users(f"{self.prog}: {message}; see {self.prog} --help\n"))


def without_users(text: str) -> str:
    """Return the text without the user and the password of each URL in it."""
    return re.sub(r"(?<=://)[^\s'\"]*@", f"{MASK}@", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Args:
        arguments: by default those of the command line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    parsed, unknown = parser.parse_known_args(given)
    parsed.arguments, parsed.parser = given, parser
    if unknown:
        name = " ".join(filter(None, ("rxtweets", parsed.command)))
        text = f"{name}: unrecognized arguments: {' '.join(unknown)}; see {name} --help\n"
        parser.exit(USAGE, without_users(text))
    if parsed.run is None:
        parser.print_help()
        return ENDED
    if sys.stdout is None:  # Python's sign that it is closed
        complain(
            "rxtweets: standard output is closed; to print nothing, redirect it to the null device"
        )
        return USAGE
    try:
        with log_to(sys.stderr):
            return int(parsed.run(parsed))
    except (ConfigurationError, QueueMissing) as error:
        complain(f"rxtweets: {error}")
        return USAGE
    except (RxTweetsError, OSError) as error:
        complain(f"rxtweets: {error}")
        return FAILED
    except KeyboardInterrupt:
        return ABANDONED


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        prog="rxtweets",
        description=f"{__doc__}\n{ENVIRONMENT}",
        epilog=EXIT_CODES,
        formatter_class=raw,
    )
    version = importlib.metadata.version("rxtweets")
    parser.add_argument("--version", action="version", version=f"rxtweets {version}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, module in COMMANDS.items():
        summary, _, description = (module.__doc__ or "").partition("\n\n")
        command = commands.add_parser(
            name,
            help=f"{summary[:1].lower()}{summary[1:].rstrip('.')}",
            description=description,
            epilog=getattr(module, "EPILOG", None),
            formatter_class=raw,
        )
        module.add_arguments(command)
    return parser
