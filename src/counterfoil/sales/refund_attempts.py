"""What becomes of an approved refund: claimed, asked of its rail, and then processed, failed or tried again.

One statement takes a refund for whoever is about to ask its rail. While it is in somebody's hands its
``next_attempt_at`` is the end of their claim, so a refund whose worker died is simply due again. A refund that is
``processing`` with nobody at it is one whose outcome is unknown: its rail is asked what became of it.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.sales import refund_money
from counterfoil.sales.refunds import record
from counterfoil.sales.tables import refunds
from counterfoil.sales.types import Refund

CLAIM_LASTS = timedelta(minutes=5)
"""Longer than one attempt can take."""
_PAUSES = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=12),
)
"""Between attempts whose outcome is unknown. The last one goes on for ever: somebody's money is under way."""

_ASK_AGAIN = timedelta(hours=1)
"""After which a rail is asked about a refund that it has taken on."""

_UNDER_WAY = refunds.c.status.in_(["approved", "processing"])
_IS_DUE = refunds.c.next_attempt_at <= sa.bindparam("now")
_GET_LOCKED = (
    sa.select(*columns(refunds))
    .where(mine(refunds), refunds.c.id == sa.bindparam("id"))
    .with_for_update(key_share=True)
)
_DUE = (
    sa.select(refunds.c.id)
    .where(mine(refunds), _UNDER_WAY, _IS_DUE)
    .order_by(refunds.c.next_attempt_at, refunds.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_ONE = sa.update(refunds).where(mine(refunds), refunds.c.id == sa.bindparam("refund_id"))
_CLAIM = (
    _ONE.where(_UNDER_WAY, _IS_DUE)
    .values(
        status="processing",
        attempts=refunds.c.attempts + 1,
        claimed_by=sa.bindparam("worker"),
        claimed_until=sa.bindparam("until"),
        next_attempt_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(refunds))
)
_WAIT = _ONE.where(_UNDER_WAY, _IS_DUE).values(
    next_attempt_at=sa.bindparam("next"), error=sa.bindparam("why"), updated_at=sa.bindparam("now")
)
# Whoever made the last attempt may say how it ended, however late.
_MINE = _ONE.where(refunds.c.status == "processing", refunds.c.attempts == sa.bindparam("attempt"))
_POSTPONE = _MINE.values(
    claimed_by=None,
    claimed_until=None,
    next_attempt_at=sa.bindparam("next"),
    error=sa.bindparam("why"),
    updated_at=sa.bindparam("now"),
)
_FAIL = _MINE.values(
    status="failed",
    claimed_by=None,
    claimed_until=None,
    next_attempt_at=None,
    error=sa.bindparam("why"),
    updated_at=sa.bindparam("now"),
)
_FAIL_ANY = _ONE.where(refunds.c.status == "processing").values(
    status="failed",
    claimed_by=None,
    claimed_until=None,
    next_attempt_at=None,
    error=sa.bindparam("why"),
    updated_at=sa.bindparam("now"),
)
_UNDER_WAY_THERE = _ONE.where(refunds.c.status == "processing").values(
    rail_reference=sa.bindparam("reference"),
    claimed_by=None,
    claimed_until=None,
    next_attempt_at=sa.bindparam("next"),
    error=None,
    updated_at=sa.bindparam("now"),
)
_TAKE_FOR_ASKED = _ONE.where(refunds.c.status.in_(["pending", "approved"])).values(
    status="processing", updated_at=sa.bindparam("now")
)
_PROCESS = _ONE.where(refunds.c.status.in_(["approved", "processing", "failed"])).values(
    status="processed",
    processed_by=sa.bindparam("by"),
    processed_at=sa.bindparam("now"),
    rail_reference=sa.bindparam("reference"),
    claimed_by=None,
    claimed_until=None,
    next_attempt_at=None,
    error=None,
    updated_at=sa.bindparam("now"),
)


def lock(tx: Tx, refund_id: str) -> Refund:
    """The refund, its row locked until the transaction ends. Raises NotFound (``refund_not_found``)."""
    row = tx.one(_GET_LOCKED, {"id": refund_id})
    if row is None:
        raise NotFound("There is no such refund.", code="refund_not_found")
    return Refund(*row)


def due(tx: Tx, *, limit: int = 100) -> list[str]:
    """Refunds to ask a rail about now, those that have waited longest first."""
    return [row[0] for row in tx.all(_DUE, {"now": tx.now, "limit": limit})]


def claim(tx: Tx, refund_id: str, worker: str) -> Refund | None:
    """Take a refund that is due, if nobody else has it. More than one attempt: the outcome of one is unknown."""
    row = tx.one(_CLAIM, {"refund_id": refund_id, "worker": worker, "until": tx.now + CLAIM_LASTS, "now": tx.now})
    if row is None:
        return None
    refund = Refund(*row)
    if refund.attempts == 1:
        record(tx, "processing", refund, rail=refund.rail)
    return refund


def leave_to_hand(tx: Tx, refund_id: str, why: str) -> None:
    """Its rail cannot give money back: a person does, and says so."""
    tx.execute(_WAIT, {"refund_id": refund_id, "next": None, "why": why, "now": tx.now})


def wait(tx: Tx, refund_id: str, why: str) -> None:
    """Its rail cannot be reached at all for now; it was not asked."""
    tx.execute(_WAIT, {"refund_id": refund_id, "next": tx.now + _PAUSES[2], "why": why, "now": tx.now})


def postpone(tx: Tx, refund: Refund, why: str) -> None:
    """The outcome of an attempt is unknown; its rail is asked what became of it after a pause."""
    pause = _PAUSES[min(refund.attempts, len(_PAUSES)) - 1]
    params = {"refund_id": refund.id, "attempt": refund.attempts, "next": tx.now + pause, "why": why, "now": tx.now}
    tx.execute(_POSTPONE, params)


def fail(tx: Tx, refund: Refund, why: str) -> None:
    """The rail refused: no money went back, and what the refund claimed is free again."""
    if tx.execute(_FAIL, {"refund_id": refund.id, "attempt": refund.attempts, "why": why, "now": tx.now}):
        refund_money.let_go(tx, refund.payment_id, refund.amount)
        record(tx, "failed", refund, rail=refund.rail, why=why)


def fail_by_rail(tx: Tx, refund: Refund, why: str) -> None:
    """The rail tells that a locked refund has failed: what it claimed is free again."""
    if tx.execute(_FAIL_ANY, {"refund_id": refund.id, "why": why, "now": tx.now}):
        refund_money.let_go(tx, refund.payment_id, refund.amount)
        record(tx, "failed", refund, rail=refund.rail, why=why)


def under_way(tx: Tx, refund: Refund, reference: str) -> None:
    """The rail took it on and has not carried it out yet; it is asked again after a while, should no news come."""
    tx.execute(
        _UNDER_WAY_THERE,
        {"refund_id": refund.id, "reference": reference, "next": tx.now + _ASK_AGAIN, "now": tx.now},
    )


def take_for_asked(tx: Tx, refund: Refund) -> None:
    """The rail has a locked refund that we did not know to be asked for."""
    tx.execute(_TAKE_FOR_ASKED, {"refund_id": refund.id, "now": tx.now})


def process(tx: Tx, refund: Refund, *, reference: str, by: str) -> Refund:
    """The money of a locked refund is back. Its payment's books are the caller's to set right."""
    if not tx.execute(_PROCESS, {"refund_id": refund.id, "reference": reference, "by": by, "now": tx.now}):
        raise RuntimeError(f"refund {refund.id} is {refund.status}")
    return msgspec.structs.replace(
        refund,
        status="processed",
        processed_by=by,
        processed_at=tx.now,
        rail_reference=reference,
        claimed_by=None,
        claimed_until=None,
        next_attempt_at=None,
        error=None,
        updated_at=tx.now,
    )
