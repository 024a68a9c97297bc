"""Operators for streams of messages, for `Observable.pipe`; all operators of RxPY apply as well.

Use operators of RxPY in ``pipe`` or as methods, and operators of rxtweets in ``pipe``. On a running
event loop, ``await stream`` returns the last item.

::

    batches = tweets.pipe(ops.process(handler, concurrency=50), ops.batch(20, 2.0))

The topology of a `rxtweets.Pipeline`, composed of operators::

    valve = rxtweets.Valve()
    settled = tweets.pipe(
        ops.pausable(valve),
        ops.rate_limit(500, 1.0),
        ops.process(lambda message: message.put_batcher(message.metadata["lang"])),
        ops.route(
            {
                "ja": [ops.batch(20, 2.0, name="ja"), ops.deliver(print, concurrency=2)],
                "en": [ops.batch(max_bytes=4096, name="en"), ops.deliver(print, concurrency=1)],
            },
            on_failed=lambda failed: failed,  # every other language
        ),
    )

All operators run under RxPY's ``TestScheduler`` with exact virtual times. Between operators of
rxtweets, messages travel in lists, since RxPY costs much more for each item and operator.

To add an operator, write one module with a public function, which returns a function from an
Observable to a `MessageStream` or a `BatchStream`. It subscribes to its source with
`rxtweets._core.observable.subscribe_in_chunks`, and counts and reports through
``telemetry_of(source)``. Export it here, and test it under ``TestScheduler`` and in
``tests/contract``.

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
from rxtweets.operators._to_async_iterator import to_async_iterator

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
    "to_async_iterator",
]
