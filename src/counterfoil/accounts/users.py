"""Users: the people who can sign in, and their addresses."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from counterfoil.accounts.tables import customers, role_assignments, roles, user_emails, users
from counterfoil.accounts.types import User, UserEmail, UserRole, UserStatus
from counterfoil.db.base import single_statement
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line, check_url, normalize_email

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
_CHANGE = sa.update(users).where(mine(users), users.c.id == sa.bindparam("user_id"), users.c.deleted_at.is_(None))
_SET_PASSWORD = _CHANGE.values(password_hash=sa.bindparam("new_hash"), updated_at=sa.bindparam("now"))
_REHASH = _CHANGE.where(users.c.password_hash == sa.bindparam("old_hash")).values(
    password_hash=sa.bindparam("new_hash"), updated_at=sa.bindparam("now")
)
_SUMMARY = (
    sa.select(
        users.c.id,
        user_emails.c.email,
        users.c.username,
        users.c.first_name,
        users.c.last_name,
        users.c.avatar_url,
        users.c.role,
        users.c.status,
        users.c.created_at,
        users.c.updated_at,
    )
    .outerjoin(
        user_emails,
        sa.and_(
            user_emails.c.tenant_id == users.c.tenant_id, user_emails.c.user_id == users.c.id, user_emails.c.is_primary
        ),
    )
    .where(mine(users), users.c.deleted_at.is_(None))
)
_SUMMARY_OF = _SUMMARY.where(users.c.id == sa.bindparam("id"))
_proved = user_emails.alias("proved")
_FILTERS = {
    "status": users.c.status == sa.bindparam("status"),
    "email": sa.exists(
        sa.select(_proved.c.id).where(
            _proved.c.tenant_id == users.c.tenant_id,
            _proved.c.user_id == users.c.id,
            _proved.c.email == sa.bindparam("email"),
            _proved.c.verified_at.is_not(None),
        )
    ),
}


def _nothing(type_: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.null(), type_)


# Everything /v1/me says of a person, in one statement: themselves, a row for each address, a row for each role.
_PROFILE = sa.union_all(
    sa.select(
        sa.literal("user").label("kind"),
        users.c.id,
        users.c.first_name.label("one"),
        users.c.last_name.label("two"),
        users.c.username.label("three"),
        users.c.avatar_url.label("four"),
        _nothing(sa.Boolean).label("flag"),
        users.c.created_at.label("moment"),
    ).where(mine(users), users.c.id == sa.bindparam("id"), users.c.deleted_at.is_(None)),
    sa.select(
        sa.literal("email"),
        user_emails.c.id,
        user_emails.c.email,
        user_emails.c.via,
        _nothing(sa.Text),
        _nothing(sa.Text),
        user_emails.c.is_primary,
        user_emails.c.verified_at,
    ).where(mine(user_emails), user_emails.c.user_id == sa.bindparam("id")),
    sa.select(
        sa.literal("role"),
        role_assignments.c.id,
        roles.c.id,
        roles.c.name,
        customers.c.id,
        customers.c.name,
        _nothing(sa.Boolean),
        role_assignments.c.created_at,
    )
    .select_from(role_assignments)
    .join(roles, sa.and_(roles.c.tenant_id == role_assignments.c.tenant_id, roles.c.id == role_assignments.c.role_id))
    .outerjoin(
        customers,
        sa.and_(
            customers.c.tenant_id == role_assignments.c.tenant_id, customers.c.id == role_assignments.c.customer_id
        ),
    )
    .where(
        mine(role_assignments),
        role_assignments.c.user_id == sa.bindparam("id"),
        customers.c.deleted_at.is_(None),
    ),
)

MOST_NAME = 200
_USERNAME = re.compile(r"[a-z0-9_-]{3,40}")


class UserChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people may change about themselves; what is left out stays."""

    first_name: str | msgspec.UnsetType = msgspec.UNSET
    last_name: str | msgspec.UnsetType = msgspec.UNSET
    username: str | msgspec.UnsetType | None = msgspec.UNSET
    """3 to 40 of a-z, 0-9, ``_`` and ``-``; nobody else's."""
    avatar_url: str | msgspec.UnsetType | None = msgspec.UNSET


class UserSummary(msgspec.Struct, frozen=True):
    """A user as staff sees them."""

    id: str
    email: str | None
    """The primary address."""
    username: str | None
    first_name: str
    last_name: str
    avatar_url: str | None
    role: UserRole
    status: UserStatus
    created_at: datetime
    updated_at: datetime


class ProfileEmail(msgspec.Struct, frozen=True):
    """An address of somebody's."""

    id: str
    email: str
    via: str
    is_primary: bool
    verified_at: datetime | None


class ProfileRole(msgspec.Struct, frozen=True):
    """A role somebody has: at a customer, or in the tenant itself."""

    role_id: str
    role: str
    customer_id: str | None
    customer_name: str | None


class Profile(msgspec.Struct, frozen=True):
    """Somebody, with their addresses and roles, oldest first."""

    id: str
    first_name: str
    last_name: str
    username: str | None
    avatar_url: str | None
    created_at: datetime
    emails: list[ProfileEmail]
    roles: list[ProfileRole]


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


def rehash(tx: Tx, user_id: str, old_hash: str, new_hash: str) -> None:
    """Keep the same password under today's parameters, unless it was changed meanwhile."""
    if tx.execute(_REHASH, {"user_id": user_id, "old_hash": old_hash, "new_hash": new_hash, "now": tx.now}):
        tx.record("user.password_rehashed", "user", user_id)


def check_username(field: str, value: str) -> str:
    """Raise Invalid unless it is 3 to 40 of a-z, 0-9, ``_`` and ``-``."""
    if not _USERNAME.fullmatch(value):
        raise Invalid.field(field, "3 to 40 of the characters a-z, 0-9, _ and -")
    return value


_CHECKS = {
    "first_name": lambda value: check_line("first_name", value, most=MOST_NAME, least=1),
    "last_name": lambda value: check_line("last_name", value, most=MOST_NAME),
    "username": lambda value: check_username("username", value),
    "avatar_url": lambda value: check_url("avatar_url", value),
}


def update(tx: Tx, user_id: str, changes: UserChanges) -> User:
    """Change a user's names, picture and username. Raises Invalid, NotFound; Conflict (``username_taken``)."""
    given = {
        name: None if value is None else _CHECKS[name](value)
        for name in changes.__struct_fields__
        if (value := getattr(changes, name)) is not msgspec.UNSET
    }
    if not given:
        return get(tx, user_id)
    statement = _CHANGE.values(**given, updated_at=tx.now).returning(*columns(users))
    try:
        row = tx.one(statement, {"user_id": user_id})
    except IntegrityError as error:  # the unique index is the only judge of that
        raise Conflict("Somebody else has this username.", code="username_taken") from error
    if row is None:
        raise NotFound("There is no such user.", code="user_not_found")
    tx.record("user.updated", "user", user_id, changed=sorted(given))
    return User(*row)


@single_statement
def profile(tx: Tx, user_id: str) -> Profile:
    """Somebody with their addresses and roles. Raises NotFound."""
    found: dict[str, list[Any]] = {"user": [], "email": [], "role": []}
    for row in tx.all(_PROFILE, {"id": user_id}):
        found[row.kind].append(row)
    if not found["user"]:
        raise NotFound("There is no such user.", code="user_not_found")
    (user,) = found["user"]
    return Profile(
        id=user.id,
        first_name=user.one,
        last_name=user.two,
        username=user.three,
        avatar_url=user.four,
        created_at=user.moment,
        emails=[
            ProfileEmail(row.id, row.one, row.two, row.flag, row.moment)
            for row in sorted(found["email"], key=lambda row: str(row.id))
        ],
        roles=[
            ProfileRole(row.one, row.two, row.three, row.four)
            for row in sorted(found["role"], key=lambda row: str(row.id))
        ],
    )


def summary(tx: Tx, user_id: str) -> UserSummary:
    """A user as staff sees them. Raises NotFound (``user_not_found``)."""
    row = tx.one(_SUMMARY_OF, {"id": user_id})
    if row is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return UserSummary(*row)


@cache
def _list(filters: frozenset[str]) -> sa.Select[*tuple[Any, ...]]:
    statement = _SUMMARY.where(users.c.id > sa.bindparam("after"))
    for name in sorted(filters):
        statement = statement.where(_FILTERS[name])
    return statement.order_by(users.c.id).limit(sa.bindparam("limit", type_=sa.Integer))


def list_(
    tx: Tx, *, email: str | None = None, status: UserStatus | None = None, after: str = "", limit: int = 20
) -> Page[UserSummary]:
    """A page of users, oldest first: whose proved address it is, who has a status, or all."""
    filters: dict[str, Any] = {} if status is None else {"status": status}
    if email is not None:
        filters["email"] = unicodedata.normalize("NFC", email).strip().lower()
    rows = tx.all(_list(frozenset(filters)), {**filters, "after": after, "limit": limit + 1})
    return page_of([UserSummary(*row) for row in rows], limit)
