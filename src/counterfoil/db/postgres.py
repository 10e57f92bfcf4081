"""PostgreSQL: SQLAlchemy on asyncpg.

Operations stay synchronous and run on the event loop through greenlets, so no threads contend.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.util import greenlet_spawn

from counterfoil.db.base import Database, DatabaseUnavailable
from counterfoil.db.engines import serializers
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import Clock

R = TypeVar("R")

_ATTEMPTS = 8
_TRY_AGAIN = {"40001", "40P01", "55P03"}
"""serialization_failure, deadlock_detected, lock_not_available (PostgreSQL manual, appendix A)."""
_AWAY = ("08", "28", "3D", "53", "57P", "57014")
"""Classes connection exception, invalid authorization, invalid catalog name and insufficient resources; operator
intervention (57P..); statement_timeout."""


class PostgresDatabase(Database):
    """A PostgreSQL server."""

    dialect = "postgresql"

    def __init__(self, url: sa.URL, clock: Clock, *, pool_size: int = 10) -> None:
        super().__init__(clock, batches_at_once=2)
        # Not by ``sqlalchemy.ext.asyncio``, which brings the whole ORM: 5 MB that nothing here uses.
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=20,
            pool_use_lifo=True,
            connect_args={
                "timeout": 5,
                "server_settings": {
                    "application_name": "counterfoil",
                    "lock_timeout": "4s",
                    "statement_timeout": "30s",
                    "idle_in_transaction_session_timeout": "60s",
                    "timezone": "UTC",
                    "jit": "off",
                },
            },
            **serializers(),
        )
        self._closed = False
        self._turns = asyncio.Semaphore(pool_size)
        self._snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def _write(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Run ``work`` and commit, again from the start when the database asks for it."""

        def apply(connection: sa.Connection) -> R:
            tx = Tx(connection, tenant=tenant, actor=actor, now=self.clock.now(), on_events=self.on_events)
            answer = work(tx)
            tx.flush()
            connection.commit()
            return answer

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._with_connection(apply, self._engine)
            except DBAPIError as error:
                if not wants_another_try(error):
                    raise
                if attempt == _ATTEMPTS:
                    raise DatabaseUnavailable("The database is too busy with this; try again.") from error
            await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))  # noqa: S311 # spread, not secret
        raise AssertionError("unreachable")

    async def read(self, work: Callable[[Tx], R], tenant: str, actor: Actor, *, single: bool = False) -> R:
        """Run ``work`` in a read-only transaction, all of whose statements see the same snapshot.

        A ``single`` statement is its own snapshot, so it is spared the round trips of a transaction.
        """

        def apply(connection: sa.Connection) -> R:
            return work(Tx(connection, tenant=tenant, actor=actor, now=self.clock.now(), single=single))

        return await self._with_connection(apply, self._single if single else self._snapshot)

    async def _with_connection(self, apply: Callable[[sa.Connection], R], engine: sa.Engine) -> R:
        if self._closed:
            raise DatabaseUnavailable("The database is closed.")

        def whole() -> R:
            with engine.connect() as connection:
                return apply(connection)

        try:
            # First come, first served: the pool by itself lets newcomers overtake whoever waits for a connection.
            async with self._turns:
                # One greenlet for all of it: connecting, the work, and giving the connection back.
                return await greenlet_spawn(whole)
        except (OperationalError, InterfaceError, PoolTimeout, OSError, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not is_away(error):
                raise
            raise DatabaseUnavailable("The database cannot be reached.") from error

    async def learn(self, *tables: str) -> None:
        """ANALYZE them now. Autovacuum comes by once a minute, and until then the planner takes them for empty."""

        def analyze(connection: sa.Connection) -> None:
            quoted = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql("ANALYZE " + ", ".join(map(quoted, tables)))

        await self._with_connection(analyze, self._single)

    async def close(self) -> None:
        """Close the pool."""
        self._closed = True
        await greenlet_spawn(self._engine.dispose)


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")


def wants_another_try(error: DBAPIError) -> bool:
    """Whether others were in the way, so that the same transaction may succeed later."""
    return _sqlstate(error) in _TRY_AGAIN


def is_away(error: DBAPIError) -> bool:
    """Whether the server cannot be reached or used, rather than that it refuses the statement."""
    state = _sqlstate(error)
    return error.connection_invalidated or state.startswith(_AWAY) or (not state and not _is_ours(error))


def _is_ours(error: DBAPIError) -> bool:
    """Whether the driver blames the statement, which no retry can mend."""
    return not isinstance(error, OperationalError | InterfaceError)
