"""Steps of a script: the stream, and the faults, of each connection to the simulator.

A script has one part for each connection. Connections after the last part stream without end. A
script may also be a function from a `rxtweets.simulator.Request` to the part of that connection. A
part is a step, or a list of steps that run in order::

    serve(script=[
        [Serve(2), Close()],                 # the first connection: two tweets, then a clean end
        unavailable(),                       # the second: 503
        [Serve(1), Abort(mid_frame=True)],   # the third: a reset within a tweet
    ])                                       # all others stream

The bodies of the replies are those of X's API, by its documentation and by public reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = [
    "DISCONNECT_TYPES",
    "Abort",
    "Close",
    "Disconnect",
    "Fin",
    "GoAway",
    "KeepAlive",
    "Line",
    "Part",
    "Raw",
    "Reply",
    "ResetStream",
    "Serve",
    "Stall",
    "Step",
    "forbidden",
    "invalid_request",
    "no_rules",
    "problem",
    "provisioning",
    "rate_limited",
    "too_many_connections",
    "unauthorized",
    "unavailable",
    "unsupported_authentication",
    "upstream_failure",
    "usage_capped",
]


@dataclass(frozen=True)
class Step:
    """The base of all steps."""


@dataclass(frozen=True)
class Serve(Step):
    """Stream tweets.

    Attributes:
        count: number of tweets; ``None`` for all, then silence with keep-alives.
        rate: tweets a second; ``None`` for the rate of the server, ``math.inf`` for a burst. A
            live server ignores it.
    """

    count: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Line(Step):
    """Send a line of your own; the server adds the line end."""

    data: bytes


@dataclass(frozen=True)
class Raw(Step):
    """Send bytes as they are."""

    data: bytes


@dataclass(frozen=True)
class KeepAlive(Step):
    """Send an empty line."""


@dataclass(frozen=True)
class Disconnect(Step):
    """Announce a disconnect inside the stream, as X does before it ends a connection.

    Attributes:
        disconnect_type: such as ``OperationalDisconnect``; see `DISCONNECT_TYPES`.
        wrapped: inside ``errors``, as usual; else the bare object, which X has sent too.
    """

    disconnect_type: str = "OperationalDisconnect"
    wrapped: bool = True


@dataclass(frozen=True)
class Stall(Step):
    """Send nothing, not even keep-alives, as after a network failure.

    If the client leaves meanwhile, the server does not notice it for its ``forget_after``.

    Attributes:
        seconds: scaled by the server's ``time_scale``; ``None`` until the client leaves.
    """

    seconds: float | None = None


@dataclass(frozen=True)
class Close(Step):
    """End the response, and close the connection."""


@dataclass(frozen=True)
class Abort(Step):
    """Reset the connection.

    Attributes:
        mid_frame: send the first half of the next tweet before.
        noticed: ``False`` if the connection counts as open for the server's ``forget_after``.
    """

    mid_frame: bool = False
    noticed: bool = True


@dataclass(frozen=True)
class Fin(Step):
    """Close the connection within the response; over TLS without close_notify."""


@dataclass(frozen=True)
class GoAway(Step):
    """Over HTTP/2, send GOAWAY and close; over HTTP/1.1, act as `Fin`.

    Attributes:
        error_code: of HTTP/2; 0 is NO_ERROR.
    """

    error_code: int = 0


@dataclass(frozen=True)
class ResetStream(Step):
    """Over HTTP/2, reset the stream and keep the connection; over HTTP/1.1, act as `Abort`.

    Attributes:
        error_code: of HTTP/2; 0 is NO_ERROR, 2 INTERNAL_ERROR.
    """

    error_code: int = 0


@dataclass(frozen=True)
class Reply(Step):
    """Answer with a response instead of a stream; only as the first step of a part.

    Attributes:
        status: of HTTP.
        body: sent as JSON if it is not bytes.
        headers: added to the usual ones, or in their place.
    """

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        """Return the body as bytes."""
        return self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)


Part = Step | Sequence[Step]

DISCONNECT_TYPES = (
    "OperationalDisconnect",
    "UpstreamOperationalDisconnect",
    "ForceDisconnect",
    "UpstreamUncleanDisconnect",
    "SlowReader",
    "InternalError",
    "ClientApplicationStateDegraded",
    "InvalidRules",
)
"""X's names for the reasons of a disconnect."""


def problem(title: str, kind: str) -> dict[str, str]:
    """Return title and type of a problem.

    Args:
        title: such as ``ConnectionException``.
        kind: last segment of the type.
    """
    return {"title": title, "type": f"https://api.twitter.com/2/problems/{kind}"}


def invalid_request(parameter: str, value: str, message: str) -> Reply:
    """Reply 400: the value of a parameter is invalid."""
    return Reply(
        400,
        {
            "errors": [{"parameters": {parameter: [value] if value else []}, "message": message}],
            "detail": "One or more parameters to your request was invalid.",
            **problem("Invalid Request", "invalid-request"),
        },
    )


def unauthorized() -> Reply:
    """Reply 401: X does not accept the token."""
    return _bare(401, "Unauthorized")


def forbidden() -> Reply:
    """Reply 403: the app has no access."""
    return Reply(
        403,
        {
            "client_id": "27347717",
            "detail": "When authenticating requests to the Twitter API v2 endpoints, you must use "
            "keys and tokens from a Twitter developer App that is attached to a Project. You can "
            "create a project via the developer portal.",
            "registration_url": "https://developer.twitter.com/en/docs/projects/overview",
            "required_enrollment": "Appropriate Level of API Access",
            "reason": "client-not-enrolled",
            **problem("Client Forbidden", "client-forbidden"),
        },
    )


def unsupported_authentication() -> Reply:
    """Reply 403: the endpoint does not take this kind of token."""
    return Reply(
        403,
        {
            "detail": "Authenticating with Unknown is forbidden for this endpoint.  Supported "
            "authentication types are [OAuth 2.0 Application-Only].",
            "status": 403,
            **problem("Unsupported Authentication", "unsupported-authentication"),
        },
    )


def not_found() -> Reply:
    """Reply 404: the path does not exist."""
    return _bare(404, "Not Found")


def not_allowed() -> Reply:
    """Reply 405: the path does not take this method."""
    return _bare(405, "Method Not Allowed")


def no_rules() -> Reply:
    """Reply 409: the filtered stream has no rules."""
    return _connection_problem(409, "RuleConfigurationIssue", "The stream has no rules.")


def rate_limited(reset: float | None = None, retry_after: float | str | None = None) -> Reply:
    """Reply 429: too many requests in the window.

    Args:
        reset: end of the window, in seconds since 1970; by default of the server's window.
        retry_after: value of ``Retry-After``, in seconds or as an HTTP date; ``None`` for none.
    """
    headers = {"x-rate-limit-remaining": "0", **_retry_after(retry_after)}
    if reset is not None:
        headers["x-rate-limit-reset"] = str(math.ceil(reset))  # not before the window ends
    return _bare(429, "Too Many Requests", headers)


def too_many_connections() -> Reply:
    """Reply 429: the token holds as many connections as it may."""
    detail = "This stream is currently at the maximum allowed connection limit."
    return _connection_problem(429, "TooManyConnections", detail)


def usage_capped() -> Reply:
    """Reply 429: the account has used up its cap of posts."""
    return Reply(
        429,
        {
            "account_id": "1",
            "product_name": "standard-basic",
            "period": "Monthly",
            "scope": "Product",
            "detail": "Usage cap exceeded: Monthly product cap",
            **problem("UsageCapExceeded", "usage-capped"),
        },
    )


def provisioning() -> Reply:
    """Reply 429: X is changing the subscription."""
    detail = (
        "Your subscription change is currently being provisioned, please try again in a minute."
    )
    return _connection_problem(429, "ProvisioningSubscription", detail)


def unavailable(status: int = 503, retry_after: float | str | None = None) -> Reply:
    """Reply 503: overload or a deployment; also 500, 502 or 504.

    Args:
        status: of HTTP.
        retry_after: value of ``Retry-After``, in seconds or as an HTTP date; ``None`` for none.
    """
    titles = {500: "Internal Server Error", 502: "Bad Gateway", 504: "Gateway Timeout"}
    title = titles.get(status, "Service Unavailable")
    return _bare(status, title, _retry_after(retry_after))


def upstream_failure(status: int = 503) -> Reply:
    """Reply 503 from the proxy in front of X's servers, whose body is no JSON."""
    body = b"upstream connect error or disconnect/reset before headers"
    return Reply(status, body, {"content-type": "text/plain"})


def _retry_after(value: float | str | None) -> dict[str, str]:
    if value is None:
        return {}
    # The header takes whole seconds (RFC 9110, 10.2.3); rounded up, a retry is not too early.
    return {"retry-after": value if isinstance(value, str) else str(math.ceil(value))}


def _bare(status: int, title: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = {"title": title, "type": "about:blank", "status": status, "detail": title}
    return Reply(status, body, headers or {})


def _connection_problem(status: int, issue: str, detail: str) -> Reply:
    kind = problem("ConnectionException", "streaming-connection")
    return Reply(status, {"detail": detail, "connection_issue": issue, **kind})
