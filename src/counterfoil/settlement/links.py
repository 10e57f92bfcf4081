"""What rails call our objects: one table for every rail and every kind of object."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.rails.facts import RailCopy
from counterfoil.settlement.tables import rail_links
from counterfoil.settlement.types import LinkKind, RailLink, SyncStatus

_ALL = sa.select(*columns(rail_links)).where(mine(rail_links))
_OF_RAIL = _ALL.where(rail_links.c.rail == sa.bindparam("rail"), rail_links.c.kind == sa.bindparam("kind"))
_GET = _OF_RAIL.where(rail_links.c.object_id == sa.bindparam("object_id"))
_FIND = _OF_RAIL.where(rail_links.c.reference == sa.bindparam("reference"))
_OBJECTS = _OF_RAIL.where(any_of(rail_links.c.object_id, "ids"))
_REFERENCES = _OF_RAIL.where(any_of(rail_links.c.reference, "ids"))
_OF_OBJECT = _ALL.where(
    rail_links.c.kind == sa.bindparam("kind"), rail_links.c.object_id == sa.bindparam("object_id")
).order_by(rail_links.c.rail)
_PAGE = (
    _OF_RAIL.where(rail_links.c.id > sa.bindparam("after"))
    .order_by(rail_links.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_UNHEARD = _PAGE.where(
    sa.or_(rail_links.c.last_synced_at.is_(None), rail_links.c.last_synced_at < sa.bindparam("before"))
)
_SOME = (
    _ALL.where(rail_links.c.rail == sa.bindparam("rail"), any_of(rail_links.c.kind, "kinds"))
    .order_by(rail_links.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_DIFFERENT = (
    _ALL.where(
        rail_links.c.rail == sa.bindparam("rail"),
        rail_links.c.sync_status == "different",
        any_of(rail_links.c.kind, "kinds"),
    )
    .order_by(rail_links.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_FORGET = sa.delete(rail_links).where(mine(rail_links), any_of(rail_links.c.id, "ids"))
_ONE = sa.update(rail_links).where(mine(rail_links), rail_links.c.id == sa.bindparam("link_id"))
_SYNC = _ONE.values(
    sync_status=sa.bindparam("new_status"),
    last_synced_at=sa.bindparam("synced_at"),
    pending_since=sa.bindparam("new_pending"),
    raw=sa.func.coalesce(sa.bindparam("new_raw", type_=rail_links.c.raw.type), rail_links.c.raw),
    updated_at=sa.bindparam("now"),
)
# Older news does not count any more.
_HEAR = _ONE.where(
    sa.or_(rail_links.c.last_event_at.is_(None), rail_links.c.last_event_at <= sa.bindparam("heard_at"))
).values(
    last_event_at=sa.bindparam("heard_at"),
    last_event_id=sa.bindparam("event_id"),
    raw=sa.bindparam("new_raw", type_=rail_links.c.raw.type),
    updated_at=sa.bindparam("now"),
)


def get(tx: Tx, rail: str, kind: LinkKind, object_id: str) -> RailLink | None:
    """What the rail calls one of our objects; None when it has no copy that we know of."""
    row = tx.one(_GET, {"rail": rail, "kind": kind, "object_id": object_id})
    return RailLink(*row) if row else None


def find(tx: Tx, rail: str, kind: LinkKind, reference: str) -> RailLink | None:
    """Which of our objects the rail means; None when it is none of ours."""
    row = tx.one(_FIND, {"rail": rail, "kind": kind, "reference": reference})
    return RailLink(*row) if row else None


def references(tx: Tx, rail: str, kind: LinkKind, object_ids: Iterable[str]) -> dict[str, str]:
    """The rail's names of our objects, by our ids; those that have one."""
    wanted = sorted(set(object_ids))
    rows = tx.all(_OBJECTS, {"rail": rail, "kind": kind, "ids": wanted}) if wanted else []
    return {row.object_id: row.reference for row in rows}


def objects(tx: Tx, rail: str, kind: LinkKind, names: Iterable[str]) -> dict[str, str]:
    """Our ids of what the rail names so, by its names; those that are ours."""
    wanted = sorted(set(names))
    rows = tx.all(_REFERENCES, {"rail": rail, "kind": kind, "ids": wanted}) if wanted else []
    return {row.reference: row.object_id for row in rows}


def of_object(tx: Tx, kind: LinkKind, object_id: str) -> list[RailLink]:
    """What every rail calls one object."""
    return [RailLink(*row) for row in tx.all(_OF_OBJECT, {"kind": kind, "object_id": object_id})]


def of_references(tx: Tx, rail: str, kind: LinkKind, names: Iterable[str]) -> list[RailLink]:
    """The links of what the rail names so; of what is ours."""
    wanted = sorted(set(names))
    params = {"rail": rail, "kind": kind, "ids": wanted}
    return [RailLink(*row) for row in tx.all(_REFERENCES, params)] if wanted else []


def page(tx: Tx, rail: str, kind: LinkKind, *, after: str, limit: int) -> list[RailLink]:
    """Some of what a rail has copies of, by id."""
    return [RailLink(*row) for row in tx.all(_PAGE, {"rail": rail, "kind": kind, "after": after, "limit": limit})]


def unheard(tx: Tx, rail: str, kind: LinkKind, *, before: datetime, after: str, limit: int) -> list[RailLink]:
    """Some of the copies that we have not heard of since a moment, by id."""
    params = {"rail": rail, "kind": kind, "before": before, "after": after, "limit": limit}
    return [RailLink(*row) for row in tx.all(_UNHEARD, params)]


def some(tx: Tx, rail: str, kinds: Iterable[str], *, limit: int) -> list[RailLink]:
    """Some of what a rail has copies of, the oldest."""
    return [RailLink(*row) for row in tx.all(_SOME, {"rail": rail, "kinds": sorted(kinds), "limit": limit})]


def different(tx: Tx, rail: str, kinds: Iterable[str], *, limit: int) -> list[RailLink]:
    """Some of the copies that are known to be otherwise than ours, the oldest."""
    return [RailLink(*row) for row in tx.all(_DIFFERENT, {"rail": rail, "kinds": sorted(kinds), "limit": limit})]


def forget(tx: Tx, rail: str, kinds: Iterable[str], *, limit: int) -> int:
    """Forget some of a rail's names for objects of these kinds, the oldest ones; how many."""
    gone = some(tx, rail, kinds, limit=limit)
    if gone:
        tx.execute(_FORGET, {"ids": [one.id for one in gone]})
        tx.record("sync.links_forgotten", "rail", rail, count=len(gone))
    return len(gone)


def link(
    tx: Tx,
    rail: str,
    kind: LinkKind,
    object_id: str,
    reference: str,
    *,
    sync_status: SyncStatus = "synced",
    synced_at: datetime | None = None,
    pending_since: datetime | None = None,
    raw: dict[str, Any] | None = None,
) -> RailLink:
    """Note what the rail calls an object; the same twice is once.

    Raises Conflict (``link_exists``) when the rail has another name for it, or the name is another object's.
    """
    new = RailLink(
        id=tx.new_id("rlk"),
        rail=rail,
        kind=kind,
        object_id=object_id,
        reference=reference,
        sync_status=sync_status,
        last_synced_at=synced_at,
        last_event_at=None,
        last_event_id=None,
        pending_since=pending_since,
        raw=raw,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if tx.insert_if_new(rail_links, new):
        return new
    known = get(tx, rail, kind, object_id)
    if known is None or known.reference != reference:
        raise Conflict(
            f"{rail} calls another {kind} {reference}, or this one otherwise.",
            code="link_exists",
        )
    return known


def link_new(tx: Tx, rail: str, kind: LinkKind, made: Iterable[tuple[str, RailCopy]]) -> None:
    """Note copies of objects that were made out of them just now; all together."""
    rows = [
        RailLink(
            id=tx.new_id("rlk"),
            rail=rail,
            kind=kind,
            object_id=object_id,
            reference=copy.reference,
            sync_status="synced",
            last_synced_at=tx.now,
            last_event_at=None,
            last_event_id=None,
            pending_since=None,
            raw=copy.raw,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for object_id, copy in made
    ]
    tx.insert(rail_links, *rows)


def sync(
    tx: Tx,
    known: RailLink,
    status: SyncStatus,
    *,
    pending_since: datetime | None = None,
    raw: dict[str, Any] | None = None,
) -> RailLink:
    """Note how far the copy is in step now; ``synced`` counts as heard of now."""
    synced_at = tx.now if status in {"synced", "different"} else known.last_synced_at
    tx.execute(
        _SYNC,
        {
            "link_id": known.id,
            "new_status": status,
            "synced_at": synced_at,
            "new_pending": pending_since,
            "new_raw": raw,
            "now": tx.now,
        },
    )
    return msgspec.structs.replace(
        known,
        sync_status=status,
        last_synced_at=synced_at,
        pending_since=pending_since,
        raw=raw if raw is not None else known.raw,
        updated_at=tx.now,
    )


def hear(tx: Tx, known: RailLink, *, at: datetime, event_id: str, raw: dict[str, Any]) -> bool:
    """Note the rail's news of a copy, unless newer news came before; whether it counts."""
    params = {"link_id": known.id, "heard_at": at, "event_id": event_id, "new_raw": raw, "now": tx.now}
    return tx.execute(_HEAR, params) == 1
