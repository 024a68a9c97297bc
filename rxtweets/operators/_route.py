"""`route`: messages to named branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reactivex import Observable

from rxtweets._core.subscriber import OnFailed
from rxtweets._messages.message import Message, are_plain
from rxtweets.errors import ConfigurationError, HandlerError
from rxtweets.operators._branches import Operators, branching, operators_of

__all__ = ["route"]


def route(
    branches: Mapping[str, Operators], *, on_failed: OnFailed | None = None
) -> Callable[[Observable[Message[Any]]], Any]:
    """Send each message through the branch that it names (`Message.put_batcher`).

    This is ``group_by`` and ``flat_map``, but bounded: the branches are known from the start, and
    what they emit is merged again, one item at a time.

    ::

        source                    --1--2a-3--4a-5b-|       2 and 4 name the branch a, 5 names b
        route({"default": f,      --f--g--f--g-----|       there is no branch b: 5 fails
               "a": g})

    ::

        tweets.pipe(
            ops.process(handler),
            ops.route({
                "default": [ops.batch(20, 2.0), ops.deliver(database, 2)],
                "alerts": [ops.batch(1, name="alerts"), ops.deliver(post, 1)],
            }),
        )

    A message that names a branch that does not exist fails: it is counted, reported
    (`events.HandlerFailed`) and acknowledged as failed, and the others go on. So long as a branch
    makes its source wait, the others get nothing either, as nothing here is without bound: give
    slow ones ``deliver(…, 1, waiting=100)``, which has a thread and a line of its own.

    Args:
        branches: an operator, or a list of them, for each name. All end in the same kind of
            operator: in `process` and its like, in `batch`, or in `deliver`; what comes out is
            what these give.
        on_failed: is given messages that name no branch, before they are acknowledged; returns as
            many.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    if not isinstance(branches, Mapping) or not branches:
        raise ConfigurationError(f"branches={branches!r}: give at least one operator by name")
    named = {name: operators_of(f"branches[{name!r}]", each) for name, each in branches.items()}
    known = ", ".join(map(repr, named))
    unnamed = "" if "default" in named else "; a handler chooses by message.put_batcher(name)"

    def sort(chunk: list[Message[Any]]) -> tuple[dict[str, list[Message[Any]]], Any]:
        parts: dict[str, list[Message[Any]]] = {}
        failed: list[Message[Any]] = []
        if "default" in named and are_plain(chunk):
            return {"default": chunk}, failed
        for message in chunk:
            name = message.batcher
            if name in named:
                parts.setdefault(name, []).append(message)
            else:
                reason = f"there is no batcher {name!r}; known: {known}{unnamed}"
                failed.append(message.failed(HandlerError(reason)))
        return parts, failed

    return branching(named, sort, on_failed)
