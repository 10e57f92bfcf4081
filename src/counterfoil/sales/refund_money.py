"""The money of refunds: claimed from a payment when it is asked for, given when it is back, else let go.

A payment's ``refund_reserved`` is what refunds that are under way or done claim of it, and ``refunded`` what was
given back. A claim is one conditional UPDATE, so that no number of requests takes more than was paid. Locks are
taken in the order refund, checkout, order, payment; several of a kind by id.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import money
from counterfoil.kernel.errors import Conflict, FieldError, Invalid, NotFound
from counterfoil.kernel.money import Money
from counterfoil.sales import orders, payments
from counterfoil.sales.tables import checkouts as checkouts_table
from counterfoil.sales.tables import orders as orders_table
from counterfoil.sales.tables import payments as payments_table
from counterfoil.sales.types import Order, Payment

_LOCK_ORDERS = (
    sa.select(orders_table.c.id)
    .where(mine(orders_table), any_of(orders_table.c.id, "ids"))
    .order_by(orders_table.c.id)
    .with_for_update(key_share=True)
)
_LOCK_PAYMENTS = (
    sa.select(payments_table.c.id)
    .where(mine(payments_table), any_of(payments_table.c.id, "ids"))
    .order_by(payments_table.c.id)
    .with_for_update(key_share=True)
)
_PAYMENT_BY_REFERENCE = sa.select(*columns(payments_table)).where(
    mine(payments_table),
    payments_table.c.rail == sa.bindparam("rail"),
    payments_table.c.reference == sa.bindparam("reference"),
)
_ORDER_BY_PURCHASE = sa.select(*columns(orders_table)).where(
    mine(orders_table),
    orders_table.c.source == sa.bindparam("source"),
    orders_table.c.purchase_reference == sa.bindparam("reference"),
)
_CHANGE = (
    sa.update(payments_table)
    .where(mine(payments_table), payments_table.c.id == sa.bindparam("payment_id"))
    .returning(*columns(payments_table))
)
_AMOUNT = sa.bindparam("taken", type_=sa.BigInteger)
_CLAIM = _CHANGE.where(payments_table.c.refund_reserved + _AMOUNT <= payments_table.c.amount).values(
    refund_reserved=payments_table.c.refund_reserved + _AMOUNT, updated_at=sa.bindparam("now")
)
# Neither can meet what its condition forbids; the check constraint on the three columns says the same.
_LET_GO = _CHANGE.where(payments_table.c.refund_reserved - _AMOUNT >= payments_table.c.refunded).values(
    refund_reserved=payments_table.c.refund_reserved - _AMOUNT, updated_at=sa.bindparam("now")
)
_GIVE = _CHANGE.where(payments_table.c.refunded + _AMOUNT <= payments_table.c.refund_reserved).values(
    refunded=payments_table.c.refunded + _AMOUNT, updated_at=sa.bindparam("now")
)

_COUNT_NO_LONGER = (
    sa.update(checkouts_table)
    .where(
        mine(checkouts_table),
        checkouts_table.c.id == sa.bindparam("checkout_id"),
        checkouts_table.c.asset == sa.bindparam("of_asset"),
        checkouts_table.c.status != "settled",
        checkouts_table.c.paid >= _AMOUNT,
    )
    .values(paid=checkouts_table.c.paid - _AMOUNT, updated_at=sa.bindparam("now"))
)


class Target(msgspec.Struct, frozen=True):
    """The payment to give back of, and the order it paid, if it did."""

    payment: Payment
    order: Order | None


def find(
    tx: Tx, order_id: str | None, payment_id: str | None, *, customer_id: str | None = None, at: str = ""
) -> Target:
    """What a request names: a payment, or an order with one payment.

    ``customer_id``: only what is this customer's. ``at`` is where the request stands in what was sent. Raises
    NotFound; Invalid (``payment_required``, ``payment_not_of_order``).
    """
    if order_id is None and payment_id is None:
        raise Invalid.field(f"{at}payment_id", "name an order or a payment", code="payment_required")
    order = orders.get(tx, order_id) if order_id is not None else None
    if order is not None and customer_id is not None and order.customer_id != customer_id:
        raise NotFound("There is no such order.", code="order_not_found")
    if payment_id is not None:
        payment = payments.get(tx, payment_id)
        paid_for = order_of(tx, payment)
        if order is not None and (paid_for is None or paid_for.id != order.id):
            raise Invalid.field(f"{at}payment_id", "did not pay this order", code="payment_not_of_order")
        if customer_id is not None and payment.customer_id != customer_id:
            raise NotFound("There is no such payment.", code="payment_not_found")
        return Target(payment, paid_for)
    assert order is not None
    paid = [payment for payment in of_order(tx, order) if payment.amount]
    if not paid:
        raise _too_much(0, order.asset, f"{at}order_id")
    if len(paid) > 1:
        listed = ", ".join(payment.id for payment in paid)
        raise Invalid.field(f"{at}payment_id", f"this order has several: {listed}", code="payment_required")
    return Target(paid[0], order)


def order_of(tx: Tx, payment: Payment) -> Order | None:
    """The order whose money this is; none where it came in another asset than the order's."""
    if payment.checkout_id is not None:
        order = orders.of_checkout(tx, payment.checkout_id)
    else:
        row = tx.one(_ORDER_BY_PURCHASE, {"source": payment.rail, "reference": payment.reference})
        order = Order(*row) if row else None
    return order if order is not None and order.asset == payment.asset else None


def of_order(tx: Tx, order: Order) -> list[Payment]:
    """What was paid for an order in its asset, oldest first: money over what it cost included."""
    if order.checkout_id is not None:
        found = payments.of_checkout(tx, order.checkout_id)
    else:
        rows = tx.all(_PAYMENT_BY_REFERENCE, {"rail": order.source, "reference": order.purchase_reference})
        found = [Payment(*row) for row in rows]
    return [payment for payment in found if payment.asset == order.asset]


def lock(tx: Tx, targets: Iterable[Target]) -> None:
    """Lock the orders, then the payments."""
    known = list(targets)
    if order_ids := sorted({target.order.id for target in known if target.order is not None}):
        tx.all(_LOCK_ORDERS, {"ids": order_ids})
    tx.all(_LOCK_PAYMENTS, {"ids": sorted({target.payment.id for target in known})})


def claim(tx: Tx, payment: Payment, amount: int | None, *, at: str = "") -> tuple[Payment, int]:
    """Claim an amount of a payment, or all that is left: the payment as it is now, and how much that is.

    Raises Conflict (``refund_exceeds_payment``).
    """
    if amount is None:
        fresh = payments.get(tx, payment.id)
        amount = fresh.amount - fresh.refund_reserved
    row = tx.one(_CLAIM, {"payment_id": payment.id, "taken": amount, "now": tx.now}) if amount else None
    if row is None:
        fresh = payments.get(tx, payment.id)
        raise _too_much(fresh.amount - fresh.refund_reserved, payment.asset, f"{at}amount")
    return Payment(*row), amount


def _too_much(left: int, asset: str, pointer: str) -> Conflict:
    what = money.show(Money(left, asset)) if left else "nothing"
    detail = f"Of what was paid, {what} is left to give back."
    return Conflict(detail, code="refund_exceeds_payment", errors=(FieldError(f"/{pointer}", detail),))


def let_go(tx: Tx, payment_id: str, amount: int) -> None:
    """Let go of a claim: the money stays ours."""
    if tx.one(_LET_GO, {"payment_id": payment_id, "taken": amount, "now": tx.now}) is None:
        raise RuntimeError(f"refunds claim less of payment {payment_id} than is to be let go")


def give(tx: Tx, payment_id: str, amount: int) -> None:
    """Of what is claimed, so much went back."""
    if tx.one(_GIVE, {"payment_id": payment_id, "taken": amount, "now": tx.now}) is None:
        raise RuntimeError(f"refunds claim less of payment {payment_id} than went back")


def count_no_longer(tx: Tx, payment: Payment, amount: int) -> None:
    """Money that went back before its checkout was paid in full does not help to pay it any more.

    The checkout is locked.
    """
    if payment.checkout_id is not None:
        params = {"checkout_id": payment.checkout_id, "of_asset": payment.asset, "taken": amount, "now": tx.now}
        tx.execute(_COUNT_NO_LONGER, params)


def kept(tx: Tx, target: Target) -> int:
    """What nobody claims back of all that was paid for the order, or of the payment where there is no order."""
    paid = of_order(tx, target.order) if target.order is not None else [payments.get(tx, target.payment.id)]
    return sum(payment.amount - payment.refund_reserved for payment in paid)


def returned(tx: Tx, order: Order) -> int:
    """How much of an order's amount was given back. Money over what it cost goes back first."""
    paid = of_order(tx, order)
    over = max(0, sum(payment.amount for payment in paid) - order.amount)
    return min(order.amount, max(0, sum(payment.refunded for payment in paid) - over))
