"""Roles and permissions over HTTP."""

from __future__ import annotations

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from counterfoil.accounts import roles
from counterfoil.accounts.permissions import BUNDLES, PERMISSIONS
from counterfoil.accounts.roles import NewRole, RoleChanges
from counterfoil.accounts.types import Role
from counterfoil.http.access import Asker, identity_of, scope_of
from counterfoil.http.problems import route


class Permission(msgspec.Struct, frozen=True):
    """Something there is to be allowed."""

    name: str
    description: str
    bundles: list[str]
    """The names that stand for it among others."""


@get("/v1/permissions", **route("roles:read"))
async def list_permissions() -> list[Permission]:
    """Every permission, what it allows, and the bundles it is in."""
    return [
        Permission(name, meaning, sorted(bundle for bundle, held in BUNDLES.items() if name in held))
        for name, meaning in PERMISSIONS.items()
    ]


@get("/v1/roles", **route("roles:read"))
async def list_roles(request: Asker) -> list[Role]:
    """Every role: the built-in ones, and those made here."""
    return await scope_of(request).read(roles.everyone)


@post("/v1/roles", **route("roles:write", 409))
async def create_role(request: Asker, data: JSONBody[NewRole]) -> Role:
    """Make a role of permissions that the caller holds."""
    return await scope_of(request).run(roles.create, identity_of(request), data)


@patch("/v1/roles/{role_id:str}", **route("roles:write", 404, 409))
async def update_role(request: Asker, role_id: FromPath[str], data: JSONBody[RoleChanges]) -> Role:
    """Change a role for everybody who has it; what is left out stays."""
    return await scope_of(request).run(roles.update, identity_of(request), role_id, data)


@delete("/v1/roles/{role_id:str}", **route("roles:write", 404, 409))
async def delete_role(request: Asker, role_id: FromPath[str]) -> None:
    """Delete a role that nobody has and no invitation names."""
    await scope_of(request).run(roles.delete, identity_of(request), role_id)


roles_router = Router(
    path="/", tags=["Roles"], route_handlers=[list_permissions, list_roles, create_role, update_role, delete_role]
)
