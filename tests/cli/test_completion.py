"""The scripts of ``rxtweets completion``, completed by the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rxtweets.cli import main

BASH = """
source "$1"
COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_rxtweets
printf '%s\\n' "${COMPREPLY[@]}"
"""

FISH = "source $argv[1]; complete --do-complete $argv[2]"

ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=(${1:h} \\$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "report() { print -r -- \\$BUFFER > ${1:h}/line; exit }"
zpty -w shell "zle -N report; bindkey '^X' report"
zpty -w -n shell "$2"$'\\t\\C-x'
while zpty -r shell output; do :; done
for word in $(<${1:h}/line); do :; done
print -r -- $word
"""


def of_bash(script: Path, line: str) -> set[str]:
    return lines_of("bash", "--norc", "-c", BASH, "bash", str(script), line)


def of_fish(script: Path, line: str) -> set[str]:
    shown = lines_of("fish", "--no-config", "-c", FISH, str(script), line)
    return {text.partition("\t")[0] for text in shown}


def of_zsh(script: Path, line: str) -> set[str]:
    return lines_of("zsh", "-f", "-c", ZSH, "zsh", str(script), line)


def lines_of(shell: str, *arguments: str) -> set[str]:
    if shutil.which(shell) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, *arguments], capture_output=True, text=True, check=True, timeout=50
    )
    return set(done.stdout.split("\n")) - {""}


@pytest.fixture(params=[of_bash, of_fish, of_zsh], ids=["bash", "fish", "zsh"])
def complete(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], set[str]]:
    """Words that a shell offers for the last word of a line."""
    shell = request.param.__name__.removeprefix("of_")
    assert main(["completion", shell]) == 0
    script = tmp_path / "_rxtweets"  # zsh's name
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    return lambda line: {word.strip() for word in request.param(script, line)}


def test_shell_completes_a_command(complete: Callable[[str], set[str]]) -> None:
    assert complete("rxtweets simu") == {"simulate"}


def test_shell_completes_an_option(complete: Callable[[str], set[str]]) -> None:
    assert complete("rxtweets simulate --tls-c") == {"--tls-cert"}


def test_shell_completes_an_option_of_a_subcommand(complete: Callable[[str], set[str]]) -> None:
    assert complete("rxtweets rules sync --dry") == {"--dry-run"}


def test_shell_completes_a_file(
    complete: Callable[[str], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recorded.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert complete("rxtweets replay recor") == {"recorded.jsonl"}


def test_completion_needs_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'rxtweets[completion]'" in capsys.readouterr().err
