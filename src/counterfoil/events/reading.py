"""Reading the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.events.types import Event
from counterfoil.kernel.clock import EPOCH, from_micros, to_micros
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.ids import first_id
from counterfoil.kernel.paging import Page, encode_cursor, page_of

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
_COLUMNS = ("object_id", "customer_id", "actor_id", "type")
"""Each has an index; the narrower comes first."""
_CANDIDATES = 10_000


def list_(tx: Tx, *, only: Filter = _EVERYTHING, order: Order = "asc", after: str = "", limit: int = 20) -> Page[Event]:
    """A page of events, oldest first, or newest first (``desc``). Raises Invalid.

    With several filters, one is looked up and the others are looked for among what it finds, in so many events at
    most: a page may then be short, or empty, and have a next one all the same.
    """
    params: dict[str, Any] = {name: getattr(only, name) for name in _COLUMNS if getattr(only, name) is not None}
    for name, value in params.items():
        if len(value) > _LONGEST:
            raise Invalid.field(name, f"has more than {_LONGEST} characters")
    names = tuple(params)
    since, until = _moment("since", only.since, EPOCH), _moment("until", only.until, _LAST_MOMENT)
    # Ids tell the time, so a stretch of time is a stretch of every index.
    low, high = first_id("evt", since), first_id("evt", until + _MILLISECOND)
    low, high = (max(low, after), high) if order == "asc" else (low, min(high, after or high))
    params |= {"since": since, "until": until, "low": low, "high": high, "limit": limit + 1}
    statement = _list(names, only.since is not None or only.until is not None, order)
    page = page_of([Event(*row) for row in tx.all(statement, params)], limit)
    if page.next is None and len(names) > 1:
        last = tx.one(_last_candidate(names[0], order), params)
        return Page(page.data, encode_cursor((last.id,)) if last is not None else None)
    return page


def _moment(name: str, given: datetime | None, otherwise: datetime) -> datetime:
    if given is None:
        return otherwise
    if given.tzinfo is None:
        raise Invalid.field(name, "needs a time zone: 2026-12-31T18:00:00Z")
    return from_micros(min(max(to_micros(given), 0), to_micros(_LAST_MOMENT)))


def _candidates(name: str | None, order: Order) -> sa.Select[Any]:
    return (
        sa.select(*columns(events))
        .where(
            mine(events),
            *([events.c[name] == sa.bindparam(name)] if name else []),
            events.c.id > sa.bindparam("low"),
            events.c.id < sa.bindparam("high"),
        )
        .order_by(events.c.id.desc() if order == "desc" else events.c.id)
    )


@cache
def _list(names: tuple[str, ...], is_timed: bool, order: Order) -> sa.Select[Any]:  # noqa: FBT001 # a cache's key
    first = _candidates(names[0] if names else None, order)
    found: Any = events.c
    statement = first
    if len(names) > 1:
        among = first.limit(_CANDIDATES).subquery()
        found = among.c
        statement = sa.select(among).order_by(found.id.desc() if order == "desc" else found.id)
    statement = statement.where(*[found[name] == sa.bindparam(name) for name in names[1:]])
    if is_timed:  # ids tell it to the millisecond
        statement = statement.where(found.created_at >= sa.bindparam("since"), found.created_at < sa.bindparam("until"))
    return statement.limit(sa.bindparam("limit", type_=sa.Integer))


@cache
def _last_candidate(name: str, order: Order) -> sa.Select[Any]:
    return _candidates(name, order).with_only_columns(events.c.id).limit(1).offset(_CANDIDATES - 1)
