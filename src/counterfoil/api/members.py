"""Members of a customer, and invitations, over HTTP."""

from __future__ import annotations

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from counterfoil.accounts import invitations, members
from counterfoil.accounts.invitations import NewInvitation, SentInvitation
from counterfoil.accounts.members import Member
from counterfoil.accounts.types import InvitationStatus
from counterfoil.api.catalog import After, Limit, start
from counterfoil.http.access import Asker, house_of, identity_of, scope_of, user_of
from counterfoil.http.idempotency import shaped
from counterfoil.http.inviting import new_letter
from counterfoil.http.problems import route
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page


class NewRoleOfMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a member becomes."""

    role: str


class Leaving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to be a member no longer."""

    customer_id: str


class Accepting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The secret in an invitation's letter."""

    token: str


class Joined(msgspec.Struct, frozen=True):
    """Where one is a member now."""

    customer_id: str
    name: str


@get("/v1/customers/{customer_id:str}/members", **route("members:read", 404))
async def list_members(
    request: Asker, customer_id: FromPath[str], after: After = None, limit: Limit = DEFAULT_LIMIT
) -> Page[Member]:
    """Who has a role at this customer itself."""
    return await scope_of(request).read(members.list_, customer_id, after=start(after), limit=limit)


@put("/v1/customers/{customer_id:str}/members/{user_id:str}", **route("members:write", 404, 409))
async def set_member_role(
    request: Asker, customer_id: FromPath[str], user_id: FromPath[str], data: JSONBody[NewRoleOfMember]
) -> Member:
    """Give a member another role, instead of those they have here. The last owner stays one."""
    return await scope_of(request).run(members.set_role, identity_of(request), customer_id, user_id, data.role)


@delete("/v1/customers/{customer_id:str}/members/{user_id:str}", **route("members:write", 404, 409))
async def remove_member(request: Asker, customer_id: FromPath[str], user_id: FromPath[str]) -> None:
    """Remove a member. The last owner stays."""
    await scope_of(request).run(members.remove, identity_of(request), customer_id, user_id)


@post("/v1/me/leave", status_code=204, **route("signed_in", 404, 409))
async def leave(request: Asker, data: JSONBody[Leaving]) -> None:
    """Be a member of a customer no longer. The last owner stays."""
    await scope_of(request).run(members.leave, user_of(request).id, data.customer_id)


# -- invitations --------------------------------------------------------------------------------------


@get("/v1/customers/{customer_id:str}/invitations", **route("members:read", 404))
async def list_invitations(
    request: Asker,
    customer_id: FromPath[str],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
    status: FromQuery[InvitationStatus | None] = None,
) -> Page[SentInvitation]:
    """Invitations, oldest first; a pending one may have expired."""
    return await scope_of(request).read(
        invitations.list_, customer_id, status=status, after=start(after), limit=limit
    )  # fmt: skip


@post("/v1/customers/{customer_id:str}/invitations", **route("members:write", 404, 409))
async def invite(request: Asker, customer_id: FromPath[str], data: JSONBody[NewInvitation]) -> SentInvitation:
    """Invite somebody by letter. The link in it works once, for seven days, with the address it went to."""
    house, scope, identity = house_of(request), scope_of(request), identity_of(request)
    letter = await new_letter(house, identity)
    made = await scope.run(invitations.create, house.master, identity, customer_id, data, letter)
    house.send_mail(scope.tenant)
    return made


@post(
    "/v1/customers/{customer_id:str}/invitations/{invitation_id:str}/revoke",
    status_code=200,
    **route("members:write", 404, 409),
)
async def revoke_invitation(
    request: Asker, customer_id: FromPath[str], invitation_id: FromPath[str]
) -> SentInvitation:  # fmt: skip
    """Take an invitation back."""
    return await scope_of(request).run(invitations.revoke, identity_of(request), customer_id, invitation_id)


@post(
    "/v1/customers/{customer_id:str}/invitations/{invitation_id:str}/resend",
    status_code=200,
    **route("members:write", 404, 409),
)
async def resend_invitation(
    request: Asker, customer_id: FromPath[str], invitation_id: FromPath[str]
) -> SentInvitation:  # fmt: skip
    """Send another letter, at most one an hour; the links of those before stop working."""
    house, scope, identity = house_of(request), scope_of(request), identity_of(request)
    letter = await new_letter(house, identity)
    sent = await scope.run(invitations.resend, house.master, identity, customer_id, invitation_id, letter)
    house.send_mail(scope.tenant)
    return sent


@post("/v1/invitations/accept", status_code=200, **route("signed_in", 404))
async def accept_invitation(request: Asker, data: JSONBody[Accepting]) -> Joined:
    """Join. The caller must have proved the address that the invitation went to."""
    accept = shaped(invitations.accept, lambda customer: Joined(customer.id, customer.name))
    return await scope_of(request).run(accept, user_of(request).id, data.token)


members_router = Router(
    path="/",
    tags=["Members"],
    route_handlers=[
        list_members,
        set_member_role,
        remove_member,
        leave,
        list_invitations,
        invite,
        revoke_invitation,
        resend_invitation,
        accept_invitation,
    ],
)
