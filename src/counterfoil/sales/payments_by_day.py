"""Payments as a comparison with a rail's own list needs them: archived or not, by their references or their day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.ids import first_id
from counterfoil.sales.tables import payments, payments_archive

_SKEW = timedelta(hours=1)
"""By how much a rail's clock may be ahead of ours, generously."""


class Entry(msgspec.Struct, frozen=True):
    """What a payment is compared by."""

    id: str
    reference: str
    amount: int
    asset: str
    occurred_at: datetime


def _select(table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    return sa.select(table.c.id, table.c.reference, table.c.amount, table.c.asset, table.c.occurred_at).where(
        mine(table), table.c.rail == sa.bindparam("rail")
    )


_TABLES = (payments, payments_archive)
_OF_REFERENCES = sa.union_all(*[_select(table).where(any_of(table.c.reference, "names")) for table in _TABLES])
_OF_DAY = {
    table.name: _select(table)
    .where(
        table.c.id > sa.bindparam("after"),
        table.c.occurred_at >= sa.bindparam("since"),
        table.c.occurred_at < sa.bindparam("until"),
    )
    .order_by(table.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    for table in _TABLES
}


def of_references(tx: Tx, rail: str, names: Iterable[str]) -> dict[str, Entry]:
    """Those that we have of the payments that a rail names so, by its names."""
    wanted = sorted(set(names))
    rows = tx.all(_OF_REFERENCES, {"rail": rail, "names": wanted}) if wanted else []
    return {row.reference: Entry(*row) for row in rows}


def between(tx: Tx, rail: str, since: datetime, until: datetime, *, after: str, limit: int) -> list[Entry]:
    """Payments of a rail whose money moved between two moments, the first included, from the smallest id on.

    ``after``: the last id that was seen; empty at first. A payment is written down after its money moved, so that
    earlier rows need not be looked at.
    """
    start = max(after, first_id("pay", since - _SKEW))
    params = {"rail": rail, "since": since, "until": until, "after": start, "limit": limit}
    found = [Entry(*row) for name in _OF_DAY for row in tx.all(_OF_DAY[name], params)]
    return sorted(found, key=lambda one: one.id)[:limit]
