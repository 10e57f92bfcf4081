"""What rails tell us beside checkouts: subscriptions, invoices, refunds, disputes and their copies of our catalog.

Facts are a rail's words in our terms. They repeat and arrive in any order; ``settlement`` makes one story of them.
Whatever the rail says beyond that is kept in ``raw``, as it was said.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from counterfoil.rails.base import PaymentFact

SubscriptionStatus = Literal["incomplete", "trialing", "active", "past_due", "unpaid", "paused", "canceled"]
InvoiceStatus = Literal["draft", "open", "paid", "uncollectible", "void"]
DisputeStatus = Literal["warning", "needs_response", "under_review", "won", "lost"]
CollectionMode = Literal["automatic", "manual"]


class ItemFact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a subscription is for."""

    reference: str | None
    """The rail's own name for the item, where it has one."""
    price_reference: str
    """The rail's name for the price."""
    price_id: str | None = None
    """Our price's id, where the rail carries it back."""
    quantity: int
    status: Literal["active", "inactive", "trialing"] = "active"
    recurring: bool = True
    previously_billed_at: datetime | None = None
    next_billed_at: datetime | None = None
    trial_starts_at: datetime | None = None
    trial_ends_at: datetime | None = None
    price_snapshot: dict[str, Any] | None = None
    """The price as the rail had it, in its own words."""
    product_snapshot: dict[str, Any] | None = None


class ScheduledChange(msgspec.Struct, frozen=True, kw_only=True):
    """What will happen to a subscription by itself."""

    action: Literal["cancel", "pause", "resume"]
    effective_at: datetime
    resume_at: datetime | None = None


class SubscriptionFact(msgspec.Struct, frozen=True, kw_only=True, tag="subscription"):
    """A subscription as the rail has it at one moment."""

    reference: str
    checkout_id: str | None
    """Our checkout that it came of, where the rail carries it back."""
    occurred_at: datetime
    """When it was so. Of two facts the later one is true."""
    status: SubscriptionStatus
    asset: str
    items: tuple[ItemFact, ...]
    period_start: datetime | None = None
    """The current period; None when the rail does not say."""
    period_end: datetime | None = None
    billing_interval: Literal["day", "week", "month", "year"] | None = None
    interval_count: int | None = None
    started_at: datetime | None = None
    first_billed_at: datetime | None = None
    next_billed_at: datetime | None = None
    trial_end: datetime | None = None
    paused_at: datetime | None = None
    canceled_at: datetime | None = None
    """When it was canceled; the time it ends, or ended, is in ``ends_at``."""
    ends_at: datetime | None = None
    """When it ends or ended for good; None while nobody has canceled it."""
    scheduled_change: ScheduledChange | None = None
    collection_mode: CollectionMode = "automatic"
    billing_details: dict[str, Any] | None = None
    customer_reference: str | None = None
    address_reference: str | None = None
    business_reference: str | None = None
    discount_reference: str | msgspec.UnsetType | None = msgspec.UNSET
    """The rail's name for the discount that it takes off the next bills: None when there is none, and unset when what
    it says names none, which is not the same."""
    metadata: dict[str, Any] = {}
    raw: dict[str, Any] = {}


class InvoiceFact(msgspec.Struct, frozen=True, kw_only=True, tag="invoice"):
    """A bill of the rail: for a period of a subscription, or for a purchase."""

    reference: str
    occurred_at: datetime
    status: InvoiceStatus
    amount: int
    """What it asks for, in minor units, tax included."""
    tax: int
    asset: str
    number: str | None = None
    billing_reason: str | None = None
    """Why it was made: ``subscription_create``, ``subscription_cycle``, ``subscription_update``, ``manual``..."""
    checkout_id: str | None = None
    """Our checkout that it, or the subscription that it is for, came of, where the rail carries it back."""
    is_first: bool = False
    """Whether it is the checkout's own bill: what the buyer paid there, not a later one of the subscription."""
    subscription_reference: str | None = None
    customer_reference: str | None = None
    discount_reference: str | None = None
    period_start: datetime | None = None
    """The period that it pays for; None when it pays for none."""
    period_end: datetime | None = None
    payment: PaymentFact | None = None
    """The money, once it is paid. Its reference is the same in every fact about this bill, and in the checkout's
    report where the bill is a checkout's first."""
    paid_at: datetime | None = None
    hosted_url: str | None = None
    pdf_url: str | None = None
    receipt_url: str | None = None
    lines: tuple[InvoiceLine, ...] = ()
    details: dict[str, Any] = {}
    """Totals, payouts and whatever else the rail says of the money, in its own words."""


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bill."""

    price_reference: str | None
    price_id: str | None = None
    description: str
    quantity: int
    amount: int
    """Minor units, after discounts, before tax that comes on top; below 0 for credits."""
    subtotal: int | None = None
    """The same before discounts; None where the rail does not say."""
    proration: bool = False


class RefundFact(msgspec.Struct, frozen=True, kw_only=True, tag="refund"):
    """Money on its way back, or back."""

    reference: str
    refund_id: str | None
    """Ours; None when it was made at the rail."""
    payment_reference: str
    occurred_at: datetime
    amount: int
    asset: str
    status: Literal["pending", "processed", "failed"]
    kind: Literal["refund", "credit", "chargeback"] = "refund"
    reason: str = ""
    error: str | None = None
    """Why it failed, in the rail's words."""
    details: dict[str, Any] = {}


class DisputeFact(msgspec.Struct, frozen=True, kw_only=True, tag="dispute"):
    """A buyer asks their bank for the money back."""

    reference: str
    payment_reference: str
    occurred_at: datetime
    amount: int
    asset: str
    status: DisputeStatus
    reason: str = ""
    evidence_due_at: datetime | None = None
    details: dict[str, Any] = {}


class RailCopy(msgspec.Struct, frozen=True, kw_only=True, tag="copy"):
    """The rail's copy of one of our objects, or an object that somebody made there."""

    kind: str
    reference: str
    our_id: str | None
    """Our id, where the rail carries it back."""
    occurred_at: datetime | None
    active: bool
    values: dict[str, Any]
    """What it says in our terms: comparable, key by key, with :meth:`Mirror.expected`."""
    raw: dict[str, Any] = {}
    gone: bool = False
    """Deleted there."""


Fact: TypeAlias = SubscriptionFact | InvoiceFact | RefundFact | DisputeFact | RailCopy
