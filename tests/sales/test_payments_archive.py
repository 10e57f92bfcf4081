"""Payments for ever: a reference is new once, whatever is archived meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.util import await_only
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, competitor, good, opening, problem

from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import payments, payments_archive
from counterfoil.sales.types import Payment

OLD = timedelta(hours=2160)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


def add(tx: Tx, reference: str = "r", status: Any = "settled") -> Payment | None:
    return payments.add_if_new(
        tx, rail="manual", reference=reference, checkout_id=None, customer_id=None, payer=None,
        money=Money(5, "USD"), status=status, details={"a": [1]}, occurred_at=tx.now,
    )  # fmt: skip


async def archive(shop: Shop, **given: Any) -> int:
    return await payments_archive.archive_all(shop.scope, before=shop.clock.now() - OLD, **given)


async def test_a_reference_stays_taken(shop: Shop) -> None:
    first = await shop.scope.run(add)
    assert first is not None
    assert await shop.scope.run(add) is None
    shop.clock.advance(OLD - timedelta(microseconds=1))
    assert await archive(shop) == 0
    shop.clock.advance(timedelta(microseconds=1))
    assert await archive(shop) == 1
    assert await shop.rows("payments") == []
    before = await shop.everything()
    assert await shop.scope.run(add) is None
    assert await shop.everything() == before
    assert await shop.scope.read(payments_archive.is_known, "manual", "r")
    assert not await shop.scope.read(payments_archive.is_known, "other", "r")
    row = await shop.row("payments_archive")
    assert row.pop("archived_at") == shop.clock.now()
    assert Payment(**row) == first
    assert await shop.events("payments.archived") == ["payments.archived"]


async def test_what_is_archived_can_be_seen(shop: Shop) -> None:
    first = await shop.scope.run(add)
    assert first is not None
    url = "/v1/payments/by-reference?rail=manual&reference=r"
    live = good(await shop.staff.get(url))
    assert live["archived_at"] is None
    shop.clock.advance(OLD)
    await archive(shop)
    shown = good(await shop.staff.get(url))
    assert shown == {**live, "archived_at": shop.clock.now().isoformat().replace("+00:00", "Z")}
    assert good(await shop.staff.get(f"/v1/payments/{first.id}")) == shown
    assert good(await shop.staff.get("/v1/payments?archived=true"))["data"] == [shown]
    assert good(await shop.staff.get("/v1/payments"))["data"] == []
    problem(await shop.staff.get("/v1/payments?archived=true&attention=true"), 422, "invalid_request")
    problem(await shop.staff.get("/v1/payments/by-reference?rail=manual&reference=s"), 404, "payment_not_found")
    resolve = {"resolution": "dismissed"}
    problem(await shop.staff.post(f"/v1/payments/{first.id}/resolve", json=resolve), 404, "payment_not_found")


async def test_what_waits_for_somebody_stays(shop: Shop) -> None:
    sold = await shop.tier()
    await shop.scope.run(add, "waits", "unmatched")
    resolved = await shop.scope.run(add, "seen to", "unmatched")
    assert resolved is not None
    await shop.scope.run(payments.resolve, resolved.id, "dismissed", note="")
    short, paid, refunded = [await shop.checkout(sold) for _ in range(3)]
    await shop.play(short, "underpay")
    await shop.play(paid, "pay")
    await shop.play(refunded, "pay")
    money = await shop.row("payments", checkout_id=refunded["id"])
    good(await shop.staff.post("/v1/refunds", json={"payment_id": money["id"], "amount": 1}))
    shop.clock.advance(OLD)
    assert await archive(shop) == 2
    left = {row["checkout_id"] or row["reference"] for row in await shop.rows("payments")}
    assert left == {"waits", short["id"], refunded["id"]}
    gone = {row["checkout_id"] or row["reference"] for row in await shop.rows("payments_archive")}
    assert gone == {"seen to", paid["id"]}


async def test_in_batches(shop: Shop) -> None:
    for number in range(7):
        await shop.scope.run(add, str(number), "unmatched" if number == 2 else "settled")
    shop.clock.advance(OLD)
    assert await archive(shop, limit=2) == 6
    assert [row["reference"] for row in await shop.rows("payments")] == ["2"]
    assert len(await shop.events("payments.archived")) == 3


async def test_more_money_for_a_checkout_whose_payment_is_archived(shop: Shop) -> None:
    sold = await shop.tier(amount=100)
    opened = await shop.checkout(sold)
    session = await shop.play(opened, "pay")
    shop.clock.advance(OLD)
    assert await archive(shop) == 1
    body = {"reference": "more", "amount": 100, "asset": "SAT", "checkout_id": opened["id"]}
    more = good(await shop.staff.post("/v1/payments", json=body))
    assert more["status"] == "overpaid"
    assert (await shop.row("payments_archive"))["status"] == "settled"
    del session
    # The news of the first one again: nothing new.
    before = await shop.everything("inbox")
    await shop.play(opened, "pay")
    assert await shop.everything("inbox") == before


@TRANSACTIONS_OVERLAP
async def test_archived_between_the_look_and_the_insert(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await shop.scope.run(add) is not None
    shop.clock.advance(OLD)
    rival = competitor(
        monkeypatch, payments, "row_of", shop.scope, payments_archive.archive, before=shop.clock.now() - OLD
    )
    assert await shop.scope.run(add) is None
    assert rival[0].count == 1
    assert await shop.rows("payments") == []


_WAITS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND :tenant <> ''")


@TRANSACTIONS_OVERLAP
async def test_an_insert_that_began_before_the_archival_committed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await shop.scope.run(add) is not None
    shop.clock.advance(OLD)
    tasks: list[asyncio.Task[Payment | None]] = []

    async def begin() -> None:
        tasks.append(asyncio.create_task(shop.scope.run(add)))
        while not (tasks[0].done() or await shop.scope.read(_waiting)):
            pass

    def done_but_not_committed(*values: Any) -> payments_archive.Batch:
        if not tasks:
            await_only(begin())
        return batch(*values)

    batch = payments_archive.Batch
    monkeypatch.setattr(payments_archive, "Batch", done_but_not_committed)
    assert await archive(shop) == 1
    assert await tasks[0] is None
    assert await shop.rows("payments") == []


def _waiting(tx: Tx) -> bool:
    row = tx.one(_WAITS)
    return row is not None and row[0] > 0


async def test_a_hundred_inserts_while_archival_runs(shop: Shop) -> None:
    for number in range(20):
        await shop.scope.run(add, str(number))
    shop.clock.advance(OLD)

    async def tries() -> list[Payment | None]:
        return await asyncio.gather(*(shop.scope.run(add, str(number % 25)) for number in range(100)))

    done, moved = await asyncio.gather(tries(), archive(shop, limit=5))
    assert moved == 20
    assert sorted(one.reference for one in done if one) == ["20", "21", "22", "23", "24"]
    references = [row["reference"] for table in ("payments", "payments_archive") for row in await shop.rows(table)]
    assert sorted(references, key=int) == [str(number) for number in range(25)]


async def test_the_job(shop: Shop, database_url: str, clock: ManualClock, master: MasterKey) -> None:
    await shop.scope.run(add)
    shop.clock.advance(timedelta(days=2))
    assert "archive_payments" not in {kind.name for kind in shop.house._jobs()}
    given = {"archival_enabled": True, "archival_retention": "1d", "archival_interval": "36h"}
    async with opening(database_url, clock, master, **given) as other:
        (kind,) = [kind for kind in other.house._jobs() if kind.name == "archive_payments"]
        assert kind.every == timedelta(hours=36)
        assert await kind.work(other.scope) == 1
    assert await shop.rows("payments") == []
