"""Paddle's objects, as far as we read them. Fields that are not here are kept where the whole object is.

Unknown fields are passed over, and enumerations are plain text: Paddle adds to both without a new version.
Source: Paddle's OpenAPI specification of 2025-05-27, schemas of the same names.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Amount(msgspec.Struct, frozen=True):
    """``money``: minor units as text."""

    amount: str
    currency_code: str


class Span(msgspec.Struct, frozen=True):
    """``time_period``."""

    starts_at: str
    ends_at: str


class Cycle(msgspec.Struct, frozen=True):
    """``duration``: so many days, weeks, months or years."""

    interval: str
    frequency: int


class Price(msgspec.Struct, frozen=True):
    """``price``, as items carry it."""

    id: str
    name: str | None = None
    description: str | None = None
    tax_mode: str = "account_setting"
    billing_cycle: Cycle | None = None
    custom_data: Any = None


class Totals(msgspec.Struct, frozen=True):
    """``totals``: of a line, a transaction, an adjustment or an adjustment's item."""

    total: str
    tax: str = "0"
    subtotal: str | None = None
    """Before discount and tax, also where the tax is in the price."""
    discount: str = "0"


class TransactionItem(msgspec.Struct, frozen=True):
    """``transaction_item``: what is charged for."""

    price: Price
    quantity: int = 1


class Product(msgspec.Struct, frozen=True):
    """``product``, as line items carry it."""

    name: str = ""


class LineItem(msgspec.Struct, frozen=True):
    """``transaction_line_item``: what is charged for it."""

    id: str
    totals: Totals
    price_id: str | None = None
    quantity: int = 1
    proration: Any = None
    product: Product | None = None


class Details(msgspec.Struct, frozen=True):
    """``transaction_details``."""

    totals: Totals
    line_items: list[LineItem] = []


class Attempt(msgspec.Struct, frozen=True):
    """``transaction_payment_attempt``."""

    status: str
    captured_at: str | None = None


class Link(msgspec.Struct, frozen=True):
    """A transaction's ``checkout``."""

    url: str | None = None


class AdjustmentItem(msgspec.Struct, frozen=True):
    """``adjustment_item``."""

    item_id: str
    totals: Totals


class Adjustment(msgspec.Struct, frozen=True):
    """``adjustment``: what was given back of a transaction, or taken."""

    id: str
    action: str
    transaction_id: str
    status: str
    currency_code: str
    totals: Totals
    reason: str = ""
    items: list[AdjustmentItem] | None = None
    updated_at: str | None = None


class Transaction(msgspec.Struct, frozen=True):
    """``transaction``: a checkout, a bill, or both."""

    id: str
    status: str
    currency_code: str
    details: Details
    created_at: str
    origin: str = ""
    items: list[TransactionItem] = []
    payments: list[Attempt] = []
    customer_id: str | None = None
    subscription_id: str | None = None
    discount_id: str | None = None
    invoice_number: str | None = None
    collection_mode: str = "automatic"
    billing_period: Span | None = None
    checkout: Link | None = None
    custom_data: Any = None
    updated_at: str | None = None
    billed_at: str | None = None
    adjustments: list[Adjustment] = []
    """Only where asked for."""

    @property
    def is_paid(self) -> bool:
        """Whether the money is in. ``completed`` means that Paddle has also done its books."""
        return self.status in {"paid", "completed"}


class SubscriptionItem(msgspec.Struct, frozen=True):
    """``item-subscription``."""

    price: Price
    quantity: int = 1
    status: str = "active"
    recurring: bool = True
    previously_billed_at: str | None = None
    next_billed_at: str | None = None
    trial_dates: Span | None = None


class Change(msgspec.Struct, frozen=True):
    """``subscription_scheduled_change``."""

    action: str
    effective_at: str
    resume_at: str | None = None


class SubscriptionDiscount(msgspec.Struct, frozen=True):
    """``discount-subscription``."""

    id: str
    ends_at: str | None = None


class Subscription(msgspec.Struct, frozen=True):
    """``subscription``."""

    id: str
    status: str
    currency_code: str
    items: list[SubscriptionItem]
    updated_at: str
    customer_id: str | None = None
    address_id: str | None = None
    business_id: str | None = None
    discount: SubscriptionDiscount | None = None
    collection_mode: str = "automatic"
    billing_details: dict[str, Any] | None = None
    billing_cycle: Cycle | None = None
    current_billing_period: Span | None = None
    scheduled_change: Change | None = None
    started_at: str | None = None
    first_billed_at: str | None = None
    next_billed_at: str | None = None
    paused_at: str | None = None
    canceled_at: str | None = None
    custom_data: Any = None
