"""Paddle's news that does not fit, is not known, or comes too late; and what a webhook may cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.peers.paddle_world import Row, parse, stamp
from tests.support.app import named
from tests.support.paddle_shop import EMAIL, MONTHLY, RAIL, PaddleShop, books_equal, transaction_of

from counterfoil.exchange.questions import replay
from counterfoil.settlement import links

UNTOUCHED = ("events", "event_seals", "inbox", "idempotency_keys", "deliveries")


async def elsewhere(paddle: PaddleShop, row: Row, reference: str) -> str:
    """Somebody adds a price to a subscription in Paddle's dashboard that we have never heard of."""
    peer = paddle.peer
    (item,) = peer.api("GET", f"/subscriptions/{reference}")["items"]
    body = {
        "description": "made there",
        "product_id": item["price"]["product_id"],
        "unit_price": {"amount": "100", "currency_code": "EUR"},
        "billing_cycle": {"interval": "month", "frequency": 1},
    }
    made = peer.api("POST", "/prices", body)
    items = [{"price_id": item["price"]["id"], "quantity": 1}, {"price_id": made["id"], "quantity": 1}]
    change = {"items": items, "proration_billing_mode": "do_not_bill"}
    peer.api("PATCH", f"/subscriptions/{reference}", change)
    assert row["status"] == "active"
    return str(made["id"])


async def test_what_does_not_fit_is_set_aside_and_replayed(paddle_shop: PaddleShop) -> None:
    shop = paddle_shop.shop
    row, reference = await paddle_shop.subscribe()
    price = await elsewhere(paddle_shop, row, reference)
    before = await shop.everything(*UNTOUCHED)
    events = paddle_shop.news()
    for event in events:
        await paddle_shop.tell(event)  # which is answered 200
    (aside,) = await shop.rows("inbox", status="set_aside")
    assert aside["type"] == "subscription.updated"
    assert aside["error"].startswith("price_unknown: ")
    assert price in aside["error"]
    assert await shop.everything(*UNTOUCHED) == before
    await paddle_shop.tell(next(event for event in events if event["event_id"] == aside["event_id"]))
    assert await shop.count("inbox", status="set_aside") == 1

    other = await shop.tier("editor", amount=100, tier="pro", license={"max_machines": 1}, **MONTHLY)
    await shop.scope.run(links.link, RAIL, "price", other.price_id, price)
    house = shop.house
    assert await replay(shop.scope, house.rails, house.client, aside["id"]) is not None
    assert (await shop.row("inbox", id=aside["id"]))["status"] == "applied"
    assert {one["price_id"] for one in await shop.rows("subscription_items")} >= {other.price_id}
    assert {one["tier"] for one in await shop.rows("licenses", status="active")} == {"default", "pro"}
    assert await replay(shop.scope, house.rails, house.client, aside["id"]) is None


async def test_what_we_do_not_know_is_kept(paddle_shop: PaddleShop) -> None:
    shop = paddle_shop.shop
    event = {
        "event_id": "evt_01hv8wptq8987qeep44cyrewp9",
        "event_type": "invention.made",
        "occurred_at": stamp(shop.clock.now()),
        "data": {"id": "inn_1"},
    }
    await paddle_shop.tell(event)
    kept = await shop.row("inbox")
    assert (kept["status"], kept["type"], kept["applied_at"]) == ("unknown", "invention.made", None)
    assert '"inn_1"' in kept["body"]


async def test_a_status_that_we_do_not_know_is_kept(paddle_shop: PaddleShop) -> None:
    """An object of a known kind that cannot be read changes nothing, and waits for a version that can."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    _, reference = await paddle_shop.subscribe()
    peer.subscription(reference, "due")
    event = next(one for one in paddle_shop.news() if one["event_type"] == "subscription.updated")
    event["data"]["status"] = "hibernating"
    await paddle_shop.tell(event)
    kept = await shop.row("inbox", event_id=event["event_id"])
    assert kept["status"] == "unknown"
    assert "hibernating" in kept["error"]
    assert (await shop.row("subscriptions"))["status"] == "active"


async def test_older_news_does_not_overwrite(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, reference = await paddle_shop.subscribe()
    peer.subscription(reference, "due")
    peer.subscription(reference, "due", declined=True)
    peer.subscription(reference, "recover")
    await paddle_shop.change(row["id"], "cancel")
    peer.subscription(reference, "due")
    events = paddle_shop.news()
    for event in reversed(events):
        await paddle_shop.tell(event)
    await paddle_shop.ask()
    found = await shop.row("subscriptions")
    assert found["status"] == "canceled"
    assert found["heard_at"] == max(
        parse(event["occurred_at"]) for event in events if event["event_type"].startswith("subscription.")
    )
    await books_equal(paddle_shop)
    before = named(await shop.everything(*UNTOUCHED))
    for event in events:
        await paddle_shop.tell(event)
    assert named(await shop.everything(*UNTOUCHED)) == before


async def test_a_webhook_asks_nothing(paddle_shop: PaddleShop) -> None:
    """Whatever Paddle tells is taken in without a word to it: a slow Paddle makes no webhook late."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    peer.control("config", tax_rate="0.2")
    _, reference = await paddle_shop.subscribe(tax_mode="external")
    peer.subscription(reference, "due", declined=True)
    peer.subscription(reference, "recover")
    paddle_shop.follow_clock()
    sold = await shop.tier("viewer", amount=500, asset="EUR", tax_mode="external")
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL)
    paddle_shop.pay(opened)
    asked: dict[str, Any] = {
        "action": "refund",
        "transaction_id": transaction_of(opened),
        "reason": "r",
        "type": "full",
    }
    peer.adjustment(peer.api("POST", "/adjustments", asked)["id"], "approve")
    events = paddle_shop.news()
    before = len(peer.look("requests"))
    for event in events:
        await paddle_shop.tell(event)
    assert len(peer.look("requests")) == before
    assert {row["type"] for row in await shop.rows("inbox", status="waiting")} == {
        "adjustment.created",
        "adjustment.updated",
    }
    await paddle_shop.ask()
    assert await shop.count("inbox", status="waiting") == 0
    await books_equal(paddle_shop)


async def test_a_question_that_is_not_answered_is_asked_again(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    peer.control("config", tax_rate="0.2")
    opened = await paddle_shop.sell(await shop.tier("viewer", amount=500, asset="EUR"))
    peer.transaction(transaction_of(opened), "chargeback")
    paddle_shop.bad_luck("GET /transactions/", status=503)
    await paddle_shop.tell_all()
    waiting = await shop.row("inbox", status="waiting")
    assert (waiting["attempts"], waiting["next_attempt_at"] - shop.clock.now()) == (1, timedelta(seconds=30))
    paddle_shop.move_on(timedelta(seconds=30))
    await paddle_shop.ask()
    assert (await shop.row("disputes"))["status"] == "lost"
    await books_equal(paddle_shop)
