"""`share`: one subscription to a source for several subscribers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxtweets._core.observable import share_source

__all__ = ["share"]

T = TypeVar("T")


def share() -> Callable[[Observable[T]], Observable[T]]:
    """Subscribe to the source once for all subscribers, so that earlier operators run once.

    The first subscriber subscribes to the source, and the last one that leaves disposes of that
    subscription. A later subscriber starts another one, also after the source has ended. Use it
    instead of ``reactivex.operators.share``, where a subscriber that comes while the last one
    leaves gets no items.

    ::

        texts = tweets.pipe(ops.process(handler), ops.share())   # or tweets.pipe(...).share()

    Messages stay in lists for the operators behind it. A batch fails if it fails for one
    subscriber. When one pipeline drains, the others continue; the last one drains the source. A
    source that can wait is asked for as many messages as all subscribers request.

    Returns:
        An operator.
    """
    return share_source
