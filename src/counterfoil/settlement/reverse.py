"""Money that went back takes with it what it had bought, here only.

``reverse`` is to a refund what ``settle`` is to a payment: the refund is processed, its payment and its order say
how much went back, what the order gave is taken back as the refund's policy says, and goods return to the shelf,
all in one transaction. The same answer of a rail twice changes nothing the second time.
"""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.text import check_line, check_note
from counterfoil.licensing import licenses
from counterfoil.sales import checkouts, orders, payments, refund_attempts, refund_money, refunds
from counterfoil.sales.refund_money import Target
from counterfoil.sales.types import GrantsPolicy, Order, Refund
from counterfoil.settlement import entitling, goods
from counterfoil.settlement.tables import grants
from counterfoil.subscriptions import subscriptions

_TAKE_BACK = (
    sa.update(grants)
    .where(
        mine(grants),
        sa.or_(
            sa.and_(grants.c.order_id == sa.bindparam("of_order"), sa.not_(any_of(grants.c.object_id, "but"))),
            any_of(grants.c.object_id, "also"),
        ),
        grants.c.status.in_(sa.bindparam("from_statuses", expanding=True)),
    )
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)

_REVOKED = {"from_statuses": ["active", "suspended"], "new_status": "revoked"}
_SUSPENDED = {"from_statuses": ["active"], "new_status": "suspended"}


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
    if refund.order_id is not None:
        order: Order | None = orders.get(tx, refund.order_id)
    else:  # its payment may have bought something since it was asked for
        if payment.checkout_id is not None:
            checkouts.lock(tx, payment.checkout_id)
        order = refund_money.order_of(tx, payment)
    refund_money.lock(tx, [Target(payment, order)])
    if refund.status == "failed":
        refund_money.claim(tx, payment, refund.amount)
        if refund.restock:
            refunds.check_restock(tx, order, refund.restock, but=refund.id)
    refund_money.give(tx, payment.id, refund.amount)
    done = refund_attempts.process(tx, refund, reference=reference, by=by)
    refunds.record(tx, "processed", done, rail=done.rail, reference=reference, by=by, note=note)
    if order is None:
        refund_money.count_no_longer(tx, payment, refund.amount)
    else:
        # What was asked for when it had bought nothing says nothing of an order of which money is kept.
        keep = refund.order_id is None and refund_money.kept(tx, Target(payment, order)) > 0
        _take_back(tx, orders.get(tx, order.id), done, "keep" if keep else done.grants_policy)
    return done


def _take_back(tx: Tx, order: Order, refund: Refund, policy: GrantsPolicy) -> None:
    """Write down in the order what went back, and take back what it gave."""
    returned = refund_money.returned(tx, order) - order.refunded
    if returned > 0:
        orders.note_refund(tx, order.id, returned)
    if refund.restock:
        goods.put_back(tx, order, refund.restock)
    if policy == "keep":
        return
    why = f"refunded: {refund.id}"
    bought = {one.id for one in licenses.of_order(tx, order.id)}
    running, ended = _of_subscription(tx, order)
    for license_id in sorted((bought | ended) - running):
        with contextlib.suppress(Conflict):  # it is suspended or revoked already
            if policy == "revoke":
                licenses.revoke(tx, license_id, reason=why)
            else:
                licenses.suspend(tx, license_id, reason=why)
    taken = _REVOKED if policy == "revoke" else _SUSPENDED
    which = {"of_order": order.id, "but": sorted(running), "also": sorted(ended)}
    tx.execute(_TAKE_BACK, {**which, "now": tx.now, **taken})
    if order.subscription_id is not None:
        entitling.entitle(tx, entitling.subscription_of(tx, order.subscription_id))


def _of_subscription(tx: Tx, order: Order) -> tuple[set[str], set[str]]:
    """The licenses of the order's subscription: those that other money keeps, and those that none does any more.

    The order's own period is not paid any more. While another one is, nothing is taken: what this one kept running
    ends with the last one that is paid.
    """
    if order.subscription_id is None:
        return set(), set()
    subscriptions.give_back(tx, order.id)
    given = set(entitling.license_ids(tx, order.subscription_id))
    is_paid = any(period.status == "paid" for period in subscriptions.periods_of(tx, order.subscription_id))
    return (given, set()) if is_paid else (set(), given)
