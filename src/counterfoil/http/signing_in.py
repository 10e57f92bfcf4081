"""Signing a browser in and out: the session's cookie, and where to go next."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from litestar.datastructures import Cookie

from counterfoil.accounts import sessions
from counterfoil.accounts.access import Identity
from counterfoil.accounts.types import SessionMethod
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.http.access import (
    Asker,
    address_of,
    find_identity,
    house_of,
    scope_for,
    session_cookie_name,
    source_of,
    tenant_of,
    user_agent_of,
)
from counterfoil.kernel.errors import NotFound, Unauthorized
from counterfoil.kernel.secrets import new_secret

_INNER = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_TOKEN_BYTES = 20

R = TypeVar("R")


async def sign_in(request: Asker, user_id: str, method: SessionMethod) -> list[Cookie]:
    """Open a session for this browser under a fresh token, and end the one it had; the cookie to set.

    Whoever calls this has just seen the proof.
    """
    actor = Actor("user", user_id, address_of(request), user_agent_of(request), source_of(request))
    _, cookies = await sign_in_by(request, actor, method, lambda _: Proved(user_id))
    return cookies


class Proved(NamedTuple, Generic[R]):
    """Whose proof was good, and what else came of it."""

    user_id: str
    more: R = None  # type: ignore[assignment] # a proof of which nothing else comes


async def sign_in_by(
    request: Asker, actor: Actor, method: SessionMethod, prove: Callable[[Tx], Proved[R]]
) -> tuple[R, list[Cookie]]:
    """Do what proves who somebody is, and sign them in, in one transaction; what came of it, and the cookie to set.

    The browser's session before this one ends with it. Raises what ``prove`` raises.
    """
    house = house_of(request)
    try:
        before = await find_identity(request)
    except Unauthorized:  # an API key that is no good has no bearing on this
        before = None
    token = new_secret(_TOKEN_BYTES)
    scope = scope_for(request, await tenant_of(request), actor)
    more = await scope.run(_prove_and_open, prove, token, method, house.session_lasts, before)
    return more, [_cookie(request, token, int(house.session_lasts.longest.total_seconds()))]


def _prove_and_open(
    tx: Tx,
    prove: Callable[[Tx], Proved[R]],
    token: str,
    method: SessionMethod,
    lasts: sessions.Lasts,
    before: Identity | None,
) -> R:
    user_id, more = prove(tx)
    ours = before is not None and before.id == user_id
    sessions.open_(tx, user_id, token, method, lasts, replaces=before.session_id if before and ours else None)
    if before is not None and before.session_id is not None and not ours:  # somebody else's, in this browser
        with contextlib.suppress(NotFound):  # ended a moment ago
            sessions.revoke(tx, before.id, before.session_id)
    return more


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
