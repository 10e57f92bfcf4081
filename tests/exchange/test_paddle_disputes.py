"""Money that goes back on Paddle: refunds asked for here or there, and chargebacks, in any order."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from typing import Any

from tests.support import refunds
from tests.support.app import Shop, good
from tests.support.databases import Dialect
from tests.support.paddle_shop import PaddleShop, books_equal, transaction_of


async def states(shop: Shop) -> tuple[str, str, str]:
    """What the license, the grant and the order are."""
    return (
        (await shop.row("licenses"))["status"],
        (await shop.row("grants"))["status"],
        (await shop.row("orders"))["status"],
    )


def adjustments(paddle: PaddleShop, **where: str) -> list[dict[str, Any]]:
    rows = paddle.peer.api("GET", "/adjustments?per_page=50&order_by=id[ASC]")
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


class TestChargebacks:
    async def test_a_warning_only_makes_a_case(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        opened = await paddle_shop.sell()
        peer.transaction(transaction_of(opened), "chargeback", warning=True)
        await paddle_shop.tell_all()
        case = await shop.row("disputes")
        assert (case["status"], case["amount"], case["reason"]) == ("warning", 1_500, "fraud")
        assert await states(shop) == ("active", "active", "paid")
        (warning,) = adjustments(paddle_shop)
        peer.adjustment(warning["id"], "reverse")
        await paddle_shop.tell_all()
        assert (await shop.row("disputes"))["status"] == "won"
        assert await states(shop) == ("active", "active", "paid")
        await books_equal(paddle_shop)

    async def test_lost_and_won_again(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        opened = await paddle_shop.sell()
        paddle_shop.move_on(timedelta(days=1))
        peer.transaction(transaction_of(opened), "chargeback")
        await paddle_shop.tell_all()
        assert (await shop.row("disputes"))["status"] == "lost"
        assert await states(shop) == ("revoked", "revoked", "refunded")
        gone = await shop.row("refunds")
        assert (gone["kind"], gone["amount"], gone["status"]) == ("chargeback", 1_500, "processed")
        await books_equal(paddle_shop)
        paddle_shop.move_on(timedelta(days=1))
        (charged,) = adjustments(paddle_shop)
        peer.adjustment(charged["id"], "reverse")
        await paddle_shop.tell_all()
        assert (await shop.row("disputes"))["status"] == "won"
        assert await states(shop) == ("active", "active", "paid")
        order = await shop.row("orders")
        assert (order["refunded"], (await shop.row("payments"))["refund_reserved"]) == (0, 0)
        await books_equal(paddle_shop)
        history = good(await shop.staff.get(f"/v1/orders/{order['id']}/history"))["data"]
        assert [step["to_status"] for step in history] == ["paid", "refunded", "paid"]

        peer.transaction(transaction_of(opened), "chargeback")  # and once more
        await paddle_shop.tell_all()
        assert await states(shop) == ("revoked", "revoked", "refunded")
        assert sorted(row["status"] for row in await shop.rows("refunds")) == ["failed", "processed"]
        await books_equal(paddle_shop)

    async def test_what_somebody_else_has_suspended_stays_so(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        opened = await paddle_shop.sell()
        license_ = await shop.row("licenses")
        good(await shop.staff.post(f"/v1/licenses/{license_['id']}/suspend", json={"reason": "shared online"}))
        peer.transaction(transaction_of(opened), "chargeback")
        await paddle_shop.tell_all()
        assert await states(shop) == ("revoked", "revoked", "refunded")
        (charged,) = adjustments(paddle_shop)
        peer.adjustment(charged["id"], "reverse")
        await paddle_shop.tell_all()
        assert await states(shop) == ("suspended", "suspended", "paid")
        assert (await shop.row("licenses"))["suspension_reason"] == "shared online"

    async def test_of_a_renewal(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        row, reference = await paddle_shop.subscribe()
        peer.subscription(reference, "due")
        await paddle_shop.tell_all()
        until = (await shop.row("licenses"))["expires_at"]
        renewal = next(one for one in await shop.rows("orders") if one["checkout_id"] is None)
        peer.transaction(renewal["purchase_reference"], "chargeback")
        await paddle_shop.tell_all()
        assert (await shop.row("orders", id=renewal["id"]))["status"] == "refunded"
        assert (await shop.row("licenses"))["status"] == "revoked"
        assert (await shop.row("subscriptions"))["paid_until"] == row["current_period_end"]
        await books_equal(paddle_shop)
        (charged,) = adjustments(paddle_shop)
        peer.adjustment(charged["id"], "reverse")
        await paddle_shop.tell_all()
        license_ = await shop.row("licenses")
        assert (license_["status"], license_["expires_at"]) == ("active", until)
        assert (await shop.row("orders", id=renewal["id"]))["status"] == "paid"
        assert {one["status"] for one in await shop.rows("subscription_periods")} == {"paid"}
        await books_equal(paddle_shop)

    async def test_every_order_of_it_ends_alike(self, paddle_shop: PaddleShop, dialect: Dialect) -> None:
        """A refund of a part, then a warning, a chargeback of the rest, and its reversal."""
        shop, peer = paddle_shop.shop, paddle_shop.peer
        sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
        orders = random.Random(3).sample(list(itertools.permutations(range(6))), 30 if dialect == "sqlite" else 6)
        for order in orders:
            opened = await paddle_shop.sell(sold)
            sale = transaction_of(opened)
            line = peer.api("GET", f"/transactions/{sale}")["details"]["line_items"][0]["id"]
            item = {"item_id": line, "type": "partial", "amount": "500"}
            asked = {"action": "refund", "transaction_id": sale, "reason": "a part", "items": [item]}
            part = peer.api("POST", "/adjustments", asked)
            peer.adjustment(part["id"], "approve")
            peer.transaction(sale, "chargeback", warning=True)
            charged = peer.transaction(sale, "chargeback")
            peer.adjustment(charged["id"], "reverse")
            events = [event for event in paddle_shop.news() if event["event_type"].startswith("adjustment.")]
            assert len(events) == 6
            for place in order:
                await paddle_shop.tell(events[place])
                await paddle_shop.tell(events[place])
            checkout = {"checkout_id": opened["id"]}
            bought = await shop.row("orders", **checkout)
            payment = await shop.row("payments", **checkout)
            assert (bought["status"], bought["refunded"]) == ("paid", 500), order
            assert (payment["refunded"], payment["refund_reserved"]) == (500, 500), order
            assert (await shop.row("disputes", payment_id=payment["id"]))["status"] == "won", order
            assert (await shop.row("licenses", order_id=bought["id"]))["status"] == "active", order
            assert (await shop.row("grants", order_id=bought["id"]))["status"] == "active", order
        assert await shop.count("inbox", status="set_aside") == 0


class TestRefunds:
    async def test_asked_for_here(self, paddle_shop: PaddleShop) -> None:
        """Several in parts, then the rest: each executed there, once."""
        shop, peer = paddle_shop.shop, paddle_shop.peer
        await paddle_shop.sell()
        order = await shop.row("orders")
        for amount, refunded, status in ((400, 400, "paid"), (100, 500, "paid"), (None, 1_500, "refunded")):
            more = {} if amount is None else {"amount": amount}
            refund = await refunds.give_back(shop, order_id=order["id"], reason="because", **more)
            assert refund["status"] == "processing"
            peer.adjustment(refund["rail_reference"], "approve")
            await paddle_shop.tell_all()
            order = await shop.row("orders")
            assert (order["refunded"], order["status"]) == (refunded, status)
            await books_equal(paddle_shop)
        assert (await shop.row("licenses"))["status"] == "revoked"
        assert [row["type"] for row in adjustments(paddle_shop)] == ["partial", "partial", "partial"]

    async def test_all_at_once_and_rejected(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        await paddle_shop.sell()
        order = await shop.row("orders")
        refund = await refunds.give_back(shop, order_id=order["id"], reason="because")
        peer.adjustment(refund["rail_reference"], "reject")
        await paddle_shop.tell_all()
        refund = await shop.row("refunds")
        assert (refund["status"], refund["error"]) == ("failed", "Paddle has rejected it")
        assert (await shop.row("payments"))["refund_reserved"] == 0
        assert (await shop.row("licenses"))["status"] == "active"
        await books_equal(paddle_shop)
        again = await refunds.give_back(shop, order_id=order["id"], reason="once more")
        peer.adjustment(again["rail_reference"], "approve")
        await paddle_shop.tell_all()
        assert (await shop.row("orders"))["status"] == "refunded"
        assert (await shop.row("licenses"))["status"] == "revoked"
        await books_equal(paddle_shop)

    async def test_made_in_the_dashboard(self, paddle_shop: PaddleShop) -> None:
        shop, peer = paddle_shop.shop, paddle_shop.peer
        opened = await paddle_shop.sell()
        asked = {
            "action": "refund",
            "transaction_id": transaction_of(opened),
            "reason": "by phone",
            "type": "full",
        }
        made = peer.api("POST", "/adjustments", asked)
        await paddle_shop.tell_all()
        assert await shop.count("refunds") == 0  # Paddle has not approved it
        peer.adjustment(made["id"], "approve")
        await paddle_shop.tell_all()
        refund = await shop.row("refunds")
        assert (refund["amount"], refund["reason"], refund["requested_by"]) == (1_500, "by phone", "rail:paddle-test")
        assert await states(shop) == ("revoked", "revoked", "refunded")
        await books_equal(paddle_shop)

    async def test_told_of_before_anything_else(self, paddle_shop: PaddleShop) -> None:
        """A refund of a payment that we do not know yet is not lost."""
        shop, peer = paddle_shop.shop, paddle_shop.peer
        sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
        opened = await shop.checkout(sold, rail="paddle-test", email="ada@example.com")
        paddle_shop.pay(opened)
        asked = {"action": "refund", "transaction_id": transaction_of(opened), "reason": "no", "type": "full"}
        peer.adjustment(peer.api("POST", "/adjustments", asked)["id"], "approve")
        events = paddle_shop.news()
        events.sort(key=lambda event: not event["event_type"].startswith("adjustment."))
        for event in events:
            await paddle_shop.tell(event)
        assert (await shop.row("orders"))["status"] == "paid"
        paddle_shop.move_on(timedelta(minutes=1))
        await paddle_shop.ask()
        assert (await shop.row("orders"))["status"] == "refunded"
        assert (await shop.row("licenses"))["status"] == "revoked"
        await books_equal(paddle_shop)
