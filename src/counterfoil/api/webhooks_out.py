"""Webhooks out over HTTP: where news goes, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.kernel.signing import PrivateKey
from counterfoil.webhooks import deliveries, endpoints, signing, worker
from counterfoil.webhooks.endpoints import Endpoint, EndpointChanges, NewEndpoint
from counterfoil.webhooks.types import Delivery, DeliveryStatus

_ENDPOINT = "/v1/webhook-endpoints/{endpoint_id:str}"
_DELIVERY = "/v1/webhook-deliveries/{delivery_id:str}"


class DeliveryView(msgspec.Struct, frozen=True):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    """The message's `webhook-id`: the same at every attempt."""
    event_type: str
    object_kind: str
    object_id: str
    sequence: int
    payload: msgspec.Raw
    """The body, as it is signed and sent."""
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    completed_at: datetime | None
    created_at: datetime


def view(delivery: Delivery) -> DeliveryView:
    """A delivery without who works at it."""
    fields: dict[str, Any] = {name: getattr(delivery, name) for name in DeliveryView.__struct_fields__}
    fields["payload"] = msgspec.Raw(delivery.payload.encode())
    fields["next_attempt_at"] = delivery.next_attempt_at if delivery.status == "pending" else None
    return DeliveryView(**fields)


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Since when to send again."""

    since: Annotated[datetime, msgspec.Meta(tz=True)]


class Replayed(msgspec.Struct, frozen=True):
    """How many deliveries were queued again."""

    count: int


@get("/v1/webhook-endpoints", **route("webhooks:read"))
async def list_webhook_endpoints(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[Endpoint]:
    """Where news goes, oldest first."""
    return await scope_of(request).read(endpoints.list_, after=start(after), limit=limit)


@post("/v1/webhook-endpoints", **route("webhooks:write"))
async def create_webhook_endpoint(request: Asker, data: JSONBody[NewEndpoint]) -> Endpoint:
    """Have news sent somewhere, from now on. Its secret is shown this once."""
    house = house_of(request)
    return await scope_of(request).run(
        endpoints.create,
        house.master,
        data,
        secret=signing.new_secret(),
        signing_key=PrivateKey.generate(),
        allow_loopback=house.settings.webhooks_allow_loopback,
    )


@get(_ENDPOINT, **route("webhooks:read", 404))
async def get_webhook_endpoint(request: Asker, endpoint_id: FromPath[str]) -> Endpoint:
    """One endpoint."""
    return await scope_of(request).read(endpoints.get, endpoint_id)


@patch(_ENDPOINT, **route("webhooks:write", 404))
async def update_webhook_endpoint(
    request: Asker, endpoint_id: FromPath[str], data: JSONBody[EndpointChanges]
) -> Endpoint:
    """Change an endpoint; what is left out stays. What waits for it goes to its new address."""
    allow_loopback = house_of(request).settings.webhooks_allow_loopback
    return await scope_of(request).run(endpoints.update, endpoint_id, data, allow_loopback=allow_loopback)


@delete(_ENDPOINT, **route("webhooks:write", 404))
async def delete_webhook_endpoint(request: Asker, endpoint_id: FromPath[str]) -> None:
    """Forget an endpoint and all its deliveries."""
    await scope_of(request).run(endpoints.delete, endpoint_id)


@post(_ENDPOINT + "/rotate-secret", status_code=200, **route("webhooks:write", 404))
async def rotate_webhook_secret(request: Asker, endpoint_id: FromPath[str]) -> Endpoint:
    """Give an endpoint a new secret, shown this once. For 24 hours messages are signed with the one before, too."""
    master = house_of(request).master
    return await scope_of(request).run(endpoints.rotate_secret, master, endpoint_id, secret=signing.new_secret())


@post(_ENDPOINT + "/enable", status_code=200, **route("webhooks:write", 404))
async def enable_webhook_endpoint(request: Asker, endpoint_id: FromPath[str]) -> Endpoint:
    """Send news there again, beginning with what still waits."""
    scope = scope_of(request)
    enabled = await scope.run(endpoints.enable, endpoint_id)
    house_of(request).send_webhooks(scope.tenant)
    return enabled


@post(_ENDPOINT + "/disable", status_code=200, **route("webhooks:write", 404))
async def disable_webhook_endpoint(request: Asker, endpoint_id: FromPath[str]) -> Endpoint:
    """Send nothing there, and queue nothing for it, until it is enabled again."""
    return await scope_of(request).run(endpoints.disable, endpoint_id)


@post(_ENDPOINT + "/test", status_code=200, **route("webhooks:write", 404, 409))
async def test_webhook_endpoint(request: Asker, endpoint_id: FromPath[str]) -> DeliveryView:
    """Send a `webhook.test` there, whatever it wants to hear of. Look at the delivery to see what came of it."""
    return await scope_of(request).run(shaped(deliveries.test, view), endpoint_id)


@post(_ENDPOINT + "/replay", status_code=200, **route("webhooks:write", 404))
async def replay_webhooks(request: Asker, endpoint_id: FromPath[str], data: JSONBody[Replay]) -> Replayed:
    """Send again all that was queued for an endpoint since a moment, also what it has taken, under the same ids."""
    return Replayed(await worker.replay(scope_of(request), endpoint_id, data.since))


@get("/v1/webhook-deliveries", **route("webhooks:read"))
async def list_webhook_deliveries(
    request: Asker,
    status: FromQuery[DeliveryStatus | None] = None,
    endpoint_id: FromQuery[str | None] = None,
    event_type: FromQuery[str | None] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[DeliveryView]:
    """What was sent and what waits, oldest first: all, or what every filter is true of."""
    page = await scope_of(request).read(
        deliveries.list_,
        status=status,
        endpoint_id=endpoint_id,
        event_type=event_type,
        after=start(after),
        limit=limit,
    )
    return Page([view(delivery) for delivery in page.data], page.next)


@get(_DELIVERY, **route("webhooks:read", 404))
async def get_webhook_delivery(request: Asker, delivery_id: FromPath[str]) -> DeliveryView:
    """One delivery, and what came of its last attempt."""
    return view(await scope_of(request).read(deliveries.get, delivery_id))


@post(_DELIVERY + "/retry", status_code=200, **route("webhooks:write", 404))
async def retry_webhook_delivery(request: Asker, delivery_id: FromPath[str]) -> DeliveryView:
    """Send a delivery now, whatever became of it, with all its attempts before it."""
    return await scope_of(request).run(shaped(deliveries.retry, view), delivery_id)


@delete(_DELIVERY, **route("webhooks:write", 404))
async def delete_webhook_delivery(request: Asker, delivery_id: FromPath[str]) -> None:
    """Forget a delivery. If it waits, it is not sent."""
    await scope_of(request).run(deliveries.delete, delivery_id)


webhooks_router = Router(
    path="/",
    tags=["Webhooks"],
    route_handlers=[
        list_webhook_endpoints,
        create_webhook_endpoint,
        get_webhook_endpoint,
        update_webhook_endpoint,
        delete_webhook_endpoint,
        rotate_webhook_secret,
        enable_webhook_endpoint,
        disable_webhook_endpoint,
        test_webhook_endpoint,
        replay_webhooks,
        list_webhook_deliveries,
        get_webhook_delivery,
        retry_webhook_delivery,
        delete_webhook_delivery,
    ],
)
