"""Rails over HTTP: connecting them, and their webhooks."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

import msgspec
from litestar import MediaType, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from counterfoil.events.types import Actor
from counterfoil.exchange import connect, connect_mirrors, rail_settings
from counterfoil.exchange.comparing_payments import compare
from counterfoil.exchange.connect import Connected
from counterfoil.exchange.connect_mirrors import Checked, ConnectedMirror, NewConnection
from counterfoil.exchange.webhooks import receive
from counterfoil.http.access import Asker, house_of, public_scope, scope_of, tenant_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Invalid
from counterfoil.sales.types import GrantsPolicy

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


class ConnectAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Stripe or Paddle account's key, and how it is to be used."""

    api_key: str
    webhook_secret: str | None = None
    """The signing secret of a webhook endpoint that you made; without it we make one."""
    on_dispute: GrantsPolicy = "suspend"
    tax_mode: Literal["internal", "external"] = "internal"
    """Paddle: whether prices have their tax in them, or it comes on top."""
    automatic_tax: bool = False
    """Stripe: whether it works the tax out."""
    checkout_url: str | None = None
    """Paddle: your own page that opens its checkout."""
    force: bool = False
    """Connect even if it is another account than before; new copies are made there."""


class Rotate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which secrets sign webhooks from now on."""

    webhook_secret: str | None = None
    """That of an endpoint that you made; without it ours is made anew."""
    drop_old: bool = False
    """Make no new one; believe only the newest that there is."""


class Rotated(msgspec.Struct, frozen=True):
    """How many secrets count now."""

    rail: str
    webhook_secrets: int


class Received(msgspec.Struct, frozen=True):
    """A webhook was taken in; ``new`` is false when its news was known."""

    ok: bool
    new: bool


@get("/v1/rails", **route("rails:read"))
async def list_rails(request: Asker) -> list[RailView]:
    """The rails that are or were connected."""
    rows = await scope_of(request).read(rail_settings.list_)
    return [RailView(row.rail, row.status, row.public, row.updated_at) for row in rows]


class DifferenceView(msgspec.Struct, frozen=True):
    """A payment that is not the same here and there. Amounts in minor units; null where there is none."""

    kind: Literal["missing_here", "missing_there", "differs"]
    reference: str
    occurred_at: datetime
    payment_id: str | None
    amount: int | None
    asset: str | None
    their_amount: int | None
    their_asset: str | None


class ComparisonView(msgspec.Struct, frozen=True):
    """The payments of a day (UTC) in our books and in the rail's own list: how many, and what is not the same."""

    rail: str
    day: date
    same: bool
    ours: int
    theirs: int
    differences: list[DifferenceView]


@get("/v1/rails/{rail:str}/compare", **route("payments:read", 404, 502, 503))
async def compare_rail(
    request: Asker, rail: FromPath[str], day: Annotated[str, QueryParameter(max_length=10)]
) -> ComparisonView:
    """Compare a day's payments with the rail's own list, now. It changes nothing; a job does the same every night."""
    try:
        on = date.fromisoformat(day)
    except ValueError as error:
        raise Invalid.field("day", "say 2026-12-31") from error
    house = house_of(request)
    done = await compare(scope_of(request), house.rails, house.pusher, rail, on, repair=False)
    found = [DifferenceView(**{name: getattr(one, name) for name in one.__struct_fields__}) for one in done.differences]
    return ComparisonView(done.rail, done.day, not found, done.ours, done.theirs, found)


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
        webhook_url=await house.webhook_url(scope.tenant, "btcpay"),
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
        webhook_url=await house.webhook_url(scope.tenant, "btcpay"),
    )
    return f"Connected to the store {done.store_name!r}. You can close this page."


@post("/v1/rails/{rail:str}", status_code=200, **route("rails:write", 409, 502, 503))
async def connect_account(request: Asker, rail: FromPath[str], data: JSONBody[ConnectAccount]) -> ConnectedMirror:
    """Connect a Stripe or Paddle account: `stripe`, `stripe-test`, `paddle` or `paddle-test`.

    Its webhooks are set up by us, and what is sold is copied there from now on.
    """
    house, scope = house_of(request), scope_of(request)
    new = NewConnection(
        rail=rail,
        api_key=data.api_key.strip(),
        webhook_secret=None if data.webhook_secret is None else data.webhook_secret.strip(),
        on_dispute=data.on_dispute,
        tax_mode=data.tax_mode,
        automatic_tax=data.automatic_tax,
        checkout_url=data.checkout_url,
        force=data.force,
    )
    done = await connect_mirrors.connect(
        scope,
        house.rails,
        house.client,
        house.master,
        new,
        webhook_url=await house.webhook_url(scope.tenant, rail),
    )
    house.push(scope.tenant)
    return done


@post("/v1/rails/{rail:str}/check", status_code=200, **route("rails:write", 404))
async def check_rail(request: Asker, rail: FromPath[str]) -> Checked:
    """Ask a connected rail whether all is well: its key, its account, its webhooks."""
    house, scope = house_of(request), scope_of(request)
    url = await house.webhook_url(scope.tenant, rail)
    return await connect.check(house.rails, house.client, scope.tenant, rail, url)


@post("/v1/rails/{rail:str}/rotate", status_code=200, **route("rails:write", 404, 502, 503))
async def rotate_webhook_secret(request: Asker, rail: FromPath[str], data: JSONBody[Rotate]) -> Rotated:
    """Have webhooks signed with a new secret; the old ones count, too, until they are dropped."""
    house, scope = house_of(request), scope_of(request)
    if data.drop_old:
        if data.webhook_secret is not None:
            raise Invalid.field("webhook_secret", "none is given when old ones are dropped")
        await connect_mirrors.drop_old_secrets(scope, house.rails, house.master, rail)
        return Rotated(rail, 1)
    count = await connect_mirrors.rotate(
        scope,
        house.rails,
        house.client,
        house.master,
        rail,
        webhook_url=await house.webhook_url(scope.tenant, rail),
        webhook_secret=data.webhook_secret,
    )
    return Rotated(rail, count)


@delete("/v1/rails/btcpay", status_code=200, **route("rails:write", 404))
async def disconnect_btcpay(request: Asker) -> Disconnected:
    """Forget a BTCPay store and its secrets. What it still owes us will not be heard."""
    house = house_of(request)
    return Disconnected("btcpay", await connect.disconnect(scope_of(request), house.rails, house.client, "btcpay"))


@delete("/v1/rails/{rail:str}", status_code=200, **route("rails:write", 404))
async def disconnect_rail(request: Asker, rail: FromPath[str]) -> Disconnected:
    """Forget a rail and its secrets. What it still owes us will not be heard."""
    house = house_of(request)
    return Disconnected(rail, await connect.disconnect(scope_of(request), house.rails, house.client, rail))


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
        compare_rail,
        connect_btcpay,
        authorize_btcpay,
        btcpay_callback,
        connect_account,
        check_rail,
        rotate_webhook_secret,
        disconnect_btcpay,
        disconnect_rail,
        webhook,
    ],
)
