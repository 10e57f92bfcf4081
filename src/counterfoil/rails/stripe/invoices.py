"""Invoices: Stripe's bills as facts, in the shapes of 2026 and, as far as they are told apart, in older ones.

Source: specification 2026-08-26.dahlia, ``invoice`` and ``line_item``; the changelog of version 2025-03-31.basil,
which moved ``subscription`` into ``parent``, ``tax`` into ``total_taxes`` and a line's ``price`` into ``pricing``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from counterfoil.kernel.ids import is_id
from counterfoil.rails.facts import InvoiceFact, InvoiceLine, InvoiceStatus
from counterfoil.rails.stripe.amounts import from_stripe
from counterfoil.rails.stripe.checkout import CHECKOUT, money_of
from counterfoil.rails.stripe.wire import (
    OURS,
    Object,
    child,
    coupon_of,
    first,
    metadata,
    moment,
    need,
    need_number,
    number,
    objects,
    reference,
    text,
)

_STATUSES: Final[dict[str, InvoiceStatus]] = {
    "draft": "draft",
    "open": "open",
    "paid": "paid",
    "uncollectible": "uncollectible",
    "void": "void",
}
_FIRST_BILLS: Final = frozenset({"subscription_create", "manual"})
_DETAILS: Final = (
    "subtotal", "total", "amount_due", "amount_paid", "amount_remaining", "starting_balance", "ending_balance",
    "total_excluding_tax", "post_payment_credit_notes_amount", "pre_payment_credit_notes_amount", "total_taxes",
    "total_discount_amounts", "attempt_count", "next_payment_attempt", "due_date", "collection_method",
    "customer_email", "receipt_number",
)  # fmt: skip


def read_invoice(data: Object, at: datetime) -> InvoiceFact:
    """An invoice, as it was at that moment. Raises RailUnavailable when it makes no sense.

    ``amount`` is what is due of it: the total with tax, less what the customer's balance at Stripe paid, and 0 for a
    credit. The checkout's own bill is the subscription's first. The period is that of the lines that are no
    prorations; a webhook has the first ten lines.
    """
    currency = need(data, "currency")
    parent = child(data, "parent", "subscription_details")
    reason = text(data, "billing_reason")
    status = _STATUSES.get(text(data, "status") or "draft", "open")
    paid_at = moment(child(data, "status_transitions"), "paid_at")
    customer = reference(data, "customer")
    lines = objects(data, "lines")
    start, end = _period(lines)
    checkouts = (metadata(data), metadata(parent), metadata(child(data, "subscription_details")))
    checkout_id = first(found.get(CHECKOUT) for found in checkouts)
    # Of variants, by Stripe's names: see checkout.variants_held.
    ours = {name: key for found in checkouts for key, name in found.items() if is_id("pri", key)}
    return InvoiceFact(
        reference=need(data, "id"),
        occurred_at=at,
        status=status,
        amount=from_stripe(need_number(data, "amount_due"), currency).amount,
        tax=from_stripe(_tax(data), currency).amount,
        asset=currency.upper(),
        number=text(data, "number"),
        billing_reason=reason,
        checkout_id=checkout_id,
        is_first=checkout_id is not None and reason in _FIRST_BILLS,
        subscription_reference=first((reference(parent, "subscription"), reference(data, "subscription"))),
        customer_reference=customer,
        discount_reference=coupon_of(data),
        period_start=start,
        period_end=end,
        payment=money_of(
            need(data, "id"), from_stripe(need_number(data, "amount_paid"), currency), paid_at or at, payer=customer
        )
        if status == "paid"
        else None,
        paid_at=paid_at,
        hosted_url=text(data, "hosted_invoice_url"),
        pdf_url=text(data, "invoice_pdf"),
        receipt_url=None,
        lines=tuple(_line(line, currency, ours) for line in lines),
        details={key: data[key] for key in _DETAILS if data.get(key) is not None},
    )


def _tax(data: Object) -> int:
    taxes = objects(data, "total_taxes") or objects(data, "total_tax_amounts")
    if taxes:
        return sum(number(tax, "amount") or 0 for tax in taxes)
    return number(data, "tax") or 0


def _period(lines: list[Object]) -> tuple[datetime | None, datetime | None]:
    """The last period that a subscription's line pays for."""
    periods = [
        (end, moment(child(line, "period"), "start"))
        for line in lines
        if _is_subscription(line) and not _is_proration(line) and (end := moment(child(line, "period"), "end"))
    ]
    end, start = max(periods, key=lambda period: period[0], default=(None, None))
    return start, end


def _is_subscription(line: Object) -> bool:
    parent = child(line, "parent")
    if parent:
        return text(parent, "type") == "subscription_item_details"
    return text(line, "type") == "subscription"


def _is_proration(line: Object) -> bool:
    parent = child(line, "parent")
    parents = (child(parent, "subscription_item_details"), child(parent, "invoice_item_details"), line)
    return any(found.get("proration") is True for found in parents)


def _line(line: Object, currency: str, ours: dict[str, str]) -> InvoiceLine:
    price = child(line, "price")
    name = first((reference(child(line, "pricing", "price_details"), "price"), text(price, "id")))
    off = sum(number(discount, "amount") or 0 for discount in objects(line, "discount_amounts"))
    amount = number(line, "amount") or 0
    quantity = number(line, "quantity")
    return InvoiceLine(
        price_reference=name,
        price_id=first((metadata(price).get(OURS), text(price, "lookup_key"), ours.get(name or ""))),
        description=text(line, "description") or "",
        quantity=1 if quantity is None else quantity,
        amount=from_stripe(amount - off, currency).amount,
        subtotal=from_stripe(amount, currency).amount,
        proration=_is_proration(line),
    )
