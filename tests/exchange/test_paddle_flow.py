"""Sales on Paddle, from the catalog to the license, against the stateful stand-in."""

from __future__ import annotations

from tests.support.app import good
from tests.support.paddle_shop import EMAIL, RAIL, PaddleShop, books_equal, transaction_of


async def test_what_is_sold_once(paddle_shop: PaddleShop) -> None:
    shop = paddle_shop.shop
    opened = await paddle_shop.sell()
    claim = await shop.claim(opened)
    assert claim["status"] == "settled"
    payment = await shop.row("payments")
    assert (payment["rail"], payment["amount"], payment["asset"], payment["status"]) == (RAIL, 1_500, "EUR", "settled")
    assert payment["reference"].startswith("txn_")
    (key,) = claim["license_keys"]
    assert key.startswith("LIC1-")
    await books_equal(paddle_shop)


async def test_copies_go_out_with_the_change_that_owes_them(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR")
    await paddle_shop.push()
    links = {row["kind"]: row for row in await shop.rows("rail_links")}
    product = peer.api("GET", f"/products/{links['product']['reference']}")
    assert (product["name"], product["custom_data"]["counterfoil_id"]) == ("Editor", sold.product_id)
    price = peer.api("GET", f"/prices/{links['price']['reference']}")
    assert (price["unit_price"], price["product_id"]) == ({"amount": "1500", "currency_code": "EUR"}, product["id"])
    assert {row["sync_status"] for row in links.values()} == {"synced"}
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"name": "Editor 2"}))
    await paddle_shop.push()
    assert peer.api("GET", f"/products/{product['id']}")["name"] == "Editor 2"
    assert {row["status"] for row in await shop.rows("outbox")} == {"done"}


async def test_a_subscription_renews(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, reference = await paddle_shop.subscribe()
    assert (row["status"], row["asset"], row["billing_interval"]) == ("active", "EUR", "month")
    await books_equal(paddle_shop)
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    first, second = await shop.rows("subscription_periods")
    assert second["period_start"] == first["period_end"]
    assert await shop.count("orders") == 2
    await books_equal(paddle_shop)


async def test_a_card_that_is_declined_first(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL)
    peer.transaction(transaction_of(opened), "decline")
    await paddle_shop.tell_all()
    assert (await shop.claim(opened))["status"] == "open"
    paddle_shop.pay(opened)
    await paddle_shop.tell_all()
    assert (await shop.claim(opened))["status"] == "settled"
    await books_equal(paddle_shop)


async def test_a_checkout_that_is_called_off(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR")
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL)
    peer.transaction(transaction_of(opened), "cancel")
    await paddle_shop.tell_all()
    assert (await shop.claim(opened))["status"] == "failed"
    assert await shop.count("invoices") == 0


async def test_what_is_not_ours(paddle_shop: PaddleShop) -> None:
    """Another shop of the seller's uses the account, too: its sales are none of ours, and nothing breaks."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    product = peer.api("POST", "/products", {"name": "Book", "tax_category": "standard"})["id"]
    price = peer.api(
        "POST",
        "/prices",
        {
            "description": "Book",
            "product_id": product,
            "unit_price": {"amount": "700", "currency_code": "EUR"},
            "billing_cycle": {"interval": "month", "frequency": 1},
        },
    )
    sale = peer.api("POST", "/transactions", {"items": [{"price_id": price["id"], "quantity": 1}]})
    paid = peer.transaction(sale["id"])
    peer.subscription(paid["subscription_id"], "due")
    asked = {"action": "refund", "transaction_id": sale["id"], "reason": "no", "type": "full"}
    peer.adjustment(peer.api("POST", "/adjustments", asked)["id"], "approve")
    await paddle_shop.tell_all()
    for table in ("orders", "payments", "invoices", "subscriptions", "refunds", "licenses", "rail_links"):
        assert await shop.rows(table) == []
    assert await shop.count("inbox", status="set_aside") == 0
