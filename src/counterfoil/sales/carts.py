"""Operations on priced carts that were saved."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import Page, page_of
from counterfoil.sales.quotes import CartWithLines
from counterfoil.sales.tables import cart_lines, carts
from counterfoil.sales.types import Cart, CartLine

MOST_AT_ONCE = 100

_GET = sa.select(*columns(carts)).where(mine(carts), carts.c.id == sa.bindparam("id"))
_GET_MANY = sa.select(*columns(carts)).where(mine(carts), any_of(carts.c.id, "ids"))
_LIST = (
    sa.select(*columns(carts))
    .where(mine(carts), carts.c.id > sa.bindparam("after"))
    .order_by(carts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LINES = (
    sa.select(*columns(cart_lines))
    .where(mine(cart_lines), any_of(cart_lines.c.cart_id, "ids"))
    .order_by(cart_lines.c.cart_id, cart_lines.c.position)
)
_MARK_PAID = (
    sa.update(carts)
    .where(mine(carts), carts.c.id == sa.bindparam("cart_id"), carts.c.status == "open")
    .values(status="paid", paid_by=sa.bindparam("new_paid_by"), paid_at=sa.bindparam("now"))
)
_REOPEN = (
    sa.update(carts)
    .where(mine(carts), carts.c.id == sa.bindparam("cart_id"))
    .values(status="open", paid_by=None, paid_at=None)
)


def get(tx: Tx, cart_id: str) -> CartWithLines:
    """Raise NotFound (``cart_not_found``) when there is none."""
    row = tx.one(_GET, {"id": cart_id})
    if row is None:
        raise NotFound("There is no such cart.", code="cart_not_found")
    return _with_lines(tx, [Cart(*row)])[0]


def get_many(tx: Tx, ids: list[str]) -> list[CartWithLines]:
    """Those there are, in the order asked for. Raises Invalid for more than 100."""
    if len(ids) > MOST_AT_ONCE:
        raise Invalid.field("ids", f"at most {MOST_AT_ONCE}", code="too_many_ids")
    found = {row.id: Cart(*row) for row in tx.all(_GET_MANY, {"ids": sorted(set(ids))})}
    return _with_lines(tx, [found[id_] for id_ in dict.fromkeys(ids) if id_ in found])


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[CartWithLines]:
    """A page of carts with their lines, oldest first."""
    page = page_of([Cart(*row) for row in tx.all(_LIST, {"after": after, "limit": limit + 1})], limit)
    return Page(_with_lines(tx, page.data), page.next)


def _with_lines(tx: Tx, found: Sequence[Cart]) -> list[CartWithLines]:
    lines: dict[str, list[CartLine]] = {cart.id: [] for cart in found}
    if found:
        for row in tx.all(_LINES, {"ids": list(lines)}):
            lines[row.cart_id].append(CartLine(*row))
    return [CartWithLines(cart, lines[cart.id]) for cart in found]


def check_payable(tx: Tx, cart: Cart) -> None:
    """Raise Conflict (``cart_already_paid``, ``quote_expired``) for a cart that cannot be paid any more."""
    if cart.status == "paid":
        raise Conflict("This cart has been paid.", code="cart_already_paid")
    if cart.expires_at <= tx.now:
        raise Conflict("This quote has expired; ask for a new one.", code="quote_expired")


def mark_paid(tx: Tx, cart_id: str, paid_by: str) -> CartWithLines:
    """Say that a cart was paid elsewhere, and by whom; the same said again changes nothing.

    Raises NotFound; Conflict (``cart_already_paid`` by somebody else, ``quote_expired``).
    """
    found = get(tx, cart_id)
    if found.cart.status == "open":
        check_payable(tx, found.cart)
        if settle(tx, cart_id, paid_by):
            total = Money(found.cart.total, found.cart.asset)
            tx.record("cart.paid", "cart", cart_id, customer_id=found.cart.customer_id, money=total)
        found = get(tx, cart_id)  # another may have been faster
    if found.cart.paid_by != paid_by:
        raise Conflict("This cart has been paid by somebody else.", code="cart_already_paid")
    return found


def settle(tx: Tx, cart_id: str, paid_by: str | None) -> bool:
    """Mark a cart paid, whatever its age, unless it was. The order that follows says so in the record."""
    return tx.execute(_MARK_PAID, {"cart_id": cart_id, "new_paid_by": paid_by, "now": tx.now}) == 1


def reopen(tx: Tx, cart_id: str) -> None:
    """Undo :func:`settle` within its transaction."""
    tx.execute(_REOPEN, {"cart_id": cart_id})


def has_access(tx: Tx, cart_id: str, paid_by: str) -> bool:
    """Whether this payer paid for the cart. Raises NotFound."""
    row = tx.one(_GET, {"id": cart_id})
    if row is None:
        raise NotFound("There is no such cart.", code="cart_not_found")
    cart = Cart(*row)
    return cart.status == "paid" and cart.paid_by == paid_by
