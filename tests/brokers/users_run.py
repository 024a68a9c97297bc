"""The run as users have it: commands as processes, a broker and a table, with kills.

A simulator serves tweets, ``rxtweets ingest`` stores them in JetStream, and ``rxtweets work`` moves
them to PostgreSQL. A worker process is killed again and again, and the broker once. At the end each
tweet is in the table once.

The broker is started here. The table is in a schema of its own, in the database of
RXTWEETS_TEST_POSTGRES. CPU is that of all processes, without PostgreSQL. The exit code is 1 if a
tweet is missing or double, or if a command fails.

Usage: python -m tests.brokers.users_run [--tweets 200000] [--seed 1] [--rate 4000] ...
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import psycopg

from rxtweets import Batch, Message, brokers
from rxtweets.errors import BrokerUnavailable
from rxtweets.simulator import Tweets
from rxtweets.subscribers._postgres import POSTGRES_TYPES
from rxtweets.subscribers._sql import create_table_sql
from tests.brokers.nats_server import NatsServer, nats_server
from tests.brokers.waiting import eventually
from tests.subscribers.conftest import postgres_schema

__all__ = ["Outcome", "Plan", "run"]

Say = Callable[[str], object]

ROOT = Path(__file__).parents[2]

PATIENCE = 900.0
"""Seconds of a run."""

LOOK = 0.2
"""Seconds between two looks at the processes."""

COUNT_WRITES = """
CREATE TABLE writes (id text);
CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NEW; END';
CREATE TRIGGER count_write BEFORE INSERT ON tweets FOR EACH ROW EXECUTE FUNCTION count_write();
"""
"""A row for each time that a tweet is stored; the table has it once."""


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        tweets: their number.
        seed: of the texts, and of the workers that are killed.
        rate: tweets a second of the simulator.
        processes: workers.
        kill_every: seconds between two kills of a worker.
        outage: seconds from the kill of the broker, when it has got half, to its restart.
        lease: seconds until the messages of a killed worker are delivered again.
    """

    tweets: int = 200_000
    seed: int = 1
    rate: float = 4000.0
    processes: int = 4
    kill_every: float = 5.0
    outage: float = 2.0
    lease: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        missing: tweets that are not in the table.
        strange: rows of the table beyond one for each tweet.
        doubles: times that a tweet was stored again.
        dead: dead letters.
        kills: of workers.
        codes: exit codes of the commands.
        said: their standard error.
        seconds: from the start of ``rxtweets ingest`` to an empty queue.
        cpu: seconds of all processes.
    """

    missing: int
    strange: int
    doubles: int
    dead: int
    kills: int
    codes: dict[str, int]
    said: dict[str, str]
    seconds: float
    cpu: float

    @property
    def is_good(self) -> bool:
        """Each tweet is in the table once, and no command reports a failure."""
        return not (self.missing or self.strange or self.dead or any(self.codes.values()))


class Command:
    """A command of rxtweets that runs; its standard error goes to a file."""

    def __init__(self, directory: Path, name: str, *arguments: object) -> None:
        self.name = name
        self._said = directory / f"{name}.txt"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rxtweets", name, *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT,
            )  # fmt: skip

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self._said.read_text()

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return self.process.poll() is None

    def first_line(self) -> str:
        """Return the first line of its standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        if self.is_running:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it and its processes, as far as they run."""
        if self.is_running:
            children = psutil.Process(self.process.pid).children()
            self.process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        with self.process:
            pass


class Disturbance:
    """Kills a worker every few seconds, and the broker once, when half of the tweets are in it."""

    def __init__(self, plan: Plan, work: Command, server: NatsServer, say: Say) -> None:
        self._plan = plan
        self._work = psutil.Process(work.process.pid)
        self._server = server
        self._say = say
        self._moments = random.Random(plan.seed)
        self._next = time.monotonic() + plan.kill_every
        self._stored = 0
        self._was_away = False
        self.kills = 0

    def step(self, stored: int, waiting: int) -> None:
        """Kill what is due."""
        if not self._was_away and stored + waiting >= self._plan.tweets // 2:
            self._was_away = True
            self._server.kill()
            self._say(
                f"killed the broker for {self._plan.outage:g} s, {stored:,} are stored, "
                f"and {waiting:,} are in the queue"
            )
            time.sleep(self._plan.outage)
            self._server.start()
        if time.monotonic() >= self._next and stored > self._stored:
            self._next = time.monotonic() + self._plan.kill_every
            self._stored = stored  # on a busy machine, kills could come before any work
            if workers := self._work.children():
                victim = self._moments.choice(workers)
                victim.kill()
                self.kills += 1
                self._say(f"killed worker process {victim.pid}, {stored:,} are stored")


def run(plan: Plan, postgres: str, directory: Path, say: Say = print) -> Outcome:
    """Run it.

    Args:
        plan: of the run.
        postgres: connection string of an empty schema.
        directory: for files.
        say: takes a line about the run.
    """
    before = cpu_of_ended()
    with ExitStack() as stack:
        server = stack.enter_context(nats_server())
        table = stack.enter_context(psycopg.connect(postgres, autocommit=True))
        tweets = prepare(plan, table, directory)

        def start(name: str, *arguments: object) -> Command:
            command = Command(directory, name, *arguments)
            stack.callback(command.kill)
            return command

        simulate = start("simulate", "--json", "--port", 0, "--rate", plan.rate,
                         "--burst", 20, "--from", directory / "tweets.jsonl")  # fmt: skip
        source = json.loads(simulate.first_line())["url"]
        url = f"nats://127.0.0.1:{server.port}/TWEETS"
        queue = brokers.connect(url, groups=["default"])
        work = start("work", url, "--store", postgres, "--processes", plan.processes,
                     "--lease", plan.lease)  # fmt: skip
        publish(queue, tweets[0])
        eventually(lambda: count_in(table, "tweets"), lambda: work.said, PATIENCE)
        started = time.monotonic()

        def say_when(line: str) -> None:
            say(f"{time.monotonic() - started:6.1f} s  {line}")

        ingest = start("ingest", url, "--source", source, "--limit", plan.tweets,
                       "--overflow", "block", "--spool", directory / "spool")  # fmt: skip
        disturbance = Disturbance(plan, work, server, say_when)
        work_until_empty(
            queue,
            ingest,
            work,
            lambda waiting: disturbance.step(count_in(table, "tweets"), waiting),
        )
        say_when(f"the queue is empty, {count_in(table, 'tweets'):,} are stored")
        seconds = time.monotonic() - started
        commands = (ingest, work, simulate)
        codes = {command.name: command.end() for command in commands}
        rows = Counter(key for (key,) in table.execute("SELECT id FROM tweets"))
        doubles = count_in(table, "writes") - rows.total()
        dead = len(queue.dead_letters)
        ids = Counter(tweet.id for tweet in tweets)
    return Outcome(
        missing=(ids - rows).total(),
        strange=(rows - ids).total(),
        doubles=doubles,
        dead=dead,
        kills=disturbance.kills,
        codes=codes,
        said={command.name: command.said for command in commands},
        seconds=seconds,
        cpu=cpu_of_ended() - before,
    )


def prepare(plan: Plan, table: psycopg.Connection[Any], directory: Path) -> list[Message[str]]:
    """Make the recording and the table; return the tweets."""
    frames = Tweets(plan.seed).frames(0, plan.tweets)
    (directory / "tweets.jsonl").write_bytes(b"\n".join([*frames, b""]))
    table.execute(create_table_sql("tweets", POSTGRES_TYPES))
    table.execute(COUNT_WRITES)
    return [Message.from_line(frame) for frame in frames]


def publish(queue: brokers.Queue, tweet: Message[str]) -> None:
    """Publish a tweet, which is there before its copy from the simulator."""
    publisher = queue.publisher()
    publisher.on_next(Batch([tweet]))
    publisher.on_completed()


def work_until_empty(
    queue: brokers.Queue, ingest: Command, work: Command, disturb: Callable[[int], object]
) -> None:
    """Look at the processes until all tweets are handled, or there is no hope.

    There are no kills while messages of killed workers wait for the end of their leases alone.
    """
    deadline = time.monotonic() + PATIENCE
    while work.is_running and time.monotonic() < deadline:
        time.sleep(LOOK)
        try:
            backlog = queue.backlog()["default"]
        except BrokerUnavailable:  # it has just started again
            continue
        if ingest.is_running or backlog.pending:
            disturb(backlog.pending + backlog.in_flight)
        elif not backlog.in_flight:
            return


def count_in(table: psycopg.Connection[Any], name: str) -> int:
    """Return the number of rows."""
    [count] = table.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
    return int(count)


def cpu_of_ended() -> float:
    """Return the seconds of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Run and print; return the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for option in fields(Plan):
        name, default = f"--{option.name.replace('_', '-')}", option.default
        parser.add_argument(name, type=type(default), default=default)
    plan = Plan(**vars(parser.parse_args()))
    say = partial(print, flush=True)
    with postgres_schema() as postgres, TemporaryDirectory() as directory:
        outcome = run(plan, postgres, Path(directory), say)
    for name, said in outcome.said.items():
        say(f"rxtweets {name} wrote, and ended with {outcome.codes[name]}:\n{said}")
    say(
        f"{plan.tweets:,} tweets in {outcome.seconds:.1f} s, "
        f"{plan.tweets / outcome.seconds:,.0f}/s, {outcome.cpu:.1f} s of CPU\n"
        f"workers killed {outcome.kills}, stored again {outcome.doubles:,}, "
        f"dead letters {outcome.dead}\n"
        f"missing {outcome.missing:,}, not published {outcome.strange:,}: "
        f"{'each tweet is in the table once' if outcome.is_good else 'FAILED'}"
    )
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
