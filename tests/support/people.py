"""People who are signed in.

ada = await person(shop, "ada@example.com", staff="SuperAdmin")
good(await ada.http.get("/v1/me"))
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from litestar.types import ASGIApp

from counterfoil.accounts import assignments, roles, sessions, users
from counterfoil.accounts.sessions import Lasts
from counterfoil.accounts.types import DEFAULT_TENANT, SessionMethod
from counterfoil.db.tx import Tx
from counterfoil.kernel.secrets import new_secret
from tests.support.app import Shop, client_of


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    id: str
    email: str
    http: httpx.AsyncClient
    """Their browser: signed in. Close it, or let it be garbage: it holds no connection."""
    token: str


async def person(
    shop: Shop,
    email: str,
    *,
    staff: str | None = None,
    at: tuple[tuple[str, str], ...] = (),
    method: SessionMethod | None = None,
    tenant: str = DEFAULT_TENANT,
    app: ASGIApp | None = None,
    path: str = "",
) -> Person:
    """An account with a role in the tenant (``staff``) and roles at customers (``at``: role, customer), signed in.

    Staff signs in with a passkey unless ``method`` says otherwise. ``path`` is the tenant's, ``/t/other`` say.
    """
    token = new_secret(20)
    how: SessionMethod = method or ("passkey" if staff else "password")
    user_id = await shop.house.scope(tenant).run(_make, email, staff, at, token, how, shop.house.session_lasts)
    name = "cf_session" if not path else f"cf_session_{path.rpartition('/')[2]}"
    client = client_of(app or shop.app, headers={"Cookie": f"{name}={token}", "User-Agent": "tests"})
    client.base_url = client.base_url.join(f"{path}/")
    return Person(user_id, email, client, token)


def _make(
    tx: Tx,
    email: str,
    staff: str | None,
    at: tuple[tuple[str, str], ...],
    token: str,
    method: SessionMethod,
    lasts: Lasts,
) -> str:
    known = users.by_email(tx, email)
    user = known or users.create(tx, email=email, first_name=email.partition("@")[0].title(), last_name="", via="tests")
    if staff is not None:
        assignments.grant(tx, user.id, roles.by_name(tx, staff).id, None)
    for role, customer_id in at:
        assignments.grant(tx, user.id, roles.by_name(tx, role).id, customer_id)
    sessions.open_(tx, user.id, token, method, lasts)
    return user.id
