"""Passkeys over the API: registering one, and signing in with it."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.app import Shop, client_of, good
from tests.support.authenticator import Authenticator


def session_in(response: httpx.Response) -> str:
    """The session's token that an answer sets."""
    return response.cookies["cf_session"]


def browser(shop: Shop, token: str) -> httpx.AsyncClient:
    """A browser that holds a session."""
    return client_of(shop.app, headers={"Cookie": f"cf_session={token}", "User-Agent": "tests"})


async def new_options(http: httpx.AsyncClient) -> dict[str, Any]:
    options: dict[str, Any] = good(await http.post("/v1/me/passkeys/options"))["options"]
    return options


async def try_register(http: httpx.AsyncClient, key: Authenticator, name: str = "Key", **how: Any) -> httpx.Response:
    credential = key.make(await new_options(http), **how)
    return await http.post("/v1/me/passkeys", json={"credential": credential, "name": name})


async def register(
    shop: Shop, http: httpx.AsyncClient, key: Authenticator, name: str = "Key"
) -> tuple[httpx.AsyncClient, dict[str, Any]]:
    """Register a passkey; the browser with its new session, and the answer."""
    answer = await try_register(http, key, name)
    return browser(shop, session_in(answer)), good(answer)


async def sign_in_options(http: httpx.AsyncClient, email: str | None = None) -> dict[str, Any]:
    """With the token beside ``options``."""
    asked: dict[str, Any] = good(await http.post("/v1/session/passkey/options", json={"email": email}))
    return asked


async def try_sign_in(
    http: httpx.AsyncClient, key: Authenticator, email: str | None = None, **how: Any
) -> httpx.Response:
    asked = await sign_in_options(http, email)
    credential = key.show(asked["options"], **how)
    return await http.post("/v1/session/passkey", json={"token": asked["token"], "credential": credential})
