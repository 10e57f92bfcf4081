"""Enrollment: how somebody becomes staff, the first owner included.

A one-time link lets its holder make a passkey, and with it an account with a role in the tenant. The link takes
the place of every other proof, so it is also the way back for staff who have lost everything else.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import assignments, granting, one_time_tokens, passkeys, roles, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.passkeys import Answer, NewPasskey
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.accounts.tables import tenants
from counterfoil.accounts.tables import users as users_table
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.secrets import MasterKey, fingerprint, new_secret
from counterfoil.kernel.text import check_line, normalize_email
from counterfoil.mail import outgoing

LASTS = timedelta(hours=24)
_PURPOSE = "enroll"
_PERMISSION = "staff:write"
_BYTES = 20

_LOCK_TENANT = sa.select(tenants.c.tenant_id).where(mine(tenants)).with_for_update(key_share=True)
_other = users_table.alias("other")
_MAKE_FIRST_OWNER = (
    sa.update(users_table)
    .where(
        mine(users_table),
        users_table.c.id == sa.bindparam("user_id"),
        ~sa.exists(
            sa.select(_other.c.id).where(
                _other.c.tenant_id == sa.bindparam("tenant"), _other.c.role == "owner", _other.c.deleted_at.is_(None)
            )
        ),
    )
    .values(role="owner", updated_at=sa.bindparam("now"))
)


class Enrollment(msgspec.Struct, frozen=True):
    """Staff to be."""

    email: str
    role_id: str
    role: str
    """Its name."""
    user_id: str
    """Of the account there is with this address, else of the one to be made."""
    known: bool
    """Whether there is one."""
    first_name: str
    last_name: str
    expires_at: datetime


class Enrolled(msgspec.Struct, frozen=True):
    """Somebody who has become staff."""

    user_id: str
    recovery_codes: list[str]
    """Shown this once; none where they have some already."""


def new_token() -> str:
    """A fresh link's secret."""
    return new_secret(_BYTES)


def check_names(first_name: str, last_name: str, name: str) -> None:
    """Look at what staff to be filled in before a passkey is made for nothing. Raises Invalid."""
    check_line("first_name", first_name, most=users.MOST_NAME)
    check_line("last_name", last_name, most=users.MOST_NAME)
    passkeys.check_name(name)


def invite(
    tx: Tx,
    token: str,
    *,
    email: str,
    role: str = SUPER_ADMIN,
    first_name: str = "",
    last_name: str = "",
    grantor: Identity | None = None,
) -> Enrollment:
    """Let whoever holds the token enroll with this address and role, once, within a day.

    ``grantor`` is None for whoever runs this installation. Raises Invalid, NotFound (``role_not_found``), Forbidden.
    """
    address = normalize_email("email", email)
    found = roles.by_name(tx, role)
    granting.check(tx, grantor, None, _PERMISSION, found.permissions)
    details = {
        "email": address,
        "role_id": found.id,
        "first_name": check_line("first_name", first_name, most=users.MOST_NAME),
        "last_name": check_line("last_name", last_name, most=users.MOST_NAME),
        "user_id": tx.new_id("usr"),
        "invited_by": grantor.id if grantor else None,
    }
    one_time_tokens.create(tx, _PURPOSE, token, lasts=LASTS, details=details)
    tx.record("staff.invited", "role", found.id, email_hash=fingerprint(address))
    return read(tx, token)


def invite_by_letter(
    tx: Tx, token: str, link: str, *, email: str, role: str, grantor: Identity, master: MasterKey
) -> Enrollment:
    """The same, and the link goes out by letter. Raises what :func:`invite` raises."""
    made = invite(tx, token, email=email, role=role, grantor=grantor)
    outgoing.queue(tx, master, made.email, "staff_enrollment", {"link": link, "expires": "in one day"})
    return made


def read(tx: Tx, token: str) -> Enrollment:
    """What a link is for, without using it. Raises NotFound (``enrollment_not_found``)."""
    found = one_time_tokens.look(tx, _PURPOSE, token)
    if found is None:
        raise _not_found()
    details, expires_at = found
    user = users.by_email(tx, details["email"])
    return Enrollment(
        email=details["email"],
        role_id=details["role_id"],
        role=roles.get(tx, details["role_id"]).name,
        user_id=user.id if user else details["user_id"],
        known=user is not None,
        first_name=user.first_name if user else details["first_name"],
        last_name=user.last_name if user else details["last_name"],
        expires_at=expires_at,
    )


def _not_found() -> NotFound:
    return NotFound(
        "This link was used, has expired, or is not whole. Ask whoever sent it for another.",
        code="enrollment_not_found",
    )


def enroll(
    tx: Tx,
    token: str,
    answer: Answer,
    new: NewPasskey,
    *,
    first_name: str,
    last_name: str,
    name: str,
    codes: list[str],
    master: MasterKey,
) -> Enrolled:
    """Make the account, unless there is one, give it the role and the passkey. ``name`` is the passkey's.

    Raises NotFound (``enrollment_not_found``), Invalid, Conflict (``challenge_expired``, ``passkey_known``,
    ``user_disabled``).
    """
    tx.one(_LOCK_TENANT)  # two links for one address must not make two accounts, nor two people the first owner
    enrollment = read(tx, token)
    details = one_time_tokens.spend(tx, _PURPOSE, token)
    challenge = passkeys.spend_challenge(tx, passkeys.REGISTER, answer)
    if details is None:  # a moment ago
        raise _not_found()
    user_id = enrollment.user_id
    if challenge["user_id"] != user_id:  # the passkey is for another account than the one there is by now
        raise Conflict("Your account was made meanwhile. Open the link again.", code="challenge_expired")
    if enrollment.known:
        passkeys.lock_user(tx, user_id)
        if users.get(tx, user_id).status != "active":
            raise Conflict("This account is disabled.", code="user_disabled")
    else:
        users.create(
            tx,
            email=enrollment.email,
            first_name=first_name,
            last_name=last_name,
            via="enrollment",
            user_id=user_id,
        )
    invited_by = details["invited_by"]
    if not granting.may_still(tx, invited_by, None, _PERMISSION, roles.get(tx, enrollment.role_id).permissions):
        raise _not_found()
    assignments.grant(tx, user_id, enrollment.role_id, None, granted_by=invited_by)
    if enrollment.role == SUPER_ADMIN and tx.execute(_MAKE_FIRST_OWNER, {"user_id": user_id, "now": tx.now}):
        tx.record("user.made_owner", "user", user_id)
    made = passkeys.store(tx, user_id, new, name=name, codes=codes, master=master, tell=enrollment.known)
    tx.record(
        "staff.enrolled", "user", user_id, role_id=enrollment.role_id, passkey_id=made.passkey.id,
        invited_by=invited_by,
    )  # fmt: skip
    return Enrolled(user_id, made.recovery_codes)
