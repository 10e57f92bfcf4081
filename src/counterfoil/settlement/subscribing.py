"""Subscriptions as their rails know them: what begins them, and what rails tell of them later.

A rail's facts repeat and come in any order. Each says what was so at a moment by the rail's clock; of two, the later
one is true, and of two of the same moment the one that ranks higher, so that every order of them ends alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from counterfoil.catalog.types import Price
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.rails.facts import ItemFact, SubscriptionFact
from counterfoil.sales import checkouts, quotes
from counterfoil.sales.types import CartLine, Checkout
from counterfoil.settlement import entitling, links
from counterfoil.subscriptions import calendar, subscriptions
from counterfoil.subscriptions.types import Subscription, SubscriptionItem

_RANK: Final = ("incomplete", "trialing", "active", "past_due", "unpaid", "paused", "canceled")
"""Of two words of the same second the one that usually comes later."""

Outcome = Literal["applied", "stale", "unmatched"]


def begin(tx: Tx, checkout: Checkout, lines: Sequence[CartLine], *, paid: bool) -> Subscription | None:
    """The subscription of a locked checkout, made when it is first spoken of; None where nothing is paid again.

    ``paid``: its first bill is, so that it runs until the rail says more.
    """
    again = [(line, line.recurring) for line in lines if line.recurring is not None]
    if not again:
        return None
    known = subscriptions.of_checkout(tx, checkout.id)
    rhythm = again[0][1]
    trial_end = tx.now + timedelta(days=rhythm["trial_days"]) if rhythm["trial_days"] else None
    first_end = trial_end or calendar.after(tx.now, rhythm["interval"], rhythm["interval_count"])
    if known is not None:
        known = subscriptions.lock(tx, known.id)
        return known if not paid or known.paid_until else subscriptions.write(tx, known, paid_until=first_end)
    subscription_id = tx.new_id("sub")
    new = Subscription(
        id=subscription_id,
        customer_id=checkout.customer_id,
        user_id=None,
        address_id=None,
        business_id=None,
        vault_l0=None,
        wallet=None,
        checkout_id=checkout.id,
        email=checkout.email,
        rail=checkout.rail,
        customer_reference=None,
        status=("trialing" if trial_end else "active") if paid else "incomplete",
        asset=checkout.asset,
        collection_mode="automatic",
        billing_interval=rhythm["interval"],
        interval_count=rhythm["interval_count"],
        anchor_at=None,
        current_period_start=None,
        current_period_end=None,
        paid_until=first_end if paid else None,
        trial_end=None,
        started_at=None,
        first_billed_at=None,
        next_billed_at=None,
        paused_at=None,
        canceled_at=None,
        ends_at=None,
        cancel_at_period_end=False,
        scheduled_change=None,
        discount_id=discount_of([line for line, _ in again]),
        billing_details=None,
        heard_at=None,
        heard=None,
        checked_at=tx.now,
        metadata={},
        created_at=tx.now,
        updated_at=tx.now,
    )
    items = [
        _item(tx, subscription_id, line.product_id, line.price_id, line.quantity, recurring=True) for line, _ in again
    ]
    subscriptions.create(tx, new, items)
    return new


def discount_of(lines: Sequence[CartLine]) -> str | None:
    """The discount of what is paid again."""
    found = {note["discount_id"] for line in lines for note in line.discounts}
    return min(found) if found else None


def _item(
    tx: Tx, subscription_id: str, product_id: str, price_id: str, quantity: int, *, recurring: bool
) -> SubscriptionItem:
    return SubscriptionItem(
        id=tx.new_id("sbi"),
        subscription_id=subscription_id,
        product_id=product_id,
        price_id=price_id,
        quantity=quantity,
        status="active",
        recurring=recurring,
        reference=None,
        trial_starts_at=None,
        trial_ends_at=None,
        previously_billed_at=None,
        next_billed_at=None,
        price_snapshot=None,
        product_snapshot=None,
        created_at=tx.now,
        updated_at=tx.now,
    )


def find(tx: Tx, rail: str, reference: str, checkout_id: str | None) -> Subscription | None:
    """The subscription that a rail speaks of, locked: by the rail's name for it, else by the checkout it came of.

    The rail's name is noted. None when it is none of ours.
    """
    known = links.find(tx, rail, "subscription", reference)
    if known is not None:
        return subscriptions.lock(tx, known.object_id)
    found = checkouts.lock(tx, checkout_id) if checkout_id is not None else None
    if found is None or found.checkout.rail != rail:
        return None
    begun = begin(tx, found.checkout, found.lines, paid=False)
    if begun is None:
        return None
    known = links.get(tx, rail, "subscription", begun.id)
    if known is not None and known.reference != reference:
        return None  # its checkout began another one: somebody copied our words
    links.link(tx, rail, "subscription", begun.id, reference, synced_at=tx.now)
    return begun


def apply(tx: Tx, rail: str, fact: SubscriptionFact, *, event_id: str = "") -> Outcome:
    """Take what a rail says of a subscription into the books.

    Raises Conflict (``price_unknown``) when it is for a price that is none of ours.
    """
    found = find(tx, rail, fact.reference, fact.checkout_id)
    if found is None:
        return "unmatched"
    heard = _heard(fact)
    # Of two different words of one moment nobody can tell which came later: the rail is asked, beside the guess.
    check = subscriptions.mark_checked
    if found.heard_at == fact.occurred_at and found.heard != heard:
        check = subscriptions.mark_in_doubt
    if found.heard_at is not None and (found.heard_at, found.heard or "") >= (fact.occurred_at, heard):
        check(tx, found.id)
        return "stale"
    wanted = _items(tx, rail, found, fact)
    new = subscriptions.write(tx, found, **_values(tx, rail, fact), heard_at=fact.occurred_at, heard=heard)
    check(tx, found.id)
    if subscriptions.set_items(tx, new, wanted):
        entitling.replan(tx, new, wanted)
    known = links.find(tx, rail, "subscription", fact.reference)
    assert known is not None
    links.hear(tx, known, at=fact.occurred_at, event_id=event_id, raw=fact.raw)
    entitling.entitle(tx, new)
    return "applied"


def _heard(fact: SubscriptionFact) -> str:
    said = msgspec.json.encode(msgspec.structs.replace(fact, raw={}), order="deterministic")
    return f"{_RANK.index(fact.status)}:{hashlib.sha256(said).hexdigest()[:16]}"


def _values(tx: Tx, rail: str, fact: SubscriptionFact) -> dict[str, Any]:
    change = fact.scheduled_change
    values: dict[str, Any] = {
        "status": fact.status,
        "asset": fact.asset,
        "collection_mode": fact.collection_mode,
        "started_at": fact.started_at,
        "trial_end": fact.trial_end,
        "next_billed_at": fact.next_billed_at,
        "paused_at": fact.paused_at,
        "canceled_at": fact.canceled_at,
        "ends_at": fact.ends_at,
        "cancel_at_period_end": change is not None and change.action == "cancel",
        "scheduled_change": None if change is None else msgspec.to_builtins(change),
        "billing_details": fact.billing_details,
        "customer_reference": fact.customer_reference,
        # While it stands still it has none, whatever it had before.
        "current_period_start": fact.period_start,
        "current_period_end": fact.period_end,
    }
    known = {
        "billing_interval": fact.billing_interval,
        "interval_count": fact.interval_count,
        "first_billed_at": fact.first_billed_at,
        "anchor_at": fact.started_at,
    }
    for column, kind, reference in (
        ("customer_id", "customer", fact.customer_reference),
        ("address_id", "address", fact.address_reference),
        ("business_id", "business", fact.business_reference),
    ):
        link = links.find(tx, rail, kind, reference) if reference is not None else None  # type: ignore[arg-type]
        known[column] = link.object_id if link else None  # type: ignore[assignment]
    if not isinstance(fact.discount_reference, msgspec.UnsetType):
        # A discount that somebody made at the rail is none of ours: what it takes off counts for none in our books, and
        # least of all for the one that was there before it.
        values["discount_id"] = discount_named(tx, rail, fact.discount_reference)
    return values | {name: value for name, value in known.items() if value is not None}


def discount_named(tx: Tx, rail: str, reference: str | None) -> str | None:
    """Our discount that a rail calls so; None when it is none of ours."""
    link = links.find(tx, rail, "discount", reference) if reference is not None else None
    return link.object_id if link else None


def _items(tx: Tx, rail: str, subscription: Subscription, fact: SubscriptionFact) -> list[SubscriptionItem]:
    ours = links.objects(tx, rail, "price", [item.price_reference for item in fact.items])
    prices = _prices(tx, [ours.get(item.price_reference) or item.price_id for item in fact.items])
    merged: dict[str, SubscriptionItem] = {}
    for item in fact.items:
        price = prices.get(ours.get(item.price_reference) or item.price_id or "")
        if price is None:
            raise Conflict(
                f"The subscription {fact.reference} is for {item.price_reference}, which is none of our prices; "
                f"import {rail}'s prices, and replay this.",
                code="price_unknown",
            )
        merged[price.id] = _told(tx, subscription, price, item, merged.get(price.id))
    return list(merged.values())


def _prices(tx: Tx, price_ids: Sequence[str | None]) -> dict[str, Price]:
    offers = quotes.offers_of(tx, [price_id for price_id in price_ids if price_id is not None])
    return {price_id: offer.price for price_id, offer in offers.items()}


def _told(
    tx: Tx, subscription: Subscription, price: Price, item: ItemFact, same: SubscriptionItem | None
) -> SubscriptionItem:
    return SubscriptionItem(
        id=tx.new_id("sbi"),
        subscription_id=subscription.id,
        product_id=price.product_id,
        price_id=price.id,
        quantity=item.quantity + (same.quantity if same else 0),
        status=item.status,
        recurring=item.recurring,
        reference=item.reference,
        trial_starts_at=item.trial_starts_at,
        trial_ends_at=item.trial_ends_at,
        previously_billed_at=item.previously_billed_at,
        next_billed_at=item.next_billed_at,
        price_snapshot=item.price_snapshot,
        product_snapshot=item.product_snapshot,
        created_at=tx.now,
        updated_at=tx.now,
    )
