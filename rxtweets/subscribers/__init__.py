"""Subscribers that store, print and send batches, and three that wrap another subscriber.

==================================== ========= ====================================================
subscriber                           extra     stores
==================================== ========= ====================================================
JSONLinesSubscriber("t.jsonl.gz")    zstd for  a line for each message, in rotating files that are
                                     zstd      plain, gzip or zstd
SQLiteSubscriber("t.db")                       a row for each message in ``tweets``, found by its
                                               words in ``tweets_search``
ParquetSubscriber("dir")             parquet   a file for each batch in ``date=…/``, on a disk, in
                                               ``s3://…`` or ``gs://…``
PostgresSubscriber("postgresql://…") postgres  a row for each message, by pipelined upserts
WebhookSubscriber("https://…")                 nothing: posts JSON with an ``Idempotency-Key``
ConsoleSubscriber()                            nothing: prints a line for each batch
==================================== ========= ====================================================

Give a subscriber to ``batches.subscribe``, to ``operators.deliver`` or to a `Batcher`.

Every store is idempotent: a redelivered batch changes nothing. Two messages are the same if their
ids are; without an id, as in compliance events, if their lines are; without a line, if data and
metadata are. JSON Lines and Parquet remember the last 100,000 messages; SQLite and PostgreSQL
remember all.

A store keeps messages as handlers left them, with their raw lines. The columns of SQLite, Parquet
and PostgreSQL are those of `Row`: id, kind, times, author, language, text, counts, hashtags,
mentions, rules, raw line. Likes and other events are rows too, by their ``kind``, with the event as
JSON in ``data``.

An acknowledged batch survives the death of the process. The next process that writes to the same
place completes or removes unfinished files. A store notices with the next batch that its file was
removed, renamed or replaced, and starts another file. If its directory is gone, the batch fails.

A refused message fails alone. Data that JSON or a column cannot hold is stored as text that
describes it; a line that is no JSON becomes a message of kind ``other``. If SQLite or PostgreSQL
refuses a row, only its message fails.

`Buffered` gives a slow subscriber its own queue and thread. `Retrying` calls a failing one again by
a policy of `tenacity`, and writes a batch that cannot be delivered to a dead-letter file::

    store = Buffered(Retrying(SQLiteSubscriber("tweets.db"), dead_letters="failed.jsonl"))
    batches.subscribe(store)

    for letter in read_dead_letters("failed.jsonl"):
        print(letter.error, letter.attempts, letter.batch)

`Spooled` keeps batches on disk while a database or a broker is away, and delivers them when it is
back.

To give each batch of a pipeline to several subscribers, put a ``Subject`` of RxPY before them, and
`Buffered` around each: none blocks another, and each has its own retries. A batch is settled when
all of them have returned, and has failed if it failed for one of them::

    stores = reactivex.subject.Subject()
    stores.subscribe(Buffered(JSONLinesSubscriber("tweets.jsonl")))
    stores.subscribe(Buffered(Retrying(SQLiteSubscriber("tweets.db"))))
    Pipeline(tweets, batchers={"default": Batcher(stores, size=20)})

To add a store, write one module with a subclass of `Store`; ``_sql.py`` has a base for databases,
``_store.py`` one for files. ``python tests/benchmarks/subscribers.py`` measures every store beside
its bare library.

May import: `rxtweets.operators`, `rxtweets.api` and below.
"""

from rxtweets._core.subscriber import take_over
from rxtweets._messages.rows import Row
from rxtweets.subscribers._buffered import Buffered, Overflow
from rxtweets.subscribers._console import ConsoleSubscriber
from rxtweets.subscribers._dead_letters import DeadLetter, DeadLetterFile, read_dead_letters
from rxtweets.subscribers._jsonlines import JSONLinesSubscriber
from rxtweets.subscribers._parquet import ParquetSubscriber
from rxtweets.subscribers._postgres import PostgresSubscriber
from rxtweets.subscribers._retrying import Retrying
from rxtweets.subscribers._spooled import Spooled
from rxtweets.subscribers._sqlite import SQLiteSubscriber
from rxtweets.subscribers._store import Store
from rxtweets.subscribers._webhook import WebhookSubscriber

__all__ = [
    "Buffered",
    "ConsoleSubscriber",
    "DeadLetter",
    "DeadLetterFile",
    "JSONLinesSubscriber",
    "Overflow",
    "ParquetSubscriber",
    "PostgresSubscriber",
    "Retrying",
    "Row",
    "SQLiteSubscriber",
    "Spooled",
    "Store",
    "WebhookSubscriber",
    "read_dead_letters",
    "take_over",
]
