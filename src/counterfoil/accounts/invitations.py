"""Invitations: members to be, asked by e-mail.

The letter's token is shown to nobody else and only its hash is kept. Whoever holds it must also have proved the
address it went to. What an invitation offers is checked again when it is accepted: it is worth nothing once
whoever sent it could not send it any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import assignments, granting, members, roles, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.tables import customers, invitations, role_assignments, user_emails
from counterfoil.accounts.tables import roles as roles_table
from counterfoil.accounts.tables import users as users_table
from counterfoil.accounts.types import Customer, Invitation, InvitationStatus, Role, User
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, Forbidden, Invalid, NotFound, TooManyRequests
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.secrets import MasterKey, fingerprint
from counterfoil.kernel.text import check_line, normalize_email
from counterfoil.mail import outgoing

LASTS = timedelta(days=7)
EXPIRES = "in seven days"
"""The same in a letter's words."""
RESEND_AFTER = timedelta(hours=1)
MOST_A_DAY = 100
"""Invitations one customer sends in 24 hours: letters to strangers in our name."""
NO_LIMIT = -1
_MOST_CREDITS = 2**63 - 1
_PERMISSION = "members:write"

_BY_HASH = sa.select(*columns(invitations)).where(mine(invitations), invitations.c.token_hash == sa.bindparam("hash"))
_ONE = (
    sa.select(*columns(invitations), roles_table.c.name.label("role"))
    .select_from(invitations)
    .join(
        roles_table,
        sa.and_(roles_table.c.tenant_id == invitations.c.tenant_id, roles_table.c.id == invitations.c.role_id),
    )
    .where(mine(invitations), invitations.c.customer_id == sa.bindparam("customer_id"))
)
_GET = _ONE.where(invitations.c.id == sa.bindparam("id"))
_LIST = (
    _ONE.where(invitations.c.id > sa.bindparam("after"))
    .order_by(invitations.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(invitations.c.status == sa.bindparam("status"))
_CUSTOMER = sa.select(*columns(customers)).where(
    mine(customers), customers.c.id == sa.bindparam("id"), customers.c.deleted_at.is_(None)
)
_SENT = sa.select(sa.func.count()).where(
    mine(invitations),
    invitations.c.customer_id == sa.bindparam("customer_id"),
    invitations.c.created_at > sa.bindparam("since"),
)
_IS_MEMBER = (
    sa.select(role_assignments.c.id)
    .join(
        user_emails,
        sa.and_(
            user_emails.c.tenant_id == role_assignments.c.tenant_id,
            user_emails.c.user_id == role_assignments.c.user_id,
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.customer_id == sa.bindparam("customer_id"),
        user_emails.c.email == sa.bindparam("email"),
        user_emails.c.verified_at.is_not(None),
    )
    .limit(1)
)
_HAS_PROVED = (
    sa.select(user_emails.c.id)
    .join(
        users_table,
        sa.and_(users_table.c.tenant_id == user_emails.c.tenant_id, users_table.c.id == user_emails.c.user_id),
    )
    .where(
        mine(user_emails),
        user_emails.c.user_id == sa.bindparam("user_id"),
        user_emails.c.email == sa.bindparam("email"),
        user_emails.c.verified_at.is_not(None),
        users_table.c.status == "active",
        users_table.c.deleted_at.is_(None),
    )
)
_THIS = sa.and_(
    mine(invitations),
    invitations.c.customer_id == sa.bindparam("of_customer"),
    invitations.c.id == sa.bindparam("invitation_id"),
    invitations.c.status == "pending",
)
_REVOKE = (
    sa.update(invitations)
    .where(_THIS)
    .values(status="revoked", updated_at=sa.bindparam("now"))
)  # fmt: skip
_REVOKE_EXPIRED = (
    sa.update(invitations)
    .where(
        mine(invitations),
        invitations.c.customer_id == sa.bindparam("of_customer"),
        invitations.c.email == sa.bindparam("to_email"),
        invitations.c.status == "pending",
        invitations.c.expires_at <= sa.bindparam("now"),
    )
    .values(status="revoked", updated_at=sa.bindparam("now"))
)
_RENEW = (
    sa.update(invitations)
    .where(_THIS, invitations.c.updated_at <= sa.bindparam("quiet_since"))
    .values(
        token_hash=sa.bindparam("new_hash"),
        expires_at=sa.bindparam("new_expires_at"),
        invited_by=sa.bindparam("new_invited_by", type_=sa.Text),
        updated_at=sa.bindparam("now"),
    )
)
_ACCEPT = (
    sa.update(invitations)
    .where(
        mine(invitations),
        invitations.c.token_hash == sa.bindparam("hash"),
        invitations.c.status == "pending",
        invitations.c.expires_at > sa.bindparam("now"),
    )
    .values(status="accepted", accepted_by=sa.bindparam("by_user"), updated_at=sa.bindparam("now"))
)


class NewInvitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to invite, as what."""

    email: str
    role: str
    credit_limit: int = NO_LIMIT
    """Of the customer's credits; -1 = no limit."""


class Letter(msgspec.Struct, frozen=True):
    """What the letter needs besides the invitation."""

    token: str
    """A fresh secret."""
    link: str
    """The page that accepts it."""
    inviter: str
    """Who invites, in the letter's words."""


class SentInvitation(msgspec.Struct, frozen=True):
    """An invitation as those see it who may manage members."""

    id: str
    customer_id: str
    email: str
    role: str
    status: InvitationStatus
    credit_limit: int
    invited_by: str | None
    accepted_by: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


class OpenInvitation(msgspec.Struct, frozen=True):
    """An invitation as whoever holds its token sees it."""

    customer: Customer
    email: str
    role: str


# -- for those who invite -----------------------------------------------------------------------------


def create(
    tx: Tx, master: MasterKey, grantor: Identity | None, customer_id: str, new: NewInvitation, letter: Letter
) -> SentInvitation:
    """Invite somebody, and owe them the letter.

    Raises Invalid; NotFound (``customer_not_found``, ``role_not_found``); Conflict (``already_invited``,
    ``already_member``); TooManyRequests; Forbidden, see granting.
    """
    email = normalize_email("email", new.email)
    if not NO_LIMIT <= new.credit_limit <= _MOST_CREDITS:
        raise Invalid.field("credit_limit", "must be -1 (no limit) or more")
    customer = members.lock(tx, customer_id)
    role = roles.hold(tx, new.role)
    granting.check(tx, grantor, customer, _PERMISSION, role.permissions)
    if tx.one(_IS_MEMBER, {"customer_id": customer_id, "email": email}) is not None:
        raise Conflict("Whoever has this address is a member already.", code="already_member")
    tx.execute(_REVOKE_EXPIRED, {"of_customer": customer_id, "to_email": email, "now": tx.now})
    invitation = Invitation(
        id=tx.new_id("inv"),
        customer_id=customer_id,
        email=email,
        role_id=role.id,
        token_hash=fingerprint(letter.token),
        status="pending",
        credit_limit=new.credit_limit,
        invited_by=_sender(grantor),
        accepted_by=None,
        expires_at=tx.now + LASTS,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(invitations, invitation):
        raise Conflict("This address is invited already.", code="already_invited")
    sent = tx.one(_SENT, {"customer_id": customer_id, "since": tx.now - timedelta(days=1)})
    if grantor is not None and sent is not None and sent[0] > MOST_A_DAY:
        raise TooManyRequests(f"A customer can send {MOST_A_DAY} invitations a day.")
    _write(tx, master, customer, email, role.name, letter)
    tx.record("invitation.created", "invitation", invitation.id, customer_id=customer_id, role_id=role.id)
    return _sent(invitation, role.name)


def _sender(grantor: Identity | None) -> str | None:
    return grantor.id if grantor is not None else None


def _write(tx: Tx, master: MasterKey, customer: Customer, email: str, role: str, letter: Letter) -> None:
    context = {
        "link": letter.link,
        "customer_name": customer.name,
        "inviter_name": letter.inviter,
        "role": role,
        "expires": EXPIRES,
    }
    outgoing.queue(tx, master, email, "invitation", context)


def _sent(invitation: Invitation, role: str) -> SentInvitation:
    fields = {name: getattr(invitation, name) for name in SentInvitation.__struct_fields__ if name != "role"}
    return SentInvitation(role=role, **fields)


def _of_row(row: Row) -> SentInvitation:
    *fields, role = row
    return _sent(Invitation(*fields), role)


def get(tx: Tx, customer_id: str, invitation_id: str) -> SentInvitation:
    """Raise NotFound (``invitation_not_found``) when there is none."""
    row = tx.one(_GET, {"customer_id": customer_id, "id": invitation_id})
    if row is None:
        raise _not_found()
    return _of_row(row)


def list_(
    tx: Tx, customer_id: str, *, status: InvitationStatus | None = None, after: str = "", limit: int = 20
) -> Page[SentInvitation]:
    """A page of a customer's invitations, oldest first; a pending one may have expired."""
    params = {"customer_id": customer_id, "after": after, "limit": limit + 1}
    rows = tx.all(_LIST, params) if status is None else tx.all(_LIST_STATUS, {**params, "status": status})
    return page_of([_of_row(row) for row in rows], limit)


def revoke(tx: Tx, grantor: Identity | None, customer_id: str, invitation_id: str) -> SentInvitation:
    """Take an invitation back. Raises NotFound; Conflict (``invitation_not_pending``); Forbidden, see granting."""
    customer = members.lock(tx, customer_id)
    granting.check(tx, grantor, customer, _PERMISSION)
    params = {"of_customer": customer_id, "invitation_id": invitation_id, "now": tx.now}
    if not tx.execute(_REVOKE, params):
        raise _not_pending(get(tx, customer_id, invitation_id))
    tx.record("invitation.revoked", "invitation", invitation_id, customer_id=customer_id)
    return get(tx, customer_id, invitation_id)


def resend(
    tx: Tx, master: MasterKey, grantor: Identity | None, customer_id: str, invitation_id: str, letter: Letter
) -> SentInvitation:
    """Send a new letter, good for as long as the first was; the links of those before are worth nothing any more.

    Raises NotFound; Conflict (``invitation_not_pending``); TooManyRequests within an hour of the letter before;
    Forbidden, see granting: it is whoever sends it again who invites.
    """
    customer = members.lock(tx, customer_id)
    known = get(tx, customer_id, invitation_id)
    role = roles.hold(tx, known.role)
    granting.check(tx, grantor, customer, _PERMISSION, role.permissions)
    params = {
        "of_customer": customer_id,
        "invitation_id": invitation_id,
        "quiet_since": tx.now - RESEND_AFTER,
        "new_hash": fingerprint(letter.token),
        "new_expires_at": tx.now + LASTS,
        "new_invited_by": _sender(grantor),
        "now": tx.now,
    }
    if not tx.execute(_RENEW, params):
        if known.status != "pending":
            raise _not_pending(known)
        raise TooManyRequests("The last letter is less than an hour old; wait.")
    _write(tx, master, customer, known.email, role.name, letter)
    tx.record("invitation.resent", "invitation", invitation_id, customer_id=customer_id)
    return get(tx, customer_id, invitation_id)


def _not_found() -> NotFound:
    return NotFound("There is no such invitation, or it is no longer good.", code="invitation_not_found")


def _not_pending(known: SentInvitation) -> Conflict:
    return Conflict(f"This invitation is {known.status}.", code="invitation_not_pending")


# -- for those who are invited ------------------------------------------------------------------------


def _good(tx: Tx, token: str) -> Invitation:
    """The invitation this token opens. Raises NotFound, whatever is wrong with it."""
    row = tx.one(_BY_HASH, {"hash": fingerprint(token)})
    invitation = Invitation(*row) if row else None
    if invitation is None or invitation.status != "pending" or invitation.expires_at <= tx.now:
        raise _not_found()
    return invitation


def look(tx: Tx, token: str) -> OpenInvitation:
    """What a token offers, which changes nothing. Raises NotFound (``invitation_not_found``)."""
    invitation = _good(tx, token)
    row = tx.one(_CUSTOMER, {"id": invitation.customer_id})
    if row is None:
        raise _not_found()
    return OpenInvitation(Customer(*row), invitation.email, roles.get(tx, invitation.role_id).name)


def accept(tx: Tx, user_id: str, token: str) -> Customer:
    """Join.

    Raises NotFound (``invitation_not_found``: unknown, expired, revoked, accepted, or worth nothing any more);
    Forbidden (``invitation_for_another_address``) unless the user has proved the address it went to.
    """
    customer, role, invitation = _lock(tx, token)
    if tx.one(_HAS_PROVED, {"user_id": user_id, "email": invitation.email}) is None:
        raise Forbidden(
            "This invitation went to another address. Sign in with the account that has it.",
            code="invitation_for_another_address",
        )
    _join(tx, user_id, token, customer, role, invitation)
    return customer


def accept_as_new(tx: Tx, token: str, *, first_name: str, last_name: str, password_hash: str) -> User:
    """Make an account for whoever an invitation went to, and join: its token proves the address.

    Raises NotFound (``invitation_not_found``); Invalid; Conflict (``email_taken``) where there is an account.
    """
    customer, role, invitation = _lock(tx, token)
    user = users.create(
        tx,
        email=invitation.email,
        first_name=check_line("first_name", first_name, most=users.MOST_NAME, least=1),
        last_name=last_name,
        via="invitation",
        password_hash=password_hash,
    )
    _join(tx, user.id, token, customer, role, invitation)
    return user


def _lock(tx: Tx, token: str) -> tuple[Customer, Role, Invitation]:
    """The customer, locked, and the role that a token is good for now. Raises NotFound."""
    invitation = _good(tx, token)
    try:
        customer = members.lock(tx, invitation.customer_id)
    except NotFound as error:
        raise _not_found() from error
    role = roles.get(tx, invitation.role_id)
    if not granting.may_still(tx, invitation.invited_by, customer, _PERMISSION, role.permissions):
        raise _not_found()
    return customer, role, invitation


def _join(tx: Tx, user_id: str, token: str, customer: Customer, role: Role, invitation: Invitation) -> None:
    if not tx.execute(_ACCEPT, {"hash": fingerprint(token), "by_user": user_id, "now": tx.now}):
        raise _not_found()
    assignments.grant(tx, user_id, role.id, customer.id, granted_by=invitation.invited_by)
    tx.record("invitation.accepted", "invitation", invitation.id, customer_id=customer.id, user_id=user_id)
