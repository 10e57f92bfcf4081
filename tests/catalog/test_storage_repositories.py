"""Each method of the usual product and coupon repositories (docs/storage-interface.md), driven through ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.catalog import discounts
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


# -- products ------------------------------------------------------------------------------------------


async def made(shop: Shop, slug: str = "editor") -> dict[str, Any]:
    product: dict[str, Any] = good(await shop.staff.post("/v1/products", json={"slug": slug, "name": slug.title()}))
    return product


async def slugs(shop: Shop) -> list[str]:
    return sorted(one["slug"] for one in good(await shop.http.get("/v1/products"))["data"])


async def test_get_product(shop: Shop) -> None:
    product = await made(shop)
    for name in (product["id"], "editor"):
        assert good(await shop.http.get(f"/v1/products/{name}"))["id"] == product["id"]
    problem(await shop.http.get("/v1/products/none"), 404, "product_not_found")


async def test_get_product_by_stripe_price_id(shop: Shop) -> None:
    # A price is ours and names its product; what a rail calls it is the rail's business.
    sold = await shop.tier("editor", amount=500, asset="USD")
    assert good(await shop.staff.get(f"/v1/prices/{sold.price_id}"))["product_id"] == sold.product_id
    problem(await shop.staff.get("/v1/prices/price_1"), 404, "price_not_found")


async def test_list_products(shop: Shop) -> None:
    await made(shop, "editor")
    await made(shop, "viewer")
    good(await shop.staff.patch("/v1/products/viewer", json={"status": "archived"}))
    assert await slugs(shop) == ["editor"]


async def test_create_product(shop: Shop) -> None:
    product = await made(shop)
    assert (await shop.row("products"))["id"] == product["id"]
    problem(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "X"}), 409, "slug_taken")


async def test_update_product(shop: Shop) -> None:
    await made(shop)
    changed = good(await shop.staff.patch("/v1/products/editor", json={"description": "Writes."}))
    assert (changed["description"], changed["name"]) == ("Writes.", "Editor")


async def test_delete_product(shop: Shop) -> None:
    await made(shop)
    good(await shop.staff.patch("/v1/products/editor", json={"status": "archived"}))
    assert await slugs(shop) == []
    assert (await shop.row("products"))["status"] == "archived"  # nothing that was sold is forgotten


# -- coupons -------------------------------------------------------------------------------------------


async def auto(shop: Shop, **fields: Any) -> str:
    """A discount without a code, which comes off by itself."""
    body = {"kind": "percentage", "amount": 1_000, "auto_apply": True, **fields}
    return str(good(await shop.staff.post("/v1/discounts", json=body))["id"])


async def applied(shop: Shop, price_id: str, rail: str) -> set[str]:
    cart = good(await shop.http.post("/v1/carts", json={"lines": [{"price_id": price_id}], "rail": rail}))
    return {note["discount_id"] for line in cart["lines"] for note in line["discounts"]}


async def test_get_coupon(shop: Shop) -> None:
    made = await shop.discount("SAVE10", amount=1_000)
    (found,) = good(await shop.staff.get("/v1/discounts?code=save10"))["data"]
    assert (found["id"], found["code"]) == (made, "SAVE10")


async def test_list_coupons(shop: Shop) -> None:
    kept = await shop.discount("KEPT", amount=1_000)
    gone = await shop.discount("GONE", amount=1_000)
    good(await shop.staff.patch(f"/v1/discounts/{gone}", json={"status": "archived"}))
    assert [one["id"] for one in good(await shop.staff.get("/v1/discounts?status=active"))["data"]] == [kept]


async def test_get_auto_apply_coupons_for_payment(shop: Shop) -> None:
    sold = await shop.tier("editor", amount=5_000, asset="USD")
    other = await shop.tier("viewer", amount=5_000, asset="USD")
    mine = await auto(shop, product_ids=[sold.product_id], rails=["sandbox"])
    assert await applied(shop, sold.price_id, "sandbox") == {mine}
    assert await applied(shop, other.price_id, "sandbox") == set()


async def test_get_all_auto_apply_coupons_for_payment(shop: Shop) -> None:
    first = await auto(shop)
    second = await auto(shop, rails=["sandbox"])
    await shop.discount("TYPED", amount=1_000)
    found = good(await shop.staff.get("/v1/discounts?auto_apply=true&status=active"))["data"]
    assert {one["id"] for one in found} == {first, second}
    sold = await shop.tier("editor", amount=5_000, asset="USD")
    assert await applied(shop, sold.price_id, "sandbox") == {first, second}


async def test_create_coupon(shop: Shop) -> None:
    made = await shop.discount("SAVE10", amount=1_000)
    assert (await shop.row("discounts"))["id"] == made
    again = {"code": "save10", "kind": "percentage", "amount": 1}
    problem(await shop.staff.post("/v1/discounts", json=again), 409, "code_taken")


async def test_update_coupon(shop: Shop) -> None:
    made = await shop.discount("SAVE10", amount=1_000)
    changed = good(await shop.staff.patch(f"/v1/discounts/{made}", json={"usage_limit": 3}))
    assert (changed["usage_limit"], changed["amount"]) == (3, 1_000)


async def test_increment_usage(shop: Shop) -> None:
    made = await shop.discount("SAVE10", amount=1_000, usage_limit=1)
    sold = await shop.tier("editor", amount=500, asset="USD")
    await shop.checkout(sold, code="SAVE10")
    assert (await shop.scope.read(discounts.get, made)).times_used == 1
    assert (await shop.try_checkout(sold, code="SAVE10")).json()["code"] == "discount_exhausted"
    assert (await shop.scope.read(discounts.get, made)).times_used == 1


async def test_delete_coupon(shop: Shop) -> None:
    made = await shop.discount("SAVE10", amount=1_000)
    good(await shop.staff.patch(f"/v1/discounts/{made}", json={"status": "archived"}))
    sold = await shop.tier("editor", amount=500, asset="USD")
    refused = await shop.try_checkout(sold, code="SAVE10")
    assert (refused.status_code, refused.json()["code"]) == (422, "discount_inactive")
    assert (await shop.row("discounts"))["status"] == "archived"
