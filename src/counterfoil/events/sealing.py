"""Sealing: links the events to a chain, signed by the tenant's key.

An event's id tells when its transaction began, and a transaction may commit after others that began later. So a
run looks back over what is sealed already, for rows that came in between; a short way often, a long way at times.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import Scope
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.events.chain import digest_of, first_hash, hash_after, message
from counterfoil.events.exact import Reader, Unreadable, canonical
from counterfoil.events.tables import event_seals, events
from counterfoil.events.types import EventSeal
from counterfoil.kernel.clock import EPOCH, from_micros
from counterfoil.kernel.ids import first_id, is_id, to_uuid

_BATCH = 500
_SLICE = 20_000
_MOST_AT_ONCE = 100_000
_LEARN_AT = 2_000

_reader = Reader(events)

_LAST = (
    sa.select(event_seals.c.seq, event_seals.c.hash)
    .where(mine(event_seals))
    .order_by(event_seals.c.seq.desc())
    .limit(1)
)
_NEWEST = (
    sa.select(event_seals.c.id)
    .where(mine(event_seals), event_seals.c.id <= sa.bindparam("upto"))
    .order_by(event_seals.c.id.desc())
    .limit(1)
)
_AT = sa.select(event_seals.c.id).where(mine(event_seals), event_seals.c.seq == sa.bindparam("seq"))
# The seals are bounded, too, or else PostgreSQL might merge them from their very first on.
_with_seal = events.outerjoin(
    event_seals, sa.and_(mine(event_seals), event_seals.c.id == events.c.id, event_seals.c.id >= sa.bindparam("first"))
)
_these = (
    sa.select(events.c.id, event_seals.c.id.label("sealed"))
    .select_from(_with_seal)
    .where(mine(events), events.c.id >= sa.bindparam("first"))
    .order_by(events.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_slice = _these.subquery()
_LOOK = sa.select(sa.func.max(_slice.c.id), sa.func.min(sa.case((_slice.c.sealed.is_(None), _slice.c.id)))).select_from(
    _slice
)
_READ = _these.add_columns(*_reader.columns)


class ChainBroken(Exception):
    """The last seal is none that a chain could go on from."""


class Slice(msgspec.Struct, frozen=True):
    """Some events one after another."""

    next: str | None
    """Where those after them begin; None when there are no more."""
    unsealed: str | None
    """The first one without a seal."""


class Sealed(msgspec.Struct, frozen=True):
    """What one transaction sealed."""

    count: int
    next: str | None
    """Where the events after those it looked at begin; None when there are no more."""


def start(tx: Tx, *, back: timedelta, rows: int) -> str:
    """Where to begin to look for events without a seal.

    That is ``back`` before the newest event that is sealed, but not more than ``rows`` links back, so that the
    work stays small where much happens.
    """
    newest = tx.one(_NEWEST, {"upto": first_id("evt", tx.now)})
    if newest is None:
        return ""
    since = max(EPOCH, _moment_of(newest.id, tx.now) - back)
    last = tx.one(_LAST)
    floor = tx.one(_AT, {"seq": last.seq - rows}) if last is not None else None
    return max(first_id("evt", since), floor.id if floor is not None else "")


def _moment_of(event_id: str, otherwise: datetime) -> datetime:
    if not is_id("evt", event_id):
        return otherwise
    return from_micros((to_uuid(event_id).int >> 80) * 1000)


def _after(event_id: str) -> str:
    """The text that comes next in every order of texts."""
    return event_id + "0"


def look(tx: Tx, *, first: str) -> Slice:
    """Look through the next events from ``first`` on, by their ids alone."""
    row = tx.one(_LOOK, {"first": first, "limit": _SLICE})
    assert row is not None
    last, unsealed = row
    return Slice(_after(last) if last is not None else None, unsealed)


def seal(tx: Tx, sign: Callable[[bytes], bytes], key_id: str, *, first: str, limit: int = _BATCH) -> Sealed | None:
    """Of the next ``limit`` events from ``first`` on, append to the chain those that are not in it.

    The last link is signed. None when somebody else appended to the chain at the same moment: then nothing was
    done. An event that cannot be read is left out, which an audit will say. Raises ChainBroken.
    """
    last = tx.one(_LAST)
    try:
        seq, hash_ = (last.seq, bytes.fromhex(last.hash)) if last is not None else (0, first_hash(tx.tenant))
    except ValueError as error:
        raise ChainBroken("the last seal is damaged: run counterfoil audit verify") from error
    rows = tx.all(_READ, {"first": first, "limit": limit})
    seals: list[EventSeal] = []
    for event_id, sealed, *values in rows:
        if sealed is not None:
            continue
        try:
            digest = digest_of(canonical(_reader.read(values)))
        except Unreadable:
            continue
        seq, hash_ = seq + 1, hash_after(hash_, digest)
        seals.append(EventSeal(event_id, seq, digest.hex(), hash_.hex(), None, None, tx.now))
    if seals:
        signature = sign(message(tx.tenant, seq, hash_)).hex()
        seals[-1] = msgspec.structs.replace(seals[-1], signature=signature, signing_key_id=key_id)
        # Whoever has the next place in the chain has all that follow: another one waits here until we are done.
        if not tx.insert_if_new(event_seals, seals[0]):
            return None
        tx.insert(event_seals, *seals[1:])
    return Sealed(len(seals), _after(rows[-1].id) if len(rows) == limit else None)


async def seal_all(scope: Scope, sign: Callable[[bytes], bytes], key_id: str, *, back: timedelta, rows: int) -> int:
    """Seal what has no seal, looking back as :func:`start` says; how many events that was.

    After a hundred thousand it stops, to let others have a turn. Raises ChainBroken.
    """
    first: str | None = await scope.read(start, back=back, rows=rows)
    done, learn_at = 0, _LEARN_AT
    while first is not None and done < _MOST_AT_ONCE:
        found = await scope.read(look, first=first)
        first = found.unsealed or found.next
        while found.unsealed is not None and first is not None and done < _MOST_AT_ONCE:  # those after it, too
            sealed = await scope.run(seal, sign, key_id, first=first)
            if sealed is None:
                return done
            done, first = done + sealed.count, sealed.next
            if not sealed.count:
                break
            if done >= learn_at:  # a plan made while the record was small takes minutes for many
                await scope.database.learn(events.name, event_seals.name)
                learn_at = done * 4
    return done
