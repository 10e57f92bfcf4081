"""The life of subscriptions on Paddle: after each step our books say what Paddle's say."""

from __future__ import annotations

from datetime import timedelta

from tests.support import refunds
from tests.support.app import Shop, Sold
from tests.support.paddle_shop import MONTHLY, PaddleShop, books_equal


async def licenses(shop: Shop) -> list[tuple[str, str]]:
    """Tier and status of each license."""
    return sorted((row["tier"], row["status"]) for row in await shop.rows("licenses"))


async def test_a_trial_becomes_paid(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, reference = await paddle_shop.subscribe(trial_days=14)
    assert (row["status"], row["trial_end"], row["paid_until"]) == (
        "trialing",
        row["current_period_end"],
        row["current_period_end"],
    )
    assert row["trial_end"] - row["started_at"] == timedelta(days=14)
    assert [(one["amount"], one["status"]) for one in await shop.rows("payments")] == [(0, "settled")]
    license_ = await shop.row("licenses")
    assert license_["expires_at"] == row["trial_end"].replace(microsecond=0)
    await books_equal(paddle_shop)
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["current_period_start"]) == ("active", row["trial_end"])
    assert [one["amount"] for one in await shop.rows("orders")] == [0, 900]
    assert (await shop.row("licenses"))["expires_at"] == row["current_period_end"].replace(microsecond=0)
    await books_equal(paddle_shop)


async def test_from_the_purchase_to_the_end(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, reference = await paddle_shop.subscribe()
    sub = row["id"]
    await books_equal(paddle_shop)

    peer.subscription(reference, "due")  # renews
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)
    paid_until = (await shop.row("subscriptions"))["paid_until"]

    peer.subscription(reference, "due", declined=True)  # goes past due
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["paid_until"]) == ("past_due", paid_until)
    # What is not paid does not run: the license ends with what is, and its grace after that.
    assert (await shop.row("licenses"))["expires_at"] == paid_until.replace(microsecond=0)
    assert sorted(one["status"] for one in await shop.rows("invoices")) == ["open", "paid", "paid"]
    await books_equal(paddle_shop)

    peer.subscription(reference, "fail-again")
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)

    peer.subscription(reference, "recover")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["paid_until"]) == ("active", row["current_period_end"])
    assert (await shop.row("licenses"))["expires_at"] == row["paid_until"].replace(microsecond=0)
    await books_equal(paddle_shop)

    await paddle_shop.change(sub, "pause")  # at the end of the period
    row = await shop.row("subscriptions")
    assert (row["status"], row["scheduled_change"]["action"]) == ("active", "pause")
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    assert (await shop.row("subscriptions"))["status"] == "paused"
    assert await licenses(shop) == [("default", "suspended")]
    await books_equal(paddle_shop)

    await paddle_shop.change(sub, "resume")  # a new period begins, and is paid
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["paid_until"]) == ("active", row["current_period_end"])
    assert await licenses(shop) == [("default", "active")]
    await books_equal(paddle_shop)

    await paddle_shop.change(sub, "cancel")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["cancel_at_period_end"], row["ends_at"]) == ("active", True, row["current_period_end"])
    await books_equal(paddle_shop)
    await paddle_shop.change(sub, "keep")
    await paddle_shop.tell_all()
    assert (await shop.row("subscriptions"))["cancel_at_period_end"] is False
    await books_equal(paddle_shop)

    await paddle_shop.change(sub, "cancel")
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["ends_at"]) == ("canceled", row["canceled_at"])
    assert (await shop.row("licenses"))["expires_at"] <= shop.clock.now()
    assert (await shop.row("grants"))["status"] == "expired"
    await books_equal(paddle_shop)
    assert {one["status"] for one in await shop.rows("outbox")} == {"done"}


async def test_other_plans(paddle_shop: PaddleShop) -> None:
    shop = paddle_shop.shop
    basic = await shop.tier("editor", amount=900, tier="basic", license={"max_machines": 2}, **MONTHLY)
    pro = await shop.tier("editor", amount=1_800, tier="pro", license={"max_machines": 5}, **MONTHLY)
    viewer = await shop.tier("viewer", amount=500, tier="basic", license={"max_machines": 1}, **MONTHLY)
    row, _ = await paddle_shop.subscribe(basic)
    sub = row["id"]
    before = await shop.row("licenses")
    half = (row["current_period_end"] - row["current_period_start"]) / 2
    paddle_shop.move_on(half)

    async def to(*items: tuple[Sold, int], proration: str = "now") -> None:
        await paddle_shop.change(sub, "change", *items, proration=proration)
        await paddle_shop.tell_all()
        await books_equal(paddle_shop)

    await to((pro, 1))  # another tier of the same product: the same license, with new terms
    license_ = await shop.row("licenses")
    assert (license_["id"], license_["tier"], license_["max_machines"]) == (before["id"], "pro", 5)
    assert license_["expires_at"] == before["expires_at"]
    # Half of 1800 less half of 900 was paid at once.
    assert sorted(one["amount"] for one in await shop.rows("payments")) == [450, 900]
    assert [one["amount"] for one in await shop.rows("orders", subscription_id=sub)] == [900, 450]

    await to((pro, 3))  # two more seats
    assert await licenses(shop) == [("pro", "active")] * 3
    assert {one["expires_at"] for one in await shop.rows("licenses")} == {before["expires_at"]}
    await to((pro, 1), proration="none")  # and without them again
    assert await licenses(shop) == [("pro", "active"), ("pro", "revoked"), ("pro", "revoked")]
    await to((viewer, 1), proration="none")  # another product: another license
    assert await licenses(shop) == [("basic", "active"), ("pro", "revoked"), ("pro", "revoked"), ("pro", "revoked")]
    (issued,) = await shop.rows("licenses", status="active")
    assert (issued["product_id"], issued["expires_at"]) == (viewer.product_id, before["expires_at"])

    await to((viewer, 1), (basic, 2), proration="next_period")
    assert (await shop.row("subscriptions"))["status"] == "active"
    paddle_shop.peer.subscription((await shop.row("rail_links", kind="subscription"))["reference"], "due")
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)
    running = [one for one in await shop.rows("licenses") if one["status"] == "active"]
    ends = (await shop.row("subscriptions"))["current_period_end"].replace(microsecond=0)
    assert [(one["tier"], one["expires_at"]) for one in running] == [("basic", ends)] * 3


async def test_a_renewal_is_given_back(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    _, reference = await paddle_shop.subscribe()
    first_end = (await shop.row("subscriptions"))["paid_until"]
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    renewal = next(one for one in await shop.rows("orders") if one["checkout_id"] is None)

    refund = await refunds.give_back(shop, order_id=renewal["id"], amount=300, reason="three days down")
    assert refund["status"] == "processing"
    await paddle_shop.tell_all()
    peer.adjustment(refund["rail_reference"], "approve")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    assert (row["status"], row["paid_until"]) == ("active", row["current_period_end"])
    assert (await shop.row("orders", id=renewal["id"]))["refunded"] == 300
    await books_equal(paddle_shop)

    rest = await refunds.give_back(shop, order_id=renewal["id"], reason="all of it")
    peer.adjustment((await shop.row("refunds", id=rest["id"]))["rail_reference"], "approve")
    await paddle_shop.tell_all()
    assert (await shop.row("orders", id=renewal["id"]))["refunded"] == 900
    # The period is not paid any more: what it kept running ends with the one before.
    assert (await shop.row("subscriptions"))["paid_until"] == first_end
    assert (await shop.row("licenses"))["expires_at"] == first_end.replace(microsecond=0)
    assert [one["status"] for one in await shop.rows("subscription_periods")] == ["paid", "refunded"]
    await books_equal(paddle_shop)


async def test_the_last_try_fails(paddle_shop: PaddleShop) -> None:
    """Paddle gives up: it ends, and what was paid has been used."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, reference = await paddle_shop.subscribe()
    peer.subscription(reference, "due", declined=True)
    await paddle_shop.tell_all()
    paddle_shop.move_on(timedelta(days=14))
    peer.subscription(reference, "give-up")
    await paddle_shop.tell_all()
    ended = await shop.row("subscriptions")
    assert (ended["status"], ended["paid_until"]) == ("canceled", row["paid_until"])
    assert (await shop.row("grants"))["status"] == "expired"
    assert (await shop.row("licenses"))["expires_at"] == row["paid_until"].replace(microsecond=0)
    await books_equal(paddle_shop)


async def test_a_change_that_is_not_paid_for_does_not_happen(paddle_shop: PaddleShop) -> None:
    shop, peer = paddle_shop.shop, paddle_shop.peer
    row, _ = await paddle_shop.subscribe()
    pro = await shop.tier("editor", amount=1_800, tier="pro", license={"max_machines": 5}, **MONTHLY)
    await paddle_shop.push()
    peer.control("config", decline=True)
    await paddle_shop.change(row["id"], "change", (pro, 1))
    await paddle_shop.tell_all()
    owed = await shop.row("outbox", kind="subscription")
    assert owed["status"] == "refused"
    assert "payment declined" in owed["error"]
    assert (await shop.row("licenses"))["tier"] == "default"
    await books_equal(paddle_shop)
    peer.control("config", decline=False)
    await paddle_shop.change(row["id"], "change", (pro, 1))
    await paddle_shop.tell_all()
    assert (await shop.row("licenses"))["tier"] == "pro"
    await books_equal(paddle_shop)


async def test_what_is_paid_once_beside(paddle_shop: PaddleShop) -> None:
    """Three seats that are paid monthly, after a trial, and something for good."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    seat = await shop.tier("editor", amount=900, license={"max_machines": 2}, trial_days=14, **MONTHLY)
    course = await shop.tier("course", amount=5_000, asset="EUR", license={"max_machines": 1})
    row, reference = await paddle_shop.subscribe((seat, 3), course)
    assert (row["status"], await shop.count("subscription_items")) == ("trialing", 1)
    assert [one["amount"] for one in await shop.rows("payments")] == [5_000]
    await books_equal(paddle_shop)
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    await books_equal(paddle_shop)
    until = (await shop.row("subscriptions"))["current_period_end"].replace(microsecond=0)
    ends = {(one["product_id"], one["expires_at"]) for one in await shop.rows("licenses")}
    assert ends == {(seat.product_id, until), (course.product_id, None)}
    assert [one["amount"] for one in await shop.rows("orders")] == [5_000, 2_700]
    assert await shop.count("licenses") == 4


async def test_the_first_bill_is_given_back_after_the_second(paddle_shop: PaddleShop) -> None:
    """The period that is paid goes on."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    _, reference = await paddle_shop.subscribe()
    peer.subscription(reference, "due")
    await paddle_shop.tell_all()
    (first,) = [one for one in await shop.rows("orders") if one["checkout_id"] is not None]
    refund = await refunds.give_back(shop, order_id=first["id"], reason="a slow start")
    peer.adjustment(refund["rail_reference"], "approve")
    await paddle_shop.tell_all()
    row = await shop.row("subscriptions")
    license_ = await shop.row("licenses")
    assert (license_["status"], license_["expires_at"]) == ("active", row["current_period_end"].replace(microsecond=0))
    await books_equal(paddle_shop)
