"""The connections that X holds.

The connections that X holds for the token's app. X forgets a connection that vanished only after
minutes, and refuses the next one until then (TooManyConnections). To avoid the wait, free it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime

from rxtweets.api._connections import Connections, HeldConnection
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.cli._command import ENDED, add_flag, add_option, write
from rxtweets.cli._sources import add_server, server_options
from rxtweets.display._text import clean

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="list them", description="List the connections.")
    listing.add_argument("endpoints", nargs="*", metavar="STREAM", help="such as filtered_stream")
    add_option(listing, "--status", "active", "active, inactive or all")
    add_flag(listing, "--json", "print a JSON object a line")
    add_server(listing)
    listing.set_defaults(run=_list)
    freeing = commands.add_parser(
        "free",
        help="make X end connections, also those in use",
        description="Make X end the connections of streams, also those in use.",
        epilog=f"streams: {', '.join(ENDPOINTS)}",
    )
    freeing.add_argument("endpoints", nargs="+", metavar="STREAM", help="a stream, or all")
    add_server(freeing)
    freeing.set_defaults(run=_free)


def _list(options: argparse.Namespace) -> int:
    connections = Connections(**server_options(options))
    for held in connections.list(options.status, options.endpoints):
        as_json = json.dumps(asdict(held), default=datetime.isoformat)
        write(as_json if options.json else _as_line(held))
    return ENDED


def _free(options: argparse.Namespace) -> int:
    connections = Connections(**server_options(options))
    if "all" in options.endpoints:
        freed = connections.free_all()
    else:
        freed = sum(connections.free(endpoint) for endpoint in options.endpoints)
    write(f"{freed} connection(s) freed")
    return ENDED


def _as_line(held: HeldConnection) -> str:
    since = "?" if held.connected_at is None else f"{held.connected_at:%Y-%m-%d %H:%M:%S}"
    parts = [held.id, held.endpoint, held.client_ip, f"since {since}"]
    if held.disconnected_at is not None:
        parts.append(f"until {held.disconnected_at:%Y-%m-%d %H:%M:%S} {held.disconnect_reason}")
    return "\t".join(map(clean, parts))
