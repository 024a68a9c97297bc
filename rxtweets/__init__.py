r"""The X (Twitter) API v2 stream as a hot Observable.

::

    import rxtweets
    from rxtweets import operators as ops

    def upcase(message):
        return message.update_data(str.upper)

    tweets = rxtweets.sample_stream()
    batches = tweets.pipe(ops.process(upcase, concurrency=50), ops.batch(20, 2.0))
    with batches.subscribe(print):
        input("Enter stops\n")
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from rxtweets import display, events, operators, subscribers
from rxtweets.backoff import Backoff
from rxtweets.collecting import collect
from rxtweets.concurrency import Concurrency
from rxtweets.errors import (
    AccessError,
    AcknowledgerError,
    AuthenticationError,
    ConfigurationError,
    ConnectionEnded,
    ConnectionLimitError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    ExecutorBroken,
    HandlerError,
    HandlerTimeout,
    HostNotFound,
    PipelineError,
    ProvisioningError,
    ProxyError,
    RateLimitError,
    ReaderCrashed,
    ResponseError,
    RulesError,
    RulesRefused,
    RuleSyntaxError,
    RxTweetsError,
    ServerDisconnect,
    ServerError,
    SourceError,
    StreamError,
    StreamStalled,
    SubscriberError,
    TLSError,
    UnexpectedAnswerError,
    UsageCapError,
    WorkerLost,
)
from rxtweets.fields import UnknownNameWarning
from rxtweets.held_connections import Connections, HeldConnection
from rxtweets.hot import HotStream
from rxtweets.instrumentation.failures import Failure
from rxtweets.message import (
    Acknowledger,
    Batch,
    BatchInfo,
    CallerAcknowledger,
    Failed,
    MatchingRule,
    Message,
    NoopAcknowledger,
    ack_immediately,
)
from rxtweets.observable import BatchStream, MessageStream, SettledStream
from rxtweets.options import ServerOptions
from rxtweets.payloads import Activity, ComplianceEvent, LabelEvent, Like
from rxtweets.pipeline import (
    Batcher,
    Pipeline,
    Restart,
    Topology,
    TopologyBatcher,
    TopologyProcessors,
    TopologySource,
)
from rxtweets.rate import RateLimit
from rxtweets.recording import record
from rxtweets.replaying import Replay, replay
from rxtweets.retry import Retry
from rxtweets.rule_syntax import RuleWarning
from rxtweets.rules import Rule, RuleCounts, RuleRefusal, Rules, RulesReport
from rxtweets.sources import (
    PullSource,
    QueueAcknowledger,
    from_iterable,
    from_queue,
    polling_source,
)
from rxtweets.states import ConnectionState
from rxtweets.streams import (
    StreamOptions,
    TweetOptions,
    activity_stream,
    compliance_stream,
    filtered_stream,
    firehose_stream,
    labels_stream,
    likes_stream,
    sample10_stream,
    sample_stream,
)
from rxtweets.subscriber import Subscriber
from rxtweets.telemetry import StageStats, Stats
from rxtweets.valve import Valve

if _TYPE_CHECKING:
    from rxtweets import simulator

__all__ = [
    "AccessError",
    "Acknowledger",
    "AcknowledgerError",
    "Activity",
    "AuthenticationError",
    "Backoff",
    "Batch",
    "BatchInfo",
    "BatchStream",
    "Batcher",
    "CallerAcknowledger",
    "ComplianceEvent",
    "Concurrency",
    "ConfigurationError",
    "ConnectionEnded",
    "ConnectionLimitError",
    "ConnectionLost",
    "ConnectionState",
    "Connections",
    "DeadlineExceeded",
    "DecodeError",
    "ExecutorBroken",
    "Failed",
    "Failure",
    "HandlerError",
    "HandlerTimeout",
    "HeldConnection",
    "HostNotFound",
    "HotStream",
    "LabelEvent",
    "Like",
    "MatchingRule",
    "Message",
    "MessageStream",
    "NoopAcknowledger",
    "Pipeline",
    "PipelineError",
    "ProvisioningError",
    "ProxyError",
    "PullSource",
    "QueueAcknowledger",
    "RateLimit",
    "RateLimitError",
    "ReaderCrashed",
    "Replay",
    "ResponseError",
    "Restart",
    "Retry",
    "Rule",
    "RuleCounts",
    "RuleRefusal",
    "RuleSyntaxError",
    "RuleWarning",
    "Rules",
    "RulesError",
    "RulesRefused",
    "RulesReport",
    "RxTweetsError",
    "ServerDisconnect",
    "ServerError",
    "ServerOptions",
    "SettledStream",
    "SourceError",
    "StageStats",
    "Stats",
    "StreamError",
    "StreamOptions",
    "StreamStalled",
    "Subscriber",
    "SubscriberError",
    "TLSError",
    "Topology",
    "TopologyBatcher",
    "TopologyProcessors",
    "TopologySource",
    "TweetOptions",
    "UnexpectedAnswerError",
    "UnknownNameWarning",
    "UsageCapError",
    "Valve",
    "WorkerLost",
    "ack_immediately",
    "activity_stream",
    "collect",
    "compliance_stream",
    "display",
    "events",
    "filtered_stream",
    "firehose_stream",
    "from_iterable",
    "from_queue",
    "labels_stream",
    "likes_stream",
    "operators",
    "polling_source",
    "record",
    "replay",
    "sample10_stream",
    "sample_stream",
    "simulator",
    "subscribers",
]


def __getattr__(name: str) -> _Any:
    """The simulator is imported when it is first used: it is half of all that there is."""
    if name == "simulator":
        return _importlib.import_module("rxtweets.simulator")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
