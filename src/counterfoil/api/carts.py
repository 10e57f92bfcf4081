"""Priced carts over HTTP: a quote now, to be checked out while it holds."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, check_rate, house_of, public_scope, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.http.quoting import NewCart, NewCustomerCart, quote_all, quote_for
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.kernel.text import check_line
from counterfoil.sales import carts
from counterfoil.sales.quotes import CartWithLines
from counterfoil.sales.types import CartStatus

_MOST_PAYER = 500

Ids = Annotated[
    str | None,
    QueryParameter(max_length=4000, description="Only these, in this order: up to 100, commas between."),
]
PaidBy = Annotated[
    str,
    QueryParameter(name="paid_by", min_length=1, max_length=_MOST_PAYER, description="A customer's id, or a payer."),
]


class DiscountedBy(msgspec.Struct, frozen=True):
    """What one discount takes off a line."""

    discount_id: str
    code: str | None
    amount: int


class CartLineView(msgspec.Struct, frozen=True):
    """One line, as it was quoted."""

    product_id: str
    price_id: str
    tier: str
    name: str
    quantity: int
    unit_amount: int
    subtotal: int
    discount_total: int
    total: int
    discounts: list[DiscountedBy]
    metadata: dict[str, Any]


class CartView(msgspec.Struct, frozen=True):
    """A priced cart. ``claim`` is the buyer's name for it: with it they read it, and check it out."""

    id: str
    status: CartStatus
    customer_id: str | None
    asset: str
    subtotal: int
    discount_total: int
    tax_total: int
    total: int
    country: str | None
    rail: str | None
    code: str | None
    email: str | None
    paid_by: str | None
    paid_at: datetime | None
    expires_at: datetime
    metadata: dict[str, Any]
    created_at: datetime
    lines: list[CartLineView]
    claim: str


_OWN = [name for name in CartView.__struct_fields__ if name not in {"lines", "claim"}]
_OF_LINE = [name for name in CartLineView.__struct_fields__ if name != "discounts"]


def _view(request: Asker, tenant: str, found: CartWithLines) -> CartView:
    lines = [
        CartLineView(
            **{name: getattr(line, name) for name in _OF_LINE},
            discounts=[DiscountedBy(**note) for note in line.discounts],
        )
        for line in found.lines
    ]
    claim = house_of(request).claims.make(tenant, found.cart.id)
    return CartView(**{name: getattr(found.cart, name) for name in _OWN}, lines=lines, claim=claim)


@post("/v1/carts", **route("public", 404))
async def create_cart(request: Asker, data: JSONBody[NewCart]) -> CartView:
    """Price a cart, and hold the price for a while. Check it out with ``cart_id`` set to the ``claim``."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    return await quote_for(house_of(request), scope, data, partial(_view, request, scope.tenant))


@post("/v1/customers/{customer_id:str}/carts", **route("checkouts:write", 404, 409))
async def create_customer_cart(request: Asker, customer_id: FromPath[str], data: JSONBody[NewCart]) -> CartView:
    """Price a cart for a customer, with its margin taken off, and hold the price for a while."""
    scope = scope_of(request)
    view = partial(_view, request, scope.tenant)
    return await quote_for(house_of(request), scope, data, view, customer_id=customer_id)


class NewCarts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Carts to price together: up to 100."""

    carts: list[NewCustomerCart]


class CartList(msgspec.Struct, frozen=True):
    """The carts, in the order in which they were asked for."""

    data: list[CartView]


@post("/v1/carts/batch", **route("carts:write", 404, 409))
async def create_carts(request: Asker, data: JSONBody[NewCarts]) -> CartList:
    """Price carts together: all are saved, or none."""
    scope = scope_of(request)

    def view(made: list[CartWithLines]) -> CartList:
        return CartList([_view(request, scope.tenant, one) for one in made])

    return await quote_all(house_of(request), scope, data.carts, view)


@get("/v1/carts", **route("carts:read"))
async def list_carts(
    request: Asker, ids: Ids = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[CartView]:
    """Carts, oldest first; or those with these ids, without the ones there are not."""
    scope = scope_of(request)
    if ids is not None:
        page = Page(await scope.read(carts.get_many, [id_.strip() for id_ in ids.split(",") if id_.strip()]))
    else:
        page = await scope.read(carts.list_, after=start(after), limit=limit)
    return Page([_view(request, scope.tenant, one) for one in page.data], page.next)


@get("/v1/carts/{cart_id:str}", **route("carts:read", 404))
async def get_cart(request: Asker, cart_id: FromPath[str]) -> CartView:
    """One cart, for staff."""
    scope = scope_of(request)
    return _view(request, scope.tenant, await scope.read(carts.get, cart_id))


@get("/v1/cart-claims/{claim:str}", **route("public", 404))
async def get_cart_claim(request: Asker, claim: FromPath[str]) -> CartView:
    """One cart, for the buyer who holds its claim."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    cart_id = house_of(request).claims.read_cart(scope.tenant, claim)
    if cart_id is None:
        raise NotFound("There is no such cart.", code="cart_not_found")
    return _view(request, scope.tenant, await scope.read(carts.get, cart_id))


class PaidElsewhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who paid, where this program saw nothing of it: a customer's id, or any name of a payer."""

    paid_by: str


@post("/v1/carts/{cart_id:str}/paid", status_code=200, **route("carts:write", 404, 409))
async def mark_cart_paid(request: Asker, cart_id: FromPath[str], data: JSONBody[PaidElsewhere]) -> CartView:
    """Say that a cart was paid elsewhere. It makes no order; money that still comes for it waits for a person."""
    paid_by = check_line("paid_by", data.paid_by, least=1, most=_MOST_PAYER)
    scope = scope_of(request)
    mark = shaped(carts.mark_paid, lambda done: _view(request, scope.tenant, done))
    return await scope.run(mark, cart_id, paid_by)


class CartAccess(msgspec.Struct, frozen=True):
    """Whether this payer paid for the cart."""

    has_access: bool


@get("/v1/carts/{cart_id:str}/access", **route("carts:read", 404))
async def get_cart_access(request: Asker, cart_id: FromPath[str], paid_by: PaidBy) -> CartAccess:
    """Whether somebody paid for a cart."""
    if not paid_by.isprintable():
        raise Invalid.field("paid_by", "must not contain control characters")
    return CartAccess(await scope_of(request).read(carts.has_access, cart_id, paid_by))


carts_router = Router(
    path="/",
    tags=["Sales"],
    route_handlers=[
        create_cart,
        create_customer_cart,
        create_carts,
        list_carts,
        get_cart,
        get_cart_claim,
        mark_cart_paid,
        get_cart_access,
    ],
)
