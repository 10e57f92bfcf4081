"""Buying, as the API and the pages share it: from a wish to a checkout, and from a checkout to its keys."""

from __future__ import annotations

from typing import Any

import msgspec

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange.checkouts import open_on_rail
from counterfoil.exchange.rails import HOSTED_LASTS, RENEWING
from counterfoil.house import House
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.licensing import licenses
from counterfoil.licensing.types import License
from counterfoil.sales import checkouts, orders
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.shipping import ShippingAddress
from counterfoil.sales.types import Checkout, Order
from counterfoil.settlement.checkout import FREE, OpenCheckout


class NewCheckout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a buyer wants, and how they want to pay."""

    lines: list[WantedLine] = []
    cart_id: str | None = None
    """A saved quote, by its claim, instead of lines: sold at its price for as long as it holds."""
    rail: str | None = None
    """May be left out where only one rail is connected."""
    code: str | None = None
    email: str | None = None
    note: str | None = None
    country: str | None = None
    return_url: str | None = None
    shipping: ShippingAddress | None = None
    """Where goods go; asked for when there are any."""
    metadata: dict[str, Any] = {}


class Purchase(msgspec.Struct, frozen=True):
    """A checkout with everything that came of it."""

    checkout: Checkout
    order: Order | None
    licenses: list[License]


def read_purchase(tx: Tx, checkout_id: str) -> Purchase:
    """A checkout, its order and its licenses. Raises NotFound."""
    checkout = checkouts.get(tx, checkout_id)
    order = orders.of_checkout(tx, checkout_id) if checkout.status == "settled" else None
    return Purchase(checkout, order, licenses.of_order(tx, order.id) if order else [])


async def purchase_of(scope: Scope, checkout: Checkout) -> Purchase:
    """A checkout that was just read, with everything that came of it."""
    if checkout.status != "settled":
        return Purchase(checkout, None, [])
    return await scope.read(read_purchase, checkout.id)


async def keys_of(house: House, tenant: str, purchase: Purchase) -> list[str]:
    """The keys a purchase shows: of licenses that are active, for as long as its claim lasts."""
    settled_at = purchase.checkout.settled_at
    if settled_at is None or house.database.clock.now() >= settled_at + house.settings.claim_lasts:
        return []
    ring = await house.keyring(tenant)
    if any(not ring.knows(license_.signing_key_id) for license_ in purchase.licenses):
        ring = await house.keyring(tenant, doubt=True)
    return [ring.key_of(license_) for license_ in purchase.licenses if license_.status == "active"]


async def open_for(
    house: House,
    scope: Scope,
    wanted: NewCheckout,
    key: str | None,
    *,
    must_be_free: bool = False,
    customer_id: str | None = None,
) -> Checkout:
    """Open a checkout on the rail that is named, or the only one there is.

    ``customer_id``: who buys, where the caller may buy for them.
    Raises what :func:`~counterfoil.exchange.checkouts.open_on_rail` raises.
    """
    rail = FREE if wanted.rail == FREE else await house.rails.choose(scope.tenant, wanted.rail)
    takes = None
    if rail is not None and rail != FREE:
        connection = await house.rails.get(scope.tenant, rail)
        takes = connection.rail.assets(connection.settings)
    base = await house.base_url(scope.tenant)
    request = OpenCheckout(
        **{name: getattr(wanted, name) for name in NewCheckout.__struct_fields__ if name != "rail"},
        rail=rail or FREE,
        rail_assets=takes,
        rail_renews=rail in RENEWING,
        customer_id=customer_id,
        idempotency_key=key,
        holds_for=max(house.settings.quote_lasts, HOSTED_LASTS) if rail in RENEWING else house.settings.quote_lasts,
        must_be_free=must_be_free,
    )
    try:
        return await open_on_rail(
            scope,
            house.rails,
            house.client,
            house.turns,
            house.pusher,
            request,
            return_url=lambda checkout_id: f"{base}/thanks/{checkout_id}",
        )
    except Invalid as error:
        if rail is None and error.code == "rail_required":  # without a rail, only what is free can be had
            raise NotFound("No rail is connected yet.", code="rail_not_connected") from error
        raise
