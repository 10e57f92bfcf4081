"""Products, prices and benefits over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.catalog import benefits, prices, products, shelf
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.prices import NewPrice, PriceChanges
from counterfoil.catalog.products import NewProduct, Offer, ProductChanges
from counterfoil.catalog.shelf import ShelfPrice, ShelfProduct
from counterfoil.catalog.types import Benefit, CatalogStatus, Price, Product
from counterfoil.http.access import Asker, find_identity, public_scope, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Forbidden, NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, decode_cursor

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many rows a page has at most.")]
After = Annotated[str | None, QueryParameter(max_length=300, description="The `next` of the page before.")]


def start(after: str | None) -> str:
    """The id after which a page begins. Raises Invalid for a cursor that is not ours."""
    return str(decode_cursor(after, (str,))[0]) if after else ""


class PublicBenefit(msgspec.Struct, frozen=True):
    """A promise as a buyer sees it."""

    tier: str
    kind: str
    spec: dict[str, Any]


class ProductView(msgspec.Struct, frozen=True):
    """A product with what a buyer needs to know. ``metadata`` is for keys with ``products:read`` only."""

    id: str
    slug: str
    name: str
    description: str
    image_url: str | None
    tax_category: str
    status: CatalogStatus
    created_at: datetime
    prices: list[ShelfPrice]
    benefits: list[PublicBenefit]
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def _view(offer: Offer, *, staff: bool) -> ProductView:
    product = offer.product
    return ProductView(
        product.id,
        product.slug,
        product.name,
        product.description,
        product.image_url,
        product.tax_category,
        product.status,
        product.created_at,
        [shelf_price(price) for price in offer.prices],
        [PublicBenefit(one.tier, one.kind, one.spec) for one in offer.benefits],
        product.metadata if staff else msgspec.UNSET,
    )


def shelf_price(price: Price) -> ShelfPrice:
    """What a buyer may see of a price."""
    return ShelfPrice(*[getattr(price, name) for name in ShelfPrice.__struct_fields__])


async def _is_staff(request: Asker, tenant: str) -> bool:
    identity = await find_identity(request)
    return identity is not None and identity.tenant == tenant and "products:read" in identity.held


@get("/v1/products", **route("public", 401, 403, 404))
async def list_products(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[CatalogStatus] = "active",
) -> Page[ShelfProduct]:
    """Products with their active prices, oldest first. Archived ones need a key with ``products:read``."""
    scope = await public_scope(request)
    if status != "active" and not await _is_staff(request, scope.tenant):
        raise Forbidden("Only a key with the scope products:read sees archived products.", code="missing_scope")
    return await scope.read(shelf.list_, after=start(after), limit=limit, status=status)


@get("/v1/products/{product:str}", **route("public", 401, 404))
async def get_product(request: Asker, product: FromPath[str]) -> ProductView:
    """One product, by slug or id, with its active prices and what it promises."""
    scope = await public_scope(request)
    staff = "authorization" in request.headers and await _is_staff(request, scope.tenant)
    offer = await scope.read(products.offer, product)
    if offer.product.status != "active" and not staff:
        raise NotFound("There is no such product.", code="product_not_found")
    return _view(offer, staff=staff)


@post("/v1/products", **route("products:write", 409))
async def create_product(request: Asker, data: JSONBody[NewProduct]) -> Product:
    """Make a product."""
    return await scope_of(request).run(products.create, data)


@patch("/v1/products/{product:str}", **route("products:write", 404))
async def update_product(request: Asker, product: FromPath[str], data: JSONBody[ProductChanges]) -> Product:
    """Change a product; what is left out stays."""
    return await scope_of(request).run(products.update, product, data)


@get("/v1/products/{product:str}/prices", **route("products:read", 404))
async def list_product_prices(
    request: Asker, product: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[Price]:
    """Every price a product has or had, oldest first."""
    return await scope_of(request).read(prices.list_, product=product, after=start(after), limit=limit)


@post("/v1/products/{product:str}/prices", **route("products:write", 404))
async def create_price(request: Asker, product: FromPath[str], data: JSONBody[NewPrice]) -> Price:
    """Make a price for a product."""
    return await scope_of(request).run(prices.create, product, data)


@get("/v1/prices", **route("products:read"))
async def list_prices(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[Price]:
    """Every price of every product, oldest first."""
    return await scope_of(request).read(prices.list_, after=start(after), limit=limit)


@get("/v1/prices/{price_id:str}", **route("products:read", 404))
async def get_price(request: Asker, price_id: FromPath[str]) -> Price:
    """One price."""
    return await scope_of(request).read(prices.get, price_id)


@patch("/v1/prices/{price_id:str}", **route("products:write", 404, 409))
async def update_price(request: Asker, price_id: FromPath[str], data: JSONBody[PriceChanges]) -> Price:
    """Change a price. Once it was quoted, new terms make a new price: look at the answer's ``id``."""
    return await scope_of(request).run(prices.update, price_id, data)


@get("/v1/products/{product:str}/benefits", **route("products:read", 404))
async def list_benefits(request: Asker, product: FromPath[str]) -> list[Benefit]:
    """What each tier of a product promises."""
    return await scope_of(request).read(benefits.list_, product)


@put("/v1/products/{product:str}/benefits", **route("products:write", 404))
async def put_benefit(request: Asker, product: FromPath[str], data: JSONBody[BenefitTerms]) -> Benefit:
    """Set what a tier of a product promises to later buyers."""
    return await scope_of(request).run(benefits.put, product, data)


@delete("/v1/benefits/{benefit_id:str}", status_code=200, **route("products:write", 404))
async def remove_benefit(request: Asker, benefit_id: FromPath[str]) -> Benefit:
    """Promise it no longer."""
    return await scope_of(request).run(benefits.remove, benefit_id)


catalog = Router(
    path="/",
    tags=["Catalog"],
    route_handlers=[
        list_products,
        get_product,
        create_product,
        update_product,
        list_product_prices,
        create_price,
        list_prices,
        get_price,
        update_price,
        list_benefits,
        put_benefit,
        remove_benefit,
    ],
)
