"""Random pipelines on threads that switch at almost every step.

::

    python -m tests.contract.random_pipelines --seconds 3600 --seed 1

The seed decides sources, handler, options, batchers, faults, and the end of each pipeline. Each
message of a source must be acknowledged exactly once, or counted as abandoned. The counters must
add up, every drain must end, and no thread may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import reactivex
import tenacity
from reactivex.disposable import Disposable

import rxtweets
from rxtweets import Batch, Batcher, Concurrency, Message, Pipeline, RateLimit, Retry, Stats

SWITCH_INTERVAL = 1e-6
HANGS = 60.0
"""Seconds after which a pipeline or a thread counts as hanging."""

APART = 1_000_000
"""Distance between the numbers of two sources."""

PUSHED = "pushed"
"""A stock source on a separate thread: RxPY drops its items during the disposal."""

Messages = Sequence[Message[Any]]


class Ledger:
    """Makes messages, and acknowledges them."""

    def __init__(self, chance: random.Random) -> None:
        self._lock = threading.Lock()
        self._raises = chance.choice([0, 0, 0, 10])
        self._calls = itertools.count(1)
        self.given: set[int] = set()
        self.acked: Counter[int] = Counter()
        self.early: set[int] = set()
        self.kept: list[Message[Any]] = []

    def message(self, number: int) -> Message[int]:
        with self._lock:
            self.given.add(number)
        return Message(number, {"id": str(number)}).with_acknowledger(self, number % 3, number)

    def take_back(self, number: int) -> None:
        with self._lock:
            self.given.remove(number)

    def ack(self, successful: Messages, failed: Messages) -> None:
        with self._lock:
            self.acked.update(message.ack_data for message in (*successful, *failed))
        if self._raises and next(self._calls) % self._raises == 0:
            raise RuntimeError("an acknowledger that raises now and then")

    def acknowledge(self, message: Message[Any]) -> None:
        """Acknowledge the message before its stream does, or too late."""
        with self._lock:
            self.early.add(int(message.id))  # in an executor there is no ack_data
        with contextlib.suppress(RuntimeError):
            rxtweets.ack_immediately(message)


class Script:
    """The functions of the user."""

    def __init__(self, seed: int, chance: random.Random, ledger: Ledger) -> None:
        self._seed = seed
        self._ledger = ledger
        self._attempts: Counter[int] = Counter()
        self._batches = itertools.count()
        self._failures = itertools.count()
        self.pipeline: Any = None
        self.fails = chance.choice([0, 0, 0.05, 0.2])
        self.leaves = chance.random() < 0.2
        self.stops = chance.random() < 0.1
        self.delay = chance.choice([0, 0, 0, 0.0005, 0.003])
        self.subscriber_fails = chance.choice([0, 0, 0.1])
        self.subscriber_delay = chance.choice([0, 0, 0.001, 0.005])
        self.lingers = chance.choice([0, 0, 0.002])
        self.was_stopped = False

    def handle(self, message: Message[int]) -> Any:
        if self.delay:
            time.sleep(self.delay)  # a handler that blocks; no call waits for its end
        return self._outcome(message)

    async def handle_async(self, message: Message[int]) -> Any:
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self._ledger.acknowledge(message)  # too late
            raise
        return self._outcome(message)

    def prepare(self, messages: Messages) -> Messages:
        die = self._chance("prepare", messages[0].data)
        if die.random() < 0.05:
            raise ValueError("prepare")
        if die.random() < 0.05:
            self._ledger.acknowledge(messages[0])
        return messages[:-1] if die.random() < 0.05 else messages

    def handle_failed(self, messages: Messages) -> Messages:
        die = self._chance("failed", next(self._failures))
        fate = die.random()
        if fate < 0.05:
            raise ValueError("handle_failed")
        if fate < 0.07:
            raise SystemExit("handle_failed")
        if fate < 0.1:
            self._ledger.acknowledge(messages[-1])
        return (
            []
            if fate < 0.15
            else [message.put_data(("dead", message.data)) for message in messages]
        )

    def take(self, batch: Batch[Any]) -> Any:
        if self.subscriber_delay:
            time.sleep(self.subscriber_delay)  # a subscriber that blocks, as above
        return self._taken(batch)

    async def take_async(self, batch: Batch[Any]) -> Any:
        try:
            await asyncio.sleep(self.subscriber_delay)
        finally:
            if self.lingers:  # a call that was cancelled cleans up
                await asyncio.sleep(self.lingers)
        return self._taken(batch)

    def _outcome(self, message: Message[int]) -> Any:
        number = message.data
        self._attempts[number] += 1
        die = self._chance(number, self._attempts[number])
        if self.stops and die.random() < 0.01:
            self._stop(drain=die.random() < 0.7)
        fate = die.random()
        if fate < self.fails:
            return self._failure(message, die)
        fate = die.random()
        if fate < 0.02:
            self._ledger.acknowledge(message)
        elif fate < 0.05:
            self._ledger.kept.append(message.update_data(str))
        if die.random() < 0.1:
            message = message.put_batcher(die.choice(["other", "nowhere"]))
        if die.random() < 0.1:
            message = message.put_batch_key(die.randrange(3))
        if die.random() < 0.02:
            message = message.put_batch_mode("flush")
        return message.put_data(number)

    def _failure(self, message: Message[int], die: random.Random) -> Any:
        fate = die.randrange(6)
        if fate == 0:
            raise ValueError(message.data)
        if fate == 1:
            return message.failed("asked for")
        if fate == 2:
            self._ledger.acknowledge(message)
            raise MemoryError
        if fate == 3 and self.leaves:
            raise die.choice([SystemExit, KeyboardInterrupt, GeneratorExit])
        return die.choice([None, "no message", [message]])

    def _taken(self, batch: Batch[Any]) -> Any:
        die = self._chance("batch", next(self._batches))
        if self.stops and die.random() < 0.05:
            self._stop(drain=True)
        fate = die.random()
        if fate < 0.02:
            self._ledger.acknowledge(batch[0])
        elif fate < 0.05:
            self._ledger.kept += batch
        if die.random() >= self.subscriber_fails:
            return None
        fate = die.randrange(5)
        if fate == 0:
            raise RuntimeError("subscriber")
        if fate == 1 and self.leaves:
            raise SystemExit("subscriber")
        if fate == 2:
            return list(batch)[:1] + list(batch)
        return [message.failed("asked for") if die.random() < 0.5 else message for message in batch]

    def _stop(self, *, drain: bool) -> None:
        self.was_stopped = self.was_stopped or not drain
        self.pipeline.stop(drain=drain, timeout=HANGS)

    def _chance(self, *place: object) -> random.Random:
        return random.Random(repr((self._seed, *place)))


def handle_elsewhere(message: Message[int]) -> Any:
    """A handler for another process, which kills that process at some messages."""
    if message.data % 97 == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if message.data % 11 == 0:
        raise ValueError(message.data)
    return message.put_data(message.data)


class Sources:
    """Up to three sources with equal numbers of messages."""

    def __init__(self, chance: random.Random, ledger: Ledger) -> None:
        self._chance = chance
        self._ledger = ledger
        self._count = chance.choice([0, 1, 5, 50, 150])
        self._fails = chance.random() < 0.15
        kinds = ["iterated", "polled", PUSHED]
        self.kinds = [chance.choice(kinds) for _ in range(chance.choice([1, 1, 2, 3]))]
        made = {"iterated": self._iterated, "polled": self._polled, PUSHED: self._pushed}
        self.all = [made[kind](number * APART) for number, kind in enumerate(self.kinds)]

    def pushed(self, number: int) -> bool:
        """Whether the message is of a stock source, from which RxPY may drop messages."""
        return number < len(self.kinds) * APART and self.kinds[number // APART] == PUSHED

    def _iterated(self, first: int) -> Any:
        last = self._chance.randrange(self._count + 1) if self._fails else None

        def numbers() -> Iterator[Message[int]]:
            for number in range(self._count):
                if number == last:
                    raise RuntimeError("source")
                yield self._ledger.message(first + number)

        return rxtweets.from_iterable(numbers(), most=self._chance.choice([1, 3, 10, 50]))

    def _polled(self, first: int) -> Any:
        die = random.Random(self._chance.random())
        numbers = iter(range(first, first + self._count))
        failures = itertools.count()

        def poll(wanted: int) -> list[Message[int]] | None:
            if self._fails and die.random() < 0.1 and next(failures) < 2:
                raise OSError("source")
            if die.random() < 0.2:
                return []
            taken = list(itertools.islice(numbers, min(wanted, die.randint(1, 20))))
            return [self._ledger.message(number) for number in taken] or None

        most = self._chance.choice([1, 10, 40])
        return rxtweets.polling_source(poll, interval=self._chance.choice([0.001, 0.01]), most=most)

    def _pushed(self, first: int) -> Any:
        def subscribe(observer: Any, _: Any) -> Disposable:
            stopped = threading.Event()

            def push() -> None:
                for number in range(first, first + self._count):
                    if stopped.is_set():
                        return
                    observer.on_next(self._ledger.message(number))
                observer.on_completed()

            threading.Thread(target=push, daemon=True).start()
            return Disposable(stopped.set)

        return reactivex.create(subscribe)


class Trial:
    """One pipeline: it is made, run, disturbed, stopped and checked."""

    def __init__(self, seed: int) -> None:
        self.problems: list[str] = []
        self._chance = chance = random.Random(seed)
        self._ledger = Ledger(chance)
        self._script = Script(seed, chance, self._ledger)
        self._sources = Sources(chance, self._ledger)
        self._concurrency = Concurrency(chance.choice([1, 2, 5, 50]))
        self._executors: list[Any] = []
        kinds = ["plain", "plain", "plain", "async", "async", "executor", "none"]
        self.kind = "processes" if chance.random() < 0.05 else chance.choice(kinds)
        self._options = self._processing() if self.kind != "none" else {}
        if chance.random() < 0.25:
            allowed, interval = chance.choice([5, 50, 500]), chance.choice([0.02, 0.1])
            self._options["rate_limit"] = RateLimit(allowed, interval)
        if chance.random() < 0.4:
            self._options["handle_failed"] = self._script.handle_failed
        if self.kind == "none" or chance.random() < 0.85:
            self._options["batchers"] = {name: self._batcher() for name in ("default", "other")}
        self.end = chance.choice(["wait", "wait", "drain", "hard", "hard", "both"])
        self._is_disturbed = chance.random() < 0.6
        self._disturbance = random.Random(chance.random())

    def describe(self, stats: Stats) -> str:
        """Return the facts that explain a failure."""
        batchers = {
            name: (batcher.subscriber.__name__, batcher.size, batcher.timeout, batcher.concurrency)
            for name, batcher in self._options.get("batchers", {}).items()
        }
        options = {
            name: value for name, value in self._options.items() if isinstance(value, int | float)
        }
        missing = sorted(self._ledger.given - set(self._ledger.acked))
        script = {
            name: value
            for name, value in vars(self._script).items()
            if isinstance(value, int | float) and not name.startswith("_")
        }
        return (
            f"{self.end} {self.kind} {self._sources.kinds} {sorted(self._options)} {options} "
            f"{batchers} {script} given={len(self._ledger.given)} acked={len(self._ledger.acked)} "
            f"early={sorted(self._ledger.early)[:9]} missing={missing[:9]} "
            f"{ {name: value for name, value in stats.as_dict().items() if value} }"
        )

    def run(self) -> None:
        """Run it to its end, and note problems."""
        before = set(threading.enumerate())
        pipeline = Pipeline(self._sources.all, **self._options)
        self._script.pipeline = pipeline
        done = threading.Event()
        disturbing = threading.Thread(target=self._disturb, args=(pipeline, done))
        pipeline.start()
        if self._is_disturbed:
            disturbing.start()
        self._let_it_run(pipeline)
        done.set()
        if self._is_disturbed:
            disturbing.join()
        self._stop(pipeline)
        for executor in self._executors:
            executor.shutdown()
        self._look(pipeline, before)
        if self.problems:
            self.problems.append(self.describe(pipeline.stats()))

    def _processing(self) -> dict[str, Any]:
        chance, script = self._chance, self._script
        handlers = {"async": script.handle_async, "processes": handle_elsewhere}
        options: dict[str, Any] = {
            "handle_message": handlers.get(self.kind, script.handle),
            "concurrency": self._concurrency,
        }
        if self.kind == "executor":
            options["executor"] = self._threads
        if self.kind == "processes":
            self._concurrency.limit = 2
            options["executor"] = self._processes
        if chance.random() < 0.2:
            options["ordered"] = True
        elif chance.random() < 0.3:
            options["partition_by"] = lambda message: message.ack_data % 7
        if chance.random() < 0.3:
            wait = tenacity.wait_fixed(chance.choice([0, 0.002]))
            options["retry"] = Retry(
                stop=tenacity.stop_after_attempt(chance.choice([2, 3])), wait=wait
            )
        if chance.random() < 0.3 and "executor" not in options:
            options["time_limit"] = chance.choice([0.002, 0.02, 1.0])
        if chance.random() < 0.15:
            options["deadline"] = chance.choice([0.001, 0.05, 5.0])
        if chance.random() < 0.2:
            options["prepare_messages"] = script.prepare
        if chance.random() < 0.3:
            options["max_demand"] = chance.choice([1, 2, 30])
        return options

    def _threads(self) -> ThreadPoolExecutor:
        self._executors.append(ThreadPoolExecutor(3))
        return self._executors[-1]  # type: ignore[no-any-return]  # it is one

    def _processes(self) -> ProcessPoolExecutor:
        self._executors.append(ProcessPoolExecutor(2))
        return self._executors[-1]  # type: ignore[no-any-return]  # it is one

    def _batcher(self) -> Batcher:
        chance = self._chance
        subscriber: Any = chance.choice([self._script.take, self._script.take_async])
        return Batcher(
            subscriber,
            chance.choice([1, 2, 20, 100]),
            chance.choice([0.001, 0.02, 0.2]),
            concurrency=chance.choice([1, 1, 3]),
            waiting=chance.choice([None, 1, 5]),
        )

    def _let_it_run(self, pipeline: Pipeline) -> None:
        seconds = 2.0 if self.end == "wait" else self._chance.choice([0, 0.01, 0.1])
        with contextlib.suppress(rxtweets.RxTweetsError):  # a source that failed for good
            pipeline.wait(seconds)

    def _disturb(self, pipeline: Pipeline, done: threading.Event) -> None:
        die, limit = self._disturbance, pipeline.rate_limit
        numbers = itertools.count(9 * APART)
        steps: list[Callable[[], object]] = [
            lambda: self._push(pipeline, next(numbers)),
            self._acknowledge_kept,
            pipeline.pause,
            pipeline.resume,
            pipeline.stats,
            pipeline.stages,
        ]
        if self.kind != "processes":
            steps.append(lambda: setattr(self._concurrency, "limit", die.choice([1, 2, 10, 60])))
        if limit is not None:
            steps += [
                limit.lift,
                limit.reset,
                lambda: limit.update(allowed=die.choice([1, 100])),
            ]
        while not done.wait(die.choice([0.0005, 0.005, 0.02])):
            die.choice(steps)()

    def _push(self, pipeline: Pipeline, number: int) -> None:
        message = self._ledger.message(number)
        try:
            pipeline.push([message])
        except rxtweets.errors.PipelineError:  # it has ended
            self._ledger.take_back(number)

    def _acknowledge_kept(self) -> None:
        while self._ledger.kept:
            self._ledger.acknowledge(self._ledger.kept.pop())

    def _stop(self, pipeline: Pipeline) -> None:
        draining = threading.Thread(target=pipeline.stop, kwargs={"timeout": HANGS})
        if self.end != "hard":
            draining.start()
        if self.end in {"hard", "both"}:
            self._script.was_stopped = True
            pipeline.stop(drain=False)
        if self.end != "hard":
            draining.join(0.9 * HANGS)
            if draining.is_alive():
                faulthandler.dump_traceback(all_threads=True)
            draining.join()
        self._acknowledge_kept()

    def _look(self, pipeline: Pipeline, before: set[threading.Thread]) -> None:
        with contextlib.suppress(rxtweets.RxTweetsError):
            self._expect(pipeline.wait(0.001), "it has not ended after it was stopped")
        gives_up = time.monotonic() + HANGS
        while (left := _left(before)) and time.monotonic() < gives_up:
            time.sleep(0.005)  # a thread sends no signal when it has ended
        self._expect(not left, f"threads are left: {sorted(thread.name for thread in left)}")
        if left:
            faulthandler.dump_traceback(all_threads=True)
        self._add_up(pipeline.stats())

    def _add_up(self, stats: Stats) -> None:
        ledger = self._ledger
        often = {number: times for number, times in ledger.acked.items() if times > 1}
        self._expect(not often, f"acknowledged more than once: {often}")
        self._expect(set(ledger.acked) <= ledger.given, "acknowledged, but never given")
        missing = ledger.given - set(ledger.acked)
        dropped = sum(map(self._sources.pushed, missing))
        if not self._script.was_stopped:
            self._expect(len(missing) == dropped, "a drain did not acknowledge every message")
            self._expect(stats.abandoned <= dropped, "a drain abandoned messages")
        # A message that was acknowledged early may be abandoned later.
        self._expect(
            len(missing) - dropped <= stats.abandoned <= len(missing) + len(ledger.early),
            f"{len(missing)} messages are missing, {stats.abandoned} are abandoned",
        )
        settled = (
            stats.batched
            + stats.batched_failed
            + stats.acknowledged
            + stats.failed
            + stats.abandoned
        )
        given = len(ledger.given)
        self._expect(
            given - dropped <= settled <= given, f"{given} messages given, {settled} counted"
        )
        self._expect(stats.in_flight == stats.unsettled == 0, "messages are still in flight")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("rxtweets-")
    ]


def main() -> None:
    """Run one seed after the other; exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="of the first pipeline")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="pipelines at most")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no pipeline after that")
    options = parser.parse_args()
    logging.getLogger("rxtweets").setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None  # handlers that leave end their threads
    sys.setswitchinterval(SWITCH_INTERVAL)
    ends = time.monotonic() + options.seconds
    bad: list[int] = []
    seeds = itertools.count(options.seed)
    for seed in itertools.islice(seeds, options.count):
        if time.monotonic() > ends:
            break
        faulthandler.dump_traceback_later(5 * HANGS, exit=True)
        trial = Trial(seed)
        say(f"{seed} {trial.kind} {trial.end}")
        trial.run()
        faulthandler.cancel_dump_traceback_later()
        if trial.problems:
            bad.append(seed)
            say(f"FAILED {seed}", *trial.problems)
    say(f"seeds from {options.seed} to {seed}: {len(bad)} failed: {bad}")
    sys.exit(bool(bad))


def say(*lines: str) -> None:
    """Write immediately, so that a killed program shows its progress."""
    sys.stdout.write("\n    ".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
