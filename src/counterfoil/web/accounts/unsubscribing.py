"""Unsubscribing by the link in a letter: for people with a button, for mail programs with one click (RFC 8058)."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import preferences
from counterfoil.http.access import Asker, house_of, public_scope
from counterfoil.http.unsubscribing import read_link
from counterfoil.web.accounts.parts import LETTERS, OPEN, account_page


@get("/unsubscribe/{token:str}", **OPEN)
async def unsubscribe_page(request: Asker, token: FromPath[str]) -> Response[Any]:
    """A button. Opening the page changes nothing: programs that look at letters follow links."""
    scope = await public_scope(request)
    found = read_link(house_of(request), scope.tenant, token)
    return await account_page(
        request, "unsubscribe.html", token=token, letters=LETTERS[found.email_type][0], is_done=False
    )


@post("/unsubscribe/{token:str}", status_code=200, **OPEN)
async def unsubscribe(request: Asker, token: FromPath[str]) -> Response[Any]:
    """Unsubscribe. The token says all there is to say, so the body is not read: mail programs send their own."""
    scope = await public_scope(request)
    found = read_link(house_of(request), scope.tenant, token)
    await scope.run(preferences.unsubscribe, found)
    return await account_page(
        request, "unsubscribe.html", token=token, letters=LETTERS[found.email_type][0], is_done=True
    )


HANDLERS: list[ControllerRouterHandler] = [unsubscribe_page, unsubscribe]
