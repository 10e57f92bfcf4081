"""A record with a chain over it, and hands that reach into the database behind the program's back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Database, Scope
from counterfoil.db.engines import connect
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.events import auditing, sealing
from counterfoil.events.chain import Head, Report
from counterfoil.events.tables import events
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import MasterKey
from counterfoil.licensing import signing_keys
from counterfoil.licensing.keyring import Keyring

_IDS = sa.select(events.c.id).where(mine(events)).order_by(events.c.id)
ACTOR = Actor("user", "usr_1", "192.0.2.7", "Mozilla/5.0 (X11)", source="api")


class Record:
    """One seller's record."""

    def __init__(self, database: Database, clock: ManualClock, master: MasterKey) -> None:
        self.clock = clock
        self.dialect = database.dialect
        self.scope: Scope = database.scope(DEFAULT_TENANT, ACTOR)
        self._master = master

    async def add(self, count: int = 1, **details: Any) -> list[str]:
        """Record events of one transaction, each column of them filled; their ids."""
        before = set(await self.ids())
        await self.scope.run(_add, count, details or {"name": "Ä \u0001", "list": [1, {"b": None, "a": True}]})
        self.clock.advance(timedelta(seconds=1))
        return [one for one in await self.ids() if one not in before]

    async def ids(self) -> list[str]:
        return [row[0] for row in await self.scope.read(lambda tx: tx.all(_IDS))]

    async def ring(self) -> Keyring:
        return Keyring(DEFAULT_TENANT, await self.scope.read(signing_keys.everyone), self._master)

    async def seal(self, *, back: timedelta = timedelta(minutes=15), rows: int = 100_000) -> int:
        signer = (await self.ring()).signer()
        assert signer is not None
        return await sealing.seal_all(self.scope, signer[1].sign, signer[0], back=back, rows=rows)

    async def verify(self, kept: Head | None = None) -> Report:
        ring = await self.ring()
        return await auditing.verify(self.scope, ring.proven(), retired=ring.retired, kept=kept)

    @contextlib.asynccontextmanager
    async def reopened(self, url: str) -> AsyncIterator[Record]:
        """The same record, its database opened anew."""
        database = connect(url, self.clock)
        yield Record(database, self.clock, self._master)
        await database.close()

    async def lines(self) -> list[bytes]:
        return [line async for page in auditing.export(self.scope) for line in page]


def _add(tx: Tx, count: int, details: dict[str, Any]) -> None:
    for number in range(count):
        tx.record(
            "price.created", "price", f"prc_{number}", customer_id="cus_1", money=Money(2100 + number, "USD"), **details
        )


@pytest.fixture
def record(database: Database, tenant: str, clock: ManualClock, master: MasterKey) -> Record:
    clock.advance(timedelta(seconds=1))  # the key's own event is the first
    return Record(database, clock, master)


Hands = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def hands(database_url: str) -> Iterator[Hands]:
    """Runs SQL with nothing in the way: ``hands("UPDATE events SET type = ? WHERE id = ?", "x", id)``.

    Foreign keys and checks are not looked at.
    """
    if database_url.startswith("sqlite:///"):
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)) as file:
            file.execute("PRAGMA ignore_check_constraints = ON")
            yield lambda sql, *values: file.execute(sql, values).fetchall()
        return

    async def run(sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("SET session_replication_role = replica")
            for place in range(len(values)):
                sql = sql.replace("?", f"${place + 1}", 1)
            return [tuple(row) for row in await connection.fetch(sql, *values)]
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        yield lambda sql, *values: thread.submit(asyncio.run, run(sql, values)).result()
