"""Roles: named sets of permissions. Six of them and those of members every tenant has; others are made."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts.permissions import ROLES
from counterfoil.accounts.tables import roles
from counterfoil.accounts.types import Role
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound

_ALL = sa.select(*columns(roles)).where(mine(roles)).order_by(roles.c.id)
_GET = sa.select(*columns(roles)).where(mine(roles), roles.c.id == sa.bindparam("id"))
_BY_NAME = sa.select(*columns(roles)).where(mine(roles), roles.c.name == sa.bindparam("name"))
_FIT = (
    sa.update(roles)
    .where(mine(roles), roles.c.id == sa.bindparam("role_id"), roles.c.built_in)
    .values(
        permissions=sa.bindparam("new_permissions", type_=roles.c.permissions.type),
        description=sa.bindparam("new_description"),
        updated_at=sa.bindparam("now"),
    )
)


def furnish(tx: Tx) -> None:
    """Make the built-in roles that are missing, and bring the others up to this version."""
    known = {role.name: role for role in everyone(tx)}
    for name, built_in in ROLES.items():
        role = known.get(name)
        if role is None:
            fresh = Role(
                id=tx.new_id("rol"),
                name=name,
                permissions=built_in.permissions,
                description=built_in.description,
                built_in=True,
                created_at=tx.now,
                updated_at=tx.now,
            )
            tx.insert_if_new(roles, fresh)
        elif role.built_in and (role.permissions, role.description) != built_in:
            params = {"new_permissions": built_in.permissions, "new_description": built_in.description}
            tx.execute(_FIT, {"role_id": role.id, **params, "now": tx.now})


def everyone(tx: Tx) -> list[Role]:
    """Every role of the tenant, oldest first: there are few."""
    return [Role(*row) for row in tx.all(_ALL)]


def get(tx: Tx, role_id: str) -> Role:
    """Raise NotFound (``role_not_found``) when there is none."""
    row = tx.one(_GET, {"id": role_id})
    if row is None:
        raise NotFound("There is no such role.", code="role_not_found")
    return Role(*row)


def by_name(tx: Tx, name: str) -> Role:
    """Raise NotFound (``role_not_found``) when there is none."""
    row = tx.one(_BY_NAME, {"name": name})
    if row is None:
        raise NotFound(f"There is no role {name!r}.", code="role_not_found")
    return Role(*row)
