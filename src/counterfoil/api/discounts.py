"""Discounts over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.api.catalog import After, Limit, start
from counterfoil.catalog import discounts
from counterfoil.catalog.discount_rules import DiscountChanges, NewDiscount
from counterfoil.catalog.types import CatalogStatus, Discount
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.settlement import quoting
from counterfoil.settlement.quoting import CodeQuestion, CodeVerdict

Code = Annotated[str | None, QueryParameter(max_length=100, description="Only the one with this code.")]
Group = Annotated[str | None, QueryParameter(max_length=100, description="Only those of this group.")]


@get("/v1/discounts", **route("discounts:read"))
async def list_discounts(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    code: Code = None,
    group_id: Group = None,
    status: FromQuery[CatalogStatus | None] = None,
    auto_apply: FromQuery[bool | None] = None,
) -> Page[Discount]:
    """Discounts, oldest first: all, or those that all these words are true of."""
    return await scope_of(request).read(
        discounts.list_,
        code=code,
        group_id=group_id,
        status=status,
        auto_apply=auto_apply,
        after=start(after),
        limit=limit,
    )


@post("/v1/discounts", **route("discounts:write", 404, 409))
async def create_discount(request: Asker, data: JSONBody[NewDiscount]) -> Discount:
    """Make a discount."""
    return await scope_of(request).run(discounts.create, data)


@post("/v1/discounts/validate", status_code=200, **route("discounts:read", 404, 409))
async def validate_discount(request: Asker, data: JSONBody[CodeQuestion]) -> CodeVerdict:
    """Say what a code would take off, or why it cannot be used. Nothing is reserved."""
    return await scope_of(request).read(quoting.judge, data)


@get("/v1/discounts/{discount_id:str}", **route("discounts:read", 404))
async def get_discount(request: Asker, discount_id: FromPath[str]) -> Discount:
    """One discount."""
    return await scope_of(request).read(discounts.get, discount_id)


@patch("/v1/discounts/{discount_id:str}", **route("discounts:write", 404, 409))
async def update_discount(request: Asker, discount_id: FromPath[str], data: JSONBody[DiscountChanges]) -> Discount:
    """Change a discount; what is left out stays. Who was quoted it keeps it."""
    return await scope_of(request).run(discounts.update, discount_id, data)


discounts_router = Router(
    path="/",
    tags=["Catalog"],
    route_handlers=[list_discounts, create_discount, validate_discount, get_discount, update_discount],
)
