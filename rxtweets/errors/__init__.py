"""Every error of rxtweets, under one base.

::

    RxTweetsError
    ├── ConfigurationError (ValueError)   an option, a token or a URL that cannot work
    │   └── RuleSyntaxError               a rule of the filtered stream that X would refuse
    ├── RulesRefused                      X refused rules that were to be added or deleted
    ├── DecodeError (ValueError)          a line that is not a JSON value
    ├── HandlerError                      a handler broke its contract with the processor
    │   ├── HandlerTimeout                it took longer than its time limit
    │   ├── DeadlineExceeded              the message was too old when its turn came
    │   └── WorkerLost                    what ran the handler died, and the call with it
    ├── ExecutorBroken                    an executor takes no more calls, and cannot be replaced
    ├── SubscriberError                   a subscriber raised; its batch failed
    ├── AcknowledgerError                 an acknowledger cannot do what it was asked for
    ├── PipelineError                     a pipeline was used in the wrong order
    ├── SourceError                       a source failed, and restarting it did not help
    └── StreamError                       the stream cannot go on, or one connection of it ended
        ├── ConnectionLost                the network, or the server, ended the connection
        │   ├── ConnectionEnded           the server ended the response in order
        │   ├── StreamStalled             no byte arrived for too long
        │   ├── ReaderCrashed             the process of an isolated reader ended by itself
        │   ├── HostNotFound              there is no address for the host
        │   └── ProxyError                a proxy refused the way to the server
        ├── ServerDisconnect              the server said in the stream that it disconnects
        ├── TLSError                      the certificate or the handshake was refused
        └── ResponseError                 the server answered with something else than a stream
            ├── UnexpectedAnswerError     a web page, a redirect, 204: not an answer of X's API
            ├── AuthenticationError       401: the token is not accepted
            ├── AccessError               403: the app has no access to this stream
            ├── RulesError                409: the filtered stream has no rules
            ├── RateLimitError            429: too many connects in the window
            ├── ConnectionLimitError      429: the token holds its connection already
            ├── UsageCapError             429: the account's cap of posts is used up
            ├── ProvisioningError         the subscription is being changed; a minute, please
            └── ServerError               5xx: overload or deployment on the other side

Errors of a connection say through ``retryable`` whether connecting again can help.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from rxtweets.errors._redaction import mask

__all__ = [
    "AccessError",
    "AcknowledgerError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionEnded",
    "ConnectionLimitError",
    "ConnectionLost",
    "DeadlineExceeded",
    "DecodeError",
    "ExecutorBroken",
    "HandlerError",
    "HandlerTimeout",
    "HostNotFound",
    "PipelineError",
    "ProvisioningError",
    "ProxyError",
    "RateLimitError",
    "ReaderCrashed",
    "ResponseError",
    "RuleSyntaxError",
    "RulesError",
    "RulesRefused",
    "RxTweetsError",
    "ServerDisconnect",
    "ServerError",
    "SourceError",
    "StreamError",
    "StreamStalled",
    "SubscriberError",
    "TLSError",
    "UnexpectedAnswerError",
    "UsageCapError",
    "WorkerLost",
]


class RxTweetsError(Exception):
    """Whatever rxtweets raises, or passes to ``on_error``, is one of these."""


class ConfigurationError(RxTweetsError, ValueError):
    """An option that cannot work; raised at construction, before any connection."""


SHOWN = 200
"""Characters of a rule in the text of an error."""


class RuleSyntaxError(ConfigurationError):
    """A rule that X would refuse; found before any request.

    Attributes:
        reason: what is wrong.
        rule: the rule.
        position: of what is wrong in it, in characters from 0.
    """

    def __init__(self, reason: str, rule: str, position: int) -> None:
        shown = rule if len(rule) <= SHOWN else f"{rule[:SHOWN]}…"
        super().__init__(f"rule {shown!r}, at character {position + 1}: {reason}")
        self.reason = reason
        self.rule = rule
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.rule, self.position)


class RulesRefused(RxTweetsError):
    """X refused rules that were to be added or deleted.

    Attributes:
        refusals: for each of them the rule, and X's reason (`rxtweets.api.RuleRefusal`).
        report: what was done all the same, where something was (`rxtweets.api.RulesReport`).
    """

    def __init__(self, message: str, refusals: tuple[Any, ...], report: Any = None) -> None:
        super().__init__(message)
        self.refusals = refusals
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.refusals, self.report)


class DecodeError(RxTweetsError, ValueError):
    """A line that is not a JSON value.

    Attributes:
        line: the bytes as they came, but for secrets, which are masked.
    """

    def __init__(self, message: str, line: bytes) -> None:
        super().__init__(mask(message))
        self.line = mask(line)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.line)


class HandlerError(RxTweetsError):
    """A handler broke its contract: it returned something else than a message, for one."""


class HandlerTimeout(HandlerError):
    """A call of a handler took longer than its time limit; what it returns later is discarded."""


class DeadlineExceeded(HandlerError):
    """The message was past its deadline when its turn came, so its handler was not called."""


class WorkerLost(HandlerError):
    """The thread or process that had the message in its hands died; the cause is attached."""


class ExecutorBroken(RxTweetsError):
    """An executor takes no more calls and there is no way to make another; the cause is attached.

    Give ``process(executor=...)`` a function that makes the executor, and it is replaced.
    """


class SubscriberError(RxTweetsError):
    """A subscriber raised; every message of its batch carries this, the cause attached."""


class PipelineError(RxTweetsError):
    """A pipeline was used in the wrong order: started twice, waited for before its start."""


class AcknowledgerError(RxTweetsError):
    """An acknowledger cannot do what it was asked for, such as being configured."""


class SourceError(RxTweetsError):
    """A source of a pipeline failed, and restarting it did not help; the cause is attached.

    Attributes:
        source: which one, from 0.
    """

    def __init__(self, message: str, source: int) -> None:
        super().__init__(message)
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.source)


class StreamError(RxTweetsError):
    """A connection failed, or the stream cannot continue. Secrets in its texts are masked.

    Attributes:
        retryable: whether another connection can help.
        schedule: the field of `rxtweets.Backoff` that says how long to wait; empty for ``lost``
            after an established connection and ``network`` before one.
        counter: the counter of `rxtweets.Stats` for such failures; empty if there is none.
    """

    retryable = True
    schedule: ClassVar[str] = ""
    counter: ClassVar[str] = ""

    def __init__(self, *texts: str) -> None:
        super().__init__(*map(mask, texts))


class ConnectionLost(StreamError):
    """The network or the server ended the connection, or it could not be made."""


class ConnectionEnded(ConnectionLost):
    """The server ended the response in order, without a word; after a replay that is its end."""


class StreamStalled(ConnectionLost):
    """No byte arrived for longer than the stall timeout, keep-alives included."""

    counter = "stalls"


class ReaderCrashed(ConnectionLost):
    """The process of an isolated reader ended by itself; the next connection starts another."""

    counter = "reader_crashes"


class HostNotFound(ConnectionLost):
    """There is no address for the host; final unless a connection has been made before."""


class ProxyError(ConnectionLost):
    """A proxy refused the way to the server; final where its credentials or rules are the cause.

    Attributes:
        proxy: its URL, without user name and password; empty if none was configured.
        status: HTTP status of its answer; 0 if it does not speak HTTP (SOCKS).
        headers: the answer's headers, names in lower case.
    """

    schedule = "server"

    def __init__(
        self,
        message: str,
        proxy: str,
        status: int,
        headers: Mapping[str, str],
        *,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.proxy = proxy
        self.status = status
        self.headers = {mask(name): mask(value) for name, value in headers.items()}
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(type(self), retryable=self.retryable)
        return made, (str(self), self.proxy, self.status, self.headers)


class ServerDisconnect(StreamError):
    """The server announced inside the stream that it disconnects.

    Attributes:
        disconnect_type: X's name for the reason, such as ``OperationalDisconnect``.
    """

    def __init__(self, message: str, disconnect_type: str) -> None:
        super().__init__(message)
        self.disconnect_type = mask(disconnect_type)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.disconnect_type)


class TLSError(StreamError):
    """The server's certificate, or the handshake itself, was refused; trying again cannot help."""

    retryable = False


class ResponseError(StreamError):
    """The server answered, but not with a stream.

    Attributes:
        status: the HTTP status.
        body: the first 64 KB of the answer, as text.
        headers: the answer's headers, names in lower case.
    """

    retryable = False

    def __init__(self, message: str, status: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.body = mask(body)
        self.headers = {mask(name): mask(value) for name, value in headers.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status, self.body, self.headers)


class UnexpectedAnswerError(ResponseError):
    """Something else than X's API answered: a network's login page, a redirect, an empty 204.

    Final until the stream has once been answered with 200, as ``base_url`` or the network is the
    cause; after that the stream reconnects, slowly.
    """

    schedule = "server"


class AuthenticationError(ResponseError):
    """401, or 403 for a token of the wrong kind: the token is not accepted."""


class AccessError(ResponseError):
    """403: the token's app has no access to this stream."""


class RulesError(ResponseError):
    """409: the filtered stream has no rules, or rules that cannot be used."""


class RateLimitError(ResponseError):
    """429: more connects than the window allows."""

    retryable = True
    schedule = "rate_limit"
    counter = "rate_limits"


class ConnectionLimitError(ResponseError):
    """429 with ``TooManyConnections``: the token's one connection is held already."""

    retryable = True
    schedule = "connection_limit"
    counter = "connection_limits"


class UsageCapError(ResponseError):
    """429 with ``UsageCapExceeded``: no more posts until the period ends."""

    counter = "usage_caps"


class ProvisioningError(ResponseError):
    """The account's subscription is being changed; X asks for a minute."""

    retryable = True
    schedule = "provisioning"


class ServerError(ResponseError):
    """5xx: overload or a deployment on the other side."""

    retryable = True
    schedule = "server"
    counter = "server_errors"
