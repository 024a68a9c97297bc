"""Operators for streams of messages, for `Observable.pipe`; stock operators apply as well.

::

    batches = tweets.pipe(ops.process(handler, concurrency=50), ops.batch(20, 2.0))

May import: `rxtweets._core` and below.
"""

from rxtweets.operators._acknowledge import acknowledge
from rxtweets.operators._batch import batch
from rxtweets.operators._deduplicate import deduplicate
from rxtweets.operators._deliver import deliver
from rxtweets.operators._pausable import pausable
from rxtweets.operators._process import process
from rxtweets.operators._rate_limit import rate_limit
from rxtweets.operators._route import partition, route
from rxtweets.operators._share import share

__all__ = [
    "acknowledge",
    "batch",
    "deduplicate",
    "deliver",
    "partition",
    "pausable",
    "process",
    "rate_limit",
    "route",
    "share",
]
