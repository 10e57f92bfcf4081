"""Revenue by discount, exact: what orders would have cost, what was taken off, paid and given back."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem
from tests.support.refunds import give_back

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.settlement import reports

DAY = timedelta(days=1)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def customer(shop: Shop, name: str, parent: str | None = None) -> str:
    body = {"kind": "organization", "name": name, "parent_id": parent}
    return str(good(await shop.staff.post("/v1/customers", json=body))["id"])


async def margin(shop: Shop, customer_id: str, amount: int) -> str:
    body = {"kind": "percentage", "customer_id": customer_id, "amount": amount}
    return str(good(await shop.staff.post("/v1/discounts", json=body))["id"])


async def buy(shop: Shop, customer_id: str | None, price_id: str, quantity: int = 1, **fields: Any) -> dict[str, Any]:
    """A paid order."""
    path = "/v1/checkouts" if customer_id is None else f"/v1/customers/{customer_id}/checkouts"
    body = {"lines": [{"price_id": price_id, "quantity": quantity}], "rail": "sandbox", **fields}
    opened = good(await (shop.http if customer_id is None else shop.staff).post(path, json=body))
    if opened["amount"]:
        await shop.play(opened, "pay")
    return await shop.row("orders", checkout_id=opened["id"])


async def report(shop: Shop, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = good(await shop.staff.get("/v1/reports/margins", params=query))["data"]
    return rows


def sums(row: dict[str, Any]) -> tuple[int, ...]:
    names = ("orders", "customers", "gross", "taken_off", "net", "tax", "refunded")
    return tuple(row[name] for name in names)


async def test_revenue_by_discount(shop: Shop) -> None:
    dollars = (await shop.tier(amount=1_000, asset="USD")).price_id
    euros = (await shop.tier("euro", amount=500, asset="EUR")).price_id
    msp = await customer(shop, "Managed Ltd")
    one, other = await customer(shop, "one", msp), await customer(shop, "other", msp)
    stands = await margin(shop, msp, 3_000)
    shop.clock.advance(timedelta(seconds=1))  # of one moment, they would come in any order
    code = await shop.discount("TENTH", amount=1_000)
    await shop.discount("UNUSED", amount=1_000)
    await buy(shop, one, dollars)  # 700
    back = await buy(shop, one, dollars, 2, code="TENTH")  # 2,000 - 600 - 140 = 1,260
    await buy(shop, other, dollars)  # 700
    await buy(shop, other, euros)  # 350
    await buy(shop, None, dollars, code="TENTH", email="a@example.com")  # 900
    await buy(shop, None, dollars, code="TENTH", email="b@example.com")  # 900
    await buy(shop, None, dollars, email="b@example.com")  # without any
    payment = await shop.row("payments", checkout_id=back["checkout_id"])
    await give_back(shop, payment_id=payment["id"], amount=260, reason="sorry")
    rows = await report(shop)
    assert [(row["discount_id"], row["asset"], sums(row)) for row in rows] == [
        (stands, "EUR", (1, 1, 500, 150, 350, 0, 0)),
        (stands, "USD", (3, 2, 4_000, 1_200, 2_660, 0, 260)),
        (code, "USD", (3, 3, 4_000, 340, 3_060, 0, 260)),
    ]
    assert [(row["customer_id"], row["customer_name"], row["code"], row["rate"]) for row in rows] == [
        (msp, "Managed Ltd", None, 3_000),
        (msp, "Managed Ltd", None, 3_000),
        (None, None, "TENTH", 1_000),
    ]


async def test_of_a_time_only(shop: Shop) -> None:
    sold = (await shop.tier(amount=1_000, asset="USD")).price_id
    await shop.discount("HALF", amount=5_000)
    start = shop.clock.now()
    for number in range(3):
        await buy(shop, None, sold, code="HALF", email=f"{number}@example.com")
        shop.clock.advance(DAY)
    moments = [(start + DAY * number).isoformat() for number in range(4)]
    expected = {(0, 3): 3, (0, 1): 1, (1, 3): 2, (1, 2): 1, (2, 3): 1}
    for (first, last), orders in expected.items():
        (row,) = await report(shop, **{"from": moments[first], "to": moments[last]})
        assert sums(row)[:2] == (orders, orders)
    assert sums((await report(shop, **{"from": moments[1]}))[0])[0] == 2
    assert sums((await report(shop, to=moments[1]))[0])[0] == 1
    assert await report(shop, **{"from": moments[3]}) == []
    get = shop.staff.get
    problem(await get("/v1/reports/margins", params={"from": moments[1], "to": moments[1]}), 422, "invalid_request")
    problem(await get("/v1/reports/margins", params={"from": "2026-01-01T00:00:00"}), 422, "invalid_request")
    problem(await get("/v1/reports/margins", params={"after": "x"}), 422, "invalid_cursor")
    assert (await shop.http.get("/v1/reports/margins")).status_code == 401


async def test_pages(shop: Shop) -> None:
    dollars = (await shop.tier(amount=1_000, asset="USD")).price_id
    euros = (await shop.tier("euro", amount=500, asset="EUR")).price_id
    codes = [f"CODE{number}" for number in range(3)]
    for code in codes:
        shop.clock.advance(timedelta(seconds=1))  # of one moment, they would come in any order
        await shop.discount(code, amount=1_000, description="=1+1")
        for price_id in (dollars, euros):
            await buy(shop, None, price_id, code=code, email="a@example.com")
    seen: list[tuple[str, str]] = []
    after: dict[str, str] = {}
    while True:
        page = good(await shop.staff.get("/v1/reports/margins", params={"limit": 2, **after}))
        seen += [(row["code"], row["asset"]) for row in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [(code, asset) for code in codes for asset in ("EUR", "USD")]
    rows = [row async for some in reports.all_margins(shop.scope) for row in some]
    assert [(row.code, row.asset) for row in rows] == seen
    head, first, *_ = csv.reader(io.StringIO(reports.csv_lines(rows, header=True).decode()))
    assert dict(zip(head, first, strict=True)) == {
        "discount_id": rows[0].discount_id, "code": "CODE0", "description": "'=1+1", "kind": "percentage",
        "rate": "1000", "customer_id": "", "customer_name": "", "asset": "EUR", "orders": "1", "customers": "1",
        "gross": "5.00", "taken_off": "0.50", "net": "4.50", "tax": "0.00", "refunded": "0.00",
    }  # fmt: skip
