"""Sessions: signed-in browsers.

A session ends when it is idle for too long, at a fixed time however busy it is, or when somebody ends it.
Signing in always makes a new one, and so does showing a passkey: a token that was known before is worth
nothing after.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.access import Identity
from counterfoil.accounts.permissions import expand
from counterfoil.accounts.tables import customers, role_assignments, roles, sessions, tenants, users
from counterfoil.accounts.types import Session, SessionMethod
from counterfoil.db.base import single_statement
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.secrets import fingerprint

WORN_AFTER = timedelta(minutes=5)
"""How exact the time of last use is kept."""

_target = customers.alias("target")
_above = customers.alias("above")

_IDENTIFY = (
    sa.select(
        sessions.c.id,
        sessions.c.user_id,
        users.c.first_name,
        users.c.last_name,
        sessions.c.passkey_at,
        sessions.c.last_seen_at,
        _target.c.id.label("target_id"),
        role_assignments.c.customer_id,
        roles.c.permissions,
    )
    .select_from(sessions)
    .join(tenants, tenants.c.tenant_id == sessions.c.tenant_id)
    .join(users, sa.and_(users.c.tenant_id == sessions.c.tenant_id, users.c.id == sessions.c.user_id))
    .outerjoin(
        _target,
        sa.and_(
            _target.c.tenant_id == sessions.c.tenant_id,
            _target.c.id == sa.bindparam("target"),
            _target.c.deleted_at.is_(None),
        ),
    )
    .outerjoin(_above, sa.and_(_above.c.tenant_id == sessions.c.tenant_id, _above.c.id == _target.c.parent_id))
    .outerjoin(
        role_assignments,
        sa.and_(
            role_assignments.c.tenant_id == sessions.c.tenant_id,
            role_assignments.c.user_id == sessions.c.user_id,
            sa.or_(
                role_assignments.c.customer_id.is_(None),
                # Three levels: the customer, the one above, and the one above that.
                role_assignments.c.customer_id.in_([_target.c.id, _target.c.parent_id, _above.c.parent_id]),
            ),
        ),
    )
    .outerjoin(
        roles, sa.and_(roles.c.tenant_id == role_assignments.c.tenant_id, roles.c.id == role_assignments.c.role_id)
    )
    .where(
        mine(sessions),
        sessions.c.token_hash == sa.bindparam("hash"),
        sessions.c.revoked_at.is_(None),
        sessions.c.expires_at > sa.bindparam("now"),
        sessions.c.last_seen_at > sa.bindparam("idle_since"),
        users.c.status == "active",
        users.c.deleted_at.is_(None),
        tenants.c.status == "active",
    )
)
_LIVE = (
    sa.select(*columns(sessions))
    .where(
        mine(sessions),
        sessions.c.user_id == sa.bindparam("user_id"),
        sessions.c.revoked_at.is_(None),
        sessions.c.expires_at > sa.bindparam("now"),
        sessions.c.last_seen_at > sa.bindparam("idle_since"),
        sessions.c.id > sa.bindparam("after"),
    )
    .order_by(sessions.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_REVOKE = (
    sa.update(sessions)
    .where(
        mine(sessions),
        sessions.c.user_id == sa.bindparam("of_user"),
        sessions.c.id == sa.bindparam("session_id"),
        sessions.c.revoked_at.is_(None),
    )
    .values(revoked_at=sa.bindparam("now"))
)
_REVOKE_OTHERS = (
    sa.update(sessions)
    .where(
        mine(sessions),
        sessions.c.user_id == sa.bindparam("of_user"),
        sessions.c.id != sa.bindparam("but"),
        sessions.c.revoked_at.is_(None),
    )
    .values(revoked_at=sa.bindparam("now"))
)
_TOUCH = (
    sa.update(sessions)
    .where(mine(sessions), any_of(sessions.c.id, "ids"), sessions.c.last_seen_at < sa.bindparam("now"))
    .values(last_seen_at=sa.bindparam("now"))
)
_TIDY = sa.delete(sessions).where(mine(sessions), sessions.c.expires_at < sa.bindparam("before"))


class Lasts(msgspec.Struct, frozen=True):
    """How long sessions last."""

    idle: timedelta
    """Without a request."""
    longest: timedelta
    """However busy."""
    passkey: timedelta
    """How long a passkey that was shown opens what is for staff."""


def open_(
    tx: Tx, user_id: str, token: str, method: SessionMethod, lasts: Lasts, *, replaces: str | None = None
) -> Session:
    """Sign a user in under a token made by the caller; the session that is replaced ends.

    The browser's address and name come from the transaction's actor.
    """
    session = Session(
        id=tx.new_id("ses"),
        user_id=user_id,
        token_hash=fingerprint(token),
        method=method,
        address=tx.actor.address,
        user_agent=tx.actor.user_agent,
        passkey_at=tx.now if method == "passkey" else None,
        last_seen_at=tx.now,
        expires_at=tx.now + lasts.longest,
        revoked_at=None,
        created_at=tx.now,
    )
    tx.insert(sessions, session)
    tx.record("session.opened", "session", session.id, user_id=user_id, method=method)
    if replaces is not None:
        tx.execute(_REVOKE, {"of_user": user_id, "session_id": replaces, "now": tx.now})
    return session


@single_statement
def identify(tx: Tx, token: str, target: str | None, lasts: Lasts) -> Identity | None:
    """Who holds this token, and what they may do at ``target`` (a customer) or in the tenant. None: nobody."""
    params = {"hash": fingerprint(token), "target": target, "now": tx.now, "idle_since": tx.now - lasts.idle}
    rows = tx.all(_IDENTIFY, params)
    if not rows:
        return None
    first = rows[0]
    fresh = first.passkey_at is not None and tx.now < first.passkey_at + lasts.passkey
    staff: set[str] = set()
    held: set[str] = set()
    for row in rows:
        if row.permissions is not None:
            (held if row.customer_id is not None else staff).update(expand(row.permissions))
    return Identity(
        tenant=tx.tenant,
        kind="user",
        id=first.user_id,
        name=f"{first.first_name} {first.last_name}".strip(),
        held=frozenset(held | staff if fresh else held),
        locked=frozenset() if fresh else frozenset(staff - held),
        target=target,
        target_exists=first.target_id is not None,
        session_id=first.id,
        worn=tx.now - first.last_seen_at > WORN_AFTER,
    )


def list_(tx: Tx, user_id: str, lasts: Lasts, *, after: str = "", limit: int = 20) -> Page[Session]:
    """A page of a user's live sessions, oldest first."""
    params = {"user_id": user_id, "now": tx.now, "idle_since": tx.now - lasts.idle}
    rows = tx.all(_LIVE, {**params, "after": after, "limit": limit + 1})
    return page_of([Session(*row) for row in rows], limit)


def revoke(tx: Tx, user_id: str, session_id: str) -> None:
    """End one of a user's sessions. Raises NotFound."""
    if not tx.execute(_REVOKE, {"of_user": user_id, "session_id": session_id, "now": tx.now}):
        raise NotFound("There is no such session.", code="session_not_found")
    tx.record("session.revoked", "session", session_id, user_id=user_id)


def revoke_all(tx: Tx, user_id: str, *, but: str = "") -> int:
    """End all of a user's sessions except one; how many."""
    ended = tx.execute(_REVOKE_OTHERS, {"of_user": user_id, "but": but, "now": tx.now})
    if ended:
        tx.record("session.revoked_all", "user", user_id, count=ended)
    return ended


def touch(tx: Tx, ids: list[str]) -> None:
    """Note that sessions are in use."""
    tx.execute(_TOUCH, {"ids": ids, "now": tx.now})


def tidy(tx: Tx, *, keep: timedelta) -> int:
    """Forget sessions that ended long ago; how many."""
    before: datetime = tx.now - keep
    return tx.execute(_TIDY, {"before": before})
