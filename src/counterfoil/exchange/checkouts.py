"""Opening a checkout on its rail: our row first, then the rail, then the rail's answer in our row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from counterfoil.catalog.stock_reservations import OutOfStock
from counterfoil.db.base import Scope
from counterfoil.exchange import intents
from counterfoil.exchange.client import RailClient, follow
from counterfoil.exchange.outbox import MIRRORED
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import RailFailed, Unavailable
from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutIntent, HttpRequest, OpenedCheckout, RailRefused, RailUnavailable
from counterfoil.sales import checkouts
from counterfoil.sales.types import Checkout
from counterfoil.settlement.checkout import LostRace, OpenCheckout, Opened, give_up, look, open_checkout

_RACES = 5
_AT_ONCE = 64
_DOUBT_SECONDS = 5.0
_MOST_DOUBTS = 10_000


class Turns:
    """Lets so many buyers at a time to the database, and has those look first who want what ran out a moment ago.

    So in a rush on the last units most buyers cost one look that they share, not a transaction each, and hear
    soon that they were too late. Whether they were is the database's word, and never remembered.
    """

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._ran_out: dict[tuple[str, str], float] = {}

    async def open(self, scope: Scope, wanted: OpenCheckout) -> Opened:
        """Open a checkout in our books. Raises what :func:`open_checkout` raises."""
        async with self._gate:
            if self._in_doubt(scope.tenant, wanted):
                await scope.database.scope(scope.tenant).coalesce(look, wanted)
            try:
                return await _written(scope, wanted)
            except OutOfStock:
                self._doubt(scope.tenant, wanted)
                raise

    def _in_doubt(self, tenant: str, wanted: OpenCheckout) -> bool:
        if not self._ran_out or wanted.idempotency_key is not None:  # which may have its checkout already
            return False
        now = time.monotonic()
        return any(self._ran_out.get((tenant, line.price_id), 0) > now for line in wanted.lines)

    def _doubt(self, tenant: str, wanted: OpenCheckout) -> None:
        if len(self._ran_out) > _MOST_DOUBTS:
            self._ran_out.clear()
        until = time.monotonic() + _DOUBT_SECONDS
        self._ran_out.update({(tenant, line.price_id): until for line in wanted.lines})


async def open_on_rail(
    scope: Scope,
    rails: Rails,
    client: RailClient,
    turns: Turns,
    pusher: Pusher,
    wanted: OpenCheckout,
    *,
    return_url: Callable[[str], str],
) -> Checkout:
    """Open a checkout and get the address where it is paid; free ones come back settled.

    ``return_url`` gives the page to come back to for a checkout's id. Raises what
    :func:`open_checkout` raises; RailFailed when the rail refuses; Unavailable when its answer is
    unknown: asking again with the same idempotency key finds out and goes on.
    """
    opened = await turns.open(scope, wanted)
    checkout = opened.checkout
    if checkout.url is not None or checkout.status != "open":
        return checkout
    connection = await rails.get(scope.tenant, checkout.rail)
    intent = CheckoutIntent(
        checkout_id=checkout.id,
        amount=Money(checkout.amount, checkout.asset),
        description=opened.description,
        email=checkout.email,
        return_url=checkout.return_url or return_url(checkout.id),
        now=scope.database.clock.now(),
        expires_at=checkout.expires_at,
    )
    try:
        if checkout.rail in MIRRORED:
            intent = await intents.with_copies(scope, pusher, checkout, intent)
        answer = await ask_rail(connection, client, intent, may_exist=not opened.is_new)
    except RailFailed as error:  # a copy that it needs; but an earlier attempt may have opened it
        if opened.is_new:
            await scope.run(give_up, checkout.id, why=error.detail)
        raise
    except RailRefused as error:
        await scope.run(give_up, checkout.id, why=str(error))
        raise RailFailed(f"{checkout.rail}: {error}") from error
    except RailUnavailable as error:
        raise Unavailable(
            f"{checkout.rail} did not answer; repeat the request with the same Idempotency-Key.",
            code="rail_unavailable",
        ) from error
    return await scope.run(checkouts.attach, checkout.id, reference=answer.reference, url=answer.url)


async def _written(scope: Scope, wanted: OpenCheckout) -> Opened:
    for _ in range(_RACES):
        try:
            return await scope.run(open_checkout, wanted)
        except LostRace:
            continue
    raise LostRace("Another request with this Idempotency-Key is in progress.")


async def ask_rail(
    connection: Connection, client: RailClient, intent: CheckoutIntent, *, may_exist: bool
) -> OpenedCheckout:
    """Have the rail open a checkout, unless it has. Raises RailRefused, RailUnavailable."""
    rail, settings = connection
    if may_exist:
        found = await find_on_rail(connection, client, intent.checkout_id)
        if found is not None:
            return found
    request = rail.open_request(settings, intent)
    if isinstance(request, HttpRequest):
        return rail.read_opened(settings, await client.send(request))
    return request


async def find_on_rail(connection: Connection, client: RailClient, checkout_id: str) -> OpenedCheckout | None:
    """What the rail knows of our checkout. Raises RailRefused, RailUnavailable."""
    rail, settings = connection
    lookup = rail.find_request(settings, checkout_id)
    if lookup is None:
        return None
    return await follow(client, lookup, lambda response: rail.read_found(settings, response, checkout_id))
