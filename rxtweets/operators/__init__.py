"""Operators for streams of messages, for `Observable.pipe`; stock operators apply as well.

::

    batches = tweets.pipe(ops.process(handler, concurrency=50), ops.batch(20, 2.0))
"""

from rxtweets.operators._batch import batch
from rxtweets.operators._deduplicate import deduplicate
from rxtweets.operators._process import process

__all__ = ["batch", "deduplicate", "process"]
