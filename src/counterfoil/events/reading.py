"""Reading the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import single_statement
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.events.types import Event
from counterfoil.kernel.clock import EPOCH, from_micros, to_micros
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.ids import first_id
from counterfoil.kernel.paging import Page, page_of

Order = Literal["asc", "desc"]

_MILLISECOND = timedelta(milliseconds=1)
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, 998_999, UTC)
_LONGEST = 200


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: those that all of it is true of."""

    type: str | None = None
    object_id: str | None = None
    customer_id: str | None = None
    actor_id: str | None = None
    since: datetime | None = None
    """At this moment or later."""
    until: datetime | None = None
    """Before this moment."""


_EVERYTHING = Filter()
_COLUMNS = ("type", "object_id", "customer_id", "actor_id")


@single_statement
def list_(tx: Tx, *, only: Filter = _EVERYTHING, order: Order = "asc", after: str = "", limit: int = 20) -> Page[Event]:
    """A page of events, oldest first, or newest first (``desc``). Raises Invalid.

    Ids tell the time, so a stretch of time is a stretch of every index.
    """
    params: dict[str, Any] = {name: getattr(only, name) for name in _COLUMNS if getattr(only, name) is not None}
    for name, value in params.items():
        if len(value) > _LONGEST:
            raise Invalid.field(name, f"has more than {_LONGEST} characters")
    since, until = _moment("since", only.since, EPOCH), _moment("until", only.until, _LAST_MOMENT)
    low, high = first_id("evt", since), first_id("evt", until + _MILLISECOND)
    low, high = (max(low, after), high) if order == "asc" else (low, min(high, after or high))
    statement = _list(tuple(params), only.since is not None or only.until is not None, order)
    params |= {"since": since, "until": until, "low": low, "high": high, "limit": limit + 1}
    return page_of([Event(*row) for row in tx.all(statement, params)], limit)


def _moment(name: str, given: datetime | None, otherwise: datetime) -> datetime:
    if given is None:
        return otherwise
    if given.tzinfo is None:
        raise Invalid.field(name, "needs a time zone: 2026-12-31T18:00:00Z")
    return from_micros(min(max(to_micros(given), 0), to_micros(_LAST_MOMENT)))


@cache
def _list(names: tuple[str, ...], is_timed: bool, order: Order) -> sa.Select[Any]:  # noqa: FBT001 # a cache's key
    found = sa.select(*columns(events)).where(
        mine(events),
        *[events.c[name] == sa.bindparam(name) for name in names],
        events.c.id > sa.bindparam("low"),
        events.c.id < sa.bindparam("high"),
    )
    if is_timed:  # ids tell it to the millisecond
        found = found.where(events.c.created_at >= sa.bindparam("since"), events.c.created_at < sa.bindparam("until"))
    way = events.c.id.desc() if order == "desc" else events.c.id.asc()
    return found.order_by(way).limit(sa.bindparam("limit", type_=sa.Integer))
