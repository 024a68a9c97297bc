"""Streams as hot Observables: X's endpoints, recordings, and sources of your own.

===================== ============================ ===================== ==================
stream                messages                     partitions            accounts
===================== ============================ ===================== ==================
`sample_stream`       about 1 % of all tweets                            enterprise
`sample10_stream`     10 % of all tweets           2                     enterprise
`filtered_stream`     tweets that match your rules                       all, by the post
`firehose_stream`     all tweets, or those in en,  20; in en 8, in ja,   enterprise
                      ja, ko or pt                 ko and pt 2
`likes_stream`        `Like`, all or 10 %          20; of 10 % 2         enterprise
`compliance_stream`   `ComplianceEvent` of tweets, 4; of likes none      enterprise
                      users or likes
`labels_stream`       `LabelEvent`                                       enterprise
`activity_stream`     `Activity` of your                                 all
                      subscriptions
===================== ============================ ===================== ==================

The text of a tweet, or the typed event, is the ``data`` of a message. Without ``partition=``, a
stream with partitions has a connection for each, and merges them.

A source of your own is any Observable of `Message`. `polling_source`, `from_iterable` and
`from_queue` make sources that can wait. A source that needs the outcome of its messages gives them
an `Acknowledger` (`Message.with_acknowledger`).

A single stream is a reader, a buffer and a delivery; several connections are merged.
May import: `rxtweets.api`, `rxtweets.display` and below.
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
