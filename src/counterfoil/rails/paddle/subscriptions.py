"""Subscriptions, which Paddle bills by itself: what they are, how we change them, and the customer's portal.

Source: Paddle's OpenAPI specification of 2025-05-27, schema ``subscription``, operations ``get-subscription``,
``update-subscription``, ``cancel-``, ``pause-`` and ``resume-subscription``, ``create-customer-portal-session``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec

from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.facts import ItemFact, ScheduledChange, SubscriptionFact, SubscriptionStatus
from counterfoil.rails.mirror import Portal, Proration, SubscriptionChange
from counterfoil.rails.paddle.entities import Change, Subscription, SubscriptionItem
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.wire import (
    CHECKOUT_ID,
    OUR_ID,
    Json,
    call,
    custom,
    maybe_moment,
    moment,
    read,
    shape,
    write_moment,
)

_STATUSES: Final = frozenset({"active", "canceled", "past_due", "paused", "trialing"})
_PRORATION: Final[dict[Proration, str]] = {
    "now": "prorated_immediately",
    "next_period": "prorated_next_billing_period",
    "full_now": "full_immediately",
    "full_next_period": "full_next_billing_period",
    "none": "do_not_bill",
}
_MOST_LINKS: Final = 25

_Interval = Literal["day", "week", "month", "year"]


class _DeepLinks(msgspec.Struct):
    id: str
    cancel_subscription: str | None = None
    update_subscription_payment_method: str | None = None


class _General(msgspec.Struct):
    overview: str


class _Urls(msgspec.Struct):
    general: _General
    subscriptions: list[_DeepLinks] | None = None


class _PortalSession(msgspec.Struct):
    urls: _Urls


def fact(data: Json, at: datetime | None = None) -> SubscriptionFact:
    """A subscription; ``at``: when it was so, else when Paddle last changed it.

    Its price and product snapshots are of its last bill. ``checkout_id`` is our checkout's whose transaction started
    it: Paddle copies ``custom_data`` from one to the other. Raises RailUnavailable when it makes no sense, or is in a
    state that we do not know.
    """
    entity = shape(Subscription, data)
    if entity.status not in _STATUSES:
        raise RailUnavailable(f"Paddle says of a subscription that it is {entity.status!r}, which we do not know")
    status: SubscriptionStatus = entity.status  # type: ignore[assignment]
    period, cycle = entity.current_billing_period, entity.billing_cycle
    interval = cycle.interval if cycle is not None and cycle.interval in get_args(_Interval) else None
    change = _scheduled(entity.scheduled_change)
    canceled_at = maybe_moment(entity.canceled_at)
    will_end = change.effective_at if change is not None and change.action == "cancel" else None
    raw_items = data["items"]
    items = tuple(_item(item, raw) for item, raw in zip(entity.items, raw_items, strict=True))
    trials = [moment(item.trial_dates.ends_at) for item in entity.items if item.trial_dates is not None]
    ours = entity.custom_data
    return SubscriptionFact(
        reference=entity.id,
        checkout_id=custom(data, CHECKOUT_ID),
        occurred_at=at or moment(entity.updated_at),
        status=status,
        asset=entity.currency_code,
        items=items,
        period_start=None if period is None else moment(period.starts_at),
        period_end=None if period is None else moment(period.ends_at),
        billing_interval=interval,  # type: ignore[arg-type]
        interval_count=None if cycle is None else cycle.frequency,
        started_at=maybe_moment(entity.started_at),
        first_billed_at=maybe_moment(entity.first_billed_at),
        next_billed_at=maybe_moment(entity.next_billed_at),
        trial_end=max(trials, default=None),
        paused_at=maybe_moment(entity.paused_at),
        canceled_at=canceled_at,
        ends_at=canceled_at if entity.status == "canceled" else will_end,
        scheduled_change=change,
        collection_mode="manual" if entity.collection_mode == "manual" else "automatic",
        billing_details=entity.billing_details,
        customer_reference=entity.customer_id,
        address_reference=entity.address_id,
        business_reference=entity.business_id,
        discount_reference=_discount(entity, at or moment(entity.updated_at)),
        metadata=ours if isinstance(ours, dict) else {},
        raw=data,
    )


class Subscriptions:
    """The part of the rail about subscriptions."""

    def subscription_request(self, settings: PaddleSettings, reference: str) -> HttpRequest:
        """``GET /subscriptions/{id}``."""
        return call(settings, "GET", "subscriptions", reference)

    def read_subscription(self, settings: PaddleSettings, response: HttpResponse) -> SubscriptionFact:
        """The subscription, which all requests about it are answered with. Raises as the protocol says."""
        return fact(read(response))

    def change_request(
        self,
        settings: PaddleSettings,
        reference: str,
        change: SubscriptionChange,
        items: tuple[ItemFact, ...],
        key: str,
    ) -> HttpRequest:
        """One of ``pause``, ``resume``, ``cancel`` and ``PATCH``. Paddle knows no idempotency keys, and needs none.

        Paddle wants all items at once, so ``items`` of the change replace those that there are. Without any, only
        the discount changes: from the next bill on. A change that has to be paid at once and is not, does not happen.

        Raises RailRefused for a change of nothing.
        """
        path = ("subscriptions", reference)
        when = "next_billing_period" if change.at_period_end else "immediately"
        match change.action:
            case "pause":
                again = {} if change.resume_at is None else {"resume_at": write_moment(change.resume_at)}
                return call(settings, "POST", *path, "pause", body={"effective_from": when, **again})
            case "resume":
                return call(settings, "POST", *path, "resume", body={"effective_from": "immediately"})
            case "cancel":
                return call(settings, "POST", *path, "cancel", body={"effective_from": when})
            case "keep":
                return call(settings, "PATCH", *path, body={"scheduled_change": None})
            case "change":
                return call(settings, "PATCH", *path, body=_changed(change))

    def is_changed(self, change: SubscriptionChange, fact: SubscriptionFact) -> bool:
        """Whether a subscription is as the change wants it."""
        scheduled = fact.scheduled_change.action if fact.scheduled_change is not None else None
        match change.action:
            case "pause":
                return fact.status == "paused" or (change.at_period_end and scheduled == "pause")
            case "resume":
                return fact.status in {"active", "trialing", "past_due"} and scheduled != "pause"
            case "cancel":
                return fact.status == "canceled" or (change.at_period_end and scheduled == "cancel")
            case "keep":
                return scheduled is None
            case "change":
                now = {item.price_reference: item.quantity for item in fact.items if _is_billed(item)}
                same_items = not change.items or dict(change.items) == now
                wanted = change.discount_reference
                carried = "" if fact.discount_reference is None else fact.discount_reference
                return same_items and wanted in {None, carried}

    def portal_request(
        self, settings: PaddleSettings, customer_reference: str, subscriptions: tuple[str, ...], return_url: str
    ) -> HttpRequest:
        """``POST /customers/{id}/portal-sessions``. Paddle has no place for ``return_url``."""
        body = {"subscription_ids": list(dict.fromkeys(subscriptions))[:_MOST_LINKS]} if subscriptions else {}
        return call(settings, "POST", "customers", customer_reference, "portal-sessions", body=body)

    def read_portal(self, settings: PaddleSettings, response: HttpResponse) -> Portal:
        """Its links; those to one subscription where one was asked for. Raises as the protocol says."""
        urls = shape(_PortalSession, read(response)).urls
        links = urls.subscriptions or []
        one = links[0] if len(links) == 1 else None
        return Portal(
            url=urls.general.overview,
            update_payment_method=None if one is None else one.update_subscription_payment_method,
            cancel=None if one is None else one.cancel_subscription,
        )


def _changed(change: SubscriptionChange) -> Json:
    body: dict[str, Any] = {}
    if change.items:
        body["items"] = [{"price_id": price, "quantity": quantity} for price, quantity in change.items]
        body["proration_billing_mode"] = _PRORATION[change.proration]
        body["on_payment_failure"] = "prevent_change"
    if change.discount_reference is not None:
        name = change.discount_reference
        # What is paid already stays as it is: a discount counts from the next bill on.
        body["discount"] = {"id": name, "effective_from": "next_billing_period"} if name else None
    if not body:
        raise RailRefused("the change changes nothing")
    return body


def _discount(entity: Subscription, at: datetime) -> str | None:
    """The discount that bills to come have. One that is over by the next of them stays with the subscription at Paddle.

    Paddle calls ``ends_at`` both when a discount no longer applies and the date of the last period for which it does:
    a bill of that very moment counts as one that has it.
    """
    if entity.discount is None:
        return None
    ends_at = maybe_moment(entity.discount.ends_at)
    next_bill = maybe_moment(entity.next_billed_at) or at
    return entity.discount.id if ends_at is None or next_bill <= ends_at else None


def _is_billed(item: ItemFact) -> bool:
    return item.recurring and item.status != "inactive"


def _scheduled(change: Change | None) -> ScheduledChange | None:
    """What will happen by itself; None for kinds of changes that we do not know."""
    if change is None or change.action not in {"cancel", "pause", "resume"}:
        return None
    return ScheduledChange(
        action=change.action,  # type: ignore[arg-type]
        effective_at=moment(change.effective_at),
        resume_at=maybe_moment(change.resume_at),
    )


def _item(item: SubscriptionItem, raw: Json) -> ItemFact:
    return ItemFact(
        reference=None,
        price_reference=item.price.id,
        price_id=custom({"custom_data": item.price.custom_data}, OUR_ID),
        quantity=item.quantity,
        status=item.status if item.status in {"inactive", "trialing"} else "active",  # type: ignore[arg-type]
        recurring=item.recurring,
        previously_billed_at=maybe_moment(item.previously_billed_at),
        next_billed_at=maybe_moment(item.next_billed_at),
        trial_starts_at=None if item.trial_dates is None else moment(item.trial_dates.starts_at),
        trial_ends_at=None if item.trial_dates is None else moment(item.trial_dates.ends_at),
        price_snapshot=raw.get("price"),
        product_snapshot=raw.get("product"),
    )
