"""What an answer that is no stream means: status, headers and body become a typed error.

A 429 alone has three causes, told apart by the body. The bodies are those of X's documentation
("response codes and errors") and of public reports; problem types come under two prefixes
(``api.twitter.com`` and ``api.x.com``), so only their last segment is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from rxtweets import errors

__all__ = ["error_of_response"]


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> errors.ResponseError:
    """The error that says what happened and what to do next.

    Args:
        status: the HTTP status, anything but 200.
        headers: names in lower case.
        body: as much of it as was read.
    """
    problem = _problem(body)
    said = _sentence(problem) or " ".join(body[:200].decode(errors="replace").split()).rstrip(".")
    kind, advice = _classify(status, problem, said)
    message = f"{status}: {said or 'no explanation given'}. {advice}"
    return kind(message, status, body.decode(errors="replace"), headers)


def _classify(  # noqa: PLR0911 - a return a cause
    status: int, problem: dict[str, Any], said: str
) -> tuple[type[errors.ResponseError], str]:
    issue = problem.get("connection_issue")
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    if issue == "ProvisioningSubscription" or "being provisioned" in said:
        return errors.ProvisioningError, "The subscription is being changed; waiting a minute."
    if issue == "TooManyConnections":
        return errors.ConnectionLimitError, (
            "The token's connection is in use, or X has not noticed yet that an old one is gone; "
            "stop the other program, or wait."
        )
    if last == "usage-capped" or problem.get("title") == "UsageCapExceeded":
        return errors.UsageCapError, (
            "The account's cap of posts is used up; raise it or wait for the next period."
        )
    if status in KINDS:
        return KINDS[status]
    if status >= 500:
        return errors.ServerError, "The trouble is on the other side; trying again."
    if 300 <= status < 400:
        return errors.ResponseError, "Redirects are not followed; correct base_url."
    return errors.ResponseError, "The request itself was refused; check the options of the stream."


KINDS: Mapping[int, tuple[type[errors.ResponseError], str]] = {
    401: (
        errors.AuthenticationError,
        "Check the bearer token: X_BEARER_TOKEN, or token=; it is the app-only one.",
    ),
    403: (
        errors.AccessError,
        "The app of this token needs access to this stream; see the developer portal.",
    ),
    404: (errors.ResponseError, "There is no such stream on this server; check base_url."),
    409: (errors.RulesError, "Add a rule to the filtered stream first."),
    420: (errors.RateLimitError, "Too many connects; waiting for the window to end."),
    429: (errors.RateLimitError, "Too many connects; waiting for the window to end."),
}


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
    title, detail = problem.get("title"), problem.get("detail") or problem.get("message")
    parts = [str(part).rstrip(".") for part in (title, detail) if part]
    return ": ".join(dict.fromkeys(parts))
