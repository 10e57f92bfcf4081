"""Signing up and in over HTTP, as programs do.

visitor = client_of(shop.app)
await sign_up(shop, visitor, "ada@example.com")
"""

from __future__ import annotations

import re
from typing import Any

import httpx

from counterfoil.accounts import roles, tenants
from counterfoil.db.base import Scope
from counterfoil.mail import outgoing
from tests.support.app import Shop, good

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "quite another phrase"
WRONG = {"email": "ada@example.com", "password": "not the password"}

_TOKEN = re.compile(r"[?&]token=([a-z2-7]{32})$")


async def token_to(shop: Shop, recipient: str, template: str) -> str:
    """The token in the newest letter of one kind to an address."""
    letters = [letter for letter in await shop.letters(recipient) if letter.template == template]
    found = _TOKEN.search(letters[-1].context["link"])
    assert found, letters[-1].context
    return found[1]


async def sign_up(
    shop: Shop, visitor: httpx.AsyncClient, email: str, *, password: str = PASSWORD, **form: Any
) -> dict[str, Any]:
    """Get an account; the visitor is signed in then. Whose it is, and the customer."""
    body = {"email": email, "first_name": "Ada", "last_name": "Lovelace", **form}
    good(await visitor.post("/v1/sign-up", json=body))
    token = await token_to(shop, email, "verify_sign_up")
    made: dict[str, Any] = good(await visitor.post("/v1/sign-up/finish", json={"token": token, "password": password}))
    return made


async def sign_in(visitor: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    """Try to."""
    return await visitor.post("/v1/session", json={"email": email, "password": password})


async def other_tenant(shop: Shop, slug: str = "other") -> Scope:
    """Another tenant of the installation, reached at ``/t/{slug}``."""
    scope = shop.house.scope("ten_01jgkx0000000000000000000b")
    await scope.run(tenants.create, slug, slug.title())
    await scope.run(roles.furnish)
    shop.house.forget_tenants()
    return scope


async def letters_of(scope: Scope) -> list[str]:
    """Which letters wait in a tenant, oldest first."""
    return [letter.template for letter in (await scope.read(outgoing.list_, limit=100)).data]
