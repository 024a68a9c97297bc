"""Ctrl-C at seeded moments of a command: in its imports, in its start, and while it runs.

A moment is a number of calls of Python functions, so the speed of the machine does not move it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import rxtweets

PROGRAM = """
import os, signal, sys
from _rxtweets_command import main
moment, begins_in_main = int(sys.argv.pop(1)), sys.argv.pop(1) == "main"

def count(frame, event, _):
    global moment, begins_in_main
    if begins_in_main and frame.f_code.co_filename.endswith("_main.py"):
        begins_in_main = frame.f_code.co_name != "main"
    if event == "call" and not begins_in_main:
        moment -= 1
        if moment == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(count)
code = main()
sys.setprofile(None)
sys.exit(code)
"""

BEFORE_MODULE = """
import os, signal, sys
moment, is_inside = {moment}, False

def count(frame, event, _):
    global moment, is_inside
    is_inside = is_inside or frame.f_code.co_filename == {package!r}
    if event == "call" and is_inside:
        moment -= 1
        if moment == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(count)
"""

COMMANDS = {
    "run": ["run", "--limit", "50", "--quiet"],
    "simulate": ["simulate", "--port", "0"],
    "ingest": ["ingest", "sqlite:tweets.queue", "--limit", "50"],
    "work": ["work", "sqlite:tweets.queue", "--store", "jsonl:tweets.jsonl"],
}


def interrupted(
    command: list[str], moment: int, begin: str, directory: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(moment), begin, *command],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.parametrize("moment", random.Random(3).sample(range(1, 30_000), 2))
def test_ctrl_c_during_imports_exits_with_130(moment: int, tmp_path: Path) -> None:
    done = interrupted(COMMANDS["run"], moment, "import", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("moment", random.Random(4).sample(range(1, 12_000), 1))
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c_in_a_command_shows_no_traceback(
    command: list[str], moment: int, tmp_path: Path
) -> None:
    done = interrupted(command, moment, "main", tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 130}  # 0 for a drain, when the command runs


@pytest.mark.parametrize("moment", random.Random(5).sample(range(1_000, 30_000), 2))
def test_ctrl_c_in_imports_of_the_module_exits_with_130(moment: int, tmp_path: Path) -> None:
    text = BEFORE_MODULE.format(moment=moment, package=rxtweets.__file__)
    (tmp_path / "sitecustomize.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "rxtweets", *COMMANDS["run"]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_is_ignored_under_nohup(tmp_path: Path) -> None:
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program, "100", "import", *COMMANDS["run"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0
    assert "delivered 50" in done.stderr
