"""Checkouts and payments over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.house import House
from counterfoil.http.access import Asker, check_rate, house_of, public_scope, scope_of
from counterfoil.http.buying import NewCheckout, Purchase, keys_of, open_for, read_purchase
from counterfoil.http.idempotency import inner_key_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import checkouts, payments
from counterfoil.sales.types import Checkout, CheckoutStatus, Payment
from counterfoil.settlement import settle


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
    return msgspec.structs.replace(
        checkout_view(purchase.checkout),
        claim=house.claims.make(tenant, purchase.checkout.id),
        order_id=purchase.order.id if purchase.order else None,
        license_keys=await keys_of(house, tenant, purchase),
    )


@post("/v1/checkouts", **route("public", 404, 409, 502, 503, repeats="joined"))
async def create_checkout(request: Asker, data: JSONBody[NewCheckout]) -> CheckoutView:
    """Price a cart and open a checkout for it. Send the buyer to ``url``; keep ``claim`` for them."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    checkout = await open_for(house_of(request), scope, data, inner_key_of(request))
    purchase = await scope.read(read_purchase, checkout.id)
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


@get("/v1/claims/{claim:str}", **route("public", 404))
async def get_claim(request: Asker, claim: FromPath[str]) -> CheckoutView:
    """One checkout, for the buyer who holds its claim, with the license keys once it is paid."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    house = house_of(request)
    checkout_id = house.claims.read(scope.tenant, claim)
    if checkout_id is None:
        raise NotFound("There is no such purchase.", code="checkout_not_found")
    return await view_for_buyer(house, scope.tenant, await scope.read(read_purchase, checkout_id))


@get("/v1/payments", **route("payments:read"))
async def list_payments(
    request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT, attention: FromQuery[bool] = False
) -> Page[Payment]:
    """Payments, oldest first; with ``attention`` only those a person has yet to resolve."""
    return await scope_of(request).read(payments.list_, attention=attention, after=start(after), limit=limit)


@get("/v1/payments/{payment_id:str}", **route("payments:read", 404))
async def get_payment(request: Asker, payment_id: FromPath[str]) -> Payment:
    """One payment."""
    return await scope_of(request).read(payments.get, payment_id)


class ResolvePayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person decided: accept (give what was bought all the same) or dismiss (seen to elsewhere)."""

    resolution: Literal["accepted", "dismissed"]
    note: str = ""


@post("/v1/payments/{payment_id:str}/resolve", status_code=200, **route("payments:write", 404, 409))
async def resolve_payment(request: Asker, payment_id: FromPath[str], data: JSONBody[ResolvePayment]) -> Payment:
    """Resolve a payment that was short, over, late or unmatched."""
    if len(data.note) > 2000 or "\x00" in data.note:
        raise Invalid.field("note", "at most 2000 characters, none of them NUL")
    op = settle.accept if data.resolution == "accepted" else settle.dismiss
    return await scope_of(request).run(op, payment_id, note=data.note)


sales = Router(
    path="/",
    tags=["Sales"],
    route_handlers=[
        create_checkout,
        list_checkouts,
        get_checkout,
        get_claim,
        list_payments,
        get_payment,
        resolve_payment,
    ],
)
