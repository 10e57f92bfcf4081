"""Asking the rails that keep copies: about subscriptions of which nothing was heard, and for news that never came."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Final

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import inbox, rail_settings
from counterfoil.exchange.catching_up import catch_up
from counterfoil.exchange.outbox import MIRRORED
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import CounterfoilError, NotFound
from counterfoil.logs import get_logger
from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.rails.facts import SubscriptionFact
from counterfoil.settlement import links, subscribing
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.types import Subscription

LATE: Final = timedelta(hours=1)
"""So long after a bill was due its subscription is asked about when nothing was heard."""
SILENT: Final = timedelta(hours=24)
"""A subscription of which nothing was heard for so long is asked about."""
QUIET: Final = timedelta(hours=1)
"""A rail whose last webhook is older is asked for its events."""
AT_LEAST: Final = timedelta(hours=24)
"""How often every rail is asked for its events, however much its webhooks bring."""
_AT_ONCE: Final = 100

_log = get_logger(__name__)


async def reconcile_mirrors(scope: Scope, rails: Rails, pusher: Pusher) -> int:
    """Ask every connected rail that keeps copies; how many subscriptions were asked about and news taken in."""
    done = 0
    for name in MIRRORED:
        try:
            connection = await rails.get(scope.tenant, name)
        except NotFound:
            continue
        try:
            asked, missed = await _ask_about_all(scope, connection, pusher)
            done += asked
            if missed or await _is_quiet(scope, name):
                done += await catch_up(scope, rails, pusher, name)
        except (RailUnavailable, RailRefused) as error:  # the next run asks again
            _log.warning("rail unavailable", rail=name, why=str(error))
    return done


async def _ask_about_all(scope: Scope, connection: Connection, pusher: Pusher) -> tuple[int, bool]:
    """How many subscriptions were asked about, and whether one was not as we had it: then news was missed."""
    now = scope.database.clock.now()
    due = await scope.read(
        subscriptions.quiet, connection.rail.name, checked_before=now - SILENT, due_before=now - LATE, limit=_AT_ONCE
    )
    missed = False
    for subscription in due:
        try:
            missed = await ask_about(scope, connection, pusher, subscription) or missed
        except RailUnavailable:
            # To the end of the line: should the rail make no sense about it alone, the others have their turn.
            await scope.run(subscriptions.mark_checked, subscription.id)
            raise
        except (RailRefused, CounterfoilError) as error:
            await scope.run(subscriptions.mark_checked, subscription.id)
            _log.warning(
                "a subscription could not be checked",
                rail=connection.rail.name,
                subscription=subscription.id,
                why=str(error),
            )
    return len(due), missed


async def ask_about(scope: Scope, connection: Connection, pusher: Pusher, subscription: Subscription) -> bool:
    """Have the rail say how a subscription is, and take that into the books; whether it was otherwise there.

    Raises RailRefused, RailUnavailable, and Conflict for what does not fit our books.
    """
    mirror, settings = connection.mirror, connection.settings
    known = await scope.read(links.get, connection.rail.name, "subscription", subscription.id)
    if known is None:  # its checkout is asked about
        await scope.run(subscriptions.mark_checked, subscription.id)
        return False
    request = mirror.subscription_request(settings, known.reference)
    fact = await pusher.ask(scope, connection, request, functools.partial(mirror.read_subscription, settings))
    return await scope.run(_take, connection.rail.name, subscription.id, fact)


def _take(tx: Tx, rail: str, subscription_id: str, fact: SubscriptionFact) -> bool:
    before = subscriptions.lock(tx, subscription_id)
    subscribing.apply(tx, rail, fact)
    after = subscriptions.get(tx, subscription_id)
    return (before.status, before.current_period_end) != (after.status, after.current_period_end)


async def _is_quiet(scope: Scope, rail: str) -> bool:
    """Whether it is time to ask a rail for its events."""
    now = scope.database.clock.now()
    row = await scope.read(rail_settings.load, rail)
    if row is None:
        return False
    caught_up = row.caught_up_at or row.created_at
    if caught_up > now - QUIET:
        return False
    if caught_up <= now - AT_LEAST:
        return True
    last = await scope.read(inbox.last, rail, before=now)
    return last is None or last.created_at <= now - QUIET
