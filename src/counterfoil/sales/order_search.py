"""Finding orders: pages by keyset, counts, and everything in pages for an export.

Every filter has an index, and a page costs the same among a thousand orders and a million. With several
filters one is looked up, and the others are looked for among what it finds, in so many orders at most.
"""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import Scope
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import EPOCH, from_micros, to_micros
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.ids import first_id
from counterfoil.kernel.paging import Page, decode_cursor, encode_cursor
from counterfoil.sales.tables import orders
from counterfoil.sales.types import Order, OrderStatus

Direction = Literal["asc", "desc"]
Cursor = tuple[str, ...]

COUNTED = 10_000
"""How far a list counts what it has."""

_CANDIDATES = 2_000
_PAGE = 500
_LONGEST = 255
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, 998_999, UTC)
_ALL = 2**31 - 1
_LAST_CHARACTER = "\U0010ffff"  # nothing that begins with a text sorts behind the text and this


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders: those that all of it is true of."""

    statuses: tuple[OrderStatus, ...] = ()
    """In one of these states; none named = in any."""
    is_partially_refunded: bool = False
    """Of whose amount a part went back, and not all."""
    search: str | None = None
    """An order's id, its purchase reference, or how its e-mail address begins."""
    email: str | None = None
    customer_id: str | None = None
    created_after: datetime | None = None
    """At this moment or later."""
    created_before: datetime | None = None
    """Before this moment."""


class Count(msgspec.Struct, frozen=True):
    """How many orders there are, counted up to 10,000."""

    count: int
    is_exact: bool


class _Shape(msgspec.Struct, frozen=True):
    """What a statement is made for: which filters, in the order they are used, and which way."""

    filters: tuple[str, ...]
    statuses: int
    direction: Direction

    @property
    def by_email(self) -> bool:
        return self.filters[:1] == ("search",)


_EVERYTHING = Filter()
_NARROWEST_FIRST = ("search", "email", "customer_id", "is_partially_refunded", "statuses")

_LIMIT = sa.bindparam("limit", type_=sa.Integer)

# Spelled as in the index, or no database would see that it serves.
_PARTIALLY_REFUNDED = sa.and_(orders.c.refunded > sa.literal_column("0"), orders.c.refunded < orders.c.amount)


def start(after: str | None, only: Filter) -> Cursor:
    """Where a page of this list begins. Raises Invalid (``invalid_cursor``) for a cursor of another list."""
    if not after:
        return ()
    kinds = (str, str) if only.search is not None else (str,)
    return tuple(str(value) for value in decode_cursor(after, kinds))


def list_(
    tx: Tx, *, only: Filter = _EVERYTHING, order: Direction = "asc", after: Cursor = (), limit: int = 20
) -> Page[Order]:
    """A page of orders, oldest first, or newest first (``desc``); a search sorts by e-mail address first.

    With several filters a page may be short, or empty, and have a next one all the same. Raises Invalid.
    """
    shape, params = _read(only, order)
    params |= _keyset(shape, params, after) | {"limit": limit + 1}
    found = [Order(*row) for row in tx.all(_list(shape), params)]
    if len(found) > limit:
        return Page(found[:limit], encode_cursor(_place(shape, found[limit - 1])))
    if len(shape.filters) > 1:
        last = tx.one(_last_candidate(shape), params)
        if last is not None:
            return Page(found, encode_cursor((last.address, last.id) if shape.by_email else (last.id,)))
    return Page(found)


def count(tx: Tx, *, only: Filter = _EVERYTHING, most: int | None = COUNTED) -> Count:
    """How many orders there are; not counted any further than ``most``. Raises Invalid."""
    shape, params = _read(only, "asc")
    row = tx.one(_count(shape), params | _keyset(shape, params, ()) | {"limit": _ALL if most is None else most + 1})
    assert row is not None
    if most is not None and row.n > most:
        return Count(most, is_exact=False)
    return Count(row.n, is_exact=True)


async def everything(scope: Scope, *, only: Filter = _EVERYTHING) -> AsyncIterator[list[Order]]:
    """All orders in pages, oldest first, each page as of when it is read. Raises Invalid."""
    after: Cursor = ()
    while True:
        page = await scope.read(list_, only=only, after=after, limit=_PAGE)
        if page.data:
            yield page.data
        if page.next is None:
            return
        after = start(page.next, only)


def _read(only: Filter, order: Direction) -> tuple[_Shape, dict[str, Any]]:
    """The statement that is needed, and what it is given."""
    params: dict[str, Any] = {}
    for name in ("search", "email", "customer_id"):
        value: str | None = getattr(only, name)
        if value is not None:
            params[name] = unicodedata.normalize("NFC", value).strip()
            if not 1 <= len(params[name]) <= _LONGEST:
                raise Invalid.field(name, f"must have 1 to {_LONGEST} characters")
    if "email" in params:
        params["email"] = params["email"].lower()
    if "search" in params:
        params["prefix"] = params["search"].lower()
    statuses = sorted(set(only.statuses))
    params |= {f"status_{place}": status for place, status in enumerate(statuses)}
    since = _moment("created_after", only.created_after, EPOCH)
    until = _moment("created_before", only.created_before, _LAST_MOMENT)
    # Ids tell the time, so a stretch of time is a stretch of every index; the moments tell it exactly.
    params |= {"since": since, "until": until}
    params |= {"low": first_id("ord", since), "high": first_id("ord", until + _MILLISECOND)}
    given = tuple(name for name in _NARROWEST_FIRST if getattr(only, name))
    return _Shape(given, len(statuses), order), params


def _moment(name: str, given: datetime | None, otherwise: datetime) -> datetime:
    if given is None:
        return otherwise
    if given.tzinfo is None:
        raise Invalid.field(name, "needs a time zone: 2026-12-31T18:00:00Z")
    return from_micros(min(max(to_micros(given), 0), to_micros(_LAST_MOMENT)))


def _place(shape: _Shape, order: Order) -> Cursor:
    return (order.email or "", order.id) if shape.by_email else (order.id,)


def _keyset(shape: _Shape, params: dict[str, Any], after: Cursor) -> dict[str, Any]:
    """Where the page begins, in the terms of the statement."""
    if shape.by_email:
        first, last = params["prefix"], params["prefix"] + _LAST_CHARACTER
        asc = shape.direction == "asc"
        place = (after[0], after[1]) if after else (("", "") if asc else (_LAST_CHARACTER, ""))
        # Each database begins its walk where one of the conditions says, not always the narrowest: so all say it.
        near = max(place, (first, "")) if asc else min(place, (last, ""))
        return {
            "after_address": place[0],
            "after_id": place[1],
            "near_address": near[0],
            "near_id": near[1],
            "from_address": near[0] if asc else first,
            "to_address": last if asc else near[0],
        }
    if not after:
        return {}
    if shape.direction == "asc":
        return {"low": max(params["low"], after[0])}
    return {"high": min(params["high"], after[0])}


def _arms(shape: _Shape) -> list[sa.Select[Any]]:
    """The lookups that together find every candidate once, each along an index."""
    first = shape.filters[0] if shape.filters else None
    arms: list[list[sa.ColumnElement[bool]]]
    if first == "search":
        found = sa.bindparam("search", type_=sa.Text)
        by_name = sa.or_(orders.c.id == found, orders.c.purchase_reference == found)
        begins = [orders.c.email >= sa.bindparam("from_address"), orders.c.email <= sa.bindparam("to_address")]
        arms = [
            [orders.c.id == found],
            [orders.c.purchase_reference == found, orders.c.id != found],
            [*begins, sa.not_(by_name)],
        ]
    elif first == "statuses":
        arms = [[orders.c.status == sa.bindparam(f"status_{place}")] for place in range(shape.statuses)]
    elif first is None:
        arms = [[]]
    else:
        arms = [[_condition(first, orders.c, shape)]]
    spanned = [orders.c.id > sa.bindparam("low"), orders.c.id < sa.bindparam("high")]
    timed = [orders.c.created_at >= sa.bindparam("since"), orders.c.created_at < sa.bindparam("until")]
    if not shape.by_email:  # a search has its own range; one of ids as well would tempt databases to walk that
        timed += spanned
    made = [sa.select(*columns(orders)).where(mine(orders), *arm, *timed) for arm in arms]
    if not shape.by_email:
        return [arm.order_by(orders.c.id.desc() if shape.direction == "desc" else orders.c.id) for arm in made]
    address = sa.func.coalesce(orders.c.email, sa.literal_column("''"))
    by_name_arms = [_after_address(arm, address, shape, "after") for arm in made[:2]]
    return [*by_name_arms, _after_address(made[2], orders.c.email, shape, "near")]


def _after_address(
    arm: sa.Select[Any], address: sa.ColumnElement[str], shape: _Shape, name: Literal["after", "near"]
) -> sa.Select[Any]:
    place = sa.tuple_(address, orders.c.id)
    given = sa.tuple_(sa.bindparam(f"{name}_address", type_=sa.Text), sa.bindparam(f"{name}_id", type_=sa.Text))
    arm = arm.add_columns(address.label("address"))
    if shape.direction == "desc":
        return arm.where(place < given).order_by(address.desc(), orders.c.id.desc())
    return arm.where(place > given).order_by(address, orders.c.id)


def _condition(name: str, at: Any, shape: _Shape) -> sa.ColumnElement[bool]:
    """What a filter asks of an order, looked for in ``at``: the table's columns, or the candidates'."""
    if name == "is_partially_refunded":
        if at is orders.c:
            return _PARTIALLY_REFUNDED
        return sa.and_(at.refunded > 0, at.refunded < at.amount)
    if name == "statuses":
        return sa.or_(*[at.status == sa.bindparam(f"status_{place}") for place in range(shape.statuses)])
    condition: sa.ColumnElement[bool] = at[name] == sa.bindparam(name, type_=sa.Text)
    return condition


def _sorted(statement: sa.Select[Any], at: Any, shape: _Shape) -> sa.Select[Any]:
    by = [at.address, at.id] if shape.by_email else [at.id]
    return statement.order_by(*[column.desc() if shape.direction == "desc" else column for column in by])


def _candidates(shape: _Shape, most: sa.BindParameter[int] | int | None) -> Any:
    """The orders that the first filter finds, in order, ``most`` of them: something to select from."""
    arms = [arm if most is None else arm.limit(most) for arm in _arms(shape)]
    if len(arms) == 1:
        return arms[0].subquery()
    whole = sa.union_all(*[sa.select(arm.subquery()) for arm in arms]).subquery()
    return whole if most is None else _sorted(sa.select(whole), whole.c, shape).limit(most).subquery()


def _found(shape: _Shape, among: Any) -> sa.Select[Any]:
    """The candidates of which the other filters are true, too."""
    rest = [_condition(name, among.c, shape) for name in shape.filters[1:]]
    return sa.select(*[among.c[column.name] for column in columns(orders)]).where(*rest)


@cache
def _list(shape: _Shape) -> sa.Select[Any]:
    among = _candidates(shape, _LIMIT if len(shape.filters) < 2 else _CANDIDATES)
    return _sorted(_found(shape, among), among.c, shape).limit(_LIMIT)


@cache
def _last_candidate(shape: _Shape) -> sa.Select[Any]:
    among = _candidates(shape, _CANDIDATES)
    shown = [among.c.address, among.c.id] if shape.by_email else [among.c.id]
    return _sorted(sa.select(*shown), among.c, shape).limit(1).offset(_CANDIDATES - 1)


@cache
def _count(shape: _Shape) -> sa.Select[Any]:
    among = _candidates(shape, _LIMIT if len(shape.filters) < 2 else None)
    return sa.select(sa.func.count().label("n")).select_from(_found(shape, among).limit(_LIMIT).subquery())
