"""Margins: what a customer buys for less without a code, to the last minor unit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, Sold, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

NOBODY = "cus_01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def customer(shop: Shop, name: str = "Acme", parent: str | None = None, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "organization", "name": name, "parent_id": parent, **fields}
    return str(good(await shop.staff.post("/v1/customers", json=body))["id"])


async def margin(shop: Shop, customer_id: str, amount: int, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "percentage", "customer_id": customer_id, "amount": amount, **fields}
    return str(good(await shop.staff.post("/v1/discounts", json=body))["id"])


async def buy(shop: Shop, customer_id: str, *lines: Sold | tuple[Sold, int], **fields: Any) -> dict[str, Any]:
    """An open checkout for a customer."""
    wanted = [line if isinstance(line, tuple) else (line, 1) for line in lines]
    body = {"lines": [{"price_id": sold.price_id, "quantity": count} for sold, count in wanted], **fields}
    opened: dict[str, Any] = good(await shop.staff.post(f"/v1/customers/{customer_id}/checkouts", json=body))
    return opened


async def lines_of(shop: Shop) -> list[dict[str, Any]]:
    return sorted(await shop.rows("cart_lines"), key=lambda row: int(row["position"]))


# -- made ---------------------------------------------------------------------------------------------


async def test_a_margin_is_a_discount_without_a_code(shop: Shop) -> None:
    msp = await customer(shop, "msp", level=1)
    made = good(
        await shop.staff.post("/v1/discounts", json={"kind": "percentage", "customer_id": msp, "amount": 3_000})
    )
    assert (made["code"], made["customer_id"], made["amount"], made["status"]) == (None, msp, 3_000, "active")
    event = await shop.row("events", object_id=made["id"])
    assert event["details"] == {"code": None, "kind": "percentage", "margin_of": msp}


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"code": "BOTH"}, "/code", "code_or_customer"),
        ({"customer_id": None}, "/code", "code_or_customer"),
        ({"kind": "flat", "asset": "USD"}, "/kind", "margin_kind"),
        ({"kind": "set_price", "asset": "USD"}, "/kind", "margin_kind"),
        ({"kind": "free", "amount": 0}, "/kind", "margin_kind"),
        ({"usage_limit": 5}, "/usage_limit", "margin_usage_limit"),
        ({"amount": 10_001}, "/amount", "invalid_request"),
    ],
)
async def test_what_a_margin_cannot_be(shop: Shop, fields: dict[str, Any], pointer: str, code: str) -> None:
    body = {"kind": "percentage", "amount": 100, "customer_id": await customer(shop), **fields}
    before = await shop.everything()
    told = problem(await shop.staff.post("/v1/discounts", json=body), 422, code)
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_a_margin_is_for_a_customer_there_is(shop: Shop) -> None:
    gone = await customer(shop)
    await shop.staff.delete(f"/v1/customers/{gone}")
    before = await shop.everything()
    for wrong in (NOBODY, gone, ""):
        body = {"kind": "percentage", "amount": 100, "customer_id": wrong}
        problem(await shop.staff.post("/v1/discounts", json=body), 404, "customer_not_found")
    assert await shop.everything() == before


async def test_a_customer_has_one_margin_in_use(shop: Shop) -> None:
    msp = await customer(shop)
    first = await margin(shop, msp, 1_000)
    body = {"kind": "percentage", "customer_id": msp, "amount": 2_000}
    before = await shop.everything()
    problem(await shop.staff.post("/v1/discounts", json=body), 409, "margin_taken")
    assert await shop.everything() == before
    good(await shop.staff.patch(f"/v1/discounts/{first}", json={"status": "archived"}))
    second = await margin(shop, msp, 2_000)
    before = await shop.everything()
    problem(await shop.staff.patch(f"/v1/discounts/{first}", json={"status": "active"}), 409, "margin_taken")
    assert await shop.everything() == before
    good(await shop.staff.patch(f"/v1/discounts/{second}", json={"status": "active"}))  # it is


async def test_many_margins_at_once_are_one(shop: Shop) -> None:
    msp = await customer(shop)
    old = await margin(shop, msp, 1)
    good(await shop.staff.patch(f"/v1/discounts/{old}", json={"status": "archived"}))
    body = {"kind": "percentage", "customer_id": msp, "amount": 2_000}
    answers = await asyncio.gather(
        *[shop.staff.post("/v1/discounts", json=body) for _ in range(50)],
        *[shop.staff.patch(f"/v1/discounts/{old}", json={"status": "active"}) for _ in range(50)],
    )
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    assert await shop.count("discounts", status="active") == 1


# -- applied ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "quantity", "basis_points", "taken"),
    [
        (1_000, 1, 3_000, 300),
        (1_999, 1, 3_000, 600),  # 599.7
        (1, 1, 5_000, 1),  # 0.5
        (1, 1, 4_999, 0),
        (33, 3, 3_333, 33),  # 32.9967
        (5, 3, 3_000, 5),  # 4.5
        (1_000, 1, 0, 0),
        (1_000, 2, 10_000, 2_000),
    ],
)
async def test_what_a_margin_takes_off(shop: Shop, unit: int, quantity: int, basis_points: int, taken: int) -> None:
    sold = await shop.tier(amount=unit, asset="USD")
    msp = await customer(shop, level=1)
    client = await customer(shop, "client", msp)
    id_ = await margin(shop, msp, basis_points)
    opened = await buy(shop, client, (sold, quantity))
    assert opened["amount"] == unit * quantity - taken
    line, cart, held = [await shop.row(name) for name in ("cart_lines", "carts", "discount_redemptions")]
    assert (line["discount_total"], line["total"]) == (taken, unit * quantity - taken)
    assert line["discounts"] == [{"discount_id": id_, "code": None, "amount": taken}]
    assert (cart["discount_total"], cart["customer_id"]) == (taken, client)
    status = "reserved" if opened["amount"] else "redeemed"  # what is free settles at once
    assert (held["discount_id"], held["amount"], held["asset"], held["status"]) == (id_, taken, "USD", status)
    assert (await shop.row("discounts"))["times_used"] == 0


@pytest.mark.parametrize(
    ("fields", "by_margin", "taken"),
    [
        ({"kind": "percentage", "amount": 1_000}, 300, 70),  # 69.93 of 699.3
        ({"kind": "percentage", "amount": 5_000}, 300, 349),  # 649.35 of 999 together, rounded once
        ({"kind": "percentage", "amount": 10_000}, 300, 699),
        ({"kind": "flat", "amount": 500, "asset": "USD"}, 300, 500),
        ({"kind": "flat", "amount": 700, "asset": "USD"}, 300, 699),
        ({"kind": "set_price", "amount": 600, "asset": "USD"}, 180, 399),  # a price comes before percentages
        ({"kind": "set_price", "amount": 1_000, "asset": "USD"}, 300, 0),  # it never makes dearer
        ({"kind": "free"}, 300, 699),
    ],
)
async def test_a_code_and_a_margin_together(shop: Shop, fields: dict[str, Any], by_margin: int, taken: int) -> None:
    sold = await shop.tier(amount=999, asset="USD")
    msp = await customer(shop)
    standing = await margin(shop, msp, 3_000)  # 299.7
    code = await shop.discount("CODE", **fields)
    opened = await buy(shop, msp, sold, code="CODE")
    assert opened["amount"] == 999 - by_margin - taken
    line = await shop.row("cart_lines")
    assert line["discounts"] == [
        {"discount_id": standing, "code": None, "amount": by_margin},
        {"discount_id": code, "code": "CODE", "amount": taken},
    ]
    assert line["discount_total"] == by_margin + taken
    held = {row["discount_id"]: row["amount"] for row in await shop.rows("discount_redemptions")}
    assert held == {standing: by_margin, code: taken}
    assert [row["times_used"] for row in await shop.rows("discounts", id=code)] == [1]


async def test_a_flat_code_is_spread_over_what_a_margin_leaves(shop: Shop) -> None:
    one, other = await shop.tier(amount=300, asset="USD"), await shop.tier("viewer", amount=900, asset="USD")
    msp = await customer(shop)
    await margin(shop, msp, 5_000)
    await shop.discount("FLAT", kind="flat", amount=200, asset="USD")
    assert (await buy(shop, msp, one, other, code="FLAT"))["amount"] == 400
    assert [line["discount_total"] for line in await lines_of(shop)] == [200, 600]


async def test_each_line_is_rounded_by_itself(shop: Shop) -> None:
    one, other = await shop.tier(amount=5, asset="USD"), await shop.tier("viewer", amount=5, asset="USD")
    msp = await customer(shop)
    await margin(shop, msp, 1_000)
    assert (await buy(shop, msp, one, other))["amount"] == 8
    assert [line["discount_total"] for line in await lines_of(shop)] == [1, 1]
    assert (await shop.row("discount_redemptions"))["amount"] == 2


async def test_the_nearest_margin_in_use_counts(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000, asset="USD")
    msp = await customer(shop, "msp", level=1)
    client = await customer(shop, "client", msp)
    department = await customer(shop, "department", client)
    stranger = await customer(shop, "stranger")

    async def amounts() -> list[int]:
        return [(await buy(shop, one, sold))["amount"] for one in (msp, client, department, stranger)]

    assert await amounts() == [1_000] * 4
    await margin(shop, msp, 3_000)
    assert await amounts() == [700, 700, 700, 1_000]
    own = await margin(shop, client, 1_000)
    assert await amounts() == [700, 900, 900, 1_000]
    starts = shop.clock.now() + timedelta(days=1)
    ends = starts + timedelta(days=1)
    await margin(shop, department, 5_000, starts_at=starts.isoformat(), expires_at=ends.isoformat())
    assert await amounts() == [700, 900, 900, 1_000]
    shop.clock.advance(timedelta(days=1) - timedelta(microseconds=1))
    assert await amounts() == [700, 900, 900, 1_000]
    shop.clock.advance(timedelta(microseconds=1))
    assert await amounts() == [700, 900, 500, 1_000]
    shop.clock.advance(timedelta(days=1))
    assert await amounts() == [700, 900, 900, 1_000]
    good(await shop.staff.patch(f"/v1/discounts/{own}", json={"status": "archived"}))
    assert await amounts() == [700, 700, 700, 1_000]
    good(await shop.staff.post(f"/v1/customers/{client}/move", json={"parent_id": None}))
    assert await amounts() == [700, 1_000, 1_000, 1_000]


async def test_a_margin_on_some_products_only(shop: Shop) -> None:
    covered, other = await shop.tier(amount=1_000), await shop.tier("viewer", amount=1_000)
    msp = await customer(shop)
    await margin(shop, msp, 3_000, product_ids=[covered.product_id])
    assert (await buy(shop, msp, covered, other))["amount"] == 1_700
    assert (await buy(shop, msp, other))["amount"] == 1_000
    assert await shop.count("discount_redemptions") == 1


async def test_nobody_else_gets_it(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    msp = await customer(shop)
    id_ = await margin(shop, msp, 3_000)
    assert (await shop.checkout(sold))["amount"] == 1_000
    for code in ("", "NONE", "NULL", id_, msp):
        problem(await shop.try_checkout(sold, code=code), 422, "discount_not_found")
    problem(await shop.try_checkout(sold, customer_id=msp), 422, "invalid_request")


async def test_a_checkout_is_for_a_customer_that_buys(shop: Shop) -> None:
    sold = await shop.tier()
    archived = await customer(shop)
    good(await shop.staff.post(f"/v1/customers/{archived}/archive"))
    body = {"lines": [{"price_id": sold.price_id}]}
    before = await shop.everything()
    refused = await shop.staff.post(f"/v1/customers/{archived}/checkouts", json=body)
    problem(refused, 409, "customer_not_active")
    problem(await shop.staff.post(f"/v1/customers/{NOBODY}/checkouts", json=body), 404, "customer_not_found")
    problem(await shop.http.post(f"/v1/customers/{archived}/checkouts", json=body), 401, "unauthorized")
    assert await shop.everything() == before


# -- paid, lapsed, paid late --------------------------------------------------------------------------


async def test_a_sale_with_a_margin_is_the_customers(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    msp = await customer(shop, "msp", level=1)
    client = await customer(shop, "client", msp)
    await margin(shop, msp, 3_000)
    opened = await buy(shop, client, sold, email="Buyer@example.com")
    await shop.play(opened, "pay")
    assert (await shop.row("discount_redemptions"))["status"] == "redeemed"
    assert (await shop.row("discounts"))["times_used"] == 0
    path = f"/v1/customers/{client}"
    (order,) = good(await shop.staff.get(f"{path}/orders"))["data"]
    assert (order["customer_id"], order["amount"], order["discount_total"], order["status"]) == (
        client,
        700,
        300,
        "paid",
    )
    (payment,) = good(await shop.staff.get(f"{path}/payments"))["data"]
    assert (payment["amount"], payment["status"], payment["checkout_id"]) == (700, "settled", opened["id"])
    assert "details" not in payment
    (license_,) = good(await shop.staff.get(f"{path}/licenses"))["data"]
    assert license_["key"].startswith("LIC1-")
    assert "note" not in license_
    (checkout,) = good(await shop.staff.get(f"{path}/checkouts"))["data"]
    assert (checkout["id"], checkout["status"]) == (opened["id"], "settled")
    assert "claim" not in checkout
    told = {event["type"] for event in good(await shop.staff.get(f"{path}/events?limit=100"))["data"]}
    assert {"customer.created", "checkout.opened", "order.created", "license.issued"} <= told
    for name in ("orders", "payments", "licenses", "checkouts"):
        above = f"/v1/customers/{msp}/{name}"
        assert good(await shop.staff.get(above))["data"] == []
        assert len(good(await shop.staff.get(f"{above}?below=true"))["data"]) == 1


async def test_pages_of_what_a_subtree_bought(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    msp = await customer(shop, "msp", level=1)
    buyers = [msp, *[await customer(shop, f"client {number}", msp) for number in range(4)]]
    stranger = await customer(shop, "stranger")
    made = [(await buy(shop, one, sold))["id"] for one in buyers]
    await buy(shop, stranger, sold)
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        query = {"below": "true", "limit": 2, **after}
        page = good(await shop.staff.get(f"/v1/customers/{msp}/checkouts", params=query))
        seen += [row["id"] for row in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(made)


async def test_a_margin_that_lapsed_is_taken_again_when_the_money_comes(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    msp = await customer(shop)
    await margin(shop, msp, 3_000)
    opened = await buy(shop, msp, sold)
    shop.clock.advance(shop.house.settings.quote_lasts)
    await shop.house.runner().run_due()
    assert (await shop.row("discount_redemptions"))["status"] == "released"
    assert (await shop.row("discounts"))["times_used"] == 0
    await shop.play(opened, "pay")
    assert (await shop.row("orders"))["amount"] == 700
    assert (await shop.row("discount_redemptions"))["status"] == "redeemed"
    assert (await shop.row("discounts"))["times_used"] == 0


async def test_an_idempotency_key_is_the_customers_own(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    one, other = await customer(shop), await customer(shop, "Other")
    body = {"lines": [{"price_id": sold.price_id}]}

    async def opened(customer_id: str) -> str:
        path = f"/v1/customers/{customer_id}/checkouts"
        return str(good(await shop.staff.post(path, json=body, headers={"Idempotency-Key": "1"}))["id"])

    first = await opened(one)
    assert await opened(one) == first
    assert await opened(other) != first
    assert await shop.count("checkouts") == 2


async def test_a_hundred_buyers_of_one_msp_at_once(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    msp = await customer(shop, "msp", level=1)
    clients = [await customer(shop, f"client {number}", msp) for number in range(10)]
    await margin(shop, msp, 3_000)
    answers = await asyncio.gather(*[buy(shop, clients[number % 10], sold) for number in range(100)])
    assert {answer["amount"] for answer in answers} == {700}
    assert await shop.count("discount_redemptions", amount=300) == 100
    assert (await shop.row("discounts"))["times_used"] == 0
