"""A subscription's life on Stripe, end to end: after each step our books say what Stripe's say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, good
from tests.support.refunds import give_back
from tests.support.stripe_shop import EMAIL, MONTHLY, RAIL, REFUSED_LATER, StripeShop, books_equal

pytestmark = pytest.mark.xdist_group("stripe-peers")


async def licenses(shop: Shop) -> list[tuple[str, str, int]]:
    """What each license is: its status, its tier and its cap."""
    return sorted((row["status"], row["tier"], row["max_machines"]) for row in await shop.rows("licenses"))


async def newest(shop: Shop, table: str, by: str) -> dict[str, Any]:
    return max(await shop.rows(table), key=lambda row: row[by])


async def test_bought_renewed_past_due_recovered_paused_resumed_canceled(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    row, reference = await stripe_shop.subscribe()
    await books_equal(stripe_shop)
    assert (row["status"], await licenses(shop)) == ("active", [("active", "default", 2)])

    await stripe_shop.end_period(reference)
    await books_equal(stripe_shop)
    renewed = await shop.row("subscriptions")
    assert renewed["current_period_start"] == row["current_period_end"]
    assert (await shop.row("licenses"))["expires_at"] == renewed["current_period_end"] == renewed["paid_until"]

    peer.control(f"subscriptions/{reference}/card", card=REFUSED_LATER)
    await stripe_shop.end_period(reference)
    await books_equal(stripe_shop)
    late = await shop.row("subscriptions")
    assert (late["status"], late["paid_until"]) == ("past_due", renewed["paid_until"])
    # Nobody has paid for the new period: the license ends when the old one does, its grace aside.
    assert (await shop.row("licenses"))["expires_at"] == renewed["paid_until"]
    assert await shop.count("orders") == 2

    stripe_shop.move_on(timedelta(days=2))
    peer.control(f"subscriptions/{reference}/recover")
    await stripe_shop.tell_all()
    # Two changes in one second, of which Stripe does not say which came last: it is asked.
    stripe_shop.move_on(timedelta(minutes=1))
    await stripe_shop.reconcile()
    await books_equal(stripe_shop)
    back = await shop.row("subscriptions")
    assert (back["status"], back["paid_until"]) == ("active", back["current_period_end"])
    assert (await shop.row("licenses"))["expires_at"] == back["current_period_end"]
    assert await shop.count("orders") == 3

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "pause")
    await books_equal(stripe_shop)
    assert (await shop.row("subscriptions"))["status"] == "paused"
    assert await licenses(shop) == [("suspended", "default", 2)]

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "resume")
    await books_equal(stripe_shop)
    assert await licenses(shop) == [("active", "default", 2)]

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "cancel")
    await books_equal(stripe_shop)
    ending = await shop.row("subscriptions")
    assert (ending["status"], ending["cancel_at_period_end"], ending["ends_at"]) == (
        "active",
        True,
        ending["current_period_end"],
    )
    stripe_shop.move_on(timedelta(minutes=1))
    await stripe_shop.change(row["id"], "keep")
    await books_equal(stripe_shop)
    stripe_shop.move_on(timedelta(minutes=1))
    await stripe_shop.change(row["id"], "cancel")

    await stripe_shop.end_period(reference)
    await books_equal(stripe_shop)
    over = await shop.row("subscriptions")
    assert (over["status"], over["cancel_at_period_end"], over["next_billed_at"]) == ("canceled", False, None)
    assert (await shop.row("grants"))["status"] == "expired"
    assert (await shop.row("licenses"))["expires_at"] == back["current_period_end"]


async def test_a_trial_costs_nothing_until_it_ends(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    row, reference = await stripe_shop.subscribe(trial_days=14)
    await books_equal(stripe_shop)
    assert (row["status"], row["trial_end"]) == ("trialing", row["current_period_end"])
    assert (await shop.row("licenses"))["expires_at"] == row["trial_end"]
    assert [each["amount"] for each in await shop.rows("payments")] == [0]
    await stripe_shop.end_period(reference)
    await books_equal(stripe_shop)
    paying = await shop.row("subscriptions")
    assert paying["status"] == "active"
    assert sorted(each["amount"] for each in await shop.rows("payments")) == [0, 900]
    assert (await shop.row("licenses"))["expires_at"] == paying["current_period_end"]


async def test_its_plan_changes(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    small = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    big = await shop.tier("editor", amount=2_000, tier="team", license={"max_machines": 10}, **MONTHLY)
    other = await shop.tier("viewer", amount=300, license={"max_machines": 1}, **MONTHLY)
    row, reference = await stripe_shop.subscribe(small)
    (license_,) = await shop.rows("licenses")
    for sold in (big, other):
        await stripe_shop.reference(sold)

    stripe_shop.move_on(timedelta(days=10))
    await stripe_shop.change(row["id"], "change", (big, 1))
    await books_equal(stripe_shop)
    same = await shop.row("licenses")
    assert (same["id"], same["tier"], same["max_machines"]) == (license_["id"], "team", 10)

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "change", (big, 3))
    await books_equal(stripe_shop)
    assert await licenses(shop) == [("active", "team", 10)] * 3
    ends = {each["expires_at"] for each in await shop.rows("licenses")}
    assert ends == {(await shop.row("subscriptions"))["current_period_end"]}

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "change", (big, 1))
    await books_equal(stripe_shop)
    assert await licenses(shop) == [("active", "team", 10), ("revoked", "team", 10), ("revoked", "team", 10)]

    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "change", (other, 1), proration="next_period")
    await books_equal(stripe_shop)
    assert [one for one in await licenses(shop) if one[0] == "active"] == [("active", "default", 1)]

    await stripe_shop.end_period(reference)
    await books_equal(stripe_shop)
    now = await shop.row("subscriptions")
    (running,) = await shop.rows("licenses", status="active")
    assert (running["product_id"], running["expires_at"]) == (other.product_id, now["current_period_end"])


async def test_refunded_in_part_and_in_full(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    _row, reference = await stripe_shop.subscribe()
    stripe_shop.move_on(timedelta(days=3))
    await stripe_shop.end_period(reference)
    first, second = sorted(await shop.rows("subscription_periods"), key=lambda one: one["period_start"])

    done = await give_back(shop, order_id=second["order_id"], amount=400, reason="an outage")
    assert done["status"] == "processed"
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert await licenses(shop) == [("active", "default", 2)]

    await give_back(shop, order_id=second["order_id"], amount=500, reason="the rest")
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    order = good(await shop.staff.get(f"/v1/orders/{second['order_id']}"))
    assert (order["amount"], order["refunded"]) == (900, 900)
    assert (await shop.row("subscription_periods", order_id=second["order_id"]))["status"] == "refunded"
    # The period before is still paid for, and over: nothing runs on.
    assert (await shop.row("subscriptions"))["paid_until"] == first["period_end"]
    assert (await shop.row("licenses"))["expires_at"] == first["period_end"]


async def test_it_ends_at_once(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    row, _reference = await stripe_shop.subscribe()
    stripe_shop.move_on(timedelta(days=3))
    await stripe_shop.change(row["id"], "cancel", at_period_end=False)
    await books_equal(stripe_shop)
    over = await shop.row("subscriptions")
    assert (over["status"], over["ends_at"]) == ("canceled", shop.clock.now().replace(microsecond=0))
    assert (await shop.row("grants"))["status"] == "expired"
    assert (await shop.row("licenses"))["expires_at"] == over["ends_at"]


async def test_a_discount_goes_on(stripe_shop: StripeShop) -> None:
    """Its coupon is copied with the price; bills name it in a way that has to be asked about."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_000, license={"max_machines": 2}, **MONTHLY)
    discount_id = await shop.discount("SPRING", amount=2_000, recurring=True)
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL, code="SPRING")
    stripe_shop.pay(opened)
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    row = await shop.row("subscriptions")
    assert row["discount_id"] == discount_id
    (name,) = peer.objects()["subscriptions"]
    await stripe_shop.end_period(name)
    await books_equal(stripe_shop)
    assert [one["amount"] for one in await shop.rows("payments")] == [800, 800]
    assert [one["amount"] for one in await shop.rows("order_discounts", discount_id=discount_id)] == [200, 200]
    orders = await shop.rows("orders")
    assert [(one["amount"], one["discount_total"]) for one in orders] == [(800, 200), (800, 200)]
    assert await shop.count("inbox", status="waiting") == 0


async def test_a_bill_for_the_rest_of_a_period(stripe_shop: StripeShop) -> None:
    """Its order holds what Stripe charged, and not the whole price."""
    shop = stripe_shop.shop
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    row, _reference = await stripe_shop.subscribe(sold)
    stripe_shop.move_on(timedelta(days=10))
    await stripe_shop.change(row["id"], "change", (sold, 3))
    bill = await shop.row("invoices", billing_reason="subscription_update")
    order = await shop.row("orders", id=bill["order_id"])
    charged = sum(item["total"] for item in order["items"])
    assert 0 < bill["amount"] == order["amount"] < 2 * 900
    assert charged >= order["amount"]  # what went back for the old quantity is not an item
    assert {item["price_id"] for item in order["items"]} == {sold.price_id}
    assert await shop.count("subscription_periods") == 1


async def test_two_tiers_of_one_product(stripe_shop: StripeShop) -> None:
    """Who leaves takes a license of the tier that shrinks; and one that was revoked by hand stays so."""
    shop = stripe_shop.shop
    small = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    big = await shop.tier("editor", amount=2_000, tier="team", license={"max_machines": 10}, **MONTHLY)
    row, _reference = await stripe_shop.subscribe((small, 2), (big, 2))
    before = {each["id"]: each["tier"] for each in await shop.rows("licenses")}
    (gone, *_) = [name for name, tier in before.items() if tier == "team"]
    good(await shop.staff.post(f"/v1/licenses/{gone}/revoke", json={"reason": "lost"}))
    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "change", (big, 2), (small, 1))
    await books_equal(stripe_shop)
    assert {each["id"]: each["tier"] for each in await shop.rows("licenses")} == before
    assert await licenses(shop) == [
        ("active", "default", 2),
        ("active", "team", 10),
        ("revoked", "default", 2),
        ("revoked", "team", 10),
    ]
    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "change", (small, 1))
    # The stand-in tells of the item that goes in a second event of the same second.
    stripe_shop.move_on(timedelta(minutes=1))
    await stripe_shop.reconcile()
    await books_equal(stripe_shop)
    assert [one for one in await licenses(shop) if one[0] == "active"] == [("active", "default", 2)]
