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

from rxtweets import display, events, operators, simulator
from rxtweets.backoff import Backoff
from rxtweets.errors import (
    AccessError,
    AuthenticationError,
    ConfigurationError,
    ConnectionEnded,
    ConnectionLimitError,
    ConnectionLost,
    DecodeError,
    HandlerError,
    HostNotFound,
    PipelineError,
    ProvisioningError,
    RateLimitError,
    ResponseError,
    RulesError,
    RulesRefused,
    RuleSyntaxError,
    RxTweetsError,
    ServerDisconnect,
    ServerError,
    StreamError,
    StreamStalled,
    SubscriberError,
    TLSError,
    UsageCapError,
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
)
from rxtweets.observable import BatchStream, MessageStream
from rxtweets.options import ServerOptions
from rxtweets.payloads import Activity, ComplianceEvent, LabelEvent, Like
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.rules import Rule, RuleCounts, RuleRefusal, Rules, RulesReport
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
from rxtweets.telemetry import Stats

__all__ = [
    "AccessError",
    "Acknowledger",
    "Activity",
    "AuthenticationError",
    "Backoff",
    "Batch",
    "BatchInfo",
    "BatchStream",
    "Batcher",
    "CallerAcknowledger",
    "ComplianceEvent",
    "ConfigurationError",
    "ConnectionEnded",
    "ConnectionLimitError",
    "ConnectionLost",
    "ConnectionState",
    "Connections",
    "DecodeError",
    "Failed",
    "Failure",
    "HandlerError",
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
    "RateLimitError",
    "ResponseError",
    "Rule",
    "RuleCounts",
    "RuleRefusal",
    "RuleSyntaxError",
    "Rules",
    "RulesError",
    "RulesRefused",
    "RulesReport",
    "RxTweetsError",
    "ServerDisconnect",
    "ServerError",
    "ServerOptions",
    "Stats",
    "StreamError",
    "StreamOptions",
    "StreamStalled",
    "Subscriber",
    "SubscriberError",
    "TLSError",
    "TweetOptions",
    "UnknownNameWarning",
    "UsageCapError",
    "activity_stream",
    "compliance_stream",
    "display",
    "events",
    "filtered_stream",
    "firehose_stream",
    "labels_stream",
    "likes_stream",
    "operators",
    "sample10_stream",
    "sample_stream",
    "simulator",
]
