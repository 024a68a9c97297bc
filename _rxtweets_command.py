"""The command ``rxtweets``, outside of the package, since the package takes 0.3 s to import.

Until the command runs, Ctrl-C exits at once; after the command, Ctrl-C does nothing. Between, it
raises `KeyboardInterrupt`, unless the command has its own handler.
"""

import _signal  # the module signal imports others, in which Ctrl-C would raise
import os

ABANDONED = 130


def _exit(_number: int, _frame: object) -> None:
    os._exit(ABANDONED)


is_ignored = _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler  # by nohup
if not is_ignored:
    _signal.signal(_signal.SIGINT, _exit)


def main() -> int:
    """Import and run the command line; return the exit code."""
    from rxtweets.cli import main as run  # noqa: PLC0415 - it takes the time that is guarded

    if is_ignored:
        return run()
    try:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        code = run()
    except KeyboardInterrupt:
        code = ABANDONED
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    return code
