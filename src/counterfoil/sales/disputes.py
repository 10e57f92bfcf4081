"""Operations on disputes: buyers who ask their banks for the money back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import disputes
from counterfoil.sales.types import Dispute, DisputeStatus

_RANK: Final[dict[DisputeStatus, int]] = {"warning": 0, "needs_response": 1, "under_review": 2, "won": 3, "lost": 3}
CLOSED: Final = ("won", "lost")

_GET = sa.select(*columns(disputes)).where(mine(disputes), disputes.c.id == sa.bindparam("id"))
_FIND = (
    sa.select(*columns(disputes))
    .where(mine(disputes), disputes.c.rail == sa.bindparam("rail"), disputes.c.reference == sa.bindparam("reference"))
    .with_for_update()
)
_LIST = (
    sa.select(*columns(disputes))
    .where(mine(disputes), disputes.c.id > sa.bindparam("after"))
    .order_by(disputes.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(disputes.c.status == sa.bindparam("status"))
_MOVE = (
    sa.update(disputes)
    .where(mine(disputes), disputes.c.id == sa.bindparam("dispute_id"))
    .values(
        status=sa.bindparam("new_status"),
        amount=sa.bindparam("new_amount"),
        reason=sa.bindparam("new_reason"),
        evidence_due_at=sa.bindparam("due"),
        closed_at=sa.bindparam("closed"),
        occurred_at=sa.bindparam("at"),
        details=sa.bindparam("new_details", type_=disputes.c.details.type),
        updated_at=sa.bindparam("now"),
    )
)


def get(tx: Tx, dispute_id: str) -> Dispute:
    """Raise NotFound (``dispute_not_found``) when there is none."""
    row = tx.one(_GET, {"id": dispute_id})
    if row is None:
        raise NotFound("There is no such dispute.", code="dispute_not_found")
    return Dispute(*row)


def list_(tx: Tx, *, status: DisputeStatus | None = None, after: str = "", limit: int = 20) -> Page[Dispute]:
    """A page of disputes, oldest first; of one status, or all."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([Dispute(*row) for row in rows], limit)


def put(tx: Tx, told: Dispute) -> tuple[Dispute, DisputeStatus | None]:
    """Take a rail's word on a dispute: the dispute as it stands, and what it was before (None: it is new).

    It only goes on, and of the same step the later word counts; what is decided stays decided, unless the rail
    decides otherwise later.
    """
    if tx.insert_if_new(disputes, told):
        _record(tx, told, "opened")
        if told.status in CLOSED:
            _record(tx, told, told.status)
        return told, None
    row = tx.one(_FIND, {"rail": told.rail, "reference": told.reference})
    assert row is not None  # disputes are never removed
    known = Dispute(*row)
    if _at(told) <= _at(known):
        return known, known.status
    closed: datetime | None = told.occurred_at if told.status in CLOSED else None
    details = {**known.details, **told.details}
    tx.execute(
        _MOVE,
        {
            "dispute_id": known.id,
            "new_status": told.status,
            "new_amount": told.amount,
            "new_reason": told.reason,
            "due": told.evidence_due_at,
            "closed": closed,
            "at": told.occurred_at,
            "new_details": details,
            "now": tx.now,
        },
    )
    new = msgspec.structs.replace(
        known,
        status=told.status,
        amount=told.amount,
        reason=told.reason,
        evidence_due_at=told.evidence_due_at,
        closed_at=closed,
        occurred_at=told.occurred_at,
        details=details,
        updated_at=tx.now,
    )
    if new.status != known.status:
        _record(tx, new, new.status)
    return new, known.status


def _at(one: Dispute) -> tuple[int, datetime, str]:
    return _RANK[one.status], one.occurred_at, one.status


def _record(tx: Tx, one: Dispute, verb: str) -> None:
    tx.record(
        f"dispute.{verb}",
        "dispute",
        one.id,
        customer_id=one.customer_id,
        money=Money(one.amount, one.asset),
        rail=one.rail,
        payment_id=one.payment_id,
        reason=one.reason,
    )
