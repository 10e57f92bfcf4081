"""Signing up, in and out, and new passwords over HTTP. What is answered never tells whether an address is known."""

from __future__ import annotations

import msgspec
from litestar import Response, Router, delete, post
from litestar.params import JSONBody

from counterfoil.accounts.sign_up import NewSignUp
from counterfoil.http.access import Asker, user_of
from counterfoil.http.accounts import (
    finish_reset,
    finish_sign_up,
    sign_in_with_password,
    sign_out,
    start_reset,
    start_sign_up,
)
from counterfoil.http.problems import route


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signs in."""

    email: str
    password: str


class NewPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token of a letter's link, and the password to be."""

    token: str
    password: str


class WhoForgot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who needs a new password."""

    email: str


class SignedIn(msgspec.Struct, frozen=True):
    """Whose session it is that the cookie holds."""

    user_id: str


class NewAccount(msgspec.Struct, frozen=True):
    """Who signed up, and the customer they buy for."""

    user_id: str
    customer_id: str


class Accepted(msgspec.Struct, frozen=True):
    """What happens next, whether or not the address is known."""

    detail: str


@post("/v1/sign-up", status_code=202, **route("public", 404))
async def sign_up(request: Asker, data: JSONBody[NewSignUp]) -> Accepted:
    """Ask for an account. A letter holds the link to it; nothing else is made before that is used."""
    await start_sign_up(request, data)
    return Accepted("We have sent a letter to this address.")


@post("/v1/sign-up/finish", status_code=201, **route("public", 403, 404, 409))
async def sign_up_finish(request: Asker, data: JSONBody[NewPassword]) -> Response[NewAccount]:
    """Make the account a letter was about, with this password, and sign in; the cookie is the session."""
    made, cookies = await finish_sign_up(request, data.token, data.password)
    return Response(NewAccount(made.user.id, made.customer.id), status_code=201, cookies=cookies)


@post("/v1/session", status_code=200, **route("public", 401, 403, 404))
async def sign_in(request: Asker, data: JSONBody[Credentials]) -> Response[SignedIn]:
    """Sign in with a password; the cookie is the session. It ends the one this browser had."""
    user_id, cookies = await sign_in_with_password(request, data.email, data.password)
    return Response(SignedIn(user_id), status_code=200, cookies=cookies)


@delete("/v1/session", status_code=204, **route("signed_in", 204))
async def sign_out_here(request: Asker) -> Response[None]:
    """Sign out: end this session."""
    user_of(request)
    return Response(None, status_code=204, cookies=await sign_out(request))


@post("/v1/password-resets", status_code=202, **route("public", 404))
async def forgot(request: Asker, data: JSONBody[WhoForgot]) -> Accepted:
    """Ask for a link to a new password, good for an hour. The links before it are worth nothing any more."""
    await start_reset(request, data.email)
    return Accepted("If there is an account with this address, we have sent a letter to it.")


@post("/v1/password-resets/finish", status_code=204, **route("public", 204, 403, 404))
async def reset(request: Asker, data: JSONBody[NewPassword]) -> Response[None]:
    """Set a new password by a letter's link, end every session, and sign in; the cookie is the session."""
    return Response(None, status_code=204, cookies=await finish_reset(request, data.token, data.password))


sign_in_router = Router(
    path="/",
    tags=["Signing in"],
    route_handlers=[sign_up, sign_up_finish, sign_in, sign_out_here, forgot, reset],
)
