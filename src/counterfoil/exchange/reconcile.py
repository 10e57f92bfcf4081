"""Asking rails about checkouts whose end we have not heard."""

from __future__ import annotations

from datetime import timedelta

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange.checkouts import find_on_rail
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.rails import RAILS, Connection, Rails
from counterfoil.exchange.webhooks import ask
from counterfoil.kernel.errors import NotFound
from counterfoil.logs import get_logger
from counterfoil.rails.base import CheckoutReport, RailRefused, RailUnavailable
from counterfoil.sales import checkouts
from counterfoil.sales.types import Checkout
from counterfoil.settlement.settle import settle

QUIET = timedelta(minutes=1)
"""A checkout that its rail spoke of within this long is not asked about."""

_log = get_logger(__name__)


async def reconcile(scope: Scope, rails: Rails, client: RailClient) -> int:
    """Ask every connected rail about what is unsettled; how many checkouts were asked about."""
    asked = 0
    for name in RAILS:
        try:
            connection = await rails.get(scope.tenant, name)
        except NotFound:
            continue
        before = scope.database.clock.now() - QUIET
        for checkout in await scope.read(checkouts.unsettled, name, checked_before=before):
            try:
                await _ask_about(scope, connection, client, checkout)
            except RailUnavailable as error:
                # The others would meet the same; the next run asks again. This one goes to the end of the line:
                # should the rail make no sense about it alone, it must not keep the others from their turn.
                await scope.run(checkouts.mark_checked, checkout.id, done=False)
                _log.warning("rail unavailable", rail=name, checkout=checkout.id, why=str(error))
                break
            asked += 1
    return asked


async def _ask_about(scope: Scope, connection: Connection, client: RailClient, checkout: Checkout) -> None:
    reference = checkout.rail_reference
    try:
        if reference is None:
            found = await find_on_rail(connection, client, checkout.id)
            if found is not None:
                await scope.run(checkouts.attach, checkout.id, reference=found.reference, url=found.url)
                reference = found.reference
        report = await ask(connection, client, reference) if reference is not None else None
    except RailRefused as error:
        _log.warning("rail knows no such checkout", rail=checkout.rail, checkout=checkout.id, why=str(error))
        report = None
    await scope.run(_take, checkout.id, report)


def _take(tx: Tx, checkout_id: str, report: CheckoutReport | None) -> None:
    if report is not None:
        settle(tx, report)
    checkouts.mark_checked(tx, checkout_id, done=report is None)
