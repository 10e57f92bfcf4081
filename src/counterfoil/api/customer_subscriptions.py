"""A customer's subscriptions and bills over HTTP. The views leave out what only staff should read."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.api.customers import Below
from counterfoil.api.subscriptions import Cancel, NewPortal, Pause
from counterfoil.db.tx import Tx
from counterfoil.exchange import portals, subscription_changes, subscription_details
from counterfoil.exchange.portals import open_portal
from counterfoil.exchange.subscription_changes import Change, WantedItem
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.rails.mirror import Portal
from counterfoil.sales import invoices
from counterfoil.sales.types import Invoice, InvoiceStatus
from counterfoil.settlement import by_customer
from counterfoil.subscriptions.types import Subscription, SubscriptionStatus

T = TypeVar("T", bound=msgspec.Struct)

_SUBSCRIPTIONS = "/v1/customers/{customer_id:str}/subscriptions"
_ONE = _SUBSCRIPTIONS + "/{subscription_id:str}"
_INVOICES = "/v1/customers/{customer_id:str}/invoices"


class CustomerSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as its customer sees it."""

    id: str
    customer_id: str | None
    vault_l0: str | None
    email: str | None
    rail: str
    status: SubscriptionStatus
    asset: str
    collection_mode: Literal["automatic", "manual"]
    billing_interval: Literal["day", "week", "month", "year"] | None
    interval_count: int | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    paid_until: datetime | None
    trial_end: datetime | None
    started_at: datetime | None
    next_billed_at: datetime | None
    paused_at: datetime | None
    canceled_at: datetime | None
    ends_at: datetime | None
    cancel_at_period_end: bool
    scheduled_change: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class CustomerItem(msgspec.Struct, frozen=True):
    """What a subscription is for."""

    product_id: str
    price_id: str
    quantity: int
    status: Literal["active", "inactive", "trialing"]
    recurring: bool
    next_billed_at: datetime | None


class CustomerPeriod(msgspec.Struct, frozen=True):
    """A period that was paid."""

    period_start: datetime
    period_end: datetime
    order_id: str | None
    invoice_id: str | None
    status: Literal["paid", "refunded"]
    amount: int
    asset: str


class CustomerChange(msgspec.Struct, frozen=True):
    """A change that the rail was to make."""

    id: str
    action: str
    status: Literal["owed", "in_doubt", "refused", "done"]
    done_at: datetime | None
    created_at: datetime


class CustomerSubscriptionView(CustomerSubscription, frozen=True, kw_only=True):
    """A subscription with what hangs on it, as its customer sees it."""

    items: list[CustomerItem]
    periods: list[CustomerPeriod]
    changes: list[CustomerChange]
    license_ids: list[str]


class CustomerChangeItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that it is to be for. The difference for the rest of the period is paid at once."""

    items: list[WantedItem]


class CustomerPortal(NewPortal, frozen=True, forbid_unknown_fields=True):
    """``rail`` may be left out where only one knows the customer."""

    rail: str | None = None


class CustomerInvoice(msgspec.Struct, frozen=True):
    """A bill as its customer sees it."""

    id: str
    number: str | None
    customer_id: str | None
    order_id: str | None
    subscription_id: str | None
    rail: str
    amount: int
    tax: int
    asset: str
    billing_reason: str | None
    status: InvoiceStatus
    period_start: datetime | None
    period_end: datetime | None
    pdf_url: str | None
    receipt_url: str | None
    hosted_url: str | None
    paid_at: datetime | None
    created_at: datetime


def _as(kind: type[T], one: msgspec.Struct) -> T:
    """The fields of a row that a customer sees."""
    return kind(**{name: getattr(one, name) for name in kind.__struct_fields__})


def _read(tx: Tx, customer_id: str, subscription_id: str) -> CustomerSubscriptionView:
    details = subscription_details.of(tx, subscription_id, customer_id=customer_id)
    fields = {name: getattr(details.subscription, name) for name in CustomerSubscription.__struct_fields__}
    return CustomerSubscriptionView(
        **fields,
        items=[_as(CustomerItem, item) for item in details.items],
        periods=[_as(CustomerPeriod, period) for period in details.periods],
        changes=[_as(CustomerChange, change) for change in details.changes],
        license_ids=details.license_ids,
    )


def _request(tx: Tx, customer_id: str, subscription_id: str, change: Change) -> CustomerSubscriptionView:
    subscription_changes.request(tx, subscription_id, change, customer_id=customer_id)
    return _read(tx, customer_id, subscription_id)


def _read_invoice(tx: Tx, customer_id: str, invoice_id: str) -> CustomerInvoice:
    found = invoices.get(tx, invoice_id)
    if found.customer_id != customer_id:
        raise NotFound("There is no such invoice.", code="invoice_not_found")
    return _as(CustomerInvoice, found)


@get(_SUBSCRIPTIONS, **route("subscriptions:read", 404))
async def list_customer_subscriptions(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerSubscription]:
    """A customer's subscriptions, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Subscription, customer_id, below=below, after=start(after), limit=limit
    )
    return Page([_as(CustomerSubscription, one) for one in page.data], page.next)


@get(_ONE, **route("subscriptions:read", 404))
async def get_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str]
) -> CustomerSubscriptionView:
    """One subscription of a customer."""
    return await scope_of(request).read(_read, customer_id, subscription_id)


@post(_ONE + "/pause", status_code=200, **route("subscriptions:write", 404, 409))
async def pause_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str], data: JSONBody[Pause]
) -> CustomerSubscriptionView:
    """Have the rail take no money for a while."""
    change = Change(action="pause", at_period_end=data.at_period_end, resume_at=data.resume_at)
    return await scope_of(request).run(_request, customer_id, subscription_id, change)


@post(_ONE + "/resume", status_code=200, **route("subscriptions:write", 404, 409))
async def resume_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str]
) -> CustomerSubscriptionView:
    """End a pause now."""
    return await scope_of(request).run(_request, customer_id, subscription_id, Change(action="resume"))


@post(_ONE + "/cancel", status_code=200, **route("subscriptions:write", 404, 409))
async def cancel_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str], data: JSONBody[Cancel]
) -> CustomerSubscriptionView:
    """End it for good."""
    change = Change(action="cancel", at_period_end=data.at_period_end)
    return await scope_of(request).run(_request, customer_id, subscription_id, change)


@post(_ONE + "/keep", status_code=200, **route("subscriptions:write", 404, 409))
async def keep_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str]
) -> CustomerSubscriptionView:
    """Take back a pause or an end that waits for the end of the paid period."""
    return await scope_of(request).run(_request, customer_id, subscription_id, Change(action="keep"))


@post(_ONE + "/change", status_code=200, **route("subscriptions:write", 404, 409))
async def change_customer_subscription(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str], data: JSONBody[CustomerChangeItems]
) -> CustomerSubscriptionView:
    """Change what it is for; the difference for the rest of the period is paid at once."""
    # What a change costs is not for whoever pays it to say.
    change = Change(action="change", items=data.items, proration="now")
    return await scope_of(request).run(_request, customer_id, subscription_id, change)


@post(_ONE + "/portal", status_code=200, **route("subscriptions:write", 404, 409, 502, 503))
async def open_customer_subscription_portal(
    request: Asker, customer_id: FromPath[str], subscription_id: FromPath[str], data: JSONBody[NewPortal]
) -> Portal:
    """Open the rail's page for whoever pays this subscription. Its address is a secret, for a short time."""
    scope, house = scope_of(request), house_of(request)
    payer = await scope.read(portals.of_subscription, subscription_id, customer_id=customer_id)
    back = data.return_url or await house.base_url(scope.tenant)
    return await open_portal(scope, house.rails, house.pusher, payer, back)


@post(
    "/v1/customers/{customer_id:str}/portal",
    status_code=200,
    **route("subscriptions:write", 404, 409, 502, 503),
)
async def open_customer_portal(request: Asker, customer_id: FromPath[str], data: JSONBody[CustomerPortal]) -> Portal:
    """Open the rail's page for a customer and all their subscriptions. Its address is a secret, for a short time."""
    scope, house = scope_of(request), house_of(request)
    payer = await scope.read(portals.of_customer, customer_id, data.rail)
    back = data.return_url or await house.base_url(scope.tenant)
    return await open_portal(scope, house.rails, house.pusher, payer, back)


@get(_INVOICES, **route("invoices:read", 404))
async def list_customer_invoices(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT, below: Below = False
) -> Page[CustomerInvoice]:
    """A customer's bills, oldest first."""
    page = await scope_of(request).read(
        by_customer.list_, Invoice, customer_id, below=below, after=start(after), limit=limit
    )
    return Page([_as(CustomerInvoice, one) for one in page.data], page.next)


@get(_INVOICES + "/{invoice_id:str}", **route("invoices:read", 404))
async def get_customer_invoice(
    request: Asker, customer_id: FromPath[str], invoice_id: FromPath[str]
) -> CustomerInvoice:
    """One bill of a customer."""
    return await scope_of(request).read(_read_invoice, customer_id, invoice_id)


customer_subscriptions = Router(
    path="/",
    tags=["Customers"],
    route_handlers=[
        list_customer_subscriptions,
        get_customer_subscription,
        pause_customer_subscription,
        resume_customer_subscription,
        cancel_customer_subscription,
        keep_customer_subscription,
        change_customer_subscription,
        open_customer_subscription_portal,
        open_customer_portal,
        list_customer_invoices,
        get_customer_invoice,
    ],
)
