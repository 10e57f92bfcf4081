"""Money that goes back on Stripe: asked for here, given back there, or disputed, in any order of the news."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop
from tests.support.refunds import give_back
from tests.support.stripe_shop import MONTHLY, StripeShop, books_equal

pytestmark = pytest.mark.xdist_group("stripe-peers")


async def standing(shop: Shop) -> tuple[str, str, int]:
    """The license, its grant, and how much of the payment went back."""
    payment = max(await shop.rows("payments"), key=lambda row: row["occurred_at"])
    return (await shop.row("licenses"))["status"], (await shop.row("grants"))["status"], payment["refunded"]


async def intent(stripe: StripeShop) -> str:
    """Stripe's name for the latest money."""
    return stripe.peer.objects()["payment_intents"][-1]


async def test_refunds_asked_for_here(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    await stripe_shop.sell()
    order = await shop.row("orders")
    for amount, status in ((400, "active"), (500, "active"), (600, "revoked")):
        done = await give_back(shop, order_id=order["id"], amount=amount, reason="it broke")
        assert done["status"] == "processed"
        await stripe_shop.tell_all()
        await books_equal(stripe_shop)
        assert (await shop.row("licenses"))["status"] == status
    assert len(peer.objects()["refunds"]) == 3
    assert await shop.count("refunds") == 3


async def test_a_refund_that_takes_its_time(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    opened = await shop.checkout(sold, rail="stripe-test")
    stripe_shop.pay(opened, card="4000000000007726")
    await stripe_shop.tell_all()
    under_way = await give_back(shop, order_id=(await shop.row("orders"))["id"], reason="it broke")
    await stripe_shop.tell_all()
    assert (under_way["status"], await standing(shop)) == ("processing", ("active", "active", 0))
    await books_equal(stripe_shop)
    (name,) = peer.objects()["refunds"]
    peer.control(f"refunds/{name}/settle", paid=True)
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert await standing(shop) == ("revoked", "revoked", 1_500)


async def test_a_refund_that_fails_at_the_bank(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    opened = await shop.checkout(sold, rail="stripe-test")
    stripe_shop.pay(opened, card="4000000000007726")
    await stripe_shop.tell_all()
    await give_back(shop, order_id=(await shop.row("orders"))["id"], reason="it broke")
    (name,) = peer.objects()["refunds"]
    peer.control(f"refunds/{name}/settle", paid=False)
    await stripe_shop.tell_all()
    refund = await shop.row("refunds")
    assert (refund["status"], refund["error"]) == ("failed", "expired_or_canceled_card")
    assert await standing(shop) == ("active", "active", 0)
    assert (await shop.row("payments"))["refund_reserved"] == 0


@pytest.mark.parametrize("kind", ["once", "subscription"])
async def test_refunds_made_at_stripe(stripe_shop: StripeShop, kind: str) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    if kind == "once":
        await stripe_shop.sell()
    else:
        await stripe_shop.subscribe(await shop.tier("editor", amount=1_500, license={"max_machines": 2}, **MONTHLY))
    client, name = peer.official(), await intent(stripe_shop)
    client.refunds.create({"payment_intent": name, "amount": 500})
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert await standing(shop) == ("active", "active", 500)
    stripe_shop.move_on(timedelta(minutes=1))
    client.refunds.create({"payment_intent": name})
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert await standing(shop) == ("revoked", "revoked", 1_500)
    assert (await shop.row("orders"))["refunded"] == 1_500


async def test_refunds_made_here_and_at_stripe_add_up(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    await stripe_shop.sell()
    peer.official().refunds.create({"payment_intent": await intent(stripe_shop), "amount": 1_000})
    # We have not heard of it, and ask for more than is left there: Stripe says no.
    refused = await give_back(shop, order_id=(await shop.row("orders"))["id"], amount=600, reason="it broke")
    assert refused["status"] == "failed"
    await stripe_shop.tell_all()
    done = await give_back(shop, order_id=(await shop.row("orders"))["id"], amount=500, reason="it broke")
    assert done["status"] == "processed"
    await stripe_shop.tell_all()
    assert (await standing(shop))[2] == 1_500
    assert len(peer.objects()["refunds"]) == 2


@pytest.mark.parametrize("won", [True, False], ids=["won", "lost"])
@pytest.mark.parametrize("kind", ["once", "subscription"])
async def test_a_dispute(stripe_shop: StripeShop, kind: str, won: bool) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    if kind == "once":
        await stripe_shop.sell()
    else:
        await stripe_shop.subscribe(await shop.tier("editor", amount=1_500, license={"max_machines": 2}, **MONTHLY))
    stripe_shop.move_on(timedelta(days=1))
    dispute = peer.control(f"payments/{await intent(stripe_shop)}/dispute")
    await stripe_shop.tell_all()
    assert await standing(shop) == ("suspended", "suspended", 0)
    case = await shop.row("disputes")
    assert (case["status"], case["amount"], case["reason"]) == ("needs_response", 1_500, "fraudulent")
    stripe_shop.move_on(timedelta(days=1))
    peer.control(f"disputes/{dispute['id']}/close", won=won)
    await stripe_shop.tell_all()
    assert (await shop.row("disputes"))["status"] == ("won" if won else "lost")
    assert await standing(shop) == (("active", "active", 0) if won else ("revoked", "revoked", 1_500))
    assert [row["kind"] for row in await shop.rows("refunds")] == ([] if won else ["chargeback"])
    assert await shop.count("inbox", status="set_aside") == 0


async def test_a_dispute_of_a_later_bill(stripe_shop: StripeShop) -> None:
    """What the subscription gave is held, whatever its first bill says; and a pause ended meanwhile frees nothing."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    row, reference = await stripe_shop.subscribe()
    await stripe_shop.end_period(reference)
    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "pause")
    dispute = peer.control(f"payments/{await intent(stripe_shop)}/dispute")
    await stripe_shop.tell_all()
    stripe_shop.move_on(timedelta(days=1))
    await stripe_shop.change(row["id"], "resume")
    assert await standing(shop) == ("suspended", "suspended", 0)
    peer.control(f"disputes/{dispute['id']}/close", won=False)
    await stripe_shop.tell_all()
    assert await standing(shop) == ("revoked", "revoked", 900)
    assert sorted(one["status"] for one in await shop.rows("subscription_periods")) == ["paid", "refunded"]


async def test_the_first_bill_given_back_after_a_later_one(stripe_shop: StripeShop) -> None:
    """The later one still pays for the license."""
    shop = stripe_shop.shop
    _row, reference = await stripe_shop.subscribe()
    await stripe_shop.end_period(reference)
    first, second = sorted(await shop.rows("subscription_periods"), key=lambda one: one["period_start"])
    await give_back(shop, order_id=first["order_id"], reason="a slow start")
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert (await shop.row("licenses"))["status"] == (await shop.row("grants"))["status"] == "active"
    assert (await shop.row("licenses"))["expires_at"] == second["period_end"]
    await give_back(shop, order_id=second["order_id"], reason="a slow end")
    await stripe_shop.tell_all()
    await books_equal(stripe_shop)
    assert (await shop.row("licenses"))["status"] == (await shop.row("grants"))["status"] == "revoked"


async def test_a_disputes_news_in_any_order(stripe_shop: StripeShop) -> None:
    """With the purchase's own, and a refund before it: whatever comes first, it ends alike."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    ends: list[Any] = []
    for order in itertools.permutations(range(4)):
        opened = await shop.checkout(sold, rail="stripe-test")
        stripe_shop.pay(opened)
        stripe_shop.move_on(timedelta(seconds=2))
        name = await intent(stripe_shop)
        peer.official().refunds.create({"payment_intent": name, "amount": 500})
        stripe_shop.move_on(timedelta(seconds=2))
        dispute = peer.control(f"payments/{name}/dispute")
        stripe_shop.move_on(timedelta(seconds=2))
        peer.control(f"disputes/{dispute['id']}/close", won=False)
        wanted = ("payment_intent.succeeded", "refund.created", "charge.dispute.created", "charge.dispute.closed")
        by_type = {event["type"]: event for event in stripe_shop.news()}
        for disputed in wanted[2:]:  # the stand-in's are about the whole payment, Stripe's about what is left of it
            by_type[disputed]["data"]["object"]["amount"] = 1_000
        for place in order:
            await stripe_shop.tell(by_type[wanted[place]])
            await stripe_shop.ask()
        for _ in range(2):  # what came too early has another turn
            stripe_shop.move_on(timedelta(minutes=6))
            await stripe_shop.ask()
        (payment,) = await shop.rows("payments", checkout_id=opened["id"])
        (bought,) = await shop.rows("orders", checkout_id=opened["id"])
        (license_,) = await shop.rows("licenses", order_id=bought["id"])
        (case,) = await shop.rows("disputes", order_id=bought["id"])
        refunds = sorted((row["kind"], row["amount"]) for row in await shop.rows("refunds", payment_id=payment["id"]))
        ends.append((payment["refunded"], bought["refunded"], license_["status"], case["status"], refunds))
    assert ends == [ends[0]] * len(ends)
    assert ends[0] == (1_500, 1_500, "revoked", "lost", [("chargeback", 1_000), ("refund", 500)])
    assert await shop.count("inbox", status="set_aside") == 0
