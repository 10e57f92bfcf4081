"""Letting nobody into an account any more: for a while (disabled), or for good (deleted).

An organization keeps an owner, and the tenant somebody who may do everything. Whatever could take the last one
away holds the tenant's row meanwhile.
"""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from counterfoil.accounts import assignments, granting, members, sessions, staff, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.customers import lock_tree
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.accounts.tables import (
    customers,
    email_preferences,
    identities,
    one_time_tokens,
    passkeys,
    role_assignments,
    user_emails,
)
from counterfoil.accounts.tables import roles as roles_table
from counterfoil.accounts.tables import users as users_table
from counterfoil.accounts.users import UserSummary
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound

_PERMISSION = "users:write"

_CHANGE = sa.update(users_table).where(
    mine(users_table), users_table.c.id == sa.bindparam("user_id"), users_table.c.deleted_at.is_(None)
)
_HOLD = (
    sa.select(users_table.c.id)
    .where(mine(users_table), users_table.c.id == sa.bindparam("user_id"), users_table.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_SET_STATUS = _CHANGE.where(users_table.c.status != sa.bindparam("new_status")).values(
    status=sa.bindparam("new_status"), updated_at=sa.bindparam("now")
)
_DELETE = _CHANGE.values(
    username=None, password_hash=None, deleted_at=sa.bindparam("now"), updated_at=sa.bindparam("now")
)
_FORGET = [
    sa.delete(table).where(mine(table), table.c.user_id == sa.bindparam("of_user"))
    for table in (user_emails, email_preferences, passkeys, identities, one_time_tokens, role_assignments)
]
_STAFF_ROLES = (
    sa.select(*columns(roles_table))
    .join(
        role_assignments,
        sa.and_(
            role_assignments.c.tenant_id == roles_table.c.tenant_id, role_assignments.c.role_id == roles_table.c.id
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.user_id == sa.bindparam("user_id"),
        role_assignments.c.customer_id.is_(None),
    )
)
_ANY_SUPER_ADMIN = (
    sa.select(role_assignments.c.id)
    .join(
        users_table,
        sa.and_(
            users_table.c.tenant_id == role_assignments.c.tenant_id, users_table.c.id == role_assignments.c.user_id
        ),
    )
    .join(
        roles_table,
        sa.and_(
            roles_table.c.tenant_id == role_assignments.c.tenant_id, roles_table.c.id == role_assignments.c.role_id
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.customer_id.is_(None),
        roles_table.c.name == SUPER_ADMIN,
        users_table.c.status == "active",
        users_table.c.deleted_at.is_(None),
    )
    .limit(1)
)
_ANOTHER_MEMBER = (
    sa.select(role_assignments.c.id)
    .join(
        users_table,
        sa.and_(
            users_table.c.tenant_id == role_assignments.c.tenant_id, users_table.c.id == role_assignments.c.user_id
        ),
    )
    .join(
        customers,
        sa.and_(
            customers.c.tenant_id == role_assignments.c.tenant_id, customers.c.id == role_assignments.c.customer_id
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.customer_id == sa.bindparam("customer_id"),
        role_assignments.c.user_id != sa.bindparam("user_id"),
        users_table.c.deleted_at.is_(None),
        customers.c.kind == "organization",
    )
    .limit(1)
)


def disable(tx: Tx, grantor: Identity, user_id: str) -> UserSummary:
    """Let a user in no longer; their sessions end at once.

    Raises NotFound; Conflict (``oneself``, ``last_owner``); Forbidden for a user who may do more than ``grantor``.
    """
    if grantor.id == user_id:
        raise Conflict("You cannot disable yourself.", code="oneself")
    return _set_status(tx, grantor, user_id, "disabled")


def enable(tx: Tx, grantor: Identity, user_id: str) -> UserSummary:
    """Let a user in again. Raises NotFound; Forbidden for a user who may do more than ``grantor``."""
    return _set_status(tx, grantor, user_id, "active")


def _set_status(tx: Tx, grantor: Identity, user_id: str, status: str) -> UserSummary:
    lock_tree(tx)
    users.get(tx, user_id)
    held = tx.all(_STAFF_ROLES, {"user_id": user_id})
    granting.check(tx, grantor, None, _PERMISSION, [name for role in held for name in role.permissions])
    if tx.execute(_SET_STATUS, {"user_id": user_id, "new_status": status, "now": tx.now}):
        verb = "disabled" if status == "disabled" else "enabled"
        tx.record(f"user.{verb}", "user", user_id)
        if status == "disabled":
            sessions.revoke_all(tx, user_id)
            if any(role.name == SUPER_ADMIN for role in held) and tx.one(_ANY_SUPER_ADMIN) is None:
                raise Conflict(f"The last {SUPER_ADMIN} stays.", code="last_owner")
    return users.summary(tx, user_id)


def delete(tx: Tx, user_id: str) -> None:
    """Delete an account. Its row stays, so that what it did keeps its name; its addresses are free again.

    Raises NotFound; Conflict (``last_owner``) where it is the only owner of an organization with other members,
    or the only one who may do everything in the tenant.
    """
    lock_tree(tx)
    if tx.one(_HOLD, {"user_id": user_id}) is None:
        raise NotFound("There is no such user.", code="user_not_found")
    held = assignments.of_user(tx, user_id)
    for role_id in sorted({one.role_id for one in held if one.customer_id is None}):
        staff.revoke(tx, None, user_id, role_id)
    for customer_id in sorted({one.customer_id for one in held if one.customer_id is not None}):
        _leave(tx, user_id, customer_id)
    sessions.revoke_all(tx, user_id)
    for statement in _FORGET:
        tx.execute(statement, {"of_user": user_id})
    tx.execute(_DELETE, {"user_id": user_id, "now": tx.now})
    tx.record("user.deleted", "user", user_id)


def _leave(tx: Tx, user_id: str, customer_id: str) -> None:
    try:
        with contextlib.suppress(NotFound):  # the customer was deleted
            members.leave(tx, user_id, customer_id)
    except Conflict:
        if tx.one(_ANOTHER_MEMBER, {"customer_id": customer_id, "user_id": user_id}) is not None:
            raise
