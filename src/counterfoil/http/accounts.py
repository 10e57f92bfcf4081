"""Signing up, signing in with a password, and getting a new one, as the API and the pages share it.

Nothing here tells a stranger whether an address has an account: not what is answered, and not how long it takes.
"""

from __future__ import annotations

from litestar.datastructures import Cookie

from counterfoil.accounts import closing, emails, password_resets, passwords, sessions, sign_up, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.sign_up import NewSignUp, SignedUp
from counterfoil.accounts.types import User, UserEmail
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.http.access import (
    Asker,
    address_of,
    check_origin,
    check_rate,
    find_identity,
    house_of,
    public_scope,
    scope_for,
    scope_of,
    source_of,
    user_agent_of,
)
from counterfoil.http.hashing import hashing_of
from counterfoil.http.signing_in import Proved, sign_in_by, signed_out
from counterfoil.http.throttle import begin_attempt, check_sign_ins, device_cookie, throttle_of
from counterfoil.kernel.errors import Invalid, NotFound, Unauthorized
from counterfoil.kernel.secrets import MasterKey, new_secret
from counterfoil.kernel.text import normalize_email

_TOKEN_BYTES = 20


def bad_credentials() -> Unauthorized:
    """What is said of an unknown address, of one whose owner may not sign in, and of a wrong password alike."""
    return Unauthorized("The e-mail address or the password is wrong.", code="bad_credentials")


async def _base(request: Asker, tenant: str) -> str:
    return await house_of(request).base_url(tenant)


# -- signing up ---------------------------------------------------------------------------------------


async def start_sign_up(request: Asker, form: NewSignUp) -> None:
    """Have a letter sent to whoever signs up. Raises Invalid, TooManyRequests."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    checked = sign_up.check(form)
    if not throttle_of(request).allow_letter(scope.tenant, checked.email):
        return
    base, token = await _base(request, scope.tenant), new_secret(_TOKEN_BYTES)
    await scope.run(sign_up.start, house_of(request).master, checked, token=token, base=base)
    house_of(request).send_mail(scope.tenant)


async def finish_sign_up(request: Asker, token: str, password: str) -> tuple[SignedUp, list[Cookie]]:
    """Make the account a letter was about, and sign its owner in; the cookies to set.

    Raises Invalid (``bad_token``, ``weak_password``); Conflict (``email_taken``); Forbidden, TooManyRequests.
    """
    check_origin(request)
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    form = await scope.read(sign_up.read, token)
    good = passwords.check("password", password, [form.first_name, form.last_name, form.email])
    password_hash = await hashing_of(request).hash(good)

    def finish(tx: Tx) -> Proved[SignedUp]:
        made = sign_up.finish(tx, token, password_hash)
        return Proved(made.user.id, made)

    made, cookies = await sign_in_by(request, scope.actor, "password", finish)
    return made, [*cookies, device_cookie(request, scope.tenant, made.user.id)]


# -- signing in and out -------------------------------------------------------------------------------


async def sign_in_with_password(request: Asker, email: str, password: str) -> tuple[str, list[Cookie]]:
    """Sign a browser in; who it is, and the cookies to set.

    Raises Unauthorized (``bad_credentials``), Forbidden, TooManyRequests.
    """
    check_origin(request)
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    user = await scope.read(users.by_email, address) if (address := _address(email)) else None
    attempt = begin_attempt(request, scope.tenant, address or email, user.id if user else None)
    stored = user.password_hash if user is not None and user.status == "active" else None
    if not await hashing_of(request).verify(stored, password) or user is None or stored is None:
        raise bad_credentials()
    attempt.succeeded()
    fresh = await hashing_of(request).hash(passwords.tidy(password)) if passwords.is_outdated(stored) else None
    user_id, known = user.id, stored

    def prove(tx: Tx) -> Proved[None]:
        _check_still(tx, user_id, known)
        if fresh is not None:
            users.rehash(tx, user_id, known, fresh)
        return Proved(user_id)

    actor = Actor("user", user_id, address_of(request), user_agent_of(request), source_of(request))
    _, cookies = await sign_in_by(request, actor, "password", prove)
    return user_id, [*cookies, device_cookie(request, scope.tenant, user_id)]


def _address(email: str) -> str | None:
    try:
        return normalize_email("email", email)
    except Invalid:  # whatever it is, it is nobody's
        return None


def _check_still(tx: Tx, user_id: str, stored: str) -> None:
    """Refuse a password that was changed, or whose owner was disabled, while it was looked at."""
    try:
        user = users.get(tx, user_id)
    except NotFound:
        raise bad_credentials() from None
    if user.status != "active" or user.password_hash != stored:
        raise bad_credentials()


async def sign_out(request: Asker) -> list[Cookie]:
    """End this browser's session, if it has one; the cookies to set."""
    identity = await find_identity(request)
    if identity is not None and identity.session_id is not None:
        actor = Actor("user", identity.id, address_of(request), user_agent_of(request), source_of(request))
        scope = scope_for(request, identity.tenant, actor)
        await scope.run(_end, identity.id, identity.session_id)
    return signed_out(request)


def _end(tx: Tx, user_id: str, session_id: str) -> None:
    try:
        sessions.revoke(tx, user_id, session_id)
    except NotFound:  # ended a moment ago
        return


# -- a new password -----------------------------------------------------------------------------------


async def start_reset(request: Asker, email: str) -> None:
    """Have a link to a new password sent to an address, if it is a user's. Raises Invalid, TooManyRequests."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    address = normalize_email("email", email)
    if not throttle_of(request).allow_letter(scope.tenant, address):
        return
    base, token = await _base(request, scope.tenant), new_secret(_TOKEN_BYTES)
    await scope.run(password_resets.start, house_of(request).master, address, token=token, base=base)
    house_of(request).send_mail(scope.tenant)


async def finish_reset(request: Asker, token: str, password: str) -> list[Cookie]:
    """Set the new password, end every session, and sign this browser in; the cookies to set.

    Raises Invalid (``bad_token``, ``weak_password``), Forbidden, TooManyRequests.
    """
    check_origin(request)
    house, scope = house_of(request), await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    reset = await scope.read(password_resets.read, token)
    password_hash = await hashing_of(request).hash(passwords.check("password", password, reset.about))

    def finish(tx: Tx) -> Proved[None]:
        return Proved(password_resets.finish(tx, house.master, token, password_hash))

    actor = Actor("user", reset.user_id, address_of(request), user_agent_of(request), source_of(request))
    _, cookies = await sign_in_by(request, actor, "password", finish)
    house.send_mail(scope.tenant)
    return [*cookies, device_cookie(request, scope.tenant, reset.user_id)]


async def change_password(request: Asker, identity: Identity, current: str, new: str) -> None:
    """Change one's own password, and end one's other sessions.

    Raises Invalid (``wrong_password``, ``weak_password``); TooManyRequests.
    """
    house, scope = house_of(request), scope_of(request)
    user, about = await scope.read(_own, identity.id)
    attempt = throttle_of(request).begin(scope.tenant, "own", identity.id)
    if not await hashing_of(request).verify(user.password_hash, current):
        raise _wrong_password()
    attempt.succeeded()
    password_hash = await hashing_of(request).hash(passwords.check("new_password", new, about))
    await scope.run(_replace, house.master, identity, user.password_hash, password_hash)
    house.send_mail(scope.tenant)


def _own(tx: Tx, user_id: str) -> tuple[User, list[str]]:
    return users.get(tx, user_id), password_resets.about(tx, user_id)


def _replace(tx: Tx, master: MasterKey, identity: Identity, known: str | None, fresh: str) -> None:
    if users.get(tx, identity.id).password_hash != known:  # changed meanwhile
        raise _wrong_password()
    password_resets.set_password(tx, master, identity.id, fresh, but=identity.session_id or "")


def _wrong_password() -> Invalid:
    return Invalid.field("current_password", "is not your password", code="wrong_password")


# -- one's own account --------------------------------------------------------------------------------


async def claim_email(request: Asker, identity: Identity, email: str) -> UserEmail:
    """Claim another address, and have the letter sent that verifies it.

    Raises Invalid; Conflict (``too_many_emails``); TooManyRequests.
    """
    house, scope = house_of(request), scope_of(request)
    check_sign_ins(request, scope.tenant)
    address = normalize_email("email", email)
    token = new_secret(_TOKEN_BYTES) if throttle_of(request).allow_letter(scope.tenant, address) else None
    base = await _base(request, scope.tenant)
    claimed = await scope.run(emails.add, house.master, identity.id, address, token=token, base=base)
    house.send_mail(scope.tenant)
    return claimed


async def close_account(request: Asker, identity: Identity) -> list[Cookie]:
    """Delete one's own account; the cookies to set. Raises Conflict (``last_owner``)."""
    await scope_of(request).run(closing.delete, identity.id)
    return signed_out(request)
