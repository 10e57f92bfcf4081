"""Operations on orders: made once, and moved on by the table in ``order_states``.

Whatever moves an order takes its row first, so that moves come one after another, and names the state it saw
in the UPDATE. Lists are in ``order_search``, orders made elsewhere come in by ``order_imports``.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page
from counterfoil.kernel.text import check_note
from counterfoil.sales import order_history
from counterfoil.sales.order_states import BY_REFUND_ONLY, ORDER_STEPS, check_step, illegal
from counterfoil.sales.tables import orders
from counterfoil.sales.types import CartLine, Checkout, Order, OrderHistoryEntry, OrderStatus

NOTE_MAX = 2000

_GET = sa.select(*columns(orders)).where(mine(orders), orders.c.id == sa.bindparam("id"))
_LOCK = _GET.with_for_update(key_share=True)
_OF_CHECKOUT = sa.select(*columns(orders)).where(mine(orders), orders.c.checkout_id == sa.bindparam("checkout_id"))
_MOVE = (
    sa.update(orders)
    .where(mine(orders), orders.c.id == sa.bindparam("order_id"), orders.c.status == sa.bindparam("from_status"))
    .values(status=sa.bindparam("to_status"), status_updated_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
    .returning(*columns(orders))
)
_GIVE_BACK = (
    sa.update(orders)
    .where(
        mine(orders),
        orders.c.id == sa.bindparam("order_id"),
        orders.c.refunded + sa.bindparam("more", type_=sa.BigInteger) <= orders.c.amount,
    )
    .values(refunded=orders.c.refunded + sa.bindparam("more", type_=sa.BigInteger), updated_at=sa.bindparam("now"))
    .returning(*columns(orders))
)


def create(tx: Tx, checkout: Checkout, lines: list[CartLine], *, subscription_id: str | None = None) -> Order | None:
    """Write down what a settled checkout bought; None when that was done before."""
    order = Order(
        id=tx.new_id("ord"),
        source=checkout.rail,
        purchase_reference=checkout.id,
        checkout_id=checkout.id,
        subscription_id=subscription_id,
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
    return order if add(tx, order, read_again=False, checkout_id=checkout.id) else None


def add(tx: Tx, order: Order, *, note: str = "", read_again: bool = True, **details: Any) -> bool:
    """Write an order down with its first step, unless its purchase has one already. Whether it was new.

    ``read_again``: whether this transaction may read that step.
    """
    if not tx.insert_if_new(orders, order):
        return False
    about: dict[str, Any] = {"customer_id": order.customer_id, "money": Money(order.amount, order.asset)}
    tx.record("order.created", "order", order.id, **about, source=order.source, **details)
    if order.status != "created":
        order_history.append(tx, order.id, "created", order.status, note, read_again=read_again)
        tx.record(f"order.{order.status}", "order", order.id, **about, from_status="created", note=note)
    return True


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
        "ships": any(benefit["kind"] == "goods" for benefit in line.benefits),
    }


def get(tx: Tx, order_id: str) -> Order:
    """Raise NotFound (``order_not_found``) when there is none."""
    row = tx.one(_GET, {"id": order_id})
    if row is None:
        raise NotFound("There is no such order.", code="order_not_found")
    return Order(*row)


def get_optional(tx: Tx, order_id: str | None) -> Order | None:
    """The order where an id is given."""
    return None if order_id is None else get(tx, order_id)


def lock(tx: Tx, order_id: str) -> Order:
    """Read an order and let nobody else change it, or what is counted against it, before we commit.

    Raises NotFound.
    """
    row = tx.one(_LOCK, {"id": order_id})
    if row is None:
        raise NotFound("There is no such order.", code="order_not_found")
    return Order(*row)


def of_checkout(tx: Tx, checkout_id: str) -> Order | None:
    """The order a checkout became, if it did."""
    row = tx.one(_OF_CHECKOUT, {"checkout_id": checkout_id})
    return Order(*row) if row else None


def history(tx: Tx, order_id: str, *, after: str = "", limit: int = 20) -> Page[OrderHistoryEntry]:
    """A page of an order's steps, oldest first. Raises NotFound."""
    get(tx, order_id)
    return order_history.of_order(tx, order_id, after=after, limit=limit)


def advance(tx: Tx, order_id: str, to: OrderStatus, *, note: str = "") -> Order:
    """Move an order on, with a note for its history.

    Raises NotFound, Invalid; Conflict (``illegal_transition``) for a step that the table does not have, and for
    ``refunded``, which only money that went back brings about.
    """
    said = check_note("note", note, most=NOTE_MAX)
    order = lock(tx, order_id)
    if to in BY_REFUND_ONLY:
        raise illegal("Without a refund, an order", order.status, to)
    return move(tx, order, to, note=said)


def move(tx: Tx, order: Order, to: OrderStatus, *, note: str) -> Order:
    """Move an order whose row is held. Raises Conflict (``illegal_transition``)."""
    check_step("An order", ORDER_STEPS, order.status, to)
    row = tx.one(_MOVE, {"order_id": order.id, "from_status": order.status, "to_status": to, "now": tx.now})
    if row is None:  # somebody moved it who did not take its row
        raise illegal("An order", order.status, to)
    order_history.append(tx, order.id, order.status, to, note)
    tx.record(f"order.{to}", "order", order.id, customer_id=order.customer_id, from_status=order.status, note=note)
    return Order(*row)


def note_refund(tx: Tx, order_id: str, amount: int) -> Order:
    """Write down that so many minor units of an order's amount went back to the buyer.

    When everything is back, the order is ``refunded``; a canceled one stays canceled. Raises NotFound, Invalid;
    Conflict (``refund_exceeds_order``) when that is more than what is left of its amount.
    """
    if amount < 1:
        raise Invalid.field("amount", "must be at least 1 minor unit")
    order = lock(tx, order_id)
    back = Money(amount, order.asset)
    row = tx.one(_GIVE_BACK, {"order_id": order_id, "more": amount, "now": tx.now})
    if row is None:
        left = Money(order.amount - order.refunded, order.asset)
        raise Conflict(f"Of this order, {left} is left to give back, not {back}.", code="refund_exceeds_order")
    given = Order(*row)
    note = f"Given back: {back}"
    is_whole = given.refunded == given.amount
    if is_whole and "refunded" in ORDER_STEPS[given.status]:
        return move(tx, given, "refunded", note=note)
    order_history.append(tx, order_id, given.status, given.status, note)
    type_ = "order.refunded" if is_whole else "order.partially_refunded"
    tx.record(type_, "order", order_id, customer_id=given.customer_id, money=back)
    return given
