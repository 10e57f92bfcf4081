"""Money that went back takes with it what it had bought, here only.

``reverse`` is to a refund what ``settle`` is to a payment: the refund is processed, its payment and its order say
how much went back, what the order gave is taken back as the refund's policy says, and goods return to the shelf,
all in one transaction. The same answer of a rail twice changes nothing the second time.
"""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.text import check_line, check_note
from counterfoil.licensing import licenses
from counterfoil.sales import orders, payments, refund_attempts, refund_money, refunds
from counterfoil.sales.refund_money import Target
from counterfoil.sales.types import Order, Refund
from counterfoil.settlement import goods
from counterfoil.settlement.tables import grants

_TAKE_BACK = (
    sa.update(grants)
    .where(
        mine(grants),
        grants.c.order_id == sa.bindparam("of_order"),
        grants.c.status.in_(sa.bindparam("from_statuses", expanding=True)),
    )
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)


def reverse(tx: Tx, refund_id: str, *, reference: str) -> Refund:
    """The rail gave the money back, and calls it ``reference``.

    Also for a refund that was taken for failed, as long as its money is still there to claim. Raises NotFound;
    Conflict (``refund_not_approved``, ``refund_exceeds_payment``).
    """
    refund = refund_attempts.lock(tx, refund_id)
    if refund.status == "processed":
        return refund
    if refund.status not in {"processing", "failed"}:
        raise _not_approved(refund)
    return _reverse(tx, refund, reference, by=f"rail:{refund.rail}")


def settle_by_hand(tx: Tx, refund_id: str, *, reference: str, note: str = "") -> Refund:
    """A person gave the money back, and says under which name it can be found.

    A failed refund claims its amount again; one whose outcome is unknown waits until nobody asks its rail about it.
    Raises NotFound; Invalid; Conflict (``refund_not_approved``, ``refund_exceeds_payment``).
    """
    reference = check_line("reference", reference, least=1, most=500)
    note = check_note("note", note, most=refunds.MOST_NOTE)
    refund = refund_attempts.lock(tx, refund_id)
    in_hand = refund.claimed_until is not None and refund.claimed_until > tx.now
    if in_hand or refund.status not in {"approved", "processing", "failed"}:
        raise _not_approved(refund)
    return _reverse(tx, refund, reference, by=refunds.who(tx), note=note)


def _not_approved(refund: Refund) -> Conflict:
    detail = {
        "pending": "Nobody has approved this refund.",
        "approved": "Nobody has asked this refund's rail.",
        "processing": "Its rail is asked for this refund just now.",
    }.get(refund.status, f"This refund is {refund.status}.")
    return Conflict(detail, code="refund_not_approved")


def _reverse(tx: Tx, refund: Refund, reference: str, *, by: str, note: str = "") -> Refund:
    payment = payments.get(tx, refund.payment_id)
    order = orders.get(tx, refund.order_id) if refund.order_id is not None else None
    refund_money.lock(tx, [Target(payment, order)])
    if refund.status == "failed":
        refund_money.claim(tx, payment, refund.amount)
        if refund.restock:
            refunds.check_restock(tx, order, refund.restock, but=refund.id)
    refund_money.give(tx, payment.id, refund.amount)
    done = refund_attempts.process(tx, refund, reference=reference, by=by)
    refunds.record(tx, "processed", done, rail=done.rail, reference=reference, by=by, note=note)
    if order is not None:
        _take_back(tx, orders.get(tx, order.id), done)
    return done


def _take_back(tx: Tx, order: Order, refund: Refund) -> None:
    """Write down in the order what went back, and take back what it gave."""
    returned = refund_money.returned(tx, order) - order.refunded
    if returned > 0:
        orders.note_refund(tx, order.id, returned)
    if refund.restock:
        goods.put_back(tx, order, refund.restock)
    why = f"refunded: {refund.id}"
    for license_ in [] if refund.grants_policy == "keep" else licenses.of_order(tx, order.id):
        with contextlib.suppress(Conflict):  # it is suspended or revoked already
            if refund.grants_policy == "revoke":
                licenses.revoke(tx, license_.id, reason=why)
            else:
                licenses.suspend(tx, license_.id, reason=why)
    if refund.grants_policy != "keep":
        revoked = refund.grants_policy == "revoke"
        params = {
            "of_order": order.id,
            "from_statuses": ["active", "suspended"] if revoked else ["active"],
            "new_status": "revoked" if revoked else "suspended",
            "now": tx.now,
        }
        tx.execute(_TAKE_BACK, params)
