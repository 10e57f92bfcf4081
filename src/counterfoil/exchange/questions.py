"""News that its rail has to be asked about: taken in first, asked after, so that webhooks are answered at once."""

from __future__ import annotations

from counterfoil.db.base import DatabaseUnavailable, Scope
from counterfoil.exchange import inbox
from counterfoil.exchange.client import RailClient, follow
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.exchange.types import InboxEntry
from counterfoil.exchange.webhooks import on_dispute
from counterfoil.kernel.errors import Conflict, CounterfoilError, NotFound
from counterfoil.kernel.text import clean_line
from counterfoil.logs import get_logger
from counterfoil.rails.base import BadSignature, Notice, RailRefused, RailUnavailable
from counterfoil.settlement.settle import Settlement

_log = get_logger(__name__)


async def ask_due(scope: Scope, rails: Rails, client: RailClient) -> int:
    """Ask the rails about the news that waits for it; how much took effect."""
    done = 0
    for entry in await scope.read(inbox.due):
        try:
            done += await _work(scope, rails, client, entry)
        except DatabaseUnavailable:
            raise
        except inbox.TooEarly as error:
            await scope.run(inbox.wait_for_payment, entry, _said(error.detail))
        except CounterfoilError as error:
            await scope.run(inbox.fail, entry, _said(f"{error.code}: {error.detail}"))
        except (RailUnavailable, NotFound) as error:
            await scope.run(inbox.postpone, entry, _said(str(error)))
        except Exception as error:  # noqa: BLE001 # whatever it is, the others have their turn
            _log.exception("news cannot be applied", rail=entry.rail, news=entry.event_id)
            await scope.run(inbox.fail, entry, _said(f"{type(error).__name__}: {error}"))
    return done


async def replay(scope: Scope, rails: Rails, client: RailClient, entry_id: str) -> Settlement | None:
    """Read news that was kept once more, ask its rail where needed, and apply it; None when it took effect before.

    Raises NotFound; Conflict (``news_not_understood``) for a type that we still do not know; what does not fit our
    books; RailUnavailable.
    """
    entry = await scope.read(inbox.get, entry_id)
    if entry.status == "applied":
        return None
    connection = await rails.get(scope.tenant, entry.rail)
    news = await _read(scope, connection, client, entry)
    return await scope.run(inbox.replay, entry.id, news)


async def _work(scope: Scope, rails: Rails, client: RailClient, entry: InboxEntry) -> bool:
    try:
        connection = await rails.get(scope.tenant, entry.rail)
    except NotFound as error:
        await scope.run(inbox.postpone, entry, error.detail)
        return False
    news = await _read(scope, connection, client, entry)
    return await scope.run(inbox.replay, entry.id, news) is not None


async def _read(scope: Scope, connection: Connection, client: RailClient, entry: InboxEntry) -> inbox.News:
    """Kept news, with the answer to its question."""
    rail, settings = connection
    body = (entry.body or "").encode()
    now = scope.database.clock.now()
    try:
        notice: Notice = rail.read_event(settings, body)
        if notice.question is not None:
            notice = await follow(
                client, notice.question, lambda response: rail.read_answer(settings, body, response, now)
            )
    except BadSignature as error:
        raise Conflict(f"It cannot be read: {error}", code="news_not_understood") from error
    except RailRefused as error:
        raise Conflict(f"{entry.rail}: {error}", code="news_not_understood") from error
    if not notice.is_known:
        raise Conflict(notice.problem or f"We do not know news of type {notice.type}.", code="news_not_understood")
    return inbox.News(entry.rail, notice, notice.report, body, on_dispute(connection))


def _said(words: str) -> str:
    return clean_line(" ".join(words.split()), most=500)
