"""How each tenant's rails are reached; secrets sealed under the master key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.exchange.tables import rail_settings
from counterfoil.exchange.types import RailSettings
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.secrets import MasterKey

_GET = sa.select(*columns(rail_settings)).where(
    mine(rail_settings), rail_settings.c.rail == sa.bindparam("rail"), rail_settings.c.status == "active"
)
_LIST = sa.select(*columns(rail_settings)).where(mine(rail_settings)).order_by(rail_settings.c.rail)
_WRITE = (
    sa.update(rail_settings)
    .where(mine(rail_settings), rail_settings.c.rail == sa.bindparam("of_rail"))
    .values(
        status="active",
        public=sa.bindparam("new_public"),
        sealed=sa.bindparam("new_sealed"),
        updated_at=sa.bindparam("now"),
    )
)
_CAUGHT_UP = (
    sa.update(rail_settings)
    .where(
        mine(rail_settings),
        rail_settings.c.rail == sa.bindparam("of_rail"),
        sa.or_(rail_settings.c.caught_up_at.is_(None), rail_settings.c.caught_up_at <= sa.bindparam("new_at")),
    )
    .values(caught_up_at=sa.bindparam("new_at"))
)
_COMPARED = (
    sa.update(rail_settings)
    .where(
        mine(rail_settings),
        rail_settings.c.rail == sa.bindparam("of_rail"),
        sa.or_(rail_settings.c.compared_until.is_(None), rail_settings.c.compared_until < sa.bindparam("new_until")),
    )
    .values(compared_until=sa.bindparam("new_until"))
)
_DISCONNECT = (
    sa.update(rail_settings)
    .where(mine(rail_settings), rail_settings.c.rail == sa.bindparam("of_rail"), rail_settings.c.status == "active")
    .values(status="disconnected", sealed=b"", updated_at=sa.bindparam("now"))
)


def _context(tenant: str, rail: str) -> str:
    return f"rail_settings/{tenant}/{rail}"


def save(tx: Tx, master: MasterKey, rail: str, settings: msgspec.Struct, public: dict[str, Any]) -> None:
    """Connect a rail, or change how it is reached. ``public`` is what may be shown of it."""
    sealed = master.seal(msgspec.json.encode(settings), _context(tx.tenant, rail))
    row = RailSettings(
        id=tx.new_id("rst"),
        rail=rail,
        status="active",
        public=public,
        sealed=sealed,
        caught_up_at=None,
        compared_until=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(rail_settings, row):
        tx.execute(_WRITE, {"of_rail": rail, "new_public": public, "new_sealed": sealed, "now": tx.now})
    tx.record("rail.connected", "rail", rail, **public)


def load(tx: Tx, rail: str) -> RailSettings | None:
    """How a connected rail is reached, still sealed."""
    row = tx.one(_GET, {"rail": rail})
    return RailSettings(*row) if row else None


def unseal(row: RailSettings, tenant: str, master: MasterKey, kind: type[Any]) -> Any:
    """Open what :func:`save` sealed. Raises SealBroken."""
    return msgspec.json.decode(master.open(row.sealed, _context(tenant, row.rail)), type=kind)


def list_(tx: Tx) -> list[RailSettings]:
    """Every rail that is or was connected."""
    return [RailSettings(*row) for row in tx.all(_LIST)]


def caught_up(tx: Tx, rail: str, *, at: datetime) -> None:
    """Note until when nothing of a rail's news was missed; never back in time."""
    tx.execute(_CAUGHT_UP, {"of_rail": rail, "new_at": at})


def compared(tx: Tx, rail: str, *, until: datetime) -> None:
    """Note until when a rail's payments were compared; never back in time."""
    tx.execute(_COMPARED, {"of_rail": rail, "new_until": until})


def disconnect(tx: Tx, rail: str) -> None:
    """Forget a rail's secrets. Raises NotFound when it is not connected."""
    if not tx.execute(_DISCONNECT, {"of_rail": rail, "now": tx.now}):
        raise NotFound("This rail is not connected.", code="rail_not_connected")
    tx.record("rail.disconnected", "rail", rail)
