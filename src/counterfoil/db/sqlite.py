"""SQLite: one writer thread that commits in groups, and readers beside it.

SQLite has one writer at a time anyway. Giving it one thread of ours turns contention into a queue:
the thread takes whatever waits, runs each operation in its own savepoint, commits once with
``synchronous=FULL``, and only then answers. A group costs one flush to disk, whatever its size.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from counterfoil.db.base import Database, DatabaseUnavailable
from counterfoil.db.engines import serializers
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import Clock

R = TypeVar("R")

_LARGEST_GROUP = 256
_BUSY_MS = 10_000
_READERS = 2
_OURS = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_MISMATCH}
"""Primary result codes that blame the statement, which no retry can mend; the others blame the file or the disk."""


class _Job(NamedTuple):
    work: Callable[[Tx], Any]
    tenant: str
    actor: Actor
    future: Future[Any]


def engine_for(path: str, *, read_only: bool = False) -> sa.Engine:
    """An engine whose connections are set up as we need them."""
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=sa.pool.NullPool,
        isolation_level="AUTOCOMMIT" if read_only else None,
        connect_args={"check_same_thread": False, "isolation_level": None, "cached_statements": 512},
        **serializers(),
    )

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -1000")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    return engine


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Have the file keep a write-ahead log, which it remembers from then on.

    Only the first connection to a new file changes anything. That needs the file for a moment alone, and SQLite
    does not wait for others then, whatever the busy timeout; so we do.
    """
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class SqliteDatabase(Database):
    """An SQLite file."""

    dialect = "sqlite"

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(clock, batches_at_once=1)
        self._writer_engine = engine_for(str(path))
        self._reader_engine = engine_for(str(path), read_only=True)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_groups, name="sqlite-writer", daemon=True)
        self._closed = False
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sa.Connection] = []
        self._writer.start()

    async def _write(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Queue ``work`` for the writer, and wait until its group is on disk."""
        if self._closed:
            raise DatabaseUnavailable("The database is closed.")
        future: Future[R] = Future()
        self._queue.put(_Job(work, tenant, actor, future))
        return await asyncio.wrap_future(future)

    async def read(self, work: Callable[[Tx], R], tenant: str, actor: Actor, *, single: bool = False) -> R:
        """Run ``work`` on a reader's connection.

        A ``single`` statement runs right here: handing it to a thread and back takes as long as it does. Where it
        would have to wait for somebody, it goes to a thread after all.
        """
        if self._closed:
            raise DatabaseUnavailable("The database is closed.")
        if single:
            try:
                return self._read_here(work, tenant, actor)
            except (DBAPIError, sqlite3.Error) as error:
                if not is_away(error):
                    raise
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work, tenant, actor, single)

    def _read_here(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Run a single statement in this thread, and wait for nobody. Raises what the driver raises."""
        connection: sa.Connection | None = getattr(self._local, "impatient", None)
        if connection is None:
            connection = self._local.impatient = self._reader_engine.connect()
            _raw(connection).execute("PRAGMA busy_timeout = 0")
            self._connections.append(connection)
        return work(Tx(connection, tenant=tenant, actor=actor, now=self.clock.now(), single=True))

    def _read(self, work: Callable[[Tx], R], tenant: str, actor: Actor, single: bool) -> R:  # noqa: FBT001
        try:
            connection: sa.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._reader_engine.connect()
                self._connections.append(connection)
            tx = Tx(connection, tenant=tenant, actor=actor, now=self.clock.now(), single=single)
            if single:
                return work(tx)
            raw = _raw(connection)
            raw.execute("BEGIN")  # one snapshot for all of the operation's statements
            try:
                return work(tx)
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
        except (DBAPIError, sqlite3.Error) as error:
            if not is_away(error):
                raise
            raise DatabaseUnavailable("The database could not be read.") from error

    def _write_groups(self) -> None:
        connection: sa.Connection | None = None
        stop = False
        while not stop:
            group: list[_Job] = []
            while not stop and len(group) < _LARGEST_GROUP and not (group and self._queue.empty()):
                job = self._queue.get()
                if job is None:
                    stop = True
                # From here on it cannot be cancelled; whoever has gone away while it waited gets nothing done.
                elif job.future.set_running_or_notify_cancel():
                    group.append(job)
            if group:
                connection = self._commit_group(connection, group)
        if connection is not None:
            connection.close()

    def _commit_group(self, connection: sa.Connection | None, group: list[_Job]) -> sa.Connection | None:
        """Do what a group asks, and answer. The connection to use next, None when none could be had."""
        answers: list[Any]
        try:
            if connection is None:
                connection = self._writer_engine.connect()
            raw = _raw(connection)
            raw.execute("BEGIN IMMEDIATE")
            answers = [self._apply(connection, raw, job) for job in group]
            raw.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 # a full disk, a busy file: nobody's work is done
            answers = [_unwritten(error) for _ in group]
            if connection is not None:
                connection.close()  # which rolls back; the next group tries anew
                connection = None
        for job, answer in zip(group, answers, strict=True):
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
        return connection

    def _apply(self, connection: sa.Connection, raw: Any, job: _Job) -> Any:
        tx = Tx(connection, tenant=job.tenant, actor=job.actor, now=self.clock.now(), on_events=self.on_events)
        raw.execute("SAVEPOINT op")
        try:
            answer = job.work(tx)
            tx.flush()
        except Exception as error:  # noqa: BLE001 # the error is this operation's answer; the group goes on
            raw.execute("ROLLBACK TO op")
            raw.execute("RELEASE op")
            return _unwritten(error) if isinstance(error, DBAPIError) and is_away(error) else error
        raw.execute("RELEASE op")
        return answer

    async def learn(self, *tables: str) -> None:
        """Nothing: plans go by the indexes alone."""

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        self._reader_engine.dispose()
        self._writer_engine.dispose()


def _raw(connection: sa.Connection) -> Any:
    raw = connection.connection.dbapi_connection
    assert raw is not None
    return raw


def _unwritten(cause: Exception) -> DatabaseUnavailable:
    failure = DatabaseUnavailable("The database could not be written.")
    failure.__cause__ = cause
    return failure


def is_away(error: DBAPIError | sqlite3.Error) -> bool:
    """Whether the file or the disk is to blame rather than the statement."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code: int | None = getattr(original, "sqlite_errorcode", None)
    return code is not None and code & 0xFF not in _OURS
