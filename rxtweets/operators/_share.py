"""`share`: one subscription to a source for several subscribers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxtweets._core.observable import share as share_source

__all__ = ["share"]

T = TypeVar("T")


def share() -> Callable[[Observable[T]], Observable[T]]:
    """Subscribe to the source once for all subscribers, so that the operators before it run once.

    The first subscriber subscribes to the source, and the last one that leaves ends that
    subscription. A later subscriber begins another one, also after the source has ended. With
    ``reactivex.operators.share`` a subscriber that comes while the last one leaves gets nothing.

    ::

        texts = tweets.pipe(ops.process(handler), ops.share())   # or tweets.pipe(...).share()

    Messages stay in lists for the operators behind it. A batch has failed if it failed for one
    subscriber. When a pipeline drains, the others go on; for the last one the source drains. A
    source that can wait is asked for as much as all subscribers want.

    Returns:
        An operator.
    """
    return share_source
