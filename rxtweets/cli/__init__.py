"""The command line: one file a command.

May import: everything else.
"""

from rxtweets.cli._main import main

__all__ = ["main"]
