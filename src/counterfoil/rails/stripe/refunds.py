"""Refunds and disputes: ours as requests, Stripe's as facts.

Stripe knows them by the payment intent. Our name of subscription money is its invoice, so an invoice's intent is asked
for before a refund, and an intent's invoice after a webhook that does not say (:func:`invoice_question`).

Source: specification 2026-08-26.dahlia, ``PostRefunds``, ``refund``, ``dispute`` and ``GetInvoicePayments``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from counterfoil.rails.base import (
    HttpRequest,
    HttpResponse,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundFailed,
    RefundIntent,
    RefundUnderWay,
)
from counterfoil.rails.facts import DisputeFact, DisputeStatus, RefundFact
from counterfoil.rails.mirror import MoreToAsk
from counterfoil.rails.stripe.amounts import from_stripe, to_stripe
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    PAGE,
    Object,
    call,
    child,
    first,
    metadata,
    moment,
    need,
    need_number,
    number,
    objects,
    read,
    read_page,
    reference,
    text,
)

REFUND: Final = "refund_id"
PAYMENT: Final = "payment_reference"
"""The metadata keys of a refund that hold our refund's id and our name of the payment."""

INTENT: Final = "payment_intent"
"""Where :func:`read_question` leaves the invoice's payment intent, in the refund intent's details."""

_REFUND_STATUSES: Final[dict[str, Literal["pending", "processed", "failed"]]] = {
    "pending": "pending",
    "requires_action": "pending",
    "succeeded": "processed",
    "failed": "failed",
    "canceled": "failed",
}
_DISPUTE_STATUSES: Final[dict[str, DisputeStatus]] = {
    "warning_needs_response": "warning",
    "warning_under_review": "warning",
    "warning_closed": "won",  # an inquiry that never became a chargeback
    "prevented": "won",
    "needs_response": "needs_response",
    "under_review": "under_review",
    "charge_refunded": "lost",  # older versions: the seller gave the money back
    "won": "won",
    "lost": "lost",
}


# -- giving money back -------------------------------------------------------------------------------------------------


def question(settings: StripeSettings, intent: RefundIntent) -> HttpRequest | None:
    """Which payment intent paid the invoice, where the payment is known by its invoice."""
    name = intent.payment_reference
    if not name.startswith("in_") or intent.details.get(INTENT):
        return None
    return call(settings, "GET", "invoice_payments", query={"invoice": name, "limit": PAGE})


def read_question(intent: RefundIntent, response: HttpResponse) -> RefundIntent:
    """The intent with the payment intent in its details: of several that paid, the one that paid most.

    Raises RailRefused when none of the invoice was paid through Stripe.
    """
    found, _ = read_page(response)
    paid = [payment for payment in found if text(payment, "status") == "paid"]
    paid.sort(key=lambda payment: (-(number(payment, "amount_paid") or 0), text(payment, "id") or ""))
    names = [name for payment in paid if (name := reference(child(payment, "payment"), "payment_intent"))]
    if not names:
        raise RailRefused("no payment through Stripe belongs to this invoice")
    return msgspec.structs.replace(intent, details={**intent.details, INTENT: names[0]})


def request(settings: StripeSettings, intent: RefundIntent) -> HttpRequest:
    """``POST /v1/refunds``, once for each refund: for 24 hours by its Idempotency-Key, later by :func:`find_request`.

    Raises RailRefused for a payment of nothing; RailUnavailable for an invoice whose :func:`question` was not asked.
    """
    form = {
        **_of(intent),
        "amount": to_stripe(intent.amount),
        "reason": "requested_by_customer",
        "metadata": {REFUND: intent.refund_id, PAYMENT: intent.payment_reference},
    }
    return call(settings, "POST", "refunds", form=form, key=intent.refund_id)


def read_refunded(response: HttpResponse) -> RefundDone | RefundUnderWay:
    """The answer: done, or pending with the bank. Raises RefundFailed for one that has failed."""
    return _outcome(read(response))


def find_request(settings: StripeSettings, intent: RefundIntent) -> HttpRequest:
    """The refunds of the payment. Raises as :func:`request`."""
    return call(settings, "GET", "refunds", query={**_of(intent), "limit": PAGE})


def read_found(
    settings: StripeSettings, intent: RefundIntent, response: HttpResponse
) -> RefundDone | RefundUnderWay | None:
    """Ours among them, or None.

    Raises RefundFailed when it has failed; MoreToAsk when it may be on the next page.
    """
    found, after = read_page(response)
    for refund in found:
        if metadata(refund).get(REFUND) == intent.refund_id:
            return _outcome(refund)
    if after is not None:
        query = {**_of(intent), "limit": PAGE, "starting_after": after}
        raise MoreToAsk("the payment has more refunds", call(settings, "GET", "refunds", query=query))
    return None


def _of(intent: RefundIntent) -> dict[str, str]:
    name = intent.details.get(INTENT) or intent.payment_reference
    if not isinstance(name, str) or name.startswith("in_"):
        raise RailUnavailable("which payment paid the invoice has to be asked first")
    if name.startswith("ch_"):
        return {"charge": name}
    if name.startswith("pi_"):
        return {"payment_intent": name}
    raise RailRefused("nothing was paid, so there is nothing to give back")


def _outcome(refund: Object) -> RefundDone | RefundUnderWay:
    name, status = need(refund, "id"), text(refund, "status")
    if status in {"failed", "canceled"}:
        why = text(refund, "failure_reason") or status
        raise RefundFailed(f"Stripe could not give the money back: {why.replace('_', ' ')}")
    return RefundDone(reference=name) if status == "succeeded" else RefundUnderWay(reference=name)


# -- what Stripe tells -------------------------------------------------------------------------------------------------


def invoice_question(settings: StripeSettings, data: Object) -> HttpRequest | None:
    """What to ask for our name of the payment that a refund or dispute is about; None where it can be told without.

    A refund that we made carries it. An expanded payment intent with our checkout's id is its own name.
    """
    name = reference(data, "payment_intent")
    if name is None or metadata(data).get(PAYMENT):
        return None
    query = {"payment": {"type": "payment_intent", "payment_intent": name}, "limit": PAGE}
    return call(settings, "GET", "invoice_payments", query=query)


def read_invoice_answer(answer: Object) -> str | None:
    """The invoice that the payment intent paid; None where it paid none."""
    return first(reference(payment, "invoice") for payment in objects(answer, "data"))


def read_refund(data: Object, at: datetime, payment: str | None = None) -> RefundFact:
    """A refund, as it was at that moment. ``payment``: our name of the payment, where it was asked for."""
    marks = metadata(data)
    money = from_stripe(need_number(data, "amount"), need(data, "currency"))
    details = {key: data[key] for key in ("charge", "payment_intent", "pending_reason") if data.get(key) is not None}
    return RefundFact(
        reference=need(data, "id"),
        refund_id=marks.get(REFUND),
        payment_reference=payment or marks.get(PAYMENT) or _payment(data),
        occurred_at=at,
        amount=money.amount,
        asset=money.asset,
        status=_REFUND_STATUSES.get(text(data, "status") or "pending", "pending"),
        reason=text(data, "reason") or "",
        error=text(data, "failure_reason"),
        details=details,
    )


def read_dispute(data: Object, at: datetime, payment: str | None = None) -> DisputeFact:
    """A dispute, as it was at that moment; a status that we do not know needs a response."""
    money = from_stripe(need_number(data, "amount"), need(data, "currency"))
    evidence = child(data, "evidence_details")
    kept: dict[str, Any] = {
        "status": text(data, "status"),
        "charge": reference(data, "charge"),
        "payment_intent": reference(data, "payment_intent"),
        "is_charge_refundable": data.get("is_charge_refundable"),
        "evidence_details": evidence,
        "network_reason_code": text(child(data, "payment_method_details", "card"), "network_reason_code"),
    }
    return DisputeFact(
        reference=need(data, "id"),
        payment_reference=payment or _payment(data),
        occurred_at=at,
        amount=money.amount,
        asset=money.asset,
        status=_DISPUTE_STATUSES.get(need(data, "status"), "needs_response"),
        reason=text(data, "reason") or "",
        evidence_due_at=moment(evidence, "due_by"),
        details={key: value for key, value in kept.items() if value is not None},
    )


def _payment(data: Object) -> str:
    return reference(data, "payment_intent") or reference(data, "charge") or need(data, "payment_intent")
