"""The OpenID Connect providers that open one's own account, over HTTP."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import Router, delete, get
from litestar.params import FromPath

from counterfoil.accounts import identities
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, house_of, scope_of, user_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


class IdentityView(msgspec.Struct, frozen=True):
    """A provider that opens the account."""

    id: str
    provider: str
    email: str | None
    """As the provider had verified it when it was linked."""
    created_at: datetime


@get("/v1/me/identities", **route("signed_in"))
async def list_identities(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[IdentityView]:
    """The providers that open the account of whoever asks, oldest first."""
    page = await scope_of(request).read(identities.list_, user_of(request).id, after=start(after), limit=limit)
    return Page([IdentityView(one.id, one.provider, one.email, one.created_at) for one in page.data], page.next)


@delete("/v1/me/identities/{identity_id:str}", status_code=204, **route("signed_in", 404, 409))
async def delete_identity(request: Asker, identity_id: FromPath[str]) -> None:
    """Let a provider open the account no longer; refused for the only way to sign in."""
    usable = {name for name, _ in house_of(request).oidc.names()}
    await scope_of(request).run(identities.unlink, user_of(request).id, identity_id, providers=usable)


identities_router = Router(path="/", tags=["Accounts"], route_handlers=[list_identities, delete_identity])
