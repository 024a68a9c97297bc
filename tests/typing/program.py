"""A program with every public name, as users write it: strict type checkers accept each line.

It is checked and never run. ``assert_type`` states what type checkers infer.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import assert_type

import tenacity
from reactivex import Observable
from reactivex.abc import DisposableBase

import rxtweets
from rxtweets import (
    Acknowledger,
    Activity,
    AsyncItems,
    Backoff,
    Batch,
    Batcher,
    BatchInfo,
    BatchStream,
    CallerAcknowledger,
    ComplianceEvent,
    Concurrency,
    ConfigurationError,
    Connections,
    ConnectionState,
    Failed,
    Failure,
    HotStream,
    LabelEvent,
    Like,
    MatchingRule,
    Message,
    MessageStream,
    NoopAcknowledger,
    Pipeline,
    PullSource,
    RateLimit,
    Restart,
    Retry,
    Rule,
    Rules,
    RxTweetsError,
    ServerOptions,
    SettledStream,
    StageStats,
    Stats,
    StreamOptions,
    Subscriber,
    TweetOptions,
    Valve,
    brokers,
    dashboard,
    display,
    errors,
    events,
    simulator,
    subscribers,
    testing,
)
from rxtweets import operators as ops
from rxtweets.instrumentation.opentelemetry import instrument
from rxtweets.instrumentation.prometheus import MetricsServer, StreamCollector, serve_metrics
from rxtweets.simulator import script

server: ServerOptions = {"token": "any", "base_url": "http://127.0.0.1:8080", "http2": False}
settings: StreamOptions = {"token": "any", "buffer_size": 100, "limit": timedelta(hours=1)}
choices: TweetOptions = {"tweet_fields": ["lang"], "backoff": Backoff(scale=0.1)}


def every_stream() -> None:
    tweets = rxtweets.sample_stream(tweet_fields=["lang"], **settings)
    assert_type(tweets, HotStream[str])
    assert_type(rxtweets.sample10_stream((1, 2), **choices), HotStream[str])
    assert_type(rxtweets.filtered_stream(["python", Rule("cats")], limit=9), HotStream[str])
    assert_type(rxtweets.firehose_stream(lang="ja", isolated=True), HotStream[str])
    assert_type(rxtweets.likes_stream(volume="sample10", like_fields=["id"]), HotStream[Like])
    assert_type(rxtweets.compliance_stream("users"), HotStream[ComplianceEvent])
    assert_type(rxtweets.labels_stream(start_time=datetime.now(UTC)), HotStream[LabelEvent])
    assert_type(rxtweets.activity_stream(state_file="state"), HotStream[Activity])
    assert_type(rxtweets.from_iterable(["hola"]), MessageStream[str])
    assert_type(rxtweets.from_iterable([Message(1)]), MessageStream[int])
    assert_type(
        rxtweets.from_queue(queue.Queue[bytes](), on_failure="requeue"), MessageStream[bytes]
    )
    assert_type(rxtweets.polling_source(poll, interval=0.5), MessageStream[int])
    pulled: PullSource = PullSource(lambda: poll, interval=1.0, most=3)
    recorded = tweets.pipe(rxtweets.record("tweets.jsonl", rotate_size=10**9))
    assert_type(recorded, MessageStream[str])
    assert_type(rxtweets.collect(recorded, 500), Batch[str])
    replayed: HotStream[str] = rxtweets.replay("tweets.jsonl", speed=None)
    state: ConnectionState = replayed.state
    failures: tuple[Failure, ...] = tweets.errors
    print(pulled, state.name, [failure.text for failure in failures])


def poll(wanted: int) -> Sequence[Message[int]]:
    return [Message(number) for number in range(wanted)]


def length(message: Message[str]) -> Message[int]:
    if not message.data:
        return Message(0).failed("it is empty")
    return message.update_data(len).put_batch_key(message.metadata["lang"])


async def awaited_length(message: Message[str]) -> Message[int]:
    return message.put_data(len(message.data))


def looked_up(message: Message[str], known: dict[str, int]) -> Message[int]:
    return message.update_data(known.__getitem__)


class Total(Subscriber[int]):
    total = 0

    def on_next(self, batch: Batch[int]) -> None:
        self.total += sum(message.data for message in batch)


def print_info(batch: Batch[object]) -> None:
    info: BatchInfo = batch.info
    rules: tuple[MatchingRule, ...] = batch[0].matching_rules
    print(info.size, info.trigger, rules)


class Stored(Subscriber[int]):
    async def on_next(self, batch: Batch[int]) -> list[Message[int]]:  # type: ignore[override]  # RxPY's observers return None
        return list(batch)


async def store(batch: Batch[int]) -> list[Message[int]]:
    return list(batch)


def every_operator(tweets: HotStream[str]) -> None:
    batches = tweets.pipe(ops.process(length), ops.batch(20, 2.0))
    assert_type(batches, BatchStream[int])
    assert_type(batches.subscribe(Total()), DisposableBase)
    with batches.subscribe(print_info), batches.subscribe(print):
        print(batches.stats().delivered)
    assert_type(batches.pipe(ops.deliver(Total(), 4)), SettledStream[int])
    assert_type(batches.pipe(ops.deliver(store)), SettledStream[int])
    tweets.pipe(ops.batch(), ops.deliver(print)).subscribe()

    assert_type(tweets.pipe(ops.process(awaited_length, Concurrency(9))), MessageStream[int])
    assert_type(tweets.pipe(ops.process(looked_up, context={"a": 1})), MessageStream[int])
    retried = ops.process(length, retry=Retry(stop=tenacity.stop_after_attempt(3)), ordered=True)
    assert_type(tweets.pipe(retried), MessageStream[int])
    tweets.pipe(ops.process(lambda message: message.update_data(str.upper), executor=pool()))

    passed = tweets.pipe(ops.rate_limit(RateLimit(10, 1.0)), ops.pausable(Valve()))
    assert_type(passed, MessageStream[str])
    kept = passed.pipe(ops.deduplicate(lambda message: message.id), ops.acknowledge())
    assert_type(kept, MessageStream[str])
    assert_type(kept.share(), MessageStream[str])
    assert_type(tweets.pipe(ops.share()), Observable[Message[str]])
    lengths = ops.process(length)
    assert_type(tweets.pipe(ops.route({"default": lengths, "de": lengths})), MessageStream[int])
    assert_type(tweets.pipe(ops.partition(author, 4, lengths)), MessageStream[int])
    assert_type(tweets.pipe(ops.partition(author, 4, lengths, ops.batch())), BatchStream[int])
    assert_type(tweets.map(lambda message: len(message.data)), Observable[int])


def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


def author(message: Message[str]) -> int:
    return int(message.metadata["author_id"])


def every_acknowledger(message: Message[str]) -> None:
    acknowledger: Acknowledger = CallerAcknowledger(lambda good, bad: print(len(good), len(bad)))
    acknowledged = message.with_acknowledger(acknowledger, data=7)
    assert_type(rxtweets.ack_immediately(acknowledged), Message[str])
    assert_type(rxtweets.ack_immediately([message]), list[Message[str]])
    if isinstance(message.status, Failed):
        print(message.status.reason, message.with_acknowledger(NoopAcknowledger()))


def every_pipeline(tweets: HotStream[str]) -> None:
    pipeline = Pipeline(
        tweets,
        handle_message=length,
        batchers={"default": Batcher(Total(), size=20), "other": Batcher(print, timeout=2.0)},
        restart=Restart(within=3.0),
        rate_limit=RateLimit(100, 1.0),
    )
    Pipeline(
        tweets,
        handle_message=lambda message, suffix: message.update_data(lambda text: text + suffix),
        prepare_messages=lambda messages, suffix: [m for m in messages if m.data != suffix],
        handle_failed=lambda messages, _: messages,
        context="!",
        batchers={
            "default": Batcher(lambda batch: print(batch.info.size)),
            "other": Batcher(lambda batch, suffix: print(batch.info.size, suffix)),
            "stored": Batcher(Stored()),
        },
    )
    tweets.pipe(ops.process(length, prepare=lambda messages: messages[::-1]))
    subscribers.Buffered(lambda batch: print(batch.info.size))
    with pipeline:
        stats: Stats = pipeline.stats()
        stages: tuple[StageStats, ...] = pipeline.stages()
        print(stats.received, [stage.busy for stage in stages])
    pipeline.events.subscribe(lambda event: print(isinstance(event, events.Reconnecting)))
    testing.test_message(pipeline, "hola")
    acknowledger: testing.RecordingAcknowledger = testing.test_batch(pipeline, ["hola"])
    with testing.VirtualTime(Pipeline(testing.DummySource())) as clock:
        print(clock, acknowledger)


def every_request() -> None:
    rules = Rules(longest=2048, **server)
    try:
        rules.sync([Rule("cats", tag="pets")])
    except errors.RulesRefused as refused:
        print(refused.report)
    except ConfigurationError as error:
        raise RxTweetsError from error
    print(Connections(**server).free_all())


def every_subscriber(tweets: HotStream[str]) -> None:
    batches = tweets.pipe(ops.batch())
    policy: subscribers.Overflow = "block"
    batches.subscribe(subscribers.ConsoleSubscriber())
    batches.subscribe(subscribers.Buffered(subscribers.JSONLinesSubscriber("a"), overflow=policy))
    batches.subscribe(subscribers.Retrying(subscribers.SQLiteSubscriber("a"), dead_letters=letter))
    batches.subscribe(subscribers.Spooled(subscribers.PostgresSubscriber(), "spool"))
    batches.subscribe(subscribers.WebhookSubscriber("https://hooks.example"))
    batches.subscribe(RowCounter())
    with subscribers.ParquetSubscriber("tweets.parquet") as table:
        batches.subscribe(table)
    batches.subscribe(lambda batch: subscribers.take_over().deliver(print, batch))
    for dead in subscribers.read_dead_letters("dead-letters.jsonl"):
        subscribers.DeadLetterFile("again.jsonl")(dead)


def letter(dead: subscribers.DeadLetter) -> None:
    row: subscribers.Row | None = None
    print(dead.error, row)


class RowCounter(subscribers.Store):
    def on_next(self, batch: Batch[object]) -> None:
        print(len(batch))

    def close(self) -> None:
        print("closed")


def every_queue(tweets: HotStream[str]) -> None:
    queue_of_tweets: brokers.Queue = brokers.connect("sqlite:tweets.queue", groups=["upper"])
    publisher = queue_of_tweets.publisher(spool="spool")
    tweets.pipe(ops.batch(200, 0.05), ops.deliver(publisher)).subscribe()
    direct: brokers.Publisher = brokers.Publisher(queue_of_tweets.engine, ("upper",))
    with Pipeline(queue_of_tweets.source("upper"), batchers={"default": Batcher(direct)}):
        backlog: dict[str, brokers.Backlog] = queue_of_tweets.backlog()
        print(backlog["upper"].pending)
    letters: brokers.DeadLetters = queue_of_tweets.dead_letters
    print(letters, delivery_number)


async def every_loop(tweets: HotStream[str], pipeline: Pipeline) -> None:
    items: AsyncItems[Message[str]] = aiter(tweets)
    async for message in items:
        assert_type(message, Message[str])
    async for text in tweets.map(lambda message: message.data).pipe(ops.to_async_iterator()):
        print(text)
    with dashboard.serve(tweets, pipeline, port=0) as page:
        served: dashboard.Dashboard = page
        print(served.url)


def delivery_number(message: Message[object]) -> int:
    delivery: brokers.Delivery = brokers.delivery_of(message)
    taken: brokers.Taken = delivery.taken
    return taken.attempt


QUEUE_PARTS = (
    brokers.Address,
    brokers.Engine,
    brokers.Envelope,
    brokers.QueuedDeadLetter,
    brokers.Receiver,
    brokers.Sender,
    brokers.Subscription,
)


def every_picture(tweets: HotStream[str]) -> None:
    snapshot: display.Snapshot = display.snapshot_of(tweets)
    stages: tuple[display.Stage, ...] = snapshot.sources
    drawing: display.Drawing = display.draw_topology(snapshot)
    counts: display.Drawing = display.bars({"en": 3}, title="languages")
    rates: display.Drawing = display.lines({"rate": [1.0, 2.0]})
    marbles: display.Marbles = display.record({"tweets": tweets}, seconds=1.0)
    strands: tuple[display.Strand, ...] = marbles.strands
    marks: tuple[display.Mark, ...] = strands[0].marks
    print(stages, drawing.svg, counts, rates, marks, display.Live(lambda: drawing))


def every_simulation() -> None:
    part: script.Part = [script.Serve(3), script.Stall(1.0), script.Close()]
    with simulator.serve(rate=1000, script=[part, script.rate_limited(reset=3.0)]) as x:
        running: simulator.Simulator = x
        requests: Sequence[simulator.Request] = running.requests
        print(requests[0].path, simulator.Tweets(seed=3), x.url)


SCRIPTS: list[script.Part] = [
    [script.Line(b"{}"), script.Raw(b"{"), script.KeepAlive(), script.Fin(), script.Step()],
    [script.Abort(), script.Disconnect(script.DISCONNECT_TYPES[0])],
    [script.GoAway(), script.ResetStream()],
    script.Reply(418, script.problem("teapot", "about:blank")),
    script.forbidden(),
    script.invalid_request("expansions", "x", "unknown"),
    script.no_rules(),
    script.provisioning(),
    script.too_many_connections(),
    script.unauthorized(),
    script.unavailable(),
    script.unsupported_authentication(),
    script.upstream_failure(),
    script.usage_capped(),
]


def every_export(tweets: HotStream[str]) -> None:
    metrics: MetricsServer = serve_metrics(tweets)
    collector: StreamCollector = StreamCollector(tweets, "tweets")
    with instrument(tweets):
        print(metrics, collector)
