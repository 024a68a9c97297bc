"""Subscribers that store, show and send batches, and two that stand before others.

Each is one small file on the base that custom subscribers have, `rxtweets.Subscriber`.

::

    store = Buffered(Retrying(SQLiteSubscriber("tweets.db"), dead_letters="failed.jsonl"))
    batches.subscribe(store)

Every store is idempotent: a batch that comes again changes nothing. Messages are the same if
their ids are; where there is no id, as in compliance events, if their lines are; where there is no
line either, if data and metadata are.

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
    "Store",
    "WebhookSubscriber",
    "read_dead_letters",
    "take_over",
]
