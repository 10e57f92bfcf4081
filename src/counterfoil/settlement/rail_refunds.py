"""What rails tell of money that goes back: what we asked for, and what somebody gave back at the rail."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.rails.facts import RefundFact
from counterfoil.sales import payments, refund_attempts, refund_money, refunds
from counterfoil.sales import tables as sales
from counterfoil.sales.refund_money import Target
from counterfoil.sales.types import GrantsPolicy, Payment, Refund
from counterfoil.settlement import reverse
from counterfoil.settlement.subscribing import Outcome

_OURS = sa.select(sales.refunds.c.id).where(
    mine(sales.refunds), sales.refunds.c.id == sa.bindparam("refund_id"), sales.refunds.c.rail == sa.bindparam("rail")
)
_BY_REFERENCE = sa.select(*columns(sales.refunds)).where(
    mine(sales.refunds),
    sales.refunds.c.payment_id == sa.bindparam("payment_id"),
    sales.refunds.c.rail_reference == sa.bindparam("reference"),
)


def apply(tx: Tx, rail: str, fact: RefundFact) -> Outcome:
    """Take what a rail says of a refund into the books.

    One that we asked for is processed, or has failed; one that was made at the rail is written down and processed.
    The same words twice change nothing. Raises Conflict (``refund_exceeds_payment``) when more went back than is left.
    """
    if fact.refund_id is not None and tx.one(_OURS, {"refund_id": fact.refund_id, "rail": rail}) is not None:
        return _ours(tx, fact.refund_id, fact)
    payment = payments.by_reference(tx, rail, fact.payment_reference)
    if payment is None:
        return "unmatched"
    order = refund_money.order_of(tx, payment)
    refund_money.lock(tx, [Target(payment, order)])
    row = tx.one(_BY_REFERENCE, {"payment_id": payment.id, "reference": fact.reference})
    if row is not None:
        return _ours(tx, Refund(*row).id, fact)
    if fact.status != "processed":
        return "applied"  # it may yet come to nothing, and then there is nothing to write down
    policy: GrantsPolicy | None = "revoke" if fact.kind == "chargeback" else None
    made = write_down(tx, rail, payment, fact, policy=policy)
    reverse.reverse(tx, made.id, reference=fact.reference)
    return "applied"


def _ours(tx: Tx, refund_id: str, fact: RefundFact) -> Outcome:
    if fact.status == "processed":
        refund = refund_attempts.lock(tx, refund_id)
        if refund.status in {"approved", "pending"}:  # it was asked for, whatever we have noted of that
            refund_attempts.take_for_asked(tx, refund)
        reverse.reverse(tx, refund_id, reference=fact.reference)
    elif fact.status == "failed":
        refund_attempts.fail_by_rail(tx, refund_attempts.lock(tx, refund_id), fact.error or "the rail refused it")
    else:
        refund_attempts.under_way(tx, refund_attempts.lock(tx, refund_id), fact.reference)
    return "applied"


def write_down(tx: Tx, rail: str, payment: Payment, fact: RefundFact, *, policy: GrantsPolicy | None = None) -> Refund:
    """A refund that nobody asked us for, its amount claimed of a locked payment, as if its rail were asked just now."""
    if fact.asset != payment.asset:
        raise Conflict(f"{rail} gave back {fact.asset} of a payment in {payment.asset}.", code="asset_differs")
    order = refund_money.order_of(tx, payment)
    fresh, amount = refund_money.claim(tx, payment, fact.amount)
    kept = refund_money.kept(tx, Target(fresh, order))
    refund = Refund(
        id=tx.new_id("rfd"),
        payment_id=payment.id,
        order_id=order.id if order else None,
        kind=fact.kind,
        type="full" if amount == payment.amount else "partial",
        rail=rail,
        amount=amount,
        asset=payment.asset,
        recipient=None,
        status="processing",
        reason=fact.reason,
        grants_policy=policy or ("keep" if kept else "revoke"),
        restock=[],
        requested_by=f"rail:{rail}",
        approved_by=f"rail:{rail}",
        processed_by=None,
        rail_reference=fact.reference,
        attempts=0,
        next_attempt_at=None,
        claimed_by=None,
        claimed_until=None,
        error=None,
        expires_at=None,
        processed_at=None,
        metadata=msgspec.to_builtins(fact.details),
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(sales.refunds, refund)
    refunds.record(tx, "requested", refund, reason=refund.reason, by=f"rail:{rail}")
    return refund
