"""Masks secrets in texts that are made of what a server sent: it can send back what it was sent."""

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
"""Characters; a shorter one is a word of other texts too. X's tokens have more than a hundred."""

LONG = 16
"""Characters that are no word. A cut-off secret is masked from so many of its characters on."""

LOGGERS = (
    "httpx",
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
    "hpack.table",
)
"""They write URLs, and at level DEBUG the heads of answers and the user of a SOCKS proxy."""


class Secret:
    """A secret, masked in every text for as long as this object lives.

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
        """The text without the secret, the same object where it is not in it."""
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
"""By id. Without a lock: a log call in a finalizer, or in a forked process, could hang on one."""


def mask(text: AnyStr, at_least: int = SHORTEST) -> AnyStr:
    """The text with all secrets masked, however a program has encoded their characters.

    Args:
        text: or bytes.
        at_least: characters of a secret; shorter ones are left.
    """
    for known in list(_known.values()):
        secret = known()
        if secret is not None and secret.length >= at_least:
            text = secret.masked(text)
    return text


def without_secrets(error: BaseException) -> BaseException:
    """The same error of another library: masked, as are its causes, and without what holds headers.

    Which are the request of an error of httpx, and frames of tracebacks that are not ours.
    """
    pending, seen = [error], set()
    while pending:
        each = pending.pop()
        seen.add(id(each))
        each.args = tuple(_masked_argument(argument) for argument in each.args)
        each.__traceback__ = _own_part(each.__traceback__)
        if hasattr(each, "_request"):
            each._request = None  # noqa: SLF001 - httpx's own property raises where there is none
        causes = (each.__cause__, each.__context__)
        pending += [cause for cause in causes if cause is not None and id(cause) not in seen]
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
    """Mask what httpx and its kin log; drop what hpack logs: each header field that it packs."""
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
    r"""A pattern of a character, in the ways that programs write it: ``+ %2B \u002b &#43;``."""
    if len(written) == 1 and written.isalnum():
        return written
    character = unquote(written, "latin-1")
    code = f"(?i:{ord(character):02x})"
    # With no search from the middle of a run of backslashes: that would be quadratic in its length.
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
        ways.append(" ")  # as forms are decoded
    return f"(?:{'|'.join(ways)})"
