"""Passkeys over HTTP: one's own, signing in with them, the ways back, and links that make people staff.

``options`` is what ``navigator.credentials.create`` and ``.get`` take in JSON, and ``credential`` the JSON of what
they give (WebAuthn Level 3, section 5.1).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from counterfoil.accounts import passkeys, recovery_codes
from counterfoil.accounts.types import Passkey
from counterfoil.api.sign_in import SignedIn
from counterfoil.api.staff import NonceHeader
from counterfoil.http.access import Asker, house_of, scope_of, user_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.passkeys import (
    Asked,
    begin_registration,
    begin_sign_in,
    finish_registration,
    finish_sign_in,
    invite_staff,
    read_own,
    recover,
    session_of,
)
from counterfoil.http.problems import route

Credential = Annotated[dict[str, Any], msgspec.Meta(description="What the browser made, as JSON.")]


class PasskeyView(msgspec.Struct, frozen=True):
    """A passkey. Its key stays here."""

    id: str
    name: str
    transports: list[str]
    aaguid: str
    """The model of the authenticator, where it tells."""
    backed_up: bool
    """Whether it is kept in a cloud account, beyond this one device."""
    last_used_at: datetime | None
    created_at: datetime


class OwnPasskeys(msgspec.Struct, frozen=True):
    """What somebody has to sign in with."""

    data: list[PasskeyView]
    recovery_codes_left: int


class AskedView(msgspec.Struct, frozen=True):
    """What to ask the browser, and until when its answer counts."""

    options: dict[str, Any]
    expires_at: datetime


class AskedSignIn(msgspec.Struct, frozen=True):
    """What to ask the browser, until when its answer counts, and the token to send with it."""

    options: dict[str, Any]
    expires_at: datetime
    token: str


class NewPasskeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A passkey the browser made."""

    credential: Credential
    name: str = "Passkey"


class AddedPasskey(msgspec.Struct, frozen=True):
    """A passkey just added. Codes come with it where there were none, and are shown this once."""

    passkey: PasskeyView
    recovery_codes: list[str]


class PasskeyChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change about a passkey."""

    name: str


class WhoSignsIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose passkeys to ask for; without an address, any that the authenticator knows."""

    email: str | None = None


class PasskeySignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A passkey as the browser showed it."""

    token: str
    credential: Credential


class RecoverySignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recovery code, and whose it is."""

    email: str
    code: str


class RecoveryCodes(msgspec.Struct, frozen=True):
    """Codes that are shown this once."""

    recovery_codes: list[str]


class NewStaffEnrollment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be staff, in which role."""

    email: str
    role: str


class StaffEnrollment(msgspec.Struct, frozen=True):
    """Whom a letter with a one-time link goes to."""

    email: str
    role: str
    expires_at: datetime


def passkey_view(passkey: Passkey) -> PasskeyView:
    """What its owner sees of a passkey."""
    return PasskeyView(**{name: getattr(passkey, name) for name in PasskeyView.__struct_fields__})


def _asked(asked: Asked) -> AskedView:
    return AskedView(asked.options, asked.expires_at)


# -- one's own ----------------------------------------------------------------------------------------


@get("/v1/me/passkeys", **route("signed_in"))
async def list_passkeys(request: Asker) -> OwnPasskeys:
    """Your passkeys, oldest first, and how many recovery codes are left."""
    own = await scope_of(request).read(read_own, user_of(request).id)
    return OwnPasskeys([passkey_view(one) for one in own.passkeys], own.recovery_codes_left)


@post("/v1/me/passkeys/options", status_code=200, **route("signed_in", 409))
async def ask_for_new_passkey(request: Asker) -> AskedView:
    """What to ask the browser for a new passkey, within five minutes."""
    return _asked(await begin_registration(request, user_of(request)))


@post("/v1/me/passkeys", **route("signed_in", 409))
async def add_passkey(request: Asker, data: JSONBody[NewPasskeyBody]) -> Response[AddedPasskey]:
    """Add a passkey. Your session goes on under a new cookie, as one in which a passkey was shown."""
    made, cookies = await finish_registration(request, user_of(request), data.credential, data.name)
    return Response(AddedPasskey(passkey_view(made.passkey), made.recovery_codes), status_code=201, cookies=cookies)


@patch("/v1/me/passkeys/{passkey_id:str}", **route("signed_in", 404))
async def rename_passkey(request: Asker, passkey_id: FromPath[str], data: JSONBody[PasskeyChanges]) -> PasskeyView:
    """Call a passkey something else."""
    who, lasts = user_of(request), house_of(request).session_lasts
    return passkey_view(
        await scope_of(request).run(passkeys.rename, who.id, session_of(who), lasts, passkey_id, data.name)
    )


@delete("/v1/me/passkeys/{passkey_id:str}", **route("signed_in", 404, 409))
async def remove_passkey(request: Asker, passkey_id: FromPath[str]) -> None:
    """Forget a passkey, and end your other sessions. Staff keep at least one."""
    who, lasts = user_of(request), house_of(request).session_lasts
    await scope_of(request).run(passkeys.remove, who.id, session_of(who), lasts, passkey_id)


@post("/v1/me/recovery-codes", **route("signed_in"))
async def make_recovery_codes(request: Asker) -> RecoveryCodes:
    """Make new recovery codes; the old ones are worth nothing any more."""
    who, codes = user_of(request), recovery_codes.new_codes()
    replace = shaped(passkeys.replace_codes, lambda _: RecoveryCodes(codes))
    return await scope_of(request).run(replace, who.id, session_of(who), house_of(request).session_lasts, codes)


# -- signing in ---------------------------------------------------------------------------------------


@post("/v1/session/passkey/options", status_code=200, **route("public", 401, 404, 409))
async def ask_for_passkey(request: Asker, data: JSONBody[WhoSignsIn]) -> AskedSignIn:
    """What to ask the browser to sign in with a passkey, within five minutes."""
    asked = await begin_sign_in(request, data.email)
    return AskedSignIn(asked.options, asked.expires_at, asked.token)


@post("/v1/session/passkey", status_code=200, **route("public", 401, 403, 404, 409))
async def sign_in_with_passkey(request: Asker, data: JSONBody[PasskeySignIn]) -> Response[SignedIn]:
    """Sign in with a passkey; the cookie is the session. It ends the one this browser had."""
    user_id, cookies = await finish_sign_in(request, data.token, data.credential)
    return Response(SignedIn(user_id), status_code=200, cookies=cookies)


@post("/v1/session/recovery", status_code=200, **route("public", 401, 403, 404))
async def sign_in_with_recovery_code(request: Asker, data: JSONBody[RecoverySignIn]) -> Response[SignedIn]:
    """Sign in with a recovery code. The session may add a passkey, and has no rights of staff until it does."""
    user_id, cookies = await recover(request, data.email, data.code)
    return Response(SignedIn(user_id), status_code=200, cookies=cookies)


# -- staff to be --------------------------------------------------------------------------------------


@post("/v1/staff-enrollments", **route("staff:write", 404, 409))
async def create_staff_enrollment(
    request: Asker, data: JSONBody[NewStaffEnrollment], nonce: NonceHeader = None
) -> StaffEnrollment:
    """Send somebody a one-time link, good for a day, to make a passkey and become staff in this role.

    Needs a nonce for ``staff.grant``.
    """
    made = await invite_staff(request, data.email, data.role, nonce)
    return StaffEnrollment(made.email, made.role, made.expires_at)


passkeys_router = Router(
    path="/",
    tags=["Passkeys"],
    route_handlers=[
        list_passkeys,
        ask_for_new_passkey,
        add_passkey,
        rename_passkey,
        remove_passkey,
        make_recovery_codes,
        ask_for_passkey,
        sign_in_with_passkey,
        sign_in_with_recovery_code,
        create_staff_enrollment,
    ],
)
