"""A sale on Stripe, from the catalog to the license, against the stateful stand-in."""

from __future__ import annotations

import pytest
from tests.support.app import good
from tests.support.stripe_shop import RAIL, StripeShop

pytestmark = pytest.mark.xdist_group("stripe-peers")


async def test_what_is_sold_once(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    opened = await shop.checkout(sold, rail=RAIL, email="ada@example.com")
    stripe_shop.pay(opened)
    await stripe_shop.tell_all()
    assert (await shop.claim(opened))["status"] == "settled"
    payment = await shop.row("payments")
    assert (payment["rail"], payment["amount"], payment["asset"], payment["status"]) == (RAIL, 1_500, "EUR", "settled")
    assert payment["reference"].startswith("pi_")
    (key,) = (await shop.claim(opened))["license_keys"]
    assert key.startswith("LIC1-")
    assert await shop.count("inbox", status="set_aside") == 0


async def test_copies_go_out_with_the_change_that_owes_them(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR")
    await stripe_shop.push()
    product = peer.look(f"products/{sold.product_id}")
    assert (product["name"], product["active"]) == ("Editor", True)
    link = await shop.row("rail_links", kind="price")
    price = peer.look(f"prices/{link['reference']}")
    assert (price["unit_amount"], price["currency"], price["lookup_key"]) == (1_500, "eur", sold.price_id)
    assert {row["sync_status"] for row in await shop.rows("rail_links")} == {"synced"}
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"name": "Editor 2"}))
    assert (await shop.row("rail_links", kind="product"))["sync_status"] == "pending"
    await stripe_shop.push()
    assert peer.look(f"products/{sold.product_id}")["name"] == "Editor 2"
    assert (await shop.row("rail_links", kind="product"))["sync_status"] == "synced"
    assert {row["status"] for row in await shop.rows("outbox")} == {"done"}


async def test_a_subscription_renews(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    row, reference = await stripe_shop.subscribe()
    assert (row["status"], row["asset"], row["billing_interval"]) == ("active", "EUR", "month")
    (period,) = await shop.rows("subscription_periods")
    license_ = await shop.row("licenses")
    assert license_["expires_at"] == period["period_end"] == row["current_period_end"]
    peer.control(f"subscriptions/{reference}/cycle")
    await stripe_shop.tell_all()
    first, second = await shop.rows("subscription_periods")
    assert second["period_start"] == first["period_end"]
    assert (await shop.row("licenses"))["expires_at"] == second["period_end"]
    assert await shop.count("orders") == 2
    assert await shop.count("payments", status="settled") == 2
    assert [one["status"] for one in await shop.rows("invoices")] == ["paid", "paid"]
    assert await shop.count("inbox", status="set_aside") == 0
