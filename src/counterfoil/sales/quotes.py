"""Pricing a cart: what is bought, what it costs here and now, and what it promises.

What discounts take off is ``catalog.pricing``'s to say; everything here is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import benefits, prices, products, stock_items
from counterfoil.catalog.types import Price, StockItem
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.money import MAX_AMOUNT
from counterfoil.sales.tables import cart_lines, carts
from counterfoil.sales.types import Cart, CartLine

MAX_LINES = 100

_OFFERS = (
    sa.select(
        *columns(prices),
        products.c.name.label("product_name"),
        products.c.status.label("product_status"),
        benefits.c.kind.label("benefit_kind"),
        benefits.c.spec.label("benefit_spec"),
        *columns(stock_items),
    )
    .join(products, sa.and_(products.c.tenant_id == prices.c.tenant_id, products.c.id == prices.c.product_id))
    .outerjoin(
        benefits,
        sa.and_(
            benefits.c.tenant_id == prices.c.tenant_id,
            benefits.c.product_id == prices.c.product_id,
            benefits.c.tier == prices.c.tier,
        ),
    )
    .outerjoin(
        stock_items,
        sa.and_(
            stock_items.c.tenant_id == prices.c.tenant_id,
            stock_items.c.product_id == prices.c.product_id,
            sa.or_(stock_items.c.price_id.is_(None), stock_items.c.price_id == prices.c.id),
        ),
    )
    .where(mine(prices), any_of(prices.c.id, "ids"))
    .order_by(prices.c.id, benefits.c.id)
)
_LINES = (
    sa.select(*columns(cart_lines))
    .where(mine(cart_lines), cart_lines.c.cart_id == sa.bindparam("cart_id"))
    .order_by(cart_lines.c.position)
)
_PRICE_WIDTH = len(columns(prices))
_STOCK_AT = _PRICE_WIDTH + 4
"""After the product's name and status, and the benefit's kind and spec."""


class WantedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing a buyer wants."""

    price_id: str
    quantity: int = 1
    metadata: dict[str, Any] = {}


class Offer(msgspec.Struct, frozen=True):
    """A price, the product it is of, what the price's tier promises, and how much there is of it."""

    price: Price
    product_name: str
    product_status: str
    benefits: list[dict[str, Any]]
    stock: list[StockItem]
    """What is counted for the price itself, for its product, or both."""


class PricedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line with its price before discounts, and what it promises."""

    price: Price
    name: str
    quantity: int
    unit_amount: int
    """What a unit costs now: nothing while it is tried."""
    benefits: list[dict[str, Any]]
    recurring: dict[str, Any] | None = None
    """How it goes on when it is a subscription's (``CartLine.recurring``)."""
    metadata: dict[str, Any] = {}
    discount_total: int = 0
    discounts: list[dict[str, Any]] = []

    @property
    def product_id(self) -> str:
        """What it is a price of."""
        return self.price.product_id

    @property
    def price_id(self) -> str:
        """The price's id."""
        return self.price.id

    @property
    def subtotal(self) -> int:
        """Before discounts."""
        return self.unit_amount * self.quantity


class CartWithLines(msgspec.Struct, frozen=True):
    """A priced cart and its lines, in order."""

    cart: Cart
    lines: list[CartLine]


def check_lines(wanted: list[WantedLine], country: str | None) -> None:
    """What can be seen without looking anything up. Raises Invalid."""
    if not wanted:
        raise Invalid.field("lines", "a cart needs at least one line", code="empty_cart")
    if len(wanted) > MAX_LINES:
        raise Invalid.field("lines", f"a cart has at most {MAX_LINES} lines", code="cart_too_large")
    if country is not None and not re.fullmatch(r"[A-Z]{2}", country):
        raise Invalid.field("country", "an ISO 3166-1 alpha-2 code in upper case")


def price_lines(
    wanted: list[WantedLine], offers: Mapping[str, Offer], *, country: str | None = None
) -> list[PricedLine]:
    """Price each line as offered, by the price's id. Raises Invalid, NotFound; all lines must be in one asset."""
    lines = [_price_line(place, line, offers.get(line.price_id), country) for place, line in enumerate(wanted)]
    for place, priced in enumerate(lines):
        if priced.price.asset != lines[0].price.asset:
            raise Invalid.field(f"lines/{place}/price_id", "all lines must be in one asset", code="mixed_assets")
    again = [place for place, priced in enumerate(lines) if priced.recurring is not None]
    for place in again[1:]:
        if _rhythm(lines[place]) != _rhythm(lines[again[0]]):
            detail = "whatever is paid again must be paid equally often, after the same trial"
            raise Invalid.field(f"lines/{place}/price_id", detail, code="mixed_intervals")
    if len({lines[place].price_id for place in again}) < len(again):
        raise Invalid.field("lines", "a subscription has each price once: raise its quantity", code="duplicate_price")
    if sum(line.subtotal for line in lines) > MAX_AMOUNT:
        raise Invalid.field("lines", "this cart costs more than we count", code="cart_too_large")
    return lines


def _rhythm(line: PricedLine) -> tuple[Any, ...]:
    again = line.recurring or {}
    return again.get("interval"), again.get("interval_count"), again.get("trial_days")


def offers_of(tx: Tx, price_ids: Iterable[str]) -> dict[str, Offer]:
    """The prices there are of these, by id."""
    offers: dict[str, Offer] = {}
    for row in tx.all(_OFFERS, {"ids": sorted(set(price_ids))}):  # a row for each benefit and each count of stock
        name, status, kind, spec = row[_PRICE_WIDTH:_STOCK_AT]
        offer = offers.get(row[0])
        if offer is None:
            offer = offers[row[0]] = Offer(Price(*row[:_PRICE_WIDTH]), name, status, [], [])
        if kind is not None and all(one["kind"] != kind for one in offer.benefits):  # a tier has one of each kind
            offer.benefits.append({"kind": kind, "spec": spec})
        if row[_STOCK_AT] is not None and all(one.id != row[_STOCK_AT] for one in offer.stock):
            offer.stock.append(StockItem(*row[_STOCK_AT:]))
    return offers


def _price_line(place: int, line: WantedLine, offer: Offer | None, country: str | None) -> PricedLine:
    check_metadata(f"lines/{place}/metadata", line.metadata)
    if offer is None:
        raise NotFound(f"lines/{place}/price_id: there is no such price.", code="price_not_found")
    price = offer.price
    if price.status != "active" or offer.product_status != "active":
        raise Invalid.field(f"lines/{place}/price_id", "not for sale any more", code="price_archived")
    if not price.quantity_min <= line.quantity <= price.quantity_max:
        raise Invalid.field(
            f"lines/{place}/quantity",
            f"this price sells from {price.quantity_min} to {price.quantity_max}",
            code="quantity_out_of_range",
        )
    amount = unit_amount(price, country)
    return PricedLine(
        price=price,
        name=f"{offer.product_name} {price.name}".strip(),
        quantity=line.quantity,
        unit_amount=0 if price.trial_days else amount,
        recurring=_recurring(price, amount),
        benefits=offer.benefits,
        metadata=line.metadata,
    )


def _recurring(price: Price, amount: int) -> dict[str, Any] | None:
    """How a line goes on after its first period."""
    if price.type != "recurring":
        return None
    return {
        "interval": price.interval,
        "interval_count": price.interval_count,
        "trial_days": price.trial_days,
        "unit_amount": amount,
    }


def unit_amount(price: Price, country: str | None) -> int:
    """What one unit costs a buyer in this country."""
    for override in price.country_overrides:
        if country in override["countries"]:
            return int(override["unit_amount"])
    return price.unit_amount


def draw_up(
    tx: Tx,
    lines: list[PricedLine],
    *,
    customer_id: str | None,
    country: str | None,
    rail: str | None,
    code: str | None,
    email: str | None,
    holds_for: timedelta,
    metadata: dict[str, Any],
) -> CartWithLines:
    """A priced cart, to be saved. Its totals and its promises hold until it expires."""
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
        rail=rail,
        code=code,
        email=email,
        status="open",
        paid_by=None,
        paid_at=None,
        expires_at=tx.now + holds_for,
        metadata=metadata,
        created_at=tx.now,
    )
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
            recurring=line.recurring,
            metadata=line.metadata,
            created_at=tx.now,
        )
        for position, line in enumerate(lines)
    ]
    return CartWithLines(cart, rows)


def save(tx: Tx, drawn_up: Sequence[CartWithLines]) -> None:
    """Write carts down, all together.

    Nothing enters the record: a quote binds nobody but us, and most of them just lapse.
    """
    tx.insert(carts, *[one.cart for one in drawn_up])
    tx.insert(cart_lines, *[line for one in drawn_up for line in one.lines])


def lines_of(tx: Tx, cart_id: str) -> list[CartLine]:
    """The lines of a cart, in order."""
    return [CartLine(*row) for row in tx.all(_LINES, {"cart_id": cart_id})]
