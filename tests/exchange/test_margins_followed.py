"""Margins and the subscriptions that run already: who is owed another discount, when, and who is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support.app import MINUTE, TRANSACTIONS_OVERLAP, Shop, Sold, competitor, good, opening
from tests.support.fake_rails import NAME, Provider, connect, push, renew, subscribe, tell

from counterfoil.accounts import customers
from counterfoil.db.tx import Tx
from counterfoil.exchange import margins, outbox
from counterfoil.exchange.margins import follow
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.facts import InvoiceLine
from counterfoil.settlement import subscribing
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.tables import subscription_items
from counterfoil.subscriptions.tables import subscriptions as subscriptions_table

DAY = timedelta(days=1)
ON_ONE = pytest.mark.parametrize("dialect", ["sqlite"])
"""What no database does otherwise than the other."""


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
async def rail(shop: Shop) -> Provider:
    return connect(shop)


async def customer(shop: Shop, name: str, parent: str | None = None, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "organization", "name": name, "parent_id": parent, **fields}
    return str(good(await shop.staff.post("/v1/customers", json=body))["id"])


async def discount(shop: Shop, amount: int, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "percentage", "amount": amount, **fields}
    return str(good(await shop.staff.post("/v1/discounts", json=body))["id"])


async def set_discount(shop: Shop, discount_id: str, **values: Any) -> None:
    good(await shop.staff.patch(f"/v1/discounts/{discount_id}", json=values))


async def monthly(shop: Shop, slug: str = "editor") -> Sold:
    return await shop.tier(slug, amount=1_000, asset="EUR", type="recurring", interval="month", interval_count=1)


async def buyer(shop: Shop, rail: Provider, **fields: Any) -> tuple[str, str, str]:
    """An MSP, a customer below it, and what that bought for 10 EUR a month before anybody had a margin."""
    above = await customer(shop, "msp", level=1)
    below = await customer(shop, "client", above)
    return above, below, await subscribe(shop, rail, await monthly(shop), customer_id=below, **fields)


async def follow_and_push(shop: Shop) -> int:
    """How many were owed a change; it is made."""
    shop.clock.advance(MINUTE)
    count = await follow(shop.scope)
    await push(shop)
    return count


async def carried(shop: Shop, subscription: str) -> str | None:
    found: str | None = (await shop.row("subscriptions", id=subscription))["discount_id"]
    return found


async def test_a_margin_reaches_what_was_sold_before_it(shop: Shop, rail: Provider) -> None:
    above, below, one = await buyer(shop, rail)
    other = await subscribe(shop, rail, await monthly(shop, "other"), email="somebody@example.com")
    assert await follow_and_push(shop) == 0
    margin = await discount(shop, 3_000, customer_id=above)
    assert await follow(shop.scope) == 1
    change = good(await shop.staff.get(f"/v1/subscriptions/{one}"))["changes"][0]
    assert (change["action"], change["status"], change["details"]) == ("discount", "owed", {"discount_id": margin})
    event = await shop.row("events", type=outbox.CHANGE_REQUESTED)
    assert (event["object_id"], event["customer_id"], event["actor_kind"]) == (one, below, "system")
    assert event["details"] == {"action": "discount", "discount_id": margin}
    assert await carried(shop, one) is None  # the rail has yet to say so
    await push(shop)
    assert (await carried(shop, one), await carried(shop, other)) == (margin, None)
    (asked,) = rail.changes()
    assert (asked["action"], asked["discount_reference"], asked["items"]) == ("change", f"r-{margin}", [])
    assert await follow_and_push(shop) == 0
    await set_discount(shop, margin, status="archived")
    assert await follow_and_push(shop) == 1
    assert (await carried(shop, one), rail.changes()[-1]["discount_reference"]) == (None, "")
    await set_discount(shop, margin, status="active")
    assert await follow_and_push(shop) == 1
    assert await carried(shop, one) == margin


async def test_the_nearest_margin_counts_wherever_the_customer_is(shop: Shop, rail: Provider) -> None:
    above, below, one = await buyer(shop, rail)
    another = await customer(shop, "another", level=1)
    far = await discount(shop, 3_000, customer_id=above)
    foreign = await discount(shop, 2_000, customer_id=another)
    await follow_and_push(shop)
    assert await carried(shop, one) == far
    near = await discount(shop, 500, customer_id=below)
    await follow_and_push(shop)
    assert await carried(shop, one) == near
    await set_discount(shop, near, status="archived")
    for parent, wanted in ((another, foreign), (None, None), (above, far)):
        good(await shop.staff.post(f"/v1/customers/{below}/move", json={"parent_id": parent}))
        assert await follow_and_push(shop) == 1
        assert await carried(shop, one) == wanted
    nothing = await discount(shop, 0, customer_id=below)  # the nearest one, which keeps the one above away
    await follow_and_push(shop)
    assert await carried(shop, one) is None
    assert await follow_and_push(shop) == 0
    await set_discount(shop, nothing, status="archived")
    await shop.scope.run(customers.delete, below)  # what it has goes on
    await follow_and_push(shop)
    assert await carried(shop, one) == far


@ON_ONE
async def test_only_margins_in_use_that_are_for_it_count(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    other = await shop.tier("other", amount=1_000, asset="EUR")
    for limits in ({"product_ids": [other.product_id]}, {"tiers": ["pro"]}, {"rails": ["paddle"]}):
        margin = await discount(shop, 3_000, customer_id=above, **limits)
        assert await follow_and_push(shop) == 0
        await set_discount(shop, margin, status="archived")
    now = shop.clock.now()
    begins, ends = now + timedelta(days=40), now + timedelta(days=50)
    times = {"starts_at": begins.isoformat(), "expires_at": ends.isoformat()}
    margin = await discount(shop, 3_000, customer_id=above, **times)
    assert await follow_and_push(shop) == 0
    shop.clock.advance(begins - shop.clock.now() - MINUTE)
    assert await follow_and_push(shop) == 1  # time alone has made it due
    assert await carried(shop, one) == margin
    shop.clock.advance(ends - shop.clock.now() - MINUTE)
    assert await follow_and_push(shop) == 1
    assert await carried(shop, one) is None


@ON_ONE
@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ({"kind": "percentage", "amount": 4_000, "recurring": True}, True),
        ({"kind": "flat", "amount": 301, "asset": "EUR", "recurring": True, "max_periods": 5}, True),
        ({"kind": "flat", "amount": 300, "asset": "EUR", "recurring": True}, False),
        ({"kind": "percentage", "amount": 9_000}, False),  # of the first bill only, which is paid
    ],
)
async def test_what_takes_off_more_stays_until_it_runs_out(
    shop: Shop, rail: Provider, given: dict[str, Any], stays: bool
) -> None:
    coupon = good(await shop.staff.post("/v1/discounts", json={"code": "GIVEN", **given}))["id"]
    above, _, one = await buyer(shop, rail, code="GIVEN")
    assert await carried(shop, one) == coupon
    assert await follow_and_push(shop) == 0  # without a margin nothing takes its place
    margin = await discount(shop, 3_000, customer_id=above)
    assert await follow_and_push(shop) == (0 if stays else 1)
    assert await carried(shop, one) == (coupon if stays else margin)
    if stays:
        rail.change("sub-1", discount_reference=None)
        await tell(shop, rail, "sub-1")
        assert await carried(shop, one) is None
        assert await follow_and_push(shop) == 1
        assert await carried(shop, one) == margin


@ON_ONE
@pytest.mark.parametrize("status", ["trialing", "past_due", "unpaid", "paused", "incomplete", "canceled"])
async def test_by_status(shop: Shop, rail: Provider, status: str) -> None:
    above, _, one = await buyer(shop, rail)
    rail.change("sub-1", status=status)
    await tell(shop, rail, "sub-1")
    margin = await discount(shop, 3_000, customer_id=above)
    is_over = status in {"incomplete", "canceled"}
    assert await follow_and_push(shop) == (0 if is_over else 1)
    assert await carried(shop, one) == (None if is_over else margin)


@ON_ONE
async def test_what_waits_to_end_is_left_alone_until_it_is_kept(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    good(await shop.staff.post(f"/v1/subscriptions/{one}/cancel", json={}))
    await push(shop)
    margin = await discount(shop, 3_000, customer_id=above)
    assert await follow_and_push(shop) == 0
    good(await shop.staff.post(f"/v1/subscriptions/{one}/keep", json={}))
    await push(shop)
    assert await follow_and_push(shop) == 1
    assert await carried(shop, one) == margin


@ON_ONE
async def test_a_change_under_way_comes_first_and_a_margin_gives_way(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    margin = await discount(shop, 3_000, customer_id=above)
    good(await shop.staff.post(f"/v1/subscriptions/{one}/pause", json={"at_period_end": False}))
    assert await follow(shop.scope) == 0
    await push(shop)
    assert await follow(shop.scope) == 1
    shop.clock.advance(MINUTE)
    # What many may wait for, nobody waits for: the rail is asked to resume first.
    resumed = good(await shop.staff.post(f"/v1/subscriptions/{one}/resume", json={}))
    assert [(change["action"], change["status"]) for change in resumed["changes"]] == [
        ("resume", "owed"), ("pause", "done"),
    ]  # fmt: skip
    assert await follow(shop.scope) == 0
    await push(shop)
    assert await follow_and_push(shop) == 1
    assert await carried(shop, one) == margin
    await set_discount(shop, margin, status="archived")
    assert await follow(shop.scope) == 1
    rail.failing["POST"] = (500, "")
    await push(shop)  # what was sent does not give way
    answer = await shop.staff.post(f"/v1/subscriptions/{one}/cancel", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "change_in_progress")


@ON_ONE
async def test_a_rail_that_refuses_is_not_asked_the_same_again_within_a_day(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    margin = await discount(shop, 3_000, customer_id=above)
    await shop.house.pusher.ensure(shop.scope, NAME, "discount", margin)
    before = await shop.row("subscriptions")
    rail.failing["POST"] = (400, "Not with this plan.")
    assert await follow_and_push(shop) == 1
    change = good(await shop.staff.get(f"/v1/subscriptions/{one}"))["changes"][0]
    assert (change["status"], change["error"]) == ("refused", "Not with this plan.")
    assert await shop.row("subscriptions") == before
    (row,) = good(await shop.staff.get("/v1/sync/owed"))["data"]
    assert (row["action"], row["status"], row["object_id"]) == ("discount", "refused", one)
    rail.failing.clear()
    assert await follow_and_push(shop) == 0
    better = await discount(shop, 4_000, customer_id=(await shop.row("subscriptions"))["customer_id"])
    assert await follow_and_push(shop) == 1  # which is not the same
    assert await carried(shop, one) == better
    rail.failing["POST"] = (400, "Not now.")
    await set_discount(shop, better, status="archived")
    assert await follow_and_push(shop) == 1
    rail.failing.clear()
    shop.clock.advance(DAY)
    assert await follow_and_push(shop) == 1
    assert await carried(shop, one) == margin


@ON_ONE
async def test_older_news_and_news_that_does_not_say_change_no_discount(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    margin = await discount(shop, 3_000, customer_id=above)
    old = msgspec.structs.replace(rail.facts["sub-1"], discount_reference=None, status="past_due")
    await follow_and_push(shop)
    assert await shop.scope.run(subscribing.apply, NAME, old) == "stale"
    rail.change("sub-1", discount_reference=msgspec.UNSET)
    await tell(shop, rail, "sub-1")
    assert await carried(shop, one) == margin
    rail.change("sub-1", discount_reference="r-of-somebody")  # who made it at the rail, where it is none of ours
    await tell(shop, rail, "sub-1")
    assert await carried(shop, one) is None
    await renew(shop, rail, "sub-1", amount=500, discount_reference="r-of-somebody")
    assert await shop.count("order_discounts") == 0


@ON_ONE
async def test_a_later_bill_counts_for_the_discount_that_it_had(shop: Shop, rail: Provider) -> None:
    """By the time we hear of it the subscription carries another."""
    spring = await discount(shop, 5_000, code="SPRING", recurring=True)
    above, _, one = await buyer(shop, rail, code="SPRING")
    margin = await discount(shop, 6_000, customer_id=above)
    await follow_and_push(shop)
    assert await carried(shop, one) == margin
    price = (await shop.row("prices"))["id"]
    for name, amount in ((spring, 500), (margin, 400), (None, 400)):
        fact = rail.facts["sub-1"]
        assert fact.period_end is not None
        rail.change("sub-1", period_start=fact.period_end, period_end=fact.period_end + timedelta(days=31))
        lines = (InvoiceLine(description="", quantity=1, price_reference=f"r-{price}", amount=amount),)
        named = None if name is None else f"r-{name}"
        await renew(shop, rail, "sub-1", discount_reference=named, lines=lines)
    taken = sorted((row["discount_id"], row["amount"]) for row in await shop.rows("order_discounts"))
    # The last one's does not say, so that it is the subscription's own. The first order is the sale's.
    assert taken == sorted([(spring, 500), (spring, 500), (margin, 600), (margin, 600)])
    rows = good(await shop.staff.get("/v1/reports/margins"))["data"]
    assert {row["discount_id"]: (row["orders"], row["taken_off"], row["net"]) for row in rows} == {
        spring: (2, 1_000, 1_500), margin: (2, 1_200, 2_000),
    }  # fmt: skip


# -- many, and several at once -----------------------------------------------------------------------------------------


async def crowd(shop: Shop, rail: Provider, count: int) -> str:
    """An MSP below which so many subscriptions run; its id."""
    above, _, _one = await buyer(shop, rail)
    await shop.scope.run(_copy_subscription, count - 1)
    return above


def _copy_subscription(tx: Tx, count: int) -> None:
    only = subscriptions.list_(tx, subscriptions.SubscriptionFilter()).data[0]
    items = subscriptions.items_of(tx, only.id)
    for _ in range(count):
        new = msgspec.structs.replace(only, id=tx.new_id("sub"), checkout_id=None)
        tx.insert(subscriptions_table, new)
        tx.insert(
            subscription_items,
            *[msgspec.structs.replace(item, id=tx.new_id("sbi"), subscription_id=new.id) for item in items],
        )


async def test_fifty_in_one_go(shop: Shop, rail: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    above = await crowd(shop, rail, 50)
    margin = await discount(shop, 3_000, customer_id=above)
    sizes: list[int] = []
    original = margins.owe

    def owe(tx: Tx, ids: list[str]) -> int:
        sizes.append(len(ids))
        return original(tx, ids)

    monkeypatch.setattr(margins, "owe", owe)
    monkeypatch.setattr(margins, "_BATCH", 20)
    assert await follow(shop.scope) == 50
    assert sizes == [20, 20, 10]
    rows = await shop.rows("outbox", kind="subscription")
    assert len({row["object_id"] for row in rows}) == len(rows) == 50
    assert {(row["payload"]["discount_id"], row["rank"]) for row in rows} == {(margin, outbox.LAST)}
    assert await follow(shop.scope) == 0


async def test_two_workers_owe_each_change_once(shop: Shop, rail: Provider) -> None:
    above = await crowd(shop, rail, 20)
    await discount(shop, 3_000, customer_id=above)
    counts = await asyncio.gather(*[follow(shop.scope) for _ in range(3)])
    assert sum(counts) + await follow(shop.scope) == 20  # whom one of them had in hand the others left alone
    rows = await shop.rows("outbox", kind="subscription")
    assert len({row["object_id"] for row in rows}) == len(rows) == 20


@TRANSACTIONS_OVERLAP
async def test_a_rival_between_the_look_and_the_lock_wins(
    shop: Shop, rail: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = await crowd(shop, rail, 3)
    await discount(shop, 3_000, customer_id=above)
    ids, _ = await shop.scope.read(margins.look)
    rival = competitor(monkeypatch, outbox, "changes_of_many", shop.scope, margins.owe, ids[:1])
    assert await shop.scope.run(margins.owe, ids) == 3
    assert rival == [0]  # the rows were locked
    assert await shop.scope.run(margins.owe, ids) == 0


# -- when --------------------------------------------------------------------------------------------------------------


@ON_ONE
async def test_who_is_woken_by_what(shop: Shop, rail: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    above, below, _ = await buyer(shop, rail)
    woken: list[str] = []
    monkeypatch.setattr(shop.house.database, "on_wake", lambda _, who: woken.extend(who & margins.MARGINS))
    await discount(shop, 1_000, code="TYPED")
    good(await shop.staff.patch(f"/v1/customers/{below}", json={"name": "Other"}))
    assert woken == []
    margin = await discount(shop, 3_000, customer_id=above)
    await set_discount(shop, margin, status="archived")
    await set_discount(shop, margin, status="active")
    good(await shop.staff.post(f"/v1/customers/{below}/move", json={"parent_id": None}))
    assert woken == ["margins"] * 4


@ON_ONE
async def test_it_is_seen_to_at_once_and_by_the_job(shop: Shop, rail: Provider) -> None:
    above, _, one = await buyer(shop, rail)
    house = shop.house
    house.settings = msgspec.structs.replace(house.settings, jobs=True)
    margin = await discount(shop, 3_000, customer_id=above)
    await house.margins.soon(shop.scope.tenant)  # which goes on with what was begun
    await house.pusher.soon(shop.scope.tenant)
    assert await carried(shop, one) == margin
    house.settings = msgspec.structs.replace(house.settings, jobs=False)
    await set_discount(shop, margin, status="archived")
    job = next(kind for kind in house._jobs() if kind.name == "follow_margins")
    shop.clock.advance(MINUTE)
    assert await job.work(house.scope(shop.scope.tenant)) == 1
