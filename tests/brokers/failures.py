"""Rounds of failures, with real processes on real brokers.

::

    python -m tests.brokers.failures --engine jetstream --failure kill-broker --rounds 10 --seed 1

A round has one process that publishes, and three workers. The seed decides the moments, and whether
the publisher has a spool. Each message that was acknowledged to the publisher must be stored by the
broker, and be handled at least once. It is handled again only if it was redelivered, or published
again. Each process must notice a failure within 10 s, continue when it is over, and end without a
thread left. Each round prints a line; at the end there is a row of a table for each pair. The exit
status is 1 if one round broke a rule.
"""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import pytest

from rxtweets import Batch, Message
from rxtweets.errors import BrokerUnavailable
from tests.brokers._failing import SIZE, tweets_from
from tests.brokers._killed import RECEIVED
from tests.brokers.outages import BROKERS
from tests.brokers.rounds import HANGS, MOST, Failure, Round, median_and_worst, scene

__all__ = ["FAILURES", "WITHOUT"]

Messages = Sequence[Message[str]]

# The failures.


def kill_ingest(round_: Round) -> None:
    for _ in range(round_.times):
        round_.moment(0.3)
        round_.act("killed the ingest")
        round_.replace(round_.ingest)
        round_.wait_for_traffic("the kill")


def kill_worker(round_: Round) -> None:
    for _ in range(round_.times):
        round_.moment(0.5)
        round_.act("killed a worker")
        round_.replace(round_.chance.choice(round_.workers))
        round_.wait_for_traffic("the kill")


def kill_broker(round_: Round) -> None:
    server = round_.scene.server
    for _ in range(round_.times):
        round_.moment(1.0)
        with round_.outage("killed the broker"):
            server.kill()
            round_.moment(2.0)
            server.start()


def hang_broker(round_: Round) -> None:
    server = round_.scene.server
    round_.moment(1.0)
    with round_.outage("suspended the broker"):
        server.suspend()
        time.sleep(round_.lasting(20.0))  # the length of the outage
        server.resume()


def cut_network(round_: Round) -> None:
    network = round_.scene.network
    assert network is not None
    round_.moment(1.0)
    end = round_.chance.randrange(2)
    with round_.outage(f"cut the network at {('our', 'its')[end]} end"):
        network.cut(end)
        time.sleep(round_.lasting(30.0))  # the length of the outage
        network.restore(end)


def keep_spool(round_: Round) -> None:
    round_.spool = round_.spool or str(round_.directory / "spool")


def fill_disk(round_: Round) -> None:
    with plain_publisher(round_) as publish:
        next_batch = tweets_from(0, RECEIVED + 3600)
        with round_.outage("filled the disk") as began:
            round_.scene.store.fill()
            while not (refused := publish(next_batch())):
                continue
            round_.act("a plain publisher failed")
            round_.wait(lambda: round_.ingest.first("failed", began), "the ingest has not failed")
            acked = len(round_.words("acked"))
            round_.wait(lambda: len(round_.words("acked")) > acked + 5 * SIZE, "no spool is used")
            round_.scene.store.clear()
            if round_.scene.broker.restarts:
                round_.scene.server.kill()
                round_.scene.server.start()
        round_.wait(lambda: not publish(refused), "a plain publisher fails still")


@contextmanager
def plain_publisher(round_: Round) -> Iterator[Callable[[Messages], Messages]]:
    """Give a function that publishes messages, and returns those that are not stored."""
    queue = round_.connect()
    publisher = queue.publisher()

    def publish(messages: Messages) -> Messages:
        round_.put_here += [message.id for message in messages]
        try:
            returned = publisher.on_next(Batch(messages)) or ()
        except BrokerUnavailable:
            return messages
        failed = {message.id for message in returned if message.is_failed}
        round_.acked_here |= {message.id for message in messages} - failed
        return [message for message in messages if message.id in failed]

    yield publish
    publisher.on_completed()
    queue.close()


def poison(kind: str, **options: float) -> Callable[[Round], None]:
    def prepare(round_: Round) -> None:
        at = round_.chance.randrange(100, 200)
        round_.poison = {tweets_from(at)()[0].id: kind}
        round_.options = {"max_deliver": 3, **options}
        round_.workers_end = kind != "raise"
        if kind == "exit":  # others in flight may become dead letters too
            round_.options["max_in_flight"] = round_.chance.choice([5, MOST])

    return prepare


LETTERS = {"raise": (3, "ValueError"), "exit": (4, "Redelivered"), "hang": (3, "HandlerTimeout")}
"""Attempts and error of the dead letter of each kind of poison."""


def await_dead_letter(round_: Round) -> None:
    [(key, kind)] = round_.poison.items()

    def is_dead() -> bool:
        is_letter = key in round_.dead()  # first, so that no worker ends after the look at them
        for worker in [one for one in round_.workers if not one.process.is_alive()]:
            round_.act("a worker has ended")
            round_.replace(worker)
        return is_letter

    round_.wait(is_dead, "the poison is no dead letter")
    [letter] = [letter for letter in round_.queue.dead_letters if letter.key == key]
    round_.act(f"dead letter after {letter.attempts} attempts")
    attempts, error = LETTERS[kind]
    assert letter.attempts == attempts, letter
    assert letter.error.startswith(error), letter
    assert key not in round_.words("handled"), "the poison was handled"
    round_.wait_for_traffic("the dead letter")
    assert len(round_.dead()) <= round_.options.get("max_in_flight", 1), "others are dead too"


FAILURES = {
    failure.name: failure
    for failure in (
        Failure("kill-ingest", kill_ingest),
        Failure("kill-worker", kill_worker),
        Failure("kill-broker", kill_broker),
        Failure("hang-broker", hang_broker),
        Failure("cut-network", cut_network, needs="network"),
        Failure("full-disk", fill_disk, keep_spool, needs="store"),
        Failure("poison-raises", await_dead_letter, poison("raise")),
        Failure("poison-exits", await_dead_letter, poison("exit")),
        Failure("poison-hangs", await_dead_letter, poison("hang", max_lease=1.0)),
    )
}

WITHOUT = {
    ("sqlite", "kill-broker"): "it has no process",
    ("sqlite", "hang-broker"): "it has no process",
    ("sqlite", "cut-network"): "its file is on a local disk",
}
"""Pairs that make no sense, and why."""


# The program.


def main() -> None:
    """Run rounds of each pair; exit with 1 if one of them broke a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=BROKERS, action="append", help="default: all")
    parser.add_argument("--failure", choices=FAILURES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=1, help="of each pair")
    parser.add_argument("--seed", type=int, required=True, help="of the first round")
    parser.add_argument("--seconds", type=float, help="of an outage; default: 20, or 30 for cuts")
    parser.add_argument("--times", type=int, default=3, help="kills of a round")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # brokers must end
    rounds = [
        round_
        for engine in options.engine or BROKERS
        for needs in ("", "network", "store")
        for round_ in rounds_on(engine, needs, options)
    ]
    pairs = groupby(rounds, lambda round_: (round_.scene.engine, round_.failure.name))
    broken = sum(bool(round_.problems) for round_ in rounds)
    rows = [row_of(*pair, list(group)) for pair, group in pairs]
    say(HEAD, *rows, f"{broken} rounds broke a rule", indent="")
    sys.exit(bool(broken))


def rounds_on(engine: str, needs: str, options: argparse.Namespace) -> list[Round]:
    """Run the rounds of all failures with the same needs, on one broker."""
    failures = [
        failure
        for name, failure in FAILURES.items()
        if name in (options.failure or FAILURES) and failure.needs == needs
    ]
    for failure in failures:
        if reason := WITHOUT.get((engine, failure.name)):
            say(f"{engine} {failure.name}: not possible: {reason}")
    failures = [failure for failure in failures if (engine, failure.name) not in WITHOUT]
    rounds: list[Round] = []
    if not failures:
        return rounds
    try:
        with scene(engine, needs) as made:
            for failure in failures:
                for seed in range(options.seed, options.seed + options.rounds):
                    rounds.append(Round(made, failure, seed, options.seconds, options.times))
                    run(rounds[-1], seed)
    except pytest.skip.Exception as skipped:
        say(f"{engine} {' '.join(one.name for one in failures)}: skipped: {skipped}")
    return rounds


def run(round_: Round, seed: int) -> None:
    """Run a round, and say how it was."""
    faulthandler.dump_traceback_later(5 * HANGS)
    round_.run()
    faulthandler.cancel_dump_traceback_later()
    how = "spool" if round_.spool else "plain"
    done = ", ".join(round_.actions)
    say(
        f"{round_.scene.engine} {round_.failure.name} seed={seed} {how}: {done}: {round_.figures}",
        *round_.problems,
    )


HEAD = """
| engine | failure | rounds | messages | missing | doubles | redelivered | lost acks | published \
again | noticed after | workers resume after | publisher resumes after |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def row_of(engine: str, failure: str, rounds: Sequence[Round]) -> str:
    figures = [round_.figures for round_ in rounds]
    counts = [
        sum(getattr(one, name) for one in figures)
        for name in ("stored", "missing", "doubles", "redelivered", "lost_acks", "resent")
    ]
    times = [
        median_and_worst([time for one in figures for time in getattr(one, name)])
        for name in ("noticed", "resumed", "publishing")
    ]
    return f"| {' | '.join(map(str, [engine, failure, len(rounds), *counts, *times]))} |"


def say(*lines: str, indent: str = "    ") -> None:
    """Write immediately, so that a killed program shows its progress."""
    sys.stdout.write(f"\n{indent}".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
