"""Signing a browser in and out: the session's cookie, and where to go next."""

from __future__ import annotations

import re

from litestar.datastructures import Cookie

from counterfoil.accounts import sessions
from counterfoil.accounts.types import SessionMethod
from counterfoil.events.types import Actor
from counterfoil.http.access import (
    Asker,
    address_of,
    find_identity,
    house_of,
    session_cookie_name,
    source_of,
    tenant_of,
    user_agent_of,
)
from counterfoil.kernel.errors import Unauthorized
from counterfoil.kernel.secrets import new_secret

_INNER = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_TOKEN_BYTES = 20


async def sign_in(request: Asker, user_id: str, method: SessionMethod) -> list[Cookie]:
    """Open a session for this browser under a fresh token, and end the one it had; the cookie to set.

    Whoever calls this has just seen the proof.
    """
    house = house_of(request)
    try:
        before = await find_identity(request)
    except Unauthorized:  # an API key that is no good has no bearing on this
        before = None
    replaces = before.session_id if before is not None and before.id == user_id else None
    token = new_secret(_TOKEN_BYTES)
    actor = Actor("user", user_id, address_of(request), user_agent_of(request), source_of(request))
    scope = house.scope(await tenant_of(request), actor)
    await scope.run(sessions.open_, user_id, token, method, house.session_lasts, replaces=replaces)
    if before is not None and before.session_id is not None and replaces is None:  # somebody else's, in this browser
        await scope.run(sessions.revoke, before.id, before.session_id)
    return [_cookie(request, token, int(house.session_lasts.longest.total_seconds()))]


def signed_out(request: Asker) -> list[Cookie]:
    """The end of the session's cookie."""
    return [_cookie(request, "", 0)]


def _cookie(request: Asker, value: str, max_age: int) -> Cookie:
    return Cookie(
        key=session_cookie_name(request),
        value=value,
        max_age=max_age,
        path="/",
        httponly=True,
        secure=house_of(request).settings.base_url.startswith("https://"),
        samesite="lax",
    )


def safe_next(text: str | None, default: str) -> str:
    """Where to go after signing in: a path of this site, whatever was asked for.

    Two slashes, or a backslash that browsers read as one, would lead to another site.
    """
    return text if text is not None and len(text) <= 2000 and _INNER.fullmatch(text) else default
