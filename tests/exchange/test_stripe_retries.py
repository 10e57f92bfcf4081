"""Whatever becomes of Stripe's answers, nothing is made twice and nobody pays or is paid twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import good
from tests.support.refunds import ask, decide, execute
from tests.support.stripe_shop import BAD_LUCK, EMAIL, MONTHLY, RAIL, StripeShop, books_equal

from counterfoil.exchange import subscription_changes
from counterfoil.exchange.subscription_changes import Change, WantedItem

pytestmark = pytest.mark.xdist_group("stripe-peers")

# All of it on SQLite, one on PostgreSQL: what differs between the two is tested elsewhere.
_LUCK = [("sqlite", name) for name in BAD_LUCK] + [("postgresql", "the answer is lost")]
luck = pytest.mark.parametrize(
    ("dialect", "how"),
    [pytest.param(dialect, BAD_LUCK[name], id=f"{dialect}-{name.replace(' ', '-')}") for dialect, name in _LUCK],
)


@luck
async def test_opening_a_checkout(stripe_shop: StripeShop, how: dict[str, Any]) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    peer.fail("POST /v1/checkout/sessions", **how)
    failed = await shop.try_checkout(sold, key="once", rail=RAIL, email=EMAIL)
    assert (failed.status_code, failed.json()["code"]) == (503, "rail_unavailable")
    stripe_shop.move_on(timedelta(seconds=30))
    opened = await shop.checkout(sold, key="once", rail=RAIL, email=EMAIL)
    stripe_shop.pay(opened)
    await stripe_shop.tell_all()
    assert len(peer.objects()["sessions"]) == len(peer.objects()["charges"]) == 1
    assert await shop.count("checkouts") == await shop.count("orders") == await shop.count("payments") == 1
    await books_equal(stripe_shop)


@luck
@pytest.mark.parametrize("kind", ["products", "prices"])
async def test_opening_a_subscriptions_checkout(stripe_shop: StripeShop, how: dict[str, Any], kind: str) -> None:
    """Its product and price are copied on the way."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    peer.fail(f"POST /v1/{kind}$", **how)
    failed = await shop.try_checkout(sold, key="once", rail=RAIL, email=EMAIL)
    assert (failed.status_code, failed.json()["code"]) == (503, "rail_unavailable")
    stripe_shop.move_on(timedelta(minutes=5))
    opened = await shop.checkout(sold, key="once", rail=RAIL, email=EMAIL)
    stripe_shop.pay(opened)
    await stripe_shop.tell_all()
    made = peer.objects()
    assert {one: len(made[one]) for one in ("products", "prices", "sessions", "subscriptions", "charges")} == {
        "products": 1, "prices": 1, "sessions": 1, "subscriptions": 1, "charges": 1,
    }  # fmt: skip
    await books_equal(stripe_shop)


@luck
async def test_copies(stripe_shop: StripeShop, how: dict[str, Any]) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR")
    await shop.discount("SPRING", amount=1_000)
    made = good(await shop.staff.post("/v1/customers", json={"name": "Ada", "kind": "person"}))
    for path in ("products", "prices", "coupons", "customers"):
        peer.fail(f"POST /v1/{path}", **how)
    for _ in range(8):
        await stripe_shop.push()
        stripe_shop.move_on(timedelta(minutes=20))
    there = peer.objects()
    assert [len(there[one]) for one in ("products", "prices", "coupons", "customers")] == [1, 1, 1, 1]
    assert there["products"] == [sold.product_id]
    assert {row["status"] for row in await shop.rows("outbox")} == {"done"}
    links = {row["kind"]: (row["object_id"], row["sync_status"]) for row in await shop.rows("rail_links")}
    assert {status for _, status in links.values()} == {"synced"}
    assert links["customer"][0] == made["id"]


@luck
async def test_a_refund(stripe_shop: StripeShop, how: dict[str, Any]) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    await stripe_shop.sell()
    refund = await ask(shop, order_id=(await shop.row("orders"))["id"], amount=700, reason="it broke")
    good(await decide(shop, refund, "approve"))
    peer.fail("POST /v1/refunds", **how)
    await execute(shop)
    assert (await shop.row("refunds"))["status"] == "processing"
    for _ in range(3):
        stripe_shop.move_on(timedelta(hours=1))
        await execute(shop)
    await stripe_shop.tell_all()
    assert len(peer.objects()["refunds"]) == 1
    assert (await shop.row("refunds"))["status"] == "processed"
    assert (await shop.row("payments"))["refunded"] == 700
    await books_equal(stripe_shop)


@luck
@pytest.mark.parametrize("action", ["change", "pause", "cancel"])
async def test_a_change_of_a_subscription(stripe_shop: StripeShop, how: dict[str, Any], action: Any) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    row, _reference = await stripe_shop.subscribe(sold)
    stripe_shop.move_on(timedelta(days=10))
    items = (WantedItem(sold.price_id, 3),) if action == "change" else ()
    peer.fail("POST /v1/subscriptions/", **how)
    await shop.scope.run(subscription_changes.request, row["id"], Change(action=action, items=items))
    for _ in range(3):
        await stripe_shop.push()
        stripe_shop.move_on(timedelta(minutes=10))
    await stripe_shop.tell_all()
    assert (await shop.row("outbox", kind="subscription"))["status"] == "done"
    await books_equal(stripe_shop)
    # The difference for two more seats was charged once.
    assert len(peer.objects()["invoices"]) == len(peer.objects()["charges"]) == (2 if action == "change" else 1)
