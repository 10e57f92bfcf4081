"""Each method of the usual store interface (docs/storage-interface.md), driven through ours: what is sold.

Its queues are in ``test_storage_queues``, its catalog in ``tests/catalog/test_storage_repositories``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, Sold, good, opening, problem
from tests.support.refunds import ask, decide, nonce, paid

from counterfoil.accounts import nonces
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import payments_archive
from counterfoil.settlement import holds
from counterfoil.settlement.checkout import expire_due

OLD = timedelta(hours=2160)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


# -- carts ---------------------------------------------------------------------------------------------


async def quoted(shop: Shop, quantity: int = 2) -> dict[str, Any]:
    sold = await shop.tier("editor", amount=500, asset="USD")
    lines = [{"price_id": sold.price_id, "quantity": quantity}]
    cart: dict[str, Any] = good(await shop.http.post("/v1/carts", json={"lines": lines}))
    return cart


async def test_save_cart_quote(shop: Shop) -> None:
    cart = await quoted(shop)
    row = await shop.row("carts")
    assert (row["id"], row["total"], row["asset"], row["status"]) == (cart["id"], 1_000, "USD", "open")
    assert row["expires_at"] == shop.clock.now() + timedelta(minutes=15)
    assert [line["quantity"] for line in cart["lines"]] == [2]


async def test_get_cart_quote(shop: Shop) -> None:
    cart = await quoted(shop)
    assert good(await shop.staff.get(f"/v1/carts/{cart['id']}")) == cart
    problem(await shop.staff.get("/v1/carts/crt_none"), 404, "cart_not_found")


async def test_mark_cart_paid(shop: Shop) -> None:
    cart = await quoted(shop)
    url = f"/v1/carts/{cart['id']}/paid"
    marked = good(await shop.staff.post(url, json={"paid_by": "wallet-1"}))
    assert (marked["status"], marked["paid_by"]) == ("paid", "wallet-1")
    assert good(await shop.staff.post(url, json={"paid_by": "wallet-1"})) == marked
    problem(await shop.staff.post(url, json={"paid_by": "wallet-2"}), 409, "cart_already_paid")


async def test_has_cart_access(shop: Shop) -> None:
    cart = await quoted(shop)
    url = f"/v1/carts/{cart['id']}"
    assert good(await shop.staff.get(f"{url}/access?paid_by=wallet-1")) == {"has_access": False}
    good(await shop.staff.post(f"{url}/paid", json={"paid_by": "wallet-1"}))
    assert good(await shop.staff.get(f"{url}/access?paid_by=wallet-1")) == {"has_access": True}
    assert good(await shop.staff.get(f"{url}/access?paid_by=wallet-2")) == {"has_access": False}


async def test_save_cart_quotes(shop: Shop) -> None:
    sold = await shop.tier("editor", amount=500, asset="USD")
    wanted = [{"lines": [{"price_id": sold.price_id, "quantity": count}]} for count in (1, 2, 3)]
    made = good(await shop.staff.post("/v1/carts/batch", json={"carts": wanted}))["data"]
    assert [one["total"] for one in made] == [500, 1_000, 1_500]
    wanted[1]["lines"][0]["price_id"] = "pri_none"
    problem(await shop.staff.post("/v1/carts/batch", json={"carts": wanted}), 404, "price_not_found")
    assert await shop.count("carts") == 3  # all or none


async def test_get_cart_quotes(shop: Shop) -> None:
    first = await quoted(shop)
    second = good(await shop.http.post("/v1/carts", json={"lines": [{"price_id": first["lines"][0]["price_id"]}]}))
    found = good(await shop.staff.get(f"/v1/carts?ids={second['id']},crt_none,{first['id']}"))["data"]
    assert found == [second, first]


# -- refunds -------------------------------------------------------------------------------------------


async def test_save_refund_quote(shop: Shop) -> None:
    sale = await paid(shop)
    refund = await ask(shop, order_id=sale["order"]["id"], amount=400, reason="broken")
    assert (refund["status"], refund["amount"], refund["reason"]) == ("pending", 400, "broken")
    assert (await shop.row("payments"))["refund_reserved"] == 400


async def test_get_refund_quote(shop: Shop) -> None:
    refund = await ask(shop, order_id=(await paid(shop))["order"]["id"])
    assert good(await shop.staff.get(f"/v1/refunds/{refund['id']}")) == refund
    problem(await shop.staff.get("/v1/refunds/rfd_none"), 404, "refund_not_found")


async def test_get_refund_quote_by_original_purchase_id(shop: Shop) -> None:
    order = (await paid(shop))["order"]
    refund = await ask(shop, order_id=order["id"])
    found = good(await shop.staff.get("/v1/refunds", params={"purchase_reference": order["purchase_reference"]}))
    assert found["data"] == [refund]
    assert good(await shop.staff.get("/v1/refunds?purchase_reference=none"))["data"] == []


async def test_list_pending_refunds(shop: Shop) -> None:
    order_id = (await paid(shop))["order"]["id"]
    first = await ask(shop, order_id=order_id, amount=100)
    second = await ask(shop, order_id=order_id, amount=100)
    good(await decide(shop, first, "deny"))
    assert good(await shop.staff.get("/v1/refunds?status=pending"))["data"] == [second]


async def test_mark_refund_processed(shop: Shop) -> None:
    refund = await ask(shop, order_id=(await paid(shop))["order"]["id"])
    good(await decide(shop, refund, "approve"))
    done = good(await decide(shop, refund, "settle", reference="bank-7"))
    assert (done["status"], done["rail_reference"], done["processed_at"] is None) == ("processed", "bank-7", False)
    assert (await shop.row("payments"))["refunded"] == 1_000
    assert (await shop.row("orders"))["status"] == "refunded"


async def test_delete_refund_quote(shop: Shop) -> None:
    refund = await ask(shop, order_id=(await paid(shop))["order"]["id"])
    assert (await shop.staff.delete(f"/v1/refunds/{refund['id']}")).is_success
    row = await shop.row("refunds")  # it stays, with what became of it
    assert (row["status"], row["error"]) == ("denied", "withdrawn")
    assert (await shop.row("payments"))["refund_reserved"] == 0


async def test_save_refund_quotes(shop: Shop) -> None:
    order_id = (await paid(shop))["order"]["id"]
    two = [{"order_id": order_id, "amount": 300}, {"order_id": order_id, "amount": 200}]
    made = good(await shop.staff.post("/v1/refunds/batch", json={"refunds": two}))["data"]
    assert [one["amount"] for one in made] == [300, 200]
    more = [{"order_id": order_id, "amount": 400}, {"order_id": order_id, "amount": 200}]
    problem(await shop.staff.post("/v1/refunds/batch", json={"refunds": more}), 409, "refund_exceeds_payment")
    assert await shop.count("refunds") == 2  # all or none


# -- orders --------------------------------------------------------------------------------------------


def elsewhere(reference: str = "P-1", **fields: Any) -> dict[str, Any]:
    item = {"name": "Mug", "quantity": 3, "unit_amount": 400, "total": 1_200, "ships": True}
    return {
        "source": "market", "purchase_reference": reference, "items": [item], "amount": 1_200, "asset": "USD", **fields
    }  # fmt: skip


async def imported(shop: Shop, reference: str = "P-1", **fields: Any) -> dict[str, Any]:
    order: dict[str, Any] = good(await shop.staff.post("/v1/orders", json=elsewhere(reference, **fields)))
    return order


async def test_try_store_order(shop: Shop) -> None:
    first = await shop.staff.post("/v1/orders", json=elsewhere())
    again = await shop.staff.post("/v1/orders", json=elsewhere(amount=1_200, email="other@example.com"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert await shop.count("orders") == 1


async def test_get_order(shop: Shop) -> None:
    order = await imported(shop)
    assert good(await shop.staff.get(f"/v1/orders/{order['id']}")) == order
    problem(await shop.staff.get("/v1/orders/ord_none"), 404, "order_not_found")


async def test_list_orders(shop: Shop) -> None:
    made = []
    for number in range(3):
        shop.clock.advance(timedelta(seconds=1))
        made.append((await imported(shop, f"P-{number}"))["id"])
    page = good(await shop.staff.get("/v1/orders?order=desc&limit=2"))
    assert [one["id"] for one in page["data"]] == made[:0:-1]
    rest = good(await shop.staff.get(f"/v1/orders?order=desc&limit=2&after={page['next']}"))
    assert ([one["id"] for one in rest["data"]], rest["next"]) == (made[:1], None)


async def test_list_orders_filtered(shop: Shop) -> None:
    start = shop.clock.now()
    wanted = await imported(shop, "P-1", email="ann@example.com")
    await imported(shop, "P-2", status="created", email="ann@example.com")
    shop.clock.advance(timedelta(hours=1))
    await imported(shop, "P-3", email="ann@example.com")
    asked = {
        "status": "paid", "search": "ann@", "created_after": start.isoformat(),
        "created_before": (start + timedelta(minutes=1)).isoformat(), "total": "true",
    }  # fmt: skip
    page = good(await shop.staff.get("/v1/orders", params=asked))
    assert [one["id"] for one in page["data"]] == [wanted["id"]]
    assert page["total"] == {"count": 1, "is_exact": True}


async def test_update_order_status(shop: Shop) -> None:
    order = await imported(shop)
    url = f"/v1/orders/{order['id']}/status"
    shop.clock.advance(timedelta(minutes=1))
    moved = good(await shop.staff.post(url, json={"status": "processing"}))
    assert moved["status"] == "processing"
    assert (await shop.row("orders"))["status_updated_at"] == shop.clock.now()
    problem(await shop.staff.post(url, json={"status": "created"}), 409, "illegal_transition")


async def test_append_order_history(shop: Shop) -> None:
    order = await imported(shop)
    url = f"/v1/orders/{order['id']}/status"
    good(await shop.staff.post(url, json={"status": "processing", "note": "picked"}))
    (entry,) = await shop.rows("order_history", to_status="processing")
    assert (entry["from_status"], entry["note"], entry["actor_kind"]) == ("paid", "picked", "key")


async def test_list_order_history(shop: Shop) -> None:
    order = await imported(shop)
    url = f"/v1/orders/{order['id']}"
    for status in ("processing", "canceled"):
        shop.clock.advance(timedelta(seconds=1))
        good(await shop.staff.post(f"{url}/status", json={"status": status}))
    page = good(await shop.staff.get(f"{url}/history?limit=2"))
    assert [(one["from_status"], one["to_status"]) for one in page["data"]] == [
        ("created", "paid"),
        ("paid", "processing"),
    ]
    assert page["next"] is not None


# -- fulfillments --------------------------------------------------------------------------------------


async def packed(shop: Shop, quantity: int = 2) -> dict[str, Any]:
    order = await imported(shop)
    body = {"items": [{"line": 0, "quantity": quantity}], "carrier": "Post"}
    parcel: dict[str, Any] = good(await shop.staff.post(f"/v1/orders/{order['id']}/fulfillments", json=body))
    return parcel


async def test_create_fulfillment(shop: Shop) -> None:
    parcel = await packed(shop)
    assert (parcel["status"], parcel["carrier"]) == ("pending", "Post")
    assert parcel["items"] == [{"line": 0, "quantity": 2}]
    assert (await shop.row("orders"))["status"] == "partially_fulfilled"


async def test_list_fulfillments(shop: Shop) -> None:
    parcel = await packed(shop)
    page = good(await shop.staff.get(f"/v1/orders/{parcel['order_id']}/fulfillments?limit=1"))
    assert (page["data"], page["next"]) == ([parcel], None)


async def test_update_fulfillment_status(shop: Shop) -> None:
    parcel = await packed(shop, 3)
    tracking = {"tracking_number": "T-1", "tracking_url": "https://post.example/T-1"}
    sent = good(await shop.staff.post(f"/v1/fulfillments/{parcel['id']}/ship", json=tracking))
    assert (sent["status"], sent["tracking_number"], sent["shipped_at"] is None) == ("shipped", "T-1", False)
    assert good(await shop.staff.post(f"/v1/fulfillments/{parcel['id']}/deliver"))["status"] == "delivered"
    assert (await shop.row("orders"))["status"] == "delivered"


# -- stock ---------------------------------------------------------------------------------------------


async def counted(shop: Shop, on_hand: int = 5) -> Sold:
    sold = await shop.tier("editor", amount=500, asset="USD")
    good(await shop.staff.put("/v1/products/editor/stock", json={"on_hand": on_hand}))
    return sold


async def stock(shop: Shop) -> tuple[int, int]:
    row = await shop.row("stock_items")
    return row["on_hand"], row["reserved"]


async def test_reserve_inventory(shop: Shop) -> None:
    sold = await counted(shop)
    opened = await shop.checkout((sold, 3))
    row = await shop.row("stock_reservations")
    assert (row["checkout_id"], row["quantity"], row["status"]) == (opened["id"], 3, "active")
    assert await stock(shop) == (5, 3)
    problem(await shop.try_checkout((sold, 3)), 409, "out_of_stock")
    assert await stock(shop) == (5, 3)


async def test_list_active_reservations_for_cart(shop: Shop) -> None:
    opened = await shop.checkout((await counted(shop), 3))
    item = (await shop.row("stock_items"))["id"]
    page = good(await shop.staff.get(f"/v1/stock/{item}/reservations?status=active"))["data"]
    assert [(one["checkout_id"], one["quantity"]) for one in page] == [(opened["id"], 3)]


async def test_release_inventory_reservations(shop: Shop) -> None:
    opened = await shop.checkout((await counted(shop), 3))
    good(await shop.staff.post(f"/v1/checkouts/{opened['id']}/cancel"))
    assert await stock(shop) == (5, 0)
    assert (await shop.row("stock_reservations"))["status"] == "released"


async def test_convert_inventory_reservations(shop: Shop) -> None:
    opened = await shop.checkout((await counted(shop), 3))
    await shop.play(opened, "pay")
    assert await stock(shop) == (2, 0)
    assert (await shop.row("stock_reservations"))["status"] == "converted"


async def test_cleanup_expired_inventory_reservations(shop: Shop) -> None:
    await shop.checkout((await counted(shop), 3))
    shop.clock.advance(timedelta(days=1))
    await shop.scope.run(expire_due)
    await shop.scope.run(holds.reap)
    assert await stock(shop) == (5, 0)


# -- payments ------------------------------------------------------------------------------------------


async def recorded(shop: Shop, reference: str = "R-1") -> dict[str, Any]:
    body = {"reference": reference, "amount": 700, "asset": "USD", "payer": "wallet-1"}
    payment: dict[str, Any] = good(await shop.staff.post("/v1/payments", json=body))
    return payment


BY_REFERENCE = "/v1/payments/by-reference?rail=manual&reference=R-1"


async def test_record_payment(shop: Shop) -> None:
    payment = await recorded(shop)
    row = await shop.row("payments")
    assert (row["id"], row["reference"], row["amount"], row["payer"]) == (payment["id"], "R-1", 700, "wallet-1")
    again = {"reference": "R-1", "amount": 1, "asset": "USD"}
    problem(await shop.staff.post("/v1/payments", json=again), 409, "payment_exists")
    assert await shop.row("payments") == row


async def test_has_payment_been_processed(shop: Shop) -> None:
    assert (await shop.staff.get(BY_REFERENCE)).status_code == 404
    assert not await shop.scope.read(payments_archive.is_known, "manual", "R-1")
    await recorded(shop)
    assert (await shop.staff.get(BY_REFERENCE)).status_code == 200
    assert await shop.scope.read(payments_archive.is_known, "manual", "R-1")


async def test_get_payment(shop: Shop) -> None:
    payment = await recorded(shop)
    assert good(await shop.staff.get(BY_REFERENCE)) == payment
    assert good(await shop.staff.get(f"/v1/payments/{payment['id']}")) == payment


async def test_record_payments(shop: Shop) -> None:
    two = [{"reference": f"R-{number}", "amount": 5, "asset": "USD"} for number in (1, 2)]
    assert len(good(await shop.staff.post("/v1/payments/batch", json={"payments": two}))["payments"]) == 2
    more = [{"reference": f"R-{number}", "amount": 5, "asset": "USD"} for number in (3, 2)]
    problem(await shop.staff.post("/v1/payments/batch", json={"payments": more}), 409, "payment_exists")
    assert await shop.count("payments") == 2  # all or none


async def test_archive_old_payments(shop: Shop) -> None:
    payment = await recorded(shop)
    shop.clock.advance(OLD)
    assert await payments_archive.archive_all(shop.scope, before=shop.clock.now() - OLD) == 1
    assert await shop.count("payments") == 0
    assert good(await shop.staff.get(BY_REFERENCE))["id"] == payment["id"]
    again = {"reference": "R-1", "amount": 1, "asset": "USD"}
    problem(await shop.staff.post("/v1/payments", json=again), 409, "payment_exists")  # for ever


# -- nonces --------------------------------------------------------------------------------------------


async def test_create_nonce(shop: Shop) -> None:
    assert (await nonce(shop.staff, "refund.deny"))["Nonce"]
    row = await shop.row("nonces")
    assert (row["purpose"], row["consumed_at"]) == ("refund.deny", None)
    assert row["expires_at"] == shop.clock.now() + timedelta(minutes=5)


async def test_consume_nonce(shop: Shop) -> None:
    order_id = (await paid(shop))["order"]["id"]
    first, second = [await ask(shop, order_id=order_id, amount=100) for _ in range(2)]
    headers = await nonce(shop.staff, "refund.deny")
    good(await shop.staff.post(f"/v1/refunds/{first['id']}/deny", json={}, headers=headers))
    again = await shop.staff.post(f"/v1/refunds/{second['id']}/deny", json={}, headers=headers)
    problem(again, 403, "nonce_already_used")


async def test_cleanup_expired_nonces(shop: Shop) -> None:
    await nonce(shop.staff, "refund.deny")
    assert await shop.scope.run(nonces.tidy) == 0
    shop.clock.advance(timedelta(days=2))
    assert await shop.scope.run(nonces.tidy) == 1
    assert await shop.count("nonces") == 0
