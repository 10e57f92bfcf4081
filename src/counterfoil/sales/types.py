"""Carts, checkouts, payments and orders outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

CheckoutStatus = Literal["open", "processing", "settled", "expired", "failed"]
PaymentStatus = Literal["settled", "underpaid", "overpaid", "late", "unmatched"]
Resolution = Literal["accepted", "dismissed"]
OrderStatus = Literal["paid"]


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
    checkout_id: str
    customer_id: str | None
    status: OrderStatus
    items: list[dict[str, Any]]
    amount: int
    asset: str
    discount_total: int
    tax_total: int
    email: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
