"""Operations on orders."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import orders
from counterfoil.sales.types import CartLine, Checkout, Order

_GET = sa.select(*columns(orders)).where(mine(orders), orders.c.id == sa.bindparam("id"))
_OF_CHECKOUT = sa.select(*columns(orders)).where(mine(orders), orders.c.checkout_id == sa.bindparam("checkout_id"))
_LIST = (
    sa.select(*columns(orders))
    .where(mine(orders), orders.c.id > sa.bindparam("after"))
    .order_by(orders.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_EMAIL = _LIST.where(orders.c.email == sa.bindparam("email"))


def create(tx: Tx, checkout: Checkout, lines: list[CartLine]) -> Order | None:
    """Write down what a settled checkout bought; None when that was done before."""
    order = Order(
        id=tx.new_id("ord"),
        source=checkout.rail,
        purchase_reference=checkout.id,
        checkout_id=checkout.id,
        customer_id=checkout.customer_id,
        user_id=None,
        status="paid",
        items=[_item(line) for line in lines],
        amount=checkout.amount,
        refunded=0,
        asset=checkout.asset,
        discount_total=sum(line.discount_total for line in lines),
        tax_total=0,
        email=checkout.email,
        shipping=checkout.shipping,
        metadata={},
        status_updated_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(orders, order):
        return None
    total = Money(order.amount, order.asset)
    tx.record(
        "order.created",
        "order",
        order.id,
        customer_id=order.customer_id,
        money=total,
        checkout_id=checkout.id,
        source=order.source,
    )
    return order


def _item(line: CartLine) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "price_id": line.price_id,
        "tier": line.tier,
        "name": line.name,
        "quantity": line.quantity,
        "unit_amount": line.unit_amount,
        "discount_total": line.discount_total,
        "total": line.total,
    }


def get(tx: Tx, order_id: str) -> Order:
    """Raise NotFound (``order_not_found``) when there is none."""
    row = tx.one(_GET, {"id": order_id})
    if row is None:
        raise NotFound("There is no such order.", code="order_not_found")
    return Order(*row)


def of_checkout(tx: Tx, checkout_id: str) -> Order | None:
    """The order a checkout became, if it did."""
    row = tx.one(_OF_CHECKOUT, {"checkout_id": checkout_id})
    return Order(*row) if row else None


def list_(tx: Tx, *, email: str | None = None, after: str = "", limit: int = 20) -> Page[Order]:
    """A page of orders, oldest first; of one buyer's address, or all."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_EMAIL, {**params, "email": email.lower()}) if email else tx.all(_LIST, params)
    return page_of([Order(*row) for row in rows], limit)
