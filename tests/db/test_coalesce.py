"""Requests of one kind that wait at the same moment share a transaction, and notice nothing of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.util import await_only
from tests.support.rows import add_product, all_events, names, product

from counterfoil.accounts import tenants
from counterfoil.catalog.tables import products
from counterfoil.db.base import Database, DatabaseUnavailable, Scope
from counterfoil.db.tx import Tx
from counterfoil.events.types import SYSTEM, Actor
from counterfoil.kernel.errors import Conflict, CounterfoilError, NotFound

OTHER = "ten_00000000000000000000000001"


@pytest.fixture
def scope(database: Database, tenant: str) -> Scope:
    return database.scope(tenant)


class Shop:
    """An operation on many requests: adds a product each, and keeps count of its transactions."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def add_many(self, tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        self.batches.append(requests)
        return [self.answer(tx, request) for request in requests]

    def answer(self, tx: Tx, request: str) -> str | CounterfoilError:
        if request.startswith("refused"):
            return Conflict(request)
        if request.startswith("bad"):
            tx.insert(products, product(tx, status="sold"))
        if request.startswith("late"):
            raise NotFound(request)
        add_product(tx, request)
        return request.upper()


class Gate:
    """Holds a transaction on either database until it is told to go on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reached = asyncio.Semaphore(0)
        self._go = asyncio.Event()
        self._go_thread = threading.Event()

    def hold(self, tx: Tx) -> None:
        if tx._connection.dialect.name == "sqlite":  # in the writer's thread
            self._loop.call_soon_threadsafe(self._reached.release)
            assert self._go_thread.wait(30)
        else:
            self._reached.release()
            await_only(self._go.wait())

    async def reached(self) -> None:
        """Wait until one more transaction is held."""
        await asyncio.wait_for(self._reached.acquire(), 30)

    def go(self) -> None:
        self._go.set()
        self._go_thread.set()


async def started(*works: Any) -> list[asyncio.Task[Any]]:
    """Tasks that have run up to where they wait."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0)
    return tasks


async def test_a_request_alone_is_served_at_once(scope: Scope) -> None:
    shop = Shop()
    assert await scope.coalesce(shop.add_many, "one") == "ONE"
    assert await scope.coalesce(shop.add_many, "two") == "TWO"
    assert shop.batches == [["one"], ["two"]]
    assert await scope.read(names) == ["one", "two"]


async def test_concurrent_requests_share_a_transaction(scope: Scope) -> None:
    shop = Shop()
    requests = [f"p{number:03}" for number in range(100)]
    answers = await asyncio.gather(*[scope.coalesce(shop.add_many, request) for request in requests])
    assert answers == [request.upper() for request in requests]
    assert shop.batches == [requests]
    assert await scope.read(names) == requests
    assert len(await scope.read(all_events)) == 100


async def test_a_transaction_takes_only_so_many(scope: Scope) -> None:
    shop = Shop()
    requests = [f"p{number:03}" for number in range(450)]
    answers = await asyncio.gather(*[scope.coalesce(shop.add_many, request) for request in requests])
    assert answers == [request.upper() for request in requests]
    assert sorted(len(batch) for batch in shop.batches) == [50, 200, 200]
    assert sorted(request for batch in shop.batches for request in batch) == requests
    assert await scope.read(names) == requests


async def test_what_arrives_while_one_runs_goes_together_in_the_next(scope: Scope) -> None:
    gate, batches = Gate(), []

    def work(tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        batches.append(requests)
        if "hold" in requests:
            gate.hold(tx)
        return list(requests)

    at_once = {"sqlite": 1, "postgresql": 2}[scope.database.dialect]
    # PostgreSQL runs two at once; both are busy here.
    holding = []
    for _ in range(at_once):
        holding += await started(scope.coalesce(work, "hold"))
        await gate.reached()
    waiting = await started(*[scope.coalesce(work, request) for request in "abc"])
    assert [task.done() for task in waiting] == [False] * 3
    gate.go()
    assert await asyncio.gather(*holding, *waiting) == ["hold"] * at_once + ["a", "b", "c"]
    assert batches == [["hold"]] * at_once + [["a", "b", "c"]]


async def test_answers_come_in_order_whatever_the_order_of_arrival(scope: Scope) -> None:
    def work(_tx: Tx, requests: list[int]) -> list[int | CounterfoilError]:
        return [request * request for request in requests]

    requests = [3, 1, 2, 3, 1]
    assert await asyncio.gather(*[scope.coalesce(work, request) for request in requests]) == [9, 1, 4, 9, 1]


async def test_an_error_given_as_an_answer_is_raised_for_that_request_alone(scope: Scope) -> None:
    shop = Shop()
    requests = ["one", "refused 1", "two", "refused 2"]
    answers = await asyncio.gather(
        *[scope.coalesce(shop.add_many, request) for request in requests], return_exceptions=True
    )
    assert [repr(answer) for answer in answers] == ["'ONE'", "Conflict('refused 1')", "'TWO'", "Conflict('refused 2')"]
    assert shop.batches == [requests]  # and it cost nobody a second transaction
    assert await scope.read(names) == ["one", "two"]


@pytest.mark.parametrize(("bad", "error"), [("bad", IntegrityError), ("late", NotFound)])
async def test_a_request_that_fails_fails_alone(scope: Scope, bad: str, error: type[Exception]) -> None:
    shop = Shop()
    requests = ["one", bad, "two"]
    answers = await asyncio.gather(
        *[scope.coalesce(shop.add_many, request) for request in requests], return_exceptions=True
    )
    assert (answers[0], answers[2]) == ("ONE", "TWO")
    assert isinstance(answers[1], error)
    assert shop.batches == [requests, ["one"], [bad], ["two"]]
    # What the shared attempt had done was undone: everything is there once.
    assert await scope.read(names) == ["one", "two"]
    assert sorted(event.details["name"] for event in await scope.read(all_events)) == ["one", "two"]
    assert await scope.coalesce(shop.add_many, "three") == "THREE"


async def test_a_request_that_fails_alone_is_tried_once(scope: Scope) -> None:
    shop = Shop()
    with pytest.raises(NotFound):
        await scope.coalesce(shop.add_many, "late")
    assert shop.batches == [["late"]]


async def test_when_the_database_is_away_everyone_hears_it_at_once(scope: Scope) -> None:
    attempts = []

    def work(_tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        attempts.append(requests)
        raise DatabaseUnavailable("gone")

    answers = await asyncio.gather(*[scope.coalesce(work, request) for request in "abc"], return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    assert attempts == [["a", "b", "c"]]


@pytest.mark.parametrize("answers", [lambda n: ["x"] * (n - 1), lambda n: ["x"] * (n + 1)], ids=["few", "many"])
async def test_the_wrong_number_of_answers_leaves_nobody_waiting(
    scope: Scope, answers: Callable[[int], list[str]]
) -> None:
    def work(tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        add_product(tx, "book")
        return list(answers(len(requests)))

    waiting = asyncio.gather(*[scope.coalesce(work, request) for request in "abc"], return_exceptions=True)
    given = await asyncio.wait_for(waiting, 30)
    assert [type(answer) for answer in given] == [RuntimeError] * 3
    assert await scope.read(names) == []


async def test_a_caller_that_goes_away_disturbs_nobody(scope: Scope) -> None:
    gate, shop = Gate(), Shop()

    def hold_first(tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        gate.hold(tx)
        return shop.add_many(tx, requests)

    one, gone, two = await started(*[scope.coalesce(hold_first, request) for request in ("one", "gone", "two")])
    await gate.reached()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    gate.go()
    assert await asyncio.gather(one, two) == ["ONE", "TWO"]
    assert shop.batches == [["one", "gone", "two"]]
    assert await scope.coalesce(hold_first, "three") == "THREE"


async def test_other_operations_tenants_and_actors_do_not_share(database: Database, tenant: str) -> None:
    other = database.scope(OTHER)
    assert await other.run(tenants.create, "other", "Other")
    seen: list[tuple[str, str, str, list[str]]] = []

    def first(tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        seen.append(("first", tx.tenant, tx.actor.kind, requests))
        return list(requests)

    def second(tx: Tx, requests: list[str]) -> list[str | CounterfoilError]:
        seen.append(("second", tx.tenant, tx.actor.kind, requests))
        return list(requests)

    job = Actor("job", "expire")
    works = [
        (database.scope(tenant), first),
        (database.scope(tenant), second),
        (database.scope(OTHER), first),
        (database.scope(tenant, job), first),
        (database.scope(tenant, SYSTEM), first),
    ]
    answers = await asyncio.gather(*[
        scope.coalesce(work, str(number)) for number, (scope, work) in enumerate(works)
    ])  # fmt: skip
    assert answers == ["0", "1", "2", "3", "4"]
    assert sorted(seen) == [
        ("first", tenant, "job", ["3"]),
        ("first", tenant, "system", ["0", "4"]),
        ("first", OTHER, "system", ["2"]),
        ("second", tenant, "system", ["1"]),
    ]


async def test_nothing_is_kept_of_what_is_done(database: Database, scope: Scope) -> None:
    shop = Shop()
    await asyncio.gather(*[scope.coalesce(shop.add_many, str(number)) for number in range(5)])
    await asyncio.sleep(0)
    assert database._coalescer._groups == {}
    assert database._coalescer._tasks == set()
