"""Subscriptions over HTTP: what is paid again. Our answer says what was asked for; the rail's answer comes later."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from counterfoil.api.catalog import After, Limit, start
from counterfoil.db.tx import Tx
from counterfoil.exchange import portals, subscription_changes, subscription_details
from counterfoil.exchange.portals import open_portal
from counterfoil.exchange.subscription_changes import Change, SubscriptionUpdate, WantedItem
from counterfoil.exchange.types import Owed
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.rails.mirror import Portal, Proration
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.subscriptions import SubscriptionFilter
from counterfoil.subscriptions.types import Subscription, SubscriptionItem, SubscriptionPeriod, SubscriptionStatus

Whose = Annotated[str | None, QueryParameter(max_length=255, description="Of this customer.")]
Email = Annotated[str | None, QueryParameter(max_length=255, description="Of exactly this address.")]
Vault = Annotated[str | None, QueryParameter(max_length=255, description="That pay for this vault.")]


class AskedChange(msgspec.Struct, frozen=True):
    """A change that the rail was to make, and how far it is. ``in_doubt``: sent, without an answer so far."""

    id: str
    action: str
    status: Literal["owed", "in_doubt", "refused", "done"]
    details: dict[str, Any]
    error: str | None
    """The rail's words."""
    attempts: int
    next_attempt_at: datetime | None
    done_at: datetime | None
    created_at: datetime


class SubscriptionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription by itself."""

    id: str
    customer_id: str | None
    user_id: str | None
    address_id: str | None
    business_id: str | None
    vault_l0: str | None
    wallet: str | None
    checkout_id: str | None
    email: str | None
    rail: str
    customer_reference: str | None
    status: SubscriptionStatus
    asset: str
    collection_mode: Literal["automatic", "manual"]
    billing_interval: Literal["day", "week", "month", "year"] | None
    interval_count: int | None
    anchor_at: datetime | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    paid_until: datetime | None
    trial_end: datetime | None
    started_at: datetime | None
    first_billed_at: datetime | None
    next_billed_at: datetime | None
    paused_at: datetime | None
    canceled_at: datetime | None
    ends_at: datetime | None
    cancel_at_period_end: bool
    scheduled_change: dict[str, Any] | None
    discount_id: str | None
    billing_details: dict[str, Any] | None
    checked_at: datetime
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class SubscriptionView(SubscriptionRow, frozen=True, kw_only=True):
    """A subscription, what it is for, its last 100 paid periods, its last 10 changes, and the licenses it gave."""

    reference: str | None
    """The rail's own name for it."""
    items: list[SubscriptionItem]
    periods: list[SubscriptionPeriod]
    changes: list[AskedChange]
    license_ids: list[str]


class Pause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the pause begins, and when it is over; without ``resume_at`` when somebody resumes it."""

    at_period_end: bool = True
    resume_at: datetime | None = None


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether it ends with what is paid, or at once."""

    at_period_end: bool = True


class ChangeItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that it is to be for, and what that costs for the rest of the period."""

    items: list[WantedItem]
    proration: Proration = "now"


class GiveDiscount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The discount that it carries from the next bill on; null = none."""

    discount_id: str | None


def asked_change(owed: Owed) -> AskedChange:
    """A change as staff sees it."""
    fields = {name: getattr(owed, name) for name in AskedChange.__struct_fields__ if name != "details"}
    return AskedChange(**fields, details=_details(owed))


def _details(owed: Owed) -> dict[str, Any]:
    """What was asked for, without what its action does not look at."""
    said = owed.payload or {}
    match owed.action:
        case "pause":
            return {"at_period_end": said.get("at_period_end"), "resume_at": said.get("resume_at")}
        case "cancel":
            return {"at_period_end": said.get("at_period_end")}
        case "discount":
            return {"discount_id": said.get("discount_id") or None}
        case "change":
            items = [{"price_id": price, "quantity": quantity} for price, quantity in said.get("prices", [])]
            return {"items": items, "proration": said.get("proration")}
        case _:
            return {}


def _row(found: Subscription) -> dict[str, Any]:
    return {name: getattr(found, name) for name in SubscriptionRow.__struct_fields__}


def read_subscription(tx: Tx, subscription_id: str) -> SubscriptionView:
    """A subscription as staff sees it. Raises NotFound."""
    details = subscription_details.of(tx, subscription_id)
    return SubscriptionView(
        **_row(details.subscription),
        reference=details.reference,
        items=details.items,
        periods=details.periods,
        changes=[asked_change(owed) for owed in details.changes],
        license_ids=details.license_ids,
    )


def _request(tx: Tx, subscription_id: str, change: Change) -> SubscriptionView:
    subscription_changes.request(tx, subscription_id, change)
    return read_subscription(tx, subscription_id)


def _update(tx: Tx, subscription_id: str, changes: SubscriptionUpdate) -> SubscriptionView:
    subscription_changes.update(tx, subscription_id, changes)
    return read_subscription(tx, subscription_id)


@get("/v1/subscriptions", **route("subscriptions:read"))
async def list_subscriptions(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[SubscriptionStatus | None] = None,
    customer_id: Whose = None,
    email: Email = None,
    vault_l0: Vault = None,
) -> Page[SubscriptionRow]:
    """Subscriptions, oldest first."""
    only = SubscriptionFilter(status=status, customer_id=customer_id, email=email, vault_l0=vault_l0)
    page = await scope_of(request).read(subscriptions.list_, only, after=start(after), limit=limit)
    return Page([SubscriptionRow(**_row(one)) for one in page.data], page.next)


@get("/v1/subscriptions/{subscription_id:str}", **route("subscriptions:read", 404))
async def get_subscription(request: Asker, subscription_id: FromPath[str]) -> SubscriptionView:
    """One subscription, and what hangs on it."""
    return await scope_of(request).read(read_subscription, subscription_id)


@patch("/v1/subscriptions/{subscription_id:str}", **route("subscriptions:write", 404))
async def update_subscription(
    request: Asker, subscription_id: FromPath[str], data: JSONBody[SubscriptionUpdate]
) -> SubscriptionView:
    """Note whose it is, which vault it pays for, and what else you like; what is left out stays."""
    return await scope_of(request).run(_update, subscription_id, data)


@post("/v1/subscriptions/{subscription_id:str}/pause", status_code=200, **route("subscriptions:write", 404, 409))
async def pause_subscription(request: Asker, subscription_id: FromPath[str], data: JSONBody[Pause]) -> SubscriptionView:
    """Have the rail take no money for a while."""
    change = Change(action="pause", at_period_end=data.at_period_end, resume_at=data.resume_at)
    return await scope_of(request).run(_request, subscription_id, change)


@post("/v1/subscriptions/{subscription_id:str}/resume", status_code=200, **route("subscriptions:write", 404, 409))
async def resume_subscription(request: Asker, subscription_id: FromPath[str]) -> SubscriptionView:
    """End a pause now."""
    return await scope_of(request).run(_request, subscription_id, Change(action="resume"))


@post("/v1/subscriptions/{subscription_id:str}/cancel", status_code=200, **route("subscriptions:write", 404, 409))
async def cancel_subscription(
    request: Asker, subscription_id: FromPath[str], data: JSONBody[Cancel]
) -> SubscriptionView:
    """End it for good. Money that was paid is a refund's business."""
    change = Change(action="cancel", at_period_end=data.at_period_end)
    return await scope_of(request).run(_request, subscription_id, change)


@post("/v1/subscriptions/{subscription_id:str}/keep", status_code=200, **route("subscriptions:write", 404, 409))
async def keep_subscription(request: Asker, subscription_id: FromPath[str]) -> SubscriptionView:
    """Take back a pause or an end that waits for the end of the paid period."""
    return await scope_of(request).run(_request, subscription_id, Change(action="keep"))


@post("/v1/subscriptions/{subscription_id:str}/change", status_code=200, **route("subscriptions:write", 404, 409))
async def change_subscription(
    request: Asker, subscription_id: FromPath[str], data: JSONBody[ChangeItems]
) -> SubscriptionView:
    """Change what it is for: all its prices and quantities from then on."""
    change = Change(action="change", items=data.items, proration=data.proration)
    return await scope_of(request).run(_request, subscription_id, change)


@post("/v1/subscriptions/{subscription_id:str}/discount", status_code=200, **route("subscriptions:write", 404, 409))
async def discount_subscription(
    request: Asker, subscription_id: FromPath[str], data: JSONBody[GiveDiscount]
) -> SubscriptionView:
    """Give it a discount from the next bill on, instead of the one that it has, or take that away."""
    change = Change(action="discount", discount_id=data.discount_id)
    return await scope_of(request).run(_request, subscription_id, change)


class NewPortal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the way back leads; else to our front page."""

    return_url: str | None = None


@post(
    "/v1/subscriptions/{subscription_id:str}/portal",
    status_code=200,
    **route("subscriptions:write", 404, 409, 502, 503),
)
async def open_subscription_portal(request: Asker, subscription_id: FromPath[str], data: JSONBody[NewPortal]) -> Portal:
    """Open the rail's page for whoever pays this subscription. Its address is a secret of theirs, for a short time."""
    scope, house = scope_of(request), house_of(request)
    payer = await scope.read(portals.of_subscription, subscription_id)
    back = data.return_url or await house.base_url(scope.tenant)
    return await open_portal(scope, house.rails, house.pusher, payer, back)


subscriptions_router = Router(
    path="/",
    tags=["Subscriptions"],
    route_handlers=[
        list_subscriptions,
        get_subscription,
        update_subscription,
        pause_subscription,
        resume_subscription,
        cancel_subscription,
        keep_subscription,
        change_subscription,
        discount_subscription,
        open_subscription_portal,
    ],
)
