"""Changing a subscription: checked against what we know of it, then owed to its rail, which makes the change.

Our row is changed by the rail's answer alone: what a customer pays from then on is for the rail to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from counterfoil.accounts import users
from counterfoil.catalog import discounts
from counterfoil.catalog.discount_rules import moment
from counterfoil.catalog.types import Discount
from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.text import check_line
from counterfoil.rails.mirror import Proration, SubscriptionChange
from counterfoil.sales import quotes
from counterfoil.sales.quotes import MAX_LINES, Offer
from counterfoil.settlement.carrying import Carried
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.types import Subscription

_LONGEST_VAULT: Final = 255
_ENDS: Final = frozenset({"pause", "cancel"})
"""What is scheduled to end the paid time, and can be taken back."""
_UNUSABLE: Final = {
    "discount_inactive": "is not in use",
    "discount_expired": "has expired",
    "discount_wrong_rail": "is for other rails",
}


class WantedItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price of ours that a subscription is to be for, and how many."""

    price_id: str
    quantity: int = 1


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a subscription."""

    action: Literal["pause", "resume", "cancel", "keep", "change", "discount"]
    """``keep`` takes back what is scheduled; ``change`` is of the items."""
    at_period_end: bool = True
    """Whether a pause or an end waits for the end of the paid period."""
    resume_at: datetime | None = None
    """When a pause is over; None = when somebody resumes it."""
    items: Sequence[WantedItem] = ()
    """For ``change``: everything that it is for from then on."""
    proration: Proration = "now"
    """What a change of the items costs for the rest of the period. In a trial, which costs nothing, it is nothing."""
    discount_id: str | None = None
    """For ``discount``: what it carries from the next bill on; None = nothing."""


class OwedChange(SubscriptionChange, frozen=True, kw_only=True):
    """What :mod:`counterfoil.exchange.outbox` keeps of a change until its rail has made it."""

    prices: tuple[tuple[str, int], ...] = ()
    """Our prices and their quantities; the rail's names for them are looked up when it is sent."""
    discount_id: str | None = None
    """Our discount, or ``""`` for none; None = the discount stays as it is. Its name is looked up as prices' are."""


class SubscriptionUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What we note about a subscription and no rail has a say in; what is left out stays."""

    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    vault_l0: str | msgspec.UnsetType | None = msgspec.UNSET
    """The vault that it pays for."""
    user_id: str | msgspec.UnsetType | None = msgspec.UNSET
    """Whose it is."""


def request(tx: Tx, subscription_id: str, change: Change, *, customer_id: str | None = None) -> Subscription:
    """Owe a subscription's rail a change; the subscription as it is until the rail has made it.

    ``customer_id``: whose it has to be. Changes are made one at a time. Raises Invalid; NotFound
    (``subscription_not_found``, ``price_not_found``, ``discount_not_found``); Conflict (``rail_keeps_no_copies``,
    ``subscription_canceled``, ``subscription_incomplete``, ``subscription_paused``, ``subscription_not_paused``,
    ``change_scheduled``, ``nothing_scheduled``, ``nothing_to_change``, ``margin_applies``, ``change_in_progress``).
    """
    found = subscriptions.lock(tx, subscription_id)
    if customer_id is not None and found.customer_id != customer_id:
        raise NotFound("There is no such subscription.", code="subscription_not_found")
    if found.rail not in outbox.MIRRORED:
        raise Conflict(f"{found.rail} cannot be asked to change a subscription.", code="rail_keeps_no_copies")
    _check_state(found, change)
    resume_at = moment("resume_at", change.resume_at)
    if resume_at is not None and resume_at <= tx.now:
        raise Invalid.field("resume_at", "must be in the future")
    change = msgspec.structs.replace(change, resume_at=resume_at)
    prices = _prices(tx, found, change.items) if change.action == "change" else ()
    if change.action == "discount":
        _check_discount(tx, found, change.discount_id)
    waiting = outbox.open_change(tx, found.id)
    # What follows a margin may be one of many, and wait for long: it is owed again once this is made.
    if waiting is not None and not outbox.give_way(tx, waiting):
        detail = f"{found.rail} has yet to make the {waiting.action} that was asked for before; it comes first."
        raise Conflict(detail, code="change_in_progress")
    if found.status == "trialing":  # Paddle refuses anything else (subscription_trialing_items_update_invalid_options)
        change = msgspec.structs.replace(change, proration="none")
    _owe(tx, found, change, prices)
    return found


def follow_margin(tx: Tx, found: Subscription, discount_id: str | None) -> None:
    """Owe a locked subscription's rail the discount that it should carry. What somebody asks for goes before it."""
    _owe(tx, found, Change(action="discount", discount_id=discount_id), waits=True)


def _owe(
    tx: Tx, found: Subscription, change: Change, prices: tuple[tuple[str, int], ...] = (), *, waits: bool = False
) -> None:
    owed = OwedChange(
        action="change" if change.action == "discount" else change.action,
        at_period_end=change.at_period_end,
        resume_at=change.resume_at,
        proration=change.proration,
        prices=prices,
        discount_id=(change.discount_id or "") if change.action == "discount" else None,
    )
    outbox.owe_change(tx, found.rail, found.id, change.action, msgspec.to_builtins(owed), waits=waits)
    tx.record(
        outbox.CHANGE_REQUESTED,
        "subscription",
        found.id,
        customer_id=found.customer_id,
        action=change.action,
        **_told(change),
    )


def _told(change: Change) -> dict[str, Any]:
    """What the record says of a change, beside what it is."""
    match change.action:
        case "pause":
            return {"at_period_end": change.at_period_end, "resume_at": msgspec.to_builtins(change.resume_at)}
        case "cancel":
            return {"at_period_end": change.at_period_end}
        case "discount":
            return {"discount_id": change.discount_id}
        case "change":
            return {"items": msgspec.to_builtins(change.items), "proration": change.proration}
        case _:
            return {}


def _check_state(found: Subscription, change: Change) -> None:
    """Refuse at once what no rail would do."""
    if found.status == "canceled":
        raise Conflict("This subscription is canceled, for good.", code="subscription_canceled")
    if found.status == "incomplete" and change.action != "cancel":
        raise Conflict("The first bill of this subscription is not paid.", code="subscription_incomplete")
    if change.action == "resume":
        if found.status != "paused":
            raise Conflict("This subscription is not paused.", code="subscription_not_paused")
    elif found.status == "paused" and change.action in {"pause", "change"}:
        raise Conflict("This subscription is paused; resume it first.", code="subscription_paused")
    _check_scheduled(found, change)


def _check_scheduled(found: Subscription, change: Change) -> None:
    """Nothing is scheduled twice, and only what is scheduled can be taken back."""
    scheduled = (found.scheduled_change or {}).get("action")
    if change.action == "keep":
        if scheduled not in _ENDS:
            raise Conflict("Nothing is scheduled that could be taken back.", code="nothing_scheduled")
    elif scheduled in _ENDS and (change.action == "pause" or (change.action == "cancel" and change.at_period_end)):
        what = "an end" if scheduled == "cancel" else "a pause"
        raise Conflict(f"This subscription waits for {what} already; take that back first.", code="change_scheduled")


def _check_discount(tx: Tx, found: Subscription, discount_id: str | None) -> None:
    """A discount that can be used, is for what the subscription is for, and would stay there."""
    if discount_id == found.discount_id:
        words = "carries no discount" if discount_id is None else "carries this discount"
        raise Conflict(f"The subscription {words} already.", code="nothing_to_change")
    carried = Carried(tx, [found])
    given = None
    if discount_id is not None:
        given = discounts.get(tx, discount_id)
        _check_usable(tx, found, carried, given)
    if carried.kept(found, given) != discount_id:
        raise Conflict("The margin of its customer takes off as much or more, and stays.", code="margin_applies")


def _check_usable(tx: Tx, found: Subscription, carried: Carried, given: Discount) -> None:
    """Given by hand, a discount's uses are neither counted nor limited."""
    unlimited = msgspec.structs.replace(given, usage_limit=None, per_customer_limit=None)
    try:
        discounts.check_usable(tx, unlimited, rail=found.rail, buyer=None)
    except Invalid as error:
        raise Invalid.field("discount_id", _UNUSABLE.get(error.code, error.detail), code=error.code) from error
    if given.customer_id is not None and carried.kept(found, given) != given.id:
        detail = "is a margin, and not the one that counts for this customer"
        raise Invalid.field("discount_id", detail, code="discount_not_applicable")
    if not carried.covers_any(found, given):
        detail = "is for nothing that this subscription is for"
        raise Invalid.field("discount_id", detail, code="discount_not_applicable")


def _prices(tx: Tx, found: Subscription, items: Sequence[WantedItem]) -> tuple[tuple[str, int], ...]:
    """What it is to be for: prices that are paid again, alike in asset and rhythm, each once."""
    if not 1 <= len(items) <= MAX_LINES:
        raise Invalid.field("items", f"from 1 to {MAX_LINES}")
    offers = quotes.offers_of(tx, [item.price_id for item in items])
    now = {item.price_id: item.quantity for item in subscriptions.items_of(tx, found.id) if item.recurring}
    wanted: dict[str, int] = {}
    for place, item in enumerate(items):
        at, offer = f"items/{place}", offers.get(item.price_id)
        if item.price_id in wanted:
            raise Invalid.field(f"{at}/price_id", "each price once: raise its quantity", code="duplicate_price")
        if offer is None:
            raise NotFound(f"{at}/price_id: there is no such price.", code="price_not_found")
        _check_offer(at, item, offer, found, is_held=item.price_id in now)
        first = offers[items[0].price_id].price
        if (offer.price.interval, offer.price.interval_count) != (first.interval, first.interval_count):
            detail = "all prices must be paid again after the same time"
            raise Invalid.field(f"{at}/price_id", detail, code="mixed_intervals")
        wanted[item.price_id] = item.quantity
    if wanted == now:
        raise Conflict("The subscription is for exactly this.", code="nothing_to_change")
    return tuple(wanted.items())


def _check_offer(at: str, item: WantedItem, offer: Offer, found: Subscription, *, is_held: bool) -> None:
    price = offer.price
    if price.type != "recurring":
        raise Invalid.field(f"{at}/price_id", "is paid once only", code="price_not_recurring")
    if price.asset != found.asset:
        raise Invalid.field(f"{at}/price_id", f"this subscription is paid in {found.asset}", code="mixed_assets")
    # Whoever holds a price that is not sold any more keeps it.
    if not is_held and (price.status != "active" or offer.product_status != "active"):
        raise Invalid.field(f"{at}/price_id", "not for sale any more", code="price_archived")
    if not price.quantity_min <= item.quantity <= price.quantity_max:
        detail = f"this price sells from {price.quantity_min} to {price.quantity_max}"
        raise Invalid.field(f"{at}/quantity", detail, code="quantity_out_of_range")


def update(tx: Tx, subscription_id: str, changes: SubscriptionUpdate) -> Subscription:
    """Note something about a subscription.

    Raises Invalid; NotFound (``subscription_not_found``, ``user_not_found``).
    """
    found = subscriptions.lock(tx, subscription_id)
    given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not msgspec.UNSET}
    if "metadata" in given:
        check_metadata("metadata", given["metadata"])
    if given.get("vault_l0") is not None:
        given["vault_l0"] = check_line("vault_l0", given["vault_l0"], most=_LONGEST_VAULT, least=1)
    if given.get("user_id") is not None:
        users.get(tx, given["user_id"])
    return subscriptions.write(tx, found, **given)
