"""The processes of one command: started, restarted when they die, and drained.

A process that dies is replaced after 0.5 s, doubled with each death until one has lived for ten
seconds, up to 30 s. The parent never kills a process that drains: each has its own limit of time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from rxtweets._core.stats import Stats
from rxtweets._support.workers import start_thread
from rxtweets.cli._command import ABANDONED, ENDED, FAILED, USAGE
from rxtweets.cli._worker import Place
from rxtweets.dashboard._cards import ReportedCard, Values

__all__ = ["Workers"]

START = """\
import os, sys
sys.path[:] = sys.argv.pop(1).split(os.pathsep)
from rxtweets.cli import main
sys.exit(main())
"""
"""Not ``-m rxtweets``, which takes a ``queue.py`` of the current directory for Python's own."""

POLL = 0.1
"""Seconds between checks of the processes."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds until a dead process is replaced."""

LONG_LIFE = 10.0
"""Seconds after which a death is the first one again."""

PATIENCE = 5.0
"""Seconds until a process that was stopped is killed."""


class Workers:
    """Runs the processes of a command.

    Args:
        arguments: of the command line. The first one names the command, which has the option
            ``--watched PLACE``.
        processes: their number.
        say: writes a line about a process.
        relays: write the standard error of the processes by ``say`` too, since another line of the
            same terminal is redrawn.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        processes: int,
        say: Callable[[str], object],
        *,
        relays: bool = False,
    ) -> None:
        relay = say if relays else None
        self._workers = [_Worker(number, arguments, relay) for number in range(1, processes + 1)]
        self._say = say
        self._ending = threading.Event()
        self._signals: list[int] = []
        """A handler appends: the lock of an event may be held by the code that it interrupts."""

    @property
    def running(self) -> int:
        """Processes that run now."""
        return sum(worker.is_running for worker in self._workers)

    def are_idle(self) -> bool:
        """Return whether all processes say so that run now."""
        return all(worker.is_idle for worker in self._workers if worker.is_running)

    @property
    def restarts(self) -> int:
        """Processes that were started in place of dead ones."""
        return sum(worker.restarts for worker in self._workers)

    def figures(self) -> Counter[str]:
        """Return the sum of the figures of all processes, dead ones included."""
        total: Counter[str] = Counter()
        for worker in self._workers:
            total.update(worker.figures())
        return total

    def cards(self) -> list[ReportedCard]:
        """Return what a dashboard shows of the processes, if they report it."""
        return [worker.card() for worker in self._workers]

    def drain(self) -> None:
        """End all processes after their messages in flight; from any thread."""
        self._ending.set()

    def run(self) -> int:
        """Run until `drain`, or SIGINT or SIGTERM, which drain; a second one stops immediately.

        Returns:
            The exit code: that of a process that could not start, or 1 if one died in the drain.
        """
        with self._handlers():
            try:
                code = self._watch()
                return self._drain() or code
            finally:
                for worker in self._workers:
                    worker.kill()

    @contextlib.contextmanager
    def _handlers(self) -> Iterator[None]:
        def handle(number: int, _: object) -> None:
            self._signals.append(number)

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self) -> int:
        """Keep all processes running; return the exit code of one that cannot start."""
        first, *others = self._workers
        first.start()
        while not (self._ending.wait(POLL) or self._signals):
            if first.was_ready:  # else each process would report the same mistake
                for worker in others:
                    if not worker.was_started:
                        worker.start()
            for worker in self._workers:
                code = worker.tend(self._say)
                if code == USAGE or (code is not None and not first.was_ready):
                    return worker.give_up(code, self._say)
                if code is not None:
                    worker.plan_restart(code, self._say)
        return ENDED

    def _drain(self) -> int:
        seen = len(self._signals)
        if seen and self.running:
            self._say("rxtweets: the workers drain; a second signal stops them immediately")
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        while self.running:
            if len(self._signals) > seen:
                self._stop()
                return ABANDONED
            time.sleep(POLL)
        return FAILED if any(worker.failed_to_drain(self._say) for worker in self._workers) else 0

    def _stop(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL)


class _Worker:
    """The place of a worker: the process in it now, and the figures of all that were in it."""

    def __init__(
        self, number: int, arguments: Sequence[str], relay: Callable[[str], object] | None
    ) -> None:
        self._number = number
        self._relay = relay
        self._command, *self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
        self._started = 0.0
        self._deaths = 0
        self._restart_at: float | None = None
        self._before: Counter[str] = Counter()
        self._current: Counter[str] = Counter()
        self._reported: tuple[Stats, Values] | None = None
        self.was_started = False
        self.was_ready = False
        self.is_idle = False
        self.restarts = 0

    @property
    def is_running(self) -> bool:
        process = self._process  # another thread may settle it
        return process is not None and process.poll() is None

    def figures(self) -> Counter[str]:
        total = self._before.copy()
        total.update(self._current)
        return total

    def card(self) -> ReportedCard:
        """Return what a dashboard shows of the process in this place."""
        return ReportedCard(
            f"worker {self._number}", lambda: self._reported, lambda: self.is_running
        )

    def start(self) -> None:
        """Start a process.

        Raises:
            OSError: the system starts no more processes.
        """
        self.was_started = True
        self.is_idle = False
        self._started = time.monotonic()
        reading, writing = os.pipe()
        place = Place(self._number, os.getpid(), writing)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    *(sys.executable, "-P", "-c", START, os.pathsep.join(sys.path)),
                    *(self._command, "--watched", str(place), *self._arguments),
                ],
                stdin=subprocess.DEVNULL,
                stderr=None if self._relay is None else subprocess.PIPE,
                pass_fds=[writing],
                process_group=0,  # Ctrl-C in a terminal reaches the parent alone
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        name, said = f"rxtweets-worker-{self._number}", self._process.stderr
        self._readers = [start_thread(name, lambda: self._read(reading))]
        if said is not None:
            self._readers.append(start_thread(name, lambda: self._relay_lines(said)))

    def tend(self, say: Callable[[str], object]) -> int | None:
        """Start the process that is planned, if it is due.

        Returns:
            The exit code of a process that has died, once; ``None`` if it runs or waits.
        """
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self._restart(say)
            return None
        if self._process is None or self._process.poll() is None:
            return None
        return self._settle(self._process)

    def plan_restart(self, code: int, say: Callable[[str], object]) -> None:
        """Plan a process in place of the one that has died."""
        say(f"{self._ended(code)}; another one starts in {self._wait():g} s")

    def give_up(self, code: int, say: Callable[[str], object]) -> int:
        """Return the exit code of the command for that of a process that cannot start."""
        if code >= 0:
            return code  # the process has written the reason
        say(f"{self._ended(code)} before it was ready")
        return FAILED

    def _restart(self, say: Callable[[str], object]) -> None:
        self._restart_at = None
        try:
            self.start()
            self.restarts += 1
        except OSError as error:  # too many processes or open files
            say(f"rxtweets: worker {self._number}: {error}; again in {self._wait():g} s")

    def _wait(self) -> float:
        """Return the seconds until the next start, which is planned."""
        now = time.monotonic()
        self._deaths = self._deaths + 1 if now - self._started < LONG_LIFE else 1
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._deaths - 1, 10))
        self._restart_at = now + seconds
        return seconds

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

    def failed_to_drain(self, say: Callable[[str], object]) -> bool:
        """Return whether the process died in the drain, and report it."""
        if self._process is None:
            return False
        code = self._settle(self._process)
        # Without a handler for the signal, it had not begun to work.
        if code in {ENDED, -signal.SIGTERM}:
            return False
        say(f"{self._ended(code)} while it drained")
        return True

    def kill(self) -> None:
        """Kill a process that is left after all."""
        if self._process is not None:
            self._process.kill()
            self._settle(self._process)

    def _settle(self, process: subprocess.Popen[bytes]) -> int:
        """Add the last figures of a process that has ended; return its exit code."""
        code = process.wait()
        self._process = None
        for reader in self._readers:
            reader.join(PATIENCE)  # a process that a handler started can hold the pipes open
        self._before.update(self._current)
        self._current = Counter()
        return code

    def _ended(self, code: int) -> str:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"rxtweets: worker {self._number} ended {how}"

    def _relay_lines(self, said: IO[bytes]) -> None:
        with said:
            for line in said:
                if self._relay is not None:
                    self._relay(line.decode(errors="replace").rstrip("\n"))

    def _read(self, pipe: int) -> None:
        with open(pipe, "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # cut off by a kill
                    report = json.loads(line)
                    self._current = Counter(report["figures"])
                    self.is_idle = report["is_idle"]
                    if "card" in report:
                        self._reported = Stats(**report["stats"]), report["card"]
                    self.was_ready = True
