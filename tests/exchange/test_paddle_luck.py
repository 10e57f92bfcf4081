"""Bad luck between us and Paddle: nothing is made or charged twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support import refunds
from tests.support.app import good, problem
from tests.support.paddle_shop import BAD_LUCK, EMAIL, MONTHLY, RAIL, PaddleShop, books_equal

LUCK = pytest.mark.parametrize("luck", BAD_LUCK.values(), ids=BAD_LUCK)
SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])
"""What goes wrong here goes wrong between us and Paddle: the other database has nothing to do with it."""
LATER = timedelta(minutes=6)


@SQLITE
@LUCK
async def test_a_checkout(paddle_shop: PaddleShop, luck: dict[str, Any]) -> None:
    shop = paddle_shop.shop
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    paddle_shop.bad_luck("POST /transactions$", **luck)
    wanted: dict[str, Any] = {"rail": RAIL, "email": EMAIL, "key": "one-and-only"}
    problem(await shop.try_checkout(sold, **wanted), 503, "rail_unavailable")
    opened = await shop.checkout(sold, **wanted)
    assert (await shop.checkout(sold, **wanted))["url"] == opened["url"]
    assert paddle_shop.made("transactions") == 1
    paddle_shop.pay(opened)
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)


@SQLITE
@LUCK
async def test_a_subscription_is_opened(paddle_shop: PaddleShop, luck: dict[str, Any]) -> None:
    """Bad luck at every step on the way."""
    shop = paddle_shop.shop
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    await shop.discount("SPRING", amount=1_000, recurring=True)
    kinds = ("products", "prices", "discounts", "transactions")
    for kind in kinds:
        paddle_shop.bad_luck(f"POST /{kind}$", **luck)
    wanted: dict[str, Any] = {"rail": RAIL, "email": EMAIL, "key": "one-and-only", "code": "SPRING"}
    for _ in kinds:
        problem(await shop.try_checkout(sold, **wanted), 503, "rail_unavailable")
    opened = await shop.checkout(sold, **wanted)
    assert [paddle_shop.made(kind) for kind in kinds] == [1, 1, 1, 1]
    paddle_shop.pay(opened)
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)


@SQLITE
@LUCK
async def test_copies(paddle_shop: PaddleShop, luck: dict[str, Any]) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    await shop.tier("editor", amount=1_500, asset="EUR")
    ada = good(await shop.staff.post("/v1/customers", json={"kind": "person", "name": "Ada", "email": EMAIL}))
    place = {"first_line": "Main Street 1", "city": "Berlin", "zip_code": "10115", "country_code": "DE"}
    good(await shop.staff.post(f"/v1/customers/{ada['id']}/addresses", json=place))
    for step in ("products", "prices", "customers", ".*/addresses"):
        paddle_shop.bad_luck(f"POST /{step}$", **luck)
    for _ in range(4):  # what waits for another waits once more
        await paddle_shop.push()
        paddle_shop.move_on(LATER)
    assert [paddle_shop.made(kind) for kind in ("products", "prices", "customers")] == [1, 1, 1]
    (customer,) = peer.api("GET", "/customers")
    assert paddle_shop.made(f"customers/{customer['id']}/addresses") == 1
    assert {row["status"] for row in await shop.rows("outbox")} == {"done"}
    assert {row["sync_status"] for row in await shop.rows("rail_links")} == {"synced"}


@SQLITE
@LUCK
@pytest.mark.parametrize("step", ["POST /adjustments$", "GET /transactions/"])
async def test_a_refund(paddle_shop: PaddleShop, luck: dict[str, Any], step: str) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    await paddle_shop.sell()
    order = await shop.row("orders")
    paddle_shop.bad_luck(step, **luck)
    refund = await refunds.give_back(shop, order_id=order["id"], amount=400, reason="because")
    assert refund["status"] == "processing"
    paddle_shop.move_on(LATER)
    await refunds.execute(shop)
    (made,) = peer.api("GET", "/adjustments")
    assert made["totals"]["total"] == "400"
    await paddle_shop.tell_all()
    peer.adjustment(made["id"], "approve")
    await paddle_shop.tell_all()
    assert (await shop.row("refunds"))["status"] == "processed"
    await books_equal(paddle_shop)


@SQLITE
@LUCK
async def test_another_plan(paddle_shop: PaddleShop, luck: dict[str, Any]) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, _ = await paddle_shop.subscribe()
    pro = await shop.tier("editor", amount=1_800, tier="pro", license={"max_machines": 5}, **MONTHLY)
    await paddle_shop.push()
    paddle_shop.bad_luck("PATCH /subscriptions/", **luck)
    await paddle_shop.change(row["id"], "change", (pro, 1), proration="full_now")
    await paddle_shop.tell_all()
    paddle_shop.move_on(LATER)
    await paddle_shop.push()
    await paddle_shop.tell_all()
    assert [sale["details"]["totals"]["grand_total"] for sale in peer.api("GET", "/transactions")] == ["1800", "900"]
    assert {one["status"] for one in await shop.rows("outbox")} == {"done"}
    assert (await shop.row("licenses"))["tier"] == "pro"
    await books_equal(paddle_shop)

    paddle_shop.bad_luck("POST /subscriptions/.*/pause", **luck)
    await paddle_shop.change(row["id"], "pause", at_period_end=False)
    paddle_shop.move_on(LATER)
    await paddle_shop.push()
    await paddle_shop.tell_all()
    assert (await shop.row("subscriptions"))["status"] == "paused"
    paddle_shop.bad_luck("POST /subscriptions/.*/resume", **luck)
    await paddle_shop.change(row["id"], "resume")  # which is charged for
    paddle_shop.move_on(LATER)
    await paddle_shop.push()
    await paddle_shop.tell_all()
    assert (await shop.row("subscriptions"))["status"] == "active"
    assert paddle_shop.made("transactions") == 3
    paddle_shop.bad_luck("POST /subscriptions/.*/cancel", **luck)
    await paddle_shop.change(row["id"], "cancel", at_period_end=False)
    paddle_shop.move_on(LATER)
    await paddle_shop.push()
    await paddle_shop.tell_all()
    assert (await shop.row("subscriptions"))["status"] == "canceled"
    assert {one["status"] for one in await shop.rows("outbox")} == {"done"}
    await books_equal(paddle_shop)
