"""Comparing a rail's copies with what they are copies of, one by one, as far as the rail tells.

Nothing is changed there: what differs is written down at its link, and pushing it again is ``sync retry``'s.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import copies, subjects
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.rails.base import RailRefused
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Subject
from counterfoil.settlement import links
from counterfoil.settlement.types import RailLink

MOST_SHOWN: Final = 1000
_PAGE: Final = 100
_ONE_BY_ONE: Final = frozenset({"address", "business"})
"""Kinds of which the rails have no list over all customers."""


class Difference(msgspec.Struct, frozen=True):
    """One copy that is not as it should be."""

    kind: str
    object_id: str
    reference: str
    fields: list[str]
    """What is not as ours; empty where the copy is missing there."""


class KindCompared(msgspec.Struct):
    """How one kind of copies compares."""

    kind: str
    in_step: int = 0
    different: int = 0
    missing: int = 0
    """Linked by us, and not there."""
    owed: int = 0
    """Changed here and not sent yet, so that nothing can be said."""
    not_ours: int = 0
    """There, and none of ours."""


class Comparison(msgspec.Struct):
    """How a rail compares with us."""

    rail: str
    kinds: list[KindCompared]
    differences: list[Difference]
    """The first :data:`MOST_SHOWN` of them."""
    truncated: bool = False


async def compare(
    scope: Scope, rails: Rails, pusher: Pusher, rail: str, on_seen: Callable[[int], None] = lambda _: None
) -> Comparison:
    """Look at all copies of a rail, and note at each link whether it is in step.

    Raises NotFound (also ``rail_keeps_no_copies``); RailRefused, RailUnavailable.
    """
    connection = await rails.get(scope.tenant, rail, fresh=True)
    result = Comparison(rail, [], [])
    seen = 0
    for kind in connection.mirror.mirrors:
        counts = KindCompared(kind)
        result.kinds.append(counts)
        began = scope.database.clock.now()
        pages = _one_by_one if kind in _ONE_BY_ONE else _pages
        async for asked, page in pages(scope, pusher, connection, kind):
            found = await scope.run(_compare_page, rail, connection, kind, page, asked)
            _count(result, counts, found)
            seen += len(page)
            on_seen(seen)
        last = ""
        while unseen := await scope.run(_note_missing, rail, kind, began, last):
            last = unseen[-1].link_id
            _count(result, counts, unseen)
    return result


class _Found(msgspec.Struct, frozen=True):
    link_id: str
    verdict: str | None
    """What it counts as; None: it was counted, or there is nothing to count."""
    difference: Difference | None = None


def _count(result: Comparison, counts: KindCompared, found: list[_Found]) -> None:
    for one in found:
        if one.verdict is not None:
            setattr(counts, one.verdict, getattr(counts, one.verdict) + 1)
        if one.difference is None:
            continue
        if len(result.differences) < MOST_SHOWN:
            result.differences.append(one.difference)
        else:
            result.truncated = True


async def _pages(
    scope: Scope, pusher: Pusher, connection: Connection, kind: Any
) -> AsyncIterator[tuple[datetime, list[RailCopy]]]:
    """All of a kind that the rail has, and when it was asked."""
    mirror, settings = connection.mirror, connection.settings
    after: str | None = None
    while True:
        asked = scope.database.clock.now()
        request = mirror.list_request(settings, kind, after)
        page, after = await pusher.ask(scope, connection, request, functools.partial(mirror.read_list, settings, kind))
        yield asked, list(page)
        if after is None:
            return


async def _one_by_one(
    scope: Scope, pusher: Pusher, connection: Connection, kind: Any
) -> AsyncIterator[tuple[datetime, list[RailCopy]]]:
    """All of a kind that we know of; what is not there any more is left out."""
    mirror, settings, rail = connection.mirror, connection.settings, connection.rail.name
    last = ""
    while known := await scope.read(links.page, rail, kind, after=last, limit=_PAGE):
        last = known[-1].id
        for link in known:
            subject = await scope.read(subjects.read, rail, kind, link.object_id)
            if subject is None or isinstance(subject, subjects.Missing):
                continue
            asked = scope.database.clock.now()
            request = mirror.get_request(settings, kind, link.reference, subject)
            try:
                copy = await pusher.ask(scope, connection, request, functools.partial(mirror.read_copy, settings, kind))
            except RailRefused:
                continue
            yield asked, [copy]


def _compare_page(
    tx: Tx, rail: str, connection: Connection, kind: Any, page: list[RailCopy], asked: datetime
) -> list[_Found]:
    ours = {link.reference: link for link in links.of_references(tx, rail, kind, [copy.reference for copy in page])}
    found = []
    for copy in page:
        link = ours.get(copy.reference)
        found.append(_Found("", "not_ours") if link is None else _compare(tx, rail, connection, link, copy, asked))
    return found


def _compare(tx: Tx, rail: str, connection: Connection, link: RailLink, copy: RailCopy, asked: datetime) -> _Found:
    subject = subjects.read(tx, rail, link.kind, link.object_id)
    if subject is None:
        return _Found(link.id, "not_ours")
    if isinstance(subject, subjects.Missing):
        return _Found(link.id, "owed")
    if link.pending_since is not None or link.updated_at > asked:
        return _Found(link.id, "owed")  # what the rail said may be from before a change
    fields = _differences(connection, subject, copy)
    links.sync(tx, link, "different" if fields else "synced")
    if not fields:
        return _Found(link.id, "in_step")
    return _Found(link.id, "different", Difference(link.kind, link.object_id, link.reference, fields))


def _differences(connection: Connection, subject: Subject, copy: RailCopy) -> list[str]:
    try:
        return copies.differences(connection.mirror, connection.settings, subject, copy)
    except RailRefused as error:  # ours has become what the rail cannot represent
        return [str(error)]


def _note_missing(tx: Tx, rail: str, kind: Any, began: datetime, after: str) -> list[_Found]:
    """A page of what the rail did not show, though it has or had a copy of it."""
    found = []
    for link in links.unheard(tx, rail, kind, before=began, after=after, limit=_PAGE):
        if copies.is_gone(link) or link.pending_since is not None or link.updated_at > began:
            found.append(_Found(link.id, None))
            continue
        links.sync(tx, link, "different")
        found.append(_Found(link.id, "missing", Difference(link.kind, link.object_id, link.reference, [])))
    return found
