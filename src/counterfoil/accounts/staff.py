"""Staff: users with a role in the tenant itself. Somebody always stays who may do everything."""

from __future__ import annotations

from datetime import datetime

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import assignments, granting, roles
from counterfoil.accounts.access import Identity
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.accounts.tables import role_assignments, tenants, user_emails, users
from counterfoil.accounts.tables import roles as roles_table
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.paging import Page, page_of

_PERMISSION = "staff:write"

_LIST = (
    sa.select(
        role_assignments.c.id,
        role_assignments.c.user_id,
        users.c.first_name,
        users.c.last_name,
        user_emails.c.email,
        role_assignments.c.role_id,
        roles_table.c.name,
        role_assignments.c.granted_by,
        role_assignments.c.created_at,
    )
    .select_from(role_assignments)
    .join(users, sa.and_(users.c.tenant_id == role_assignments.c.tenant_id, users.c.id == role_assignments.c.user_id))
    .join(
        roles_table,
        sa.and_(
            roles_table.c.tenant_id == role_assignments.c.tenant_id, roles_table.c.id == role_assignments.c.role_id
        ),
    )
    .outerjoin(
        user_emails,
        sa.and_(
            user_emails.c.tenant_id == users.c.tenant_id, user_emails.c.user_id == users.c.id, user_emails.c.is_primary
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.customer_id.is_(None),
        users.c.deleted_at.is_(None),
        role_assignments.c.id > sa.bindparam("after"),
    )
    .order_by(role_assignments.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LOCK = sa.select(tenants.c.tenant_id).where(mine(tenants)).with_for_update(key_share=True)
_OTHERS = (
    sa.select(role_assignments.c.id)
    .join(users, sa.and_(users.c.tenant_id == role_assignments.c.tenant_id, users.c.id == role_assignments.c.user_id))
    .where(
        mine(role_assignments),
        role_assignments.c.customer_id.is_(None),
        role_assignments.c.role_id == sa.bindparam("role_id"),
        role_assignments.c.user_id != sa.bindparam("user_id"),
        users.c.status == "active",
        users.c.deleted_at.is_(None),
    )
    .limit(1)
)
_REVOKE = sa.delete(role_assignments).where(
    mine(role_assignments),
    role_assignments.c.customer_id.is_(None),
    role_assignments.c.user_id == sa.bindparam("of_user"),
    role_assignments.c.role_id == sa.bindparam("of_role"),
)


class StaffRole(msgspec.Struct, frozen=True):
    """A role somebody has in the tenant itself."""

    id: str
    user_id: str
    first_name: str
    last_name: str
    email: str | None
    role_id: str
    role: str
    granted_by: str | None
    created_at: datetime


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[StaffRole]:
    """A page of who is staff, a row for each role, oldest first."""
    return page_of([StaffRole(*row) for row in tx.all(_LIST, {"after": after, "limit": limit + 1})], limit)


def grant(tx: Tx, grantor: Identity | None, user_id: str, role_name: str) -> bool:
    """Give a user a role in the tenant; whether it was new. Raises NotFound; Forbidden, see granting."""
    role = roles.hold(tx, role_name)
    granting.check(tx, grantor, None, _PERMISSION, role.permissions)
    return assignments.grant(tx, user_id, role.id, None)


def revoke(tx: Tx, grantor: Identity | None, user_id: str, role_id: str) -> None:
    """Take a role in the tenant away.

    Raises NotFound (``staff_not_found``); Conflict (``last_owner``) when nobody would be left who may do
    everything; Forbidden, see granting.
    """
    tx.one(_LOCK)
    role = roles.get(tx, role_id)
    granting.check(tx, grantor, None, _PERMISSION, role.permissions)
    if not tx.execute(_REVOKE, {"of_user": user_id, "of_role": role_id}):
        raise NotFound("This user does not have this role.", code="staff_not_found")
    if role.name == SUPER_ADMIN:
        check_one_left(tx, user_id)
    tx.record("role.revoked", "user", user_id, role_id=role_id)


def check_one_left(tx: Tx, user_id: str) -> None:
    """Somebody else than this user may do everything. The caller holds the tenant's row.

    Raises Conflict (``last_owner``).
    """
    role = roles.by_name(tx, SUPER_ADMIN)
    if tx.one(_OTHERS, {"role_id": role.id, "user_id": user_id}) is None:
        raise Conflict(f"The last {SUPER_ADMIN} stays.", code="last_owner")
