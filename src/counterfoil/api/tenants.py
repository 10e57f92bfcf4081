"""Tenants over HTTP: one's own, and all of them for the staff of the default tenant, who run the installation."""

from __future__ import annotations

from litestar import Router, get, patch, post
from litestar.params import FromPath, JSONBody

from counterfoil.accounts import nonces, tenants
from counterfoil.accounts.tenants import KnownTenant, NewTenant, OwnChanges, TenantChanges
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.api.staff import NonceHeader
from counterfoil.db.base import Scope
from counterfoil.http.access import Asker, house_of, identity_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.errors import Forbidden


def _landlord(request: Asker) -> Scope:
    """The scope of a caller of the default tenant. A tenant's own staff sees no other, whatever it may do at home.

    Raises Forbidden.
    """
    identity = identity_of(request)
    if identity.tenant != DEFAULT_TENANT:
        code = "missing_scope" if identity.kind == "key" else "missing_permission"
        raise Forbidden("This is for whoever runs the installation.", code=code)
    return scope_of(request)


@get("/v1/tenant", **route("tenant:read"))
async def get_own_tenant(request: Asker) -> KnownTenant:
    """The caller's own tenant."""
    return await scope_of(request).read(tenants.own)


@patch("/v1/tenant", **route("tenant:write"))
async def update_own_tenant(request: Asker, data: JSONBody[OwnChanges]) -> KnownTenant:
    """Change the name and settings of the caller's own tenant; what is left out stays."""
    changed = await scope_of(request).run(tenants.update_own, data)
    house_of(request).forget_tenants()
    return changed


@get("/v1/tenants", **route("tenants:read"))
async def list_tenants(request: Asker) -> list[KnownTenant]:
    """Every tenant of the installation, oldest first."""
    return await _landlord(request).read(tenants.list_)


@post("/v1/tenants", **route("tenants:write", 409))
async def create_tenant(request: Asker, data: JSONBody[NewTenant]) -> KnownTenant:
    """Make a tenant, ready to sell. Its owner gets a letter that lets them in."""
    landlord = _landlord(request)
    return await house_of(request).create_tenant(data, landlord.actor, landlord.once)


@get("/v1/tenants/{tenant_id:str}", **route("tenants:read", 404))
async def get_tenant(request: Asker, tenant_id: FromPath[str]) -> KnownTenant:
    """One tenant, by id or slug."""
    return await _landlord(request).read(tenants.find, tenant_id)


@patch("/v1/tenants/{tenant_id:str}", **route("tenants:write", 404, 409))
async def update_tenant(request: Asker, tenant_id: FromPath[str], data: JSONBody[TenantChanges]) -> KnownTenant:
    """Change a tenant; what is left out stays."""
    scope = _landlord(request)
    known = await scope.read(tenants.find, tenant_id)
    return await house_of(request).update_tenant(known.id, data, scope.actor)


@post("/v1/tenants/{tenant_id:str}/suspend", status_code=200, **route("tenants:write", 404, 409))
async def suspend_tenant(request: Asker, tenant_id: FromPath[str], nonce: NonceHeader = None) -> KnownTenant:
    """Close a tenant's doors until it is resumed. Needs a nonce for ``tenant.suspend``."""
    done = await _landlord(request).run(nonces.guarded, nonce, "tenant.suspend", tenants.suspend, tenant_id)
    house_of(request).forget_tenants()
    return done


@post("/v1/tenants/{tenant_id:str}/resume", status_code=200, **route("tenants:write", 404))
async def resume_tenant(request: Asker, tenant_id: FromPath[str]) -> KnownTenant:
    """Open a suspended tenant's doors again."""
    done = await _landlord(request).run(tenants.resume, tenant_id)
    house_of(request).forget_tenants()
    return done


tenants_router = Router(
    path="/",
    tags=["Tenants"],
    route_handlers=[
        get_own_tenant,
        update_own_tenant,
        list_tenants,
        create_tenant,
        get_tenant,
        update_tenant,
        suspend_tenant,
        resume_tenant,
    ],
)
