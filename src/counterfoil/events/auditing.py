"""Auditing: walks the whole chain, and writes it out for others to check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import DatabaseUnavailable, Scope, single_statement
from counterfoil.db.schema import mine, tenant
from counterfoil.db.tx import Tx
from counterfoil.events.chain import Chain, Fault, Head, Link, Report
from counterfoil.events.exact import Reader, Unreadable, canonical
from counterfoil.events.sealing import look
from counterfoil.events.tables import event_seals, events
from counterfoil.kernel.clock import MICROSECOND
from counterfoil.kernel.ids import first_id
from counterfoil.kernel.signing import PublicKey

PAGE = 5000
_GRACE = MICROSECOND * 3_600_000_000
"""How old an event may be without a seal."""


def _of(source: sa.FromClause) -> sa.ColumnElement[bool]:
    return source.c.tenant_id == tenant()


_seal = event_seals.alias("seal")
_event = events.alias("event")
_seals = Reader(_seal)
_events = Reader(_event)
_split = len(_seals.columns)
# A page is a range of numbers, of which there are no more than it has places, whatever a planner believes.
_links = sa.select(*_seals.columns, *_events.columns)


def _row_number(table: str) -> sa.ColumnElement[int]:
    return sa.literal_column(f'"{table}".rowid', sa.Integer)


_LINKS = {
    "postgresql": _links.select_from(_seal.outerjoin(_event, sa.and_(_of(_event), _event.c.id == _seal.c.id)))
    .where(_of(_seal), _seal.c.seq.between(sa.bindparam("first"), sa.bindparam("last")))
    .order_by(_seal.c.seq),
    # SQLite takes what it can from an index and looks no further. So each row is found through an index under
    # another name, and then read by its number from the table itself, which is where it may have been changed.
    "sqlite": _links.select_from(
        event_seals.join(_seal, _row_number(_seal.name) == _row_number(event_seals.name))
        .outerjoin(events, sa.and_(mine(events), events.c.id == _seal.c.id))
        .outerjoin(_event, _row_number(_event.name) == _row_number(events.name))
    )
    .where(mine(event_seals), event_seals.c.seq.between(sa.bindparam("first"), sa.bindparam("last")))
    .order_by(event_seals.c.seq),
}
_NEXT = (
    sa.select(event_seals.c.seq)
    .where(mine(event_seals), event_seals.c.seq > sa.bindparam("after"))
    .order_by(event_seals.c.seq)
    .limit(1)
)
_LENGTH = sa.select(sa.func.max(event_seals.c.seq)).where(mine(event_seals))


_UNREADABLE = Link(None, None, "", "", None, None, None)


class Line(msgspec.Struct, frozen=True):
    """A line of an export: a link of the chain, and its event in the form that is sealed."""

    seq: int
    digest: str
    hash: str
    signature: str | None
    signing_key_id: str | None
    event: msgspec.Raw
    """``null`` for an event that is gone or cannot be read."""


@single_statement
def length(tx: Tx) -> int:
    """How long the chain is; 0 when nothing is sealed."""
    row = tx.one(_LENGTH)
    return row[0] or 0 if row is not None else 0


def links(tx: Tx, dialect: str, *, after: int, limit: int = PAGE) -> list[Link]:
    """Some of the links that follow ``after``; none when there are no more. Read in the way this database needs."""
    row = tx.one(_NEXT, {"after": after})
    if row is None:
        return []
    if not isinstance(row.seq, int):  # SQLite holds whatever was put there
        return [_UNREADABLE]
    return [_link(found) for found in tx.all(_LINKS[dialect], {"first": row.seq, "last": row.seq + limit - 1})]


def _link(row: Any) -> Link:
    try:
        seal = _seals.read(row[:_split])
    except Unreadable:
        return _UNREADABLE
    event: bytes | None = None
    if row[_split] is not None:
        try:
            event = canonical(_events.read(row[_split:]))
        except Unreadable:
            event = b""
    return Link(
        seq=seal["seq"],
        event_id=seal["id"],
        digest=seal["digest"],
        hash=seal["hash"],
        signature=seal.get("signature"),
        signing_key_id=seal.get("signing_key_id"),
        event=event,
    )


async def _pages(scope: Scope) -> AsyncIterator[list[Link]]:
    """The chain, page by page. Raises DatabaseUnavailable at a row that the database itself cannot read."""
    after, limit = 0, PAGE
    while True:
        try:
            page = await scope.read(links, scope.database.dialect, after=after, limit=limit)
        except DatabaseUnavailable:
            if limit == 1:
                raise
            limit = max(1, limit // 8)  # to come as close to it as we can
            continue
        if not page:
            return
        yield page
        if page[-1].seq is None:  # nobody knows where to go on
            return
        after = page[-1].seq


async def verify(
    scope: Scope,
    keys: Mapping[str, PublicKey],
    *,
    retired: Collection[str] = (),
    kept: Head | None = None,
    on_page: Callable[[int], None] = lambda _: None,
) -> Report:
    """Walk the chain from its first link to its last, then look for events that are not in it.

    ``kept`` is a link that must still be there. ``on_page`` hears how many links were good so far.
    """
    chain = Chain(scope.tenant, keys, retired=retired, kept=kept)
    try:
        async for page in _pages(scope):
            for link in page:
                if (fault := chain.follow(link)) is not None:
                    return chain.report(fault)
            on_page(chain.good)
    except DatabaseUnavailable:
        if chain.good + 1 > await scope.read(length):  # which also fails when it is not the row that is to blame
            raise
        why = "the database cannot read this link or its event"
        return chain.report(Fault(chain.good + 1, None, "unreadable", why))
    return chain.report(chain.finish() or await _never_sealed(scope))


async def _never_sealed(scope: Scope) -> Fault | None:
    old = first_id("evt", scope.database.clock.now() - _GRACE)
    first: str | None = ""
    while first is not None:
        found = await scope.read(look, first=first)
        if found.unsealed is not None and found.unsealed < old:
            why = "the event was never sealed: it was put there later, or the sealing has not run for an hour"
            return Fault(None, found.unsealed, "never_sealed", why)
        first = found.next
    return None


async def export(scope: Scope) -> AsyncIterator[list[bytes]]:
    """The chain as lines of JSON, in pages, from its first link on; a damaged one as it is found."""
    encoder = msgspec.json.Encoder()
    async for page in _pages(scope):
        yield [
            encoder.encode(
                Line(
                    link.seq or 0,
                    link.digest,
                    link.hash,
                    link.signature,
                    link.signing_key_id,
                    msgspec.Raw(link.event or b"null"),
                )
            )
            for link in page
        ]


class _Named(msgspec.Struct):
    id: str
    tenant_id: str


def verify_lines(lines: Iterable[bytes], keys: Collection[PublicKey], *, kept: Head | None = None) -> Report:
    """Check an export against a seller's public keys, without a database."""
    decode = msgspec.json.Decoder(Line).decode
    chain: Chain | None = None
    for text in lines:
        try:
            line = decode(text)
            event = bytes(line.event)
            named = msgspec.json.decode(event, type=_Named | None)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            chain = chain or Chain("", keys)
            why = "this line is none of an export"
            return chain.report(Fault(chain.good + 1, None, "unreadable", why))
        if chain is None:
            chain = Chain(named.tenant_id if named else "", keys, kept=kept)
        link = Link(
            seq=line.seq,
            event_id=named.id if named else None,
            digest=line.digest,
            hash=line.hash,
            signature=line.signature,
            signing_key_id=line.signing_key_id,
            event=event if named else None,
        )
        if (fault := chain.follow(link)) is not None:
            return chain.report(fault)
    chain = chain or Chain("", keys, kept=kept)
    return chain.report(chain.finish())
