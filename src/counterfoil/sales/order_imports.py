"""Orders that were made elsewhere: another shop, a fair, an invoice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import prices, products
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import money
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.text import check_line, check_slug, normalize_email
from counterfoil.sales import orders
from counterfoil.sales.quotes import MAX_LINES
from counterfoil.sales.tables import orders as orders_table
from counterfoil.sales.types import Order

MAX_QUANTITY = 10_000
_OWN_SOURCES = frozenset({"free"})
"""What our own checkouts write beside the names of rails."""

_BY_PURCHASE = sa.select(*columns(orders_table)).where(
    mine(orders_table),
    orders_table.c.purchase_reference == sa.bindparam("purchase_reference"),
    orders_table.c.source == sa.bindparam("source"),
)
_PRODUCTS = sa.select(products.c.id).where(mine(products), any_of(products.c.id, "ids"))
_PRICES = sa.select(prices.c.id, prices.c.product_id).where(mine(prices), any_of(prices.c.id, "ids"))


class NewOrderItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an order made elsewhere. Amounts are minor units of the order's asset."""

    name: str
    quantity: int = 1
    unit_amount: int
    total: int
    """What the line adds to the order, before what the order as a whole takes off."""
    product_id: str | None = None
    price_id: str | None = None
    ships: bool = False
    """Whether it is something to send."""


class NewOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order made elsewhere. Its source and reference together are new once."""

    source: str
    """Where it was made: a word of one's own, not the name of a rail."""
    purchase_reference: str
    """What it is called there."""
    items: list[NewOrderItem]
    amount: int
    asset: str
    discount_total: int = 0
    tax_total: int = 0
    status: Literal["created", "paid"] = "paid"
    customer_id: str | None = None
    user_id: str | None = None
    email: str | None = None
    shipping: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}


class Imported(NamedTuple):
    """The order of a purchase, and whether it was not there before."""

    order: Order
    is_new: bool


def by_purchase(tx: Tx, source: str, purchase_reference: str) -> Order | None:
    """The order that one purchase became, if it did."""
    row = tx.one(_BY_PURCHASE, {"source": source, "purchase_reference": purchase_reference})
    return Order(*row) if row else None


def import_(tx: Tx, new: NewOrder, *, rails: Collection[str]) -> Imported:
    """Write down an order made elsewhere, unless it is here already: then it is the answer, as it is.

    ``rails``: the sources that belong to settlement. The customer and the user must be there.
    Raises Invalid (``source_reserved``, ``empty_order``, ``order_too_large``, ``total_mismatch``,
    ``unknown_asset`` among others); NotFound (``product_not_found``, ``price_not_found``).
    """
    reference = check_line("purchase_reference", new.purchase_reference, most=255, least=1)
    email = _check(new, rails)
    if (known := by_purchase(tx, new.source, reference)) is not None:
        return Imported(known, is_new=False)
    order = Order(
        id=tx.new_id("ord"),
        source=new.source,
        purchase_reference=reference,
        checkout_id=None,
        subscription_id=None,
        customer_id=new.customer_id,
        user_id=new.user_id,
        status=new.status,
        items=_items(tx, new.items),
        amount=new.amount,
        refunded=0,
        asset=new.asset,
        discount_total=new.discount_total,
        tax_total=new.tax_total,
        email=email,
        shipping=new.shipping,
        metadata=new.metadata,
        status_updated_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if orders.add(tx, order, note=f"Imported from {new.source}", purchase_reference=reference):
        return Imported(order, is_new=True)
    first = by_purchase(tx, new.source, reference)  # somebody wrote it since we looked
    assert first is not None
    return Imported(first, is_new=False)


def _check(new: NewOrder, rails: Collection[str]) -> str | None:
    check_slug("source", new.source)
    if new.source in _OWN_SOURCES or new.source in rails:
        raise Invalid.field("source", "a rail's orders are made by its payments", code="source_reserved")
    if not new.items:
        raise Invalid.field("items", "an order has at least one item", code="empty_order")
    if len(new.items) > MAX_LINES:
        raise Invalid.field("items", f"an order has at most {MAX_LINES} items", code="order_too_large")
    if not money.is_known(new.asset):
        raise Invalid.field("asset", "not a currency or token we know", code="unknown_asset")
    for name in ("amount", "discount_total", "tax_total"):
        _check_amount(name, getattr(new, name))
    for place, item in enumerate(new.items):
        check_line(f"items/{place}/name", item.name, most=500, least=1)
        if not 1 <= item.quantity <= MAX_QUANTITY:
            raise Invalid.field(
                f"items/{place}/quantity", f"must be from 1 to {MAX_QUANTITY}", code="quantity_out_of_range"
            )
        _check_amount(f"items/{place}/unit_amount", item.unit_amount)
        _check_amount(f"items/{place}/total", item.total)
    total = sum(item.total for item in new.items) - new.discount_total + new.tax_total
    if total != new.amount:
        raise Invalid.field(
            "amount", f"the items less the discounts plus the tax are {total}, not {new.amount}", code="total_mismatch"
        )
    if new.shipping is not None:
        check_metadata("shipping", new.shipping)
    check_metadata("metadata", new.metadata)
    return None if new.email is None else normalize_email("email", new.email)


def _check_amount(field: str, value: int) -> None:
    if not 0 <= value <= money.MAX_AMOUNT:
        raise Invalid.field(field, f"minor units from 0 to {money.MAX_AMOUNT}")


def _items(tx: Tx, items: list[NewOrderItem]) -> list[dict[str, Any]]:
    """The items as orders keep them. Raises NotFound for a product or a price that is not there."""
    wanted_prices = sorted({item.price_id for item in items if item.price_id is not None})
    wanted_products = sorted({item.product_id for item in items if item.product_id is not None})
    product_of = {row.id: row.product_id for row in tx.all(_PRICES, {"ids": wanted_prices})} if wanted_prices else {}
    known = {row.id for row in tx.all(_PRODUCTS, {"ids": wanted_products})} if wanted_products else set()
    kept = []
    for place, item in enumerate(items):
        product_id = item.product_id
        if product_id is not None and product_id not in known:
            raise NotFound(f"items/{place}/product_id: there is no such product.", code="product_not_found")
        if item.price_id is not None:
            priced = product_of.get(item.price_id)
            if priced is None or product_id not in {None, priced}:
                raise NotFound(f"items/{place}/price_id: there is no such price of it.", code="price_not_found")
            product_id = priced
        kept.append(
            {
                "product_id": product_id,
                "price_id": item.price_id,
                "tier": None,
                "name": check_line("name", item.name, most=500),
                "quantity": item.quantity,
                "unit_amount": item.unit_amount,
                "discount_total": 0,
                "total": item.total,
                "ships": item.ships,
            }
        )
    return kept
