"""Goods: what is shipped rather than issued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterfoil.catalog import stock_reservations
from counterfoil.catalog.stock_reservations import Demand
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid
from counterfoil.sales.types import CartLine, Order
from counterfoil.settlement.types import Grant


def ships(benefits: Sequence[dict[str, Any]]) -> bool:
    """Whether a line with these benefits is shipped."""
    return any(benefit["kind"] == "goods" for benefit in benefits)


def grants(tx: Tx, order: Order, lines: Sequence[CartLine]) -> list[Grant]:
    """One grant for each line that is shipped, whatever its quantity: what it gives is the order itself."""
    return [
        Grant(
            id=tx.new_id("grt"),
            kind="goods",
            customer_id=order.customer_id,
            product_id=line.product_id,
            order_id=order.id,
            subscription_id=order.subscription_id,
            line=line.position,
            unit=0,
            object_id=order.id,
            status="active",
            starts_at=tx.now,
            ends_at=None,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for line in lines
        if ships(line.benefits)
    ]


def of_renewal(tx: Tx, order: Order) -> list[Grant]:
    """Grants for what a later order of a subscription ships."""
    return [
        Grant(
            id=tx.new_id("grt"),
            kind="goods",
            customer_id=order.customer_id,
            product_id=item["product_id"],
            order_id=order.id,
            subscription_id=order.subscription_id,
            line=place,
            unit=0,
            object_id=order.id,
            status="active",
            starts_at=tx.now,
            ends_at=None,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for place, item in enumerate(order.items)
        if item["ships"]
    ]


def put_back(tx: Tx, order: Order, restock: Sequence[dict[str, Any]]) -> None:
    """Put goods of an order on the shelf again: ``line`` is the place in its items, ``quantity`` at most that line's.

    What is not counted is left alone. Call it once: it does not know what was put back before. Raises Invalid.
    """
    returned = [_returned(order, place, one) for place, one in enumerate(restock)]
    stock_reservations.put_back(tx, returned, reason="returned", order_id=order.id)


def _returned(order: Order, place: int, one: dict[str, Any]) -> Demand:
    line, quantity = one["line"], one["quantity"]
    if not 0 <= line < len(order.items):
        raise Invalid.field(f"restock/{place}/line", "this order has no such line", code="line_not_found")
    item = order.items[line]
    if not 1 <= quantity <= item["quantity"]:
        raise Invalid.field(
            f"restock/{place}/quantity", f"from 1 to {item['quantity']} of this line", code="quantity_exceeds_order"
        )
    return Demand(
        product_id=item.get("product_id") or "",
        price_id=item.get("price_id") or "",
        quantity=quantity,
        name=item["name"],
        line=line,
    )
