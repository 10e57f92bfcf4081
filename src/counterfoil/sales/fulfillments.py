"""Parcels of an order: what is in them, where they are, and what that makes of the order.

Whatever packs, sends or cancels takes the order's row first. So of two who pack the last unit at once one waits,
then sees what the other packed.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line
from counterfoil.sales import orders
from counterfoil.sales.order_states import (
    FULFILLMENT_STEPS,
    OPEN_TO_FULFILLMENT,
    ORDER_STEPS,
    check_step,
)
from counterfoil.sales.tables import fulfillment_items, fulfillments
from counterfoil.sales.types import Fulfillment, FulfillmentItem, FulfillmentStatus, Order, OrderStatus

_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f<>\"'\\]{1,1990}")

_GET = sa.select(*columns(fulfillments)).where(mine(fulfillments), fulfillments.c.id == sa.bindparam("id"))
_OF_ORDER = (
    sa.select(*columns(fulfillments))
    .where(
        mine(fulfillments),
        fulfillments.c.order_id == sa.bindparam("order_id"),
        fulfillments.c.id > sa.bindparam("after"),
    )
    .order_by(fulfillments.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_ITEMS = (
    sa.select(fulfillment_items.c.fulfillment_id, fulfillment_items.c.line, fulfillment_items.c.quantity)
    .where(mine(fulfillment_items), any_of(fulfillment_items.c.fulfillment_id, "ids"))
    .order_by(fulfillment_items.c.fulfillment_id, fulfillment_items.c.line)
)
_PACKED = (
    sa.select(
        fulfillment_items.c.line,
        fulfillments.c.status,
        sa.cast(sa.func.sum(fulfillment_items.c.quantity), sa.BigInteger).label("quantity"),
    )
    .join(
        fulfillments,
        sa.and_(
            fulfillments.c.tenant_id == fulfillment_items.c.tenant_id,
            fulfillments.c.id == fulfillment_items.c.fulfillment_id,
        ),
    )
    .where(
        mine(fulfillment_items, fulfillments),
        fulfillments.c.order_id == sa.bindparam("order_id"),
        fulfillments.c.status != "canceled",
    )
    .group_by(fulfillment_items.c.line, fulfillments.c.status)
)
_CHANGE = sa.update(fulfillments).where(mine(fulfillments), fulfillments.c.id == sa.bindparam("fulfillment_id"))
_MOVE = (
    _CHANGE.where(fulfillments.c.status == sa.bindparam("from_status"))
    .values(
        status=sa.bindparam("to_status"),
        carrier=sa.bindparam("new_carrier"),
        tracking_number=sa.bindparam("new_tracking_number"),
        tracking_url=sa.bindparam("new_tracking_url"),
        shipped_at=sa.bindparam("new_shipped_at"),
        delivered_at=sa.bindparam("new_delivered_at"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(fulfillments))
)
_TRACK = (
    _CHANGE.where(fulfillments.c.status != "canceled")
    .values(
        carrier=sa.bindparam("new_carrier"),
        tracking_number=sa.bindparam("new_tracking_number"),
        tracking_url=sa.bindparam("new_tracking_url"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(fulfillments))
)


class PackedItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many units of which line of an order: ``line`` counts its items from 0."""

    line: int
    quantity: int


class Tracking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who carries a parcel and how it is followed. What is left out stays."""

    carrier: str | msgspec.UnsetType = msgspec.UNSET
    tracking_number: str | msgspec.UnsetType = msgspec.UNSET
    tracking_url: str | msgspec.UnsetType | None = msgspec.UNSET
    """An http or https address."""


class NewFulfillment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes into a parcel, and who carries it where that is known already."""

    items: list[PackedItem]
    carrier: str = ""
    tracking_number: str = ""
    tracking_url: str | None = None
    metadata: dict[str, Any] = {}


class FulfillmentView(msgspec.Struct, frozen=True):
    """One parcel of an order and what is in it."""

    id: str
    order_id: str
    status: FulfillmentStatus
    items: list[PackedItem]
    carrier: str
    tracking_number: str
    tracking_url: str | None
    shipped_at: datetime | None
    delivered_at: datetime | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class _Packed(NamedTuple):
    """Of one line, how many units are in parcels that were not canceled, have left, have arrived."""

    packed: int = 0
    shipped: int = 0
    delivered: int = 0


_NO_TRACKING = Tracking()


def create(tx: Tx, order_id: str, new: NewFulfillment) -> FulfillmentView:
    """Pack a parcel. What is in an order's parcels together never exceeds the order.

    The order follows: some of it packed is ``partially_fulfilled``, all of it ``fulfilled``. Raises NotFound;
    Invalid (``no_items``, ``unknown_line``, ``quantity_out_of_range`` among others); Conflict
    (``order_not_fulfillable``, ``quantity_exceeds_order``).
    """
    carrier, number, url = _checked(new.carrier, new.tracking_number, new.tracking_url)
    check_metadata("metadata", new.metadata)
    if not new.items:
        raise Invalid.field("items", "a parcel has at least one item", code="no_items")
    order = orders.lock(tx, order_id)
    _check_lines(order, new.items)
    _check_open(order)
    packed = _packed(tx, order)
    for item in new.items:
        left = int(order.items[item.line]["quantity"]) - packed.get(item.line, _Packed()).packed
        if item.quantity > left:
            raise Conflict(
                f"Of item {item.line}, {left} are left to pack, not {item.quantity}.", code="quantity_exceeds_order"
            )
    row = Fulfillment(
        id=tx.new_id("ful"),
        order_id=order_id,
        status="pending",
        carrier=carrier,
        tracking_number=number,
        tracking_url=url,
        shipped_at=None,
        delivered_at=None,
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(fulfillments, row)
    tx.insert(fulfillment_items, *[FulfillmentItem(row.id, item.line, item.quantity, tx.now) for item in new.items])
    _record(tx, order, row, "created", items=[[item.line, item.quantity] for item in new.items])
    _follow(tx, order, row.id)
    return _view(row, sorted(new.items, key=lambda item: item.line))


def get(tx: Tx, fulfillment_id: str) -> FulfillmentView:
    """Raise NotFound (``fulfillment_not_found``) when there is none."""
    return _views(tx, [_get(tx, fulfillment_id)])[0]


def list_(tx: Tx, order_id: str, *, after: str = "", limit: int = 20) -> Page[FulfillmentView]:
    """A page of an order's parcels, oldest first. Raises NotFound."""
    orders.get(tx, order_id)
    return of_order(tx, order_id, after=after, limit=limit)


def of_order(tx: Tx, order_id: str, *, after: str = "", limit: int = 20) -> Page[FulfillmentView]:
    """The same for an order that is there."""
    rows = tx.all(_OF_ORDER, {"order_id": order_id, "after": after, "limit": limit + 1})
    page = page_of([Fulfillment(*row) for row in rows], limit)
    return Page(_views(tx, page.data), page.next)


def ship(tx: Tx, fulfillment_id: str, tracking: Tracking = _NO_TRACKING) -> FulfillmentView:
    """A parcel has left. Raises NotFound, Invalid; Conflict (``illegal_transition``, ``order_not_fulfillable``)."""
    return _move(tx, fulfillment_id, "shipped", tracking)


def deliver(tx: Tx, fulfillment_id: str) -> FulfillmentView:
    """A parcel has arrived. Raises NotFound; Conflict (``illegal_transition``)."""
    return _move(tx, fulfillment_id, "delivered")


def cancel(tx: Tx, fulfillment_id: str) -> FulfillmentView:
    """A parcel does not leave after all, and what was in it is to be packed again.

    Raises NotFound; Conflict (``illegal_transition``) for one that has left.
    """
    return _move(tx, fulfillment_id, "canceled")


def track(tx: Tx, fulfillment_id: str, tracking: Tracking) -> FulfillmentView:
    """Say who carries a parcel and how it is followed.

    Raises NotFound, Invalid; Conflict (``fulfillment_canceled``).
    """
    order = orders.lock(tx, _get(tx, fulfillment_id).order_id)
    wanted = _tracking(_get(tx, fulfillment_id), tracking)
    row = tx.one(_TRACK, {"fulfillment_id": fulfillment_id, "now": tx.now, **wanted})
    if row is None:
        raise Conflict("This parcel was canceled.", code="fulfillment_canceled")
    changed = Fulfillment(*row)
    _record(tx, order, changed, "updated")
    return _views(tx, [changed])[0]


def _get(tx: Tx, fulfillment_id: str) -> Fulfillment:
    row = tx.one(_GET, {"id": fulfillment_id})
    if row is None:
        raise NotFound("There is no such parcel.", code="fulfillment_not_found")
    return Fulfillment(*row)


def _move(tx: Tx, fulfillment_id: str, to: FulfillmentStatus, tracking: Tracking = _NO_TRACKING) -> FulfillmentView:
    order = orders.lock(tx, _get(tx, fulfillment_id).order_id)
    before = _get(tx, fulfillment_id)  # as it is now that nobody else moves it
    check_step("A parcel", FULFILLMENT_STEPS, before.status, to)
    if to == "shipped":
        _check_open(order)
    moved = {
        "from_status": before.status,
        "to_status": to,
        "new_shipped_at": tx.now if to == "shipped" else before.shipped_at,
        "new_delivered_at": tx.now if to == "delivered" else None,
    }
    row = tx.one(_MOVE, {"fulfillment_id": before.id, "now": tx.now, **moved, **_tracking(before, tracking)})
    assert row is not None
    after = Fulfillment(*row)
    _record(tx, order, after, to)
    _follow(tx, order, after.id)
    return _views(tx, [after])[0]


def _tracking(before: Fulfillment, tracking: Tracking) -> dict[str, Any]:
    """The tracking fields as they are to be. Raises Invalid."""
    given = [
        getattr(before, name) if (value := getattr(tracking, name)) is msgspec.UNSET else value
        for name in ("carrier", "tracking_number", "tracking_url")
    ]
    carrier, number, url = _checked(*given)
    return {"new_carrier": carrier, "new_tracking_number": number, "new_tracking_url": url}


def _checked(carrier: str, number: str, url: str | None) -> tuple[str, str, str | None]:
    if url is not None and not _URL.fullmatch(url):
        raise Invalid.field("tracking_url", "must be an http or https address")
    return check_line("carrier", carrier, most=100), check_line("tracking_number", number, most=200), url


def _check_lines(order: Order, items: list[PackedItem]) -> None:
    seen = set()
    for place, item in enumerate(items):
        if not 0 <= item.line < len(order.items):
            raise Invalid.field(
                f"items/{place}/line", f"the order has items 0 to {len(order.items) - 1}", code="unknown_line"
            )
        if item.line in seen:
            raise Invalid.field(f"items/{place}/line", "each line once", code="duplicate_line")
        if item.quantity < 1:
            raise Invalid.field(f"items/{place}/quantity", "must be at least 1", code="quantity_out_of_range")
        seen.add(item.line)


def _check_open(order: Order) -> None:
    if order.status not in OPEN_TO_FULFILLMENT:
        raise Conflict(f"Nothing of this order is to be sent: it is {order.status}.", code="order_not_fulfillable")


def _packed(tx: Tx, order: Order) -> dict[int, _Packed]:
    """What is in the order's parcels, by line. The order's row must be held."""
    found: dict[int, _Packed] = {}
    for line, status, quantity in tx.all(_PACKED, {"order_id": order.id}):
        known = found.get(line, _Packed())
        found[line] = _Packed(
            known.packed + quantity,
            known.shipped + (quantity if status in {"shipped", "delivered"} else 0),
            known.delivered + (quantity if status == "delivered" else 0),
        )
    return found


def _follow(tx: Tx, order: Order, fulfillment_id: str) -> None:
    """Move the order to what its parcels make of it, if it may go there; where a person put it elsewhere, it stays."""
    target = state_of(order, _packed(tx, order))
    if target is not None and target in ORDER_STEPS[order.status]:
        orders.move(tx, order, target, note=f"Parcel {fulfillment_id}")


def state_of(order: Order, packed: dict[int, _Packed]) -> OrderStatus | None:
    """What the parcels make of an order; None when they say nothing.

    Where an order has goods, only they count; whoever packs its other lines does not move it.
    """
    goods = [line for line, item in enumerate(order.items) if item.get("ships")]
    counts = [
        (int(order.items[line]["quantity"]), packed.get(line, _Packed()))
        for line in goods or range(len(order.items))
    ]  # fmt: skip
    if all(done.delivered == wanted for wanted, done in counts):
        return "delivered"
    if all(done.shipped == wanted for wanted, done in counts):
        return "shipped"
    if all(done.packed == wanted for wanted, done in counts):
        return "fulfilled"
    if any(done.packed for _, done in counts):
        return "partially_fulfilled"
    return "processing" if order.status in {"partially_fulfilled", "fulfilled"} else None


def _record(tx: Tx, order: Order, row: Fulfillment, what: str, **details: Any) -> None:
    tx.record(
        f"fulfillment.{what}",
        "fulfillment",
        row.id,
        customer_id=order.customer_id,
        order_id=order.id,
        carrier=row.carrier,
        tracking_number=row.tracking_number,
        **details,
    )


def _view(row: Fulfillment, items: list[PackedItem]) -> FulfillmentView:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return FulfillmentView(items=items, **fields)


def _views(tx: Tx, rows: list[Fulfillment]) -> list[FulfillmentView]:
    items: dict[str, list[PackedItem]] = {row.id: [] for row in rows}
    for fulfillment_id, line, quantity in tx.all(_ITEMS, {"ids": list(items)}) if rows else []:
        items[fulfillment_id].append(PackedItem(line, quantity))
    return [_view(row, items[row.id]) for row in rows]
