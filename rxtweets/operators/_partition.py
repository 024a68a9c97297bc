"""`partition`: messages to numbered branches of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxtweets._core.subscriber import OnFailed
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, whole_number
from rxtweets.errors import ConfigurationError, HandlerError
from rxtweets.operators._branches import Operator, branching, operators_of

__all__ = ["partition"]


def partition(
    by: Callable[[Message[Any]], int],
    n: int,
    *operators: Operator,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[Any]]], Any]:
    """Send messages through ``n`` branches that are alike, the same number through the same one.

    ::

        source                                   --1--2--3--4--5--|
        partition(lambda m: m.data, 2, ops.f)    --1f----3f----5f-|     one branch
                                                 -----2f----4f----|     the other one

    Each branch has the operators to itself, so what keeps the order in one keeps it for each
    number: ``ops.partition(author, 4, ops.process(handler, 1, ordered=True))``.

    Args:
        by: gives each message a whole number from 0; its branch is that, modulo ``n``. A message
            on which it raises, or for which it gives something else, fails.
        n: how many branches.
        operators: what each branch does.
        on_failed: is given messages on which ``by`` failed, before they are acknowledged; returns
            as many.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    function("by", by)
    whole_number("n", n)
    if not operators:
        raise ConfigurationError("partition: give the operators that each branch is to have")
    branch = operators_of("operators", operators)

    def sort(chunk: list[Message[Any]]) -> tuple[dict[int, list[Message[Any]]], Any]:
        parts: dict[int, list[Message[Any]]] = {}
        failed: list[Message[Any]] = []
        for message in chunk:
            try:
                number = by(message)
                if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                    raise HandlerError(f"by returned {number!r}; return a whole number from 0")  # noqa: TRY301 - one way for both
            except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
                failed.append(message.failed(error))
            else:
                parts.setdefault(number % n, []).append(message)
        return parts, failed

    return branching(dict.fromkeys(range(n), branch), sort, on_failed)
