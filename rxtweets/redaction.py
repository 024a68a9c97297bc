"""Keeps bearer tokens out of the logs of the libraries that carry them."""

from __future__ import annotations

import logging

__all__ = ["hide_tokens_from_logs"]


def hide_tokens_from_logs() -> None:
    """Drop what hpack writes at level DEBUG: every header field it packs, the token among them."""
    logging.getLogger("hpack.hpack").addFilter(_refuse)


def _refuse(_record: logging.LogRecord) -> bool:
    return False
