"""Carts, checkouts, payments and orders outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

CartStatus = Literal["open", "paid"]
CheckoutStatus = Literal["open", "processing", "settled", "expired", "canceled", "failed"]
PaymentStatus = Literal["settled", "underpaid", "overpaid", "late", "unmatched"]
Resolution = Literal["accepted", "dismissed"]
OrderStatus = Literal[
    "created",
    "paid",
    "processing",
    "partially_fulfilled",
    "fulfilled",
    "shipped",
    "delivered",
    "canceled",
    "refunded",
]
FulfillmentStatus = Literal["pending", "shipped", "delivered", "canceled"]
RefundKind = Literal["refund", "credit", "chargeback"]
RefundType = Literal["full", "partial", "tax", "proration"]
RefundStatus = Literal["pending", "approved", "denied", "processing", "processed", "failed"]
GrantsPolicy = Literal["keep", "suspend", "revoke"]
InvoiceStatus = Literal["draft", "open", "paid", "uncollectible", "void"]
DisputeStatus = Literal["warning", "needs_response", "under_review", "won", "lost"]


class Cart(msgspec.Struct, frozen=True):
    """A priced cart: what a buyer was offered, and until when."""

    id: str
    customer_id: str | None
    asset: str
    subtotal: int
    discount_total: int
    tax_total: int
    total: int
    country: str | None
    rail: str | None
    """The rail it was priced for; None = any."""
    code: str | None
    """The code that was typed for it."""
    email: str | None
    status: CartStatus
    paid_by: str | None
    """Who paid: a customer's id, or the payer as the rail names it."""
    paid_at: datetime | None
    expires_at: datetime
    metadata: dict[str, Any]
    created_at: datetime


class CartLine(msgspec.Struct, frozen=True):
    """One line of a cart, with the price and the promises as they were when it was quoted."""

    id: str
    cart_id: str
    position: int
    product_id: str
    price_id: str
    tier: str
    name: str
    quantity: int
    unit_amount: int
    subtotal: int
    discount_total: int
    total: int
    discounts: list[dict[str, Any]]
    benefits: list[dict[str, Any]]
    recurring: dict[str, Any] | None
    """How it goes on when it is a subscription's: ``interval``, ``interval_count``, ``trial_days`` and the
    ``unit_amount`` of each period; None = it is paid once."""
    metadata: dict[str, Any]
    created_at: datetime


class Checkout(msgspec.Struct, frozen=True):
    """One attempt to pay one quote on one rail."""

    id: str
    cart_id: str
    customer_id: str | None
    rail: str
    rail_reference: str | None
    url: str | None
    status: CheckoutStatus
    amount: int
    asset: str
    paid: int
    email: str | None
    note: str | None
    return_url: str | None
    shipping: dict[str, Any] | None
    """Where goods go."""
    idempotency_key: str | None
    request_hash: str | None
    rail_final: bool
    """Whether the rail will say nothing more, so that reconcile may stop asking."""
    checked_at: datetime
    """When the rail was last asked or heard."""
    expires_at: datetime
    settled_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Payment(msgspec.Struct, frozen=True):
    """Money that a rail has proved. Amount, asset, payer and reference never change."""

    id: str
    rail: str
    reference: str
    checkout_id: str | None
    customer_id: str | None
    payer: str | None
    amount: int
    refund_reserved: int
    """Of the amount, what refunds that are under way or done claim."""
    refunded: int
    """Of the amount, what was given back."""
    asset: str
    status: PaymentStatus
    details: dict[str, Any]
    occurred_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    resolution_note: str | None
    created_at: datetime
    updated_at: datetime


class Order(msgspec.Struct, frozen=True):
    """What one payment bought."""

    id: str
    source: str
    purchase_reference: str
    checkout_id: str | None
    subscription_id: str | None
    """The subscription of which it pays a period."""
    customer_id: str | None
    user_id: str | None
    status: OrderStatus
    items: list[dict[str, Any]]
    amount: int
    refunded: int
    """Of the amount, what was given back."""
    asset: str
    discount_total: int
    tax_total: int
    email: str | None
    shipping: dict[str, Any] | None
    metadata: dict[str, Any]
    status_updated_at: datetime | None
    created_at: datetime
    updated_at: datetime


class OrderHistoryEntry(msgspec.Struct, frozen=True):
    """One step of an order. Never changed."""

    id: str
    order_id: str
    from_status: OrderStatus
    to_status: OrderStatus
    note: str
    actor_kind: str
    actor_id: str | None
    created_at: datetime


class Fulfillment(msgspec.Struct, frozen=True):
    """One parcel of an order."""

    id: str
    order_id: str
    status: FulfillmentStatus
    carrier: str
    tracking_number: str
    tracking_url: str | None
    shipped_at: datetime | None
    delivered_at: datetime | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class FulfillmentItem(msgspec.Struct, frozen=True):
    """How much of an order's line a parcel holds."""

    fulfillment_id: str
    line: int
    quantity: int
    created_at: datetime


class Refund(msgspec.Struct, frozen=True):
    """Money to give back: asked for, decided, given."""

    id: str
    payment_id: str
    order_id: str | None
    kind: RefundKind
    type: RefundType
    rail: str
    amount: int
    asset: str
    recipient: str | None
    """Where the money goes, on rails that do not know by themselves."""
    status: RefundStatus
    reason: str
    grants_policy: GrantsPolicy
    """What becomes of what the order gave, once the money is back."""
    restock: list[dict[str, Any]]
    """What goes back on the shelf: ``line`` and ``quantity``."""
    requested_by: str
    approved_by: str | None
    """Who approved or denied it."""
    processed_by: str | None
    rail_reference: str | None
    """The rail's name for the money that went back; what a person gives where they paid by hand."""
    attempts: int
    next_attempt_at: datetime | None
    claimed_by: str | None
    claimed_until: datetime | None
    error: str | None
    """Why it did not happen, or not yet: the rail's words, or those of whoever denied it."""
    expires_at: datetime | None
    """When it is denied unless somebody approves it before; None = never."""
    processed_at: datetime | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class ArchivedPayment(msgspec.Struct, frozen=True):
    """A payment moved out of the way."""

    id: str
    rail: str
    reference: str
    checkout_id: str | None
    customer_id: str | None
    payer: str | None
    amount: int
    refund_reserved: int
    refunded: int
    asset: str
    status: PaymentStatus
    details: dict[str, Any]
    occurred_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    resolution_note: str | None
    archived_at: datetime
    created_at: datetime
    updated_at: datetime


class PaymentReference(msgspec.Struct, frozen=True):
    """What keeps an archived payment from being taken for a new one."""

    rail: str
    reference: str
    payment_id: str
    created_at: datetime


class OrderDiscount(msgspec.Struct, frozen=True):
    """What a discount took off an order."""

    order_id: str
    discount_id: str
    amount: int
    asset: str
    created_at: datetime


class Invoice(msgspec.Struct, frozen=True):
    """A rail's bill: for a period of a subscription, or for a purchase."""

    id: str
    number: str | None
    customer_id: str | None
    order_id: str | None
    subscription_id: str | None
    checkout_id: str | None
    payment_id: str | None
    rail: str
    reference: str
    """The rail's own name for it."""
    amount: int
    """What it asks for, tax included."""
    tax: int
    asset: str
    billing_reason: str | None
    status: InvoiceStatus
    period_start: datetime | None
    """The period that it pays for."""
    period_end: datetime | None
    pdf_url: str | None
    receipt_url: str | None
    hosted_url: str | None
    paid_at: datetime | None
    occurred_at: datetime
    """When it was as it is here, by the rail's clock."""
    details: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Dispute(msgspec.Struct, frozen=True):
    """A buyer asks their bank for the money back, and the bank decides."""

    id: str
    rail: str
    reference: str
    payment_reference: str
    payment_id: str | None
    order_id: str | None
    customer_id: str | None
    amount: int
    asset: str
    reason: str
    status: DisputeStatus
    grants_policy: GrantsPolicy
    """What became of what the order gave, while the dispute is open."""
    evidence_due_at: datetime | None
    opened_at: datetime
    closed_at: datetime | None
    occurred_at: datetime
    """When it was as it is here, by the rail's clock."""
    details: dict[str, Any]
    created_at: datetime
    updated_at: datetime
