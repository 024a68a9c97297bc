"""The file of a SQLite queue: connections, transactions, the write-ahead log, errors."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rxtweets._support.file_lock import Identity, identity_of
from rxtweets.errors import BrokerError, BrokerUnavailable, QueueSettingsError

__all__ = ["Connection", "QueueFile"]

log = logging.getLogger("rxtweets")

PATIENCE = 5.0
"""Seconds to wait for other writers of the file."""

LONG_LOG = 16 * 2**20
"""Bytes of the write-ahead log from which it is copied into the database."""

SHORTEN_EVERY = 0.2
"""Seconds between two copies of the log; a reader may keep it long in spite of one."""

APPLICATION, VERSION = 0x72787451, 2
"""In the header of the file: the program that owns it, and the version of its tables."""

OWNER = """
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version
"""

TABLES = (
    # AUTOINCREMENT: the numbers of removed messages must not be used again.
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, headers TEXT NOT NULL,
        enqueued_at REAL NOT NULL, body BLOB NOT NULL
    )
    """,
    """
    CREATE VIEW last_message AS SELECT COALESCE(
        (SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0
    ) AS seq
    """,
    "CREATE TABLE keys (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX keys_at ON keys (at)",
    # Messages after the position of a group are those that it has never taken.
    """
    CREATE TABLE groups (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, position INTEGER NOT NULL
    )
    """,
    # Messages that a group has taken, given back or met behind another one of their shard; `taker`
    # is NULL for those that no worker has, and `shard` for those without a shard.
    """
    CREATE TABLE held (
        seq INTEGER NOT NULL, grp INTEGER NOT NULL, attempt INTEGER NOT NULL,
        available_at REAL NOT NULL, taker INTEGER, shard TEXT, PRIMARY KEY (seq, grp)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX held_available ON held (grp, available_at)",
    "CREATE INDEX held_shard ON held (grp, shard, seq) WHERE shard IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

# The messages after the position of the slowest group are complete.
ADD_GROUP = """
INSERT OR IGNORE INTO groups (name, position) VALUES (?, COALESCE(
    (SELECT min(position) FROM groups), (SELECT min(seq) - 1 FROM messages),
    (SELECT seq FROM last_message)
))
"""


class Connection(sqlite3.Connection):
    """A connection that waits for other processes until its deadline."""

    deadline = 0.0

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Execute a statement, and return its rows."""
        # SQLite's own wait sleeps up to 0.1 s between attempts, so busy writers would starve it.
        while True:
            try:
                return self.execute(sql, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= self.deadline:
                    raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction that may write, and commit it at the end."""
        self.rows("BEGIN IMMEDIATE")
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled back
                self.execute("ROLLBACK")
            raise


class QueueFile:
    """One connection to a queue; made by its first use, and again after an error.

    Several threads may use it at the same time.

    Args:
        path: of the file, absolute.
        sync: ``full`` or ``normal``, as in ``PRAGMA synchronous``.
        groups: are created with the connection.

    Attributes:
        groups: numbers of all groups by their names, when the connection was made.
        is_closed: `close` was called.
    """

    def __init__(self, path: Path, sync: str, groups: Iterable[str]) -> None:
        self.groups: dict[str, int] = {}
        self.is_closed = False
        self._path = path
        self._log_path = f"{path}-wal"
        self._sync = sync
        self._wanted = tuple(groups)
        self._shared = _shared_of(path)
        self._connection: Connection | None = None
        self._identities: list[Identity] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give the connection without a transaction.

        Raises:
            BrokerUnavailable: the file cannot be opened or read, or it is closed.
            QueueSettingsError: the file is no queue.
        """
        deadline = time.monotonic() + PATIENCE
        if not self._shared.lock.acquire(timeout=PATIENCE):
            raise BrokerUnavailable(
                f"{self._path}: other threads of this process have used it for {PATIENCE:g} s"
            )
        try:
            yield self._connected(deadline)
        except sqlite3.Error as error:
            if not _is_busy(error):
                self._disconnect()  # opening it again may repair the fault
            raise _error_of(self._path, error) from error
        finally:
            self._shared.lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the connection in a transaction, and commit it at the end.

        Raises:
            BrokerUnavailable: as for `reading`; or the file cannot be written.
            QueueSettingsError: the file is no queue.
        """
        with self.reading() as connection:
            self._shorten_log(connection)
            with connection.transaction():
                yield connection

    def changes(self) -> int:
        """Return the number of changes in this process, for `wait`."""
        return self._shared.changes

    def notify(self) -> None:
        """Tell the receivers of this process that messages may be available."""
        with self._shared.changed:
            self._shared.changes += 1
            self._shared.changed.notify_all()

    def wait(self, changes: int, timeout: float) -> None:
        """Wait for a change in this process after these ones, for a time in seconds."""
        with self._shared.changed:
            self._shared.changed.wait_for(lambda: self._shared.changes != changes, timeout)

    def close(self) -> None:
        """Close the connection for good, and end the waits."""
        self.is_closed = True
        self.notify()
        with self._shared.lock:
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, deadline: float) -> Connection:
        if self.is_closed:
            raise BrokerUnavailable(f"{self._path}: this connection is closed")
        # Commits into a file or a log that was removed would be lost.
        if self._connection is not None and self._identities != self._current_identities():
            log.warning("%s was removed or replaced while it was open", self._path)
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect(deadline)
            self._identities = self._current_identities()
        self._connection.deadline = deadline
        return self._connection

    def _connect(self, deadline: float) -> Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=0.02,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        connection.deadline = deadline
        try:
            _create_tables(connection, self._path)
            connection.rows(f"PRAGMA synchronous = {self._sync}")
            # Without these two, macOS does not wait for the disk.
            connection.rows(f"PRAGMA fullfsync = {self._sync == 'full'}")
            connection.rows("PRAGMA checkpoint_fullfsync = 1")
            connection.rows("PRAGMA wal_autocheckpoint = 0")
            connection.rows(f"PRAGMA journal_size_limit = {LONG_LOG // 2}")
            self.groups = _create_groups(connection, self._wanted)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _current_identities(self) -> list[Identity]:
        return [identity_of(self._path), identity_of(self._log_path)]

    def _shorten_log(self, connection: Connection) -> None:
        """Copy a long write-ahead log into the database; the next writer starts it anew.

        SQLite's own checkpoints run while other processes write. Up to version 3.51.2, this can
        lose commits (https://sqlite.org/wal.html#walresetbug). So they are off, and this one keeps
        all writers out.
        """
        now = time.monotonic()
        if now < self._shared.shorten_after or _size_of(self._log_path) < LONG_LOG:
            return
        self._shared.shorten_after = now + SHORTEN_EVERY
        with connection.transaction():
            other = sqlite3.connect(self._path, timeout=0.0)
            with contextlib.closing(other):
                other.execute("PRAGMA checkpoint_fullfsync = 1")
                other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class _Shared:
    """The state that all connections of this process to one file share."""

    def __init__(self) -> None:
        # SQLite has one writer at a time: threads wait for a lock instead of trying again.
        self.lock = threading.Lock()
        self.changed = threading.Condition()
        self.changes = 0
        self.shorten_after = 0.0


_all_shared: weakref.WeakValueDictionary[str, _Shared] = weakref.WeakValueDictionary()
_all_shared_lock = threading.Lock()


def _shared_of(path: Path) -> _Shared:
    with _all_shared_lock:
        return _all_shared.setdefault(os.path.realpath(path), _Shared())


def _create_tables(connection: Connection, path: Path) -> None:
    is_empty = _is_empty(connection, path)
    [(mode,)] = connection.rows("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise QueueSettingsError(
            f"{path}: journal_mode is {mode}, and cannot be wal there; use a local disk"
        )
    if is_empty:
        with connection.transaction():
            if _is_empty(connection, path):  # no other process was faster
                for statement in TABLES:
                    connection.rows(statement)


def _is_empty(connection: Connection, path: Path) -> bool:
    """Return whether the database has no tables.

    Raises:
        QueueSettingsError: its tables are not those of a queue.
    """
    [(owner, version, tables)] = connection.rows(OWNER)
    if owner == APPLICATION and version != VERSION:
        raise QueueSettingsError(
            f"{path}: user_version is {version}, and this version of rxtweets needs {VERSION}; "
            "use the version that created the file, or name another file"
        )
    if owner != APPLICATION and (owner, version, tables) != (0, 0, 0):
        raise QueueSettingsError(
            f"{path}: application_id is {owner}, so this database is no queue; name another file"
        )
    return bool(tables == 0)


def _create_groups(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    groups = dict(connection.rows("SELECT name, id FROM groups"))
    if set(names) <= set(groups):
        return groups
    with connection.transaction():
        for name in names:
            connection.rows(ADD_GROUP, (name,))
        return dict(connection.rows("SELECT name, id FROM groups"))


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - once per transaction, and a Path is slower
    except OSError:
        return 0


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details of the code


def _error_of(path: Path, error: sqlite3.Error) -> BrokerError:
    if _code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return QueueSettingsError(f"{path}: {error}; move it away, or name another file")
    if _is_busy(error):
        return BrokerUnavailable(
            f"{path}: {error}; another process has been writing for {PATIENCE:g} s"
        )
    if _code(error) in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return BrokerUnavailable(
            f"{path}: {error}; this user needs to write in its directory, also files beside it"
        )
    kind = BrokerUnavailable if isinstance(error, sqlite3.OperationalError) else BrokerError
    return kind(f"{path}: {error}")
