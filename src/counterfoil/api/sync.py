"""Rails' copies and rails' news over HTTP: what is owed to them, and what of theirs has not taken effect."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery

from counterfoil.api.catalog import After, Limit, start
from counterfoil.db.tx import Tx
from counterfoil.exchange import inbox, outbox, questions, syncing
from counterfoil.exchange.inbox import InboxStatus
from counterfoil.exchange.outbox import RailSync
from counterfoil.exchange.syncing import OwedView
from counterfoil.exchange.types import InboxEntry
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import RailFailed, Unavailable
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.rails.base import RailRefused, RailUnavailable


class Retried(msgspec.Struct, frozen=True):
    """How much is tried again."""

    count: int


class News(msgspec.Struct, frozen=True):
    """News from a rail that has not taken effect."""

    id: str
    rail: str
    event_id: str
    type: str
    status: str
    occurred_at: datetime
    error: str | None
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime


class Replayed(msgspec.Struct, frozen=True):
    """Whether it took effect now; it did before otherwise."""

    id: str
    new: bool


def _view(entry: InboxEntry) -> News:
    return News(*[getattr(entry, name) for name in News.__struct_fields__])


def _retry(tx: Tx, rail: str) -> Retried:
    return Retried(syncing.retry(tx, rail))


@get("/v1/sync", **route("rails:read"))
async def show_sync(request: Asker) -> list[RailSync]:
    """How far each rail that keeps copies is in step."""
    return await scope_of(request).read(outbox.status)


@get("/v1/sync/owed", **route("rails:read"))
async def list_owed(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[OwedView]:
    """What is owed, in doubt or refused, oldest first."""
    return await scope_of(request).read(syncing.list_owed, after=start(after), limit=limit)


@post("/v1/sync/{rail:str}/retry", status_code=200, **route("rails:write"))
async def retry_sync(request: Asker, rail: FromPath[str]) -> Retried:
    """Try all that is owed to a rail again now, what it refused and what differs there, too."""
    scope = scope_of(request)
    done = await scope.run(_retry, rail)
    house_of(request).push(scope.tenant)
    return done


@get("/v1/inbox", **route("rails:read"))
async def list_inbox(
    request: Asker, status: FromQuery[InboxStatus | None] = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[News]:
    """News that waits, that we do not know, or that was set aside; oldest first."""
    page = await scope_of(request).read(inbox.list_, status=status, after=start(after), limit=limit)
    return Page([_view(entry) for entry in page.data], page.next)


@get("/v1/inbox/{news_id:str}", **route("rails:read", 404))
async def get_news(request: Asker, news_id: FromPath[str]) -> InboxEntry:
    """One piece of news, with what the rail sent where it has not taken effect."""
    return await scope_of(request).read(inbox.get, news_id)


@post("/v1/inbox/{news_id:str}/replay", status_code=200, **route("rails:write", 404, 409, 502, 503))
async def replay_news(request: Asker, news_id: FromPath[str]) -> Replayed:
    """Apply news that was kept, now."""
    house = house_of(request)
    try:
        done = await questions.replay(scope_of(request), house.rails, house.client, news_id)
    except RailUnavailable as error:
        raise Unavailable(f"The rail cannot be asked about it now: {error}", code="rail_unavailable") from error
    except RailRefused as error:
        raise RailFailed(str(error)) from error
    return Replayed(news_id, done is not None)


sync_router = Router(
    path="/",
    tags=["Rails"],
    route_handlers=[show_sync, list_owed, retry_sync, list_inbox, get_news, replay_news],
)
