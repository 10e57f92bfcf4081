"""The tree of customers: what is below one, and moving it.

``path`` holds the ids from the top down, each with a slash behind it. It is compared byte by byte, so what is
below a customer is the range from its path up to the same with its last ``/`` replaced by ``0``, the next
character.
"""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts import customers as one_by_one
from counterfoil.accounts.customers import DEPARTMENT, END_CUSTOMER
from counterfoil.accounts.tables import customers
from counterfoil.accounts.types import Customer
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.paging import Page, page_of

_CHILDREN = (
    sa.select(*columns(customers))
    .where(
        mine(customers),
        customers.c.parent_id == sa.bindparam("id"),
        customers.c.deleted_at.is_(None),
        customers.c.id > sa.bindparam("after"),
    )
    .order_by(customers.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_BELOW = (
    sa.select(*columns(customers))
    .where(
        mine(customers),
        customers.c.path > sa.bindparam("after"),
        customers.c.path < sa.bindparam("end"),
        customers.c.deleted_at.is_(None),
    )
    .order_by(customers.c.path)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_WITHIN = sa.and_(mine(customers), customers.c.path >= sa.bindparam("top"), customers.c.path < sa.bindparam("end"))
_IS_WITHIN = sa.select(customers.c.id).where(_WITHIN, customers.c.id == sa.bindparam("id"))
_DEEPEST = sa.select(sa.func.max(customers.c.level)).where(_WITHIN)
_MOVE = (
    sa.update(customers)
    .where(_WITHIN)
    .values(
        parent_id=sa.case(
            (customers.c.id == sa.bindparam("moved_id"), sa.bindparam("new_parent_id", type_=sa.Text)),
            else_=customers.c.parent_id,
        ),
        level=customers.c.level + sa.bindparam("deeper", type_=sa.BigInteger),
        path=sa.bindparam("new_top", type_=sa.Text)
        + sa.func.substr(customers.c.path, sa.bindparam("rest", type_=sa.Integer)),
        updated_at=sa.bindparam("now"),
    )
)


def end_of(path: str) -> str:
    """The first path that is beyond a customer and everything below it."""
    return path[:-1] + "0"


def children(tx: Tx, customer_id: str, *, after: str = "", limit: int = 20) -> Page[Customer]:
    """A page of the customers right below one, oldest first. Raises NotFound."""
    one_by_one.get(tx, customer_id)
    rows = tx.all(_CHILDREN, {"id": customer_id, "after": after, "limit": limit + 1})
    return page_of([Customer(*row) for row in rows], limit)


def below(tx: Tx, customer_id: str, *, after: str = "", limit: int = 20) -> Page[Customer]:
    """A page of everything below a customer, each before what is below it. Raises NotFound."""
    top = one_by_one.get(tx, customer_id).path
    params = {"after": max(after, top), "end": end_of(top), "limit": limit + 1}
    return page_of([Customer(*row) for row in tx.all(_BELOW, params)], limit, key="path")


def move(tx: Tx, customer_id: str, parent_id: str | None) -> Customer:
    """Put a customer, with all below it, below another one, or at the top.

    At the top an MSP stays one, and anything else is an end customer. Raises NotFound; Conflict
    (``customer_cycle``, ``parent_not_active``, ``too_deep``).
    """
    one_by_one.lock_tree(tx)
    customer = one_by_one.get(tx, customer_id)
    if parent_id == customer.parent_id:
        return customer
    within = {"top": customer.path, "end": end_of(customer.path)}
    if parent_id is not None and tx.one(_IS_WITHIN, {**within, "id": parent_id}) is not None:
        raise Conflict("A customer cannot be below itself.", code="customer_cycle")
    parent = one_by_one.parent_for(tx, parent_id)
    top = min(customer.level, END_CUSTOMER) if parent is None else parent.level + 1
    deeper = top - customer.level
    deepest = tx.one(_DEEPEST, within)
    assert deepest is not None
    if deepest[0] + deeper > DEPARTMENT:
        raise Conflict("What is below it, deleted ones included, would be below a department.", code="too_deep")
    new_top = f"{parent.path if parent else ''}{customer_id}/"
    tx.execute(
        _MOVE,
        {
            **within,
            "moved_id": customer_id,
            "new_parent_id": parent_id,
            "deeper": deeper,
            "new_top": new_top,
            "rest": len(customer.path) + 1,
            "now": tx.now,
        },
    )
    tx.record(
        "customer.moved",
        "customer",
        customer_id,
        customer_id=customer_id,
        from_parent_id=customer.parent_id,
        to_parent_id=parent_id,
        level=top,
    )
    return one_by_one.get(tx, customer_id)
