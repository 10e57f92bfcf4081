"""Licenses and machines over HTTP, for staff."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Concatenate, ParamSpec

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.api.catalog import After, Limit, start
from counterfoil.catalog.products import check_text
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.http.access import Asker, house_of, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.licensing import licenses, machines
from counterfoil.licensing.keyring import Keyring
from counterfoil.licensing.types import License, LicenseStatus, Machine
from counterfoil.settlement.by_hand import NewLicense, issue_by_hand

P = ParamSpec("P")


class LicenseView(msgspec.Struct, frozen=True):
    """A license and its key."""

    id: str
    key: str
    product_id: str
    order_id: str | None
    tier: str
    status: LicenseStatus
    issued_at: datetime
    expires_at: datetime | None
    grace_seconds: int
    max_machines: int
    machine_count: int
    is_trial: bool
    entitlements: list[str]
    email: str | None
    note: str | None
    suspended_at: datetime | None
    suspension_reason: str | None
    revoked_at: datetime | None
    revocation_reason: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is done."""

    reason: str = ""


async def view(house: House, tenant: str, license_: License) -> LicenseView:
    """A license with its key."""
    ring = await house.keyring(tenant)
    if not ring.knows(license_.signing_key_id):
        ring = await house.keyring(tenant, doubt=True)
    return _view(ring, license_)


def _view(ring: Keyring, license_: License) -> LicenseView:
    fields = {name: getattr(license_, name) for name in LicenseView.__struct_fields__ if name != "key"}
    return LicenseView(key=ring.key_of(license_), **fields)


async def _change(
    request: Asker, op: Callable[Concatenate[Tx, P], License], *args: P.args, **kwargs: P.kwargs
) -> LicenseView:
    """Do something to a license, and show it: in the transaction, unless its key was made a moment ago."""
    house, scope = house_of(request), scope_of(request)
    ring = await house.keyring(scope.tenant)
    done = await scope.run(
        shaped(op, lambda changed: _view(ring, changed) if ring.knows(changed.signing_key_id) else changed),
        *args,
        **kwargs,
    )
    return done if isinstance(done, LicenseView) else await view(house, scope.tenant, done)


@get("/v1/licenses", **route("licenses:read"))
async def list_licenses(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    product_id: FromQuery[str | None] = None,
    email: FromQuery[str | None] = None,
) -> Page[LicenseView]:
    """Licenses, oldest first: of a product, of an e-mail address, or all."""
    scope = scope_of(request)
    page = await scope.read(licenses.list_, product_id=product_id, email=email, after=start(after), limit=limit)
    return Page([await view(house_of(request), scope.tenant, one) for one in page.data], page.next)


@post("/v1/licenses", **route("licenses:write", 404))
async def create_license(request: Asker, data: JSONBody[NewLicense]) -> LicenseView:
    """Issue a license by hand."""
    return await _change(request, issue_by_hand, data)


@get("/v1/licenses/{license_id:str}", **route("licenses:read", 404))
async def get_license(request: Asker, license_id: FromPath[str]) -> LicenseView:
    """One license and its key."""
    scope = scope_of(request)
    return await view(house_of(request), scope.tenant, await scope.read(licenses.get, license_id))


def _check_reason(data: Reason) -> None:
    check_text("reason", data.reason, most=2000)


@post("/v1/licenses/{license_id:str}/suspend", status_code=200, **route("licenses:write", 404, 409))
async def suspend_license(request: Asker, license_id: FromPath[str], data: JSONBody[Reason]) -> LicenseView:
    """Stop an active license for a while."""
    _check_reason(data)
    return await _change(request, licenses.suspend, license_id, reason=data.reason)


@post("/v1/licenses/{license_id:str}/reinstate", status_code=200, **route("licenses:write", 404, 409))
async def reinstate_license(request: Asker, license_id: FromPath[str]) -> LicenseView:
    """Let a suspended license run again."""
    return await _change(request, licenses.reinstate, license_id)


@post("/v1/licenses/{license_id:str}/revoke", status_code=200, **route("licenses:write", 404, 409))
async def revoke_license(request: Asker, license_id: FromPath[str], data: JSONBody[Reason]) -> LicenseView:
    """End a license for good."""
    _check_reason(data)
    return await _change(request, licenses.revoke, license_id, reason=data.reason)


@get("/v1/licenses/{license_id:str}/machines", **route("machines:read"))
async def list_machines(
    request: Asker, license_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[Machine]:
    """A license's machines, past ones included, oldest first."""
    return await scope_of(request).read(machines.list_, license_id, after=start(after), limit=limit)


@post("/v1/machines/{machine_id:str}/deactivate", status_code=200, **route("machines:write", 404, 409))
async def deactivate_machine(request: Asker, machine_id: FromPath[str], data: JSONBody[Reason]) -> Machine:
    """Free a machine's place; the license can then be used on another."""
    _check_reason(data)
    return await scope_of(request).run(machines.deactivate, machine_id, reason=data.reason or "by staff")


licenses_router = Router(
    path="/",
    tags=["Licenses"],
    route_handlers=[
        list_licenses,
        create_license,
        get_license,
        suspend_license,
        reinstate_license,
        revoke_license,
        list_machines,
        deactivate_machine,
    ],
)
