"""What an answer that is no stream means: status, headers and body become a typed error.

A 429 alone has three causes, told apart by the body. The bodies are those of X's documentation
("response codes and errors") and of public reports; problem types come under two prefixes
(``api.twitter.com`` and ``api.x.com``), so only their last segment is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import orjson

from rxtweets import errors
from rxtweets.errors._redaction import mask

__all__ = ["error_in_stream", "error_of_response", "is_web_page", "shown", "unexpected_answer"]


MAX_BODY = 65_536
"""Bytes of an unexpected answer that its error keeps."""


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> errors.ResponseError:
    """The error that says what happened and what to do next.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        body: as much of it as was read.
    """
    body = mask(body)  # before it is cut
    problem = _problem(body)
    # A problem in an answer of 200 is X's own way to refuse.
    if (advice := _unexpected(status, headers)) and not (problem and status == 200):
        return unexpected_answer(status, headers, body, advice)
    said = _said(status, headers, body)
    kind, advice = _classify(status, problem, said)
    if is_web_page(headers) and 400 <= status < 500:
        advice += " As a web page came with it, a proxy or a firewall may have answered."
    message = f"{status}: {said}. {advice}"
    if asked := headers.get("retry-after"):
        message += f" The server asks to wait (Retry-After: {asked[:40]!r})."
    return kind(message, status, body.decode(errors="replace"), headers)


def unexpected_answer(
    status: int, headers: Mapping[str, str], body: bytes, advice: str
) -> errors.UnexpectedAnswerError:
    """The error of an answer that X's API does not give.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        body: as much of it as was read.
        advice: what to do.
    """
    body = mask(body[:MAX_BODY])  # before it is cut to what is shown
    text = f"{status}: {_said(status, headers, body)}. {advice}"
    return errors.UnexpectedAnswerError(text, status, body.decode(errors="replace"), headers)


def is_web_page(headers: Mapping[str, str]) -> bool:
    """Whether the body is HTML."""
    return headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml"))


def error_in_stream(
    problem: Mapping[str, Any], headers: Mapping[str, str]
) -> errors.ServerDisconnect | errors.ResponseError:
    """The error of a problem that came as a line of the stream, in an answer of 200.

    Mostly X announces a disconnect so. Some problems are those of an answer that refuses the
    stream, and are treated as if they had come so: the token holds its connection already, the
    cap is used up.

    Args:
        problem: the object of the line, or the one in its ``errors``.
        headers: of the answer, names in lower case; it may have come hours ago.
    """
    headers = {name: headers[name] for name in headers if name not in {"date", "retry-after"}}
    said = shown(_sentence(dict(problem)), 500)
    issue = str(problem.get("connection_issue") or "")
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    status = problem.get("status")
    if not isinstance(status, int) or isinstance(status, bool) or status < 300:
        status = {"usage-capped": 429, "client-forbidden": 403, "rate-limit-exceeded": 429}.get(
            last, 401 if last == "unsupported-authentication" else 0
        )
    if issue in RULE_ISSUES:
        status = 409
    if status or issue:
        kind, advice = _classify(status or 429, dict(problem), said)
        body = orjson.dumps(dict(problem)).decode()
        return kind(f"{said or issue}, said the stream. {advice}", 200, body, headers)
    named = str(problem.get("disconnect_type") or problem.get("title") or "")
    return errors.ServerDisconnect(f"the server disconnects ({shown(named)}): {said}", named)


RULE_ISSUES = {"RuleConfigurationIssue", "RulesInvalidIssue"}


def _classify(  # noqa: PLR0911 - a return a cause
    status: int, problem: dict[str, Any], said: str
) -> tuple[type[errors.ResponseError], str]:
    issue = str(problem.get("connection_issue"))
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    if last == "unsupported-authentication":
        return KINDS[401]
    if issue == "ProvisioningSubscription" or "being provisioned" in said:
        return errors.ProvisioningError, "The subscription is being changed; X asks for a minute."
    if issue == "TooManyConnections":
        return errors.ConnectionLimitError, (
            "The token's connection is in use, or X has not noticed yet that an old one is gone; "
            "stop the other program, or wait."
        )
    if last == "usage-capped" or problem.get("title") == "UsageCapExceeded":
        return errors.UsageCapError, (
            "The account's cap of posts is used up; raise it or wait for the next period."
        )
    if issue in RULE_ISSUES:
        return KINDS[409]
    if status in KINDS:
        return KINDS[status]
    if status >= 500:
        return errors.ServerError, "The trouble is on the other side; trying again later helps."
    return errors.ResponseError, "The request itself was refused; check its options."


def _said(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What the server said: the sentence of a problem, or how the body begins, with its type."""
    if said := shown(_sentence(_problem(body)), 500).rstrip("."):
        return said
    begin = shown(body[:800].decode(errors="replace")).rstrip(".")
    if not begin:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return f"{phrase}, without a body" if phrase else "an answer without a body"
    kind = shown(headers.get("content-type", ""), 60)
    return f"{begin} ({kind})" if kind else begin


def _unexpected(status: int, headers: Mapping[str, str]) -> str:
    """What to do after an answer that X's API does not give; empty if it may give that one."""
    if 300 <= status < 400:
        return f"{_redirect(headers.get('location', ''))} {NOT_FOLLOWED}"
    if status == 511 or (200 <= status < 300 and is_web_page(headers)):
        return WEB_PAGE
    if status < 200 or 200 < status < 300:
        return (
            "X answers a stream with 200; something else answered: check base_url and the network."
        )
    return ""


def _redirect(location: str) -> str:
    """Where to, without path and query: they may hold what is nobody's business."""
    try:
        target = urlsplit(location)
        host, port = target.hostname or "", target.port
    except ValueError:
        return "A redirect to a target that is no URL."
    if host:
        where = shown(f"[{host}]" if ":" in host else host, 100) + (f":{port}" if port else "")
        scheme = f"{shown(target.scheme, 20)}:" if target.scheme else ""
        return f"A redirect to {scheme}//{where}."
    return "A redirect to the same host." if location else "A redirect without a target."


NOT_FOLLOWED = (
    "Redirects are not followed, as the token would go along: set base_url if X's API is there, or "
    "log in to this network if the target is its login page."
)

WEB_PAGE = (
    "A web page is no answer of X's API. It may be the login page of this network: open a browser "
    "and log in. Else correct base_url."
)


RATE_LIMITED = "Too many in this window; it ends at x-rate-limit-reset."

KINDS: Mapping[int, tuple[type[errors.ResponseError], str]] = {
    401: (
        errors.AuthenticationError,
        "Check the bearer token: X_BEARER_TOKEN, or token=; it is the app-only one.",
    ),
    403: (
        errors.AccessError,
        "The app of this token needs access to this; see the developer portal.",
    ),
    404: (errors.ResponseError, "There is no such thing on this server; check base_url."),
    409: (errors.RulesError, "Add a rule to the filtered stream first."),
    420: (errors.RateLimitError, RATE_LIMITED),
    429: (errors.RateLimitError, RATE_LIMITED),
}


def shown(text: str, most: int = 200) -> str:
    """What others sent, fit for an error: on one line, shortened, control characters escaped."""
    line = " ".join(text[: most * 4].split())
    line = line if len(line) <= most else f"{line[:most]}…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


def _problem(body: bytes) -> dict[str, Any]:
    """The problem of the answer; what its first part says is taken where itself says nothing."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(value, dict):
        return {}
    parts = value.get("errors")
    first = parts[0] if isinstance(parts, list) and parts else None
    return {**first, **value} if isinstance(first, dict) else value


def _sentence(problem: dict[str, Any]) -> str:
    title, detail = problem.get("title"), problem.get("detail")
    parts = [str(part).rstrip(".") for part in (title, detail, problem.get("message")) if part]
    return ": ".join(dict.fromkeys(parts))
