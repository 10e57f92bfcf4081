"""Users: the people who can sign in, and their addresses."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.accounts.tables import user_emails, users
from counterfoil.accounts.types import User, UserEmail, UserRole
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.text import check_line, normalize_email

_GET = sa.select(*columns(users)).where(mine(users), users.c.id == sa.bindparam("id"), users.c.deleted_at.is_(None))
_BY_EMAIL = (
    sa.select(*columns(users))
    .join(user_emails, sa.and_(user_emails.c.tenant_id == users.c.tenant_id, user_emails.c.user_id == users.c.id))
    .where(
        mine(users),
        user_emails.c.email == sa.bindparam("email"),
        user_emails.c.verified_at.is_not(None),
        users.c.deleted_at.is_(None),
    )
)
_EMAILS = (
    sa.select(*columns(user_emails))
    .where(mine(user_emails), user_emails.c.user_id == sa.bindparam("user_id"))
    .order_by(user_emails.c.id)
)
_SET_PASSWORD = (
    sa.update(users)
    .where(mine(users), users.c.id == sa.bindparam("user_id"), users.c.deleted_at.is_(None))
    .values(password_hash=sa.bindparam("new_hash"), updated_at=sa.bindparam("now"))
)

MOST_NAME = 200


def create(
    tx: Tx,
    *,
    email: str,
    first_name: str,
    last_name: str,
    via: str,
    password_hash: str | None = None,
    role: UserRole = "member",
    user_id: str | None = None,
) -> User:
    """Make a user whose address is proved. Raises Invalid; Conflict (``email_taken``) when it is another's.

    ``user_id``: an id that was made before, for what had to know it first.
    """
    address = normalize_email("email", email)
    user = User(
        id=user_id or tx.new_id("usr"),
        username=None,
        first_name=check_line("first_name", first_name, most=MOST_NAME),
        last_name=check_line("last_name", last_name, most=MOST_NAME),
        avatar_url=None,
        password_hash=password_hash,
        role=role,
        status="active",
        deleted_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(users, user)
    row = UserEmail(
        id=tx.new_id("uem"),
        user_id=user.id,
        email=address,
        is_primary=True,
        verified_at=tx.now,
        via=via,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(user_emails, row):
        raise Conflict("There is an account with this address already.", code="email_taken")
    tx.record("user.created", "user", user.id, via=via)
    return user


def get(tx: Tx, user_id: str) -> User:
    """Raise NotFound (``user_not_found``) when there is none, or it was deleted."""
    row = tx.one(_GET, {"id": user_id})
    if row is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return User(*row)


def by_email(tx: Tx, email: str) -> User | None:
    """Whose proved address this is; disabled users too, deleted ones not. ``email`` is normalized."""
    row = tx.one(_BY_EMAIL, {"email": email})
    return User(*row) if row else None


def emails_of(tx: Tx, user_id: str) -> list[UserEmail]:
    """A user's addresses, oldest first."""
    return [UserEmail(*row) for row in tx.all(_EMAILS, {"user_id": user_id})]


def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    """Give a user a new password (see accounts.passwords). Raises NotFound."""
    if not tx.execute(_SET_PASSWORD, {"user_id": user_id, "new_hash": password_hash, "now": tx.now}):
        raise NotFound("There is no such user.", code="user_not_found")
    tx.record("user.password_set", "user", user_id)
