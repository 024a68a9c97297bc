"""A queue in a file, for several processes on one machine; it needs no server."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from rxtweets._support.validation import choice, number
from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import (
    SHARD,
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._engines.sqlite_file import Connection, QueueFile
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError

__all__ = ["SQLiteEngine"]

POLL = 0.03
"""Seconds between two looks for messages of other processes."""

SCAN = 1000
"""New messages that one take meets at most, while all wait behind others of their shards."""

BLOCKED = math.inf
"""In place of the time at which a message is available: an earlier one of its shard is held."""

# Publishing. `keys` and `seqs` are lists in JSON.

FORGET_KEYS = "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE at <= ? LIMIT ?)"
KNOWN_KEYS = "SELECT key FROM keys WHERE at > ? AND key IN (SELECT value FROM json_each(?))"
# Known keys are written too: after the commit, whatever published them is on disk.
ADD_KEYS = """
INSERT INTO keys SELECT value, :now FROM json_each(:keys) WHERE true
ON CONFLICT (key) DO UPDATE SET at = CASE WHEN at > :expired THEN at ELSE :now END
"""
ADD_MESSAGES = "INSERT INTO messages (key, headers, enqueued_at, body) VALUES (?, ?, ?, ?)"

# Taking.

NEW = "SELECT position, seq FROM groups, last_message WHERE id = ?"
AGAIN = """
SELECT seq, attempt FROM held WHERE grp = ? AND available_at <= ?
ORDER BY available_at, seq LIMIT ?
"""
NEW_MESSAGES = """
SELECT seq, key, headers, enqueued_at, body FROM messages WHERE seq BETWEEN ? AND ? ORDER BY seq
"""
MESSAGES = """
SELECT seq, key, headers, enqueued_at, body FROM messages
WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq
"""
BUSY_SHARDS = """
SELECT value FROM json_each(:shards)
WHERE EXISTS (SELECT 1 FROM held WHERE grp = :group AND shard = value)
"""
HOLD_NEW = """
INSERT INTO held (seq, grp, attempt, available_at, taker)
SELECT seq, ?, 1, ?, ? FROM messages WHERE seq BETWEEN ? AND ?
"""
HOLD = """
INSERT OR REPLACE INTO held (seq, grp, attempt, available_at, taker, shard)
VALUES (?, ?, ?, ?, ?, ?)
"""
ADVANCE = "UPDATE groups SET position = max(position, ?) WHERE id = ?"

# Settling.

HELD = "SELECT seq, taker FROM held WHERE grp = ? AND seq IN (SELECT value FROM json_each(?))"
FORGET_HELD = "DELETE FROM held WHERE grp = ? AND seq IN (SELECT value FROM json_each(?))"
FORGET_MESSAGES = """
DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))
AND seq <= (SELECT min(position) FROM groups)
AND NOT EXISTS (SELECT 1 FROM held WHERE held.seq = messages.seq)
"""
GIVE_BACK = """
UPDATE held SET available_at = ?, attempt = attempt - ?, taker = NULL
WHERE grp = ? AND seq IN (SELECT value FROM json_each(?))
"""
FREE_NEXT = """
UPDATE held SET available_at = :now WHERE grp = :group AND available_at = :blocked AND seq IN (
    SELECT (SELECT min(seq) FROM held WHERE grp = :group AND shard = value)
    FROM json_each(:shards)
)
"""
EXTEND = """
UPDATE held SET available_at = ? WHERE grp = ? AND seq IN (SELECT value FROM json_each(?))
"""

BACKLOG = """
SELECT name, new + held - taken, taken, (SELECT enqueued_at FROM messages WHERE seq = oldest)
FROM (
    SELECT name, last_message.seq - position AS new, count(held.seq) AS held,
        count(taker) AS taken, COALESCE(min(held.seq), position + 1) AS oldest
    FROM groups CROSS JOIN last_message LEFT JOIN held ON grp = id GROUP BY id
)
"""
BACKLOG_WITHOUT_GROUP = """
SELECT '', COALESCE((SELECT seq FROM last_message) - (SELECT min(seq) FROM messages) + 1, 0), 0,
    (SELECT enqueued_at FROM messages ORDER BY seq LIMIT 1)
"""


class SQLiteEngine(Engine):
    """A queue in a file on a local disk: ``sqlite:tweets.queue``, ``sqlite:/var/lib/tweets.queue``.

    Several processes of one machine may publish and take at the same time. Any of them may be
    killed at any time.

    - Each group gets each message at least once, in the order of publication. Retried, released
      and expired messages come later, when they become available.
    - A published message is on disk when `Sender.put` returns, and survives a power failure.
      Acknowledgements do not wait for the disk: after a power failure, messages of the last ones
      are delivered again.
    - A message is removed when all groups have acknowledged it. Without a group, messages wait for
      the first one. A later group starts where the slowest group is. A group without workers
      keeps all messages. The file keeps its largest size, and its space is used again.
    - A key that was published in the last 10 minutes is not stored again.
    - The order by key (``shard_by``) holds until a worker exceeds its lease: then another one gets
      the message while the first one may still handle it.
    - Leases, delays and keys follow the clock of the machine. Setting it forward ends them early,
      and setting it back ends them late.
    - A full disk stops workers too, as they write what they take; with room, all continue.
    - Network file systems do not work: SQLite's log needs memory that the processes share.
    - A call lasts at most 10 seconds longer than the disk needs.
    - The file gets the permissions that the umask gives to new files.

    Options of the URL, the same in all processes:

    - ``dedupe``: seconds for which a key is known after its publication; default 600, 0 for never.
    - ``sync``: ``full``, the default; or ``normal``, with which publishing is faster, and a power
      failure may lose the last messages. The death of a process loses none.

    Dead letters are in a file of the same name with ``.dead`` at its end.
    """

    name = "sqlite"
    listing = "ls"
    no_shards = ""

    def __init__(self, address: Address) -> None:
        address.check_options(("dedupe", "sync"))
        if address.hosts or address.user or address.password:
            raise ConfigurationError(f"{address}: a file has no host; write sqlite:{address.path}")
        self._path = Path(address.path).absolute()
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise ConfigurationError(f"{address}: give the name of a file in an existing directory")
        self._dedupe = _seconds_of("dedupe", address.options.get("dedupe", "600"))
        self._sync = choice("sync", address.options.get("sync", "full"), ("full", "normal"))
        self._groups: tuple[str, ...] = ()
        self.queue = self._path.name

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the file and groups exist."""
        is_there = self._path.is_file() and self._path.stat().st_size > 0
        return is_there and (not groups or set(groups) <= self.backlog().keys())

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the file, its tables and the groups."""
        self._groups = tuple(dict.fromkeys((*self._groups, *groups)))
        with self._file(self._sync) as file, file.reading():
            pass

    def sender(self) -> Sender:
        """Return a sender."""
        return _SQLiteSender(self._file(self._sync), self._dedupe)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver."""
        return _SQLiteReceiver(self._file("normal", subscription.group), subscription)

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group."""
        with self._file(self._sync) as file, file.reading() as connection:
            rows = connection.rows(BACKLOG) or connection.rows(BACKLOG_WITHOUT_GROUP)
        now = time.time()
        return {
            name: Backlog(pending, taken, None if oldest is None else max(0.0, now - oldest))
            for name, pending, taken, oldest in rows
        }

    def dead_letters(self) -> Engine:
        """Return the queue in the file with ``.dead`` at the end of its name."""
        dead = copy.copy(self)
        dead._path = self._path.with_name(f"{self.queue}.dead")  # noqa: SLF001 - of this class
        dead._groups = ()  # noqa: SLF001 - of this class
        dead.queue = dead._path.name  # noqa: SLF001 - of this class
        return dead

    def purge(self) -> int:
        """Remove all messages; their keys remain known."""
        with self._file(self._sync) as file, file.writing() as connection:
            connection.rows("DELETE FROM held")
            connection.rows("UPDATE groups SET position = (SELECT seq FROM last_message)")
            return connection.execute("DELETE FROM messages").rowcount

    def close(self) -> None:
        """Do nothing: each sender and receiver has its own connection."""

    def _file(self, sync: str, *groups: str) -> QueueFile:
        return QueueFile(self._path, sync, (*self._groups, *groups))


class _SQLiteSender(Sender):
    def __init__(self, file: QueueFile, dedupe: float) -> None:
        self._file = file
        self._dedupe = dedupe

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        if envelopes:
            with self._file.writing() as connection:
                new = self._unknown(connection, envelopes) if self._dedupe else envelopes
                _insert(connection, new)
            self._file.notify()
        return [None] * len(envelopes)

    def close(self) -> None:
        self._file.close()

    def _unknown(self, connection: Connection, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Remember the keys of messages, and return the messages that are new."""
        by_key: dict[str, Envelope] = {}
        for envelope in envelopes:
            by_key.setdefault(envelope.key, envelope)
        now, keys = time.time(), _json(list(by_key))
        expired = now - self._dedupe
        connection.rows(FORGET_KEYS, (expired, 2 * len(by_key)))
        for (known,) in connection.rows(KNOWN_KEYS, (expired, keys)):
            del by_key[known]
        connection.rows(ADD_KEYS, {"now": now, "keys": keys, "expired": expired})
        return list(by_key.values())


class _SQLiteReceiver(Receiver):
    def __init__(self, file: QueueFile, subscription: Subscription) -> None:
        self._file = file
        self._name = subscription.group
        self._lease = subscription.lease

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + wait
        while True:
            changes = self._file.changes()
            try:
                taken = self._take(most)
            except BrokerUnavailable:
                if self._file.is_closed:
                    return []
                raise
            rest = deadline - time.monotonic()
            if taken or rest <= 0:
                return taken
            self._file.wait(changes, min(rest, POLL))

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        shards = list({one.shard: None for one in taken if SHARD in one.headers})

        def forget(connection: Connection, group: int, seqs: str) -> None:
            connection.rows(FORGET_HELD, (group, seqs))
            connection.rows(FORGET_MESSAGES, (seqs,))
            if shards:
                facts = {"group": group, "shards": _json(shards)}
                connection.rows(FREE_NEXT, {"now": time.time(), "blocked": BLOCKED, **facts})

        lost = self._settle(taken, forget)
        if shards:
            self._file.notify()
        return lost

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        return self._give_back(taken, delay, 0)

    def release(self, taken: Sequence[Taken]) -> None:
        with contextlib.suppress(BrokerError):
            self._give_back(taken, 0.0, 1)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        def extend(connection: Connection, group: int, seqs: str) -> None:
            connection.rows(EXTEND, (time.time() + self._lease, group, seqs))

        return self._settle(taken, extend)

    def close(self) -> None:
        self._file.close()

    def _take(self, most: int) -> list[Taken]:
        with self._file.reading() as connection:  # does not keep writers out
            again, new = self._available(connection, most)
            if not (again or new):
                return []
        with self._file.writing() as connection:
            return self._hold(connection, most, most) or self._hold(connection, most, SCAN)

    def _available(self, connection: Connection, most: int) -> tuple[dict[int, int], range]:
        """Return the numbers of messages to take: returned ones with their attempts, new ones."""
        group = self._file.groups[self._name]
        again = connection.rows(AGAIN, (group, time.time(), most))
        [(position, last)] = connection.rows(NEW, (group,))
        # After the position of a group, no number is missing: see ADD_GROUP and FORGET_MESSAGES.
        new = range(position + 1, min(last, position + most - len(again)) + 1)
        return {seq: attempt + 1 for seq, attempt in again}, new

    def _hold(self, connection: Connection, most: int, scanned: int) -> list[Taken]:
        """Take messages, and hold those that wait behind others of their shards."""
        again, new = self._available(connection, scanned)
        rows = connection.rows(MESSAGES, (_json(list(again)),)) if again else []
        if new:
            rows += connection.rows(NEW_MESSAGES, (new[0], new[-1]))
        if not rows:
            return []
        group, until, taker = self._file.groups[self._name], time.time() + self._lease, _new_taker()
        found = [_taken(row, again.get(row[0], 1), taker) for row in rows]
        shards = {one: one.shard for one in found if SHARD in one.headers}
        if len(found) <= most and not (again or shards):
            connection.rows(HOLD_NEW, (group, until, taker, new[0], new[-1]))
            connection.rows(ADVANCE, (new[-1], group))
            return found
        blocked = self._blocked(connection, group, shards) if shards else set[Taken]()
        taken = [one for one in found if one not in blocked][:most]
        last = (taken if len(taken) == most else found)[-1].receipt[0]
        held = [
            (one.receipt[0], group, one.attempt, until, taker, shards.get(one)) for one in taken
        ]
        waiting = [
            (one.receipt[0], group, 0, BLOCKED, None, shards[one])
            for one in blocked
            if one.receipt[0] <= last
        ]
        connection.executemany(HOLD, [*held, *waiting])
        connection.rows(ADVANCE, (last, group))
        return taken

    def _blocked(
        self, connection: Connection, group: int, shards: Mapping[Taken, str]
    ) -> set[Taken]:
        """Return the new messages of which an earlier one of the shard is held or found."""
        [(position, _)] = connection.rows(NEW, (group,))
        facts = {"group": group, "shards": _json(list(dict.fromkeys(shards.values())))}
        busy = {shard for (shard,) in connection.rows(BUSY_SHARDS, facts)}
        blocked: set[Taken] = set()
        for one, shard in shards.items():
            if one.receipt[0] > position:
                if shard in busy:
                    blocked.add(one)
                busy.add(shard)
        return blocked

    def _give_back(self, taken: Sequence[Taken], delay: float, uncounted: int) -> Sequence[Taken]:
        def give_back(connection: Connection, group: int, seqs: str) -> None:
            connection.rows(GIVE_BACK, (time.time() + delay, uncounted, group, seqs))

        lost = self._settle(taken, give_back)
        self._file.notify()
        return lost

    def _settle(
        self, taken: Sequence[Taken], settle: Callable[[Connection, int, str], None]
    ) -> list[Taken]:
        """Settle the messages that are still ours, and return the others."""
        if not taken:
            return []
        seqs = _json([one.receipt[0] for one in taken])
        with self._file.writing() as connection:
            group = self._file.groups[self._name]
            held = set(connection.rows(HELD, (group, seqs)))
            settle(
                connection, group, _json([one.receipt[0] for one in taken if one.receipt in held])
            )
        return [one for one in taken if one.receipt not in held]


def _insert(connection: Connection, envelopes: Sequence[Envelope]) -> None:
    now = time.time()
    rows = [(one.key, _json(dict(one.headers)), now, one.body) for one in envelopes]
    connection.executemany(ADD_MESSAGES, rows)


def _taken(row: tuple[int, str, str, float, bytes], attempt: int, taker: int) -> Taken:
    seq, key, headers, enqueued_at, body = row
    receipt = seq, taker
    return Taken(key, body, orjson.loads(headers), attempt, enqueued_at, str(seq), receipt)


def _new_taker() -> int:
    """Return a number for one take; a message is settled only under that of its last take."""
    return int.from_bytes(os.urandom(7), "big")


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _seconds_of(name: str, text: str) -> float:
    try:
        return number(name, float(text))
    except ValueError:
        raise ConfigurationError(f"{name}={text!r}: give a number, 0 or more") from None
