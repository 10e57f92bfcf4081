"""Quoting, as the API and the commands share it: from lines to a saved price, and back to it by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.access import Asker, check_origin, find_identity, house_of
from counterfoil.http.buying import NewCheckout
from counterfoil.http.idempotency import shaped
from counterfoil.kernel.errors import NotFound
from counterfoil.sales import carts
from counterfoil.sales.quotes import CartWithLines, WantedLine
from counterfoil.settlement import quoting
from counterfoil.settlement.checkout import FREE
from counterfoil.settlement.quoting import WantedQuote

V = TypeVar("V")


class NewCart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a buyer wants to know the price of."""

    lines: list[WantedLine]
    rail: str | None = None
    """What it will be paid on. Without one, nothing that is for some rails only comes off."""
    code: str | None = None
    email: str | None = None
    country: str | None = None
    metadata: dict[str, Any] = {}


class NewCustomerCart(NewCart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, and who buys."""

    customer_id: str | None = None


async def quote_for(
    house: House, scope: Scope, wanted: NewCart, shape: Callable[[CartWithLines], V], *, customer_id: str | None = None
) -> V:
    """Price a cart and save it; the cart as ``shape`` shows it.

    ``customer_id``: who buys, where the caller may buy for them. Raises NotFound for the rail, and what
    :func:`~counterfoil.settlement.quoting.quote` raises.
    """
    asked = await _wanted(house, scope, wanted, customer_id)
    if scope.once is not None:
        return await scope.run(shaped(quoting.quote, shape), asked)
    # Quotes enter no record, so whose they are need not be told apart: all that wait go together.
    return shape(await house.scope(scope.tenant).coalesce(quoting.quote_each, asked))


async def quote_all(
    house: House, scope: Scope, wanted: Sequence[NewCustomerCart], shape: Callable[[list[CartWithLines]], V]
) -> V:
    """Price and save carts, all or none; the carts as ``shape`` shows them.

    Raises what :func:`~counterfoil.settlement.quoting.quote_many` raises.
    """
    asked = [await _wanted(house, scope, one, one.customer_id) for one in wanted[: carts.MOST_AT_ONCE + 1]]
    return await scope.run(shaped(quoting.quote_many, shape), asked)


async def _wanted(house: House, scope: Scope, wanted: NewCart, customer_id: str | None) -> WantedQuote:
    takes = None
    if wanted.rail not in {None, FREE}:
        connection = await house.rails.get(scope.tenant, wanted.rail)
        takes = connection.rail.assets(connection.settings)
    return WantedQuote(
        **{name: getattr(wanted, name) for name in NewCart.__struct_fields__},
        customer_id=customer_id,
        rail_assets=takes,
        holds_for=house.settings.quote_lasts,
    )


async def named_cart(request: Asker, scope: Scope, wanted: NewCheckout) -> NewCheckout:
    """The checkout that is wanted, with the id of its cart and the rail that was priced for.

    A cart is named by its claim, which only its buyer has, or by its id for who may ``checkouts:write``.
    Raises NotFound (``cart_not_found``).
    """
    if wanted.cart_id is None:
        return wanted
    cart_id = house_of(request).claims.read_cart(scope.tenant, wanted.cart_id)
    if cart_id is None:
        identity = await find_identity(request, request.path_params.get("customer_id"))
        if identity is None or identity.tenant != scope.tenant or "checkouts:write" not in identity.held:
            raise NotFound("There is no such cart.", code="cart_not_found")
        if identity.session_id is not None:
            check_origin(request)
        cart_id = wanted.cart_id
    if wanted.rail is not None:
        return msgspec.structs.replace(wanted, cart_id=cart_id)
    found = await scope.read(carts.get, cart_id)
    return msgspec.structs.replace(wanted, cart_id=cart_id, rail=found.cart.rail)
