"""Orders made elsewhere, as short as a test can say them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx

from tests.support.app import Shop, good


def new_order(reference: str, *items: int | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An order of so many units at 5.00 USD each, an item for each number."""
    made = [
        {"name": f"Thing {place}", "quantity": item, "unit_amount": 500, "total": 500 * item}
        if isinstance(item, int)
        else item
        for place, item in enumerate(items or (1,))
    ]
    total = sum(item["total"] for item in made)
    body = {"source": "fair", "purchase_reference": reference, "items": made, "amount": total, "asset": "USD"}
    return {**body, **fields}


def tick(shop: Shop) -> None:
    """Let a millisecond pass: rows of one millisecond sort at random."""
    shop.clock.advance(timedelta(milliseconds=1))


async def try_import(shop: Shop, reference: str, *items: int | dict[str, Any], **fields: Any) -> httpx.Response:
    return await shop.staff.post("/v1/orders", json=new_order(reference, *items, **fields))


async def imported(shop: Shop, reference: str, *items: int | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The order, made a millisecond from now."""
    tick(shop)
    answer = await try_import(shop, reference, *items, **fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = good(answer)
    return made


async def pack(shop: Shop, order_id: str, *items: tuple[int, int], **fields: Any) -> httpx.Response:
    body = {"items": [{"line": line, "quantity": quantity} for line, quantity in items], **fields}
    return await shop.staff.post(f"/v1/orders/{order_id}/fulfillments", json=body)


async def packed(shop: Shop, order_id: str, *items: tuple[int, int], **fields: Any) -> str:
    """The parcel's id; packed a millisecond from now."""
    tick(shop)
    return str(good(await pack(shop, order_id, *items, **fields))["id"])


async def status_of(shop: Shop, order_id: str) -> str:
    return str((await shop.row("orders", id=order_id))["status"])
