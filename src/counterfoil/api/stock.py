"""Stock over HTTP: how much there is, and what checkouts hold of it."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.catalog import stock
from counterfoil.catalog.types import ReservationStatus, StockItem, StockPolicy, StockReservation
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.http.stock_taking import reconcile_stock
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


class StockView(msgspec.Struct, frozen=True):
    """How much there is of a product, or of one of its prices. ``available`` is what nobody holds."""

    id: str
    product_id: str
    price_id: str | None
    on_hand: int
    reserved: int
    available: int
    policy: StockPolicy
    created_at: datetime
    updated_at: datetime


class SetStock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is on the shelf; what is left out stays. ``on_hand`` is needed to begin counting."""

    price_id: str | None = None
    on_hand: int | None = None
    policy: StockPolicy | None = None


class AdjustStock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many came or went, and why."""

    by: int
    price_id: str | None = None
    reason: str = ""


class ReconcileStock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether what is found wrong is to be corrected."""

    fix: bool = False


class DriftView(msgspec.Struct, frozen=True):
    """An item whose ``reserved`` is not what checkouts hold of it (``held``), and whether it is now."""

    stock_item_id: str
    product_id: str
    price_id: str | None
    on_hand: int
    reserved: int
    held: int
    fixed: bool


def _view(item: StockItem) -> StockView:
    return StockView(
        item.id,
        item.product_id,
        item.price_id,
        item.on_hand,
        item.reserved,
        item.on_hand - item.reserved,
        item.policy,
        item.created_at,
        item.updated_at,
    )


@get("/v1/stock", **route("stock:read", 404))
async def list_stock(
    request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT, product: FromQuery[str | None] = None
) -> Page[StockView]:
    """Everything that is counted, oldest first; of one product (by slug or id) and its prices, or all."""
    page = await scope_of(request).read(stock.list_, product=product, after=start(after), limit=limit)
    return Page([_view(item) for item in page.data], page.next)


@get("/v1/stock/{stock_item_id:str}", **route("stock:read", 404))
async def get_stock(request: Asker, stock_item_id: FromPath[str]) -> StockView:
    """One stock item."""
    return _view(await scope_of(request).read(stock.get, stock_item_id))


@get("/v1/stock/{stock_item_id:str}/reservations", **route("stock:read", 404))
async def list_reservations(
    request: Asker,
    stock_item_id: FromPath[str],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[ReservationStatus | None] = None,
) -> Page[StockReservation]:
    """What checkouts hold or held of it, oldest first."""
    return await scope_of(request).read(
        stock.reservations, stock_item_id, status=status, after=start(after), limit=limit
    )


@put("/v1/products/{product:str}/stock", **route("stock:write", 404, 409))
async def set_stock(request: Asker, product: FromPath[str], data: JSONBody[SetStock]) -> StockView:
    """Say how much there is of a product (by slug or id), or of one of its prices."""
    item = await scope_of(request).run(
        stock.set_, product, price_id=data.price_id, on_hand=data.on_hand, policy=data.policy
    )
    return _view(item)


@post("/v1/products/{product:str}/stock/adjust", status_code=200, **route("stock:write", 404, 409))
async def adjust_stock(request: Asker, product: FromPath[str], data: JSONBody[AdjustStock]) -> StockView:
    """Add to what there is, or take from it."""
    adjust = shaped(stock.adjust, _view)
    return await scope_of(request).run(adjust, product, by=data.by, reason=data.reason, price_id=data.price_id)


@delete("/v1/products/{product:str}/stock", status_code=200, **route("stock:write", 404))
async def untrack_stock(request: Asker, product: FromPath[str], price_id: FromQuery[str | None] = None) -> StockView:
    """Count it no longer: it never runs out. The answer is what was counted last."""
    return _view(await scope_of(request).run(stock.untrack, product, price_id=price_id))


@post("/v1/stock/reconcile", status_code=200, **route("stock:write"))
async def reconcile(request: Asker, data: JSONBody[ReconcileStock]) -> list[DriftView]:
    """Find items whose ``reserved`` is not what open checkouts hold, and correct them where ``fix`` says so."""
    return [
        DriftView(
            drift.item.id,
            drift.item.product_id,
            drift.item.price_id,
            drift.item.on_hand,
            drift.item.reserved,
            drift.held,
            drift.fixed,
        )
        for drift in await reconcile_stock(scope_of(request), fix=data.fix)
    ]


stock_router = Router(
    path="/",
    tags=["Stock"],
    route_handlers=[
        list_stock,
        get_stock,
        list_reservations,
        set_stock,
        adjust_stock,
        untrack_stock,
        reconcile,
    ],
)
