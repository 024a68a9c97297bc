"""Every error of rxtweets, under one base.

::

    RxTweetsError
    ├── ConfigurationError (ValueError)   an option, a token or a URL that cannot work
    │   └── RuleSyntaxError               a rule of the filtered stream that X would refuse
    ├── RulesRefused                      X refused to add or delete rules
    ├── DecodeError (ValueError)          a line that is not a JSON value
    ├── HandlerError                      a handler broke its contract with the processor
    │   ├── HandlerTimeout                it exceeded its time limit
    │   ├── DeadlineExceeded              the message was too old to be handled
    │   └── WorkerLost                    the thread or process of the call died
    ├── ExecutorBroken                    an executor broke and cannot be replaced
    ├── SubscriberError                   a subscriber raised; its batch failed
    │   └── SubscriberUnavailable         its service cannot be reached now
    ├── AcknowledgerError                 an acknowledger does not support the request
    ├── PipelineError                     methods of a pipeline were called in the wrong order
    ├── SourceError                       a source failed, and its restarts failed too
    ├── BrokerError                       a broker refused a message or a request
    │   ├── BrokerUnavailable             it cannot be reached now; a later attempt may succeed
    │   ├── BacklogUnknown                the broker does not tell the number of messages
    │   ├── QueueMissing                  a queue or group was to be read, and does not exist
    │   ├── QueueSettingsError            a queue exists with settings that can lose messages
    │   └── Redelivered                   a message was delivered too often without an outcome
    └── StreamError                       the stream, or one of its connections, failed
        ├── ConnectionLost                the network or the server ended the connection
        │   ├── ConnectionEnded           the server completed the response
        │   ├── StreamStalled             no byte arrived for the stall timeout
        │   ├── ReaderCrashed             the process of an isolated reader exited
        │   ├── HostNotFound              the host has no address
        │   └── ProxyError                a proxy refused to connect to the server
        ├── ServerDisconnect              the server announced a disconnect in the stream
        ├── TLSError                      the certificate or the handshake was refused
        └── ResponseError                 the server did not answer with a stream
            ├── UnexpectedAnswerError     a web page, a redirect, 204: not from X's API
            ├── AuthenticationError       401: the token is invalid
            ├── AccessError               403: the app has no access to this stream
            ├── RulesError                409: the filtered stream has no rules
            ├── RateLimitError            429: too many connects in the window
            ├── ConnectionLimitError      429: the token's connection is in use
            ├── UsageCapError             429: the account reached its cap of posts
            ├── ProvisioningError         the account's subscription is changing; wait a minute
            └── ServerError               5xx: overload or deployment of the server

Errors of a connection have ``retryable``: whether another connection can succeed.
Every error can be pickled and copied, with all its attributes.

May import: nothing of rxtweets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rxtweets.errors._redaction import mask

__all__ = [
    "AccessError",
    "AcknowledgerError",
    "AuthenticationError",
    "BacklogUnknown",
    "BrokerError",
    "BrokerUnavailable",
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
    "QueueMissing",
    "QueueSettingsError",
    "RateLimitError",
    "ReaderCrashed",
    "Redelivered",
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
    "SubscriberUnavailable",
    "TLSError",
    "UnexpectedAnswerError",
    "UsageCapError",
    "WorkerLost",
]


class RxTweetsError(Exception):
    """The base of every error that rxtweets raises or passes to ``on_error``."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default ``args`` are given to ``__init__`` again, which most classes here extend.
        return _without_init, (type(self), self.args), vars(self)


def _without_init(kind: type[RxTweetsError], args: tuple[Any, ...]) -> RxTweetsError:
    return kind.__new__(kind, *args)


class ConfigurationError(RxTweetsError, ValueError):
    """An option that cannot work; raised at construction, before any connection."""


SHOWN = 200
"""Characters of a rule in the text of an error."""


class RuleSyntaxError(ConfigurationError):
    """A rule that X would refuse; raised before any request.

    Attributes:
        reason: why X would refuse it.
        rule: the rule.
        position: of the mistake in the rule, in characters from 0.
    """

    def __init__(self, reason: str, rule: str, position: int) -> None:
        shown = rule if len(rule) <= SHOWN else f"{rule[:SHOWN]}…"
        super().__init__(f"rule {shown!r}, at character {position + 1}: {reason}")
        self.reason = reason
        self.rule = rule
        self.position = position


class RulesRefused(RxTweetsError):
    """X refused to add or delete rules.

    Attributes:
        refusals: each refused rule with X's reason (`rxtweets.api.RuleRefusal`).
        report: the changes that X made (`rxtweets.api.RulesReport`).
    """

    def __init__(self, message: str, refusals: tuple[Any, ...], report: Any = None) -> None:
        super().__init__(message)
        self.refusals = refusals
        self.report = report


class DecodeError(RxTweetsError, ValueError):
    """A line that is not a JSON value.

    Attributes:
        line: the received bytes; secrets are masked.
    """

    def __init__(self, message: str, line: bytes) -> None:
        super().__init__(mask(message))
        self.line: bytes = mask(line)


class HandlerError(RxTweetsError):
    """A handler broke its contract, for example by returning a value that is not a message."""


class HandlerTimeout(HandlerError):
    """A handler exceeded its time limit; a later result is discarded."""


class DeadlineExceeded(HandlerError):
    """The message was past its deadline before its handler was called."""


class WorkerLost(HandlerError):
    """The thread or process that handled the message died; ``__cause__`` is the reason."""


class ExecutorBroken(RxTweetsError):
    """An executor broke and cannot be replaced; ``__cause__`` is the reason.

    Pass a function that makes the executor, ``process(executor=ProcessPoolExecutor)``, and a
    broken executor is replaced.
    """


class SubscriberError(RxTweetsError):
    """A subscriber raised; each message of its batch fails with this error and its cause."""


class SubscriberUnavailable(SubscriberError):
    """The service of a subscriber cannot be reached now; a later attempt may succeed."""


class PipelineError(RxTweetsError):
    """Methods of a pipeline were called in the wrong order, such as ``start`` twice."""


class AcknowledgerError(RxTweetsError):
    """An acknowledger does not support the request, such as being configured."""


class SourceError(RxTweetsError):
    """A source of a pipeline failed, and its restarts failed too; ``__cause__`` is the reason.

    Attributes:
        source: index of the source, from 0.
    """

    def __init__(self, message: str, source: int) -> None:
        super().__init__(message)
        self.source = source


class BrokerError(RxTweetsError):
    """A broker refused a message or a request; its text has no password."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now; a later attempt may succeed."""


class QueueSettingsError(BrokerError):
    """A stream, queue or topic exists with settings that can lose messages."""


class QueueMissing(BrokerError):
    """A queue or a group was to be read, and does not exist: its name may be wrong."""


class BacklogUnknown(BrokerError, TypeError):
    """The broker does not tell how many messages a queue has.

    It is a TypeError too, so that ``list()`` of dead letters does without their number.
    """


class Redelivered(BrokerError):
    """A message was delivered more often than ``max_deliver`` allows, each time without an outcome.

    Its handler may end the process, or exceed ``max_lease``.
    """


class StreamError(RxTweetsError):
    """A connection failed, or the stream cannot continue; secrets in its texts are masked.

    Attributes:
        retryable: whether another connection can succeed.
        schedule: the field of `rxtweets.Backoff` that sets the wait; empty for ``lost`` after an
            established connection and ``network`` before one.
        counter: the counter of `rxtweets.Stats` for such failures; empty if there is none.
    """

    retryable = True
    schedule: ClassVar[str] = ""
    counter: ClassVar[str] = ""

    def __init__(self, *texts: str) -> None:
        super().__init__(*map(mask, texts))


class ConnectionLost(StreamError):
    """The network or the server ended the connection, or the connection could not be made."""


class ConnectionEnded(ConnectionLost):
    """The server completed the response without a reason; the normal end of a replay."""


class StreamStalled(ConnectionLost):
    """No byte arrived for the stall timeout, keep-alives included."""

    counter = "stalls"


class ReaderCrashed(ConnectionLost):
    """The process of an isolated reader exited; the next connection starts a new process."""

    counter = "reader_crashes"


class HostNotFound(ConnectionLost):
    """The host has no address; final unless the stream has been connected once."""


class ProxyError(ConnectionLost):
    """A proxy refused to connect to the server; final if its credentials or rules are the cause.

    Attributes:
        proxy: its URL, without user name and password; empty if none was configured.
        status: HTTP status of its answer; 0 for a SOCKS proxy.
        headers: of its answer, names in lower case.
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
        self.headers: dict[str, str] = _masked(headers)
        self.retryable = retryable


class ServerDisconnect(StreamError):
    """The server announced a disconnect inside the stream.

    Attributes:
        disconnect_type: X's name of the reason, such as ``OperationalDisconnect``.
    """

    def __init__(self, message: str, disconnect_type: str) -> None:
        super().__init__(message)
        self.disconnect_type: str = mask(disconnect_type)


class TLSError(StreamError):
    """The server's certificate or the TLS handshake was refused."""

    retryable = False


class ResponseError(StreamError):
    """The server did not answer with a stream.

    Attributes:
        status: the HTTP status.
        body: the first 64 KB of the answer, as text.
        headers: of the answer, names in lower case.
    """

    retryable = False

    def __init__(self, message: str, status: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.body: str = mask(body)
        self.headers: dict[str, str] = _masked(headers)


class UnexpectedAnswerError(ResponseError):
    """The answer is not from X's API: a network's login page, a redirect, an empty 204.

    Final until the stream has been answered with 200 once: ``base_url`` or the network is the
    cause. After that the stream reconnects by the ``server`` schedule.
    """

    schedule = "server"


class AuthenticationError(ResponseError):
    """401, or 403 for a token of the wrong kind: the token is invalid."""


class AccessError(ResponseError):
    """403: the token's app has no access to this stream."""


class RulesError(ResponseError):
    """409: the filtered stream has no rules, or its rules cannot be used."""


class RateLimitError(ResponseError):
    """429: more connects than the window allows."""

    retryable = True
    schedule = "rate_limit"
    counter = "rate_limits"


class ConnectionLimitError(ResponseError):
    """429 with ``TooManyConnections``: the token's one connection is in use."""

    retryable = True
    schedule = "connection_limit"
    counter = "connection_limits"


class UsageCapError(ResponseError):
    """429 with ``UsageCapExceeded``: X sends no more posts until the next period."""

    counter = "usage_caps"


class ProvisioningError(ResponseError):
    """The account's subscription is changing; X asks to wait a minute."""

    retryable = True
    schedule = "provisioning"


class ServerError(ResponseError):
    """5xx: overload or deployment of the server."""

    retryable = True
    schedule = "server"
    counter = "server_errors"


def _masked(headers: Mapping[str, str]) -> dict[str, str]:
    return {mask(name): mask(value) for name, value in headers.items()}
