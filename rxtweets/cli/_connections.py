"""The command ``rxtweets connections``: what X holds for the token, and giving it up."""

from __future__ import annotations

import argparse
import json
import sys

from rxtweets.api._connections import Connections, HeldConnection
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.cli._server import add_server_argument, server_options
from rxtweets.display._text import clean

__all__ = ["add_arguments"]

DESCRIPTION = """\
The connections that X holds for the token's app. X forgets one that vanished only after minutes,
and refuses the next one until then (TooManyConnections); to free it is the cure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below this one."""
    parser.description = DESCRIPTION
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="the connections", description="The connections.")
    listing.add_argument("endpoints", nargs="*", metavar="STREAM", help="such as filtered_stream")
    listing.add_argument(
        "--status", default="active", help="active, inactive or all (default active)"
    )
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    add_server_argument(listing)
    listing.set_defaults(run=_list)
    freeing = commands.add_parser(
        "free",
        help="make X give up connections, those in use too",
        description="Make X give up the connections of streams, those in use too.",
        epilog=f"streams: {', '.join(ENDPOINTS)}",
    )
    freeing.add_argument("endpoints", nargs="+", metavar="STREAM", help="a stream, or all")
    add_server_argument(freeing)
    freeing.set_defaults(run=_free)


def _list(options: argparse.Namespace) -> int:
    connections = Connections(**server_options(options))
    for held in connections.list(options.status, options.endpoints):
        line = json.dumps(_as_dict(held)) if options.json else _as_line(held)
        sys.stdout.write(f"{line}\n")
    return 0


def _free(options: argparse.Namespace) -> int:
    connections = Connections(**server_options(options))
    if "all" in options.endpoints:
        freed = connections.free_all()
    else:
        freed = sum(connections.free(endpoint) for endpoint in options.endpoints)
    sys.stdout.write(f"{freed} connection(s) freed\n")
    return 0


def _as_dict(held: HeldConnection) -> dict[str, str | None]:
    times = {
        name: None if at is None else at.isoformat()
        for name, at in (
            ("connected_at", held.connected_at),
            ("disconnected_at", held.disconnected_at),
        )
    }
    about = {"id": held.id, "endpoint": held.endpoint, "client_ip": held.client_ip}
    return {**about, **times, "disconnect_reason": held.disconnect_reason}


def _as_line(held: HeldConnection) -> str:
    since = "?" if held.connected_at is None else f"{held.connected_at:%Y-%m-%d %H:%M:%S}"
    parts = [held.id, held.endpoint, held.client_ip, f"since {since}"]
    if held.disconnected_at is not None:
        parts.append(f"until {held.disconnected_at:%Y-%m-%d %H:%M:%S} {held.disconnect_reason}")
    return "\t".join(map(clean, parts))
