"""Pricing a cart: what is bought, what it costs here and now, and what it promises.

Rounding happens once a line, half up, where a percentage is taken off; everything else is exact.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import benefits, prices, products
from counterfoil.catalog.types import Benefit, Price
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.money import MAX_AMOUNT
from counterfoil.sales.tables import cart_lines, carts
from counterfoil.sales.types import Cart, CartLine

MAX_LINES = 100

_Promises = dict[tuple[str, str], list[dict[str, Any]]]
"""Benefits by product and tier."""

_OFFERS = (
    sa.select(*columns(prices), products.c.name.label("product_name"), products.c.status.label("product_status"))
    .join(products, sa.and_(products.c.tenant_id == prices.c.tenant_id, products.c.id == prices.c.product_id))
    .where(mine(prices), any_of(prices.c.id, "ids"))
)
_BENEFITS = (
    sa.select(*columns(benefits))
    .where(mine(benefits), any_of(benefits.c.product_id, "ids"))
    .order_by(benefits.c.product_id, benefits.c.id)
)
_LINES = (
    sa.select(*columns(cart_lines))
    .where(mine(cart_lines), cart_lines.c.cart_id == sa.bindparam("cart_id"))
    .order_by(cart_lines.c.position)
)


class WantedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing a buyer wants."""

    price_id: str
    quantity: int = 1


class PricedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line with its price before discounts, and what it promises."""

    price: Price
    name: str
    quantity: int
    unit_amount: int
    benefits: list[dict[str, Any]]
    discount_total: int = 0
    discounts: list[dict[str, Any]] = []

    @property
    def subtotal(self) -> int:
        """Before discounts."""
        return self.unit_amount * self.quantity


def price_lines(tx: Tx, wanted: list[WantedLine], *, country: str | None = None) -> list[PricedLine]:
    """Price each line as of now. Raises Invalid, NotFound; every line must be in the same asset."""
    if not wanted:
        raise Invalid.field("lines", "a cart needs at least one line", code="empty_cart")
    if len(wanted) > MAX_LINES:
        raise Invalid.field("lines", f"a cart has at most {MAX_LINES} lines", code="cart_too_large")
    if country is not None and not re.fullmatch(r"[A-Z]{2}", country):
        raise Invalid.field("country", "an ISO 3166-1 alpha-2 code in upper case")
    found = {row.id: row for row in tx.all(_OFFERS, {"ids": sorted({line.price_id for line in wanted})})}
    promised = _promises(tx, sorted({row.product_id for row in found.values()}))
    lines = [_price_line(place, line, found.get(line.price_id), country, promised) for place, line in enumerate(wanted)]
    for place, priced in enumerate(lines):
        if priced.price.asset != lines[0].price.asset:
            raise Invalid.field(f"lines/{place}/price_id", "all lines must be in one asset", code="mixed_assets")
    if sum(line.subtotal for line in lines) > MAX_AMOUNT:
        raise Invalid.field("lines", "this cart costs more than we count", code="cart_too_large")
    return lines


def _price_line(place: int, line: WantedLine, row: Row | None, country: str | None, promised: _Promises) -> PricedLine:
    if row is None:
        raise NotFound(f"lines/{place}/price_id: there is no such price.", code="price_not_found")
    *fields, product_name, product_status = row
    price = Price(*fields)
    if price.status != "active" or product_status != "active":
        raise Invalid.field(f"lines/{place}/price_id", "not for sale any more", code="price_archived")
    if price.type == "recurring":  # one payment must not buy for ever what is sold by the month
        raise Invalid.field(
            f"lines/{place}/price_id",
            "sold as a subscription, which cannot be bought yet",
            code="recurring_not_supported",
        )
    if not price.quantity_min <= line.quantity <= price.quantity_max:
        raise Invalid.field(
            f"lines/{place}/quantity",
            f"this price sells from {price.quantity_min} to {price.quantity_max}",
            code="quantity_out_of_range",
        )
    return PricedLine(
        price=price,
        name=f"{product_name} {price.name}".strip(),
        quantity=line.quantity,
        unit_amount=unit_amount(price, country),
        benefits=promised.get((price.product_id, price.tier), []),
    )


def _promises(tx: Tx, product_ids: list[str]) -> _Promises:
    promised: _Promises = {}
    for row in tx.all(_BENEFITS, {"ids": product_ids}):
        benefit = Benefit(*row)
        promised.setdefault((benefit.product_id, benefit.tier), []).append({"kind": benefit.kind, "spec": benefit.spec})
    return promised


def unit_amount(price: Price, country: str | None) -> int:
    """What one unit costs a buyer in this country."""
    for override in price.country_overrides:
        if country in override["countries"]:
            return int(override["unit_amount"])
    return price.unit_amount


def save(
    tx: Tx,
    lines: list[PricedLine],
    *,
    customer_id: str | None,
    country: str | None,
    holds_for: timedelta,
    metadata: dict[str, Any],
) -> Cart:
    """Write a priced cart down. Its totals and its promises hold until it expires."""
    subtotal = sum(line.subtotal for line in lines)
    discount_total = sum(line.discount_total for line in lines)
    cart = Cart(
        id=tx.new_id("crt"),
        customer_id=customer_id,
        asset=lines[0].price.asset,
        subtotal=subtotal,
        discount_total=discount_total,
        tax_total=0,
        total=subtotal - discount_total,
        country=country,
        rail=None,
        code=None,
        email=None,
        status="open",
        paid_by=None,
        paid_at=None,
        expires_at=tx.now + holds_for,
        metadata=metadata,
        created_at=tx.now,
    )
    tx.insert(carts, cart)
    rows = [
        CartLine(
            id=tx.new_id("cln"),
            cart_id=cart.id,
            position=position,
            product_id=line.price.product_id,
            price_id=line.price.id,
            tier=line.price.tier,
            name=line.name,
            quantity=line.quantity,
            unit_amount=line.unit_amount,
            subtotal=line.subtotal,
            discount_total=line.discount_total,
            total=line.subtotal - line.discount_total,
            discounts=line.discounts,
            benefits=line.benefits,
            metadata={},
            created_at=tx.now,
        )
        for position, line in enumerate(lines)
    ]
    tx.insert(cart_lines, *rows)
    return cart


def lines_of(tx: Tx, cart_id: str) -> list[CartLine]:
    """The lines of a cart, in order."""
    return [CartLine(*row) for row in tx.all(_LINES, {"cart_id": cart_id})]
