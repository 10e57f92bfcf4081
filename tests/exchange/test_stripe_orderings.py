"""A purchase's events on Stripe, in every order and with duplicates: the books end alike."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.app import Sold
from tests.support.databases import Dialect
from tests.support.stripe_shop import EMAIL, MONTHLY, RAIL, StripeShop, books_equal, session_of
from tests.support.stripe_story import assert_same, shift, story

from counterfoil.rails.stripe.webhooks import TYPES

pytestmark = pytest.mark.xdist_group("stripe-peers")

Event = dict[str, Any]

REFUNDED_LATER = "4000000000007726"
"""A card to which money goes back after a while."""
_STRIPES = re.compile(r"\b(?:evt|in|sub|si|il|pi|ch)_[A-Za-z0-9]+")
"""Stripe's names for what belongs to one purchase."""
SAID_TWICE = {"charge.refunded", "charge.refund.updated"}
"""What says no more than ``refund.updated`` does."""


async def told(stripe: StripeShop, sold: Sold, **buyer: Any) -> tuple[dict[str, Any], list[Event]]:
    """A new checkout, and the events of its purchase that mean something, not told yet."""
    opened = await stripe.shop.checkout(sold, rail=RAIL, email=EMAIL)
    stripe.news()
    stripe.pay(opened, **buyer)
    return opened, [event for event in stripe.news() if event["type"] in TYPES]


def renamed(events: list[Event], bought: dict[str, Any], opened: dict[str, Any], mark: str) -> list[Event]:
    """The events of another purchase, of ``opened``."""
    text = json.dumps(events).replace(bought["id"], opened["id"]).replace(session_of(bought), session_of(opened))
    text = _STRIPES.sub(lambda found: found[0] + mark, text)
    return json.loads(text)  # type: ignore[no-any-return]


def orders_of(count: int, dialect: Dialect) -> list[tuple[int, ...]]:
    """Every order on SQLite; on PostgreSQL, where each takes longer, the straight one and some others."""
    every = list(itertools.permutations(range(count)))
    return every if dialect == "sqlite" else [every[0], *random.Random(5).sample(every[1:], min(19, len(every) - 1))]


async def _tell(stripe: StripeShop, events: Sequence[Event], order: Sequence[int], chance: random.Random) -> None:
    """Deliver them in that order, some of them again right after and some once more at the end."""
    again = [place for place in order if chance.random() < 0.3]
    for place in order:
        await stripe.tell(events[place])
        if chance.random() < 0.3:
            await stripe.tell(events[place])
    for place in again:
        await stripe.tell(events[place])


async def test_a_payment_that_took_its_time_and_was_refunded_in_part(stripe_shop: StripeShop, dialect: Dialect) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=1_500, asset="EUR", license={"max_machines": 2})
    chance, first, count = random.Random(1), None, 5
    for order in orders_of(count, dialect):
        opened, events = await told(stripe_shop, sold, later=True, card=REFUNDED_LATER)
        session = events[-1]["data"]["object"]["id"]
        stripe_shop.move_on(timedelta(seconds=2))
        peer.control(f"sessions/{session}/settle", paid=True)
        stripe_shop.move_on(timedelta(seconds=2))
        paid = stripe_shop.news()
        intent = next(each["data"]["object"]["id"] for each in paid if each["type"] == "payment_intent.succeeded")
        refund = peer.official().refunds.create({"payment_intent": intent, "amount": 500})
        stripe_shop.move_on(timedelta(seconds=2))
        peer.control(f"refunds/{refund.id}/settle", paid=True)
        events += [event for event in (*paid, *stripe_shop.news()) if event["type"] in TYPES - SAID_TWICE]
        assert len(events) == count, [event["type"] for event in events]
        await _tell(stripe_shop, events, order, chance)
        await stripe_shop.ask()
        stripe_shop.move_on(timedelta(minutes=1))
        await stripe_shop.ask()
        ended = shift(await story(stripe_shop, opened, events))
        if first is None:
            first = ended
            (payment,) = ended["payments"]
            assert (payment["status"], payment["amount"], payment["refunded"]) == ("settled", 1_500, 500)
            assert [row["status"] for row in ended["licenses"]] == ["active"]
        assert_same(ended, first, order)
    assert await shop.count("inbox", status="set_aside") == await shop.count("inbox", status="waiting") == 0


async def test_the_first_purchase_of_a_subscription(stripe_shop: StripeShop, dialect: Dialect) -> None:
    shop = stripe_shop.shop
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    chance, first, count = random.Random(1), None, 5
    bought, originals = await told(stripe_shop, sold)
    originals = [event for event in originals if event["type"] not in {"customer.created", "payment_intent.succeeded"}]
    assert len(originals) == count, [event["type"] for event in originals]
    for number, order in enumerate(orders_of(count, dialect)):
        # Stripe's own events of one purchase; of further ones the same under other names, which is quicker.
        opened = await shop.checkout(sold, rail=RAIL, email=EMAIL) if number else bought
        events = renamed(originals, bought, opened, f"x{number}") if number else originals
        await _tell(stripe_shop, events, order, chance)
        await stripe_shop.ask()
        ended = shift(await story(stripe_shop, opened, events))
        if first is None:
            first = ended
            (subscription,) = ended["subscriptions"]
            assert subscription["status"] == "active"
            (period,) = ended["subscription_periods"]
            (license_,) = ended["licenses"]
            assert license_["expires_at"] == period["period_end"] == subscription["paid_until"]
        assert_same(ended, first, order)
    assert await shop.count("inbox", status="set_aside") == await shop.count("inbox", status="waiting") == 0


@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_purchase_and_its_renewal_at_once(stripe_shop: StripeShop) -> None:
    """Webhooks that were held up for a week arrive in any order: some of the orders, straight on first."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **{**MONTHLY, "interval": "week"})
    chance, first = random.Random(3), None
    stripe_shop.move_to(shop.clock.now().replace(microsecond=0) + timedelta(seconds=1))
    for attempt in range(16):
        opened, events = await told(stripe_shop, sold)
        events = [event for event in events if event["type"] not in {"customer.created", "payment_intent.succeeded"}]
        name = peer.objects()["subscriptions"][-1]
        (item,) = peer.look(f"subscriptions/{name}")["items"]["data"]
        stripe_shop.move_to(datetime.fromtimestamp(item["current_period_end"], UTC))
        peer.control(f"subscriptions/{name}/cycle")
        events += [event for event in stripe_shop.news() if event["type"] in TYPES - {"payment_intent.succeeded"}]
        order = list(range(len(events)))
        if attempt:
            chance.shuffle(order)
        await _tell(stripe_shop, events, order, chance)
        await stripe_shop.ask()
        ended = shift(await story(stripe_shop, opened, events))
        first = first or ended
        assert_same(ended, first, [events[place]["type"] for place in order])
    assert first is not None
    assert [one["amount"] for one in first["subscription_periods"]] == [900, 900]
    assert first["licenses"][0]["expires_at"] == first["subscriptions"][0]["paid_until"]
    assert first["subscriptions"][0]["current_period_end"] == first["subscriptions"][0]["paid_until"]
    await books_equal(stripe_shop)
