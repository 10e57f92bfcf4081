"""Who buys on Paddle: customers of ours that it knows, does not know yet, or cannot know."""

from __future__ import annotations

from typing import Any

from tests.support.app import Sold, good, problem
from tests.support.paddle_shop import EMAIL, MONTHLY, RAIL, PaddleShop, books_equal, transaction_of


async def customer(paddle: PaddleShop, **fields: Any) -> dict[str, Any]:
    made = {"kind": "person", "name": "Ada Lovelace", **fields}
    return dict(good(await paddle.shop.staff.post("/v1/customers", json=made)))


async def checkout(paddle: PaddleShop, sold: Sold, customer_id: str, **fields: Any) -> dict[str, Any]:
    """A checkout of a customer's own cart."""
    shop = paddle.shop
    wanted = {"lines": [{"price_id": sold.price_id, "quantity": 1}]}
    cart = good(await shop.staff.post(f"/v1/customers/{customer_id}/carts", json=wanted))
    body = {"cart_id": cart["claim"], "rail": RAIL, **fields}
    return dict(good(await shop.staff.post("/v1/checkouts", json=body)))


async def test_somebody_whom_paddle_knows(paddle_shop: PaddleShop) -> None:
    """Somebody who has paid there before has a customer there: it becomes the copy of ours."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    known = peer.api("POST", "/customers", {"email": EMAIL, "name": "A. Lovelace"})
    ours = await customer(paddle_shop, email=EMAIL)
    await paddle_shop.push()
    link = await shop.row("rail_links", kind="customer", object_id=ours["id"])
    assert (link["reference"], link["sync_status"]) == (known["id"], "synced")
    theirs = peer.api("GET", f"/customers/{known['id']}")
    assert (theirs["name"], theirs["custom_data"]["counterfoil_id"]) == ("Ada Lovelace", ours["id"])
    assert paddle_shop.made("customers") == 1


async def test_a_customer_of_ours_subscribes(paddle_shop: PaddleShop) -> None:
    """The copy is made on the way, and what is bought is the customer's."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    ours = await customer(paddle_shop, email=EMAIL)
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    opened = await checkout(paddle_shop, sold, ours["id"])
    link = await shop.row("rail_links", kind="customer")
    assert peer.api("GET", f"/transactions/{transaction_of(opened)}")["customer_id"] == link["reference"]
    paddle_shop.pay(opened)
    await paddle_shop.tell_all()
    for table in ("subscriptions", "orders", "payments", "licenses", "grants", "invoices"):
        assert [row["customer_id"] for row in await shop.rows(table)] == [ours["id"]], table
    await books_equal(paddle_shop)


async def test_somebody_without_an_address(paddle_shop: PaddleShop) -> None:
    """Paddle takes no customers without an e-mail address; its page asks for one."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    ours = await customer(paddle_shop)
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    opened = await checkout(paddle_shop, sold, ours["id"])
    assert peer.api("GET", f"/transactions/{transaction_of(opened)}")["customer_id"] is None
    paddle_shop.pay(opened)
    await paddle_shop.tell_all()
    assert [row["customer_id"] for row in await shop.rows("subscriptions")] == [ours["id"]]
    await books_equal(paddle_shop)


async def test_a_price_that_paddle_refuses(paddle_shop: PaddleShop) -> None:
    """The checkout is given up, and holds nothing."""
    shop = paddle_shop.shop
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    words = '{"error": {"type": "request_error", "code": "bad_request", "detail": "no such luck"}}'
    paddle_shop.bad_luck("POST /prices$", status=400, body=words, count=10)
    refused = problem(await shop.try_checkout(sold, rail=RAIL, email=EMAIL), 502, "rail_refused")
    assert "no such luck" in refused["detail"]
    assert [row["status"] for row in await shop.rows("checkouts")] == ["failed"]
    assert paddle_shop.made("transactions") == 0
