"""Who has which role, where: at a customer and all below it, or in the tenant itself (staff)."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts.tables import role_assignments
from counterfoil.accounts.types import RoleAssignment
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx

_OF_USER = (
    sa.select(*columns(role_assignments))
    .where(mine(role_assignments), role_assignments.c.user_id == sa.bindparam("user_id"))
    .order_by(role_assignments.c.id)
)


def grant(tx: Tx, user_id: str, role_id: str, customer_id: str | None) -> bool:
    """Give a user a role; whether it was new. Whether the caller may grant it is decided before."""
    assignment = RoleAssignment(
        id=tx.new_id("ras"),
        user_id=user_id,
        customer_id=customer_id,
        role_id=role_id,
        granted_by=tx.actor.id,
        created_at=tx.now,
    )
    if not tx.insert_if_new(role_assignments, assignment):
        return False
    tx.record("role.granted", "user", user_id, customer_id=customer_id, role_id=role_id)
    return True


def of_user(tx: Tx, user_id: str) -> list[RoleAssignment]:
    """All of a user's roles, oldest first."""
    return [RoleAssignment(*row) for row in tx.all(_OF_USER, {"user_id": user_id})]
