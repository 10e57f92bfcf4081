"""Subscriptions: Stripe's object as a fact, and our changes as its parameters.

Stripe's status knows no "paused by us": a subscription whose ``pause_collection`` is set stays ``active`` there. To us
it is paused as long as that is set, and what it was will be again when it is taken away.

Periods stand on the items since version 2025-03-31.basil, and stood on the subscription before: both are read.

Source: specification 2026-08-26.dahlia, ``subscription``, ``PostSubscriptionsSubscriptionExposedId`` and
``DeleteSubscriptionsSubscriptionExposedId``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, cast

import msgspec

from counterfoil.kernel.clock import to_seconds
from counterfoil.rails.base import HttpRequest, RailRefused
from counterfoil.rails.facts import ItemFact, ScheduledChange, SubscriptionFact, SubscriptionStatus
from counterfoil.rails.mirror import Proration, SubscriptionChange
from counterfoil.rails.stripe.checkout import CHECKOUT
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    OURS,
    Object,
    call,
    child,
    coupon_of,
    first,
    metadata,
    moment,
    need,
    number,
    objects,
    plain_coupon,
    reference,
    text,
)

WITH_DISCOUNTS: Final = {"expand": ["discounts"]}
"""The parameter with which an answer names coupons, and not only discounts."""

_STATUSES: Final[dict[str, SubscriptionStatus]] = {
    "incomplete": "incomplete",
    "incomplete_expired": "canceled",
    "trialing": "trialing",
    "active": "active",
    "past_due": "past_due",
    "unpaid": "unpaid",
    "paused": "paused",
    "canceled": "canceled",
}
_INTERVALS: Final = frozenset({"day", "week", "month", "year"})
_PRORATIONS: Final[dict[Proration, str]] = {
    "now": "always_invoice",
    "next_period": "create_prorations",
    "none": "none",
}


def read_subscription(data: Object, at: datetime) -> SubscriptionFact:
    """A subscription, as it was at that moment. Raises RailUnavailable when it makes no sense.

    A status that we do not know counts as ``incomplete``: nothing is given for it, and nothing taken away for good.
    """
    items = objects(data, "items")
    starts = [found for found in (moment(item, "current_period_start") for item in items) if found]
    ends = [found for found in (moment(item, "current_period_end") for item in items) if found]
    recurring = child(items[0], "price", "recurring") if items else {}
    if items and not recurring:
        recurring = child(items[0], "plan")
    status = _STATUSES.get(need(data, "status"), "incomplete")
    pause = child(data, "pause_collection")
    if pause and status in {"active", "trialing", "past_due", "unpaid"}:
        status = "paused"
    ended_at, cancel_at = moment(data, "ended_at"), moment(data, "cancel_at")
    period_end = moment(data, "current_period_end") or max(ends, default=None)
    if cancel_at is None and data.get("cancel_at_period_end") is True:
        cancel_at = period_end
    billed = status in {"trialing", "active", "past_due"} and cancel_at is None
    interval = text(recurring, "interval")
    return SubscriptionFact(
        reference=need(data, "id"),
        checkout_id=metadata(data).get(CHECKOUT),
        occurred_at=at,
        status=status,
        asset=need(data, "currency").upper(),
        items=tuple(_item(item, data) for item in items),
        period_start=moment(data, "current_period_start") or min(starts, default=None),
        period_end=period_end,
        billing_interval=cast("Literal['day', 'week', 'month', 'year']", interval) if interval in _INTERVALS else None,
        interval_count=number(recurring, "interval_count"),
        started_at=moment(data, "start_date"),
        next_billed_at=period_end if billed else None,
        trial_end=moment(data, "trial_end"),
        canceled_at=moment(data, "canceled_at"),
        ends_at=ended_at or cancel_at,
        scheduled_change=_scheduled(pause, cancel_at, status),
        collection_mode="manual" if text(data, "collection_method") == "send_invoice" else "automatic",
        customer_reference=reference(data, "customer"),
        discount_reference=_coupon(data),
        metadata=dict(metadata(data)),
        raw=data,
    )


def change_request(
    settings: StripeSettings, name: str, change: SubscriptionChange, items: tuple[ItemFact, ...], key: str
) -> HttpRequest:
    """How to change the subscription ``name``; ``items``: what it is for now.

    A pause begins at once, whether it is to wait for the end of the period or not: Stripe cannot schedule one. What is
    paid stays paid, the bills of the paused time are void, and periods go on by the calendar. Raises RailRefused for
    what Stripe cannot do, in words.
    """
    if change.action == "cancel" and not change.at_period_end:
        return call(settings, "DELETE", "subscriptions", name, key=key)
    form: dict[str, Any]
    match change.action:
        case "pause":
            until = None if change.resume_at is None else to_seconds(change.resume_at)
            form = {"pause_collection": {"behavior": "void", "resumes_at": until}}
        case "resume":
            form = {"pause_collection": ""}
        case "cancel":
            form = {"cancel_at_period_end": True}
        case "keep":
            form = {"cancel_at_period_end": False}
        case _:
            form = _change_form(change, items)
    return call(settings, "POST", "subscriptions", name, form={**form, **WITH_DISCOUNTS}, key=key)


def is_changed(change: SubscriptionChange, fact: SubscriptionFact) -> bool:
    """Whether the subscription is as the change wants it."""
    match change.action:
        case "pause":
            until = moment(child(fact.raw, "pause_collection"), "resumes_at")
            wanted = None if change.resume_at is None else change.resume_at.replace(microsecond=0)
            return fact.status == "paused" and until == wanted
        case "resume":
            return fact.status not in {"paused", "canceled"}
        case "cancel":
            return fact.status == "canceled" or (change.at_period_end and fact.ends_at is not None)
        case "keep":
            return fact.status != "canceled" and fact.ends_at is None
        case _:
            has = sorted((item.price_reference, item.quantity) for item in fact.items)
            coupon = change.discount_reference
            carried = "" if fact.discount_reference is None else fact.discount_reference
            return (not change.items or has == sorted(change.items)) and (
                coupon is None or plain_coupon(coupon) == carried
            )


def _coupon(data: Object) -> str | msgspec.UnsetType | None:
    """The coupon; unset where only the discount's own id is given, from which nobody can tell."""
    if data.get("discounts") or data.get("discount"):
        return coupon_of(data) or msgspec.UNSET
    return None if data.get("discounts") == [] or "discount" in data else msgspec.UNSET


def _item(item: Object, subscription: Object) -> ItemFact:
    price = child(item, "price") or child(item, "plan")
    product = price.get("product")
    trial = text(subscription, "status") == "trialing"
    ended = text(subscription, "status") in {"canceled", "incomplete_expired"}
    return ItemFact(
        reference=text(item, "id"),
        price_reference=need(price, "id"),
        price_id=first((metadata(price).get(OURS), text(price, "lookup_key"))),
        quantity=1 if (quantity := number(item, "quantity")) is None else quantity,
        status="inactive" if ended else "trialing" if trial else "active",
        previously_billed_at=moment(item, "current_period_start"),
        next_billed_at=moment(item, "current_period_end"),
        trial_starts_at=moment(subscription, "trial_start"),
        trial_ends_at=moment(subscription, "trial_end"),
        price_snapshot=price,
        product_snapshot=product if isinstance(product, dict) else None,
    )


def _scheduled(pause: Object, cancel_at: datetime | None, status: SubscriptionStatus) -> ScheduledChange | None:
    """The cancellation, if one is coming: it ends what a resumption would only go on with."""
    if status == "canceled":
        return None
    if cancel_at is not None:
        return ScheduledChange(action="cancel", effective_at=cancel_at)
    resumes_at = moment(pause, "resumes_at")
    return None if resumes_at is None else ScheduledChange(action="resume", effective_at=resumes_at)


def _change_form(change: SubscriptionChange, items: tuple[ItemFact, ...]) -> dict[str, Any]:
    proration = _PRORATIONS.get(change.proration)
    if proration is None:
        raise RailRefused("Stripe charges the difference for the rest of a period, and not the whole new price")
    form: dict[str, Any] = {}
    if change.items:
        form["items"] = _items(dict(change.items), items)
        form["proration_behavior"] = proration
        form["metadata"] = dict(change.variants) or None
        if proration == "always_invoice":  # a difference that cannot be charged changes nothing
            form["payment_behavior"] = "error_if_incomplete"
    if change.discount_reference is not None:
        form.setdefault("proration_behavior", "none")  # a discount counts from the next bill on
        form["discounts"] = [{"coupon": change.discount_reference}] if change.discount_reference else ""
    if not form:
        raise RailRefused("there is nothing to change")
    return form


def _items(wanted: dict[str, int], items: tuple[ItemFact, ...]) -> list[dict[str, Any]]:
    """The items to be: those there keep their names, an item of another price takes a new one, the rest go."""
    kept = [item for item in items if item.price_reference in wanted]
    spare = [item for item in items if item.price_reference not in wanted]
    new = [price for price in wanted if all(item.price_reference != price for item in kept)]
    said: list[dict[str, Any]] = [{"id": item.reference, "quantity": wanted[item.price_reference]} for item in kept]
    for price in new:
        item = spare.pop(0) if spare else None
        said.append({"id": None if item is None else item.reference, "price": price, "quantity": wanted[price]})
    said += [{"id": item.reference, "deleted": True} for item in spare]
    return said
