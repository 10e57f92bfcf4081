"""How much there is to sell: counting stock. What checkouts hold of it is in ``stock_reservations``.

Stock is of a product, or of one of its prices where variants lie on shelves of their own: a line takes from its
price's item where there is one, else from its product's. What has neither is not counted and never runs out.

No row can promise more than there is, unless its policy allows backorders: ``ck_stock_items_oversold``.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog import prices, products
from counterfoil.catalog.tables import stock_items, stock_reservations
from counterfoil.catalog.types import ReservationStatus, StockItem, StockPolicy, StockReservation
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line

MOST = 1_000_000_000
"""As many units as one item counts, or owes."""

_GET = sa.select(*columns(stock_items)).where(mine(stock_items), stock_items.c.id == sa.bindparam("id"))
_GET_LOCKED = _GET.with_for_update(key_share=True)
_GET_TO_REMOVE = _GET.with_for_update()
# NULL is equal to nothing, so the missing price is compared as an empty text.
_IS_OF = sa.and_(
    mine(stock_items),
    stock_items.c.product_id == sa.bindparam("of_product"),
    sa.func.coalesce(stock_items.c.price_id, "") == sa.bindparam("of_price"),
)
_FIND = sa.select(*columns(stock_items)).where(_IS_OF)
_LIST = (
    sa.select(*columns(stock_items))
    .where(mine(stock_items), stock_items.c.id > sa.bindparam("after"))
    .order_by(stock_items.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_PRODUCT = _LIST.where(stock_items.c.product_id == sa.bindparam("product_id"))
_RESERVATIONS = (
    sa.select(*columns(stock_reservations))
    .where(
        mine(stock_reservations),
        stock_reservations.c.stock_item_id == sa.bindparam("stock_item_id"),
        stock_reservations.c.id > sa.bindparam("after"),
    )
    .order_by(stock_reservations.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_RESERVATIONS_STATUS = _RESERVATIONS.where(stock_reservations.c.status == sa.bindparam("status"))

_NEW_ON_HAND = sa.func.coalesce(sa.bindparam("new_on_hand", type_=sa.BigInteger), stock_items.c.on_hand)
_NEW_POLICY = sa.func.coalesce(sa.bindparam("new_policy", type_=sa.Text), stock_items.c.policy)
_SET = (
    sa.update(stock_items)
    .where(_IS_OF, sa.or_(_NEW_POLICY == "allow_backorder", stock_items.c.reserved <= _NEW_ON_HAND))
    .values(on_hand=_NEW_ON_HAND, policy=_NEW_POLICY, updated_at=sa.bindparam("now"))
    .returning(*columns(stock_items))
)
_THEN_ON_HAND = stock_items.c.on_hand + sa.bindparam("by", type_=sa.BigInteger)
_ADJUST = (
    sa.update(stock_items)
    .where(
        _IS_OF,
        sa.or_(stock_items.c.policy == "allow_backorder", stock_items.c.reserved <= _THEN_ON_HAND),
        _THEN_ON_HAND.between(-MOST, MOST),
    )
    .values(on_hand=_THEN_ON_HAND, updated_at=sa.bindparam("now"))
    .returning(*columns(stock_items))
)
_FORGET_RESERVATIONS = sa.delete(stock_reservations).where(
    mine(stock_reservations), stock_reservations.c.stock_item_id == sa.bindparam("item_id")
)
_REMOVE = sa.delete(stock_items).where(mine(stock_items), stock_items.c.id == sa.bindparam("item_id"))

_HELD = sa.cast(sa.func.coalesce(sa.func.sum(stock_reservations.c.quantity), 0), sa.BigInteger)
_HELD_OF_ITEM = sa.select(_HELD).where(
    mine(stock_reservations),
    stock_reservations.c.stock_item_id == sa.bindparam("item_id"),
    stock_reservations.c.status == "active",
)
_HELD_OF_EACH = (
    sa.select(_HELD)
    .where(
        mine(stock_reservations),
        stock_reservations.c.stock_item_id == stock_items.c.id,
        stock_reservations.c.status == "active",
    )
    .correlate(stock_items)
    .scalar_subquery()
)
_DRIFTED = (
    sa.select(stock_items.c.id)
    .where(mine(stock_items), stock_items.c.reserved != _HELD_OF_EACH)
    .order_by(stock_items.c.id)
)
_CORRECT = (
    sa.update(stock_items)
    .where(
        mine(stock_items),
        stock_items.c.id == sa.bindparam("item_id"),
        sa.or_(stock_items.c.policy == "allow_backorder", stock_items.c.on_hand >= sa.bindparam("held")),
    )
    .values(reserved=sa.bindparam("held"), updated_at=sa.bindparam("now"))
)


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A stock item whose ``reserved`` is not what checkouts hold of it."""

    item: StockItem
    held: int
    """What active reservations hold together."""
    fixed: bool
    """Whether ``reserved`` is that now. It cannot be where that is more than there is and backorders are denied."""


def _of(tx: Tx, product: str, price_id: str | None) -> dict[str, str]:
    """Whose stock is meant. Raises NotFound; Invalid when the price is another product's."""
    product_id = products.find(tx, product).id
    if price_id is not None and prices.get(tx, price_id).product_id != product_id:
        raise Invalid.field("price_id", "this price is of another product", code="price_of_other_product")
    return {"of_product": product_id, "of_price": price_id or ""}


def set_(
    tx: Tx,
    product: str,
    *,
    price_id: str | None = None,
    on_hand: int | None = None,
    policy: StockPolicy | None = None,
) -> StockItem:
    """Say how much there is of a product (by slug or id), or of one of its prices; what is left out stays.

    The first time it begins to be counted, and ``on_hand`` must be said. Raises Invalid; NotFound; Conflict:
    ``stock_reserved`` when checkouts hold more than that, ``stock_backordered`` when backorders are to be denied
    while more is promised than there is.
    """
    if on_hand is not None and not 0 <= on_hand <= MOST:
        raise Invalid.field("on_hand", f"must be from 0 to {MOST}")
    whose = _of(tx, product, price_id)
    change = {**whose, "new_on_hand": on_hand, "new_policy": policy, "now": tx.now}
    row = tx.one(_SET, change)
    if row is None and tx.one(_FIND, whose) is None:
        if on_hand is None:
            raise Invalid.field("on_hand", "say how many there are", code="on_hand_required")
        item = StockItem(
            id=tx.new_id("stk"),
            product_id=whose["of_product"],
            price_id=price_id,
            on_hand=on_hand,
            reserved=0,
            policy=policy or "deny",
            created_at=tx.now,
            updated_at=tx.now,
        )
        if tx.insert_if_new(stock_items, item):
            return _changed(tx, item)
    if row is None:  # it is refused, or somebody began to count it since we looked
        row = tx.one(_SET, change)
    if row is None:
        raise _refused(_found(tx, whose), on_hand, policy)
    return _changed(tx, StockItem(*row))


def _refused(item: StockItem, on_hand: int | None, policy: StockPolicy | None) -> Conflict:
    if policy == "deny" and item.policy == "allow_backorder":
        there = item.on_hand if on_hand is None else on_hand
        return Conflict(
            f"{item.reserved} are promised and there are {there}; count more before denying backorders.",
            code="stock_backordered",
        )
    return _too_few(item)


def _too_few(item: StockItem) -> Conflict:
    return Conflict(f"Open checkouts hold {item.reserved}, so there cannot be fewer.", code="stock_reserved")


def _changed(tx: Tx, item: StockItem, **details: Any) -> StockItem:
    """Record how much there is now."""
    tx.record(
        "stock.changed",
        "stock_item",
        item.id,
        product_id=item.product_id,
        price_id=item.price_id,
        on_hand=item.on_hand,
        reserved=item.reserved,
        policy=item.policy,
        **details,
    )
    return item


def adjust(tx: Tx, product: str, *, by: int, reason: str = "", price_id: str | None = None) -> StockItem:
    """Add to what there is, or take from it: a delivery came, a box was lost.

    Raises Invalid; NotFound (``stock_not_found`` where it is not counted); Conflict (``stock_reserved``) when that
    leaves less than checkouts hold.
    """
    if by == 0 or not -MOST <= by <= MOST:
        raise Invalid.field("by", f"a number other than 0, from {-MOST} to {MOST}")
    reason = check_line("reason", reason, most=500)
    whose = _of(tx, product, price_id)
    row = tx.one(_ADJUST, {**whose, "by": by, "now": tx.now})
    if row is None:
        item = _found(tx, whose)
        if abs(item.on_hand + by) > MOST:
            raise Invalid.field("by", f"no more than {MOST} can be counted")
        raise _too_few(item)
    return _changed(tx, StockItem(*row), by=by, reason=reason)


def _found(tx: Tx, whose: dict[str, str]) -> StockItem:
    row = tx.one(_FIND, whose)
    if row is None:
        raise NotFound("This is not counted.", code="stock_not_found")
    return StockItem(*row)


def find(tx: Tx, product: str, price_id: str | None = None) -> StockItem:
    """The stock of a product itself, or of one of its prices. Raises NotFound, Invalid."""
    return _found(tx, _of(tx, product, price_id))


def get(tx: Tx, item_id: str) -> StockItem:
    """Raise NotFound (``stock_not_found``) when there is none."""
    row = tx.one(_GET, {"id": item_id})
    if row is None:
        raise NotFound("There is no such stock.", code="stock_not_found")
    return StockItem(*row)


def list_(tx: Tx, *, product: str | None = None, after: str = "", limit: int = 20) -> Page[StockItem]:
    """A page of everything that is counted, oldest first; of one product and its prices, or all. Raises NotFound."""
    params: dict[str, Any] = {"after": after, "limit": limit + 1}
    if product is None:
        rows = tx.all(_LIST, params)
    else:
        rows = tx.all(_LIST_PRODUCT, {**params, "product_id": products.find(tx, product).id})
    return page_of([StockItem(*row) for row in rows], limit)


def reservations(
    tx: Tx, item_id: str, *, status: ReservationStatus | None = None, after: str = "", limit: int = 20
) -> Page[StockReservation]:
    """A page of what checkouts hold or held of an item, oldest first. Raises NotFound."""
    get(tx, item_id)
    params = {"stock_item_id": item_id, "after": after, "limit": limit + 1}
    rows = tx.all(_RESERVATIONS_STATUS, {**params, "status": status}) if status else tx.all(_RESERVATIONS, params)
    return page_of([StockReservation(*row) for row in rows], limit)


def untrack(tx: Tx, product: str, *, price_id: str | None = None) -> StockItem:
    """Count it no longer: from now on it never runs out, and nothing is held of it. Raises Invalid, NotFound."""
    found = _found(tx, _of(tx, product, price_id))
    if tx.one(_GET_TO_REMOVE, {"id": found.id}) is None:
        raise NotFound("This is not counted.", code="stock_not_found")
    tx.execute(_FORGET_RESERVATIONS, {"item_id": found.id})
    tx.execute(_REMOVE, {"item_id": found.id})
    tx.record("stock.untracked", "stock_item", found.id, product_id=found.product_id, price_id=found.price_id)
    return found


def drifted(tx: Tx) -> list[str]:
    """The ids of items whose ``reserved`` is not what active reservations hold together."""
    return [row[0] for row in tx.all(_DRIFTED)]


def reconcile(tx: Tx, item_id: str, *, fix: bool) -> Drift | None:
    """Compare an item's ``reserved`` with what active reservations hold, and correct it where ``fix`` says so.

    None when the two agree, or it is not counted any more.
    """
    row = tx.one(_GET_LOCKED, {"id": item_id})
    if row is None:
        return None
    item = StockItem(*row)
    # Whoever changes an item's reservations changes the item in the same transaction, so under its lock they agree.
    sums = tx.one(_HELD_OF_ITEM, {"item_id": item_id})
    assert sums is not None
    held = int(sums[0])
    if held == item.reserved:
        return None
    fixed = fix and tx.execute(_CORRECT, {"item_id": item_id, "held": held, "now": tx.now}) == 1
    if fixed:
        _changed(tx, msgspec.structs.replace(item, reserved=held), reason="reconciled", was_reserved=item.reserved)
    return Drift(item=item, held=held, fixed=fixed)
