"""What news says about the object of an event: its row as of that transaction, as the API shows it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from counterfoil.accounts import tables as accounts
from counterfoil.catalog import tables as catalog
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.licensing import tables as licensing
from counterfoil.sales import tables as sales
from counterfoil.subscriptions import tables as subscriptions


class _Shown(NamedTuple):
    table: sa.Table
    without: frozenset[str] = frozenset()
    """What is no business of other systems: how we work, and what staff notes."""


_WORK = frozenset({"attempts", "next_attempt_at", "claimed_by", "claimed_until"})

_KINDS = {
    "customer": _Shown(accounts.customers, frozenset({"internal_notes", "import_meta"})),
    "address": _Shown(accounts.addresses),
    "business": _Shown(accounts.businesses),
    "product": _Shown(catalog.products),
    "price": _Shown(catalog.prices),
    "discount": _Shown(catalog.discounts),
    "stock_item": _Shown(catalog.stock_items),
    "cart": _Shown(sales.carts),
    "checkout": _Shown(
        sales.checkouts, frozenset({"url", "idempotency_key", "request_hash", "rail_final", "checked_at"})
    ),
    "payment": _Shown(sales.payments),
    "order": _Shown(sales.orders),
    "fulfillment": _Shown(sales.fulfillments),
    "refund": _Shown(sales.refunds, _WORK),
    "invoice": _Shown(sales.invoices),
    "dispute": _Shown(sales.disputes),
    "subscription": _Shown(subscriptions.subscriptions, frozenset({"heard", "heard_at", "checked_at"})),
    "license": _Shown(licensing.licenses),
    "machine": _Shown(licensing.machines),
}
"""The kinds that are read. Of every other, users and API keys among them, news says what the event says."""

# What a subscription is for comes with it. The rail's own words about it do not.
_SNAPSHOTS = frozenset({"price_snapshot", "product_snapshot"})
_ITEMS = (
    sa.select(*[column for column in columns(subscriptions.subscription_items) if column.name not in _SNAPSHOTS])
    .where(
        mine(subscriptions.subscription_items),
        any_of(subscriptions.subscription_items.c.subscription_id, "ids"),
    )
    .order_by(subscriptions.subscription_items.c.id)
)


def read(tx: Tx, kind: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The objects of one kind by id; those that are gone, or that we do not show, are missing."""
    if kind not in _KINDS:
        return {}
    params = {"ids": sorted(ids)}
    found = {row.id: _fields(row) for row in tx.all(_select(kind), params)}
    if kind == "subscription":
        for one in found.values():
            one["items"] = []
        for row in tx.all(_ITEMS, params):
            item = _fields(row)
            found[item.pop("subscription_id")]["items"].append(item)
    return found


def _fields(row: Row) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001 # SQLAlchemy's public name for it


@cache
def _select(kind: str) -> sa.Select[Any]:
    shown = _KINDS[kind]
    wanted = [column for column in columns(shown.table) if column.name not in shown.without]
    return sa.select(*wanted).where(mine(shown.table), any_of(shown.table.c.id, "ids"))
