"""What executors run: a chunk of calls; how it gets there and back."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from rxtweets._messages.message import Message
from rxtweets.errors import DeadlineExceeded, HandlerError
from rxtweets.operators._calls import checked

__all__ = ["Answer", "Task", "pack", "run", "run_packed", "unpack"]

Task = tuple[Message[Any], float | None]
"""A message and its deadline, in seconds since 1970."""

Answer = tuple[list[Any], float]
"""For each message what the handler returned, or the exception; and the seconds it all took."""


def run(function: Callable[[Any], Any], name: str, tasks: Sequence[Task]) -> Answer:
    """Call the function for each message; never raises."""
    started = time.perf_counter()
    answers = [_call(function, name, message, due) for message, due in tasks]
    return answers, time.perf_counter() - started


def run_packed(function: Callable[[Any], Any], name: str, packed: bytes) -> bytes:
    """The same in another process: messages are pickled, there and back.

    Done by us, so that one message that cannot be pickled does not take a chunk with it. The
    function travels as the executor likes, as some know more ways than pickle.
    """
    tasks = pickle.loads(packed)  # noqa: S301 - made by `pack`, in our own program
    answers, seconds = run(function, name, tasks)
    # Of exceptions some can be pickled, but not be read again.
    answers = [_picklable(each, name) if _is_error(each) else each for each in answers]
    try:
        return pickle.dumps((answers, seconds))
    except Exception:  # noqa: BLE001 - whatever __reduce__ of a user's class raises
        return pickle.dumps(([_picklable(each, name) for each in answers], seconds))


def pack(tasks: Sequence[Task]) -> bytes:
    """What `run_packed` takes.

    Raises:
        Exception: whatever `pickle` raises on what cannot be pickled.
    """
    return pickle.dumps(list(tasks))


def unpack(packed: bytes) -> Answer:
    """What `run_packed` gave."""
    answer: Answer = pickle.loads(packed)  # noqa: S301 - made by `run_packed`
    return answer


def _call(function: Callable[[Any], Any], name: str, message: Message[Any], due: Any) -> Any:
    late = 0.0 if due is None else time.time() - due
    if late > 0:
        return DeadlineExceeded(f"{late:.3f} s past its deadline; not handled")
    try:
        return checked(function(message), message, name)
    except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
        return _with_traceback(error)


def _with_traceback(error: BaseException) -> BaseException:
    """Pickling loses the traceback; its text stays with the exception as a note."""
    error.add_note("in the executor:\n" + "".join(traceback.format_exception(error)))
    return error.with_traceback(None)


def _is_error(answer: Any) -> bool:
    return isinstance(answer, BaseException)


def _picklable(answer: Any, name: str) -> Any:
    try:
        pickle.loads(pickle.dumps(answer))  # noqa: S301 - our own, and some only fail on the way back
    except Exception as error:  # noqa: BLE001 - whatever __reduce__ of a user's class raises
        what = "raised" if _is_error(answer) else "returned"
        return HandlerError(f"{name} {what} what cannot be pickled: {answer!r}: {error}")
    return answer
