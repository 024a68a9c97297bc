"""What a server does on one connection, as steps of a script: streaming, and every fault.

A script has one part for each connection, or is a function from a `rxtweets.simulator.Request` to
the part of that connection; connections after the last part stream without end. A part is a step,
or a sequence of steps that are played one after the other::

    serve(script=[
        [Serve(2), Close()],                 # the first connection: two tweets, then a clean end
        unavailable(),                       # the second: 503
        [Serve(1), Abort(mid_frame=True)],   # the third breaks in the middle of a tweet
    ])                                       # all others stream

The bodies of the answers are those that X's API gives, as its documentation and public reports
show them.
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
    """Stream tweets from the feed.

    Attributes:
        count: how many; ``None`` for all there are, then silence with keep-alives.
        rate: tweets a second; ``None`` for that of the server, ``math.inf`` for a burst. A live
            server has its clock, and takes no other rate.
    """

    count: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Line(Step):
    """Send one line that is not from the feed; the line end is added."""

    data: bytes


@dataclass(frozen=True)
class Raw(Step):
    """Send these very bytes."""

    data: bytes


@dataclass(frozen=True)
class KeepAlive(Step):
    """Send an empty line."""


@dataclass(frozen=True)
class Disconnect(Step):
    """Announce a disconnect inside the stream, as X does before it ends one.

    Attributes:
        disconnect_type: such as ``OperationalDisconnect``, ``UpstreamOperationalDisconnect``,
            ``ForceDisconnect``, ``SlowReader``; `DISCONNECT_TYPES` has all.
        wrapped: inside ``errors``, as usual; else the bare object, which has been seen too.
    """

    disconnect_type: str = "OperationalDisconnect"
    wrapped: bool = True


@dataclass(frozen=True)
class Stall(Step):
    """Say nothing at all, not even keep-alives, as when the network between has gone.

    A client that leaves meanwhile is not noticed, for as long as the server's ``forget_after``
    says.

    Attributes:
        seconds: how long, subject to the server's ``time_scale``; ``None`` until the client goes.
    """

    seconds: float | None = None


@dataclass(frozen=True)
class Close(Step):
    """End the response properly, and close the connection."""


@dataclass(frozen=True)
class Abort(Step):
    """Break the connection off.

    Attributes:
        mid_frame: send the first half of the next tweet before.
        noticed: ``False`` if X takes the connection for a live one still, for as long as the
            server's ``forget_after`` says.
    """

    mid_frame: bool = False
    noticed: bool = True


@dataclass(frozen=True)
class Fin(Step):
    """Close the connection in the middle of the response, without its end; over TLS unannounced."""


@dataclass(frozen=True)
class GoAway(Step):
    """Over HTTP/2 send GOAWAY and close; over HTTP/1.1 the same as `Fin`.

    Attributes:
        error_code: of HTTP/2; 0 is NO_ERROR.
    """

    error_code: int = 0


@dataclass(frozen=True)
class ResetStream(Step):
    """Over HTTP/2 reset the stream and leave the connection; over HTTP/1.1 the same as `Abort`.

    Attributes:
        error_code: of HTTP/2; 0 is NO_ERROR, 2 INTERNAL_ERROR.
    """

    error_code: int = 0


@dataclass(frozen=True)
class Reply(Step):
    """Answer with something else than a stream; only as the first step of a part.

    Attributes:
        status: of HTTP.
        body: JSON if it is not bytes.
        headers: beside the usual ones, or in their place.
    """

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The body as bytes."""
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
    """Title and type of a problem.

    Args:
        title: such as ``ConnectionException``.
        kind: last segment of the type.
    """
    return {"title": title, "type": f"https://api.twitter.com/2/problems/{kind}"}


def invalid_request(parameter: str, value: str, message: str) -> Reply:
    """400: a parameter cannot work."""
    return Reply(
        400,
        {
            "errors": [{"parameters": {parameter: [value] if value else []}, "message": message}],
            "detail": "One or more parameters to your request was invalid.",
            **problem("Invalid Request", "invalid-request"),
        },
    )


def unauthorized() -> Reply:
    """401: the token is not accepted."""
    return Reply(401, _blank("Unauthorized", 401))


def forbidden() -> Reply:
    """403: the app has no access."""
    return Reply(
        403,
        {
            "client_id": "27347717",
            "detail": "When authenticating requests to the Twitter API v2 endpoints, you must use "
            "keys and tokens from a Twitter developer App that is attached to a Project. You can "
            "create a project via the developer portal.",
            "registration_url": "https://developer.twitter.com/en/docs/projects/overview",
            "title": "Client Forbidden",
            "required_enrollment": "Appropriate Level of API Access",
            "reason": "client-not-enrolled",
            "type": "https://api.twitter.com/2/problems/client-forbidden",
        },
    )


def unsupported_authentication() -> Reply:
    """403: the token is not of the kind that the endpoint takes."""
    return Reply(
        403,
        {
            "detail": "Authenticating with Unknown is forbidden for this endpoint.  Supported "
            "authentication types are [OAuth 2.0 Application-Only].",
            "status": 403,
            **problem("Unsupported Authentication", "unsupported-authentication"),
        },
    )


def no_rules() -> Reply:
    """409: the filtered stream has no rules."""
    return Reply(
        409,
        {
            "title": "ConnectionException",
            "detail": "The stream has no rules.",
            "connection_issue": "RuleConfigurationIssue",
            "type": "https://api.twitter.com/2/problems/streaming-connection",
        },
    )


def rate_limited(reset: float | None = None, retry_after: float | str | None = None) -> Reply:
    """429: too many connects.

    Args:
        reset: end of the window, in seconds since 1970; by default that of the server's window.
        retry_after: value of ``Retry-After``, in seconds or as a date of HTTP; ``None`` for none.
    """
    headers = {"x-rate-limit-remaining": "0", **_retry_after(retry_after)}
    if reset is not None:
        # Rounded up: who comes back at that second is not too early.
        headers["x-rate-limit-reset"] = str(math.ceil(reset))
    return Reply(429, _blank("Too Many Requests", 429), headers)


def too_many_connections() -> Reply:
    """429: the token holds as many connections as it may."""
    return Reply(
        429,
        {
            "title": "ConnectionException",
            "detail": "This stream is currently at the maximum allowed connection limit.",
            "connection_issue": "TooManyConnections",
            "type": "https://api.twitter.com/2/problems/streaming-connection",
        },
    )


def usage_capped() -> Reply:
    """429: the account's cap of posts is used up."""
    return Reply(
        429,
        {
            "account_id": "1",
            "product_name": "standard-basic",
            "title": "UsageCapExceeded",
            "period": "Monthly",
            "scope": "Product",
            "detail": "Usage cap exceeded: Monthly product cap",
            "type": "https://api.twitter.com/2/problems/usage-capped",
        },
    )


def provisioning() -> Reply:
    """The subscription is being changed."""
    return Reply(
        429,
        {
            "title": "ConnectionException",
            "detail": "Your subscription change is currently being provisioned, please try again "
            "in a minute.",
            "connection_issue": "ProvisioningSubscription",
            "type": "https://api.twitter.com/2/problems/streaming-connection",
        },
    )


def unavailable(status: int = 503, retry_after: float | str | None = None) -> Reply:
    """503: overload or a deployment; also for its kin 500, 502 and 504.

    Args:
        status: of HTTP.
        retry_after: value of ``Retry-After``, in seconds or as a date of HTTP; ``None`` for none.
    """
    titles = {500: "Internal Server Error", 502: "Bad Gateway", 504: "Gateway Timeout"}
    title = titles.get(status, "Service Unavailable")
    return Reply(status, _blank(title, status), _retry_after(retry_after))


def upstream_failure(status: int = 503) -> Reply:
    """503 from the proxy before X's servers, which does not speak JSON."""
    body = b"upstream connect error or disconnect/reset before headers"
    return Reply(status, body, {"content-type": "text/plain"})


def not_found() -> Reply:
    """404: no such path."""
    return Reply(404, _blank("Not Found", 404))


def _retry_after(value: float | str | None) -> dict[str, str]:
    """A number in whole seconds, as the header has no others, and rounded up as `rate_limited`."""
    if value is None:
        return {}
    return {"retry-after": value if isinstance(value, str) else str(math.ceil(value))}


def _blank(title: str, status: int) -> dict[str, Any]:
    return {"title": title, "type": "about:blank", "status": status, "detail": title}
