"""Which server a command talks to, and with what token."""

from __future__ import annotations

import argparse
import os

from rxtweets.api._options import ServerOptions

__all__ = ["STAND_IN", "add_server_argument", "server_options", "stand_in_token"]

STAND_IN = "simulated"
"""Servers that are not X want some token, and take any."""


def add_server_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--base-url``."""
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="ask this server instead of X; the token comes from X_BEARER_TOKEN or "
        "TWITTER_BEARER_TOKEN",
    )


def server_options(options: argparse.Namespace) -> ServerOptions:
    """X with the token of the environment, or a named server, which needs but some token."""
    base_url = options.base_url or os.environ.get("RXTWEETS_BASE_URL")
    if not base_url:
        return ServerOptions()
    return ServerOptions(base_url=base_url, **stand_in_token())


def stand_in_token() -> ServerOptions:
    """What a server that is not X is told: the user's own token only if there is one."""
    known = any(os.environ.get(name) for name in ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN"))
    return ServerOptions() if known else ServerOptions(token=STAND_IN)
