"""Operations on machines.

The cap is held twice by the database: by the condition of the UPDATE that counts a machine in, and by
a check constraint over the row. A license for one machine is thereby locked to the first that uses it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.licensing import licenses as license_ops
from counterfoil.licensing.tables import licenses, machines
from counterfoil.licensing.types import License, Machine

HEARTBEAT_GRAIN = timedelta(minutes=1)
"""A heartbeat within this long of the last one is not written again."""

_ACTIVE = sa.select(*columns(machines)).where(
    mine(machines),
    machines.c.license_id == sa.bindparam("license_id"),
    machines.c.fingerprint_hash == sa.bindparam("fingerprint_hash"),
    machines.c.deactivated_at.is_(None),
)
_BEAT = (
    sa.update(machines)
    .where(mine(machines), any_of(machines.c.id, "ids"), machines.c.last_heartbeat_at < sa.bindparam("older_than"))
    .values(last_heartbeat_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
_COUNT_IN = (
    sa.update(licenses)
    .where(
        mine(licenses),
        licenses.c.id == sa.bindparam("license_id"),
        sa.or_(licenses.c.max_machines == 0, licenses.c.machine_count < licenses.c.max_machines),
    )
    .values(machine_count=licenses.c.machine_count + 1, updated_at=sa.bindparam("now"))
    .returning(licenses.c.machine_count)
)
_COUNT_OUT = (
    sa.update(licenses)
    .where(mine(licenses), licenses.c.id == sa.bindparam("license_id"))
    .values(machine_count=licenses.c.machine_count - 1, updated_at=sa.bindparam("now"))
)
_DEACTIVATE = (
    sa.update(machines)
    .where(mine(machines), machines.c.id == sa.bindparam("machine_id"), machines.c.deactivated_at.is_(None))
    .values(
        deactivated_at=sa.bindparam("now"), deactivation_reason=sa.bindparam("reason"), updated_at=sa.bindparam("now")
    )
    .returning(*columns(machines))
)
_GET = sa.select(*columns(machines)).where(mine(machines), machines.c.id == sa.bindparam("id"))
_LIST = (
    sa.select(*columns(machines))
    .where(mine(machines), machines.c.license_id == sa.bindparam("license_id"), machines.c.id > sa.bindparam("after"))
    .order_by(machines.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)

Refusal = Literal["not_found", "suspended", "revoked", "expired", "too_many_machines"]


class Device(msgspec.Struct, frozen=True):
    """What a program tells about the machine it runs on."""

    fingerprint_hash: str
    hostname: str | None = None
    platform: str | None = None
    address: str | None = None


class Activation(msgspec.Struct, frozen=True):
    """The answer to an activation: the machine, or why not."""

    machine_id: str | None
    active_count: int
    max_machines: int
    refusal: Refusal | None = None


def ends_at(license_: License) -> datetime | None:
    """When a license stops being good, grace included; None = never."""
    return license_.expires_at + timedelta(seconds=license_.grace_seconds) if license_.expires_at else None


def usable(license_: License, now: datetime) -> Literal["suspended", "revoked", "expired"] | None:
    """Why a license is not good now, or None when it is."""
    if license_.status != "active":
        return license_.status
    end = ends_at(license_)
    return "expired" if end is not None and now >= end else None


def activate(tx: Tx, license_id: str, device: Device) -> Activation:
    """Activate a license on a machine; again on the same machine is a heartbeat.

    Never more machines than the license allows, however many ask at once.
    """
    license_ = license_ops.get_locked(tx, license_id)
    if license_ is None:
        return Activation(None, 0, 0, "not_found")
    bad = usable(license_, tx.now)
    if bad is not None:
        return Activation(None, license_.machine_count, license_.max_machines, bad)
    known = find_active(tx, license_id, device.fingerprint_hash)
    if known is not None:
        beat(tx, [known])
        return Activation(known.id, license_.machine_count, license_.max_machines)
    counted = tx.one(_COUNT_IN, {"license_id": license_id, "now": tx.now})
    if counted is None:
        return Activation(None, license_.machine_count, license_.max_machines, "too_many_machines")
    machine = Machine(
        id=tx.new_id("mac"),
        license_id=license_id,
        fingerprint_hash=device.fingerprint_hash,
        hostname=device.hostname,
        platform=device.platform,
        address=device.address,
        last_heartbeat_at=tx.now,
        deactivated_at=None,
        deactivation_reason=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(machines, machine)
    tx.record("machine.activated", "machine", machine.id, license_id=license_id)
    return Activation(machine.id, counted[0], license_.max_machines)


def find_active(tx: Tx, license_id: str, fingerprint_hash: str) -> Machine | None:
    """The active machine with this fingerprint, if there is one."""
    row = tx.one(_ACTIVE, {"license_id": license_id, "fingerprint_hash": fingerprint_hash})
    return Machine(*row) if row else None


def beat(tx: Tx, seen: list[Machine]) -> None:
    """Note that machines were seen now; one that was noted within the last minute is not written again."""
    due = sorted(machine.id for machine in seen if machine.last_heartbeat_at < tx.now - HEARTBEAT_GRAIN)
    if due:
        tx.execute(_BEAT, {"ids": due, "now": tx.now, "older_than": tx.now - HEARTBEAT_GRAIN})


def heartbeat(tx: Tx, license_id: str, fingerprint_hash: str) -> tuple[str | None, str | None]:
    """Note that a machine is alive: its id, or why not (the license's state, or ``not_activated``)."""
    license_ = license_ops.get_locked(tx, license_id)
    if license_ is None:
        return None, "not_found"
    bad = usable(license_, tx.now)
    if bad is not None:
        return None, bad
    machine = find_active(tx, license_id, fingerprint_hash)
    if machine is None:
        return None, "not_activated"
    beat(tx, [machine])
    return machine.id, None


def release(tx: Tx, license_id: str, fingerprint_hash: str, *, reason: str) -> bool:
    """Free a machine's place, asked by the machine itself. Whether there was one."""
    if license_ops.get_locked(tx, license_id) is None:
        return False
    machine = find_active(tx, license_id, fingerprint_hash)
    if machine is None:
        return False
    _deactivate(tx, machine.id, license_id, reason)
    return True


def deactivate(tx: Tx, machine_id: str, *, reason: str) -> Machine:
    """Free a machine's place, asked by staff. Raises NotFound; Conflict (``machine_deactivated``)."""
    row = tx.one(_GET, {"id": machine_id})
    if row is None:
        raise NotFound("There is no such machine.", code="machine_not_found")
    machine = Machine(*row)
    license_ops.get_locked(tx, machine.license_id)
    return _deactivate(tx, machine_id, machine.license_id, reason)


def _deactivate(tx: Tx, machine_id: str, license_id: str, reason: str) -> Machine:
    row = tx.one(_DEACTIVATE, {"machine_id": machine_id, "now": tx.now, "reason": reason})
    if row is None:
        raise Conflict("This machine is already deactivated.", code="machine_deactivated")
    tx.execute(_COUNT_OUT, {"license_id": license_id, "now": tx.now})
    tx.record("machine.deactivated", "machine", machine_id, license_id=license_id, reason=reason)
    return Machine(*row)


def list_(tx: Tx, license_id: str, *, after: str = "", limit: int = 20) -> Page[Machine]:
    """A page of a license's machines, past ones included, oldest first."""
    rows = tx.all(_LIST, {"license_id": license_id, "after": after, "limit": limit + 1})
    return page_of([Machine(*row) for row in rows], limit)
