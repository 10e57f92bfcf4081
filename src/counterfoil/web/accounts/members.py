"""Organizations: who is a member, who is invited, and joining."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import customers, invitations, members, passwords, roles, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.customers import NewCustomer
from counterfoil.accounts.invitations import NewInvitation
from counterfoil.accounts.permissions import MEMBER, expand
from counterfoil.db.tx import Tx
from counterfoil.http.access import (
    Asker,
    check_rate,
    find_identity,
    house_of,
    identity_of,
    public_scope,
    scope_of,
    user_of,
)
from counterfoil.http.hashing import hashing_of
from counterfoil.http.inviting import new_letter
from counterfoil.http.problems import route
from counterfoil.http.signing_in import Proved, sign_in_by
from counterfoil.http.throttle import check_sign_ins
from counterfoil.kernel.errors import Conflict, CounterfoilError, Forbidden, Invalid, Unauthorized
from counterfoil.kernel.paging import MAX_LIMIT, decode_cursor
from counterfoil.web.accounts.parts import OPEN, OWN, account_page, errors_of
from counterfoil.web.forms import read_form
from counterfoil.web.render import root_of, see_other

_SEE: dict[str, Any] = {"include_in_schema": False, **route("members:read", 404)}
_CHANGE: dict[str, Any] = {"include_in_schema": False, **route("members:write", 404, 409)}


# -- one's own ----------------------------------------------------------------------------------------


@get("/account/organizations", **OWN)
async def organizations(request: Asker) -> Response[Any]:
    """Where whoever asks is a member."""
    return await _organizations_page(request, {})


async def _organizations_page(
    request: Asker, form: dict[str, str], error: CounterfoilError | None = None
) -> Response[Any]:  # fmt: skip
    found = await scope_of(request).read(members.of_user, user_of(request).id)
    return await account_page(
        request, "organizations.html", status=error.status if error else 200, form=form,
        errors=errors_of(error, "name") if error else None,
        rows=[{"id": one.customer.id, "name": one.customer.name, "roles": ", ".join(one.roles)} for one in found],
    )  # fmt: skip


@post("/account/organizations", status_code=303, **OWN)
async def create_organization(request: Asker) -> Response[Any]:
    """Make an organization of one's own."""
    user, form = user_of(request), await read_form(request)
    new = NewCustomer(kind="organization", name=form.get("name", ""))
    try:
        made = await scope_of(request).run(members.found, new, user.id)
    except Invalid as error:
        return await _organizations_page(request, form, error)
    return see_other(_address_of(request, made.id))


def _address_of(request: Asker, customer_id: str) -> str:
    return f"{root_of(request)}/account/organizations/{quote(customer_id, safe='')}"


# -- one organization ---------------------------------------------------------------------------------


@get("/account/organizations/{customer_id:str}", **_SEE)
async def organization(
    request: Asker,
    customer_id: FromPath[str],
    after: FromQuery[str | None] = None,
    invited_after: FromQuery[str | None] = None,
) -> Response[Any]:
    """Its members, and who is invited."""
    return await _organization_page(request, customer_id, after=after, invited_after=invited_after)


def _start(cursor: str | None) -> str:
    return str(decode_cursor(cursor, (str,))[0]) if cursor else ""


async def _organization_page(
    request: Asker,
    customer_id: str,
    form: dict[str, str] | None = None,
    error: CounterfoilError | None = None,
    *,
    after: str | None = None,
    invited_after: str | None = None,
) -> Response[Any]:
    scope, identity = scope_of(request), identity_of(request)
    customer = await scope.read(customers.get, customer_id)
    people = await scope.read(members.list_, customer_id, after=_start(after), limit=MAX_LIMIT)
    pending = await scope.read(
        invitations.list_, customer_id, status="pending", after=_start(invited_after), limit=MAX_LIMIT
    )
    now = house_of(request).database.clock.now()
    invited = [
        {
            "id": one.id,
            "email": one.email,
            "role": one.role,
            "until": f"{one.expires_at:%Y-%m-%d}" if one.expires_at > now else "expired",
        }
        for one in pending.data
    ]
    return await account_page(
        request, "organization.html", status=error.status if error else 200,
        errors=errors_of(error, "email", "role") if error else None, form=form or {},
        customer={"id": customer.id, "name": customer.name}, me=identity.id, people=people.data,
        next_people=people.next, invited=invited, next_invited=pending.next,
        may_change="members:write" in identity.held, grantable=await _grantable(request, identity), usual=MEMBER,
    )  # fmt: skip


async def _grantable(request: Asker, identity: Identity) -> list[str]:
    """The roles that whoever asks could grant."""
    known = await scope_of(request).read(roles.everyone)
    return [role.name for role in known if expand(role.permissions) <= identity.held]


@post("/account/organizations/{customer_id:str}/members/{user_id:str}/role", status_code=303, **_CHANGE)
async def change_role(request: Asker, customer_id: FromPath[str], user_id: FromPath[str]) -> Response[Any]:
    """Give a member another role."""
    form = await read_form(request)
    work = scope_of(request).run(
        members.set_role, identity_of(request), customer_id, user_id, form.get("role", "")
    )  # fmt: skip
    return await _done(request, customer_id, {}, work)


@post("/account/organizations/{customer_id:str}/members/{user_id:str}/remove", status_code=303, **_CHANGE)
async def remove_member(request: Asker, customer_id: FromPath[str], user_id: FromPath[str]) -> Response[Any]:
    """Remove a member."""
    await read_form(request)
    work = scope_of(request).run(members.remove, identity_of(request), customer_id, user_id)
    return await _done(request, customer_id, {}, work)


@post("/account/organizations/{customer_id:str}/leave", status_code=303, **OWN)
async def leave(request: Asker, customer_id: FromPath[str]) -> Response[Any]:
    """Be a member no longer."""
    user = user_of(request)
    await read_form(request)
    try:
        await scope_of(request).run(members.leave, user.id, customer_id)
    except Conflict as error:
        return await _organization_page(request, customer_id, {}, error)
    return see_other(f"{root_of(request)}/account/organizations")


@post("/account/organizations/{customer_id:str}/invitations", status_code=303, **_CHANGE)
async def invite(request: Asker, customer_id: FromPath[str]) -> Response[Any]:
    """Invite somebody by letter."""
    form, house, identity = await read_form(request), house_of(request), identity_of(request)
    new = NewInvitation(form.get("email", ""), form.get("role", ""))
    letter = await new_letter(house, identity)
    work = scope_of(request).run(invitations.create, house.master, identity, customer_id, new, letter)
    return await _done(request, customer_id, form, work)


@post("/account/organizations/{customer_id:str}/invitations/{invitation_id:str}/revoke", status_code=303, **_CHANGE)
async def revoke(request: Asker, customer_id: FromPath[str], invitation_id: FromPath[str]) -> Response[Any]:
    """Take an invitation back."""
    await read_form(request)
    work = scope_of(request).run(invitations.revoke, identity_of(request), customer_id, invitation_id)
    return await _done(request, customer_id, {}, work)


@post("/account/organizations/{customer_id:str}/invitations/{invitation_id:str}/resend", status_code=303, **_CHANGE)
async def resend(request: Asker, customer_id: FromPath[str], invitation_id: FromPath[str]) -> Response[Any]:
    """Send another letter."""
    await read_form(request)
    house, identity = house_of(request), identity_of(request)
    letter = await new_letter(house, identity)
    work = scope_of(request).run(
        invitations.resend, house.master, identity, customer_id, invitation_id, letter
    )  # fmt: skip
    return await _done(request, customer_id, {}, work)


async def _done(
    request: Asker, customer_id: str, form: dict[str, str], work: Coroutine[Any, Any, object]
) -> Response[Any]:  # fmt: skip
    """Do it and show the organization, or say on its page why not."""
    try:
        await work
    except CounterfoilError as error:
        if error.code in {"customer_not_found", "missing_permission", "passkey_required"} or error.status >= 500:
            raise
        return await _organization_page(request, customer_id, form, error)
    house_of(request).send_mail(scope_of(request).tenant)
    return see_other(_address_of(request, customer_id))


# -- joining ------------------------------------------------------------------------------------------


@get("/invitations/{token:str}", **OPEN)
async def invitation(request: Asker, token: FromPath[str]) -> Response[Any]:
    """What somebody is invited to, which changes nothing."""
    return await _invitation_page(request, token, {})


async def _invitation_page(
    request: Asker, token: str, form: dict[str, str], error: CounterfoilError | None = None
) -> Response[Any]:
    scope = await public_scope(request)
    offer = await scope.read(invitations.look, token)
    try:
        identity = await find_identity(request)
    except Unauthorized:
        identity = None
    if identity is not None and identity.kind == "user":
        state = "signed_in"
    else:
        known = await scope.read(users.by_email, offer.email)
        state = "stranger" if known is None else "known"
    own = f"{root_of(request)}/invitations/{quote(token, safe='')}"
    return await account_page(
        request, "invitation.html", status=error.status if error else 200, form=form,
        errors=errors_of(error, "first_name", "last_name", "password") if error else None,
        customer=offer.customer.name, role=offer.role, state=state, own=own, least=passwords.LEAST,
        sign_in=f"{root_of(request)}/sign-in?next={quote(own, safe='/')}",
    )  # fmt: skip


@post("/invitations/{token:str}/accept", status_code=303, **OWN)
async def accept(request: Asker, token: FromPath[str]) -> Response[Any]:
    """Join with the account one is signed in to."""
    user = user_of(request)
    await read_form(request)
    try:
        joined = await scope_of(request).run(invitations.accept, user.id, token)
    except Forbidden as error:
        return await _invitation_page(request, token, {}, error)
    return see_other(_address_of(request, joined.id))


@post("/invitations/{token:str}/join", status_code=303, **OPEN)
async def join(request: Asker, token: FromPath[str]) -> Response[Any]:
    """Make an account for the address that the invitation went to, and join."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    check_sign_ins(request, scope.tenant)
    form = await read_form(request)
    offer = await scope.read(invitations.look, token)
    first_name, last_name = form.get("first_name", ""), form.get("last_name", "")
    try:
        good = passwords.check("password", form.get("password", ""), [first_name, last_name, offer.email])
        password_hash = await hashing_of(request).hash(good)

        def prove(tx: Tx) -> Proved[None]:
            made = invitations.accept_as_new(
                tx, token, first_name=first_name, last_name=last_name, password_hash=password_hash
            )
            return Proved(made.id)

        _, cookies = await sign_in_by(request, scope.actor, "password", prove)
    except (Invalid, Conflict) as error:
        return await _invitation_page(request, token, form, error)
    return see_other(_address_of(request, offer.customer.id), cookies)


HANDLERS: list[ControllerRouterHandler] = [
    organizations,
    create_organization,
    organization,
    change_role,
    remove_member,
    leave,
    invite,
    revoke,
    resend,
    invitation,
    accept,
    join,
]
