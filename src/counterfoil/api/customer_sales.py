"""What a customer bought, and buying for it, over HTTP. The views leave out what only staff should read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.api.customers import Below
from counterfoil.api.licenses import view
from counterfoil.api.sales import CheckoutView, checkout_view, view_for_buyer
from counterfoil.events.types import Event
from counterfoil.house import House
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.buying import NewCheckout, open_for, purchase_of
from counterfoil.http.idempotency import inner_key_of
from counterfoil.http.problems import route
from counterfoil.http.quoting import named_cart
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.licensing.types import License, LicenseStatus
from counterfoil.sales.types import Checkout, Order, OrderStatus, Payment, PaymentStatus
from counterfoil.settlement import by_customer


class CustomerOrder(msgspec.Struct, frozen=True):
    """An order as its customer sees it."""

    id: str
    customer_id: str | None
    checkout_id: str | None
    status: OrderStatus
    items: list[dict[str, Any]]
    amount: int
    asset: str
    discount_total: int
    tax_total: int
    email: str | None
    created_at: datetime


class CustomerPayment(msgspec.Struct, frozen=True):
    """A payment as its customer sees it."""

    id: str
    customer_id: str | None
    checkout_id: str | None
    rail: str
    reference: str
    amount: int
    asset: str
    status: PaymentStatus
    occurred_at: datetime
    created_at: datetime


class CustomerLicense(msgspec.Struct, frozen=True):
    """A license and its key as its customer sees it."""

    id: str
    key: str
    customer_id: str | None
    product_id: str
    order_id: str | None
    tier: str
    status: LicenseStatus
    issued_at: datetime
    expires_at: datetime | None
    grace_seconds: int
    max_machines: int
    machine_count: int
    is_trial: bool
    entitlements: list[str]
    email: str | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime


class CustomerEvent(msgspec.Struct, frozen=True):
    """Something that happened, without who did it and from where."""

    id: str
    type: str
    object_kind: str
    object_id: str
    customer_id: str | None
    amount: int | None
    asset: str | None
    created_at: datetime


@get("/v1/customers/{customer_id:str}/orders", **route("orders:read", 404))
async def list_customer_orders(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerOrder]:
    """What a customer bought, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Order, customer_id, below=below, after=start(after), limit=limit
    )
    fields = CustomerOrder.__struct_fields__
    return Page([CustomerOrder(*[getattr(one, name) for name in fields]) for one in page.data], page.next)


@get("/v1/customers/{customer_id:str}/payments", **route("payments:read", 404))
async def list_customer_payments(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerPayment]:
    """What a customer paid, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Payment, customer_id, below=below, after=start(after), limit=limit
    )
    fields = CustomerPayment.__struct_fields__
    return Page([CustomerPayment(*[getattr(one, name) for name in fields]) for one in page.data], page.next)


@get("/v1/customers/{customer_id:str}/licenses", **route("licenses:read", 404))
async def list_customer_licenses(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerLicense]:
    """A customer's licenses and their keys, oldest first."""
    scope = scope_of(request)
    page = await scope.read(by_customer.list_, License, customer_id, below=below, after=start(after), limit=limit)
    return Page([await _license(house_of(request), scope.tenant, one) for one in page.data], page.next)


async def _license(house: House, tenant: str, license_: License) -> CustomerLicense:
    shown = await view(house, tenant, license_)
    fields = {name: getattr(license_, name) for name in CustomerLicense.__struct_fields__ if name != "key"}
    return CustomerLicense(key=shown.key, **fields)


@get("/v1/customers/{customer_id:str}/checkouts", **route("checkouts:read", 404))
async def list_customer_checkouts(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CheckoutView]:
    """A customer's attempts to pay, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Checkout, customer_id, below=below, after=start(after), limit=limit
    )
    return Page([checkout_view(one) for one in page.data], page.next)


@post("/v1/customers/{customer_id:str}/checkouts", **route("checkouts:write", 404, 409, 502, 503, repeats="joined"))
async def create_customer_checkout(
    request: Asker, customer_id: FromPath[str], data: JSONBody[NewCheckout]
) -> CheckoutView:
    """Price a cart with the customer's margin taken off, and open a checkout for it."""
    scope, house = scope_of(request), house_of(request)
    wanted = await named_cart(request, scope, data)
    checkout = await open_for(house, scope, wanted, inner_key_of(request), customer_id=customer_id)
    return await view_for_buyer(house, scope.tenant, await purchase_of(scope, checkout))


@get("/v1/customers/{customer_id:str}/events", **route("events:read", 404))
async def list_customer_events(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerEvent]:
    """What happened about a customer, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Event, customer_id, below=below, after=start(after), limit=limit
    )
    fields = CustomerEvent.__struct_fields__
    return Page([CustomerEvent(*[getattr(one, name) for name in fields]) for one in page.data], page.next)


customer_sales = Router(
    path="/",
    tags=["Customers"],
    route_handlers=[
        list_customer_orders,
        list_customer_payments,
        list_customer_licenses,
        list_customer_checkouts,
        create_customer_checkout,
        list_customer_events,
    ],
)
