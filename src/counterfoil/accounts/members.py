"""Members: users with a role at a customer itself. An owner always stays.

Whatever takes a role away holds the customer's row meanwhile, so that of two owners who leave at once one stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import assignments, customers, granting, roles
from counterfoil.accounts.access import Identity
from counterfoil.accounts.customers import NewCustomer
from counterfoil.accounts.permissions import OWNER
from counterfoil.accounts.tables import customers as customers_table
from counterfoil.accounts.tables import invitations, role_assignments, user_emails, users
from counterfoil.accounts.tables import roles as roles_table
from counterfoil.accounts.types import Customer, Role
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.paging import Page, page_of

_PERMISSION = "members:write"

_HERE = sa.and_(mine(role_assignments), role_assignments.c.customer_id == sa.bindparam("customer_id"))
_USER = sa.and_(
    users.c.tenant_id == role_assignments.c.tenant_id,
    users.c.id == role_assignments.c.user_id,
    users.c.deleted_at.is_(None),
)
_ROLE = sa.and_(roles_table.c.tenant_id == role_assignments.c.tenant_id, roles_table.c.id == role_assignments.c.role_id)
_MEMBERS = (
    sa.select(
        users.c.id,
        users.c.first_name,
        users.c.last_name,
        user_emails.c.email,
        sa.func.min(role_assignments.c.created_at, type_=role_assignments.c.created_at.type).label("joined_at"),
    )
    .select_from(role_assignments)
    .join(users, _USER)
    .outerjoin(
        user_emails,
        sa.and_(
            user_emails.c.tenant_id == users.c.tenant_id, user_emails.c.user_id == users.c.id, user_emails.c.is_primary
        ),
    )
    .where(_HERE)
    .group_by(users.c.id, users.c.first_name, users.c.last_name, user_emails.c.email)
)
_LIST = (
    _MEMBERS.where(users.c.id > sa.bindparam("after"))
    .order_by(users.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_ONE = _MEMBERS.where(users.c.id == sa.bindparam("user_id"))
_ROLES = (
    sa.select(role_assignments.c.user_id, *columns(roles_table))
    .select_from(role_assignments)
    .join(roles_table, _ROLE)
    .where(_HERE, any_of(role_assignments.c.user_id, "ids"))
    .order_by(role_assignments.c.id)
)
_LIMITS = (
    sa.select(invitations.c.accepted_by, invitations.c.credit_limit)
    .where(
        mine(invitations),
        invitations.c.customer_id == sa.bindparam("customer_id"),
        invitations.c.status == "accepted",
        any_of(invitations.c.accepted_by, "ids"),
    )
    .order_by(invitations.c.updated_at, invitations.c.id)
)
_LOCK = (
    sa.select(*columns(customers_table))
    .where(
        mine(customers_table),
        customers_table.c.id == sa.bindparam("id"),
        customers_table.c.deleted_at.is_(None),
    )
    .with_for_update(key_share=True)
)
_TAKE_AWAY = sa.delete(role_assignments).where(
    mine(role_assignments),
    role_assignments.c.customer_id == sa.bindparam("of_customer"),
    role_assignments.c.user_id == sa.bindparam("of_user"),
    role_assignments.c.role_id == sa.bindparam("of_role"),
)
_OTHER_OWNER = (
    sa.select(role_assignments.c.user_id)
    .join(users, _USER)
    .join(roles_table, _ROLE)
    .where(
        _HERE,
        role_assignments.c.user_id != sa.bindparam("user_id"),
        roles_table.c.name == OWNER,
        users.c.status == "active",
    )
    .order_by(role_assignments.c.created_at, role_assignments.c.id)
    .limit(1)
)
# It no longer is where the one who left has their own purchases go.
_HAND_OVER = (
    sa.update(customers_table)
    .where(
        mine(customers_table),
        customers_table.c.id == sa.bindparam("of_customer"),
        customers_table.c.owner_user_id == sa.bindparam("old_owner"),
    )
    .values(owner_user_id=sa.bindparam("new_owner"), is_default=False, updated_at=sa.bindparam("now"))
)
_MINE = (
    sa.select(*columns(customers_table), roles_table.c.name.label("role"))
    .select_from(role_assignments)
    .join(
        customers_table,
        sa.and_(
            customers_table.c.tenant_id == role_assignments.c.tenant_id,
            customers_table.c.id == role_assignments.c.customer_id,
            customers_table.c.deleted_at.is_(None),
        ),
    )
    .join(roles_table, _ROLE)
    .where(mine(role_assignments), role_assignments.c.user_id == sa.bindparam("user_id"))
    .order_by(customers_table.c.id, role_assignments.c.id)
)


class Member(msgspec.Struct, frozen=True):
    """A user with a role at a customer itself."""

    user_id: str
    first_name: str
    last_name: str
    email: str | None
    roles: list[str]
    credit_limit: int
    """Of the customer's credits; -1 = no limit."""
    joined_at: datetime


class Membership(msgspec.Struct, frozen=True):
    """A customer, and the roles somebody has there."""

    customer: Customer
    roles: list[str]


def lock(tx: Tx, customer_id: str) -> Customer:
    """A customer whose members nobody else can change until the transaction ends. Raises NotFound."""
    row = tx.one(_LOCK, {"id": customer_id})
    if row is None:
        raise NotFound("There is no such customer.", code="customer_not_found")
    return Customer(*row)


def found(tx: Tx, new: NewCustomer, user_id: str) -> Customer:
    """Make a customer that a user owns. Raises what ``customers.create`` raises."""
    customer = customers.create(tx, new, owner_user_id=user_id)
    assignments.grant(tx, user_id, roles.hold(tx, OWNER).id, customer.id)
    return customer


# -- who is a member ----------------------------------------------------------------------------------


def list_(tx: Tx, customer_id: str, *, after: str = "", limit: int = 20) -> Page[Member]:
    """A page of a customer's members. Raises NotFound."""
    customers.get(tx, customer_id)
    rows = tx.all(_LIST, {"customer_id": customer_id, "after": after, "limit": limit + 1})
    return page_of(_members(tx, customer_id, rows), limit, key="user_id")


def get(tx: Tx, customer_id: str, user_id: str) -> Member:
    """Raise NotFound (``member_not_found``) when the user is no member."""
    row = tx.one(_ONE, {"customer_id": customer_id, "user_id": user_id})
    if row is None:
        raise _no_member()
    return _members(tx, customer_id, [row])[0]


def _members(tx: Tx, customer_id: str, rows: Iterable[Row]) -> list[Member]:
    known = list(rows)
    ids = [row[0] for row in known]
    names: dict[str, list[str]] = {}
    for user_id, *role in tx.all(_ROLES, {"customer_id": customer_id, "ids": ids}):
        names.setdefault(user_id, []).append(Role(*role).name)
    limits = {row.accepted_by: row.credit_limit for row in tx.all(_LIMITS, {"customer_id": customer_id, "ids": ids})}
    return [
        Member(id_, first, last, email, names[id_], limits.get(id_, -1), joined)
        for id_, first, last, email, joined in known
    ]


def of_user(tx: Tx, user_id: str) -> list[Membership]:
    """Every customer that a user is a member of, oldest first."""
    found_: dict[str, Membership] = {}
    for *fields, role in tx.all(_MINE, {"user_id": user_id}):
        customer = Customer(*fields)
        found_.setdefault(customer.id, Membership(customer, [])).roles.append(role)
    return list(found_.values())


# -- changing that ------------------------------------------------------------------------------------


def add(tx: Tx, grantor: Identity | None, customer_id: str, user_id: str, role_name: str) -> Member:
    """Give a user a role at a customer, besides those they have there. Raises NotFound; Forbidden, see granting."""
    customer = lock(tx, customer_id)
    role = roles.hold(tx, role_name)
    granting.check(tx, grantor, customer, _PERMISSION, role.permissions)
    assignments.grant(tx, user_id, role.id, customer_id)
    return get(tx, customer_id, user_id)


def set_role(tx: Tx, grantor: Identity | None, customer_id: str, user_id: str, role_name: str) -> Member:
    """Give a member this role instead of those they have.

    Raises NotFound; Conflict (``last_owner``); Forbidden, see granting.
    """
    customer = lock(tx, customer_id)
    role = roles.hold(tx, role_name)
    had = _roles_of(tx, customer_id, user_id)
    granting.check(tx, grantor, customer, _PERMISSION, _all_of([role, *had]))
    if role.id not in {one.id for one in had}:
        assignments.grant(tx, user_id, role.id, customer_id)
    _take_away(tx, customer, user_id, [one for one in had if one.id != role.id])
    return get(tx, customer_id, user_id)


def remove(tx: Tx, grantor: Identity | None, customer_id: str, user_id: str) -> None:
    """Make a member one no longer. Raises NotFound; Conflict (``last_owner``); Forbidden, see granting."""
    customer = lock(tx, customer_id)
    had = _roles_of(tx, customer_id, user_id)
    granting.check(tx, grantor, customer, _PERMISSION, _all_of(had))
    _take_away(tx, customer, user_id, had)
    tx.record("member.removed", "user", user_id, customer_id=customer_id)


def leave(tx: Tx, user_id: str, customer_id: str) -> None:
    """Be a member no longer. Raises NotFound (``member_not_found``); Conflict (``last_owner``)."""
    row = tx.one(_LOCK, {"id": customer_id})
    if row is None:  # strangers learn nothing of which customers there are
        raise _no_member()
    had = _roles_of(tx, customer_id, user_id)
    _take_away(tx, Customer(*row), user_id, had)
    tx.record("member.left", "user", user_id, customer_id=customer_id)


def _no_member() -> NotFound:
    return NotFound("There is no such member.", code="member_not_found")


def _all_of(held: list[Role]) -> list[str]:
    return [name for role in held for name in role.permissions]


def _roles_of(tx: Tx, customer_id: str, user_id: str) -> list[Role]:
    """Raises NotFound (``member_not_found``)."""
    rows = tx.all(_ROLES, {"customer_id": customer_id, "ids": [user_id]})
    if not rows:
        raise _no_member()
    return [Role(*row[1:]) for row in rows]


def _take_away(tx: Tx, customer: Customer, user_id: str, gone: list[Role]) -> None:
    """Take roles away from a member of a locked customer. Raises Conflict (``last_owner``)."""
    if any(role.name == OWNER for role in gone):
        other = tx.one(_OTHER_OWNER, {"customer_id": customer.id, "user_id": user_id})
        if other is None:
            raise Conflict("The last owner stays; make somebody else an owner first.", code="last_owner")
        params = {"of_customer": customer.id, "old_owner": user_id, "new_owner": other.user_id, "now": tx.now}
        if tx.execute(_HAND_OVER, params):
            tx.record(
                "customer.owner_changed",
                "customer",
                customer.id,
                customer_id=customer.id,
                from_user_id=user_id,
                to_user_id=other.user_id,
            )
    for role in gone:
        tx.execute(_TAKE_AWAY, {"of_customer": customer.id, "of_user": user_id, "of_role": role.id})
        tx.record("role.revoked", "user", user_id, customer_id=customer.id, role_id=role.id)
