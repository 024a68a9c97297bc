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
import sys as _sys

# Ctrl-C ends `python -m rxtweets` with 130, also during the imports below.
if _sys.argv[:1] == ["-m"] and _sys.orig_argv[1:3] == ["-m", __name__]:
    import _rxtweets_command  # noqa: F401 - it handles Ctrl-C

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from rxtweets import display, errors, events, operators, subscribers
from rxtweets._core.async_items import AsyncItems
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.failures import Failure
from rxtweets._core.observable import BatchStream, MessageStream, SettledStream
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.retry import Retry
from rxtweets._core.stats import StageStats, Stats
from rxtweets._core.subscriber import Subscriber
from rxtweets._core.valve import Valve
from rxtweets._messages.batch import Batch, BatchInfo
from rxtweets._messages.message import (
    Acknowledger,
    CallerAcknowledger,
    Failed,
    MatchingRule,
    Message,
    NoopAcknowledger,
    ack_immediately,
)
from rxtweets._messages.payloads import Activity, ComplianceEvent, LabelEvent, Like
from rxtweets.api import Connections, Rule, Rules, ServerOptions
from rxtweets.errors import ConfigurationError, RxTweetsError
from rxtweets.operators._collect import collect
from rxtweets.operators._record import record
from rxtweets.pipeline import Batcher, Pipeline, Restart
from rxtweets.streams import (
    Backoff,
    HotStream,
    PullSource,
    StreamOptions,
    TweetOptions,
    activity_stream,
    compliance_stream,
    filtered_stream,
    firehose_stream,
    from_iterable,
    from_queue,
    labels_stream,
    likes_stream,
    polling_source,
    replay,
    sample10_stream,
    sample_stream,
)

if _TYPE_CHECKING:
    from rxtweets import brokers, dashboard, simulator

__all__ = [
    "Acknowledger",
    "Activity",
    "AsyncItems",
    "Backoff",
    "Batch",
    "BatchInfo",
    "BatchStream",
    "Batcher",
    "CallerAcknowledger",
    "ComplianceEvent",
    "Concurrency",
    "ConfigurationError",
    "ConnectionState",
    "Connections",
    "Failed",
    "Failure",
    "HotStream",
    "LabelEvent",
    "Like",
    "MatchingRule",
    "Message",
    "MessageStream",
    "NoopAcknowledger",
    "Pipeline",
    "PullSource",
    "RateLimit",
    "Restart",
    "Retry",
    "Rule",
    "Rules",
    "RxTweetsError",
    "ServerOptions",
    "SettledStream",
    "StageStats",
    "Stats",
    "StreamOptions",
    "Subscriber",
    "TweetOptions",
    "Valve",
    "ack_immediately",
    "activity_stream",
    "brokers",
    "collect",
    "compliance_stream",
    "dashboard",
    "display",
    "errors",
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
    """Import the simulator, the brokers and the dashboard on first use."""
    if name in {"brokers", "dashboard", "simulator"}:
        return _importlib.import_module(f"rxtweets.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
