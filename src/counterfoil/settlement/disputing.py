"""A dispute opens a case: what the money bought is suspended by policy, and the outcome gives it back or takes it."""

from __future__ import annotations

import contextlib
from typing import Final

import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.licensing import licenses
from counterfoil.rails.facts import DisputeFact, RefundFact
from counterfoil.sales import disputes, payments, refund_money
from counterfoil.sales.refund_money import Target
from counterfoil.sales.types import Dispute, GrantsPolicy, Order, Payment
from counterfoil.settlement import entitling, rail_refunds, restoring, reverse
from counterfoil.settlement.subscribing import Outcome
from counterfoil.settlement.tables import grants

POLICY: Final[GrantsPolicy] = "suspend"
"""What becomes of what an order gave while a dispute about its money is open, unless the rail's settings say else."""

_SET = (
    sa.update(grants)
    .where(mine(grants), any_of(grants.c.object_id, "ids"), grants.c.status == sa.bindparam("from_status"))
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)
_OF_SUBSCRIPTION = sa.select(grants.c.object_id).where(
    mine(grants), grants.c.subscription_id == sa.bindparam("subscription_id"), grants.c.kind == "license"
)


def apply(tx: Tx, rail: str, fact: DisputeFact, *, policy: GrantsPolicy = POLICY) -> Outcome:
    """Take what a rail says of a dispute into the books.

    A warning only makes a case. From then on what the money bought is suspended (or kept, or revoked) until it is
    decided: won gives it back; lost is money that went back, and revokes it. Won after it was lost undoes both.
    """
    payment = payments.by_reference(tx, rail, fact.payment_reference)
    if payment is None:
        return "unmatched"
    order = refund_money.order_of(tx, payment)
    refund_money.lock(tx, [Target(payment, order)])
    told = _told(tx, rail, fact, payment, order, policy)
    case, before = disputes.put(tx, told)
    if case.status == before:
        return "stale"
    ids = _license_ids(tx, order)
    if case.status in {"needs_response", "under_review"} and before in {None, "warning"}:
        _hold(tx, case, ids)
    elif case.status == "won":
        restoring.restore(tx, payment, order)
        _give_back(tx, case, order, ids)
    elif case.status == "lost":
        _revoke(tx, case, ids)  # in the name of the case, so that it can give them back
        _take(tx, rail, case, fact, payment)
    return "applied"


def _told(tx: Tx, rail: str, fact: DisputeFact, payment: Payment, order: Order | None, policy: GrantsPolicy) -> Dispute:
    return Dispute(
        id=tx.new_id("dsp"),
        rail=rail,
        reference=fact.reference,
        payment_reference=fact.payment_reference,
        payment_id=payment.id,
        order_id=order.id if order else None,
        customer_id=payment.customer_id,
        amount=fact.amount,
        asset=fact.asset,
        reason=fact.reason,
        status=fact.status,
        grants_policy=policy,
        evidence_due_at=fact.evidence_due_at,
        opened_at=fact.occurred_at,
        closed_at=fact.occurred_at if fact.status in disputes.CLOSED else None,
        occurred_at=fact.occurred_at,
        details=fact.details,
        created_at=tx.now,
        updated_at=tx.now,
    )


def _license_ids(tx: Tx, order: Order | None) -> list[str]:
    if order is None:
        return []
    bought = {one.id for one in licenses.of_order(tx, order.id)}
    if order.subscription_id is not None:
        rows = tx.all(_OF_SUBSCRIPTION, {"subscription_id": order.subscription_id})
        bought |= {row.object_id for row in rows}
    return sorted(bought)


def _why(case: Dispute) -> str:
    return f"disputed: {case.id}"


def _hold(tx: Tx, case: Dispute, ids: list[str]) -> None:
    if case.grants_policy == "keep" or not ids:
        return
    for license_id in ids:
        with contextlib.suppress(Conflict):  # it is suspended or revoked already
            if case.grants_policy == "revoke":
                licenses.revoke(tx, license_id, reason=_why(case))
                continue
            if entitling.is_halted(licenses.get(tx, license_id)):  # else it would run again with its subscription
                licenses.reinstate(tx, license_id)
            licenses.suspend(tx, license_id, reason=_why(case))
    new = "revoked" if case.grants_policy == "revoke" else "suspended"
    tx.execute(_SET, {"ids": ids, "from_status": "active", "new_status": new, "now": tx.now})


def _give_back(tx: Tx, case: Dispute, order: Order | None, ids: list[str]) -> None:
    """What this case has revoked or suspended, and nothing else."""
    for before in ("revoked", "suspended"):  # it may have done both; what somebody else suspended stays so
        for license_id in ids:
            known = licenses.get(tx, license_id)
            why = known.revocation_reason if before == "revoked" else known.suspension_reason
            if known.status == before and why == _why(case):
                now = licenses.reinstate(tx, license_id, revoked=before == "revoked")
                params = {"ids": [license_id], "from_status": before, "new_status": now.status, "now": tx.now}
                tx.execute(_SET, params)
    if order is not None and order.subscription_id is not None:
        entitling.entitle(tx, entitling.subscription_of(tx, order.subscription_id))


def _revoke(tx: Tx, case: Dispute, ids: list[str]) -> None:
    for license_id in ids:
        with contextlib.suppress(Conflict):  # it is revoked already
            licenses.revoke(tx, license_id, reason=_why(case))
    for before in ("active", "suspended"):
        tx.execute(_SET, {"ids": ids, "from_status": before, "new_status": "revoked", "now": tx.now})


def _take(tx: Tx, rail: str, case: Dispute, fact: DisputeFact, payment: Payment) -> None:
    """The bank gave the money back: as much of it as we had not."""
    left = payments.get(tx, payment.id)
    amount = min(fact.amount, left.amount - left.refund_reserved)
    if amount <= 0:
        return
    gone = RefundFact(
        reference=fact.reference,
        refund_id=None,
        payment_reference=fact.payment_reference,
        occurred_at=fact.occurred_at,
        amount=amount,
        asset=fact.asset,
        status="processed",
        kind="chargeback",
        reason=_why(case),
    )
    made = rail_refunds.write_down(tx, rail, left, gone, policy="revoke")
    reverse.reverse(tx, made.id, reference=fact.reference)
