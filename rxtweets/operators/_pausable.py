"""`pausable`: holds messages back while a valve is paused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxtweets._core.observable import MessageStream
from rxtweets._core.valve import Valve
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError
from rxtweets.operators._gate import gated

__all__ = ["pausable"]

T = TypeVar("T")


def pausable(valve: Valve) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let messages pass while the valve is open; while it is paused they wait, in order.

    ::

        source           --1--2-----3--4--5--|
        valve            ------pause----resume
        pausable(valve)  --1--2---------34-5-|

    A pause reaches the source. X's stream fills its buffer until its overflow policy applies. A
    source that can wait (`rxtweets.polling_source`) is not asked. A source that emits on a thread
    of the user blocks that thread. On a scheduler of virtual time messages queue here, since a
    scheduler must not be blocked. Draining ignores pauses.

    Args:
        valve: pauses and resumes; several streams can share it.

    Returns:
        An operator.

    Raises:
        ConfigurationError: ``valve`` is no `rxtweets.Valve`.
    """
    if not isinstance(valve, Valve):
        raise ConfigurationError(f"valve={valve!r}: give a rxtweets.Valve")
    return gated(valve, "pause")
