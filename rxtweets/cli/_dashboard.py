"""The option ``--dashboard``: a page in the browser that shows the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rxtweets.cli._screen import Screen
from rxtweets.dashboard._cards import Card, PipelineCard
from rxtweets.dashboard._server import serve_cards

__all__ = ["add_dashboard", "dashboard", "pipeline_cards"]

PORT = 8600
HOST = "127.0.0.1"


def add_dashboard(parser: Any) -> None:
    """Add the option to a parser or a group of one."""
    text = f"show the run in a browser, on this machine; PORT is {PORT} if left out, 0 for any"
    parser.add_argument("--dashboard", nargs="?", type=int, const=PORT, metavar="PORT", help=text)


def pipeline_cards(pipeline: Any) -> list[Card]:
    """Return what the page shows of one pipeline."""
    return [PipelineCard(pipeline, "pipeline")]


@contextlib.contextmanager
def dashboard(port: int | None, screen: Screen, cards: Sequence[Card]) -> Iterator[None]:
    """Serve a page until the end of the block, unless the port is ``None``.

    Raises:
        ConfigurationError: the port is taken, or the extra is missing.
    """
    if port is None:
        yield
        return
    with serve_cards(cards, port, HOST) as page:
        screen.write(f"dashboard: {page.url}\n")
        yield
