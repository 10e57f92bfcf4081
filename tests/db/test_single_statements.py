"""Reading with one quick statement on SQLite: in the event loop, unless somebody is in its way."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import sqlalchemy as sa

from counterfoil.catalog.tables import products
from counterfoil.db.base import Database, DatabaseUnavailable, single_statement
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])

_COUNT = sa.select(sa.func.count()).select_from(products).where(mine(products))
_MISTAKE = sa.select(sa.literal_column("no_such")).where(mine(products))


def here() -> str:
    return threading.current_thread().name


def busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@single_statement
def quick(tx: Tx) -> tuple[int, str]:
    return tx.all(_COUNT)[0][0], here()


def usual(tx: Tx) -> tuple[int, str]:
    return tx.all(_COUNT)[0][0], here()


async def test_it_runs_where_it_is_asked_for(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    assert await scope.read(quick) == (0, here())
    count, thread = await scope.read(usual)
    assert count == 0
    assert thread.startswith("sqlite-reader")


async def test_what_would_have_to_wait_goes_to_a_thread(database: Database, tenant: str) -> None:
    asker = here()

    @single_statement
    def in_the_way(tx: Tx) -> tuple[int, str]:
        if here() == asker:
            raise busy()
        return quick(tx)

    count, thread = await database.scope(tenant).read(in_the_way)
    assert count == 0
    assert thread.startswith("sqlite-reader")


async def test_what_has_to_wait_for_ever_is_unavailable(database: Database, tenant: str) -> None:
    @single_statement
    def always(_: Tx) -> None:
        raise busy()

    with pytest.raises(DatabaseUnavailable):
        await database.scope(tenant).read(always)


async def test_a_mistake_is_not_tried_again(database: Database, tenant: str) -> None:
    threads = []

    @single_statement
    def mistaken(tx: Tx) -> None:
        threads.append(here())
        tx.all(_MISTAKE)

    with pytest.raises(sa.exc.OperationalError, match="no such column"):
        await database.scope(tenant).read(mistaken)
    assert threads == [here()]
    assert await database.scope(tenant).read(quick) == (0, here())
