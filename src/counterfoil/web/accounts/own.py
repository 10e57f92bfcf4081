"""One's own account: names, addresses, the password, sessions, which letters to get, and leaving."""

from __future__ import annotations

from typing import Any, NamedTuple

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import emails, preferences, sessions, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.preferences import Preferences
from counterfoil.accounts.sessions import Lasts
from counterfoil.accounts.types import Session, User, UserEmail
from counterfoil.accounts.users import UserChanges
from counterfoil.db.tx import Tx
from counterfoil.http.access import Asker, house_of, scope_of, user_of
from counterfoil.http.accounts import change_password, claim_email, close_account
from counterfoil.kernel.errors import Conflict, CounterfoilError, Invalid, NotFound
from counterfoil.kernel.paging import MAX_LIMIT
from counterfoil.web import words
from counterfoil.web.accounts.parts import LETTERS, OWN, account_page, errors_of
from counterfoil.web.forms import read_form
from counterfoil.web.render import root_of, see_other

_DONE = {
    "signed_up": "Welcome. Your account is ready.",
    "names": "Your names are saved.",
    "letter": "We have sent a letter with a link to this address.",
    "verified": "This address is verified.",
    "primary": "Our letters go to this address from now on.",
    "removed": "The address is removed.",
    "password": "Your new password counts from now on. You were signed out everywhere else.",
    "session": "That session has ended.",
    "sessions": "You are signed out everywhere else.",
    "preferences": "Your choice is saved.",
}
_FIELDS = ("first_name", "last_name", "username", "avatar_url", "email", "current_password", "new_password")
_FIELD_OF_CODE = {"username_taken": "username", "too_many_emails": "email"}
_TO_SHOW = (Invalid, Conflict, NotFound)
"""What is told on the page itself."""


class _Own(NamedTuple):
    user: User
    emails: list[UserEmail]
    sessions: list[Session]
    preferences: Preferences


def _read(tx: Tx, user_id: str, lasts: Lasts) -> _Own:
    return _Own(
        users.get(tx, user_id),
        emails.list_(tx, user_id),
        sessions.list_(tx, user_id, lasts, limit=MAX_LIMIT).data,
        preferences.of_user(tx, user_id),
    )


@get("/account", **OWN)
async def account(request: Asker, done: FromQuery[str] = "") -> Response[Any]:
    """Everything that is one's own."""
    return await _page(request, user_of(request), done=_DONE.get(done, ""))


async def _page(
    request: Asker,
    identity: Identity,
    *,
    done: str = "",
    form: dict[str, str] | None = None,
    error: CounterfoilError | None = None,
) -> Response[Any]:
    house = house_of(request)
    own = await scope_of(request).read(_read, identity.id, house.session_lasts)
    names = {name: getattr(own.user, name) or "" for name in ("first_name", "last_name", "username", "avatar_url")}
    return await account_page(
        request,
        "account.html",
        status=error.status if error else 200,
        errors=_errors(error) if error else None,
        form={**names, "email": "", **(form or {})},
        done=done,
        user=own.user,
        emails=own.emails,
        sessions=[_session(one, identity.session_id) for one in own.sessions],
        letters=[
            {"name": name, "label": label, "hint": hint, "wanted": getattr(own.preferences, name)}
            for name, (label, hint) in LETTERS.items()
        ],
        passkey_required=bool(identity.locked),
        has_providers=bool(house.oidc.names()),
    )


def _errors(error: CounterfoilError) -> dict[str, str]:
    if error.code in _FIELD_OF_CODE:
        return {_FIELD_OF_CODE[error.code]: error.detail}
    return errors_of(error, *_FIELDS)


def _session(one: Session, current: str | None) -> dict[str, Any]:
    return {
        "id": one.id,
        "agent": one.user_agent or "An unknown program",
        "address": one.address,
        "since": words.minute(one.created_at),
        "seen": words.minute(one.last_seen_at),
        "is_current": one.id == current,
    }


def _back(request: Asker, done: str, part: str) -> Response[Any]:
    return see_other(f"{root_of(request)}/account?done={done}#{part}")


# -- names --------------------------------------------------------------------------------------------


@post("/account/names", status_code=303, **OWN)
async def change_names(request: Asker) -> Response[Any]:
    """Save names, username and picture."""
    identity, form = user_of(request), await read_form(request)
    changes = UserChanges(
        first_name=form.get("first_name", ""),
        last_name=form.get("last_name", ""),
        username=form.get("username") or None,
        avatar_url=form.get("avatar_url") or None,
    )
    try:
        await scope_of(request).run(users.update, identity.id, changes)
    except _TO_SHOW as error:
        return await _page(request, identity, form=form, error=error)
    return _back(request, "names", "names")


# -- addresses ----------------------------------------------------------------------------------------


@post("/account/emails", status_code=303, **OWN)
async def add_email(request: Asker) -> Response[Any]:
    """Claim an address, or have its letter sent again."""
    identity, form = user_of(request), await read_form(request)
    try:
        await claim_email(request, identity, form.get("email", ""))
    except _TO_SHOW as error:
        return await _page(request, identity, form=form, error=error)
    return _back(request, "letter", "emails")


@post("/account/emails/{email_id:str}/primary", status_code=303, **OWN)
async def make_email_primary(request: Asker, email_id: FromPath[str]) -> Response[Any]:
    """Have letters go to this address."""
    identity, _ = user_of(request), await read_form(request)
    try:
        await scope_of(request).run(emails.make_primary, identity.id, email_id)
    except _TO_SHOW as error:
        return await _page(request, identity, error=error)
    return _back(request, "primary", "emails")


@post("/account/emails/{email_id:str}/remove", status_code=303, **OWN)
async def remove_email(request: Asker, email_id: FromPath[str]) -> Response[Any]:
    """Let go of an address."""
    identity, _ = user_of(request), await read_form(request)
    try:
        await scope_of(request).run(emails.remove, identity.id, email_id)
    except _TO_SHOW as error:
        return await _page(request, identity, error=error)
    return _back(request, "removed", "emails")


@get("/verify-address", **OWN)
async def verify_page(request: Asker, token: FromQuery[str] = "") -> Response[Any]:
    """Where the letter's link leads: to a button. Opening it changes nothing."""
    identity = user_of(request)
    try:
        claimed = await scope_of(request).read(emails.read, identity.id, token)
    except Invalid as error:
        return await account_page(request, "link_spent.html", status=error.status, again="/account")
    return await account_page(request, "verify_address.html", token=token, email=claimed.email)


@post("/verify-address", status_code=303, **OWN)
async def verify(request: Asker) -> Response[Any]:
    """Verify the address a letter went to."""
    identity, form = user_of(request), await read_form(request)
    try:
        await scope_of(request).run(emails.verify, identity.id, form.get("token", ""))
    except Invalid as error:
        return await account_page(request, "link_spent.html", status=error.status, again="/account")
    except Conflict as error:
        return await _page(request, identity, error=error)
    return _back(request, "verified", "emails")


# -- the password, sessions, letters ------------------------------------------------------------------


@post("/account/password", status_code=303, **OWN)
async def put_password(request: Asker) -> Response[Any]:
    """Change the password."""
    identity, form = user_of(request), await read_form(request)
    try:
        await change_password(request, identity, form.get("current_password", ""), form.get("new_password", ""))
    except _TO_SHOW as error:
        return await _page(request, identity, error=error)
    return _back(request, "password", "password")


@post("/account/sessions/{session_id:str}/end", status_code=303, **OWN)
async def end_session(request: Asker, session_id: FromPath[str]) -> Response[Any]:
    """Sign out somewhere else."""
    identity, _ = user_of(request), await read_form(request)
    try:
        await scope_of(request).run(sessions.revoke, identity.id, session_id)
    except _TO_SHOW as error:
        return await _page(request, identity, error=error)
    return _back(request, "session", "sessions")


@post("/account/sessions/end-others", status_code=303, **OWN)
async def end_other_sessions(request: Asker) -> Response[Any]:
    """Sign out everywhere else."""
    identity, _ = user_of(request), await read_form(request)
    await scope_of(request).run(sessions.revoke_all, identity.id, but=identity.session_id or "")
    return _back(request, "sessions", "sessions")


@post("/account/preferences", status_code=303, **OWN)
async def put_preferences(request: Asker) -> Response[Any]:
    """Save which letters are wanted."""
    identity, form = user_of(request), await read_form(request)
    wanted = Preferences(
        marketing="marketing" in form,
        product_updates="product_updates" in form,
        payment_receipts="payment_receipts" in form,
    )
    await scope_of(request).run(preferences.put, identity.id, wanted)
    return _back(request, "preferences", "letters")


# -- leaving ------------------------------------------------------------------------------------------


@get("/account/delete", **OWN)
async def delete_page(request: Asker) -> Response[Any]:
    """Ask once more."""
    user_of(request)
    return await account_page(request, "account_delete.html")


@post("/account/delete", status_code=303, **OWN)
async def delete(request: Asker) -> Response[Any]:
    """Delete the account."""
    identity, _ = user_of(request), await read_form(request)
    try:
        cookies = await close_account(request, identity)
    except Conflict as error:
        errors = {"form": error.detail}
        return await account_page(request, "account_delete.html", status=error.status, errors=errors)
    return see_other(f"{root_of(request)}/", cookies)


HANDLERS: list[ControllerRouterHandler] = [
    account,
    change_names,
    add_email,
    make_email_primary,
    remove_email,
    verify_page,
    verify,
    put_password,
    end_session,
    end_other_sessions,
    put_preferences,
    delete_page,
    delete,
]
