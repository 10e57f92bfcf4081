"""SQLite: one writer thread that commits in groups, and readers beside it.

SQLite has one writer at a time anyway. Giving it one thread of ours turns contention into a queue:
the thread takes whatever waits, runs each operation in its own savepoint, commits once with
``synchronous=FULL``, and only then answers. A group costs one flush to disk, whatever its size.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from counterfoil.db.base import Database, DatabaseUnavailable
from counterfoil.db.engines import serializers
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import Clock

R = TypeVar("R")

_LARGEST_GROUP = 256
_BUSY_MS = 10_000
_READERS = 2


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
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -16000")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    return engine


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

    async def write(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Queue ``work`` for the writer, and wait until its group is on disk."""
        if self._closed:
            raise DatabaseUnavailable("The database is closed.")
        future: Future[R] = Future()
        self._queue.put(_Job(work, tenant, actor, future))
        return await asyncio.wrap_future(future)

    async def read(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Run ``work`` on a reader's connection."""
        if self._closed:
            raise DatabaseUnavailable("The database is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work, tenant, actor)

    def _read(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._reader_engine.connect()
            self._connections.append(connection)
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute("BEGIN")  # one snapshot for all of the operation's statements
        try:
            return work(Tx(connection, tenant=tenant, actor=actor, now=self.clock.now()))
        except OperationalError as error:
            raise DatabaseUnavailable("The database could not be read.") from error
        finally:
            raw.execute("ROLLBACK")

    def _write_groups(self) -> None:
        with self._writer_engine.connect() as connection:
            while True:
                job = self._queue.get()
                if job is None:
                    return
                group = [job]
                stop = False
                while len(group) < _LARGEST_GROUP and not self._queue.empty():
                    more = self._queue.get()
                    if more is None:
                        stop = True
                        break
                    group.append(more)
                self._commit_group(connection, group)
                if stop:
                    return

    def _commit_group(self, connection: sa.Connection, group: list[_Job]) -> None:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        try:
            raw.execute("BEGIN IMMEDIATE")
            answers = [self._apply(connection, raw, job) for job in group]
            raw.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 # a full disk, a busy file: nobody's work is done
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            failure = DatabaseUnavailable("The database could not be written.")
            failure.__cause__ = error
            answers = [failure] * len(group)
        for job, answer in zip(group, answers, strict=True):
            if job.future.cancelled():
                continue
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    def _apply(self, connection: sa.Connection, raw: Any, job: _Job) -> Any:
        tx = Tx(connection, tenant=job.tenant, actor=job.actor, now=self.clock.now())
        raw.execute("SAVEPOINT op")
        try:
            answer = job.work(tx)
            tx.flush()
        except Exception as error:  # noqa: BLE001 # the error is this operation's answer; the group goes on
            raw.execute("ROLLBACK TO op")
            raw.execute("RELEASE op")
            return error
        raw.execute("RELEASE op")
        return answer

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
