"""Payments that were moved out of the way. Nobody forgets them: their references stay taken for ever."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import Scope
from counterfoil.db.functions import any_of, keep_writers_out
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import checkouts, payment_references, payments, payments_archive, refunds
from counterfoil.sales.types import ArchivedPayment, Payment, PaymentReference, PaymentStatus, Resolution

_BATCH = 500
_OVER = ("settled", "expired", "canceled", "failed")


class KnownPayment(msgspec.Struct, frozen=True):
    """A payment, archived or not."""

    id: str
    rail: str
    reference: str
    checkout_id: str | None
    customer_id: str | None
    payer: str | None
    amount: int
    refund_reserved: int
    refunded: int
    asset: str
    status: PaymentStatus
    details: dict[str, Any]
    occurred_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    resolution_note: str | None
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    """When it was moved to the archive."""


class Batch(msgspec.Struct, frozen=True):
    """What one transaction archived, and the last payment it got to; None when there are no more."""

    count: int
    last: str | None


_KEEP_WRITERS_OUT = keep_writers_out(payments)
_OLD = (
    sa.select(*columns(payments))
    .where(
        mine(payments),
        payments.c.id > sa.bindparam("after"),
        payments.c.created_at <= sa.bindparam("before"),
        payments.c.occurred_at <= sa.bindparam("before"),
        sa.or_(payments.c.status == "settled", payments.c.resolved_at.is_not(None)),
        ~sa.exists().where(mine(checkouts), checkouts.c.id == payments.c.checkout_id, checkouts.c.status.not_in(_OVER)),
        ~sa.exists().where(mine(refunds), refunds.c.payment_id == payments.c.id),
    )
    .order_by(payments.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    # Whoever holds a payment's row waits to write: let them have it rather than wait for one another.
    .with_for_update(of=payments, skip_locked=True)
)
_DELETE = sa.delete(payments).where(mine(payments), any_of(payments.c.id, "ids"))
_KNOWN = [*columns(payments), sa.null().label("archived_at")]
_KNOWN_ARCHIVED = [*[payments_archive.c[column.name] for column in columns(payments)], payments_archive.c.archived_at]
_ONE = sa.select(*_KNOWN).where(mine(payments), payments.c.id == sa.bindparam("id"))
_ONE_ARCHIVED = sa.select(*_KNOWN_ARCHIVED).where(mine(payments_archive), payments_archive.c.id == sa.bindparam("id"))
_BY_REFERENCE = sa.select(*_KNOWN).where(
    mine(payments), payments.c.rail == sa.bindparam("rail"), payments.c.reference == sa.bindparam("reference")
)
_ID_BY_REFERENCE = sa.select(payment_references.c.payment_id).where(
    mine(payment_references),
    payment_references.c.rail == sa.bindparam("rail"),
    payment_references.c.reference == sa.bindparam("reference"),
)
_LIST = (
    sa.select(*_KNOWN_ARCHIVED)
    .where(mine(payments_archive), payments_archive.c.id > sa.bindparam("after"))
    .order_by(payments_archive.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def archive(tx: Tx, *, before: datetime, after: str = "", limit: int = _BATCH) -> Batch:
    """Archive payments that came before a moment and that nothing is left to do about.

    Those stay whose checkout goes on, that wait for a person, or that a refund was asked of. ``after``: go on after
    this one. Nobody else writes payments meanwhile: a payment that is new by a look from before this transaction
    would otherwise be written down again.
    """
    tx.execute(_KEEP_WRITERS_OUT)
    found = [Payment(*row) for row in tx.all(_OLD, {"before": before, "after": after, "limit": limit})]
    if not found:
        return Batch(0, None)
    names = Payment.__struct_fields__
    tx.insert(
        payments_archive,
        *[ArchivedPayment(archived_at=tx.now, **{name: getattr(one, name) for name in names}) for one in found],
    )
    tx.insert(payment_references, *[PaymentReference(one.rail, one.reference, one.id, tx.now) for one in found])
    tx.execute(_DELETE, {"ids": [one.id for one in found]})
    tx.record("payments.archived", "tenant", tx.tenant, count=len(found), first=found[0].id, last=found[-1].id)
    return Batch(len(found), found[-1].id if len(found) == limit else None)


async def archive_all(scope: Scope, *, before: datetime, limit: int = _BATCH) -> int:
    """Archive all there is to, in short transactions; how many."""
    count = 0
    last: str | None = ""
    while last is not None:
        batch = await scope.run(archive, before=before, after=last, limit=limit)
        count += batch.count
        last = batch.last
    return count


def get(tx: Tx, payment_id: str) -> KnownPayment:
    """A payment, archived or not. Raises NotFound (``payment_not_found``)."""
    row = tx.one(_ONE, {"id": payment_id}) or tx.one(_ONE_ARCHIVED, {"id": payment_id})
    if row is None:
        raise NotFound("There is no such payment.", code="payment_not_found")
    return KnownPayment(*row)


def find(tx: Tx, rail: str, reference: str) -> KnownPayment:
    """The payment by the rail's own name for it, archived or not. Raises NotFound (``payment_not_found``)."""
    params = {"rail": rail, "reference": reference}
    row = tx.one(_BY_REFERENCE, params)
    if row is not None:
        return KnownPayment(*row)
    archived = tx.one(_ID_BY_REFERENCE, params)
    if archived is None:
        raise NotFound("There is no payment by this reference.", code="payment_not_found")
    return get(tx, archived[0])


def is_known(tx: Tx, rail: str, reference: str) -> bool:
    """Whether this piece of money was written down before, however long ago."""
    params = {"rail": rail, "reference": reference}
    return tx.one(_BY_REFERENCE, params) is not None or tx.one(_ID_BY_REFERENCE, params) is not None


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[KnownPayment]:
    """A page of archived payments, oldest first."""
    rows = tx.all(_LIST, {"after": after, "limit": limit + 1})
    return page_of([KnownPayment(*row) for row in rows], limit)


def known(payment: Payment) -> KnownPayment:
    """The same payment, as one that is not archived."""
    return KnownPayment(*[getattr(payment, name) for name in Payment.__struct_fields__])
