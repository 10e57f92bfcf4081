"""Who has which role, where: at a customer and all below it, or in the tenant itself (staff)."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts.permissions import expand
from counterfoil.accounts.tables import role_assignments, roles, users
from counterfoil.accounts.types import RoleAssignment
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound

_OF_USER = (
    sa.select(*columns(role_assignments))
    .where(mine(role_assignments), role_assignments.c.user_id == sa.bindparam("user_id"))
    .order_by(role_assignments.c.id)
)
_HOLD_USER = (
    sa.select(users.c.id)
    .where(mine(users), users.c.id == sa.bindparam("user_id"), users.c.deleted_at.is_(None))
    .with_for_update(read=True)
)
_HELD = (
    sa.select(roles.c.permissions)
    .select_from(role_assignments)
    .join(users, sa.and_(users.c.tenant_id == role_assignments.c.tenant_id, users.c.id == role_assignments.c.user_id))
    .join(roles, sa.and_(roles.c.tenant_id == role_assignments.c.tenant_id, roles.c.id == role_assignments.c.role_id))
    .where(
        mine(role_assignments),
        role_assignments.c.user_id == sa.bindparam("user_id"),
        sa.or_(role_assignments.c.customer_id.is_(None), any_of(role_assignments.c.customer_id, "reach")),
        users.c.status == "active",
        users.c.deleted_at.is_(None),
    )
    .with_for_update(read=True, of=[role_assignments, users, roles])
)


def grant(tx: Tx, user_id: str, role_id: str, customer_id: str | None, *, granted_by: str | None = None) -> bool:
    """Give a user a role; whether it was new. Whether the caller may grant it is decided before.

    ``granted_by`` is the transaction's actor unless it says otherwise. Raises NotFound (``user_not_found``).
    """
    if tx.one(_HOLD_USER, {"user_id": user_id}) is None:
        raise NotFound("There is no such user.", code="user_not_found")
    assignment = RoleAssignment(
        id=tx.new_id("ras"),
        user_id=user_id,
        customer_id=customer_id,
        role_id=role_id,
        granted_by=granted_by or tx.actor.id,
        created_at=tx.now,
    )
    if not tx.insert_if_new(role_assignments, assignment):
        return False
    tx.record("role.granted", "user", user_id, customer_id=customer_id, role_id=role_id)
    return True


def of_user(tx: Tx, user_id: str) -> list[RoleAssignment]:
    """All of a user's roles, oldest first."""
    return [RoleAssignment(*row) for row in tx.all(_OF_USER, {"user_id": user_id})]


def held_by(tx: Tx, user_id: str, path: str | None) -> frozenset[str]:
    """What a user may do at the customer with this path, or (None) in the tenant, at this very moment.

    It stays so until the transaction ends: whoever takes one of those roles away, changes it, or disables the user
    waits for us, and what they did before counts.
    """
    rows = tx.all(_HELD, {"user_id": user_id, "reach": ids_of(path)})
    return frozenset().union(*[expand(row.permissions) for row in rows])


def ids_of(path: str | None) -> list[str]:
    """The ids in a customer's path, from the top down to its own."""
    return path.rstrip("/").split("/") if path else []
