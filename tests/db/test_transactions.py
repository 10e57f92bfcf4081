"""Transactions: all or nothing, each tenant's own, retried when asked, and durable when answered."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.util import await_only
from tests.support.databases import Databases
from tests.support.rows import add_product, all_events, all_prices, all_products, names, price, product

from counterfoil.accounts import tenants
from counterfoil.catalog.tables import prices, products
from counterfoil.db import postgres as postgres_module
from counterfoil.db import sqlite as sqlite_module
from counterfoil.db.base import Database, DatabaseUnavailable, Scope, single_statement
from counterfoil.db.engines import connect
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.ids import is_id
from counterfoil.kernel.money import Money

OTHER = "ten_00000000000000000000000001"

_RENAME = (
    sa.update(products)
    .where(mine(products), products.c.id == sa.bindparam("product"))
    .values(name=products.c.name + sa.bindparam("suffix"))
)

only_sqlite = pytest.mark.parametrize("dialect", ["sqlite"])
only_postgresql = pytest.mark.parametrize("dialect", ["postgresql"])


@pytest.fixture
def scope(database: Database, tenant: str) -> Scope:
    return database.scope(tenant)


@pytest.fixture
async def other(database: Database, tenant: str) -> Scope:
    """Another tenant of the same database."""
    scope = database.scope(OTHER)
    assert await scope.run(tenants.create, "other", "Other")
    return scope


@pytest.fixture
async def second(database_url: str, clock: ManualClock, tenant: str) -> AsyncIterator[Scope]:
    """The same tenant of the same database, over connections of its own."""
    opened = connect(database_url, clock)
    yield opened.scope(tenant)
    await opened.close()


class Boom(Exception):
    """What a test raises."""


# All or nothing


async def test_what_was_committed_is_visible_to_everyone(scope: Scope, second: Scope) -> None:
    made = await scope.run(add_product, "book")
    assert await scope.read(all_products) == [made]
    assert await second.read(all_products) == [made]
    assert await second.run(all_products) == [made]


async def test_an_operation_that_fails_leaves_nothing(scope: Scope) -> None:
    def fail(tx: Tx) -> None:
        add_product(tx, "book")
        assert names(tx) == ["book"]
        raise Boom

    with pytest.raises(Boom):
        await scope.run(fail)
    assert await scope.read(names) == []
    assert await scope.read(all_events) == []
    await scope.run(add_product, "next")
    assert await scope.read(names) == ["next"]


async def test_a_refusal_leaves_nothing(scope: Scope) -> None:
    def refuse(tx: Tx) -> None:
        add_product(tx, "book")
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await scope.run(refuse)
    assert await scope.read(names) == []


async def test_a_statement_the_database_refuses_leaves_nothing(scope: Scope) -> None:
    def fail(tx: Tx) -> None:
        add_product(tx, "book")
        tx.insert(products, product(tx, status="sold"))

    with pytest.raises(IntegrityError, match="ck_products_status"):
        await scope.run(fail)
    assert await scope.read(names) == []
    assert await scope.read(all_events) == []


async def test_an_operation_answers(scope: Scope) -> None:
    assert await scope.run(lambda tx, left, *, right: (tx.tenant, left, right), 1, right=2) == (scope.tenant, 1, 2)
    assert await scope.read(lambda tx, left, *, right: (tx.tenant, left, right), 1, right=2) == (scope.tenant, 1, 2)


async def test_the_clock_is_the_transactions(scope: Scope, clock: ManualClock) -> None:
    start = clock.now()
    assert await scope.run(lambda tx: tx.now) == start
    assert await scope.read(lambda tx: tx.now) == start
    clock.advance(timedelta(days=1))
    assert await scope.run(lambda tx: tx.now) == start + timedelta(days=1)
    assert await scope.read(lambda tx: tx.now) == start + timedelta(days=1)


# The record


async def test_events_say_what_happened(database: Database, tenant: str, clock: ManualClock) -> None:
    actor = Actor("key", "key_1", address="127.0.0.1", user_agent="agent/1")
    scope = database.scope(tenant, actor)

    def work(tx: Tx) -> None:
        tx.record("test.sold", "order", "ord_1", money=Money(1230, "USD"), line=1, why=None)
        tx.record("test.seen", "order", "ord_1")

    await scope.run(work)
    sold, seen = await scope.read(all_events)
    assert (sold.type, sold.object_kind, sold.object_id) == ("test.sold", "order", "ord_1")
    assert (sold.amount, sold.asset, sold.details) == (1230, "USD", {"line": 1, "why": None})
    assert (sold.actor_kind, sold.actor_id, sold.address, sold.user_agent) == ("key", "key_1", "127.0.0.1", "agent/1")
    assert sold.created_at == clock.now()
    assert (seen.type, seen.amount, seen.asset, seen.details) == ("test.seen", None, None, {})
    assert sold.id < seen.id


async def test_events_keep_the_order_they_were_recorded_in(scope: Scope) -> None:
    def work(tx: Tx) -> None:
        for number in range(100):
            tx.record("test.counted", "thing", str(number))

    await scope.run(work)
    recorded = await scope.read(all_events)
    assert [event.object_id for event in recorded] == [str(number) for number in range(100)]
    assert all(is_id("evt", event.id) for event in recorded)


async def test_an_event_that_cannot_be_written_undoes_the_rest(scope: Scope) -> None:
    def work(tx: Tx) -> None:
        tx.insert(products, product(tx, "book"))
        tx.record("test.odd", "thing", "1", what=object())

    with pytest.raises(Exception, match="object"):
        await scope.run(work)
    assert await scope.read(names) == []


async def test_ids_rise_within_a_transaction(scope: Scope) -> None:
    def work(tx: Tx) -> list[str]:
        return [add_product(tx, str(number)).id for number in range(50)]

    ids = await scope.run(work)
    assert ids == sorted(set(ids))
    assert [one.name for one in await scope.read(all_products)] == [str(number) for number in range(50)]


# Each tenant's own


async def test_a_tenant_sees_only_its_own(scope: Scope, other: Scope) -> None:
    mine_, theirs = await scope.run(add_product, "mine"), await other.run(add_product, "theirs")
    assert await scope.read(all_products) == [mine_]
    assert await other.read(all_products) == [theirs]
    assert [event.object_id for event in await scope.read(all_events)] == [mine_.id]
    assert [event.object_id for event in await other.read(all_events)] == [theirs.id]


async def test_a_tenant_changes_only_its_own(scope: Scope, other: Scope) -> None:
    mine_, theirs = await scope.run(add_product, "mine"), await other.run(add_product, "theirs")

    def rename(tx: Tx, product_id: str) -> int:
        return tx.execute(_RENAME, {"product": product_id, "suffix": "!"})

    assert await scope.run(rename, theirs.id) == 0
    assert await other.read(all_products) == [theirs]
    assert await scope.run(rename, mine_.id) == 1
    assert await scope.read(names) == ["mine!"]


async def test_the_tenant_of_a_statement_cannot_be_chosen(scope: Scope, other: Scope) -> None:
    theirs = await other.run(add_product, "theirs")
    everything = sa.select(products.c.name).where(mine(products))
    assert await scope.read(lambda tx: tx.all(everything, {"tenant": OTHER})) == []
    assert await scope.read(lambda tx: tx.one(everything, {"tenant": OTHER})) is None
    change = {"product": theirs.id, "suffix": "!", "tenant": OTHER}
    assert await scope.run(lambda tx: tx.execute(_RENAME, change)) == 0
    assert await other.read(all_products) == [theirs]


async def test_two_tenants_may_use_one_id(scope: Scope, other: Scope) -> None:
    made = await scope.run(add_product, "mine")
    await other.run(lambda tx: add_product(tx, "theirs", id=made.id, slug=made.slug))
    assert await scope.read(names) == ["mine"]
    assert await other.read(names) == ["theirs"]


async def test_a_row_cannot_refer_across_tenants(scope: Scope, other: Scope) -> None:
    mine_ = await scope.run(add_product, "mine")
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await other.run(lambda tx: tx.insert(prices, price(tx, mine_.id)))
    assert await other.read(all_prices) == []
    made = await scope.run(lambda tx: price(tx, mine_.id))
    await scope.run(lambda tx: tx.insert(prices, made))
    assert await scope.read(all_prices) == [made]


async def test_nothing_is_written_for_a_tenant_that_does_not_exist(database: Database, tenant: str) -> None:
    nobody = database.scope("ten_00000000000000000000000009")
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await nobody.run(add_product, "book")
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await nobody.run(lambda tx: tx.record("test.seen", "thing", "1"))
    assert await nobody.read(names) == []
    assert await nobody.read(all_events) == []


# Reading


@pytest.mark.parametrize(
    "write",
    [
        lambda tx: tx.insert(products, product(tx)),
        lambda tx: tx.insert_if_new(products, product(tx)),
        lambda tx: tx.execute(_RENAME, {"product": "prd_1", "suffix": "!"}),
        lambda tx: tx.execute(sa.text("CREATE TABLE more (id INTEGER)")),
        lambda tx: tx.execute(sa.text("DROP TABLE jobs")),
    ],
    ids=["insert", "insert_if_new", "update", "create", "drop"],
)
async def test_reading_cannot_write(scope: Scope, write: Callable[[Tx], Any]) -> None:
    made = await scope.run(add_product, "book")
    with pytest.raises((OperationalError, DBAPIError), match=r"(?i)read.?only"):
        await scope.read(write)
    assert await scope.read(all_products) == [made]
    # The connection that was refused goes back, and writing works as before.
    for name in ("more", "yet more"):
        await scope.run(add_product, name)
    assert await scope.read(names) == ["book", "more", "yet more"]


async def test_reading_sees_one_snapshot(scope: Scope, second: Scope, database_url: str) -> None:
    await scope.run(add_product, "before")
    loop = asyncio.get_running_loop()

    def look_twice(tx: Tx) -> tuple[list[str], list[str]]:
        first = names(tx)
        writing = second.run(add_product, "between")
        if tx._connection.dialect.name == "sqlite":  # in a thread
            asyncio.run_coroutine_threadsafe(writing, loop).result()
        else:
            await_only(writing)
        return first, names(tx)

    assert await scope.read(look_twice) == (["before"], ["before"])
    assert await scope.read(names) == ["before", "between"]


async def test_a_mistake_in_a_statement_is_not_an_outage(scope: Scope) -> None:
    wrong = sa.text("SELECT nothing FROM nowhere")
    for run in (scope.read, scope.run):
        with pytest.raises((OperationalError, ProgrammingError), match="nowhere"):
            await run(lambda tx: tx.all(wrong))
    assert await scope.read(names) == []


async def test_one_row_means_one(scope: Scope) -> None:
    query = sa.select(products.c.name).where(mine(products))
    assert await scope.read(lambda tx: tx.one(query)) is None
    await scope.run(add_product, "first")
    assert await scope.read(lambda tx: tx.one(query)) == ("first",)
    await scope.run(add_product, "second")
    with pytest.raises(sa.exc.MultipleResultsFound):
        await scope.read(lambda tx: tx.one(query))


@single_statement
def one_look(tx: Tx) -> list[str]:
    return names(tx)


@single_statement
def two_looks(tx: Tx) -> list[str]:
    return names(tx) + names(tx)


@single_statement
def one_write(tx: Tx) -> None:
    tx.insert(products, product(tx))


@single_statement
def one_write_if_new(tx: Tx) -> None:
    tx.insert_if_new(products, product(tx))


@single_statement
def one_change(tx: Tx) -> None:
    tx.execute(_RENAME, {"product": "prd_1", "suffix": "!"})


@single_statement
def one_change_that_answers(tx: Tx) -> None:
    tx.all(sa.delete(products).where(mine(products)).returning(products.c.id))


async def test_a_single_statement_reads(scope: Scope) -> None:
    await scope.run(add_product, "book")
    assert await scope.read(one_look) == ["book"]
    await scope.run(add_product, "more")
    assert await scope.read(one_look) == ["book", "more"]


async def test_a_single_statement_is_single_and_only_reads(scope: Scope) -> None:
    await scope.run(add_product, "book")
    with pytest.raises(RuntimeError, match="ran a second statement"):
        await scope.read(two_looks)
    for write in (one_write, one_write_if_new, one_change, one_change_that_answers):
        with pytest.raises(RuntimeError, match="only reads"):
            await scope.read(write)
    assert await scope.read(names) == ["book"]


# SQLite: one writer that commits in groups


@contextmanager
def traced(log: list[str], on_commit: Callable[[], None] = lambda: None) -> Iterator[Callable[[Tx], None]]:
    """An operation that has the writer's connection log when it begins and commits, before it does."""
    connections: list[sqlite3.Connection] = []

    def note(statement: str) -> None:
        word = statement.split(maxsplit=1)[0]
        if word in ("BEGIN", "COMMIT", "SAVEPOINT"):
            log.append(word)
        if word == "COMMIT":
            on_commit()

    def start(tx: Tx) -> None:
        raw = tx._connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        connections.append(raw)
        raw.set_trace_callback(note)

    yield start
    for raw in connections:
        raw.set_trace_callback(None)


class Gate:
    """An operation that holds the writer until it is told to go on, so that what follows waits together."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def hold(self, tx: Tx) -> None:
        self.reached.set()
        assert self.go.wait(30)


async def started(*works: Any) -> list[asyncio.Task[Any]]:
    """Tasks that have run up to where they wait."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0)
    return tasks


@only_sqlite
async def test_a_group_shares_one_commit(scope: Scope) -> None:
    log: list[str] = []
    gate = Gate()
    with traced(log) as start:
        await scope.run(start)
        log.clear()
        holding = await started(scope.run(gate.hold))
        await asyncio.to_thread(gate.reached.wait, 30)
        waiting = await started(*[scope.run(add_product, str(number)) for number in range(100)])
        gate.go.set()
        made = await asyncio.gather(*waiting)
        await asyncio.gather(*holding)
    assert log == ["BEGIN", "SAVEPOINT", "COMMIT", "BEGIN", *["SAVEPOINT"] * 100, "COMMIT"]
    assert [one.name for one in made] == [str(number) for number in range(100)]
    assert await scope.read(names) == sorted(str(number) for number in range(100))


@only_sqlite
async def test_a_group_has_a_largest_size(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_LARGEST_GROUP", 10)
    log: list[str] = []
    gate = Gate()
    with traced(log) as start:
        await scope.run(start)
        log.clear()
        holding = await started(scope.run(gate.hold))
        await asyncio.to_thread(gate.reached.wait, 30)
        waiting = await started(*[scope.run(add_product, str(number)) for number in range(25)])
        gate.go.set()
        await asyncio.gather(*holding, *waiting)
    assert log.count("COMMIT") == 1 + 3
    assert len(await scope.read(names)) == 25


@only_sqlite
async def test_an_operation_that_fails_does_not_disturb_its_group(scope: Scope) -> None:
    def fail(tx: Tx) -> None:
        add_product(tx, "bad")
        raise Boom

    gate = Gate()
    log: list[str] = []
    with traced(log) as start:
        await scope.run(start)
        holding = await started(scope.run(gate.hold))
        await asyncio.to_thread(gate.reached.wait, 30)
        log.clear()
        works = [scope.run(add_product, "one"), scope.run(fail), scope.run(add_product, "two")]
        waiting = await started(*works, scope.run(lambda tx: tx.insert(products, product(tx, status="sold"))))
        gate.go.set()
        await asyncio.gather(*holding)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert log == ["COMMIT", "BEGIN", *["SAVEPOINT"] * 4, "COMMIT"]
    assert [type(answer).__name__ for answer in answers] == ["Product", "Boom", "Product", "IntegrityError"]
    assert await scope.read(names) == ["one", "two"]
    assert sorted(event.details["name"] for event in await scope.read(all_events)) == ["one", "two"]


@only_sqlite
async def test_nobody_is_answered_before_the_commit(scope: Scope) -> None:
    committing, go = threading.Event(), threading.Event()

    def wait() -> None:
        committing.set()
        assert go.wait(30)

    with traced([], wait) as start:
        first = await started(scope.run(start), scope.run(add_product, "book"))
        await asyncio.to_thread(committing.wait, 30)
        for _ in range(10):
            await asyncio.sleep(0)
        assert [task.done() for task in first] == [False, False]
        assert await scope.read(names) == []
        go.set()
        await asyncio.gather(*first)
    assert await scope.read(names) == ["book"]


@only_sqlite
async def test_a_commit_that_fails_fails_the_whole_group(scope: Scope) -> None:
    def spoil(tx: Tx) -> None:
        # The reference is checked at the commit, which then fails.
        tx.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        tx.insert(prices, price(tx, "prd_none"))

    gate = Gate()
    holding = await started(scope.run(gate.hold))
    await asyncio.to_thread(gate.reached.wait, 30)
    waiting = await started(scope.run(add_product, "good"), scope.run(spoil))
    gate.go.set()
    await asyncio.gather(*holding)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable, DatabaseUnavailable]
    assert "FOREIGN KEY constraint failed" in str(answers[0].__cause__)
    assert await scope.read(names) == []
    await scope.run(add_product, "next")
    assert await scope.read(names) == ["next"]


@only_sqlite
async def test_a_caller_that_goes_away_while_it_waits_gets_nothing_done(scope: Scope) -> None:
    gate = Gate()
    holding = await started(scope.run(gate.hold))
    await asyncio.to_thread(gate.reached.wait, 30)
    gone, stays = await started(scope.run(add_product, "gone"), scope.run(add_product, "stays"))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    gate.go.set()
    await asyncio.gather(*holding, stays)
    assert gone.cancelled()
    assert await scope.read(names) == ["stays"]


@only_sqlite
async def test_a_caller_that_goes_away_while_it_is_served_disturbs_nobody(scope: Scope) -> None:
    gate = Gate()

    def hold_and_add(tx: Tx) -> None:
        gate.hold(tx)
        add_product(tx, "done anyway")

    (gone,) = await started(scope.run(hold_and_add))
    await asyncio.to_thread(gate.reached.wait, 30)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    gate.go.set()
    await scope.run(add_product, "next")
    assert await scope.read(names) == ["done anyway", "next"]


@only_sqlite
async def test_a_file_locked_by_another_program_is_unavailable(
    database_url: str, clock: ManualClock, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "_BUSY_MS", 20)
    opened = connect(database_url, clock)
    scope = opened.scope(tenant)
    await scope.run(add_product, "before")
    raw = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable) as refused:
        await scope.run(add_product, "during")
    assert refused.value.retryable
    assert refused.value.status == 503
    assert await scope.read(names) == ["before"]  # readers do not wait for the writer
    raw.execute("ROLLBACK")
    raw.close()
    await scope.run(add_product, "after")
    assert await scope.read(names) == ["after", "before"]
    await opened.close()


async def test_a_file_that_cannot_be_opened_is_unavailable_until_it_can(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "later"
    opened = connect(f"sqlite:///{folder / 'new.db'}", clock)
    scope = opened.scope("ten_1")
    answer_one = sa.select(sa.literal(1))
    for run in (scope.run, scope.read):
        with pytest.raises(DatabaseUnavailable):
            await run(lambda tx: tx.one(answer_one))
    assert not folder.exists()
    folder.mkdir()
    for run in (scope.run, scope.read):
        assert await run(lambda tx: tx.one(answer_one)) == (1,)
    await opened.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"not a database\n" * 100)
    opened = connect(f"sqlite:///{path}", clock)
    scope = opened.scope("ten_1")
    for run in (scope.run, scope.read):
        with pytest.raises(DatabaseUnavailable):
            await run(names)
    await opened.close()
    assert path.read_bytes() == b"not a database\n" * 100


@only_sqlite
async def test_sqlite_flushes_each_commit_to_disk(scope: Scope) -> None:
    def settings(tx: Tx) -> list[Any]:
        return [
            tx._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await scope.run(settings) == ["wal", 2, 1]  # 2 = FULL
    assert await scope.read(settings) == ["wal", 2, 1]


# Closing


@only_sqlite
async def test_closing_finishes_what_is_queued(database_url: str, clock: ManualClock, scope: Scope) -> None:
    opened = connect(database_url, clock)
    gate = Gate()
    closing = opened.scope(scope.tenant)
    holding = await started(closing.run(gate.hold))
    await asyncio.to_thread(gate.reached.wait, 30)
    queued = await started(*[closing.run(add_product, str(number)) for number in range(5)])
    ending = asyncio.ensure_future(opened.close())
    await asyncio.sleep(0)
    for run in (closing.run, closing.read):
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await run(names)
    gate.go.set()
    await asyncio.gather(*holding, *queued, ending)
    assert await scope.read(names) == ["0", "1", "2", "3", "4"]
    await opened.close()  # again is fine


@only_sqlite
async def test_closing_leaves_no_thread(database_url: str, clock: ManualClock, tenant: str) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("sqlite")]

    before = threads()
    opened = connect(database_url, clock)
    await opened.scope(tenant).run(names)
    await opened.scope(tenant).read(names)
    assert len(threads()) == len(before) + 2
    await opened.close()
    assert threads() == before


# PostgreSQL: many at once, and again from the start when it asks for it


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module.random, "uniform", lambda _low, _high: 0)


@only_postgresql
async def test_a_deadlock_is_tried_again(scope: Scope, without_waiting: None) -> None:
    left, right = await scope.run(add_product, "left"), await scope.run(add_product, "right")
    both_hold_one = asyncio.Barrier(2)
    attempts: list[str] = []

    def rename_both(tx: Tx, first: str, then: str, suffix: str) -> None:
        again = suffix in attempts
        attempts.append(suffix)
        tx.record("test.renamed", "product", first, suffix=suffix)
        assert tx.execute(_RENAME, {"product": first, "suffix": suffix}) == 1
        if not again:
            await_only(both_hold_one.wait())
        assert tx.execute(_RENAME, {"product": then, "suffix": suffix}) == 1

    await asyncio.gather(
        scope.run(rename_both, left.id, right.id, "a"),
        scope.run(rename_both, right.id, left.id, "b"),
    )
    assert sorted(attempts) in (["a", "a", "b"], ["a", "b", "b"])
    assert [sorted(name.removeprefix("left").removeprefix("right")) for name in await scope.read(names)] == [
        ["a", "b"],
        ["a", "b"],
    ]
    # What the losing attempt recorded went with it.
    recorded = [event.details["suffix"] for event in await scope.read(all_events) if event.type == "test.renamed"]
    assert sorted(recorded) == ["a", "b"]


@only_postgresql
async def test_a_serialization_failure_is_tried_again(scope: Scope, second: Scope, without_waiting: None) -> None:
    made = await scope.run(add_product, "n")
    attempts: list[str] = []

    def rename(tx: Tx) -> None:
        tx.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        attempts.append(names(tx)[0])
        if len(attempts) == 1:
            await_only(second.run(lambda tx: tx.execute(_RENAME, {"product": made.id, "suffix": "1"})))
        tx.execute(_RENAME, {"product": made.id, "suffix": "2"})

    await scope.run(rename)
    assert attempts == ["n", "n1"]
    assert await scope.read(names) == ["n12"]


@only_postgresql
@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
async def test_trying_again_has_an_end(scope: Scope, without_waiting: None, state: str) -> None:
    attempts: list[int] = []

    def never(tx: Tx) -> None:
        attempts.append(1)
        add_product(tx, "book")
        tx.execute(sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"))

    with pytest.raises(DatabaseUnavailable, match="too busy"):
        await scope.run(never)
    assert len(attempts) == 8
    assert await scope.read(names) == []
    assert await scope.read(all_events) == []


@only_postgresql
async def test_other_failures_are_not_tried_again(scope: Scope) -> None:
    attempts: list[int] = []

    def refused(tx: Tx) -> None:
        attempts.append(1)
        tx.insert(products, product(tx, status="sold"))

    with pytest.raises(IntegrityError):
        await scope.run(refused)
    assert attempts == [1]


@only_postgresql
async def test_waits_between_attempts_grow_and_differ(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0

    monkeypatch.setattr(postgres_module.random, "uniform", uniform)
    with pytest.raises(DatabaseUnavailable):
        await scope.run(
            lambda tx: tx.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"))
        )
    assert asked == [(0, 0.005 * 2**attempt) for attempt in range(1, 8)]


@only_postgresql
async def test_a_server_that_closes_the_connection_is_unavailable_and_nothing_is_done(
    scope: Scope, second: Scope
) -> None:
    def cut_off(tx: Tx) -> None:
        add_product(tx, "book")
        tx.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(DatabaseUnavailable):
        await scope.run(cut_off)
    assert await second.read(names) == []
    await scope.run(add_product, "next")
    assert await scope.read(names) == ["next"]


@only_postgresql
async def test_a_statement_that_takes_too_long_is_unavailable(scope: Scope) -> None:
    def slow(tx: Tx) -> None:
        add_product(tx, "book")
        tx.execute(sa.text("SET LOCAL statement_timeout = '1ms'"))
        tx.execute(sa.text("SELECT pg_sleep(60)"))

    with pytest.raises(DatabaseUnavailable):
        await scope.run(slow)
    assert await scope.read(names) == []


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "postgresql://nobody@/none?host=/nonexistent"])
async def test_a_server_that_is_away_is_unavailable(url: str, clock: ManualClock) -> None:
    opened = connect(url, clock)
    for run in (opened.scope("ten_1").run, opened.scope("ten_1").read):
        with pytest.raises(DatabaseUnavailable):
            await run(names)
    await opened.close()


async def test_a_database_that_does_not_exist_is_unavailable(databases: Databases, clock: ManualClock) -> None:
    opened = connect(databases.postgres.url_of("counterfoil_nowhere"), clock)
    for run in (opened.scope("ten_1").run, opened.scope("ten_1").read):
        with pytest.raises(DatabaseUnavailable) as refused:
            await run(names)
        assert 'database "counterfoil_nowhere" does not exist' in str(refused.value.__cause__)
    await opened.close()


# On both: under load


async def test_concurrent_changes_of_one_row_are_all_counted(scope: Scope) -> None:
    made = await scope.run(add_product, "")

    def append(tx: Tx) -> int:
        return tx.execute(_RENAME, {"product": made.id, "suffix": "x"})

    assert await asyncio.gather(*[scope.run(append) for _ in range(50)]) == [1] * 50
    assert await scope.read(names) == ["x" * 50]


async def test_concurrent_inserts_of_one_key_add_one_row(scope: Scope) -> None:
    answers = await asyncio.gather(
        *[scope.run(lambda tx: tx.insert_if_new(products, product(tx, slug="same"))) for _ in range(30)]
    )
    assert sorted(answers) == [False] * 29 + [True]
    assert len(await scope.read(names)) == 1
