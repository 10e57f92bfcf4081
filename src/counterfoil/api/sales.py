"""Checkouts over HTTP."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.access import Asker, check_rate, house_of, public_scope, scope_of
from counterfoil.http.buying import NewCheckout, Purchase, keys_of, open_for, purchase_of, read_purchase
from counterfoil.http.idempotency import inner_key_of, shaped
from counterfoil.http.problems import route
from counterfoil.http.quoting import named_cart
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import checkouts
from counterfoil.sales.types import Checkout, CheckoutStatus
from counterfoil.settlement.checkout import cancel


class CheckoutView(msgspec.Struct, frozen=True):
    """A checkout. ``claim`` is the buyer's secret: whoever holds it sees what was bought."""

    id: str
    status: CheckoutStatus
    rail: str
    url: str | None
    amount: int
    asset: str
    paid: int
    email: str | None
    expires_at: datetime
    settled_at: datetime | None
    created_at: datetime
    claim: str | msgspec.UnsetType = msgspec.UNSET
    order_id: str | msgspec.UnsetType | None = msgspec.UNSET
    license_keys: list[str] | msgspec.UnsetType = msgspec.UNSET


def checkout_view(checkout: Checkout) -> CheckoutView:
    """What staff sees of a checkout."""
    return CheckoutView(
        checkout.id,
        checkout.status,
        checkout.rail,
        checkout.url or None,
        checkout.amount,
        checkout.asset,
        checkout.paid,
        checkout.email,
        checkout.expires_at,
        checkout.settled_at,
        checkout.created_at,
    )


async def view_for_buyer(house: House, tenant: str, purchase: Purchase) -> CheckoutView:
    """What the holder of the claim sees."""
    return _view_for_buyer(house, tenant, purchase, await keys_of(house, tenant, purchase))


def _view_for_buyer(house: House, tenant: str, purchase: Purchase, license_keys: list[str]) -> CheckoutView:
    return msgspec.structs.replace(
        checkout_view(purchase.checkout),
        claim=house.claims.make(tenant, purchase.checkout.id),
        order_id=purchase.order.id if purchase.order else None,
        license_keys=license_keys,
    )


@post("/v1/checkouts", **route("public", 401, 403, 404, 409, 502, 503, repeats="joined"))
async def create_checkout(request: Asker, data: JSONBody[NewCheckout]) -> CheckoutView:
    """Price a cart, or take a saved one, and open a checkout. Send the buyer to ``url``; keep ``claim`` for them."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    wanted = await named_cart(request, scope, data)
    checkout = await open_for(house_of(request), scope, wanted, inner_key_of(request))
    purchase = await purchase_of(scope, checkout)
    return await view_for_buyer(house_of(request), scope.tenant, purchase)


@get("/v1/checkouts", **route("checkouts:read"))
async def list_checkouts(
    request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT, status: FromQuery[CheckoutStatus | None] = None
) -> Page[CheckoutView]:
    """Checkouts, oldest first."""
    page = await scope_of(request).read(checkouts.list_, status=status, after=start(after), limit=limit)
    return Page([checkout_view(checkout) for checkout in page.data], page.next)


@get("/v1/checkouts/{checkout_id:str}", **route("checkouts:read", 404))
async def get_checkout(request: Asker, checkout_id: FromPath[str]) -> CheckoutView:
    """One checkout, for staff."""
    return checkout_view(await scope_of(request).read(checkouts.get, checkout_id))


@post("/v1/checkouts/{checkout_id:str}/cancel", status_code=200, **route("checkouts:write", 404, 409))
async def cancel_checkout(request: Asker, checkout_id: FromPath[str]) -> CheckoutView:
    """Call off a checkout that nobody has paid; what it held is for others to buy."""
    return await scope_of(request).run(shaped(cancel, checkout_view), checkout_id)


@get("/v1/claims/{claim:str}", **route("public", 404))
async def get_claim(request: Asker, claim: FromPath[str]) -> CheckoutView:
    """One checkout, for the buyer who holds its claim, with the license keys once it is paid."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    checkout_id = _claimed(request, scope, claim)
    return await view_for_buyer(house_of(request), scope.tenant, await scope.read(read_purchase, checkout_id))


def _claimed(request: Asker, scope: Scope, claim: str) -> str:
    """The checkout a claim is about. Raises NotFound."""
    checkout_id = house_of(request).claims.read(scope.tenant, claim)
    if checkout_id is None:
        raise NotFound("There is no such purchase.", code="checkout_not_found")
    return checkout_id


@post("/v1/claims/{claim:str}/cancel", status_code=200, **route("public", 404, 409))
async def cancel_claim(request: Asker, claim: FromPath[str]) -> CheckoutView:
    """Call off one's own checkout before it is paid."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    checkout_id = _claimed(request, scope, claim)
    house = house_of(request)

    def view(canceled: Checkout) -> CheckoutView:  # what is canceled bought nothing
        return _view_for_buyer(house, scope.tenant, Purchase(canceled, None, []), [])

    return await scope.run(shaped(cancel, view), checkout_id)


sales = Router(
    path="/",
    tags=["Sales"],
    route_handlers=[
        create_checkout,
        list_checkouts,
        get_checkout,
        cancel_checkout,
        get_claim,
        cancel_claim,
    ],
)
