"""The pages about passkeys: enrolling, signing in, the way back with a code, and one's own.

A passkey takes two pages: the first says what to ask the browser, the second has its answer in a form. Nothing is
fetched behind them, so that their policy need not allow it.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import msgspec
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, QueryParameter
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import enrollment, passkeys, recovery_codes
from counterfoil.accounts.access import Identity
from counterfoil.accounts.types import Passkey
from counterfoil.db.base import Scope
from counterfoil.http.access import Asker, check_rate, find_identity, house_of, public_scope, scope_of, user_of
from counterfoil.http.passkeys import (
    Asked,
    begin_enrollment,
    begin_registration,
    begin_sign_in,
    finish_enrollment,
    finish_registration,
    finish_sign_in,
    party_of,
    read_credential,
    read_own,
    recover,
    session_of,
)
from counterfoil.http.signing_in import safe_next
from counterfoil.kernel.errors import Conflict, CounterfoilError, Forbidden, Invalid, Unauthorized
from counterfoil.web import words
from counterfoil.web.accounts.parts import OPEN, OWN, account_page, errors_of
from counterfoil.web.forms import read_form
from counterfoil.web.render import root_of, see_other, version_of

_TO_TRY_AGAIN = (Unauthorized, Conflict, Invalid)

Next = Annotated[str | None, QueryParameter(name="next")]


async def _elsewhere(request: Asker) -> Response[str] | None:
    """The page that leads to the name passkeys belong to, where somebody has opened ours at a loopback address.

    Behind any other name a proxy may have good reasons to rename us. Raises Conflict (``passkeys_unavailable``).
    """
    party = await party_of(request)
    host = request.headers.get("host", "").lower()
    if party.id != "localhost" or host == urlsplit(party.origin).netloc:
        return None
    query = request.scope["query_string"].decode("latin-1")
    path = root_of(request) + quote(request.scope["path"])
    proper = f"{party.origin}{path}{'?' + query if query else ''}"
    return await account_page(request, "passkey_address.html", host=host, name=party.id, proper=proper)


async def _ask(request: Asker, asked: Asked, action: str, hidden: dict[str, str], back: str) -> Response[str]:
    return await account_page(
        request,
        "passkey_make.html",
        passkeys_version=version_of("passkeys.js"),
        options=msgspec.json.encode(asked.options).decode(),
        action=f"{root_of(request)}{action}",
        hidden=hidden,
        back=f"{root_of(request)}{back}",
    )


async def _codes(request: Asker, codes: list[str], onward: str, cookies: list[Cookie] | None = None) -> Response[str]:
    return await account_page(request, "passkey_codes.html", codes=codes, onward=onward, cookies=cookies)


def _home(request: Asker) -> str:
    return f"{root_of(request)}/account"


# -- enrolling ----------------------------------------------------------------------------------------


@get("/enroll/{token:str}", **OPEN)
async def enroll_page(request: Asker, token: FromPath[str]) -> Response[Any]:
    """What a one-time link opens. Looking at it changes nothing."""
    if (elsewhere := await _elsewhere(request)) is not None:
        return elsewhere
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    return await _enroll_page(request, scope, token, {})


async def _enroll_page(
    request: Asker, scope: Scope, token: str, form: dict[str, str], error: CounterfoilError | None = None
) -> Response[str]:
    found = await scope.read(enrollment.read, token)
    given = {"first_name": found.first_name, "last_name": found.last_name, "name": "Passkey"}
    return await account_page(
        request,
        "passkey_enroll.html",
        status=error.status if error else 200,
        errors=errors_of(error, "first_name", "last_name", "name") if error else None,
        form={name: form.get(name, value) for name, value in given.items()},
        enrollment=found,
        token=token,
        until=words.minute(found.expires_at),
    )


@post("/enroll/{token:str}", status_code=200, **OPEN)
async def enroll_ask(request: Asker, token: FromPath[str]) -> Response[Any]:
    """Ask for the passkey."""
    form = await read_form(request)
    scope = await public_scope(request)
    first_name, last_name, name = (form.get(field, "") for field in ("first_name", "last_name", "name"))
    try:
        enrollment.check_names(first_name, last_name, name)
        asked = await begin_enrollment(request, token, first_name, last_name)
    except Invalid as error:
        return await _enroll_page(request, scope, token, form, error)
    hidden = {"first_name": first_name, "last_name": last_name, "name": name}
    return await _ask(request, asked, f"/enroll/{token}/passkey", hidden, f"/enroll/{token}")


@post("/enroll/{token:str}/passkey", status_code=200, **OPEN)
async def enroll_finish(request: Asker, token: FromPath[str]) -> Response[Any]:
    """Take the passkey, and let its owner in."""
    form = await read_form(request)
    scope = await public_scope(request)
    try:
        made, cookies = await finish_enrollment(
            request,
            token,
            read_credential(form.get("credential", "")),
            first_name=form.get("first_name", ""),
            last_name=form.get("last_name", ""),
            name=form.get("name", ""),
        )
    except (Conflict, Invalid) as error:
        return await _enroll_page(request, scope, token, form, error)
    if not made.recovery_codes:
        return see_other(_home(request), cookies)
    return await _codes(request, made.recovery_codes, _home(request), cookies)


# -- signing in ---------------------------------------------------------------------------------------


@get("/sign-in/passkey", **OPEN)
async def sign_in_page(request: Asker, wanted: Next = None) -> Response[Any]:
    """Where one signs in with a passkey, or shows it in a session that lacks it."""
    if (elsewhere := await _elsewhere(request)) is not None:
        return elsewhere
    return await _sign_in_page(request, wanted)


async def _sign_in_page(
    request: Asker,
    wanted: str | None,
    form: dict[str, str] | None = None,
    error: CounterfoilError | None = None,
    asked: Asked | None = None,
) -> Response[str]:
    who = await _signed_in(request)
    asked = asked or await begin_sign_in(request)
    return await account_page(
        request,
        "passkey_sign_in.html",
        status=error.status if error else 200,
        errors=errors_of(error, "email") if error else None,
        form={"email": "", **(form or {})},
        passkeys_version=version_of("passkeys.js"),
        options=msgspec.json.encode(asked.options).decode(),
        token=asked.token,
        next=safe_next(wanted, _home(request)),
        step_up=(who.name or "yourself") if who else "",
        has_passkeys=bool(asked.options["allowCredentials"]),
    )


async def _signed_in(request: Asker) -> Identity | None:
    identity = await find_identity(request)
    return identity if identity is not None and identity.session_id is not None else None


@post("/sign-in/passkey/email", status_code=200, **OPEN)
async def sign_in_email(request: Asker) -> Response[Any]:
    """Ask for the passkeys of an address."""
    form = await read_form(request)
    try:
        asked = await begin_sign_in(request, form.get("email", ""))
    except Invalid as error:
        return await _sign_in_page(request, form.get("next"), form, error)
    return await _sign_in_page(request, form.get("next"), form, asked=asked)


@post("/sign-in/passkey", status_code=200, **OPEN)
async def sign_in_finish(request: Asker) -> Response[Any]:
    """Take the passkey that was shown."""
    form = await read_form(request)
    try:
        _, cookies = await finish_sign_in(request, form.get("token", ""), read_credential(form.get("credential", "")))
    except Forbidden as error:
        if error.code != "passkey_cloned":
            raise
        return await _sign_in_page(request, form.get("next"), error=error)
    except _TO_TRY_AGAIN as error:
        return await _sign_in_page(request, form.get("next"), error=error)
    return see_other(safe_next(form.get("next"), _home(request)), cookies)


@get("/sign-in/recovery", **OPEN)
async def recovery_page(request: Asker, wanted: Next = None) -> Response[Any]:
    """Where one signs in with a recovery code."""
    if (elsewhere := await _elsewhere(request)) is not None:
        return elsewhere
    return await account_page(
        request, "passkey_recovery.html", form={"email": ""}, next=safe_next(wanted, _home(request))
    )


@post("/sign-in/recovery", status_code=200, **OPEN)
async def recovery_finish(request: Asker) -> Response[Any]:
    """Take the code, and go on to a new passkey."""
    form = await read_form(request)
    try:
        _, cookies = await recover(request, form.get("email", ""), form.get("code", ""))
    except Unauthorized as error:
        return await account_page(
            request,
            "passkey_recovery.html",
            status=error.status,
            errors={"form": error.detail},
            form={"email": form.get("email", "")},
            next=safe_next(form.get("next"), _home(request)),
        )
    return see_other(f"{root_of(request)}/account/passkeys", cookies)


# -- one's own ----------------------------------------------------------------------------------------


@get("/account/passkeys", **OWN)
async def own_page(request: Asker) -> Response[Any]:
    """The passkeys of whoever asks."""
    if (elsewhere := await _elsewhere(request)) is not None:
        return elsewhere
    return await _own_page(request)


async def _own_page(
    request: Asker, form: dict[str, str] | None = None, error: CounterfoilError | None = None
) -> Response[str]:
    own = await scope_of(request).read(read_own, user_of(request).id)
    return await account_page(
        request,
        "passkeys.html",
        status=error.status if error else 200,
        errors=errors_of(error) if error else None,
        form={"name": "", **(form or {})},
        passkeys=[_row(one) for one in own.passkeys],
        left=own.recovery_codes_left,
    )


def _row(passkey: Passkey) -> dict[str, Any]:
    return {
        "id": passkey.id,
        "name": passkey.name,
        "made": words.day(passkey.created_at),
        "used": words.day(passkey.last_used_at) if passkey.last_used_at else "",
        "backed_up": passkey.backed_up,
    }


@post("/account/passkeys", status_code=200, **OWN)
async def add_ask(request: Asker) -> Response[Any]:
    """Ask for another passkey."""
    form = await read_form(request)
    name = form.get("name", "")
    try:
        passkeys.check_name(name)
        asked = await begin_registration(request, user_of(request))
    except Invalid as error:
        return await _own_page(request, form, error)
    return await _ask(request, asked, "/account/passkeys/add", {"name": name}, "/account/passkeys")


@post("/account/passkeys/add", status_code=200, **OWN)
async def add_finish(request: Asker) -> Response[Any]:
    """Take the passkey."""
    form = await read_form(request)
    own = f"{root_of(request)}/account/passkeys"
    try:
        credential = read_credential(form.get("credential", ""))
        made, cookies = await finish_registration(request, user_of(request), credential, form.get("name", ""))
    except (Conflict, Invalid) as error:
        return await _own_page(request, form, error)
    if not made.recovery_codes:
        return see_other(own, cookies)
    return await _codes(request, made.recovery_codes, own, cookies)


@post("/account/passkeys/{passkey_id:str}/rename", status_code=200, **OWN)
async def rename(request: Asker, passkey_id: FromPath[str]) -> Response[Any]:
    """Call a passkey something else."""
    form, who, lasts = await read_form(request), user_of(request), house_of(request).session_lasts
    try:
        await scope_of(request).run(passkeys.rename, who.id, session_of(who), lasts, passkey_id, form.get("name", ""))
    except Invalid as error:
        return await _own_page(request, error=error)
    return see_other(f"{root_of(request)}/account/passkeys")


@post("/account/passkeys/{passkey_id:str}/remove", status_code=200, **OWN)
async def remove(request: Asker, passkey_id: FromPath[str]) -> Response[Any]:
    """Forget a passkey."""
    await read_form(request)
    who, lasts = user_of(request), house_of(request).session_lasts
    try:
        await scope_of(request).run(passkeys.remove, who.id, session_of(who), lasts, passkey_id)
    except Conflict as error:
        return await _own_page(request, error=error)
    return see_other(f"{root_of(request)}/account/passkeys")


@post("/account/recovery-codes", status_code=200, **OWN)
async def new_codes(request: Asker) -> Response[Any]:
    """Make new recovery codes, and show them this once."""
    await read_form(request)
    who, codes = user_of(request), recovery_codes.new_codes()
    lasts = house_of(request).session_lasts
    await scope_of(request).run(passkeys.replace_codes, who.id, session_of(who), lasts, codes)
    return await _codes(request, codes, f"{root_of(request)}/account/passkeys")


HANDLERS: list[ControllerRouterHandler] = [
    enroll_page,
    enroll_ask,
    enroll_finish,
    sign_in_page,
    sign_in_email,
    sign_in_finish,
    recovery_page,
    recovery_finish,
    own_page,
    add_ask,
    add_finish,
    rename,
    remove,
    new_codes,
]
