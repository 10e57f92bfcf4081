"""The people who can sign in, over HTTP, for staff."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from counterfoil.accounts import closing, users
from counterfoil.accounts.types import UserStatus
from counterfoil.accounts.users import UserSummary
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, identity_of, scope_of
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


@get("/v1/users", **route("users:read"))
async def list_users(
    request: Asker,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    email: Annotated[str | None, QueryParameter(max_length=320)] = None,
    status: FromQuery[UserStatus | None] = None,
) -> Page[UserSummary]:
    """Users, oldest first: whose proved address it is, by status, or all. Deleted ones are not among them."""
    return await scope_of(request).read(users.list_, email=email, status=status, after=start(after), limit=limit)


@get("/v1/users/{user_id:str}", **route("users:read", 404))
async def get_user(request: Asker, user_id: FromPath[str]) -> UserSummary:
    """One user."""
    return await scope_of(request).read(users.summary, user_id)


@post("/v1/users/{user_id:str}/disable", status_code=200, **route("users:write", 404, 409))
async def disable_user(request: Asker, user_id: FromPath[str]) -> UserSummary:
    """Let a user in no longer. Their sessions end at once."""
    return await scope_of(request).run(closing.disable, identity_of(request), user_id)


@post("/v1/users/{user_id:str}/enable", status_code=200, **route("users:write", 404, 409))
async def enable_user(request: Asker, user_id: FromPath[str]) -> UserSummary:
    """Let a disabled user in again."""
    return await scope_of(request).run(closing.enable, identity_of(request), user_id)


users_router = Router(path="/", tags=["Users"], route_handlers=[list_users, get_user, disable_user, enable_user])
