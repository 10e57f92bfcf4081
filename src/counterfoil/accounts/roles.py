"""Roles: named sets of permissions. Six of them and those of members every tenant has; others are made."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from counterfoil.accounts import granting
from counterfoil.accounts.access import Identity
from counterfoil.accounts.permissions import ROLES, unknown
from counterfoil.accounts.tables import roles
from counterfoil.accounts.types import Role
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.text import check_line

_ALL = sa.select(*columns(roles)).where(mine(roles)).order_by(roles.c.id)
_GET = sa.select(*columns(roles)).where(mine(roles), roles.c.id == sa.bindparam("id"))
_BY_NAME = sa.select(*columns(roles)).where(mine(roles), roles.c.name == sa.bindparam("name"))
_HOLD = _BY_NAME.with_for_update(read=True)
_LOCK = _GET.with_for_update(key_share=True)
_DELETE = sa.delete(roles).where(mine(roles), roles.c.id == sa.bindparam("role_id"))
_UPDATE = (
    sa.update(roles)
    .where(mine(roles), roles.c.id == sa.bindparam("role_id"))
    .values(
        name=sa.bindparam("new_name"),
        permissions=sa.bindparam("new_permissions", type_=roles.c.permissions.type),
        description=sa.bindparam("new_description"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(roles))
)
_FIT = (
    sa.update(roles)
    .where(mine(roles), roles.c.id == sa.bindparam("role_id"), roles.c.built_in)
    .values(
        permissions=sa.bindparam("new_permissions", type_=roles.c.permissions.type),
        description=sa.bindparam("new_description"),
        updated_at=sa.bindparam("now"),
    )
)

_PERMISSION = "roles:write"


class NewRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to make a role."""

    name: str
    permissions: list[str]
    """Permissions and bundles."""
    description: str = ""


class RoleChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change about a role; what is left out stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    permissions: list[str] | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET


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
    return _named(tx.one(_BY_NAME, {"name": name}), name)


def hold(tx: Tx, name: str) -> Role:
    """A role by name that nobody can change or delete until the transaction ends. Raises NotFound."""
    return _named(tx.one(_HOLD, {"name": name}), name)


def _named(row: Row | None, name: str) -> Role:
    if row is None:
        raise NotFound(f"There is no role {name[:100]!r}.", code="role_not_found")
    return Role(*row)


def _check_name(name: str) -> str:
    checked = check_line("name", name, most=100, least=1)
    if checked.casefold() in {built_in.casefold() for built_in in ROLES}:  # nor what only looks like one of them
        raise _taken(checked)
    return checked


def _taken(name: str) -> Conflict:
    return Conflict(f"There is already a role {name!r}.", code="role_name_taken")


def _check_permissions(permissions: list[str]) -> list[str]:
    wrong = unknown(permissions)
    if wrong:
        listed = ", ".join(one[:60] for one in wrong[:10])
        raise Invalid.field("permissions", f"unknown: {listed}", code="unknown_permission")
    return sorted(set(permissions))


def create(tx: Tx, grantor: Identity | None, new: NewRole) -> Role:
    """Make a role. Raises Invalid (``unknown_permission``); Conflict (``role_name_taken``); Forbidden, see granting."""
    role = Role(
        id=tx.new_id("rol"),
        name=_check_name(new.name),
        permissions=_check_permissions(new.permissions),
        description=check_line("description", new.description, most=500),
        built_in=False,
        created_at=tx.now,
        updated_at=tx.now,
    )
    granting.check(tx, grantor, None, _PERMISSION, role.permissions)
    if not tx.insert_if_new(roles, role):
        raise _taken(role.name)
    tx.record("role.created", "role", role.id, name=role.name, permissions=role.permissions)
    return role


def _own(tx: Tx, role_id: str) -> Role:
    """A role that is not built in, locked. Raises NotFound; Conflict (``built_in_role``)."""
    row = tx.one(_LOCK, {"id": role_id})
    if row is None:
        raise NotFound("There is no such role.", code="role_not_found")
    role = Role(*row)
    if role.built_in:
        raise Conflict(f"{role.name} is built in and stays as it is.", code="built_in_role")
    return role


def update(tx: Tx, grantor: Identity | None, role_id: str, changes: RoleChanges) -> Role:
    """Change a role, for everybody who has it. Raises NotFound, and what :func:`create` raises."""
    known = _own(tx, role_id)
    name = known.name if changes.name is msgspec.UNSET else _check_name(changes.name)
    permissions = known.permissions
    if changes.permissions is not msgspec.UNSET:
        permissions = _check_permissions(changes.permissions)
    description = known.description
    if changes.description is not msgspec.UNSET:
        description = check_line("description", changes.description, most=500)
    granting.check(tx, grantor, None, _PERMISSION, [*known.permissions, *permissions])
    params = {"new_name": name, "new_permissions": permissions, "new_description": description}
    try:
        row = tx.one(_UPDATE, {"role_id": role_id, **params, "now": tx.now})
    except IntegrityError as error:
        raise _taken(name) from error
    tx.record("role.updated", "role", role_id, name=name, permissions=permissions)
    return _named(row, name)


def delete(tx: Tx, grantor: Identity | None, role_id: str) -> None:
    """Delete a role that nobody has and that no invitation names, past ones included.

    Raises NotFound; Conflict (``built_in_role``, ``role_in_use``); Forbidden, see granting.
    """
    role = _own(tx, role_id)
    granting.check(tx, grantor, None, _PERMISSION, role.permissions)
    try:
        tx.execute(_DELETE, {"role_id": role_id})
    except IntegrityError as error:
        raise Conflict(f"Somebody has the role {role.name!r}, or is invited to it.", code="role_in_use") from error
    tx.record("role.deleted", "role", role_id, name=role.name)
