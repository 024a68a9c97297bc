"""Print a script that completes commands and options in a shell.

Print a script for bash, zsh, fish or tcsh. It needs the extra completion, only here:
pip install 'rxtweets[completion]'. Store the script where the shell finds it:

  rxtweets completion bash > ~/.local/share/bash-completion/completions/rxtweets
  rxtweets completion zsh > ~/.zfunc/_rxtweets          # a directory of $fpath, before compinit
  rxtweets completion fish > ~/.config/fish/completions/rxtweets.fish
"""

from __future__ import annotations

import argparse

from rxtweets._support.optional_imports import needed
from rxtweets.cli._command import ENDED, write

__all__ = ["add_arguments"]

SHELLS = ("bash", "zsh", "fish", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script; return the exit code.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    shtab = needed("shtab", "completion")
    _complete_paths(options.parser, {"FILE": shtab.FILE, "DIR": shtab.DIR})
    write(shtab.complete(options.parser, options.shell))
    return ENDED


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[str, dict[str, str]]) -> None:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - nor of subcommands
            for command in set(action.choices.values()):
                _complete_paths(command, kinds)
        elif (kind := kinds.get(str(action.metavar))) is not None:
            setattr(action, "complete", kind)  # noqa: B010 - an attribute that shtab defines
