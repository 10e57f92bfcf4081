"""What belongs to a customer, or to it and everyone below it: read across the domains, and never written."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import customers as accounts
from counterfoil.accounts.customer_tree import end_of
from counterfoil.accounts.tables import customers
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.events.types import Event
from counterfoil.kernel.paging import Page, page_of
from counterfoil.licensing.tables import licenses
from counterfoil.licensing.types import License
from counterfoil.sales.tables import checkouts, invoices, orders, payments
from counterfoil.sales.types import Checkout, Invoice, Order, Payment
from counterfoil.subscriptions.tables import subscriptions
from counterfoil.subscriptions.types import Subscription

T = TypeVar("T", bound=msgspec.Struct)

_TABLES = {
    Order: orders,
    Payment: payments,
    License: licenses,
    Checkout: checkouts,
    Event: events,
    Subscription: subscriptions,
    Invoice: invoices,
}
_SUBTREE = sa.select(customers.c.id).where(
    mine(customers), customers.c.path >= sa.bindparam("top"), customers.c.path < sa.bindparam("end")
)


def _page(table: sa.Table, whose: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(*columns(table))
        .where(mine(table), whose, table.c.id > sa.bindparam("after"))
        .order_by(table.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


_OWN = {
    kind: _page(table, table.c.customer_id == sa.bindparam("customer_id", type_=sa.Text))
    for kind, table in _TABLES.items()
}
_WITH_BELOW = {kind: _page(table, table.c.customer_id.in_(_SUBTREE)) for kind, table in _TABLES.items()}


def list_(tx: Tx, kind: type[T], customer_id: str, *, below: bool = False, after: str = "", limit: int = 20) -> Page[T]:
    """A page of a customer's orders, payments, licenses, checkouts, events, subscriptions or invoices, oldest first.

    ``below``: those of everyone below it, too, deleted customers included. Raises NotFound.
    """
    customer = accounts.get(tx, customer_id)
    params = {"after": after, "limit": limit + 1}
    if below:
        rows = tx.all(_WITH_BELOW[kind], {**params, "top": customer.path, "end": end_of(customer.path)})
    else:
        rows = tx.all(_OWN[kind], {**params, "customer_id": customer_id})
    return page_of([kind(*row) for row in rows], limit)
