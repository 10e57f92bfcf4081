"""Operations on invoices: the bills of rails, as their rails have them."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import invoices
from counterfoil.sales.types import Invoice, InvoiceStatus

_RANK: Final[dict[InvoiceStatus, int]] = {"draft": 0, "open": 1, "uncollectible": 2, "void": 3, "paid": 4}
"""A bill only ever goes up: what is paid stays paid."""

_GET = sa.select(*columns(invoices)).where(mine(invoices), invoices.c.id == sa.bindparam("id"))
_FIND = (
    sa.select(*columns(invoices))
    .where(mine(invoices), invoices.c.rail == sa.bindparam("rail"), invoices.c.reference == sa.bindparam("reference"))
    .with_for_update()
)
_OF_PAYMENT = sa.select(*columns(invoices)).where(
    mine(invoices), invoices.c.payment_id == sa.bindparam("payment_id"), invoices.c.payment_id.is_not(None)
)
_LIST = (
    sa.select(*columns(invoices))
    .where(mine(invoices), invoices.c.id > sa.bindparam("after"))
    .order_by(invoices.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_KEPT = ("id", "created_at", "updated_at", "rail", "reference")


def get(tx: Tx, invoice_id: str) -> Invoice:
    """Raise NotFound (``invoice_not_found``) when there is none."""
    row = tx.one(_GET, {"id": invoice_id})
    if row is None:
        raise NotFound("There is no such invoice.", code="invoice_not_found")
    return Invoice(*row)


class InvoiceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which invoices; all that is given must hold."""

    status: InvoiceStatus | None = None
    subscription_id: str | None = None
    customer_id: str | None = None


def list_(tx: Tx, only: InvoiceFilter, *, after: str = "", limit: int = 20) -> Page[Invoice]:
    """A page of invoices, oldest first."""
    given = {name: value for name, value in msgspec.structs.asdict(only).items() if value is not None}
    rows = tx.all(_list(tuple(given)), {**given, "after": after, "limit": limit + 1})
    return page_of([Invoice(*row) for row in rows], limit)


@cache
def _list(names: tuple[str, ...]) -> sa.Select[Any]:
    return _LIST.where(*[invoices.c[name] == sa.bindparam(name) for name in names])


def of_payment(tx: Tx, payment_id: str) -> list[Invoice]:
    """The bills that a payment paid."""
    return [Invoice(*row) for row in tx.all(_OF_PAYMENT, {"payment_id": payment_id})]


def put(tx: Tx, told: Invoice) -> Invoice:
    """Take a rail's word on a bill: the higher status counts, and of the same status the later word.

    Ids of ours that are known stay known. The answer is the bill as it stands, its row locked.
    """
    if tx.insert_if_new(invoices, told):
        _record(tx, told)
        return told
    row = tx.one(_FIND, {"rail": told.rail, "reference": told.reference})
    assert row is not None  # invoices are never removed
    known = Invoice(*row)
    is_newer = _at(told) > _at(known)
    values: dict[str, Any] = {}
    for name in told.__struct_fields__:
        mine_, theirs = getattr(known, name), getattr(told, name)
        if name in _KEPT or mine_ == theirs:
            continue
        if name.endswith("_id") or not is_newer:
            if mine_ is None:  # whoever tells less must not make us forget
                values[name] = theirs
        elif theirs is not None:
            values[name] = theirs
    older, newer = (known, told) if is_newer else (told, known)
    if (details := {**older.details, **newer.details}) != known.details:
        values["details"] = details
    if not values:
        return known
    return _write(tx, known, values)


def _at(invoice: Invoice) -> tuple[int, datetime]:
    return _RANK[invoice.status], invoice.occurred_at


def attach(tx: Tx, invoice: Invoice, **ids: str | None) -> Invoice:
    """Note what a bill paid for: ``order_id``, ``payment_id``, ``subscription_id``."""
    values = {name: value for name, value in ids.items() if value is not None and getattr(invoice, name) != value}
    return _write(tx, invoice, values) if values else invoice


@cache
def _update(names: tuple[str, ...]) -> sa.Update:
    """Built once for each set of columns: that costs more than running it."""
    statement = sa.update(invoices).where(mine(invoices), invoices.c.id == sa.bindparam("invoice_id"))
    return statement.values({name: sa.bindparam(f"new_{name}", type_=invoices.c[name].type) for name in names})


def _write(tx: Tx, known: Invoice, values: dict[str, Any]) -> Invoice:
    new_values = {f"new_{name}": value for name, value in {**values, "updated_at": tx.now}.items()}
    tx.execute(_update((*sorted(values), "updated_at")), {"invoice_id": known.id, **new_values})
    new = msgspec.structs.replace(known, **values, updated_at=tx.now)
    if new.status != known.status:
        _record(tx, new)
    return new


def _record(tx: Tx, invoice: Invoice) -> None:
    tx.record(
        f"invoice.{invoice.status}",
        "invoice",
        invoice.id,
        customer_id=invoice.customer_id,
        money=Money(invoice.amount, invoice.asset),
        rail=invoice.rail,
        number=invoice.number,
    )
