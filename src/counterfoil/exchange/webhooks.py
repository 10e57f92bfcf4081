"""Webhooks in: verify, ask the rail where the news proves nothing by itself, then apply in one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil.db.base import Scope
from counterfoil.exchange import inbox
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import CounterfoilError, Unauthorized, Unavailable
from counterfoil.logs import get_logger
from counterfoil.rails.base import BadSignature, CheckoutReport, Notice, RailRefused, RailUnavailable
from counterfoil.sales.types import GrantsPolicy
from counterfoil.settlement import disputing
from counterfoil.settlement.settle import Settlement

_log = get_logger(__name__)


async def receive(
    scope: Scope, rails: Rails, client: RailClient, name: str, headers: Mapping[str, str], body: bytes
) -> Settlement | None:
    """Take one delivery in; None when its news was applied before.

    Raises NotFound (the rail is not connected); Unauthorized (``bad_signature``); Unavailable when the
    rail cannot be asked now: a 5xx, so that the rail delivers again.
    """
    connection, notice = await _verified(scope, rails, name, headers, body)
    report = notice.report
    if report is None and notice.reference is not None and notice.question is None and notice.is_known:
        if await scope.read(inbox.seen, name, notice.event_id):
            return None
        try:
            report = await ask(connection, client, notice.reference)
        except RailRefused:
            report = None  # the rail itself knows nothing of it, so there is nothing to believe
        except RailUnavailable as error:
            raise Unavailable(f"{name} cannot be asked about this now.", code="rail_unavailable") from error
    return await take(scope, inbox.News(name, notice, report, body, on_dispute(connection)))


async def take(scope: Scope, news: inbox.News) -> Settlement | None:
    """Take in news that is the rail's; None when it was taken in before. What does not fit our books is set aside."""
    try:
        return await scope.coalesce(inbox.apply_many, news)
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 # what the rail has said and we cannot take is kept, whatever it is
        # Delivered again it would fit no better, and the rail would give up one day: a person looks.
        why = f"{error.code}: {error.detail}" if isinstance(error, CounterfoilError) else type(error).__name__
        _log.exception("news was set aside", rail=news.rail, news=news.notice.event_id, type=news.notice.type)
        await scope.run(inbox.set_aside, news, why)
        return Settlement("waiting", None)


def on_dispute(connection: Connection) -> GrantsPolicy:
    """What becomes of grants while a dispute is open, by the rail's settings."""
    policy: GrantsPolicy = getattr(connection.settings, "on_dispute", disputing.POLICY)
    return policy


async def _verified(
    scope: Scope, rails: Rails, name: str, headers: Mapping[str, str], body: bytes
) -> tuple[Connection, Notice]:
    now = scope.database.clock.now()
    connection = await rails.get(scope.tenant, name)
    try:
        return connection, connection.rail.read_webhook(connection.settings, headers, body, now)
    except BadSignature:
        # The secret may have been changed by another process since we looked.
        latest = await rails.get(scope.tenant, name, fresh=True)
        if latest.settings == connection.settings:
            raise Unauthorized("The webhook's signature is not valid.", code="bad_signature") from None
    try:
        return latest, latest.rail.read_webhook(latest.settings, headers, body, now)
    except BadSignature:
        raise Unauthorized("The webhook's signature is not valid.", code="bad_signature") from None


async def ask(connection: Connection, client: RailClient, reference: str) -> CheckoutReport | None:
    """Everything the rail says of a checkout now; None where it cannot be asked.

    Raises RailRefused, RailUnavailable.
    """
    rail, settings = connection
    requests = rail.report_requests(settings, reference)
    if not requests:
        return None
    responses = tuple([await client.send(request) for request in requests])
    return rail.read_report(settings, responses)
