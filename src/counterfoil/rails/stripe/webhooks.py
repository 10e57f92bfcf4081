"""Webhooks: the signature over the raw bytes, and events as what they prove.

Stripe's times are whole seconds, and a purchase makes several events in one. So that of two facts the later one is
the later, a fact's time has a rank below the second: created before updated before deleted, a draft bill before an
open one before a paid one. The rank never reaches the next second.

Source: Stripe's page "Receive Stripe events in your webhook endpoint", section "Verify manually"; specification
2026-08-26.dahlia, ``event``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from counterfoil.kernel.clock import from_seconds
from counterfoil.kernel.secrets import hmac_sha256, same
from counterfoil.rails.base import BadSignature, HttpRequest, HttpResponse, Notice, RailUnavailable
from counterfoil.rails.facts import Fact
from counterfoil.rails.mirror import Kind
from counterfoil.rails.stripe import catalog, checkout, invoices, refunds, subscriptions, variants
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    UNREADABLE,
    Object,
    call,
    coupon_of,
    metadata,
    need,
    objects,
    read,
    text,
)

SIGNATURE_HEADER: Final = "stripe-signature"

TOLERANCE: Final = timedelta(seconds=300)
"""How far a webhook's time may be from ours, either way."""

_STAMP: Final = re.compile(r"t=([0-9]{1,12})")
_SIGNATURE: Final = re.compile(r"v1=([0-9a-f]{64})")
_MICROS_PER_RANK: Final = 100_000
_NOT_THERE: Final = frozenset({400, 404})


class Event(msgspec.Struct, frozen=True):
    """What every event has."""

    id: str
    type: str
    created: int
    livemode: bool
    data: _Data

    @property
    def at(self) -> datetime:
        """When it happened, to the second."""
        return from_seconds(self.created)


class _Data(msgspec.Struct, frozen=True):
    object: dict[str, Any]


class _Told(NamedTuple):
    """What an event says, or what to ask before it can be said."""

    facts: tuple[Fact, ...] = ()
    question: HttpRequest | None = None


_decode: Final = msgspec.json.Decoder(Event).decode


def read_webhook(rail: str, settings: StripeSettings, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
    """Check ``Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=...]``, then read.

    A signature is the HMAC-SHA256 of ``"<t>.<body>"``; any of ours matching any of theirs is enough, which is how one
    secret replaces another. An event of the other mode proves nothing here, and is kept as one we do not know.

    Raises BadSignature, also for a signed body that is no event.
    """
    _verify(settings, headers.get(SIGNATURE_HEADER, ""), body, now)
    return read_event(rail, settings, body)


def read_event(rail: str, settings: StripeSettings, body: bytes) -> Notice:
    """A body that was verified before, or that Stripe's list of events gave.

    An event whose object makes no sense gives a notice with a ``problem``. Raises BadSignature when it is none.
    """
    return _read(rail, settings, _event(body), None)


def read_answer(rail: str, settings: StripeSettings, body: bytes, response: HttpResponse) -> Notice:
    """The notice, completed by the answer to its question.

    The facts keep the event's time: the answer adds only what the event leaves out, and what never changes. What
    Stripe says it has not is answered, too. Raises BadSignature when the body is none; RailRefused, RailBusy,
    RailUnavailable.
    """
    event = _event(body)
    return _read(rail, settings, event, {} if response.status in _NOT_THERE else read(response))


def _verify(settings: StripeSettings, header: str, body: bytes, now: datetime) -> None:
    parts = [part.strip() for part in header.split(",")]
    stamps = {found[1] for part in parts if (found := _STAMP.fullmatch(part))}
    given = [found[1] for part in parts if (found := _SIGNATURE.fullmatch(part))]
    if len(stamps) != 1 or not given:
        raise BadSignature("Stripe-Signature is missing or not of the form t=<seconds>,v1=<64 hex digits>")
    stamp = stamps.pop()
    signed = stamp.encode() + b"." + body
    wanted = [hmac_sha256(secret.encode(), signed) for secret in settings.webhook_secrets if secret]
    if not wanted:
        raise BadSignature("no webhook secret is set for this account")
    matches = [same(theirs, ours) for theirs in given for ours in wanted]
    if not any(matches):
        raise BadSignature("Stripe-Signature does not match the body")
    try:
        apart = abs(from_seconds(int(stamp)) - now)
    except OverflowError as error:
        raise BadSignature("the webhook's time makes no sense") from error
    if apart > TOLERANCE:
        raise BadSignature("the webhook is too old, or from the future")


def _event(body: bytes) -> Event:
    try:
        event = _decode(body)
        _ = event.at
    except (*UNREADABLE, OverflowError) as error:
        raise BadSignature(f"the body is no Stripe event: {error}") from error
    if not event.id:
        raise BadSignature("the event has no id")
    return event


def _blank(settings: StripeSettings, event: Event) -> Notice:
    known = event.type in TYPES and event.livemode == settings.livemode
    return Notice(event_id=event.id, type=event.type, occurred_at=event.at, reference=None, is_known=known)


def _read(rail: str, settings: StripeSettings, event: Event, answer: Object | None) -> Notice:
    try:
        return _notice(rail, settings, event, answer)
    except RailUnavailable as error:
        return msgspec.structs.replace(_blank(settings, event), is_known=False, problem=str(error))


def _notice(rail: str, settings: StripeSettings, event: Event, answer: Object | None) -> Notice:
    blank = _blank(settings, event)
    if not blank.is_known:
        return blank
    data = event.data.object
    if event.type.startswith("checkout.session."):
        failed = event.type == "checkout.session.async_payment_failed"
        report = checkout.read_session(rail, data, event.at, failed=failed)
        return msgspec.structs.replace(blank, report=report, reference=None if report is None else report.reference)
    if event.type.startswith("payment_intent."):
        return msgspec.structs.replace(blank, report=checkout.read_intent(rail, data, event.at))
    told = _READERS[event.type](settings, event, answer)
    return msgspec.structs.replace(blank, facts=told.facts, question=told.question)


def _at(event: Event, rank: int) -> datetime:
    return event.at + timedelta(microseconds=rank * _MICROS_PER_RANK)


# -- one reader for each kind of object --------------------------------------------------------------------------------


def _subscription(settings: StripeSettings, event: Event, answer: Object | None) -> _Told:
    data = event.data.object
    rank = {"customer.subscription.created": 1, "customer.subscription.deleted": 9}.get(event.type, 5)
    if answer is None and (question := _coupon_question(settings, "subscriptions", data)):
        return _Told(question=question)
    return _Told((subscriptions.read_subscription(_with_coupon(data, answer), _at(event, rank)),))


def _invoice(settings: StripeSettings, event: Event, answer: Object | None) -> _Told:
    data = event.data.object
    rank = {"draft": 1, "open": 3, "uncollectible": 6}.get(text(data, "status") or "", 8)
    if answer is None and (question := _coupon_question(settings, "invoices", data)):
        return _Told(question=question)
    return _Told((invoices.read_invoice(_with_coupon(data, answer), _at(event, rank)),))


def _coupon_question(settings: StripeSettings, path: str, data: Object) -> HttpRequest | None:
    """Events name an object's discounts by ids that lead nowhere: the coupon has to be asked for."""
    if not data.get("discounts") or coupon_of(data) is not None:
        return None
    return call(settings, "GET", path, need(data, "id"), query=subscriptions.WITH_DISCOUNTS)


def _with_coupon(data: Object, answer: Object | None) -> Object:
    """The event's object with the discounts that it names, as the answer has them."""
    said = data.get("discounts")
    named = {name for name in said if isinstance(name, str)} if isinstance(said, list) else set()
    found = [discount for discount in objects(answer or {}, "discounts") if text(discount, "id") in named]
    return {**data, "discounts": found} if found else data


def _refund(settings: StripeSettings, event: Event, answer: Object | None) -> _Told:
    data = event.data.object
    rank = {"pending": 1, "requires_action": 1, "succeeded": 5}.get(text(data, "status") or "", 8)
    if answer is None and (question := refunds.invoice_question(settings, data)):
        return _Told(question=question)
    payment = None if answer is None else refunds.read_invoice_answer(answer)
    return _Told((refunds.read_refund(data, _at(event, rank), payment),))


def _refunded_charge(settings: StripeSettings, event: Event, answer: Object | None) -> _Told:
    """Events of older versions list the charge's refunds; since 2022-11-15 only ``refund.*`` have them."""
    charge = event.data.object
    found = objects(charge, "refunds")
    if not found:
        return _Told()
    of_checkout = bool(metadata(charge).get(checkout.CHECKOUT))
    if answer is None and not of_checkout and (question := refunds.invoice_question(settings, charge)):
        return _Told(question=question)
    payment = None if answer is None else refunds.read_invoice_answer(answer)
    return _Told(tuple(refunds.read_refund(refund, _at(event, 5), payment) for refund in found))


def _dispute(settings: StripeSettings, event: Event, answer: Object | None) -> _Told:
    data = event.data.object
    if answer is None and (question := refunds.invoice_question(settings, data)):
        return _Told(question=question)
    payment = None if answer is None else refunds.read_invoice_answer(answer)
    fact = refunds.read_dispute(data, event.at, payment)
    rank = {"warning": 1, "needs_response": 2, "under_review": 4}.get(fact.status, 8)
    return _Told((msgspec.structs.replace(fact, occurred_at=_at(event, rank)),))


def _copy(kind: Kind) -> Callable[[StripeSettings, Event, Object | None], _Told]:
    def read_copy(_settings: StripeSettings, event: Event, _answer: Object | None) -> _Told:
        data = event.data.object
        if metadata(data).get(checkout.AD_HOC) or variants.is_variant(data):
            return _Told()
        gone = event.type.endswith(".deleted")
        rank = 9 if gone else 1 if event.type.endswith(".created") else 5
        return _Told((catalog.read_copy(kind, {**data, "deleted": True} if gone else data, _at(event, rank)),))

    return read_copy


_READERS: Final[dict[str, Callable[[StripeSettings, Event, Object | None], _Told]]] = {
    **{
        f"customer.subscription.{what}": _subscription
        for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
    },
    **{
        f"invoice.{what}": _invoice
        for what in (
            "created", "updated", "finalized", "paid", "payment_failed", "payment_action_required", "voided",
            "marked_uncollectible",
        )
    },
    **dict.fromkeys(("refund.created", "refund.updated", "refund.failed", "charge.refund.updated"), _refund),
    "charge.refunded": _refunded_charge,
    **{
        f"charge.dispute.{what}": _dispute
        for what in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")
    },
    **{f"product.{what}": _copy("product") for what in ("created", "updated", "deleted")},
    **{f"price.{what}": _copy("price") for what in ("created", "updated", "deleted")},
    **{f"coupon.{what}": _copy("discount") for what in ("created", "updated", "deleted")},
    **{f"customer.{what}": _copy("customer") for what in ("created", "updated", "deleted")},
}  # fmt: skip

TYPES: Final = frozenset(
    {
        *_READERS,
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
    }
)
"""The types of events that we know; webhook endpoints that we make ask for these."""

__all__ = ["SIGNATURE_HEADER", "TOLERANCE", "TYPES", "read_answer", "read_event", "read_webhook"]
