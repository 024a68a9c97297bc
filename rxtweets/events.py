"""The events of streams and pipelines, as ``stream.events`` and ``pipeline.events`` emit them.

Failures, the reactions of rxtweets, and where to observe them:

Connections
    The connection ends, cleanly or not. The stream reconnects immediately, then after 0.25 s more
    each time, up to 16 s. The count restarts when a connection has delivered and lived for 5 s.
    See `Reconnecting`, ``stats().reconnects``.

    No connection can be made, or none within ``connect_timeout`` (TCP, proxy and TLS together).
    The stream retries after 0.25 s, 0.5 s … 16 s. `Reconnecting` names the step that took too
    long.

    No byte of the body arrives for 30 s (X sends an empty line every 20 s), or no head of an
    answer. The stream closes the connection and reconnects as above. See `Disconnected` with
    `StreamStalled`.

    The server or a proxy answers 5xx, or 429 with ``TooManyConnections``. The stream retries
    after 5 s, 10 s … 320 s, and never before ``Retry-After``. See `Reconnecting`.

    The server answers 429 for too many connects. The stream retries after 60 s, 120 s … 15 min,
    and never before ``Retry-After`` or ``x-rate-limit-reset``. See `Reconnecting`.

    The server asks for an implausible wait: ``Retry-After`` above an hour, or a reset more than a
    day away. The stream waits for X's window of at least 15 min. See `Reconnecting` with
    ``wait_from="window"``.

    The stream has made 50 connects in 15 min, or the number that X's headers allow. It waits
    until the window has moved on. See `Reconnecting` with ``wait_from="connect budget"``.

    A proxy refuses the credentials (407) or the server (another 4xx). The stream ends with
    `ProxyError`, which names the proxy without its password. See ``on_error``, `StreamEnded`.

    A login page, a redirect or a 204 answers. The stream ends with `UnexpectedAnswerError`. If it
    was connected, it retries after 5 s, 10 s … 320 s. See `StreamEnded`, `Reconnecting`.

    The body of a 200 is no stream. The stream retries after 5 s, 10 s … 320 s. See `Reconnecting`
    with `UnexpectedAnswerError`, which has the first bytes.

    The server answers 401, 403 or 409, the usage cap is reached, a certificate is refused, or a
    host has no address. The stream ends with a typed error that names the remedy. If it was
    connected before, it retries a host without an address. See ``on_error``, `StreamEnded`, the
    log.

    The body has a content encoding that rxtweets cannot read, or another one than it names. The
    stream ends with a `ResponseError` that names it. See ``on_error``, the log.

    A gzip body is damaged. The lines before the damage are delivered; then the stream reconnects.
    See `Disconnected` with `ConnectionLost`.

    X announces a disconnect in the stream. The stream closes the connection and reconnects. See
    `DisconnectAnnounced`.

    An answer to `Rules` or `Connections` exceeds 16 MB or takes longer than six connect timeouts.
    The call raises `ResponseError` or `ConnectionLost`.

    Messages were missed between two connections. The stream requests backfill if it has
    ``backfill_minutes``, and reports the rest. See `BackfillRequested`, `Gap`, ``stats().gaps``.

    One partition of several fails for good. It ends, and the others continue. See `PartEnded`.

    The state file cannot be written. The stream continues. See `StateFileFailed`.

Lines
    A line is not JSON, exceeds 16 MB, or is cut off. The stream leaves it out and keeps its bytes
    in the event. See `UndecodableLine`, ``stats().undecodable``.

    A line is JSON of unknown shape. The stream leaves it out and keeps its value in the event.
    See `UnknownMessage`, ``stats().unknown``.

    A line of a recording is no tweet, not JSON, or cut off. The replay leaves it out; ``place``
    has the file and the line number. See `UnknownMessage`, `UndecodableLine`.

    A recording cannot be read to its end. Its messages so far are delivered; then the stream ends
    with `StreamError`. See ``on_error``.

    Subscribers are slower than X. Up to 10,000 tweets (or 160 MB) wait; then the oldest are
    dropped. ``overflow="drop_newest"`` and ``"block"`` change that. See `OverflowStarted`,
    `OverflowEnded`, ``stats().dropped``.

Handlers
    A handler raises. Its message fails, is acknowledged as failed, and is not batched. See
    `HandlerFailed`, ``stats().failed``.

    A handler exceeds its ``time_limit``. Its message fails with `HandlerTimeout`; a later result
    is ignored. See ``stats().timed_out``, ``stats().threads_lost``.

    A message exceeds its ``deadline``. It fails with `DeadlineExceeded`, without a handler. See
    ``stats().expired``.

    A failed message is retried. It waits without blocking a thread. See `HandlerRetried`,
    ``stats().retried``.

    A thread or a process of handlers dies. The messages it was handling fail with `WorkerLost`,
    and another worker replaces it. See `WorkerReplaced`, ``stats().workers_lost``.

    An executor breaks, and no function was given to make another one. The messages it was
    handling fail; the stream ends with `ExecutorBroken`. See ``on_error``, `WorkerReplaced`.

    ``on_failed`` or ``handle_failed`` raises or returns the wrong messages. The messages are
    acknowledged as they were. See `FailureHandlerFailed`, ``stats().failure_handler_errors``.

Subscribers and acknowledgers
    A subscriber raises. Its batch fails and is acknowledged as failed; the next batch follows. See
    `BatchFailed`, ``stats().batches_failed``.

    A subscriber in `Retrying` raises. It is called again; after the last attempt the batch is
    written to the dead-letter file and fails. See `BatchFailed`, the file.

    A subscriber in `Buffered` is slow. Its batches wait up to the capacity; then the stream waits,
    or the batch fails. See ``stats().unsettled``, `BatchFailed`.

    Every batch of a subscriber fails. The pipeline continues. With
    ``Pipeline(max_failed_batches=n)`` it drains and ends when one batcher has failed n batches in
    a row; ``run()`` then raises `SubscriberError`.

    A file of a store is removed, renamed, truncated or replaced. The next batch begins another
    file. If the directory is gone, the batch fails. See the log, `BatchFailed`.

    PostgreSQL cannot be reached. The subscriber retries the batch by ``stop=`` and ``wait=``, then
    fails it. See `BatchFailed`.

    A database refuses a row. Its message fails, and the rest of the batch is stored. See
    ``stats().batched_failed``.

    A recording cannot be written. The messages pass all the same. See `SubscriberFailed`,
    ``stats().subscriber_errors``.

    An acknowledger raises. The others are called; it is not called again for these messages. See
    `AcknowledgerFailed`, ``stats().acknowledger_errors``.

    A message is acknowledged twice, as by ``ack_immediately`` after its time limit. The first
    outcome stands, and a copy counts as its message. See ``stats().late_acknowledgements``.

Queues on brokers
    The broker cannot be reached. The source connects again after up to 4 s, for ever; a publisher
    fails its batch, or keeps it in its spool. See `BrokerLost`, `BrokerReconnected`,
    ``stats().broker_failures``.

    A message fails. It is delivered again later, at most ``max_deliver`` times in all; then it
    becomes a dead letter. See ``stats().redelivered``, `DeadLettered`, ``queue.dead_letters``.

    A message ends its worker, again and again. After ``max_deliver`` deliveries it becomes a dead
    letter with `Redelivered`. See `DeadLettered`.

    A body cannot be decoded. It becomes a dead letter. See ``stats().undecodable``.

    A handler takes longer than ``max_lease``. Its message is delivered again. See
    ``stats().acks_lost`` once the handler returns.

    The outcome of a message does not reach the broker, which delivers it again. See
    `AcknowledgementsLost`, ``stats().acks_lost``.

    A subscriber in `Spooled` is away. Its batches wait on disk; one beyond the bound fails. See the
    log, ``spooled``, `BatchFailed`.

Stops and threads
    A source of a pipeline fails. The pipeline subscribes to it again, at most three times in five
    seconds (``restart=``). See `SourceRestarting`, `SourceFailed`, ``stats().restarts``.

    A source of a pipeline cannot be drained. A stop discards and counts the messages that wait in
    it. See `DrainUnavailable`, ``stats().unsubscribed``.

    A pipeline stops immediately. Messages in flight are counted. An ``async def`` subscriber is
    cancelled, and its batch fails. See `Abandoned`, ``stats().abandoned``, `BatchFailed`.

    The last subscriber disposes while lines wait. They are counted. See ``stats().unsubscribed``.

    A subscriber disposes in the middle of a list (``take``, ``dispose``). The rest of the list is
    counted. See ``stats().abandoned``.

    A background thread dies. Its subscribers get ``on_error`` after the good messages. Without
    subscribers the error is logged, and the thread continues. See `StreamEnded`,
    `WorkerReplaced`, ``stats().abandoned``.

The log ``rxtweets`` has these events too: failures are warnings, final errors are errors. A
frequent event has one line a second, with the number of events left out. The counters of `Stats`
add up to ``received``. `Backoff` changes the schedules of reconnects.
"""

from rxtweets._core import events as _events
from rxtweets._core.events import *  # noqa: F403 - the public name of that module

__all__ = _events.__all__
