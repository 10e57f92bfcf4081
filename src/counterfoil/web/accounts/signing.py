"""Signing up, in and out, and a new password for whoever forgot theirs."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromQuery, QueryParameter
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import password_resets, sign_up
from counterfoil.accounts.sign_up import NewSignUp
from counterfoil.http.access import Asker, find_identity, house_of, public_scope
from counterfoil.http.accounts import (
    finish_reset,
    finish_sign_up,
    sign_in_with_password,
    sign_out,
    start_reset,
    start_sign_up,
)
from counterfoil.http.signing_in import safe_next
from counterfoil.kernel.errors import Conflict, Invalid, Unauthorized
from counterfoil.web.accounts.parts import OPEN, account_page, errors_of
from counterfoil.web.forms import read_form
from counterfoil.web.render import root_of, see_other

Next = Annotated[str | None, QueryParameter(name="next")]


def _onward(request: Asker, wanted: str | None) -> str:
    """Where to go once signed in: a page of this site, whatever the address says."""
    return safe_next(wanted, f"{root_of(request)}/account")


# -- signing up ---------------------------------------------------------------------------------------


@get("/sign-up", **OPEN)
async def sign_up_page(request: Asker) -> Response[Any]:
    """The form that asks for an account."""
    return await account_page(request, "sign_up.html")


@post("/sign-up", status_code=200, **OPEN)
async def sign_up_start(request: Asker) -> Response[Any]:
    """Send the letter; the page says the same whether or not the address has an account."""
    form = await read_form(request)
    wanted = NewSignUp(
        email=form.get("email", ""),
        first_name=form.get("first_name", ""),
        last_name=form.get("last_name", ""),
        organization=form.get("organization") or None,
    )
    try:
        await start_sign_up(request, wanted)
    except Invalid as error:
        errors = errors_of(error, "email", "first_name", "last_name", "organization")
        return await account_page(request, "sign_up.html", status=error.status, errors=errors, form=form)
    return await account_page(request, "letter_sent.html", email=wanted.email, why="sign_up")


@get("/sign-up/finish", **OPEN)
async def sign_up_finish_page(request: Asker, token: FromQuery[str] = "") -> Response[Any]:
    """Where the letter's link leads: to a password. Opening it changes nothing."""
    return await _finish_page(request, token)


async def _finish_page(request: Asker, token: str, error: Invalid | None = None) -> Response[Any]:
    scope = await public_scope(request)
    try:
        wanted = await scope.read(sign_up.read, token)
    except Invalid as spent:
        return await account_page(request, "link_spent.html", status=spent.status, again="/sign-up")
    return await account_page(
        request,
        "sign_up_finish.html",
        status=error.status if error else 200,
        errors=errors_of(error, "password") if error else None,
        token=token,
        wanted=wanted,
    )


@post("/sign-up/finish", status_code=303, **OPEN)
async def sign_up_finish(request: Asker) -> Response[Any]:
    """Make the account, and sign its owner in."""
    form = await read_form(request)
    token = form.get("token", "")
    try:
        _, cookies = await finish_sign_up(request, token, form.get("password", ""))
    except Invalid as error:
        return await _finish_page(request, token, error)
    except Conflict as error:  # the address got an account meanwhile
        return await account_page(request, "link_spent.html", status=error.status, again="/sign-in")
    return see_other(f"{root_of(request)}/account?done=signed_up", cookies)


# -- signing in and out -------------------------------------------------------------------------------


@get("/sign-in", **OPEN)
async def sign_in_page(request: Asker, wanted: Next = None) -> Response[Any]:
    """The form to sign in, and the other ways."""
    try:
        known = await find_identity(request)
    except Unauthorized:  # an API key that is no good is nobody's session
        known = None
    if known is not None and known.session_id is not None:
        return see_other(_onward(request, wanted))
    return await _sign_in_page(request, {"next": wanted or ""})


async def _sign_in_page(request: Asker, form: dict[str, str], error: Unauthorized | None = None) -> Response[Any]:
    onward = safe_next(form.get("next"), "")
    return await account_page(
        request,
        "sign_in.html",
        status=error.status if error else 200,
        errors={"form": error.detail} if error else None,
        form=form,
        next=onward,
        query=f"?next={quote(onward, safe='/')}" if onward else "",
        providers=house_of(request).oidc.names(),
    )


@post("/sign-in", status_code=303, **OPEN)
async def sign_in(request: Asker) -> Response[Any]:
    """Sign in with a password."""
    form = await read_form(request)
    try:
        _, cookies = await sign_in_with_password(request, form.get("email", ""), form.get("password", ""))
    except Unauthorized as error:
        return await _sign_in_page(request, form, error)
    return see_other(_onward(request, form.get("next")), cookies)


@post("/sign-out", status_code=303, **OPEN)
async def sign_out_here(request: Asker) -> Response[Any]:
    """End this browser's session."""
    await read_form(request)
    return see_other(f"{root_of(request)}/", await sign_out(request))


# -- a forgotten password -----------------------------------------------------------------------------


@get("/forgot", **OPEN)
async def forgot_page(request: Asker) -> Response[Any]:
    """The form that asks for a letter."""
    return await account_page(request, "forgot.html")


@post("/forgot", status_code=200, **OPEN)
async def forgot(request: Asker) -> Response[Any]:
    """Send the letter; the page says the same whether or not the address has an account."""
    form = await read_form(request)
    try:
        await start_reset(request, form.get("email", ""))
    except Invalid as error:
        errors = errors_of(error, "email")
        return await account_page(request, "forgot.html", status=error.status, errors=errors, form=form)
    return await account_page(request, "letter_sent.html", email=form["email"], why="reset")


@get("/reset", **OPEN)
async def reset_page(request: Asker, token: FromQuery[str] = "") -> Response[Any]:
    """Where the letter's link leads: to a new password. Opening it changes nothing."""
    return await _reset_page(request, token)


async def _reset_page(request: Asker, token: str, error: Invalid | None = None) -> Response[Any]:
    scope = await public_scope(request)
    try:
        found = await scope.read(password_resets.read, token)
    except Invalid as spent:
        return await account_page(request, "link_spent.html", status=spent.status, again="/forgot")
    return await account_page(
        request,
        "reset.html",
        status=error.status if error else 200,
        errors=errors_of(error, "password") if error else None,
        token=token,
        email=found.email,
    )


@post("/reset", status_code=303, **OPEN)
async def reset(request: Asker) -> Response[Any]:
    """Set the new password, end every session, and sign this browser in."""
    form = await read_form(request)
    token = form.get("token", "")
    try:
        cookies = await finish_reset(request, token, form.get("password", ""))
    except Invalid as error:
        return await _reset_page(request, token, error)
    return see_other(f"{root_of(request)}/account?done=password", cookies)


HANDLERS: list[ControllerRouterHandler] = [
    sign_up_page,
    sign_up_start,
    sign_up_finish_page,
    sign_up_finish,
    sign_in_page,
    sign_in,
    sign_out_here,
    forgot_page,
    forgot,
    reset_page,
    reset,
]
