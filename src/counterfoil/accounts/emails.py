"""A user's addresses: claimed, verified by a letter, made the primary one, removed.

Anybody may claim an address; only one user can have verified it, and the unique index says who. Nothing tells
whoever claims an address whether it is somebody else's, until a letter to it proves that they read it.
"""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from counterfoil.accounts import one_time_tokens
from counterfoil.accounts.tables import user_emails, users
from counterfoil.accounts.types import UserEmail
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.text import normalize_email
from counterfoil.mail import outgoing

LASTS = timedelta(hours=24)
MOST = 20
"""How many addresses a user may have."""
_PURPOSE = "verify_address"

_HOLD_USER = (
    sa.select(users.c.id)
    .where(mine(users), users.c.id == sa.bindparam("user_id"), users.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_OWN = sa.and_(mine(user_emails), user_emails.c.user_id == sa.bindparam("of_user"))
_ALL = sa.select(*columns(user_emails)).where(_OWN).order_by(user_emails.c.id)
_ONE = sa.select(*columns(user_emails)).where(_OWN, user_emails.c.id == sa.bindparam("email_id"))
_BY_ADDRESS = sa.select(*columns(user_emails)).where(_OWN, user_emails.c.email == sa.bindparam("email"))
_VERIFY = (
    sa.update(user_emails)
    .where(_OWN, user_emails.c.id == sa.bindparam("email_id"), user_emails.c.verified_at.is_(None))
    .values(verified_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
    .returning(*columns(user_emails))
)
_UNSET_PRIMARY = (
    sa.update(user_emails)
    .where(_OWN, user_emails.c.is_primary)
    .values(is_primary=sa.false(), updated_at=sa.bindparam("now"))
)
_SET_PRIMARY = (
    sa.update(user_emails)
    .where(_OWN, user_emails.c.id == sa.bindparam("email_id"), user_emails.c.verified_at.is_not(None))
    .values(is_primary=sa.true(), updated_at=sa.bindparam("now"))
    .returning(*columns(user_emails))
)
_REMOVE = sa.delete(user_emails).where(_OWN, user_emails.c.id == sa.bindparam("email_id"))


def _hold(tx: Tx, user_id: str) -> None:
    """Let nobody else change this user's addresses until the transaction ends. Raises NotFound."""
    if tx.one(_HOLD_USER, {"user_id": user_id}) is None:
        raise NotFound("There is no such user.", code="user_not_found")


def list_(tx: Tx, user_id: str) -> list[UserEmail]:
    """A user's addresses, oldest first: there are few."""
    return [UserEmail(*row) for row in tx.all(_ALL, {"of_user": user_id})]


def _get(tx: Tx, user_id: str, email_id: str) -> UserEmail:
    row = tx.one(_ONE, {"of_user": user_id, "email_id": email_id})
    if row is None:
        raise NotFound("You have no such address.", code="user_email_not_found")
    return UserEmail(*row)


def add(tx: Tx, master: MasterKey, user_id: str, email: str, *, token: str | None, base: str) -> UserEmail:
    """Claim an address; a letter to it holds the link that verifies it. Claimed already, it gets another letter.

    ``token``: the link's secret, None to send no letter. ``base``: where the tenant's pages are. Raises Invalid;
    Conflict (``too_many_emails``).
    """
    address = normalize_email("email", email)
    _hold(tx, user_id)
    known = tx.one(_BY_ADDRESS, {"of_user": user_id, "email": address})
    if known is not None:
        claimed = UserEmail(*known)
    else:
        if len(list_(tx, user_id)) >= MOST:
            raise Conflict(f"Nobody may have more than {MOST} addresses. Remove one first.", code="too_many_emails")
        claimed = UserEmail(
            id=tx.new_id("uem"),
            user_id=user_id,
            email=address,
            is_primary=False,
            verified_at=None,
            via="email:added",
            created_at=tx.now,
            updated_at=tx.now,
        )
        tx.insert(user_emails, claimed)
        tx.record("user_email.added", "user_email", claimed.id, user_id=user_id)
    if claimed.verified_at is None and token is not None:
        details = {"user_id": user_id, "email_id": claimed.id}
        one_time_tokens.create(tx, _PURPOSE, token, lasts=LASTS, details=details, user_id=user_id)
        context = {"link": f"{base}/verify-address?token={token}", "expires": "in one day"}
        outgoing.queue(tx, master, address, "verify_address", context)
    return claimed


def read(tx: Tx, user_id: str, token: str) -> UserEmail:
    """The address a link would verify for this user, without using it. Raises Invalid (``bad_token``)."""
    found = one_time_tokens.look(tx, _PURPOSE, token)
    if found is None or found[0]["user_id"] != user_id:
        raise one_time_tokens.bad_token()
    row = tx.one(_ONE, {"of_user": user_id, "email_id": found[0]["email_id"]})
    if row is None or (claimed := UserEmail(*row)).verified_at is not None:
        raise one_time_tokens.bad_token()
    return claimed


def verify(tx: Tx, user_id: str, token: str) -> UserEmail:
    """Take the proof that a letter arrived, from the user who claimed the address.

    Raises Invalid (``bad_token``) for a token that is not good, or not theirs; Conflict (``email_taken``) when
    another user has verified the address meanwhile.
    """
    _hold(tx, user_id)
    details = one_time_tokens.spend(tx, _PURPOSE, token)
    if details is None or details["user_id"] != user_id:
        raise one_time_tokens.bad_token()
    try:
        row = tx.one(_VERIFY, {"of_user": user_id, "email_id": details["email_id"], "now": tx.now})
    except IntegrityError as error:
        raise Conflict("This address belongs to another account.", code="email_taken") from error
    if row is None:  # removed, or verified by an earlier letter
        raise one_time_tokens.bad_token()
    verified = UserEmail(*row)
    tx.record("user_email.verified", "user_email", verified.id, user_id=user_id)
    return verified


def make_primary(tx: Tx, user_id: str, email_id: str) -> UserEmail:
    """Have letters go to a verified address from now on. Raises NotFound; Conflict (``email_not_verified``)."""
    _hold(tx, user_id)
    known = _get(tx, user_id, email_id)
    if known.is_primary:
        return known
    if known.verified_at is None:
        raise Conflict("Verify this address first, by the link in our letter to it.", code="email_not_verified")
    tx.execute(_UNSET_PRIMARY, {"of_user": user_id, "now": tx.now})
    row = tx.one(_SET_PRIMARY, {"of_user": user_id, "email_id": email_id, "now": tx.now})
    assert row is not None  # the user's row is held
    tx.record("user_email.made_primary", "user_email", email_id, user_id=user_id)
    return UserEmail(*row)


def remove(tx: Tx, user_id: str, email_id: str) -> None:
    """Let go of an address. Raises NotFound; Conflict (``primary_email``) for the one that letters go to."""
    _hold(tx, user_id)
    if _get(tx, user_id, email_id).is_primary:
        raise Conflict("Make another address the primary one first.", code="primary_email")
    tx.execute(_REMOVE, {"of_user": user_id, "email_id": email_id})
    tx.record("user_email.removed", "user_email", email_id, user_id=user_id)


def primary_of(tx: Tx, user_id: str) -> str | None:
    """Where letters to a user go; None only for a user who was deleted."""
    return next((one.email for one in list_(tx, user_id) if one.is_primary), None)
