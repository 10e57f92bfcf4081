"""Operations on checkouts, and their state machine.

A checkout's status only ever moves up this ladder: open, processing, expired, canceled, failed, settled. Reports
from a rail repeat and arrive in any order; because each move is a condition of its UPDATE, a late
``expired`` never overwrites ``settled``, and every order of the same reports ends in the same place.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import stock_reservations
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import cart_lines, checkouts
from counterfoil.sales.types import CartLine, Checkout, CheckoutStatus

_RANK = {"open": 0, "processing": 1, "expired": 2, "canceled": 3, "failed": 4, "settled": 5}

_GET = sa.select(*columns(checkouts)).where(mine(checkouts), checkouts.c.id == sa.bindparam("id"))
_BY_KEY = sa.select(*columns(checkouts)).where(
    mine(checkouts), checkouts.c.idempotency_key == sa.bindparam("idempotency_key")
)
_LIST = (
    sa.select(*columns(checkouts))
    .where(mine(checkouts), checkouts.c.id > sa.bindparam("after"))
    .order_by(checkouts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(checkouts.c.status == sa.bindparam("status"))
_WIDTH = len(columns(checkouts))
_HOLDS_STOCK = (
    sa.select(stock_reservations.c.id)
    .where(stock_reservations.c.tenant_id == checkouts.c.tenant_id, stock_reservations.c.checkout_id == checkouts.c.id)
    .correlate(checkouts)
    .exists()
)
# Whether it ever reserved stock is known from the start and for good, so it is read along and costs no statement.
_WITH_LINES = (
    sa.select(*columns(checkouts), _HOLDS_STOCK, *columns(cart_lines))
    .join(
        cart_lines,
        sa.and_(cart_lines.c.tenant_id == checkouts.c.tenant_id, cart_lines.c.cart_id == checkouts.c.cart_id),
    )
    .where(mine(checkouts))
    .order_by(cart_lines.c.position)
    .with_for_update(of=checkouts)
)
_LOCK_BY_REFERENCE = _WITH_LINES.where(
    checkouts.c.rail == sa.bindparam("rail"), checkouts.c.rail_reference == sa.bindparam("rail_reference")
)
_LOCK_BY_REFERENCES = (
    _WITH_LINES.where(checkouts.c.rail == sa.bindparam("rail"), any_of(checkouts.c.rail_reference, "references"))
    .order_by(None)
    .order_by(checkouts.c.rail_reference, cart_lines.c.position)
)
_LOCK_BY_ID = _WITH_LINES.where(checkouts.c.id == sa.bindparam("id"))
_ATTACH = (
    sa.update(checkouts)
    .where(
        mine(checkouts),
        checkouts.c.id == sa.bindparam("checkout_id"),
        sa.or_(
            checkouts.c.rail_reference.is_(None),
            sa.and_(checkouts.c.rail_reference == sa.bindparam("new_reference"), checkouts.c.url.is_(None)),
        ),
    )
    .values(
        rail_reference=sa.bindparam("new_reference"),
        url=sa.bindparam("new_url"),
        checked_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(checkouts))
)
_WRITE = (
    sa.update(checkouts)
    .where(
        mine(checkouts),
        checkouts.c.id == sa.bindparam("checkout_id"),
        sa.or_(checkouts.c.status != "settled", sa.bindparam("new_status", type_=sa.Text) == "settled"),
    )
    .values(
        status=sa.bindparam("new_status"),
        paid=sa.bindparam("new_paid"),
        rail_final=sa.bindparam("new_rail_final"),
        settled_at=sa.bindparam("new_settled_at"),
        checked_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
)
_DUE = (
    sa.select(checkouts.c.id)
    .where(mine(checkouts), checkouts.c.status == "open", checkouts.c.expires_at <= sa.bindparam("now"))
    .order_by(checkouts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_EXPIRE = (
    sa.update(checkouts)
    .where(mine(checkouts), checkouts.c.id == sa.bindparam("checkout_id"), checkouts.c.status == "open")
    .values(status="expired", updated_at=sa.bindparam("now"))
)
_CANCEL = (
    sa.update(checkouts)
    .where(mine(checkouts), checkouts.c.id == sa.bindparam("checkout_id"), checkouts.c.status == "open")
    .values(status="canceled", updated_at=sa.bindparam("now"))
)
_FAIL = (
    sa.update(checkouts)
    .where(
        mine(checkouts),
        checkouts.c.id == sa.bindparam("checkout_id"),
        checkouts.c.status.in_(["open", "expired"]),
        checkouts.c.rail_reference.is_(None),
    )
    .values(status="failed", rail_final=True, updated_at=sa.bindparam("now"))
)
_MARK_CHECKED = (
    sa.update(checkouts)
    .where(mine(checkouts), checkouts.c.id == sa.bindparam("checkout_id"))
    .values(checked_at=sa.bindparam("now"))
)
_CLOSE = (
    sa.update(checkouts)
    .where(
        mine(checkouts),
        checkouts.c.id == sa.bindparam("checkout_id"),
        checkouts.c.status.not_in(["open", "processing"]),
    )
    .values(rail_final=True, updated_at=sa.bindparam("now"))
)
_UNSETTLED = (
    sa.select(*columns(checkouts))
    .where(
        mine(checkouts),
        checkouts.c.rail == sa.bindparam("rail"),
        ~checkouts.c.rail_final,
        checkouts.c.checked_at <= sa.bindparam("before"),
    )
    .order_by(checkouts.c.checked_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


class CheckoutWithLines(msgspec.Struct, frozen=True):
    """A locked checkout and what it sells."""

    checkout: Checkout
    lines: list[CartLine]
    holds_stock: bool
    """Whether it reserved stock; it may have had to give it back."""


def create(
    tx: Tx,
    *,
    checkout_id: str,
    cart_id: str,
    customer_id: str | None,
    rail: str,
    total: Money,
    expires_at: datetime,
    email: str | None,
    note: str | None,
    return_url: str | None,
    idempotency_key: str | None,
    request_hash: str | None,
    shipping: dict[str, Any] | None = None,
) -> Checkout | None:
    """Open a checkout; None when one with the same idempotency key exists."""
    checkout = Checkout(
        id=checkout_id,
        cart_id=cart_id,
        customer_id=customer_id,
        rail=rail,
        rail_reference=None,
        url=None,
        status="open",
        amount=total.amount,
        asset=total.asset,
        paid=0,
        email=email,
        note=note,
        return_url=return_url,
        shipping=shipping,
        idempotency_key=idempotency_key,
        request_hash=request_hash,
        rail_final=False,
        checked_at=tx.now,
        expires_at=expires_at,
        settled_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(checkouts, checkout):
        return None
    tx.record("checkout.opened", "checkout", checkout.id, customer_id=customer_id, money=total, rail=rail)
    return checkout


def by_idempotency_key(tx: Tx, key: str, request_hash: str) -> Checkout | None:
    """The checkout an earlier request with this key opened. Raises Invalid when that asked for something else."""
    row = tx.one(_BY_KEY, {"idempotency_key": key})
    if row is None:
        return None
    checkout = Checkout(*row)
    if checkout.request_hash != request_hash:
        raise Invalid("This Idempotency-Key was used with another request.", code="idempotency_key_reused")
    return checkout


def get(tx: Tx, checkout_id: str) -> Checkout:
    """Raise NotFound (``checkout_not_found``) when there is none."""
    row = tx.one(_GET, {"id": checkout_id})
    if row is None:
        raise NotFound("There is no such checkout.", code="checkout_not_found")
    return Checkout(*row)


def list_(tx: Tx, *, status: CheckoutStatus | None = None, after: str = "", limit: int = 20) -> Page[Checkout]:
    """A page of checkouts, oldest first."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([Checkout(*row) for row in rows], limit)


def lock_by_reference(tx: Tx, rail: str, rail_reference: str) -> CheckoutWithLines | None:
    """The checkout a rail speaks of, locked until the transaction ends."""
    return _locked(tx.all(_LOCK_BY_REFERENCE, {"rail": rail, "rail_reference": rail_reference}))


def lock_by_references(tx: Tx, rail: str, references: Iterable[str]) -> dict[str, CheckoutWithLines]:
    """The checkouts that a rail speaks of, by its names, locked in the order of those until the transaction ends."""
    rows = tx.all(_LOCK_BY_REFERENCES, {"rail": rail, "references": sorted(references)})
    by_checkout = itertools.groupby(rows, key=operator.attrgetter("rail_reference"))
    return {reference: found for reference, its in by_checkout if (found := _locked(list(its))) is not None}


def lock(tx: Tx, checkout_id: str) -> CheckoutWithLines | None:
    """A checkout, locked until the transaction ends."""
    return _locked(tx.all(_LOCK_BY_ID, {"id": checkout_id}))


def _locked(rows: Sequence[Row]) -> CheckoutWithLines | None:
    if not rows:
        return None
    *fields, holds_stock = rows[0][: _WIDTH + 1]
    return CheckoutWithLines(Checkout(*fields), [CartLine(*row[_WIDTH + 1 :]) for row in rows], bool(holds_stock))


def attach(tx: Tx, checkout_id: str, *, reference: str, url: str | None) -> Checkout:
    """Note the rail's side of a checkout, once. The answer is the checkout as it stands.

    News of a checkout may come before the address to pay it at (``url`` None), which can then be added.
    """
    params = {"checkout_id": checkout_id, "new_reference": reference, "new_url": url, "now": tx.now}
    row = tx.one(_ATTACH, params)
    return Checkout(*row) if row is not None else get(tx, checkout_id)


def move(tx: Tx, checkout: Checkout, to: CheckoutStatus, *, paid: int, rail_final: bool) -> CheckoutStatus:
    """Move a locked checkout up the ladder, or leave it where it is; where it stands now."""
    status = to if _RANK[to] > _RANK[checkout.status] else checkout.status
    final = rail_final or checkout.rail_final
    if (status, paid, final) == (checkout.status, checkout.paid, checkout.rail_final):
        return status
    tx.execute(
        _WRITE,
        {
            "checkout_id": checkout.id,
            "new_status": status,
            "new_paid": paid,
            "new_rail_final": final,
            "new_settled_at": checkout.settled_at or (tx.now if status == "settled" else None),
            "now": tx.now,
        },
    )
    if status != checkout.status:
        tx.record(f"checkout.{status}", "checkout", checkout.id, rail=checkout.rail)
    return status


def expire_due(tx: Tx, *, limit: int = 200) -> list[str]:
    """Expire open checkouts whose time is over; their ids. Money that comes later still settles them."""
    expired = [row[0] for row in tx.all(_DUE, {"now": tx.now, "limit": limit})]
    for checkout_id in expired:
        tx.execute(_EXPIRE, {"checkout_id": checkout_id, "now": tx.now})
        tx.record("checkout.expired", "checkout", checkout_id)
    return expired


def cancel(tx: Tx, checkout_id: str) -> bool:
    """Call off a checkout that is open; whether it was. Money that comes later still settles it."""
    canceled = tx.execute(_CANCEL, {"checkout_id": checkout_id, "now": tx.now}) == 1
    if canceled:
        tx.record("checkout.canceled", "checkout", checkout_id)
    return canceled


def fail(tx: Tx, checkout_id: str, *, why: str) -> bool:
    """Give up a checkout that its rail refused to open. Whether it was still waiting for that."""
    failed = tx.execute(_FAIL, {"checkout_id": checkout_id, "now": tx.now}) == 1
    if failed:
        tx.record("checkout.failed", "checkout", checkout_id, why=why)
    return failed


def unsettled(tx: Tx, rail: str, *, checked_before: datetime, limit: int = 100) -> list[Checkout]:
    """Checkouts about which the rail may still have something to say, longest unasked first."""
    rows = tx.all(_UNSETTLED, {"rail": rail, "before": checked_before, "limit": limit})
    return [Checkout(*row) for row in rows]


def mark_checked(tx: Tx, checkout_id: str, *, done: bool) -> None:
    """Note that the rail was asked. ``done``: it had nothing to say, so once it is over, ask no more."""
    tx.execute(_MARK_CHECKED, {"checkout_id": checkout_id, "now": tx.now})
    if done:
        tx.execute(_CLOSE, {"checkout_id": checkout_id, "now": tx.now})
