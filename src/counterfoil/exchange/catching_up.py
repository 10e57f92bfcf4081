"""Reading a rail's own list of events, for those whose webhooks never came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from counterfoil.db.base import Scope
from counterfoil.exchange import inbox, rail_settings
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.exchange.webhooks import on_dispute, take
from counterfoil.kernel.errors import NotFound
from counterfoil.logs import get_logger
from counterfoil.rails.base import BadSignature, Notice, RailRefused

OVERLAP = timedelta(minutes=10)
"""What happened so long before the last time is read again: a rail may list an event some moments late."""
_AT_ONCE = 50

_log = get_logger(__name__)


async def catch_up(
    scope: Scope,
    rails: Rails,
    pusher: Pusher,
    rail: str,
    *,
    since: datetime | None = None,
    show: Callable[[int], None] = lambda _: None,
) -> int:
    """Take in what a rail's list of events has and webhooks did not bring; how many pieces of news.

    ``since``: from then on; else from where the last time ended, at first from when the rail was connected. ``show``
    is told how many events were read. Raises NotFound; RailRefused, RailUnavailable.
    """
    connection = await rails.get(scope.tenant, rail)
    mirror, settings = connection.mirror, connection.settings
    row = await scope.read(rail_settings.load, rail)
    if row is None:
        raise NotFound("This rail is not connected.", code="rail_not_connected")
    now = scope.database.clock.now()
    start = since if since is not None else row.caught_up_at or row.created_at
    start = min(start, now) - OVERLAP
    known = await scope.read(inbox.last, rail, before=start)
    after = known.event_id if known is not None else None
    read, done = 0, 0
    while True:
        request = mirror.events_request(settings, after, start)
        try:
            bodies, more = await pusher.ask(
                scope, connection, request, lambda response: mirror.read_events(settings, response)
            )
        except RailRefused:
            if known is None or after != known.event_id:
                raise
            known = after = None  # the rail does not keep that event any more: from its oldest, then
            continue
        done += await _take_page(scope, connection, bodies, start)
        read += len(bodies)
        show(read)
        if more is None:
            break
        after = more
    if start <= (row.caught_up_at or row.created_at):  # without a gap since the last time
        await scope.run(rail_settings.caught_up, rail, at=now)
    return done


async def _take_page(scope: Scope, connection: Connection, bodies: Sequence[bytes], start: datetime) -> int:
    """Take in those that are news; how many."""
    notices = [(body, notice) for body in bodies if (notice := _read(connection, body)) and notice.occurred_at >= start]
    rail = connection.rail.name
    seen = await scope.read(inbox.seen_of, rail, [notice.event_id for _, notice in notices]) if notices else set()
    fresh = [
        inbox.News(rail, notice, notice.report, body, on_dispute(connection))
        for body, notice in notices
        if notice.event_id not in seen
    ]
    done = 0
    for first in range(0, len(fresh), _AT_ONCE):
        taken = await asyncio.gather(*[take(scope, news) for news in fresh[first : first + _AT_ONCE]])
        done += sum(one is not None for one in taken)
    return done


def _read(connection: Connection, body: bytes) -> Notice | None:
    """What an event says; None for what no webhook of ours would have brought."""
    try:
        notice = connection.rail.read_event(connection.settings, body)
    except BadSignature as error:
        _log.warning("the rail's list has what is no event", rail=connection.rail.name, why=str(error))
        return None
    return notice if notice.is_known or notice.problem is not None else None
