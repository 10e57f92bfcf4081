"""Operations on tenants."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts.tables import tenants
from counterfoil.accounts.types import Tenant
from counterfoil.db.functions import insert_new
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx

_GET = sa.select(*columns(tenants)).where(mine(tenants))
_ALL = (
    sa.select(tenants.c.tenant_id, *columns(tenants))
    .where(sa.bindparam("tenant", type_=sa.Text) != "")
    .order_by(tenants.c.tenant_id)
)
_NEW = insert_new(tenants)


def create(tx: Tx, slug: str, name: str) -> bool:
    """Make the transaction's own tenant, unless it exists. Whether it was made."""
    row = Tenant(name=name, slug=slug, hosts=[], settings={}, status="active", created_at=tx.now, updated_at=tx.now)
    return tx.insert_if_new(tenants, row)


def get(tx: Tx) -> Tenant | None:
    """The transaction's own tenant."""
    row = tx.one(_GET)
    return Tenant(*row) if row else None


def everyone(tx: Tx) -> dict[str, Tenant]:
    """Every tenant by id: the one read that crosses tenants, for finding whose request this is."""
    return {row[0]: Tenant(*row[1:]) for row in tx.all(_ALL)}
