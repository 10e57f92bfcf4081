"""Money that was gone and came back: a chargeback that the rail has won after all.

The contrary of :mod:`counterfoil.settlement.reverse`: the refund has failed in the end, its payment and its order
say so, and the period that the order paid is paid again.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.money import Money
from counterfoil.sales import order_history, orders, refund_money, refunds
from counterfoil.sales import tables as sales
from counterfoil.sales.types import Order, OrderStatus, Payment, Refund
from counterfoil.subscriptions.tables import subscription_periods

_CHARGED_BACK = sa.select(*columns(sales.refunds)).where(
    mine(sales.refunds),
    sales.refunds.c.payment_id == sa.bindparam("payment_id"),
    sales.refunds.c.kind == "chargeback",
    sales.refunds.c.status == "processed",
)
_FAIL = (
    sa.update(sales.refunds)
    .where(mine(sales.refunds), sales.refunds.c.id == sa.bindparam("refund_id"))
    .values(status="failed", processed_at=None, error=sa.bindparam("why"), updated_at=sa.bindparam("now"))
)
_AMOUNT = sa.bindparam("came_back", type_=sa.BigInteger)
_OF_PAYMENT = (
    sa.update(sales.payments)
    .where(mine(sales.payments), sales.payments.c.id == sa.bindparam("payment_id"))
    .values(
        refunded=sales.payments.c.refunded - _AMOUNT,
        refund_reserved=sales.payments.c.refund_reserved - _AMOUNT,
        updated_at=sa.bindparam("now"),
    )
)
_OF_ORDER = (
    sa.update(sales.orders)
    .where(mine(sales.orders), sales.orders.c.id == sa.bindparam("order_id"))
    .values(
        refunded=sa.bindparam("new_refunded", type_=sa.BigInteger),
        status=sa.bindparam("new_status"),
        status_updated_at=sa.bindparam("new_status_at"),
        updated_at=sa.bindparam("now"),
    )
)
_BEFORE_REFUNDED = (
    sa.select(sales.order_history.c.from_status)
    .where(
        mine(sales.order_history),
        sales.order_history.c.order_id == sa.bindparam("order_id"),
        sales.order_history.c.to_status == "refunded",
        sales.order_history.c.from_status != "refunded",
    )
    .order_by(sales.order_history.c.id.desc())
    .limit(1)
)
_PAID_AGAIN = (
    sa.update(subscription_periods)
    .where(
        mine(subscription_periods),
        subscription_periods.c.order_id == sa.bindparam("of_order"),
        subscription_periods.c.status == "refunded",
    )
    .values(status="paid", updated_at=sa.bindparam("now"))
)
_WHY: Final = "the buyer's bank gave the money back"


def restore(tx: Tx, payment: Payment, order: Order | None) -> bool:
    """Take every chargeback of a payment out of the books; whether there was one. Both rows are locked."""
    gone = [Refund(*row) for row in tx.all(_CHARGED_BACK, {"payment_id": payment.id})]
    for refund in gone:
        tx.execute(_FAIL, {"refund_id": refund.id, "why": _WHY, "now": tx.now})
        tx.execute(_OF_PAYMENT, {"payment_id": payment.id, "came_back": refund.amount, "now": tx.now})
        refunds.record(tx, "failed", refund, rail=refund.rail, why=_WHY)
    if gone and order is not None:
        _restore_order(tx, orders.get(tx, order.id))
    return bool(gone)


def _restore_order(tx: Tx, order: Order) -> None:
    """Only money that goes back makes an order ``refunded``, and only money that comes back leads out of there."""
    refunded = refund_money.returned(tx, order)
    status: OrderStatus = order.status
    if status == "refunded" and refunded < order.amount:
        row = tx.one(_BEFORE_REFUNDED, {"order_id": order.id})
        status = row.from_status if row is not None else "paid"
    at = order.status_updated_at if status == order.status else tx.now
    params = {"order_id": order.id, "new_refunded": refunded, "new_status": status, "new_status_at": at}
    tx.execute(_OF_ORDER, {**params, "now": tx.now})
    back = Money(order.refunded - refunded, order.asset)
    order_history.append(tx, order.id, order.status, status, f"Came back: {back}")
    tx.record("order.refund_reversed", "order", order.id, customer_id=order.customer_id, money=back)
    tx.execute(_PAID_AGAIN, {"of_order": order.id, "now": tx.now})
