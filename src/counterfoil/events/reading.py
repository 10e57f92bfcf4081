"""Reading the record."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.events.types import Event
from counterfoil.kernel.paging import Page, page_of

_LIST = (
    sa.select(*columns(events))
    .where(mine(events), events.c.id > sa.bindparam("after"))
    .order_by(events.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_OBJECT = _LIST.where(events.c.object_id == sa.bindparam("object_id"))


def list_(tx: Tx, *, object_id: str | None = None, after: str = "", limit: int = 20) -> Page[Event]:
    """A page of events, oldest first; of one object, or all."""
    params: dict[str, Any] = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_OBJECT, {**params, "object_id": object_id}) if object_id else tx.all(_LIST, params)
    return page_of([Event(*row) for row in rows], limit)
