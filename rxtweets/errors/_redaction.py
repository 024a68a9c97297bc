"""Masks secrets in texts with data of a server, which can send back a request."""

from __future__ import annotations

import html
import logging
import re
from types import TracebackType
from typing import AnyStr
from urllib.parse import unquote
from weakref import ref

__all__ = ["MASK", "Secret", "mask", "mask_logs", "without_secrets"]

MASK = "***"

SHORTEST = 6
"""Characters; a shorter secret may be a common word. X's tokens have more than a hundred."""

LONG = 16
"""Characters; more than a word has. A secret that is cut off is masked from this length on."""

LOGGERS = (
    "httpx",
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
    "hpack.table",
)
"""Loggers of URLs; at level DEBUG also of heads of answers and of the user of a SOCKS proxy."""


class Secret:
    """A secret that `mask` hides as long as this object exists.

    Args:
        text: the secret; characters may be percent-encoded.
    """

    __slots__ = ("__weakref__", "_head", "_head_of_bytes", "_rest", "_whole", "length")

    def __init__(self, text: str) -> None:
        written = re.findall(r"%[0-9A-Fa-f]{2}|.", text, re.DOTALL)
        ways = [_ways_of(part, is_within=at > 0) for at, part in enumerate(written)]
        head = "".join(ways[:LONG])
        self.length = len(ways)
        self._whole = re.compile("".join(ways))
        self._head = re.compile(head)
        self._head_of_bytes = re.compile(head.encode())
        self._rest = [re.compile(way) for way in ways[LONG:]]
        if self.length >= SHORTEST:
            key = id(self)
            _known[key] = ref(self, lambda _: _known.pop(key, None))

    def masked(self, text: AnyStr) -> AnyStr:
        """Return the text with the secret masked; the same object if it has none."""
        if isinstance(text, bytes):
            if self._head_of_bytes.search(text) is None:
                return text
            decoded = text.decode(errors="surrogateescape")
            return self._masked(decoded).encode(errors="surrogateescape")
        return text if self._head.search(text) is None else self._masked(text)

    def _masked(self, text: str) -> str:
        text = self._whole.sub(MASK, text)
        parts, position = [], 0
        while self._rest and (found := self._head.search(text, position)):
            parts += [text[position : found.start()], MASK]
            position = found.end()
            for way in self._rest:
                more = way.match(text, position)
                if more is None:
                    break
                position = more.end()
        return "".join([*parts, text[position:]])


_known: dict[int, ref[Secret]] = {}
"""By id. Without a lock, because a log call in a finalizer or a forked process could deadlock."""


def mask(text: AnyStr, at_least: int = SHORTEST) -> AnyStr:
    """Return the text with all secrets masked, in every common encoding of their characters.

    Args:
        text: or bytes.
        at_least: characters of a secret; shorter ones are not masked.
    """
    for known in list(_known.values()):
        secret = known()
        if secret is not None and secret.length >= at_least:
            text = secret.masked(text)
    return text


def without_secrets(error: BaseException) -> BaseException:
    """Mask an error of another library and its causes in place; return it.

    Also removes the holders of headers: the request of an httpx error, and the frames of other
    packages from tracebacks.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        cause.args = tuple(_masked_argument(argument) for argument in cause.args)
        cause.__traceback__ = _own_part(cause.__traceback__)
        if hasattr(cause, "_request"):
            cause._request = None  # noqa: SLF001 - the property of httpx raises without a request
        pending += [cause.__cause__, cause.__context__]
    return error


def _own_part(traceback: TracebackType | None) -> TracebackType | None:
    if traceback is None or not _is_ours(traceback):
        return None
    last = traceback
    while last.tb_next is not None and _is_ours(last.tb_next):
        last = last.tb_next
    last.tb_next = None
    return traceback


def _is_ours(traceback: TracebackType) -> bool:
    return str(traceback.tb_frame.f_globals.get("__name__")).startswith("rxtweets.")


def _masked_argument(argument: object) -> object:
    if isinstance(argument, str):
        return mask(argument)
    text = repr(argument)
    masked = mask(text)
    return argument if masked == text else masked


def mask_logs() -> None:
    """Mask the log of httpx and httpcore; drop that of hpack, which has each header field."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_mask_record)
    logging.getLogger("hpack.hpack").addFilter(_refuse)


def _mask_record(record: logging.LogRecord) -> bool:
    record.msg = re.sub(r"\bauth=\(.*?\)", f"auth={MASK}", mask(record.getMessage()))
    record.args = ()
    return True


def _refuse(_record: logging.LogRecord) -> bool:
    return False


def _ways_of(written: str, *, is_within: bool) -> str:
    r"""Return a pattern of a character in its common encodings: ``+ %2B \u002b &#43;``."""
    if len(written) == 1 and written.isalnum():
        return written
    character = unquote(written, "latin-1")
    code = f"(?i:{ord(character):02x})"
    # A search from within a run of backslashes would take quadratic time.
    run = r"\\" if is_within else r"(?<!\\)\\"
    ways = [
        rf"(?:{run}+)?{re.escape(character)}",
        rf"%(?:25)*{code}",
        rf"{run}+u00{code}",
        rf"&#0*{ord(character)};",
        rf"&#[xX]0*{code};",
    ]
    if html.escape(character) != character:
        ways.append(html.escape(character))
    if character == "+":
        ways.append(" ")  # decoded as a form
    return f"(?:{'|'.join(ways)})"
