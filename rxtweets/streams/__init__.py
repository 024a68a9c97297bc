"""Streams as hot Observables: X's endpoints, recordings, and sources of your own.

A single stream is a reader, a buffer and a delivery; several connections are merged.
May import: `rxtweets.api`, `rxtweets.operators`, `rxtweets.display` and below.
"""

from rxtweets.streams._backoff import Backoff
from rxtweets.streams._base import HotStream
from rxtweets.streams._pull_sources import (
    PullSource,
    QueueAcknowledger,
    from_iterable,
    from_queue,
    polling_source,
)
from rxtweets.streams._replay import Replay, replay
from rxtweets.streams._sources import (
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

__all__ = [
    "Backoff",
    "HotStream",
    "PullSource",
    "QueueAcknowledger",
    "Replay",
    "StreamOptions",
    "TweetOptions",
    "activity_stream",
    "compliance_stream",
    "filtered_stream",
    "firehose_stream",
    "from_iterable",
    "from_queue",
    "labels_stream",
    "likes_stream",
    "polling_source",
    "replay",
    "sample10_stream",
    "sample_stream",
]
