"""What is one's own, over HTTP: who one is, addresses, the password, sessions, and which letters to get."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from litestar import Response, Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody

from counterfoil.accounts import emails, preferences, sessions, users
from counterfoil.accounts.preferences import Preferences
from counterfoil.accounts.types import Session, SessionMethod, UserEmail
from counterfoil.accounts.users import Profile, ProfileEmail, ProfileRole, UserChanges
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, house_of, identity_of, scope_of, user_of
from counterfoil.http.accounts import change_password, claim_email, close_account
from counterfoil.http.idempotency import shaped
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


class Me(msgspec.Struct, frozen=True):
    """You, signed in."""

    kind: Literal["user"]
    id: str
    first_name: str
    last_name: str
    username: str | None
    avatar_url: str | None
    emails: list[ProfileEmail]
    roles: list[ProfileRole]
    """Without a customer: in the tenant itself."""
    is_staff: bool
    passkey_required: bool
    """Whether some of your rights wait until you show a passkey in this session."""
    created_at: datetime


class KeyMe(msgspec.Struct, frozen=True):
    """Your API key."""

    kind: Literal["key"]
    id: str
    name: str
    scopes: list[str]
    tenant: str
    customer_id: str | None
    """The customer it is limited to, with all below."""


class SessionView(msgspec.Struct, frozen=True):
    """Somewhere you are signed in."""

    id: str
    method: SessionMethod
    address: str | None
    user_agent: str | None
    last_seen_at: datetime
    """To a few minutes."""
    expires_at: datetime
    created_at: datetime
    is_current: bool
    """Whether it is the one that asks."""


class NewEmail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address of yours."""

    email: str


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the link in a letter holds."""

    token: str


class PasswordChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The password you have, and the one you want."""

    current_password: str
    new_password: str


def _email(row: UserEmail) -> ProfileEmail:
    return ProfileEmail(row.id, row.email, row.via, row.is_primary, row.verified_at)


def session_view(row: Session, current: str | None) -> SessionView:
    """What its owner sees of a session."""
    return SessionView(
        row.id, row.method, row.address, row.user_agent, row.last_seen_at, row.expires_at, row.created_at,
        row.id == current,
    )  # fmt: skip


def _me(profile: Profile, *, passkey_required: bool) -> Me:
    return Me(
        kind="user",
        id=profile.id,
        first_name=profile.first_name,
        last_name=profile.last_name,
        username=profile.username,
        avatar_url=profile.avatar_url,
        emails=profile.emails,
        roles=profile.roles,
        is_staff=any(role.customer_id is None for role in profile.roles),
        passkey_required=passkey_required,
        created_at=profile.created_at,
    )


# -- who one is ---------------------------------------------------------------------------------------


@get("/v1/me", **route("signed_in"))
async def me(request: Asker) -> Me | KeyMe:
    """Who you are: a person who is signed in, or an API key."""
    identity = identity_of(request)
    if identity.kind == "key":
        return KeyMe("key", identity.id, identity.name, list(identity.scopes), identity.tenant, identity.customer_id)
    return _me(await scope_of(request).read(users.profile, identity.id), passkey_required=bool(identity.locked))


@patch("/v1/me", **route("signed_in", 409))
async def change_me(request: Asker, data: JSONBody[UserChanges]) -> Me:
    """Change your names, your picture or your username."""
    identity, scope = user_of(request), scope_of(request)
    await scope.run(users.update, identity.id, data)
    return _me(await scope.read(users.profile, identity.id), passkey_required=bool(identity.locked))


@delete("/v1/me", status_code=204, **route("signed_in", 204, 409))
async def delete_me(request: Asker) -> Response[None]:
    """Delete your account. Organizations with other members need another owner first."""
    return Response(None, status_code=204, cookies=await close_account(request, user_of(request)))


# -- addresses ----------------------------------------------------------------------------------------


@get("/v1/me/emails", **route("signed_in"))
async def list_emails(request: Asker) -> Page[ProfileEmail]:
    """Your addresses, oldest first."""
    found = await scope_of(request).read(emails.list_, user_of(request).id)
    return Page([_email(row) for row in found])


@post("/v1/me/emails", **route("signed_in", 409))
async def add_email(request: Asker, data: JSONBody[NewEmail]) -> ProfileEmail:
    """Add an address. A letter to it holds the link that verifies it; asked again, there is another letter."""
    return _email(await claim_email(request, user_of(request), data.email))


@post("/v1/me/emails/verify", status_code=200, **route("signed_in", 409))
async def verify_email(request: Asker, data: JSONBody[Token]) -> ProfileEmail:
    """Verify an address by the link in its letter."""
    return await scope_of(request).run(shaped(emails.verify, _email), user_of(request).id, data.token)


@post("/v1/me/emails/{email_id:str}/primary", status_code=200, **route("signed_in", 404, 409))
async def make_email_primary(request: Asker, email_id: FromPath[str]) -> ProfileEmail:
    """Have letters go to this address from now on."""
    return await scope_of(request).run(shaped(emails.make_primary, _email), user_of(request).id, email_id)


@delete("/v1/me/emails/{email_id:str}", status_code=204, **route("signed_in", 404, 409))
async def remove_email(request: Asker, email_id: FromPath[str]) -> None:
    """Let go of an address, except the primary one."""
    await scope_of(request).run(emails.remove, user_of(request).id, email_id)


# -- the password, sessions ---------------------------------------------------------------------------


@put("/v1/me/password", status_code=204, **route("signed_in"))
async def put_password(request: Asker, data: JSONBody[PasswordChange]) -> None:
    """Change your password. Your other sessions end."""
    await change_password(request, user_of(request), data.current_password, data.new_password)


@get("/v1/me/sessions", **route("signed_in"))
async def list_sessions(request: Asker, after: After = None, limit: Limit = DEFAULT_LIMIT) -> Page[SessionView]:
    """Where you are signed in, oldest first."""
    identity, lasts = user_of(request), house_of(request).session_lasts
    page = await scope_of(request).read(sessions.list_, identity.id, lasts, after=start(after), limit=limit)
    return Page([session_view(row, identity.session_id) for row in page.data], page.next)


@delete("/v1/me/sessions/{session_id:str}", status_code=204, **route("signed_in", 404))
async def end_session(request: Asker, session_id: FromPath[str]) -> None:
    """End one of your sessions."""
    await scope_of(request).run(sessions.revoke, user_of(request).id, session_id)


@delete("/v1/me/sessions", status_code=204, **route("signed_in"))
async def end_other_sessions(request: Asker) -> None:
    """End all of your sessions but this one."""
    identity = user_of(request)
    await scope_of(request).run(sessions.revoke_all, identity.id, but=identity.session_id or "")


# -- letters ------------------------------------------------------------------------------------------


@get("/v1/me/email-preferences", **route("signed_in"))
async def get_preferences(request: Asker) -> Preferences:
    """Which letters you want, besides those about your account."""
    return await scope_of(request).read(preferences.of_user, user_of(request).id)


@put("/v1/me/email-preferences", **route("signed_in"))
async def put_preferences(request: Asker, data: JSONBody[Preferences]) -> Preferences:
    """Say which letters you want."""
    return await scope_of(request).run(preferences.put, user_of(request).id, data)


me_router = Router(
    path="/",
    tags=["Your account"],
    route_handlers=[
        me,
        change_me,
        delete_me,
        list_emails,
        add_email,
        verify_email,
        make_email_primary,
        remove_email,
        put_password,
        list_sessions,
        end_session,
        end_other_sessions,
        get_preferences,
        put_preferences,
    ],
)
