"""What a rail needs beside its copies to sell at other terms: made there when a sale first needs it.

No row of ours keeps what a rail calls a variant: it is asked each time, which is one request more for those sales
that take one. So there is nothing to keep in step, and an answer that was lost leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import copies, subjects
from counterfoil.exchange.rails import Connection
from counterfoil.kernel.errors import RailFailed
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Discount, Price, RailBusy, Rhythm
from counterfoil.sales import carts, checkouts, quotes
from counterfoil.subscriptions import subscriptions

R = TypeVar("R")


class Asker(Protocol):
    """Whoever can ask a rail within its limits (:class:`~counterfoil.exchange.pusher.Pusher`)."""

    def ask(
        self, scope: Scope, connection: Connection, request: HttpRequest, read: Callable[[HttpResponse], R]
    ) -> Awaitable[R]:
        """Raises RailBusy, RailUnavailable and what reading does."""
        ...


class Named(NamedTuple):
    """What a rail calls something for a sale."""

    reference: str
    is_variant: bool


async def price(
    asker: Asker, scope: Scope, connection: Connection, price_id: str, copy: str, unit_amount: int
) -> Named:
    """The rail's name for a price that is sold at this amount; ``copy``: its name for the copy.

    Raises RailFailed, RailRefused, RailBusy, RailUnavailable.
    """
    subject = await _subject(scope, connection, "price", price_id)
    variant = connection.mirror.price_variant(connection.settings, subject, unit_amount)
    return Named(copy, False) if variant is None else Named(await _ensure(asker, scope, connection, variant), True)


async def discount(
    asker: Asker, scope: Scope, connection: Connection, discount_id: str, copy: str, rhythm: Rhythm
) -> str:
    """The rail's name for a discount that lasts as it says on a subscription so paid. Raises as :func:`price`."""
    subject = await _subject(scope, connection, "discount", discount_id)
    variant = connection.mirror.discount_variant(connection.settings, subject, rhythm)
    return copy if variant is None else await _ensure(asker, scope, connection, variant)


async def check_discount(scope: Scope, connection: Connection, discount_id: str, rhythm: Rhythm) -> None:
    """Raise RailRefused when the discount cannot last as it says on a subscription so paid; nothing is asked there."""
    terms = await scope.read(subjects.discount_terms, discount_id)
    if terms is not None:
        connection.mirror.discount_variant(connection.settings, terms, rhythm)


async def _subject(scope: Scope, connection: Connection, kind: str, object_id: str) -> Any:
    found = await scope.read(subjects.read, connection.rail.name, kind, object_id)
    if found is None or isinstance(found, subjects.Missing):
        raise RailFailed(f"{connection.rail.name} has no copy of this {kind}.")
    return found


async def _ensure(asker: Asker, scope: Scope, connection: Connection, variant: Price | Discount) -> str:
    found = await _find(asker, scope, connection, variant)
    if found is None:
        try:
            return (await _make(asker, scope, connection, variant)).reference
        except RailBusy:
            raise
        except (RailRefused, RailUnavailable):
            # Its answer was lost, or another sale made it in this moment: then it is there now.
            found = await _find(asker, scope, connection, variant)
            if found is None:
                raise
    if not copies.is_in_step(connection.mirror, connection.settings, variant, found):
        await _update(asker, scope, connection, variant, found.reference)
    return found.reference


async def _find(asker: Asker, scope: Scope, connection: Connection, variant: Price | Discount) -> RailCopy | None:
    mirror, settings = connection.mirror, connection.settings
    request = mirror.find_copy_request(settings, variant)
    return await asker.ask(
        scope, connection, request, lambda response: mirror.read_found_copy(settings, variant, response)
    )


async def _make(asker: Asker, scope: Scope, connection: Connection, variant: Price | Discount) -> RailCopy:
    """The same key for the same words: of two sales at once, the rail makes it for one, and answers both."""
    mirror, settings = connection.mirror, connection.settings
    said = hashlib.sha256(mirror.create_request(settings, variant, "").body).hexdigest()[:16]
    request = mirror.create_request(settings, variant, f"{variant.id}-{said}")
    return await asker.ask(scope, connection, request, lambda response: _read(connection, variant, response))


async def _update(
    asker: Asker, scope: Scope, connection: Connection, variant: Price | Discount, reference: str
) -> None:
    """What somebody changed there follows us again, as a copy does."""
    key = f"{variant.id}-{secrets.token_hex(8)}"
    request = connection.mirror.update_request(connection.settings, variant, reference, key)
    if request is not None:
        await asker.ask(scope, connection, request, lambda response: _read(connection, variant, response))


def _read(connection: Connection, variant: Price | Discount, response: HttpResponse) -> RailCopy:
    kind: Any = "price" if isinstance(variant, Price) else "discount"
    return connection.mirror.read_copy(connection.settings, kind, response)


def amounts(tx: Tx, subscription_id: str, price_ids: Iterable[str]) -> dict[str, int]:
    """What prices cost the customer of a subscription: those that cost something else than everywhere in some country.

    The country is the one that the subscription was sold for, else that of the customer's first address.
    """
    offers = quotes.offers_of(tx, price_ids)
    by_country = {name: offer.price for name, offer in offers.items() if offer.price.country_overrides}
    if not by_country:
        return {}
    country = _country(tx, subscription_id)
    return {name: quotes.unit_amount(one, country) for name, one in by_country.items()}


def _country(tx: Tx, subscription_id: str) -> str | None:
    found = subscriptions.get(tx, subscription_id)
    if found.checkout_id is not None:
        country = carts.get(tx, checkouts.get(tx, found.checkout_id).cart_id).cart.country
        if country is not None:
            return country
    return None if found.customer_id is None else subjects.country_of(tx, found.customer_id)
