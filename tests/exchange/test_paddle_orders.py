"""Paddle's news comes in any order, and twice: every order of it ends in the same state."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.peers.paddle_world import Row, stamp
from tests.support.app import Shop, Sold, named
from tests.support.databases import Dialect
from tests.support.paddle_shop import EMAIL, MONTHLY, RAIL, PaddleShop, differing, transaction_of

ONCE = ("transaction.created", "transaction.updated", "transaction.ready", "transaction.paid", "transaction.completed")
AGAIN = (
    "transaction.ready",
    "transaction.paid",
    "subscription.created",
    "subscription.activated",
    "transaction.completed",
)
TRIED = (
    "transaction.ready",
    "transaction.paid",
    "subscription.created",
    "subscription.trialing",
    "transaction.completed",
)


def orders_of(types: Sequence[str], dialect: Dialect) -> list[tuple[int, ...]]:
    """Every order of so many events on SQLite; a sample of them on PostgreSQL, where each takes longer, and of a
    trial's, which differ little from those without.
    """
    every = list(itertools.permutations(range(len(types))))
    return every if dialect == "sqlite" and types is not TRIED else random.Random(5).sample(every, 20)


class Purchase:
    """What Paddle told of one purchase, to be told of others: so nothing differs between them but names."""

    def __init__(self, opened: dict[str, Any], events: list[Row]) -> None:
        self.sale = transaction_of(opened)
        self.names = {opened["id"], *(one["event_id"] for one in events), *(one["data"]["id"] for one in events)}
        self.text = json.dumps(events)

    def of(self, opened: dict[str, Any], number: int) -> tuple[list[Row], dict[str, str]]:
        """Its events, as if they were of another checkout; and names for what differs."""
        text, known = self.text, {}
        for place, name in enumerate(sorted(self.names)):
            new = name[:4] + f"{number:013d}{place:013d}"
            if name.startswith("chk_"):
                new = opened["id"]
            if name == self.sale:
                new = transaction_of(opened)
            text, known[new] = text.replace(name, new), name
        return json.loads(text), known


async def bought(paddle: PaddleShop, sold: Sold, types: Sequence[str]) -> Purchase:
    """A checkout that was paid, and what Paddle tells of it."""
    opened = await paddle.shop.checkout(sold, rail=RAIL, email=EMAIL)
    paddle.pay(opened)
    events = {event["event_type"]: event for event in paddle.news()}
    return Purchase(opened, [events[one] for one in types])


async def story(shop: Shop, opened: dict[str, Any], known: dict[str, str]) -> Any:
    """All that is written of a checkout, without what differs from one to the next."""
    found: dict[str, list[dict[str, Any]]] = {"checkouts": await shop.rows("checkouts", id=opened["id"])}
    for table in ("orders", "payments", "invoices", "subscriptions"):
        found[table] = await shop.rows(table, checkout_id=opened["id"])
    for one in found["orders"]:
        for table in ("grants", "licenses", "order_discounts"):
            found.setdefault(table, []).extend(await shop.rows(table, order_id=one["id"]))
    for one in found["subscriptions"]:
        one["heard"] = one["heard"].partition(":")[0]  # the rest is a digest of names, too
        for table in ("subscription_items", "subscription_periods"):
            found[table] = await shop.rows(table, subscription_id=one["id"])
        found["rail_links"] = await shop.rows("rail_links", kind="subscription", object_id=one["id"])
        found["invoices"] = await shop.rows("invoices", subscription_id=one["id"])
        for order in await shop.rows("orders", subscription_id=one["id"], checkout_id=None):
            found["orders"].append(order)
            found["payments"] += await shop.rows("payments", reference=order["purchase_reference"])
    text = json.dumps(found, default=str)
    for name, first in known.items():
        text = text.replace(name, first)
    told = json.loads(text)
    for table, name in (("orders", "purchase_reference"), ("payments", "reference"), ("invoices", "reference")):
        told[table].sort(key=lambda row, name=name: str(row[name]))
    return named(told)


@pytest.mark.parametrize(
    ("types", "price"),
    [
        pytest.param(ONCE, {"asset": "EUR"}, id="sold once"),
        pytest.param(AGAIN, MONTHLY, id="a subscription"),
        pytest.param(TRIED, {**MONTHLY, "trial_days": 14}, id="a trial"),
    ],
)
async def test_every_order_of_a_purchase_ends_alike(
    paddle_shop: PaddleShop, dialect: Dialect, types: tuple[str, ...], price: dict[str, Any]
) -> None:
    sold = await paddle_shop.shop.tier("editor", amount=900, license={"max_machines": 2}, **price)
    await paddle_shop.reference(sold)
    purchase = await bought(paddle_shop, sold, types)
    expected = None
    chance = random.Random(7)
    for number, order in enumerate(orders_of(types, dialect)):
        opened = await paddle_shop.shop.checkout(sold, rail=RAIL, email=EMAIL)
        events, known = purchase.of(opened, number)
        for place, one in enumerate(order):
            await paddle_shop.tell(events[one])
            await paddle_shop.tell(events[order[chance.randint(0, place)]])  # and one of those before, once more
        told = await story(paddle_shop.shop, opened, known)
        expected = expected or told
        if differs := differing(told, expected):
            pytest.fail("\n".join([*differs, *(types[one] for one in order)]))
    assert await paddle_shop.shop.count("inbox", status="set_aside") == 0


async def test_every_order_of_a_life_ends_alike(paddle_shop: PaddleShop, dialect: Dialect) -> None:
    """A subscription is bought, renews, falls behind, recovers, pauses, resumes and ends: some orders of very many."""
    shop, peer = paddle_shop.shop, paddle_shop.peer
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    opened = await shop.checkout(sold, rail=RAIL, email=EMAIL)
    paddle_shop.pay(opened)
    reference = next(event["data"]["id"] for event in peer.events("subscription.created"))
    start = shop.clock.now()
    peer.subscription(reference, "due")
    peer.subscription(reference, "due", declined=True)
    peer.subscription(reference, "recover")
    peer.api("POST", f"/subscriptions/{reference}/pause", {"effective_from": "immediately"})
    peer.api("POST", f"/subscriptions/{reference}/resume", {"effective_from": "immediately"})
    peer.api("POST", f"/subscriptions/{reference}/cancel")
    peer.subscription(reference, "due")
    kinds = ("transaction.", "subscription.")
    every = [event for event in paddle_shop.news() if event["event_type"].startswith(kinds)]
    purchase = Purchase(opened, every)
    end = shop.clock.now()
    expected = None
    chance = random.Random(11)
    for number in range(25 if dialect == "sqlite" else 8):
        peer.control("clock", set=stamp(start), freeze=True)
        shop.clock.advance(start - shop.clock.now())
        again = await shop.checkout(sold, rail=RAIL, email=EMAIL)
        events, known = purchase.of(again, number)
        shop.clock.advance(end - start)
        if number:
            chance.shuffle(events)
        for event in events:
            await paddle_shop.tell(event)
            await paddle_shop.tell(chance.choice(events))
        told = await story(shop, again, known)
        expected = expected or told
        if differs := differing(told, expected):
            pytest.fail("\n".join([*differs, *(event["event_type"] for event in events)]))
    assert expected is not None
    assert [row["status"] for row in expected["subscriptions"]] == ["canceled"]
    assert [len(expected[table]) for table in ("orders", "payments", "invoices", "subscription_periods")] == [4] * 4
    assert await shop.count("inbox", status="set_aside") == 0
