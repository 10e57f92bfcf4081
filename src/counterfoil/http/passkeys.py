"""Making and showing passkeys, as the API and the pages share it. Each comes in two steps: ask, and take the answer."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, TypeGuard

import msgspec
from litestar.datastructures import Cookie

from counterfoil.accounts import enrollment, nonces, passkeys, recovery_codes, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.enrollment import Enrolled, Enrollment
from counterfoil.accounts.passkeys import Answer, Registered
from counterfoil.accounts.sessions import Lasts
from counterfoil.accounts.types import Passkey
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.http import webauthn
from counterfoil.http.access import (
    Asker,
    address_of,
    check_origin,
    check_rate,
    find_identity,
    house_of,
    identity_of,
    public_scope,
    scope_of,
    source_of,
    tenant_of,
    user_agent_of,
)
from counterfoil.http.signing_in import Proved, sign_in_by
from counterfoil.http.throttle import begin_attempt, check_sign_ins, device_cookie
from counterfoil.http.webauthn import Named, RelyingParty
from counterfoil.kernel.errors import Forbidden, Invalid
from counterfoil.kernel.secrets import new_secret
from counterfoil.kernel.text import normalize_email

_TOKEN_BYTES = 20
_NOBODY = "nobody"


class Asked(msgspec.Struct, frozen=True):
    """What to ask the browser, and until when its answer counts."""

    options: dict[str, Any]
    expires_at: datetime
    token: str = ""
    """Goes back with the answer, so that no other browser can give it."""


async def party_of(request: Asker) -> RelyingParty:
    """Who we are to browsers in this tenant. Raises Conflict (``passkeys_unavailable``)."""
    return webauthn.relying_party(await house_of(request).base_url(await tenant_of(request)))


async def _shop(request: Asker) -> str:
    row = (await house_of(request).tenants()).get(await tenant_of(request))
    return row.name if row is not None and row.name != "Default" else "Counterfoil"


def _new_challenge() -> str:
    return webauthn.to_text(secrets.token_bytes(webauthn.CHALLENGE_BYTES))


def _expires(scope: Scope) -> datetime:
    return scope.database.clock.now() + passkeys.CHALLENGE_LASTS


# -- adding a passkey to one's account ----------------------------------------------------------------


class Own(msgspec.Struct, frozen=True):
    """What somebody has to sign in with."""

    passkeys: list[Passkey]
    recovery_codes_left: int


def read_own(tx: Tx, user_id: str) -> Own:
    """A user's passkeys, oldest first, and how many recovery codes are left."""
    return Own(passkeys.of_user(tx, user_id), recovery_codes.left(tx, user_id))


def session_of(identity: Identity) -> str:
    """The session a person asks in. Raises Forbidden (``users_only``) for a program."""
    if identity.session_id is None:
        raise Forbidden("This is for people who are signed in; a key has no account.", code="users_only")
    return identity.session_id


async def begin_registration(request: Asker, identity: Identity) -> Asked:
    """Ask for a new passkey. Raises Forbidden (``passkey_required``), Conflict (``passkeys_unavailable``)."""
    house, party, scope = house_of(request), await party_of(request), scope_of(request)
    challenge = _new_challenge()
    answer = Answer(challenge, identity.id)
    user, known = await scope.run(_begin_registration, identity.id, session_of(identity), answer, house.session_lasts)
    handle = webauthn.user_handle(house.master, scope.tenant, identity.id)
    named = Named(handle, user, identity.name)
    options = webauthn.registration_options(party, await _shop(request), named, challenge, known)
    return Asked(options, _expires(scope))


def _begin_registration(
    tx: Tx, user_id: str, session_id: str, answer: Answer, lasts: Lasts
) -> tuple[str, list[Passkey]]:
    passkeys.may_add(tx, user_id, session_id, lasts)
    passkeys.challenge(tx, passkeys.REGISTER, answer)
    address = next((one.email for one in users.emails_of(tx, user_id) if one.is_primary), user_id)
    return address, passkeys.of_user(tx, user_id)


async def finish_registration(
    request: Asker, identity: Identity, credential: dict[str, Any], name: str
) -> tuple[Registered, list[Cookie]]:
    """Take the new passkey. Making it showed it, so a session in which it was shown takes this one's place.

    Raises Invalid (``bad_passkey``), and what ``passkeys.register`` raises.
    """
    house, scope = house_of(request), scope_of(request)
    challenge, new = webauthn.verify_registration(await party_of(request), credential)
    codes = recovery_codes.new_codes()

    def register(tx: Tx) -> Proved[Registered]:
        made = passkeys.register(
            tx,
            identity.id,
            session_of(identity),
            house.session_lasts,
            Answer(challenge, identity.id),
            new,
            name=name,
            codes=codes,
            master=house.master,
        )
        return Proved(identity.id, made)

    done = await sign_in_by(request, scope.actor, "passkey", register)
    house.send_mail(scope.tenant)
    return done


# -- signing in ---------------------------------------------------------------------------------------


async def begin_sign_in(request: Asker, email: str | None = None) -> Asked:
    """Ask for a passkey: any that the authenticator knows for us, those of an address, or of whoever is signed in.

    An address we do not know gets the same kind of answer. Raises Invalid, TooManyRequests.
    """
    house, party, scope = house_of(request), await party_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    challenge, token = _new_challenge(), new_secret(_TOKEN_BYTES)
    user_id: str | None = None
    allowed: list[str] = []
    if email is not None:
        address = normalize_email("email", email)
        user_id, allowed = await scope.read(_allowed, address)
        allowed = allowed or [webauthn.fake_credential_id(house.master, scope.tenant, address)]
    elif (identity := await find_identity(request)) is not None and identity.session_id is not None:
        user_id = identity.id
        allowed = [one.credential_id for one in await scope.read(passkeys.of_user, user_id)]
    await scope.run(passkeys.challenge, passkeys.SIGN_IN, Answer(challenge, token), user_id=user_id)
    return Asked(webauthn.request_options(party, challenge, allowed), _expires(scope), token)


def _allowed(tx: Tx, email: str) -> tuple[str, list[str]]:
    user = users.by_email(tx, email)
    if user is None or user.status != "active":
        return _NOBODY, []
    return user.id, [one.credential_id for one in passkeys.of_user(tx, user.id)]


async def finish_sign_in(request: Asker, token: str, credential: dict[str, Any]) -> tuple[str, list[Cookie]]:
    """Take the passkey that was shown, and sign its owner in; who it is, and the cookies to set.

    Raises Unauthorized (``bad_credentials``), Conflict (``challenge_expired``), Forbidden (``passkey_cloned``).
    """
    check_origin(request)
    house, party, scope = house_of(request), await party_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    credential_id = credential.get("id")
    passkey = await scope.read(passkeys.find, credential_id) if _may_be_an_id(credential_id) else None
    if passkey is None:
        raise webauthn.bad_assertion()
    handle = webauthn.user_handle(house.master, scope.tenant, passkey.user_id)
    challenge, shown = webauthn.verify_assertion(party, credential, passkey, handle)
    answer = Answer(challenge, token)
    actor = Actor("user", passkey.user_id, address_of(request), user_agent_of(request), source_of(request))
    try:
        _, cookies = await sign_in_by(request, actor, "passkey", lambda tx: Proved(passkeys.use(tx, answer, shown)))
    except Forbidden as error:
        if error.code == "passkey_cloned":
            await scope.run(passkeys.refuse_rollback, answer, shown)
        raise
    return passkey.user_id, [*cookies, device_cookie(request, scope.tenant, passkey.user_id)]


def _may_be_an_id(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and text.isascii() and "\x00" not in text


async def recover(request: Asker, email: str, code: str) -> tuple[str, list[Cookie]]:
    """Sign in with a recovery code; who it is, and the cookies to set.

    Raises Unauthorized (``bad_credentials``), TooManyRequests.
    """
    check_origin(request)
    house, scope = house_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    found = await scope.read(recovery_codes.whose, email)
    attempt = begin_attempt(request, scope.tenant, email.strip().lower(), found.id if found else None)

    def spend(tx: Tx) -> Proved[str]:
        user_id = recovery_codes.spend(tx, house.master, email, code)
        return Proved(user_id, user_id)

    user_id, cookies = await sign_in_by(request, scope.actor, "recovery_code", spend)
    attempt.succeeded()
    house.send_mail(scope.tenant)
    return user_id, [*cookies, device_cookie(request, scope.tenant, user_id)]


# -- enrolling ----------------------------------------------------------------------------------------


async def invite_staff(request: Asker, email: str, role: str, nonce: str | None) -> Enrollment:
    """Have a letter sent with a link that makes somebody staff.

    Raises Forbidden (also for the nonce, which is one for ``staff.grant``), NotFound (``role_not_found``), Invalid,
    Conflict (``passkeys_unavailable``).
    """
    house, party, scope = house_of(request), await party_of(request), scope_of(request)
    token = enrollment.new_token()
    made = await scope.run(
        nonces.guarded,
        nonce,
        "staff.grant",
        enrollment.invite_by_letter,
        token,
        f"{party.base_url}/enroll/{token}",
        email=email,
        role=role,
        grantor=identity_of(request),
        master=house.master,
    )
    house.send_mail(scope.tenant)
    return made


async def begin_enrollment(request: Asker, token: str, first_name: str, last_name: str) -> Asked:
    """Ask staff to be for a passkey. Raises NotFound, Conflict (``passkeys_unavailable``)."""
    house, party, scope = house_of(request), await party_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    challenge = _new_challenge()
    found, known = await scope.run(_begin_enrollment, token, Answer(challenge, token))
    handle = webauthn.user_handle(house.master, scope.tenant, found.user_id)
    if found.known:
        first_name, last_name = found.first_name, found.last_name
    named = Named(handle, found.email, f"{first_name} {last_name}".strip())
    options = webauthn.registration_options(party, await _shop(request), named, challenge, known)
    return Asked(options, _expires(scope))


def _begin_enrollment(tx: Tx, token: str, answer: Answer) -> tuple[Enrollment, list[Passkey]]:
    found = enrollment.read(tx, token)
    passkeys.challenge(tx, passkeys.REGISTER, answer, user_id=found.user_id)
    return found, passkeys.of_user(tx, found.user_id)


async def finish_enrollment(
    request: Asker, token: str, credential: dict[str, Any], *, first_name: str, last_name: str, name: str
) -> tuple[Enrolled, list[Cookie]]:
    """Take the passkey, and with it make somebody staff and sign them in. Raises what ``enrollment.enroll`` raises."""
    check_origin(request)
    house, party, scope = house_of(request), await party_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    challenge, new = webauthn.verify_registration(party, credential)
    codes = recovery_codes.new_codes()

    def enroll(tx: Tx) -> Proved[Enrolled]:
        made = enrollment.enroll(
            tx,
            token,
            Answer(challenge, token),
            new,
            first_name=first_name,
            last_name=last_name,
            name=name,
            codes=codes,
            master=house.master,
        )
        return Proved(made.user_id, made)

    made, cookies = await sign_in_by(request, scope.actor, "passkey", enroll)
    house.send_mail(scope.tenant)
    return made, [*cookies, device_cookie(request, scope.tenant, made.user_id)]


def read_credential(text: str) -> dict[str, Any]:
    """A credential as a form carries it. Raises Invalid (``bad_passkey``)."""
    try:
        credential: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Invalid.field("credential", "not what a browser makes of a passkey", code="bad_passkey") from error
    return credential
