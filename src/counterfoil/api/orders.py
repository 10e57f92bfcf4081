"""Orders over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from counterfoil.api.catalog import After, Limit, start
from counterfoil.db.tx import Tx
from counterfoil.exchange.rails import RAILS
from counterfoil.http.access import Asker, scope_of
from counterfoil.http.problems import route
from counterfoil.idempotency.handling import Told
from counterfoil.kernel.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from counterfoil.licensing import licenses
from counterfoil.sales import fulfillments, order_export, order_history, order_search, orders
from counterfoil.sales.fulfillments import FulfillmentView
from counterfoil.sales.order_imports import NewOrder
from counterfoil.sales.order_search import Count, Direction, Filter
from counterfoil.sales.types import Order, OrderHistoryEntry, OrderStatus
from counterfoil.settlement.imports import import_order

Statuses = Annotated[
    list[OrderStatus] | None, QueryParameter(name="status", max_items=9, description="In one of these. Repeatable.")
]
Search = Annotated[
    str | None,
    QueryParameter(max_length=255, description="An order's id, purchase reference, or how its e-mail address begins."),
]
PartiallyRefunded = Annotated[bool, QueryParameter(description="Only those of whose amount a part went back.")]
CreatedAfter = Annotated[datetime | None, QueryParameter(description="At this moment or later.")]
CreatedBefore = Annotated[datetime | None, QueryParameter(description="Before this moment.")]
Email = Annotated[str | None, QueryParameter(max_length=255, description="Of exactly this address.")]
Whose = Annotated[str | None, QueryParameter(max_length=255, description="Of this customer.")]


class OrderView(msgspec.Struct, frozen=True):
    """An order, the licenses it gave, its first 100 steps and its first 100 parcels."""

    id: str
    source: str
    purchase_reference: str
    checkout_id: str | None
    subscription_id: str | None
    customer_id: str | None
    user_id: str | None
    status: OrderStatus
    items: list[dict[str, Any]]
    amount: int
    refunded: int
    asset: str
    discount_total: int
    tax_total: int
    email: str | None
    shipping: dict[str, Any] | None
    metadata: dict[str, Any]
    status_updated_at: datetime | None
    created_at: datetime
    updated_at: datetime
    license_ids: list[str]
    history: list[OrderHistoryEntry]
    fulfillments: list[FulfillmentView]


class OrderPage(msgspec.Struct, frozen=True):
    """Some orders; ``next`` is the cursor of the following page, null on the last. ``total`` if it was asked for."""

    data: list[Order]
    next: str | None
    total: Count | msgspec.UnsetType = msgspec.UNSET


class StatusChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an order is to go, and why."""

    status: OrderStatus
    note: str = ""


def order_view(tx: Tx, order: Order) -> OrderView:
    """An order with what hangs on it."""
    return OrderView(
        **{name: getattr(order, name) for name in order.__struct_fields__},
        license_ids=[license_.id for license_ in licenses.of_order(tx, order.id)],
        history=order_history.of_order(tx, order.id, limit=MAX_LIMIT).data,
        fulfillments=fulfillments.of_order(tx, order.id, limit=MAX_LIMIT).data,
    )


def _read(tx: Tx, order_id: str) -> OrderView:
    return order_view(tx, orders.get(tx, order_id))


def _advance(tx: Tx, order_id: str, change: StatusChange) -> OrderView:
    return order_view(tx, orders.advance(tx, order_id, change.status, note=change.note))


def _import(tx: Tx, new: NewOrder) -> Told:
    order, is_new = import_order(tx, new, rails=RAILS)
    return Told(201 if is_new else 200, order_view(tx, order))


def _filter(
    status: list[OrderStatus] | None,
    search: str | None,
    email: str | None,
    customer_id: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    *,
    partially_refunded: bool,
) -> Filter:
    return Filter(
        statuses=tuple(status or ()),
        is_partially_refunded=partially_refunded,
        search=search,
        email=email,
        customer_id=customer_id,
        created_after=created_after,
        created_before=created_before,
    )


@get("/v1/orders", **route("orders:read"))
async def list_orders(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    order: FromQuery[Direction] = "asc",
    status: Statuses = None,
    search: Search = None,
    email: Email = None,
    customer_id: Whose = None,
    partially_refunded: PartiallyRefunded = False,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    total: Annotated[bool, QueryParameter(description="Count them, too, up to 10,000.")] = False,
) -> OrderPage:
    """Orders, oldest first (``order=desc``: newest first); a search sorts by e-mail address.

    With several filters a page may be short and have a next one all the same.
    """
    only = _filter(
        status, search, email, customer_id, created_after, created_before, partially_refunded=partially_refunded
    )

    def read(tx: Tx) -> OrderPage:
        page = order_search.list_(tx, only=only, order=order, after=order_search.start(after, only), limit=limit)
        counted = order_search.count(tx, only=only) if total else msgspec.UNSET
        return OrderPage(page.data, page.next, counted)

    return await scope_of(request).read(read)


@get("/v1/orders/export.csv", media_type="text/csv", **route("orders:read"))
async def export_orders(
    request: Asker,
    status: Statuses = None,
    search: Search = None,
    email: Email = None,
    customer_id: Whose = None,
    partially_refunded: PartiallyRefunded = False,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
) -> Stream:
    """All these orders as CSV (RFC 4180), oldest first, amounts in major units."""
    only = _filter(
        status, search, email, customer_id, created_after, created_before, partially_refunded=partially_refunded
    )
    scope = scope_of(request)
    await scope.read(order_search.list_, only=only, limit=1)  # refused now, while there is an answer to refuse with

    async def lines() -> AsyncIterator[bytes]:
        yield order_export.header()
        async for page in order_search.everything(scope, only=only):
            yield order_export.lines(page)

    headers = {"Content-Disposition": 'attachment; filename="orders.csv"'}
    return Stream(lines(), media_type="text/csv", headers=headers)


_IMPORTING = route("orders:write", 404)
_IMPORTING["responses"][200] = ResponseSpec(OrderView, generate_examples=False, description="It was here before")


@post("/v1/orders", **_IMPORTING)
async def import_one(request: Asker, data: JSONBody[NewOrder]) -> Response[OrderView]:
    """Write down an order made elsewhere; whoever repeats it gets the one that is here (200 instead of 201)."""
    told = await scope_of(request).run(_import, data)
    return Response(told.body, status_code=told.status)


@get("/v1/orders/{order_id:str}", **route("orders:read", 404))
async def get_order(request: Asker, order_id: FromPath[str]) -> OrderView:
    """One order, what it gave, and what became of it."""
    return await scope_of(request).read(_read, order_id)


@get("/v1/orders/{order_id:str}/history", **route("orders:read", 404))
async def list_history(
    request: Asker, order_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[OrderHistoryEntry]:
    """The steps of an order, oldest first."""
    return await scope_of(request).read(orders.history, order_id, after=start(after), limit=limit)


@post("/v1/orders/{order_id:str}/status", status_code=200, **route("orders:write", 404, 409))
async def change_status(request: Asker, order_id: FromPath[str], data: JSONBody[StatusChange]) -> OrderView:
    """Move an order on. Money that goes back is a refund's business."""
    return await scope_of(request).run(_advance, order_id, data)


orders_router = Router(
    path="/",
    tags=["Orders"],
    route_handlers=[list_orders, export_orders, import_one, get_order, list_history, change_status],
)
