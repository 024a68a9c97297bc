"""`to_async_iterator`: any Observable in an ``async for``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxtweets._core.async_items import AsyncItems
from rxtweets._core.observable import async_items

__all__ = ["to_async_iterator"]

T = TypeVar("T")


def to_async_iterator() -> Callable[[Observable[T]], AsyncItems[T]]:
    """Give the items to an ``async for``.

    A stream of rxtweets is iterated without it, ``async for message in tweets``, also behind
    most operators of RxPY. This operator does the same for any Observable, such as those of `sum`,
    `pluck` and `switch_latest`. It also has a type where type checkers know only that RxPY's
    operators return an `Observable`.

    ::

        import reactivex

        ids = tweets.map(lambda message: message.id)
        async for one in reactivex.merge(ids, ids).pipe(ops.to_async_iterator()):
            print(one)

    Returns:
        An operator from an Observable to the iterator of one loop.
    """
    return async_items
