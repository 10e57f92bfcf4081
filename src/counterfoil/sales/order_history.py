"""What became of an order, step by step. Rows are added and never changed."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.tables import order_history
from counterfoil.sales.types import OrderHistoryEntry, OrderStatus

_LIST = (
    sa.select(*columns(order_history))
    .where(
        mine(order_history),
        order_history.c.order_id == sa.bindparam("order_id"),
        order_history.c.id > sa.bindparam("after"),
    )
    .order_by(order_history.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def append(
    tx: Tx, order_id: str, before: OrderStatus, after: OrderStatus, note: str, *, read_again: bool = True
) -> None:
    """Write down one step, and who took it. ``read_again``: whether this transaction may read it."""
    entry = OrderHistoryEntry(
        id=tx.new_id("ohe"),
        order_id=order_id,
        from_status=before,
        to_status=after,
        note=note,
        actor_kind=tx.actor.kind,
        actor_id=tx.actor.id,
        created_at=tx.now,
    )
    (tx.insert if read_again else tx.insert_later)(order_history, entry)


def of_order(tx: Tx, order_id: str, *, after: str = "", limit: int = 20) -> Page[OrderHistoryEntry]:
    """A page of an order's steps, oldest first; empty for an order that is not there."""
    rows = tx.all(_LIST, {"order_id": order_id, "after": after, "limit": limit + 1})
    return page_of([OrderHistoryEntry(*row) for row in rows], limit)
