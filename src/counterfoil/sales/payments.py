"""Operations on payments: money a rail has proved, kept whatever it turns out to be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from counterfoil.db.schema import TENANT, columns, mine, row_of, tenant
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import payment_references, payments, payments_archive
from counterfoil.sales.types import Payment, PaymentStatus, Resolution

_GET = sa.select(*columns(payments)).where(mine(payments), payments.c.id == sa.bindparam("id"))
_BY_REFERENCE = sa.select(*columns(payments)).where(
    mine(payments), payments.c.rail == sa.bindparam("rail"), payments.c.reference == sa.bindparam("reference")
)
_ADD = (
    # Archived references count, too: a reference is new once for ever. Archival keeps everybody else from writing
    # meanwhile, so this statement sees each reference in one of the two tables.
    insert(payments)
    .from_select(
        [TENANT, *[column.name for column in columns(payments)]],
        sa.select(
            tenant(), *[sa.bindparam(f"new_{column.name}", type_=column.type) for column in columns(payments)]
        ).where(
            ~sa.exists().where(
                mine(payment_references),
                payment_references.c.rail == sa.bindparam("new_rail", type_=sa.Text),
                payment_references.c.reference == sa.bindparam("new_reference", type_=sa.Text),
            )
        ),
    )
    .on_conflict_do_nothing()
)


def _of_checkout(table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    own = [table.c[column.name] for column in columns(payments)]
    return sa.select(*own).where(
        mine(table), table.c.checkout_id == sa.bindparam("checkout_id"), table.c.checkout_id.is_not(None)
    )


_OF_CHECKOUT = sa.union_all(_of_checkout(payments), _of_checkout(payments_archive))
_LIST = (
    sa.select(*columns(payments))
    .where(mine(payments), payments.c.id > sa.bindparam("after"))
    .order_by(payments.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_ATTENTION = _LIST.where(payments.c.resolved_at.is_(None), payments.c.status != "settled")
_SET_STATUS = (
    sa.update(payments)
    .where(mine(payments), payments.c.id == sa.bindparam("payment_id"))
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)
_SET_ARCHIVED_STATUS = (
    sa.update(payments_archive)
    .where(mine(payments_archive), payments_archive.c.id == sa.bindparam("payment_id"))
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)
_RESOLVE = (
    sa.update(payments)
    .where(
        mine(payments),
        payments.c.id == sa.bindparam("payment_id"),
        payments.c.resolved_at.is_(None),
        payments.c.status != "settled",
    )
    .values(
        resolved_at=sa.bindparam("now"),
        resolution=sa.bindparam("new_resolution"),
        resolution_note=sa.bindparam("note"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(payments))
)


def add_if_new(
    tx: Tx,
    *,
    rail: str,
    reference: str,
    checkout_id: str | None,
    customer_id: str | None,
    payer: str | None,
    money: Money,
    status: PaymentStatus,
    details: dict[str, Any],
    occurred_at: datetime,
) -> Payment | None:
    """Write money down, once for ever by its reference; None when it is known."""
    payment = Payment(
        id=tx.new_id("pay"),
        rail=rail,
        reference=reference,
        checkout_id=checkout_id,
        customer_id=customer_id,
        payer=payer,
        amount=money.amount,
        refund_reserved=0,
        refunded=0,
        asset=money.asset,
        status=status,
        details=details,
        occurred_at=occurred_at,
        resolved_at=None,
        resolution=None,
        resolution_note=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.execute(_ADD, {f"new_{name}": value for name, value in row_of(payment).items()}):
        return None
    tx.record(
        f"payment.{status}",
        "payment",
        payment.id,
        customer_id=customer_id,
        money=money,
        checkout_id=checkout_id,
        rail=rail,
    )
    return payment


def set_status(tx: Tx, payment: Payment, status: PaymentStatus) -> Payment:
    """Say what a payment turned out to be, now that more is known."""
    params = {"payment_id": payment.id, "new_status": status, "now": tx.now}
    if not tx.execute(_SET_STATUS, params):
        tx.execute(_SET_ARCHIVED_STATUS, params)
    money = Money(payment.amount, payment.asset)
    tx.record(
        f"payment.{status}",
        "payment",
        payment.id,
        customer_id=payment.customer_id,
        money=money,
        was=payment.status,
    )
    return msgspec.structs.replace(payment, status=status, updated_at=tx.now)


def get(tx: Tx, payment_id: str) -> Payment:
    """Raise NotFound (``payment_not_found``) when there is none."""
    row = tx.one(_GET, {"id": payment_id})
    if row is None:
        raise NotFound("There is no such payment.", code="payment_not_found")
    return Payment(*row)


def by_reference(tx: Tx, rail: str, reference: str) -> Payment | None:
    """The payment that a rail names so, unless it is archived."""
    row = tx.one(_BY_REFERENCE, {"rail": rail, "reference": reference})
    return Payment(*row) if row else None


def of_checkout(tx: Tx, checkout_id: str) -> list[Payment]:
    """Every payment a checkout got, archived ones included, oldest first."""
    found = [Payment(*row) for row in tx.all(_OF_CHECKOUT, {"checkout_id": checkout_id})]
    return sorted(found, key=lambda payment: (payment.occurred_at, payment.reference))


def list_(tx: Tx, *, attention: bool = False, after: str = "", limit: int = 20) -> Page[Payment]:
    """A page of payments, oldest first; ``attention``: only those a person has yet to resolve."""
    rows = tx.all(_ATTENTION if attention else _LIST, {"after": after, "limit": limit + 1})
    return page_of([Payment(*row) for row in rows], limit)


def resolve(tx: Tx, payment_id: str, resolution: Resolution, *, note: str) -> Payment:
    """Mark a payment as seen to. Raises NotFound; Conflict (``payment_resolved``)."""
    row = tx.one(_RESOLVE, {"payment_id": payment_id, "new_resolution": resolution, "note": note, "now": tx.now})
    if row is None:
        get(tx, payment_id)
        raise Conflict("There is nothing left to resolve about this payment.", code="payment_resolved")
    tx.record("payment.resolved", "payment", payment_id, resolution=resolution, note=note)
    return Payment(*row)


def judge(
    known: Sequence[Payment], *, amount: int, asset: str, due: datetime, fulfilled: bool
) -> dict[str, PaymentStatus]:
    """What each payment of a checkout is, by id.

    A function of the facts alone (``known`` sorted by when the money moved), so that the order in which
    news of them arrived cannot matter: short money is ``underpaid`` until the checkout is fulfilled;
    money after ``due``, or enough that still did not fulfill it, is ``late``; money beyond the amount is
    ``overpaid``; another asset never counts.
    """
    verdicts: dict[str, PaymentStatus] = {}
    total = 0
    for payment in known:
        if payment.asset != asset:
            verdicts[payment.id] = "unmatched"
            continue
        total += payment.amount
        if total > amount:
            verdicts[payment.id] = "overpaid"
        elif not fulfilled and total < amount:
            verdicts[payment.id] = "underpaid"
        elif payment.occurred_at > due or not fulfilled:
            verdicts[payment.id] = "late"
        else:
            verdicts[payment.id] = "settled"
    return verdicts
