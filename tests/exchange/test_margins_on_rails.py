"""An MSP's margin on the subscriptions of the customers below it: in our rows, at the rail, and in the report."""

from __future__ import annotations

from typing import Any

import pytest
from tests.peers.stripe_peers import StripePeer
from tests.support.app import Shop, Sold, good, problem
from tests.support.mirrors import Till

pytestmark = pytest.mark.xdist_group("mirrors")

MONTHLY: dict[str, Any] = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "USD"}


async def customer(shop: Shop, name: str, parent: str | None = None, **fields: Any) -> str:
    """Its id."""
    email = f"{name}@example.com"
    body = {"kind": "organization", "name": name, "parent_id": parent, "email": email, **fields}
    return str(good(await shop.staff.post("/v1/customers", json=body))["id"])


async def discount(shop: Shop, amount: int, **fields: Any) -> str:
    """Its id."""
    return str(
        good(await shop.staff.post("/v1/discounts", json={"kind": "percentage", "amount": amount, **fields}))["id"]
    )


async def msp(shop: Shop) -> tuple[str, str, str]:
    """An MSP, a customer below it, and the MSP's margin of 30 %."""
    above = await customer(shop, "msp", level=1)
    below = await customer(shop, "client", above)
    return above, below, await discount(shop, 3_000, customer_id=above)


def at_rail(till: Till, subscription: str) -> dict[str, Any]:
    """How the discount of a subscription stands at the provider."""
    if isinstance(till.peer, StripePeer):
        (found,) = till.peer.look(f"subscriptions/{subscription}?expand[]=discounts")["discounts"]
        coupon = till.peer.look(f"coupons/{found['source']['coupon']}")
        return {"reference": coupon["id"], "lasts": coupon["duration"] == "forever", "rate": coupon["percent_off"]}
    found = till.peer.api("GET", f"/subscriptions/{subscription}")["discount"]
    row = till.peer.api("GET", f"/discounts/{found['id']}")
    lasts = row["recur"] and row["maximum_recurring_intervals"] is None and found["ends_at"] is None
    return {"reference": row["id"], "lasts": lasts, "rate": float(row["amount"])}


async def subscribed(till: Till, sold: Sold, below: str, **fields: Any) -> dict[str, Any]:
    """A subscription that a customer bought and paid."""
    opened = await till.checkout(sold, customer_id=below, **fields)
    till.pay(opened)
    await till.hear()
    return await till.shop.row("subscriptions")


async def taken(shop: Shop) -> list[tuple[str, int, int, int]]:
    """What every order's discounts took off: discount, amount, the order's own sum, what was paid."""
    orders = {row["id"]: row for row in await shop.rows("orders")}
    found = [(orders[row["order_id"]], row) for row in await shop.rows("order_discounts")]
    return sorted((row["discount_id"], row["amount"], one["discount_total"], one["amount"]) for one, row in found)


async def test_a_subscription_carries_the_margin_of_the_msp_above_it(till: Till) -> None:
    above, below, margin = await msp(till.shop)
    subscription = await subscribed(till, await till.shop.tier(amount=1_000, **MONTHLY), below)
    assert (subscription["customer_id"], subscription["discount_id"], subscription["status"]) == (
        below, margin, "active",
    )  # fmt: skip
    name = await till.name_of("subscription", subscription["id"])
    reference = await till.name_of("discount", margin)
    assert at_rail(till, name) == {"reference": reference, "lasts": True, "rate": 30.0}
    for _ in range(2):
        await till.renew(subscription["id"])
        await till.hear()
    assert sorted(row["amount"] for row in await till.shop.rows("payments")) == [700] * 3
    assert await taken(till.shop) == [(margin, 300, 300, 700)] * 3
    (row,) = good(await till.shop.staff.get("/v1/reports/margins"))["data"]
    assert row == {
        "discount_id": margin, "code": None, "description": "", "kind": "percentage", "rate": 3_000,
        "customer_id": above, "customer_name": "msp", "asset": "USD", "orders": 3, "customers": 1,
        "gross": 3_000, "taken_off": 900, "net": 2_100, "tax": row["tax"], "refunded": 0,
    }  # fmt: skip


async def test_a_trial_carries_it_into_what_is_paid(till: Till) -> None:
    _, below, margin = await msp(till.shop)
    sold = await till.shop.tier(amount=1_000, trial_days=14, **MONTHLY)
    subscription = await subscribed(till, sold, below)
    assert (subscription["status"], subscription["discount_id"]) == ("trialing", margin)
    name = await till.name_of("subscription", subscription["id"])
    assert at_rail(till, name)["lasts"] is True
    assert sum(row["amount"] for row in await till.shop.rows("payments")) == 0
    await till.renew(subscription["id"])
    await till.hear()
    renewed = await till.shop.row("subscriptions")
    assert (renewed["status"], renewed["discount_id"]) == ("active", margin)
    assert [one for one in await taken(till.shop) if one[1]] == [(margin, 300, 300, 700)]


async def test_a_recurring_discount_that_applies_by_itself_is_carried_through_a_trial(till: Till) -> None:
    below = await customer(till.shop, "client")
    season = await discount(till.shop, 1_000, auto_apply=True, recurring=True)
    await discount(till.shop, 5_000, auto_apply=True)  # of the first bill only, which is 0
    sold = await till.shop.tier(amount=1_000, trial_days=14, **MONTHLY)
    subscription = await subscribed(till, sold, below)
    assert subscription["discount_id"] == season
    await till.renew(subscription["id"])
    await till.hear()
    assert max(row["amount"] for row in await till.shop.rows("payments")) == 900


async def test_what_applies_by_itself_gives_way_to_a_margin(till: Till) -> None:
    _, below, margin = await msp(till.shop)
    await discount(till.shop, 5_000, auto_apply=True, recurring=True)
    sold = await till.shop.tier(amount=1_000, **MONTHLY)
    subscription = await subscribed(till, sold, below)
    assert subscription["discount_id"] == margin
    assert (await till.shop.row("payments"))["amount"] == 700
    await till.shop.discount("TYPED", amount=100)
    body = {"lines": [{"price_id": sold.price_id}], "rail": till.rail, "code": "TYPED"}
    before = await till.shop.everything()
    refused = await till.shop.staff.post(f"/v1/customers/{below}/checkouts", json=body)
    problem(refused, 422, "too_many_discounts")
    assert await till.shop.everything() == before


async def test_of_several_that_apply_by_themselves_the_best_stays(till: Till) -> None:
    await discount(till.shop, 1_000, auto_apply=True, recurring=True)
    best = await discount(till.shop, 2_000, auto_apply=True, recurring=True)
    opened = await till.checkout(await till.shop.tier(amount=1_000, **MONTHLY), email="buyer@example.com")
    assert opened["amount"] == 800
    assert [row["discount_id"] for row in await till.shop.rows("discount_redemptions")] == [best]
    # What is paid once takes both.
    once = await till.checkout(await till.shop.tier("once", amount=1_000, asset="USD"), email="buyer@example.com")
    assert once["amount"] == 720
