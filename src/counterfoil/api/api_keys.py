"""API keys over HTTP: of the whole tenant, or limited to one customer and all below it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody

from counterfoil.accounts import api_keys, granting
from counterfoil.accounts.permissions import KEY_ROLES
from counterfoil.accounts.types import ApiKey
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, identity_of, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


class NewApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to make a key."""

    name: str
    role: str | None = None
    """A named set of scopes: read-only, license-issuer, support, merchant-onboard or full-admin."""
    scopes: list[str] = []
    """Scopes besides; those in no named set must be spelled out here."""
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class ApiKeyView(msgspec.Struct, frozen=True):
    """A key without its secret, which is shown only when it is made."""

    id: str
    name: str
    role: str | None
    scopes: list[str]
    customer_id: str | None
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    secret: str | msgspec.UnsetType = msgspec.UNSET


def _view(key: ApiKey, secret: str | msgspec.UnsetType = msgspec.UNSET) -> ApiKeyView:
    fields = {name: getattr(key, name) for name in ApiKeyView.__struct_fields__ if name != "secret"}
    return ApiKeyView(**fields, secret=secret)


async def _list(request: Asker, customer_id: str | None, after: str | None, limit: int) -> Page[ApiKeyView]:
    found = await scope_of(request).read(api_keys.list_, customer_id=customer_id, after=start(after), limit=limit)
    return Page([_view(key) for key in found.data], found.next)


async def _create(request: Asker, customer_id: str | None, data: NewApiKey) -> ApiKeyView:
    create = shaped(api_keys.create, lambda made: _view(made.key, made.secret))
    return await scope_of(request).run(
        granting.allowed,
        identity_of(request),
        customer_id,
        "api_keys:write",
        [*KEY_ROLES.get(data.role or "", []), *data.scopes],
        create,
        data.name,
        data.scopes,
        secret=api_keys.new_secret(),
        expires_at=data.expires_at,
        role=data.role,
        customer_id=customer_id,
    )


@get("/v1/api-keys", **route("api_keys:read"))
async def list_api_keys(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[ApiKeyView]:
    """Every key of the tenant, oldest first."""
    return await _list(request, None, after, limit)


@post("/v1/api-keys", **route("api_keys:write"))
async def create_api_key(request: Asker, data: JSONBody[NewApiKey]) -> ApiKeyView:
    """Make a key that may do nothing its maker may not. Its secret is shown this once."""
    return await _create(request, None, data)


@get("/v1/api-keys/{key_id:str}", **route("api_keys:read", 404))
async def get_api_key(request: Asker, key_id: FromPath[str]) -> ApiKeyView:
    """One key."""
    return _view(await scope_of(request).read(api_keys.get, key_id))


@delete("/v1/api-keys/{key_id:str}", **route("api_keys:write", 404))
async def revoke_api_key(request: Asker, key_id: FromPath[str]) -> None:
    """End a key, for good."""
    await scope_of(request).run(api_keys.revoke, key_id)


@get("/v1/customers/{customer_id:str}/api-keys", **route("api_keys:read", 404))
async def list_customer_api_keys(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[ApiKeyView]:
    """The keys limited to this customer, oldest first."""
    return await _list(request, customer_id, after, limit)


@post("/v1/customers/{customer_id:str}/api-keys", **route("api_keys:write", 404))
async def create_customer_api_key(
    request: Asker, customer_id: FromPath[str], data: JSONBody[NewApiKey]
) -> ApiKeyView:  # fmt: skip
    """Make a key limited to this customer and all below it. Its secret is shown this once."""
    return await _create(request, customer_id, data)


@get("/v1/customers/{customer_id:str}/api-keys/{key_id:str}", **route("api_keys:read", 404))
async def get_customer_api_key(request: Asker, customer_id: FromPath[str], key_id: FromPath[str]) -> ApiKeyView:
    """One key limited to this customer."""
    return _view(await scope_of(request).read(api_keys.get, key_id, customer_id=customer_id))


@delete("/v1/customers/{customer_id:str}/api-keys/{key_id:str}", **route("api_keys:write", 404))
async def revoke_customer_api_key(request: Asker, customer_id: FromPath[str], key_id: FromPath[str]) -> None:
    """End a key limited to this customer, for good."""
    await scope_of(request).run(api_keys.revoke, key_id, customer_id=customer_id)


api_keys_router = Router(
    path="/",
    tags=["API keys"],
    route_handlers=[
        list_api_keys,
        create_api_key,
        get_api_key,
        revoke_api_key,
        list_customer_api_keys,
        create_customer_api_key,
        get_customer_api_key,
        revoke_customer_api_key,
    ],
)
