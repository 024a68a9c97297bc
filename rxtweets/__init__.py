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

from rxtweets import events, operators, simulator
from rxtweets.backoff import Backoff
from rxtweets.errors import (
    AccessError,
    AuthenticationError,
    ConfigurationError,
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
    RxTweetsError,
    ServerDisconnect,
    ServerError,
    StreamError,
    StreamStalled,
    SubscriberError,
    TLSError,
    UsageCapError,
)
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
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.streams import StreamOptions, sample_stream
from rxtweets.subscriber import Subscriber
from rxtweets.telemetry import Stats

__all__ = [
    "AccessError",
    "Acknowledger",
    "AuthenticationError",
    "Backoff",
    "Batch",
    "BatchInfo",
    "BatchStream",
    "Batcher",
    "CallerAcknowledger",
    "ConfigurationError",
    "ConnectionLimitError",
    "ConnectionLost",
    "DecodeError",
    "Failed",
    "HandlerError",
    "HostNotFound",
    "MatchingRule",
    "Message",
    "MessageStream",
    "NoopAcknowledger",
    "Pipeline",
    "PipelineError",
    "ProvisioningError",
    "RateLimitError",
    "ResponseError",
    "RulesError",
    "RxTweetsError",
    "ServerDisconnect",
    "ServerError",
    "Stats",
    "StreamError",
    "StreamOptions",
    "StreamStalled",
    "Subscriber",
    "SubscriberError",
    "TLSError",
    "UsageCapError",
    "events",
    "operators",
    "sample_stream",
    "simulator",
]
