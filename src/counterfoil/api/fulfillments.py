"""Parcels of an order over HTTP."""

from __future__ import annotations

from litestar import Router, get, patch, post
from litestar.params import FromPath, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.sales import fulfillments
from counterfoil.sales.fulfillments import FulfillmentView, NewFulfillment, Tracking


@post("/v1/orders/{order_id:str}/fulfillments", **route("orders:write", 404, 409))
async def create_fulfillment(
    request: Asker, order_id: FromPath[str], data: JSONBody[NewFulfillment]
) -> FulfillmentView:
    """Pack a parcel; the order's parcels together never hold more than the order."""
    return await scope_of(request).run(fulfillments.create, order_id, data)


@get("/v1/orders/{order_id:str}/fulfillments", **route("orders:read", 404))
async def list_fulfillments(
    request: Asker, order_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[FulfillmentView]:
    """The parcels of an order, oldest first."""
    return await scope_of(request).read(fulfillments.list_, order_id, after=start(after), limit=limit)


@get("/v1/fulfillments/{fulfillment_id:str}", **route("orders:read", 404))
async def get_fulfillment(request: Asker, fulfillment_id: FromPath[str]) -> FulfillmentView:
    """One parcel."""
    return await scope_of(request).read(fulfillments.get, fulfillment_id)


@patch("/v1/fulfillments/{fulfillment_id:str}", **route("orders:write", 404, 409))
async def track_fulfillment(request: Asker, fulfillment_id: FromPath[str], data: JSONBody[Tracking]) -> FulfillmentView:
    """Say who carries a parcel and how it is followed."""
    return await scope_of(request).run(fulfillments.track, fulfillment_id, data)


@post("/v1/fulfillments/{fulfillment_id:str}/ship", status_code=200, **route("orders:write", 404, 409))
async def ship_fulfillment(request: Asker, fulfillment_id: FromPath[str], data: JSONBody[Tracking]) -> FulfillmentView:
    """A parcel has left."""
    return await scope_of(request).run(fulfillments.ship, fulfillment_id, data)


@post("/v1/fulfillments/{fulfillment_id:str}/deliver", status_code=200, **route("orders:write", 404, 409))
async def deliver_fulfillment(request: Asker, fulfillment_id: FromPath[str]) -> FulfillmentView:
    """A parcel has arrived."""
    return await scope_of(request).run(fulfillments.deliver, fulfillment_id)


@post("/v1/fulfillments/{fulfillment_id:str}/cancel", status_code=200, **route("orders:write", 404, 409))
async def cancel_fulfillment(request: Asker, fulfillment_id: FromPath[str]) -> FulfillmentView:
    """A parcel does not leave after all."""
    return await scope_of(request).run(fulfillments.cancel, fulfillment_id)


fulfillments_router = Router(
    path="/",
    tags=["Orders"],
    route_handlers=[
        create_fulfillment,
        list_fulfillments,
        get_fulfillment,
        track_fulfillment,
        ship_fulfillment,
        deliver_fulfillment,
        cancel_fulfillment,
    ],
)
