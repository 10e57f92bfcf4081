"""Rails over HTTP: connecting them, and their webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from litestar import MediaType, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from counterfoil.events.types import Actor
from counterfoil.exchange import connect, rail_settings
from counterfoil.exchange.connect import Connected
from counterfoil.exchange.webhooks import receive
from counterfoil.http.access import Asker, house_of, public_scope, scope_of, tenant_of
from counterfoil.http.problems import route

_CALLBACK = "/v1/rails/btcpay/callback"


class RailView(msgspec.Struct, frozen=True):
    """A rail that is or was connected; its secrets stay sealed."""

    rail: str
    status: str
    details: dict[str, Any]
    updated_at: datetime


class ConnectBTCPay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A BTCPay server and a key made there."""

    base_url: str
    api_key: str
    store_id: str | None = None


class AuthorizeBTCPay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A BTCPay server to ask for a key."""

    base_url: str


class AuthorizeLink(msgspec.Struct, frozen=True):
    """Where to go in a browser, within half an hour."""

    authorize_url: str


class Disconnected(msgspec.Struct, frozen=True):
    """What could not be undone on the rail's side."""

    rail: str
    left: list[str]


class Received(msgspec.Struct, frozen=True):
    """A webhook was taken in; ``new`` is false when its news was known."""

    ok: bool
    new: bool


@get("/v1/rails", **route("rails:read"))
async def list_rails(request: Asker) -> list[RailView]:
    """The rails that are or were connected."""
    rows = await scope_of(request).read(rail_settings.list_)
    return [RailView(row.rail, row.status, row.public, row.updated_at) for row in rows]


@post("/v1/rails/btcpay", status_code=200, **route("rails:write", 502, 503))
async def connect_btcpay(request: Asker, data: JSONBody[ConnectBTCPay]) -> Connected:
    """Connect a BTCPay store with a key made there; its webhook is set up by us."""
    house, scope = house_of(request), scope_of(request)
    return await connect.connect_btcpay(
        scope,
        house.rails,
        house.client,
        house.master,
        base_url=data.base_url,
        api_key=data.api_key.strip(),
        store_id=data.store_id,
        webhook_url=f"{await house.base_url(scope.tenant)}/v1/webhooks/btcpay",
    )


@post("/v1/rails/btcpay/authorize", status_code=200, **route("rails:write"))
async def authorize_btcpay(request: Asker, data: JSONBody[AuthorizeBTCPay]) -> AuthorizeLink:
    """Get the link that asks BTCPay for a key."""
    house, scope = house_of(request), scope_of(request)
    callback = (await house.base_url(scope.tenant)) + _CALLBACK
    return AuthorizeLink(await connect.authorize_url(scope, data.base_url, callback))


@post(_CALLBACK, status_code=200, media_type=MediaType.TEXT, **route("public", 401, 404, 502, 503, repeats="ignored"))
async def btcpay_callback(
    request: Asker, given_state: Annotated[str, QueryParameter(name="state", max_length=100)]
) -> str:
    """Where BTCPay's page sends the seller's browser with the key."""
    house, scope = house_of(request), await public_scope(request)
    form = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=100)
    base_url, api_key = await connect.finish_authorize(scope, given_state, form)
    done = await connect.connect_btcpay(
        scope,
        house.rails,
        house.client,
        house.master,
        base_url=base_url,
        api_key=api_key,
        store_id=None,
        webhook_url=f"{await house.base_url(scope.tenant)}/v1/webhooks/btcpay",
    )
    return f"Connected to the store {done.store_name!r}. You can close this page."


@delete("/v1/rails/btcpay", status_code=200, **route("rails:write", 404))
async def disconnect_btcpay(request: Asker) -> Disconnected:
    """Forget a BTCPay store and its secrets. What it still owes us will not be heard."""
    house = house_of(request)
    return Disconnected("btcpay", await connect.disconnect(scope_of(request), house.rails, house.client, "btcpay"))


@post("/v1/webhooks/{rail:str}", status_code=200, **route("public", 401, 404, 413, 503, repeats="ignored"))
async def webhook(request: Asker, rail: FromPath[str]) -> Received:
    """Take in a rail's webhook. The signature over the raw body is checked before anything else."""
    house = house_of(request)
    scope = house.scope(await tenant_of(request), Actor("rail", rail[:40], source="webhook"))
    headers = {name.lower(): value for name, value in request.headers.items()}
    done = await receive(scope, house.rails, house.client, rail, headers, await request.body())
    return Received(ok=True, new=done is not None)


rails = Router(
    path="/",
    tags=["Rails"],
    route_handlers=[
        list_rails,
        connect_btcpay,
        authorize_btcpay,
        btcpay_callback,
        disconnect_btcpay,
        webhook,
    ],
)
