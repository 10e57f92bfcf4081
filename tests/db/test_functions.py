"""What the two databases spell differently means the same on both."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, StatementError
from tests.support.rows import product

from counterfoil.accounts.tables import tenants
from counterfoil.catalog.tables import products
from counterfoil.catalog.types import Product
from counterfoil.db.base import Database
from counterfoil.db.functions import any_of, insert_new
from counterfoil.db.schema import Timestamp, columns, mine
from counterfoil.db.tx import Tx

NAMES = ["plain", "Plain", "it's", 'say "hi"', "100%", "a,b", "[1]", "{x}", "null", "", "ünï", "日本", "\\", "a\nb"]

_AMONG = sa.select(products.c.name).where(mine(products), any_of(products.c.name, "names")).order_by(products.c.id)
_ALL = sa.select(*columns(products)).where(mine(products)).order_by(products.c.id)
_DETAILS = sa.select(products.c.metadata).where(mine(products), products.c.id == sa.bindparam("id"))


def add(tx: Tx, *rows: Product) -> None:
    tx.insert(products, *rows)


async def test_any_of_finds_what_is_listed(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    await scope.run(lambda tx: add(tx, *[product(tx, name) for name in NAMES]))

    async def among(*names: str) -> list[str]:
        return [row[0] for row in await scope.read(lambda tx: tx.all(_AMONG, {"names": names}))]

    assert await among() == []
    for name in NAMES:
        assert await among(name) == [name]
    assert await among(*reversed(NAMES)) == NAMES
    assert await among("plain", "plain", "nothing") == ["plain"]
    assert await among(*[f"none {number}" for number in range(5000)], "日本") == ["日本"]


def test_any_of_is_one_statement_whatever_its_length() -> None:
    texts = {
        dialect.name: str(_AMONG.compile(dialect=dialect))
        for dialect in (sqlite.dialect(), postgresql.asyncpg.dialect())
    }
    assert "IN (SELECT value FROM json_each(?))" in texts["sqlite"]
    assert "products.name = ANY ($" in texts["postgresql"]
    assert all("POSTCOMPILE" not in text for text in texts.values())


async def test_any_of_prepares_one_statement(database: Database, tenant: str) -> None:
    seen: set[str] = set()

    def run(tx: Tx) -> None:
        @sa.event.listens_for(tx._connection, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            seen.add(statement)

        for length in (0, 1, 2, 100):
            tx.all(_AMONG, {"names": ["x"] * length})
        sa.event.remove(tx._connection, "before_cursor_execute", note)

    await database.scope(tenant).read(run)
    assert len(seen) == 1


async def test_insert_if_new(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    first = await scope.run(lambda tx: product(tx, "first", slug="same"))
    assert await scope.run(lambda tx: tx.insert_if_new(products, first)) is True
    # The same primary key, or only the same slug: either way the row that is there stays.
    again = msgspec.structs.replace(first, name="second")
    other = await scope.run(lambda tx: product(tx, "third", slug="same"))
    assert await scope.run(lambda tx: tx.insert_if_new(products, again)) is False
    assert await scope.run(lambda tx: tx.insert_if_new(products, other)) is False
    rows = await scope.read(lambda tx: tx.all(_ALL))
    assert [Product(*row) for row in rows] == [first]


async def test_insert_if_new_hides_no_other_mistake(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    with pytest.raises(IntegrityError):
        await scope.run(lambda tx: tx.insert_if_new(products, product(tx, status="sold")))  # a check
    with pytest.raises(IntegrityError):
        await scope.run(lambda tx: tx.insert_if_new(products, product(tx, name=None)))  # NOT NULL
    assert await scope.read(lambda tx: tx.all(_ALL)) == []


async def test_a_plain_insert_refuses_a_duplicate(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    first = await scope.run(product)
    await scope.run(lambda tx: add(tx, first))
    with pytest.raises(IntegrityError):
        await scope.run(lambda tx: add(tx, first))
    assert len(await scope.read(lambda tx: tx.all(_ALL))) == 1


async def test_insert_new_counts_the_rows_it_added(database: Database, tenant: str) -> None:
    statement = insert_new(products)

    def twice(tx: Tx) -> tuple[int, int]:
        row = {"tenant_id": tx.tenant, **msgspec.structs.asdict(product(tx))}
        run = tx._connection.execute
        return run(statement, row).rowcount, run(statement, row).rowcount

    assert await database.scope(tenant).run(twice) == (1, 0)


DETAILS = [
    {},
    {"a": [1, -1, 2**53, 2**63 - 1, True, False, None, "", "ünï", "日本", "\\", '"', "a\nb"]},
    {"": {"deep": {"deeper": [[], {}, [[]]]}}},
    {"null": None, "1": 1, "ü": "ü", "quote'": "it's"},
]


@pytest.mark.parametrize("details", DETAILS)
async def test_json_comes_back_as_it_went(database: Database, tenant: str, details: dict[str, Any]) -> None:
    scope = database.scope(tenant)
    row = await scope.run(lambda tx: product(tx, metadata=details))
    await scope.run(lambda tx: add(tx, row))
    (found,) = await scope.read(lambda tx: tx.all(_DETAILS, {"id": row.id}))
    assert found[0] == details
    assert list(found[0]) == list(details) or database.dialect == "postgresql"  # jsonb sorts its keys


MOMENTS = [
    datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2026, 7, 1, 1, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_moments_come_back_exactly_and_in_utc(database: Database, tenant: str, moment: datetime) -> None:
    scope = database.scope(tenant)
    row = await scope.run(lambda tx: product(tx, created_at=moment))
    await scope.run(lambda tx: add(tx, row))
    (found,) = await scope.read(lambda tx: tx.all(_ALL))
    made = Product(*found)
    assert made.created_at == moment
    assert made.created_at.utcoffset() == timedelta(0)


async def test_a_moment_without_a_zone_is_refused(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    naive = datetime(2026, 1, 2)  # noqa: DTZ001
    with pytest.raises(StatementError, match="a timestamp needs its time zone"):
        await scope.run(lambda tx: add(tx, product(tx, created_at=naive)))
    assert await scope.read(lambda tx: tx.all(_ALL)) == []


async def test_moments_sort_as_time_does(database: Database, tenant: str) -> None:
    scope = database.scope(tenant)
    await scope.run(lambda tx: add(tx, *[product(tx, created_at=moment) for moment in MOMENTS]))
    by_time = _ALL.order_by(None).order_by(products.c.created_at)
    rows = await scope.read(lambda tx: tx.all(by_time))
    assert [Product(*row).created_at for row in rows] == sorted(MOMENTS)


@given(st.datetimes(timezones=st.just(UTC)))
def test_sqlite_keeps_microseconds_as_an_integer(moment: datetime) -> None:
    kind = Timestamp()
    stored = kind.process_bind_param(moment, sqlite.dialect())
    assert type(stored) is int
    assert kind.process_result_value(stored, sqlite.dialect()) == moment


def test_nothing_is_no_moment() -> None:
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        assert Timestamp().process_bind_param(None, dialect) is None
        assert Timestamp().process_result_value(None, dialect) is None


async def test_none_in_a_json_column_is_sql_null(database: Database, tenant: str) -> None:
    # Not the JSON text "null", which NOT NULL would let through.
    with pytest.raises(IntegrityError):
        await database.scope(tenant).run(lambda tx: add(tx, product(tx, metadata=None)))


async def test_counts_fill_64_bits(database: Database, tenant: str) -> None:
    largest = 2**63 - 1
    statement = sa.select(sa.bindparam("number", type_=sa.BigInteger))
    for number in (largest, -largest - 1, 0):
        row = await database.scope(tenant).read(lambda tx, number=number: tx.one(statement, {"number": number}))
        assert row == (number,)


async def test_yes_and_no_come_back_as_booleans(database: Database, tenant: str) -> None:
    statement = sa.select(sa.literal(1).in_([1]).label("yes"), (tenants.c.slug == "other").label("no")).where(
        mine(tenants)
    )
    row = await database.scope(tenant).read(lambda tx: tx.one(statement))
    assert row is not None
    assert list(row) == [True, False]
    assert {type(value) for value in row} == {bool}
