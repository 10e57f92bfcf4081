"""What counts of what Paddle charges: taxes within prices and on top of them, discounts, countries."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import refunds
from tests.support.paddle_shop import EMAIL, MONTHLY, RAIL, PaddleShop, books_equal, connect, transaction_of

from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
def taxed(paddle_shop: PaddleShop) -> PaddleShop:
    """Everybody pays 20 % of tax."""
    paddle_shop.peer.control("config", tax_rate="0.2")
    return paddle_shop


@pytest.mark.parametrize(("mode", "charged", "tax"), [("internal", 1_500, 250), ("external", 1_800, 300)])
async def test_a_refund_with_tax(taxed: PaddleShop, mode: str, charged: int, tax: int) -> None:
    shop, peer = taxed.shop, taxed.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2}, tax_mode=mode)
    opened = await taxed.sell(sold)
    paid = peer.api("GET", f"/transactions/{transaction_of(opened)}")["details"]["totals"]
    assert (paid["grand_total"], paid["tax"]) == (str(charged), str(tax))
    assert (await shop.claim(opened))["status"] == "settled"
    assert [(row["amount"], row["status"]) for row in await shop.rows("payments")] == [(1_500, "settled")]
    bill = await shop.row("invoices")
    assert (bill["amount"], bill["tax"]) == (charged, tax)
    await books_equal(taxed)
    order = await shop.row("orders")
    for amount, refunded in ((600, 600), (None, 1_500)):
        more = {} if amount is None else {"amount": amount}
        refund = await refunds.give_back(shop, order_id=order["id"], reason="because", **more)
        assert refund["status"] == "processing", refund["error"]
        peer.adjustment(refund["rail_reference"], "approve")
        await taxed.tell_all()
        order = await shop.row("orders")
        assert order["refunded"] == refunded
        await books_equal(taxed)
    back = [row["totals"]["total"] for row in peer.api("GET", "/adjustments?order_by=id[ASC]")]
    assert sum(map(int, back)) == charged  # the tax went back, too
    assert order["status"] == "refunded"


async def test_tax_on_top_of_all_prices_of_an_account(taxed: PaddleShop, master: MasterKey) -> None:
    await connect(taxed.shop, taxed.peer, master, tax_mode="external")
    row, reference = await taxed.subscribe()
    await books_equal(taxed)
    taxed.peer.subscription(reference, "due")
    await taxed.tell_all()
    assert [one["amount"] for one in await taxed.shop.rows("payments")] == [900, 900]
    assert [one["tax"] for one in await taxed.shop.rows("invoices")] == [180, 180]
    assert [one["amount"] for one in await taxed.shop.rows("orders", checkout_id=None)] == [900]
    assert row["status"] == "active"
    await books_equal(taxed)


async def test_a_chargeback_with_tax(taxed: PaddleShop) -> None:
    """What of it counts only its transaction tells, which is asked for after the webhook was answered."""
    shop, peer = taxed.shop, taxed.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2}, tax_mode="external")
    opened = await taxed.sell(sold)
    peer.transaction(transaction_of(opened), "chargeback")
    events = taxed.news()
    before = len(peer.look("requests"))
    for event in events:
        await taxed.tell(event)
    assert len(peer.look("requests")) == before
    assert (await shop.row("orders"))["status"] == "paid"
    await taxed.ask()
    assert (await shop.row("orders"))["status"] == "refunded"
    assert (await shop.row("disputes"))["amount"] == 1_500
    await books_equal(taxed)


async def test_a_discounted_cart(taxed: PaddleShop) -> None:
    shop = taxed.shop
    editor = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    viewer = await shop.tier("viewer", amount=333, asset="EUR", license={"max_machines": 1})
    await taxed.reference(editor)
    await shop.discount("SPRING", amount=1_500)
    opened = await shop.checkout((editor, 1), (viewer, 3), rail=RAIL, email=EMAIL, code="SPRING")
    taxed.pay(opened)
    await taxed.tell_all()
    assert (await shop.claim(opened))["status"] == "settled"
    checkout, payment = await shop.row("checkouts"), await shop.row("payments")
    assert (payment["amount"], payment["status"]) == (checkout["amount"], "settled")
    # 15 % of 1500 is 225; of 999 it is 149 or 150.
    assert checkout["amount"] in {2_124, 2_125}
    await books_equal(taxed)


async def test_a_discounted_subscription(taxed: PaddleShop) -> None:
    shop, peer = taxed.shop, taxed.peer
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    await shop.discount("SPRING", amount=2_000, recurring=True, max_periods=2)
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL, code="SPRING")
    taxed.pay(opened)
    await taxed.tell_all()
    reference = str((await shop.row("rail_links", kind="subscription"))["reference"])
    for _ in range(2):
        peer.subscription(reference, "due")
        await taxed.tell_all()
    assert [one["amount"] for one in await shop.rows("orders")] == [720, 720, 900]
    assert [one["discount_total"] for one in await shop.rows("orders")] == [180, 180, 0]
    assert [one["amount"] for one in await shop.rows("order_discounts")] == [180, 180]
    await books_equal(taxed)


COUNTRIES: dict[str, Any] = {"country_overrides": [{"countries": ["FR"], "unit_amount": 1_000}]}


@pytest.mark.parametrize(("country", "amount"), [("FR", 1_000), (None, 1_500), ("DE", 1_500)])
@pytest.mark.parametrize("buyer", ["FR", "DE"])
async def test_the_price_of_a_country(taxed: PaddleShop, country: str | None, amount: int, buyer: str) -> None:
    """What we said it costs is what Paddle charges, wherever the buyer turns out to be."""
    shop = taxed.shop
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2}, **COUNTRIES)
    await taxed.reference(sold)
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL, country=country)
    taxed.pay(opened, country_code=buyer)
    await taxed.tell_all()
    assert (await shop.claim(opened))["status"] == "settled"
    assert (await shop.row("payments"))["amount"] == amount
    await books_equal(taxed)


async def test_a_subscription_at_the_price_of_a_country(taxed: PaddleShop) -> None:
    shop, peer = taxed.shop, taxed.peer
    sold = await shop.tier("editor", amount=1_500, license={"max_machines": 2}, **MONTHLY, **COUNTRIES)
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL, country="FR")
    taxed.pay(opened, country_code="DE")
    await taxed.tell_all()
    reference = str((await shop.row("rail_links", kind="subscription"))["reference"])
    peer.subscription(reference, "due")
    await taxed.tell_all()
    assert [one["amount"] for one in await shop.rows("orders")] == [1_000, 1_000]
    assert (await shop.row("subscription_items"))["price_id"] == sold.price_id
    await books_equal(taxed)
