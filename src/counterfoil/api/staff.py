"""Staff over HTTP, and the nonces that the gravest actions need."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody

from counterfoil.accounts import nonces, staff
from counterfoil.accounts.staff import StaffRole
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, identity_of, scope_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.kernel.secrets import new_secret

NonceHeader = Annotated[
    str | None, HeaderParameter(name="Nonce", max_length=200, description="From POST /v1/nonces, for this purpose.")
]


class NewNonce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it is for: ``staff.grant``, ``tenant.suspend``, ``refund.approve``, ``refund.deny`` or ``refund.settle``."""

    purpose: str


class MadeNonce(msgspec.Struct, frozen=True):
    """Send it in the header ``Nonce`` of one request of this purpose, within five minutes."""

    nonce: str
    purpose: str
    expires_at: datetime


class NewStaff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who becomes what."""

    user_id: str
    role: str


class GrantedStaff(msgspec.Struct, frozen=True):
    """Who is what now; ``new`` is false when they were already."""

    user_id: str
    role: str
    new: bool


@post("/v1/nonces", **route("signed_in"))
async def create_nonce(request: Asker, data: JSONBody[NewNonce]) -> MadeNonce:
    """Ask for the right to do one grave thing once."""
    create = shaped(nonces.create, lambda made: MadeNonce(made.secret, made.nonce.purpose, made.nonce.expires_at))
    return await scope_of(request).run(create, data.purpose, new_secret())


@get("/v1/staff", **route("staff:read"))
async def list_staff(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[StaffRole]:
    """Who has which role in the tenant itself, oldest first."""
    return await scope_of(request).read(staff.list_, after=start(after), limit=limit)


@post("/v1/staff", **route("staff:write", 404))
async def grant_staff(request: Asker, data: JSONBody[NewStaff], nonce: NonceHeader = None) -> GrantedStaff:
    """Give a user a role in the tenant itself. Needs a nonce for ``staff.grant``."""
    grant = shaped(staff.grant, lambda new: GrantedStaff(data.user_id, data.role, new))
    return await scope_of(request).run(
        nonces.guarded, nonce, "staff.grant", grant, identity_of(request), data.user_id, data.role
    )


@delete("/v1/staff/{user_id:str}/{role_id:str}", **route("staff:write", 404, 409))
async def revoke_staff(request: Asker, user_id: FromPath[str], role_id: FromPath[str]) -> None:
    """Take a role in the tenant away. The last SuperAdmin stays."""
    await scope_of(request).run(staff.revoke, identity_of(request), user_id, role_id)


staff_router = Router(path="/", tags=["Staff"], route_handlers=[create_nonce, list_staff, grant_staff, revoke_staff])
