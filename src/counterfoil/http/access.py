"""Who is asking, for which tenant, and whether they may."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from counterfoil.accounts import api_keys, sessions
from counterfoil.accounts.access import Identity, decide
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db import base
from counterfoil.events.types import Actor, Source
from counterfoil.house import House
from counterfoil.kernel.errors import Forbidden, NotFound, TooManyRequests, Unauthorized
from counterfoil.settings import Settings

Asker = Request[Any, Any, Any]
PUBLIC = "public"
SLUG_STATE = "counterfoil_tenant_slug"
IDENTITY_STATE = "counterfoil_identity"
ONCE_STATE = "counterfoil_once"
"""What sees to it that a request with an Idempotency-Key changes things once."""
_SAFE = {"GET", "HEAD", "OPTIONS"}


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

    A path parameter ``customer_id`` is the customer that the permission must be held at.
    Raises Unauthorized, Forbidden, NotFound.
    """
    permission = handler.opt["access"]
    if permission == PUBLIC:
        return
    identity = await find_identity(connection, connection.path_params.get("customer_id"))
    if identity is None:
        raise Unauthorized("Send an API key (Authorization: Bearer cfk_...), or sign in.")
    decide(identity, permission)
    if identity.session_id is not None and connection.scope.get("method") not in _SAFE:
        check_origin(connection)
    connection.scope["state"][IDENTITY_STATE] = identity


async def find_identity(connection: ASGIConnection[Any, Any, Any, Any], target: str | None = None) -> Identity | None:
    """Whose API key or session came with the request, if one did, and what they may do at ``target``.

    One statement at most. Raises Unauthorized when the credential is not good.
    """
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await _by_key(connection, secret, target)
    return await _by_session(connection, target)


async def _by_key(connection: ASGIConnection[Any, Any, Any, Any], secret: str, target: str | None) -> Identity:
    house = house_of(connection)
    if not api_keys.looks_right(secret):
        raise Unauthorized("This is not an API key of this server.", code="bad_api_key")
    identity = await house.scope(DEFAULT_TENANT).read(api_keys.identify, secret, target)
    if identity is None:
        raise Unauthorized("This API key is unknown, revoked or expired.", code="bad_api_key")
    slug = connection.scope["state"].get(SLUG_STATE)
    if slug is not None and await _tenant_by_slug(house, slug) != identity.tenant:
        raise Unauthorized("This API key belongs to another tenant.", code="bad_api_key")
    if identity.worn:
        house.uses.note(identity.tenant, "key", identity.id)
    return identity


async def _by_session(connection: ASGIConnection[Any, Any, Any, Any], target: str | None) -> Identity | None:
    token = session_token_of(connection)
    if token is None:
        return None
    house = house_of(connection)
    try:
        tenant = await tenant_of(connection)
    except NotFound:  # suspended, or never there: nobody is signed in
        return None
    identity = await house.scope(tenant).read(sessions.identify, token, target, house.session_lasts)
    if identity is not None and identity.worn and identity.session_id is not None:
        house.uses.note(tenant, "session", identity.session_id)
    return identity


def session_token_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The session token a browser sent for this tenant."""
    return connection.cookies.get(session_cookie_name(connection)) or None


def session_cookie_name(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The cookie that holds a session; one a tenant, because tenants may share a host name."""
    slug = connection.scope["state"].get(SLUG_STATE)
    name = "cf_session" if slug is None else f"cf_session_{slug}"
    # Browsers hold a __Host- cookie to this very host: no other subdomain can plant one.
    return f"__Host-{name}" if house_of(connection).settings.base_url.startswith("https://") else name


def check_origin(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Refuse what a page of another site makes a browser send. Raises Forbidden (``cross_site``).

    Browsers say where a request comes from (Fetch Metadata), older ones at least its Origin; programs say
    neither, and have no cookies to abuse.
    """
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        if site in {"same-origin", "none"}:
            return
    else:
        origin = connection.headers.get("origin")
        if origin is None or urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower():
            return
    raise Forbidden("This request comes from another site.", code="cross_site")


def identity_of(request: Asker) -> Identity:
    """Whoever asks; only for routes that are not public."""
    identity: Identity = request.scope["state"][IDENTITY_STATE]
    return identity


def user_of(request: Asker) -> Identity:
    """The person who asks, on a route about themselves. Raises Forbidden (``users_only``) for a program."""
    identity = identity_of(request)
    if identity.kind != "user":
        raise Forbidden("This is for people who are signed in; a key has no account.", code="users_only")
    return identity


def scope_of(request: Asker) -> base.Scope:
    """The database as the caller sees it; only for routes that are not public."""
    identity = identity_of(request)
    actor = Actor(identity.kind, identity.id, address_of(request), user_agent_of(request), source_of(request))
    return scope_for(request, identity.tenant, actor)


def scope_for(request: Asker, tenant: str, actor: Actor) -> base.Scope:
    """The database as this actor sees it; what it changes for a request with an Idempotency-Key, it changes once."""
    return base.Scope(house_of(request).database, tenant, actor, request.scope["state"].get(ONCE_STATE))


def source_of(request: Asker) -> Source:
    """Through which door a request came."""
    return "api" if request.scope["path"].startswith("/v1/") else "web"


async def public_scope(request: Asker) -> base.Scope:
    """The database as anybody sees it, in the tenant of the path or the host name."""
    actor = Actor("anonymous", None, address_of(request), user_agent_of(request), source_of(request))
    return scope_for(request, await tenant_of(request), actor)


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
        host = request.headers.get("host", "").partition(":")[0].lower().removesuffix(".")
        for tenant, row in everyone.items():
            if host in row.hosts:
                if row.status != "active":
                    raise _no_shop()
                return tenant
    return DEFAULT_TENANT


async def _tenant_by_slug(house: House, slug: str) -> str:
    for tenant, row in (await house.tenants()).items():
        if row.slug == slug and row.status == "active":
            return tenant
    raise _no_shop()


def _no_shop() -> NotFound:
    return NotFound("There is no such shop here.", code="tenant_not_found")


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
