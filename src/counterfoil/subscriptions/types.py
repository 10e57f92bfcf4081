"""Subscriptions outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

SubscriptionStatus = Literal["incomplete", "trialing", "active", "past_due", "unpaid", "paused", "canceled"]
ItemStatus = Literal["active", "inactive", "trialing"]


class Subscription(msgspec.Struct, frozen=True):
    """Something that a customer pays again and again, as its rail has it."""

    id: str
    customer_id: str | None
    user_id: str | None
    address_id: str | None
    business_id: str | None
    vault_l0: str | None
    """The vault that it pays for."""
    wallet: str | None
    checkout_id: str | None
    """The checkout that it began with."""
    email: str | None
    rail: str
    customer_reference: str | None
    """Who pays, as the rail names them."""
    status: SubscriptionStatus
    asset: str
    collection_mode: Literal["automatic", "manual"]
    billing_interval: Literal["day", "week", "month", "year"] | None
    interval_count: int | None
    anchor_at: datetime | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    paid_until: datetime | None
    """The end of the last period that was paid."""
    trial_end: datetime | None
    started_at: datetime | None
    first_billed_at: datetime | None
    next_billed_at: datetime | None
    paused_at: datetime | None
    canceled_at: datetime | None
    ends_at: datetime | None
    """When it ends or ended for good."""
    cancel_at_period_end: bool
    scheduled_change: dict[str, Any] | None
    """What will happen by itself: ``action``, ``effective_at``, ``resume_at``."""
    discount_id: str | None
    billing_details: dict[str, Any] | None
    heard_at: datetime | None
    """When it was as it is here, by the rail's clock."""
    heard: str | None
    """What tells apart news of the same moment, so that every order of them ends alike."""
    checked_at: datetime
    """When the rail was last heard or asked."""
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class SubscriptionItem(msgspec.Struct, frozen=True):
    """One price that a subscription is for."""

    id: str
    subscription_id: str
    product_id: str
    price_id: str
    quantity: int
    status: ItemStatus
    recurring: bool
    reference: str | None
    """The rail's own name for the item."""
    trial_starts_at: datetime | None
    trial_ends_at: datetime | None
    previously_billed_at: datetime | None
    next_billed_at: datetime | None
    price_snapshot: dict[str, Any] | None
    """The price as the rail had it."""
    product_snapshot: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class SubscriptionPeriod(msgspec.Struct, frozen=True):
    """A period that was paid, once."""

    subscription_id: str
    period_start: datetime
    period_end: datetime
    order_id: str | None
    invoice_id: str | None
    status: Literal["paid", "refunded"]
    amount: int
    asset: str
    created_at: datetime
    updated_at: datetime
