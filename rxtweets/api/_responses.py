"""Typed errors for answers that are not streams.

A 429 has three causes, which only the body distinguishes. Sources: X's page "response codes and
errors" and public reports. Problem types have two prefixes (``api.twitter.com`` and ``api.x.com``),
so only their last segment is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import orjson

from rxtweets import errors
from rxtweets._support.json_objects import parsed_object
from rxtweets.errors._redaction import mask

__all__ = ["error_in_stream", "error_of_response", "is_web_page", "shown", "unexpected_answer"]

MAX_BODY = 65_536
"""Bytes of an unexpected answer that its error keeps."""

KINDS: Mapping[int | str, type[errors.ResponseError]] = {
    401: errors.AuthenticationError,
    "unsupported-authentication": errors.AuthenticationError,
    403: errors.AccessError,
    "client-forbidden": errors.AccessError,
    409: errors.RulesError,
    "RuleConfigurationIssue": errors.RulesError,
    "RulesInvalidIssue": errors.RulesError,
    420: errors.RateLimitError,
    429: errors.RateLimitError,
    "rate-limit-exceeded": errors.RateLimitError,
    "TooManyConnections": errors.ConnectionLimitError,
    "usage-capped": errors.UsageCapError,
    "UsageCapExceeded": errors.UsageCapError,
    "ProvisioningSubscription": errors.ProvisioningError,
    **dict.fromkeys(range(500, 1000), errors.ServerError),
}
"""By HTTP status, or by the ``connection_issue``, the type or the title of a problem."""

ADVICE: Mapping[type[errors.ResponseError] | int, str] = {
    errors.AuthenticationError: "Check X_BEARER_TOKEN or token=; it is the app-only bearer token.",
    errors.AccessError: "The app of this token needs access to this; see the developer portal.",
    errors.RulesError: "Add a rule to the filtered stream first.",
    errors.RateLimitError: "Too many in this window; it ends at x-rate-limit-reset.",
    errors.ConnectionLimitError: "The token's connection is in use, or X has not yet closed a lost "
    "one; stop the other program, or wait.",
    errors.UsageCapError: "The cap of posts is reached; raise it or wait for the next period.",
    errors.ProvisioningError: "The subscription is changing; X asks to wait a minute.",
    errors.ServerError: "The server failed; trying again later helps.",
    404: "This server does not have this path; check base_url.",
    errors.ResponseError: "The request itself was refused; check its options.",
}
"""The end of the text of each error, by status or class; a status comes first."""

NOT_FOLLOWED = (
    "Redirects are not followed, because the token would be sent along: set base_url if X's API is "
    "there, or log in to this network if the target is its login page."
)

WEB_PAGE = (
    "A web page is no answer of X's API. It may be the login page of this network: open a browser "
    "and log in. Else correct base_url."
)


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> errors.ResponseError:
    """Make the error of a refusal; its text ends with advice.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        body: the received part of the body.
    """
    body = mask(body)  # before it is cut
    problem = _problem(body)
    # X refuses with a problem in an answer of 200 too.
    if (advice := _unexpected(status, headers)) and not (problem and status == 200):
        return unexpected_answer(status, headers, body, advice)
    said = _said(status, headers, body)
    kind = _named(problem, said) or KINDS.get(status, errors.ResponseError)
    advice = ADVICE.get(status) or ADVICE[kind]
    if is_web_page(headers) and 400 <= status < 500:
        advice += " As a web page came with it, a proxy or a firewall may have answered."
    message = f"{status}: {said}. {advice}"
    if asked := headers.get("retry-after"):
        message += f" The server asks to wait (Retry-After: {asked[:40]!r})."
    return kind(message, status, body.decode(errors="replace"), headers)


def unexpected_answer(
    status: int, headers: Mapping[str, str], body: bytes, advice: str
) -> errors.UnexpectedAnswerError:
    """Make the error of an answer that X's API does not give.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        body: the received part of the body.
        advice: the next step, for the end of the text.
    """
    body = mask(body[:MAX_BODY])  # before it is cut to the shown part
    text = f"{status}: {_said(status, headers, body)}. {advice}"
    return errors.UnexpectedAnswerError(text, status, body.decode(errors="replace"), headers)


def error_in_stream(
    problem: Mapping[str, Any], headers: Mapping[str, str]
) -> errors.ServerDisconnect | errors.ResponseError:
    """Make the error of a problem that X sent as a line of the stream.

    X announces disconnects this way. It also sends problems that otherwise come with a status, such
    as ``TooManyConnections``; they become the error of that status.

    Args:
        problem: the object of the line, or the one in its ``errors``.
        headers: of the answer, names in lower case; it may be hours old.
    """
    headers = {name: headers[name] for name in headers if name not in {"date", "retry-after"}}
    problem = dict(problem)
    said = shown(_sentence(problem), 500)
    issue = str(problem.get("connection_issue") or "")
    status: Any = problem.get("status")
    is_status = isinstance(status, int) and not isinstance(status, bool) and status >= 300
    kind = _named(problem, said)
    if kind is None and (is_status or issue):
        kind = KINDS.get(status if is_status else 429, errors.ResponseError)
    if kind is None:
        named = str(problem.get("disconnect_type") or problem.get("title") or "")
        return errors.ServerDisconnect(f"the server disconnects ({shown(named)}): {said}", named)
    text = f"{said or issue}. X sent this in the stream. {ADVICE[kind]}"
    return kind(text, 200, orjson.dumps(problem).decode(), headers)


def is_web_page(headers: Mapping[str, str]) -> bool:
    """Return whether the body is HTML."""
    return headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml"))


def shown(text: str, most: int = 200) -> str:
    """Return a server's text for an error: one line, shortened, control characters escaped."""
    line = " ".join(text[: most * 4].split())
    line = line if len(line) <= most else f"{line[:most]}…"
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in line
    )


def _named(problem: dict[str, Any], said: str) -> type[errors.ResponseError] | None:
    if "being provisioned" in said:
        return errors.ProvisioningError
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    names = (str(problem.get("connection_issue")), last, str(problem.get("title")))
    return next((KINDS[name] for name in names if name in KINDS), None)


def _said(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if said := shown(_sentence(_problem(body)), 500).rstrip("."):
        return said
    start = shown(body[:800].decode(errors="replace")).rstrip(".")
    if not start:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return f"{phrase}, without a body" if phrase else "an answer without a body"
    kind = shown(headers.get("content-type", ""), 60)
    return f"{start} ({kind})" if kind else start


def _unexpected(status: int, headers: Mapping[str, str]) -> str:
    """Return the advice for an answer that X's API does not give; empty for other answers."""
    if 300 <= status < 400:
        return f"A redirect {_target(headers.get('location', ''))}. {NOT_FOLLOWED}"
    if status == 511 or (200 <= status < 300 and is_web_page(headers)):
        return WEB_PAGE
    if status < 200 or 200 < status < 300:
        return "X answers a stream with 200: check base_url and the network."
    return ""


def _target(location: str) -> str:
    # Path and query can hold secrets.
    try:
        target = urlsplit(location)
        host, port = target.hostname or "", target.port
    except ValueError:
        return "to a target that is no URL"
    if not host:
        return "to the same host" if location else "without a target"
    scheme = f"{shown(target.scheme, 20)}:" if target.scheme else ""
    where = shown(f"[{host}]" if ":" in host else host, 100)
    return f"to {scheme}//{where}" + (f":{port}" if port else "")


def _problem(body: bytes) -> dict[str, Any]:
    """Return the problem of an answer, completed by the first of its ``errors``."""
    value = parsed_object(body)
    parts = value.get("errors")
    first = parts[0] if isinstance(parts, list) and parts else None
    return {**first, **value} if isinstance(first, dict) else value


def _sentence(problem: dict[str, Any]) -> str:
    parts = [problem.get(name) for name in ("title", "detail", "message")]
    return ": ".join(dict.fromkeys(str(part).rstrip(".") for part in parts if part))
