"""What checkouts hold of the stock: reserved before any rail is asked, converted by the order, else released.

Nothing here can oversell: to take is one UPDATE whose condition is that enough is left, and a check constraint
stands behind it. Items are taken in the order of their ids, so that no two carts wait for each other.
Whoever releases or converts what a checkout holds has locked that checkout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import prices, products, stock_items, stock_reservations
from counterfoil.catalog.types import StockItem, StockReservation
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, FieldError

_OF_PRODUCTS = (
    sa.select(*columns(stock_items))
    .where(mine(stock_items), any_of(stock_items.c.product_id, "ids"))
    .order_by(stock_items.c.id)
)
_GET = sa.select(*columns(stock_items)).where(mine(stock_items), stock_items.c.id == sa.bindparam("id"))
_REPLACED = sa.select(prices.c.replaces, prices.c.id).where(
    mine(prices), any_of(prices.c.product_id, "ids"), prices.c.replaces.is_not(None)
)
_TAKE = (
    sa.update(stock_items)
    .where(
        mine(stock_items),
        stock_items.c.id == sa.bindparam("item_id"),
        sa.or_(
            stock_items.c.policy == "allow_backorder",
            stock_items.c.reserved + sa.bindparam("wanted", type_=sa.BigInteger) <= stock_items.c.on_hand,
        ),
    )
    .values(
        reserved=stock_items.c.reserved + sa.bindparam("wanted", type_=sa.BigInteger), updated_at=sa.bindparam("now")
    )
)
_LET_GO = (
    sa.update(stock_reservations)
    .where(
        mine(stock_reservations),
        any_of(stock_reservations.c.checkout_id, "checkout_ids"),
        stock_reservations.c.status == "active",
    )
    .values(status="released", updated_at=sa.bindparam("now"))
    .returning(stock_reservations.c.stock_item_id, stock_reservations.c.quantity)
)


def _less(held: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    # Never below 0: a count that went wrong is for `reconcile` to find, and must not keep checkouts from ending.
    return sa.case((stock_items.c.reserved >= held, stock_items.c.reserved - held), else_=0)


_GIVE_BACK = (
    sa.update(stock_items)
    .where(mine(stock_items), stock_items.c.id == sa.bindparam("item_id"))
    .values(reserved=_less(sa.bindparam("held", type_=sa.BigInteger)), updated_at=sa.bindparam("now"))
)
_IS_HELD = sa.and_(
    stock_items.c.id == stock_reservations.c.stock_item_id,
    stock_reservations.c.checkout_id == sa.bindparam("of_checkout"),
    stock_reservations.c.status != "converted",
)
_LOCK_HELD = (
    sa.select(*columns(stock_items), stock_reservations.c.quantity, stock_reservations.c.status, products.c.name)
    .where(mine(stock_items, stock_reservations, products), _IS_HELD, products.c.id == stock_items.c.product_id)
    .order_by(stock_items.c.id)
    .with_for_update(of=stock_items, key_share=True)
)
_SHIP = (
    sa.update(stock_items)
    .where(mine(stock_items, stock_reservations), _IS_HELD)
    .values(
        on_hand=stock_items.c.on_hand - stock_reservations.c.quantity,
        reserved=sa.case(
            (stock_reservations.c.status == "active", _less(stock_reservations.c.quantity)),
            else_=stock_items.c.reserved,
        ),
        updated_at=sa.bindparam("now"),
    )
)
_CONVERT = (
    sa.update(stock_reservations)
    .where(
        mine(stock_reservations),
        stock_reservations.c.checkout_id == sa.bindparam("of_checkout"),
        stock_reservations.c.status != "converted",
    )
    .values(status="converted", updated_at=sa.bindparam("now"))
)
_SHIP_SUM = (
    sa.update(stock_items)
    .where(mine(stock_items), stock_items.c.id == sa.bindparam("key"))
    .values(
        on_hand=stock_items.c.on_hand - sa.bindparam("amount", type_=sa.BigInteger),
        reserved=_less(sa.bindparam("amount", type_=sa.BigInteger)),
        updated_at=sa.bindparam("now"),
    )
)
_CONVERT_ACTIVE = (
    sa.update(stock_reservations)
    .where(
        mine(stock_reservations),
        stock_reservations.c.checkout_id == sa.bindparam("of_checkout"),
        stock_reservations.c.status == "active",
    )
    .values(status="converted", updated_at=sa.bindparam("now"))
    .returning(stock_reservations.c.stock_item_id, stock_reservations.c.quantity)
)
_UNDO_CONVERT = (
    sa.update(stock_reservations)
    .where(mine(stock_reservations), stock_reservations.c.checkout_id == sa.bindparam("of_checkout"))
    .values(status="active", updated_at=sa.bindparam("now"))
)
_PUT_BACK = (
    sa.update(stock_items)
    .where(mine(stock_items), stock_items.c.id == sa.bindparam("item_id"))
    .values(
        on_hand=stock_items.c.on_hand + sa.bindparam("returned", type_=sa.BigInteger), updated_at=sa.bindparam("now")
    )
    .returning(*columns(stock_items))
)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one line of a cart or an order takes."""

    product_id: str
    price_id: str
    quantity: int
    name: str = ""
    """What the buyer calls it."""
    line: int = 0
    """Its place in the cart."""


Wanted = list[tuple[StockItem, list[Demand]]]
"""What lines take of which item."""


class OutOfStock(Conflict):
    """There is not as much as is wanted; nothing was changed."""

    default_code = "out_of_stock"


def _out_of_stock(name: str, left: int, lines: Sequence[Demand] = ()) -> OutOfStock:
    left = max(0, left)
    said = f"only {left} left" if left else "none left"
    pointers = tuple(FieldError(f"/lines/{line.line}/quantity", said) for line in lines)
    return OutOfStock(f"{name}: {said}.", errors=pointers)


def of_offers(wanted: Sequence[Demand], offered: Mapping[str, Sequence[StockItem]]) -> Wanted:
    """What lines take of which item, when the items of each price were found with it; in the order of ids."""
    takers: dict[str, tuple[StockItem, list[Demand]]] = {}
    for line in wanted:
        items = sorted(offered[line.price_id], key=lambda item: item.price_id is None)
        if items:  # the price's own before its product's
            takers.setdefault(items[0].id, (items[0], []))[1].append(line)
    return [takers[item_id] for item_id in sorted(takers)]


def check(wanted: Wanted) -> None:
    """Refuse what cannot be had for certain: who comes too late need not wait for those who buy at this moment.

    Raises OutOfStock.
    """
    for item, lines in wanted:
        if item.policy == "deny" and item.on_hand - item.reserved < sum(line.quantity for line in lines):
            raise _out_of_stock(lines[0].name, item.on_hand - item.reserved, lines)


def reserve(tx: Tx, checkout_id: str, wanted: Wanted, expires_at: datetime) -> None:
    """Hold what a checkout wants of everything that is counted, until it is paid or over.

    Lines that take from one item count together. Raises OutOfStock (409 ``out_of_stock``).
    """
    held = []
    for item, lines in wanted:
        quantity = sum(line.quantity for line in lines)
        if not _take(tx, item.id, quantity, lines):
            continue
        held.append(
            StockReservation(
                id=tx.new_id("rsv"),
                stock_item_id=item.id,
                checkout_id=checkout_id,
                quantity=quantity,
                status="active",
                expires_at=expires_at,
                created_at=tx.now,
                updated_at=tx.now,
            )
        )
    tx.insert(stock_reservations, *held)


def _take(tx: Tx, item_id: str, quantity: int, lines: Sequence[Demand]) -> bool:
    """Reserve so many of an item; False when it is not counted any more. Raises OutOfStock."""
    if tx.execute(_TAKE, {"item_id": item_id, "wanted": quantity, "now": tx.now}):
        return True
    row = tx.one(_GET, {"id": item_id})
    if row is None:
        return False
    raise _out_of_stock(lines[0].name, row.on_hand - row.reserved, lines)


def look_up(tx: Tx, wanted: Sequence[Demand]) -> Wanted:
    """What lines take of which item, in the order of ids. One statement where nothing is counted."""
    product_ids = sorted({line.product_id for line in wanted})
    found = [StockItem(*row) for row in tx.all(_OF_PRODUCTS, {"ids": product_ids})]
    if not found:
        return []
    of_price = {item.price_id: item for item in found if item.price_id is not None}
    of_product = {item.product_id: item for item in found if item.price_id is None}
    if of_price and any(line.price_id not in of_price for line in wanted):
        _add_replaced(tx, of_price)
    takers: dict[str, list[Demand]] = {}
    for line in wanted:
        item = of_price.get(line.price_id) or of_product.get(line.product_id)
        if item is not None:
            takers.setdefault(item.id, []).append(line)
    return [(item, takers[item.id]) for item in found if item.id in takers]


def _add_replaced(tx: Tx, of_price: dict[str, StockItem]) -> None:
    """Know an item by the prices that its price replaced, too: quotes and orders name those."""
    product_ids = sorted({item.product_id for item in of_price.values()})
    replaced_by = {row[0]: row[1] for row in tx.all(_REPLACED, {"ids": product_ids})}
    for price_id in replaced_by:
        newest = price_id
        while newest in replaced_by and newest not in of_price:
            newest = replaced_by[newest]
        if newest in of_price:
            of_price.setdefault(price_id, of_price[newest])


def release(tx: Tx, checkout_ids: Sequence[str]) -> None:
    """Give back what checkouts still hold; what was converted or given back already stays as it is."""
    back: dict[str, int] = {}
    for item_id, quantity in tx.all(_LET_GO, {"checkout_ids": list(checkout_ids), "now": tx.now}):
        back[item_id] = back.get(item_id, 0) + quantity
    for item_id in sorted(back):
        tx.execute(_GIVE_BACK, {"item_id": item_id, "held": back[item_id], "now": tx.now})


def check_held(tx: Tx, checkout_id: str) -> None:
    """See that all that a checkout reserved is there, also what it had to give back meanwhile, and lock it.

    Raises OutOfStock.
    """
    for *fields, quantity, status, name in tx.all(_LOCK_HELD, {"of_checkout": checkout_id}):
        item = StockItem(*fields)
        left = item.reserved if status == "released" else max(0, item.reserved - quantity)
        if item.policy == "deny" and item.on_hand - quantity < left:
            raise _out_of_stock(name, item.on_hand - item.reserved)


Taken = list[tuple[str, int]]
"""How much of which item."""


def take(tx: Tx, checkout_id: str) -> Taken:
    """Say that what a checkout holds is sold; nothing when it had to give that back. Then :func:`ship` or :func:`undo`.

    What it reserved it has for certain, so the items need not be looked at.
    """
    return [
        (row.stock_item_id, row.quantity)
        for row in tx.all(_CONVERT_ACTIVE, {"of_checkout": checkout_id, "now": tx.now})
    ]


def ship(tx: Tx, taken: Taken) -> None:
    """Take from the shelf what was taken: all that a transaction sells of an item at once, before it commits."""
    for item_id, quantity in taken:
        tx.add_up(_SHIP_SUM, item_id, quantity)


def undo(tx: Tx, checkout_id: str) -> None:
    """Hold again what was taken."""
    tx.execute(_UNDO_CONVERT, {"of_checkout": checkout_id, "now": tx.now})


def convert(tx: Tx, checkout_id: str) -> None:
    """Take from the shelf what a checkout reserved, for good. Only after :func:`check_held`."""
    tx.execute(_SHIP, {"of_checkout": checkout_id, "now": tx.now})
    tx.execute(_CONVERT, {"of_checkout": checkout_id, "now": tx.now})


def put_back(tx: Tx, returned: Sequence[Demand], *, reason: str, order_id: str) -> None:
    """Put on the shelf again what an order took; what is not counted is left alone."""
    for item, lines in look_up(tx, returned):
        quantity = sum(line.quantity for line in lines)
        row = tx.one(_PUT_BACK, {"item_id": item.id, "returned": quantity, "now": tx.now})
        if row is None:  # not counted any more
            continue
        tx.record(
            "stock.changed",
            "stock_item",
            item.id,
            product_id=item.product_id,
            price_id=item.price_id,
            on_hand=row.on_hand,
            reserved=row.reserved,
            policy=row.policy,
            by=quantity,
            reason=reason,
            order_id=order_id,
        )
