"""Who is asking, for which tenant, and whether they may."""

from __future__ import annotations

import ipaddress
from typing import Any

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from counterfoil.accounts import api_keys
from counterfoil.accounts.api_keys import Caller
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db import base
from counterfoil.events.types import Actor
from counterfoil.house import House
from counterfoil.kernel.errors import Forbidden, Invalid, NotFound, TooManyRequests, Unauthorized
from counterfoil.settings import Settings

Asker = Request[Any, Any, Any]
PUBLIC = "public"
SLUG_STATE = "counterfoil_tenant_slug"
_CALLER_STATE = "counterfoil_caller"


class TenantPaths:
    """Takes ``/t/{tenant}`` off the path, so that every route serves every tenant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == ScopeType.HTTP and scope["path"].startswith("/t/"):
            slug, slash, rest = scope["path"][3:].partition("/")
            scope["path"] = slash + rest if slash else "/"
            scope["raw_path"] = scope["path"].encode()
            scope.setdefault("state", {})[SLUG_STATE] = slug
        await self._app(scope, receive, send)


def house_of(connection: ASGIConnection[Any, Any, Any, Any]) -> House:
    """The house behind a request."""
    house: House = connection.app.state.house
    return house


async def check_access(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let a request through to its route, or not: the one place where that is decided.

    Raises Unauthorized; Forbidden.
    """
    access = handler.opt["access"]
    if access == PUBLIC:
        return
    caller = await find_caller(connection)
    if caller is None:
        raise Unauthorized("Send an API key: Authorization: Bearer cfk_...")
    if not caller.may(access):
        raise Forbidden(f"This key lacks the scope {access}.", code="missing_scope")
    connection.scope["state"][_CALLER_STATE] = caller


async def find_caller(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller | None:
    """Whose key came with the request, if one did. Raises Unauthorized when it is not good."""
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    if not api_keys.looks_right(secret):
        raise Unauthorized("This is not an API key of this server.", code="bad_api_key")
    caller = await house_of(connection).scope(DEFAULT_TENANT).read(api_keys.find, secret)
    if caller is None:
        raise Unauthorized("This API key is unknown, revoked or expired.", code="bad_api_key")
    slug = connection.scope["state"].get(SLUG_STATE)
    if slug is not None and await _tenant_by_slug(house_of(connection), slug) != caller.tenant:
        raise Unauthorized("This API key belongs to another tenant.", code="bad_api_key")
    return caller


def scope_of(request: Asker) -> base.Scope:
    """The database as the key of this request sees it; only for routes that need a key."""
    caller: Caller = request.scope["state"][_CALLER_STATE]
    actor = Actor("key", caller.key_id, address_of(request), user_agent_of(request))
    return house_of(request).scope(caller.tenant, actor)


async def public_scope(request: Asker) -> base.Scope:
    """The database as anybody sees it, in the tenant of the path or the host name."""
    actor = Actor("anonymous", None, address_of(request), user_agent_of(request))
    return house_of(request).scope(await tenant_of(request), actor)


async def tenant_of(request: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The tenant of a public request: from ``/t/{tenant}``, else the host name, else the default one.

    Raises NotFound for a tenant that does not exist or does not sell.
    """
    house = house_of(request)
    slug = request.scope["state"].get(SLUG_STATE)
    if slug is not None:
        return await _tenant_by_slug(house, slug)
    everyone = await house.tenants()
    if len(everyone) > 1:
        host = request.headers.get("host", "").partition(":")[0].lower()
        for tenant, row in everyone.items():
            if host in row.hosts and row.status == "active":
                return tenant
    return DEFAULT_TENANT


async def _tenant_by_slug(house: House, slug: str) -> str:
    for tenant, row in (await house.tenants()).items():
        if row.slug == slug and row.status == "active":
            return tenant
    raise NotFound("There is no such shop here.", code="tenant_not_found")


async def idempotency_key_of(request: Asker, key: str | None) -> str | None:
    """An Idempotency-Key within its caller's own scope: the API key, else the client's address, and the path.

    Two callers who happen to use the same key must never get each other's answer. The key may be quoted (a
    structured field string) or bare. Raises Invalid for one that is empty or not printable.
    """
    if key is None:
        return None
    bare = key[1:-1] if len(key) >= 2 and key[0] == key[-1] == '"' else key
    if not bare or not bare.isprintable():
        raise Invalid("The Idempotency-Key must be 1 to 255 printable characters.", code="bad_idempotency_key")
    caller = await find_caller(request)
    return f"{caller.key_id if caller else address_of(request)} {request.scope['path']} {bare}"


def user_agent_of(request: Asker) -> str | None:
    """What the program calls itself, cut to 300 characters."""
    agent = request.headers.get("user-agent")
    return agent[:300] if agent else None


def address_of(request: Asker) -> str | None:
    """The client's address. ``X-Forwarded-For`` counts only as far as trusted proxies wrote it."""
    peer = request.client.host if request.client else None
    trusted: Trusted = request.app.state.trusted
    if peer is None or not trusted.has(peer):
        return peer
    forwarded = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
    for hop in reversed(forwarded):
        if not trusted.has(hop):
            return hop[:64]
    return peer


class Trusted:
    """Networks whose word on a client's address is taken."""

    def __init__(self, settings: Settings) -> None:
        self._networks = [ipaddress.ip_network(text) for text in settings.trusted_proxies]

    def has(self, address: str) -> bool:
        """Whether the address is a trusted proxy's."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


class Limits:
    """How often one address, or one machine, may ask. Counted in this process."""

    def __init__(self, settings: Settings) -> None:
        self._window = FixedWindowRateLimiter(MemoryStorage())
        per_minute, per_hour = settings.validations_per_minute, settings.heartbeats_per_hour
        self._address: RateLimitItem | None = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._machine: RateLimitItem | None = RateLimitItemPerHour(per_hour) if per_hour else None

    def allow_address(self, tenant: str, address: str | None) -> bool:
        """Count one request of this address. Whether it is still welcome."""
        return self._address is None or self._window.hit(self._address, tenant, address or "unknown")

    def allow_machine(self, tenant: str, license_id: str, fingerprint_hash: str) -> bool:
        """Count one heartbeat of this machine. Whether it is still welcome."""
        return self._machine is None or self._window.hit(self._machine, tenant, license_id, fingerprint_hash)


def check_rate(request: Asker, tenant: str) -> None:
    """Count a public request that writes. Raises TooManyRequests."""
    limits: Limits = request.app.state.limits
    if not limits.allow_address(tenant, address_of(request)):
        raise TooManyRequests("Too many requests from this address; wait a minute.")
