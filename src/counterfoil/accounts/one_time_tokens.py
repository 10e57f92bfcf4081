"""Secrets that are good for one purpose, once, for a while."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from counterfoil.accounts.tables import one_time_tokens
from counterfoil.accounts.types import OneTimeToken
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.secrets import fingerprint

_SPEND = (
    sa.update(one_time_tokens)
    .where(
        mine(one_time_tokens),
        one_time_tokens.c.token_hash == sa.bindparam("hash"),
        one_time_tokens.c.purpose == sa.bindparam("for_purpose"),
        one_time_tokens.c.used_at.is_(None),
        one_time_tokens.c.expires_at > sa.bindparam("now"),
    )
    .values(used_at=sa.bindparam("now"))
    .returning(one_time_tokens.c.details)
)
_LOOK = sa.select(one_time_tokens.c.details, one_time_tokens.c.expires_at).where(
    mine(one_time_tokens),
    one_time_tokens.c.token_hash == sa.bindparam("hash"),
    one_time_tokens.c.purpose == sa.bindparam("for_purpose"),
    one_time_tokens.c.used_at.is_(None),
    one_time_tokens.c.expires_at > sa.bindparam("now"),
)
_VOID = (
    sa.update(one_time_tokens)
    .where(
        mine(one_time_tokens),
        one_time_tokens.c.user_id == sa.bindparam("of_user"),
        one_time_tokens.c.purpose == sa.bindparam("for_purpose"),
        one_time_tokens.c.used_at.is_(None),
    )
    .values(used_at=sa.bindparam("now"))
)
_TIDY = sa.delete(one_time_tokens).where(mine(one_time_tokens), one_time_tokens.c.expires_at < sa.bindparam("before"))


def create(
    tx: Tx, purpose: str, token: str, *, lasts: timedelta, details: dict[str, Any], user_id: str | None = None
) -> None:
    """Remember a token made by the caller; only its hash is kept."""
    row = OneTimeToken(
        id=tx.new_id("ott"),
        purpose=purpose,
        token_hash=fingerprint(token),
        user_id=user_id,
        details=details,
        expires_at=tx.now + lasts,
        used_at=None,
        created_at=tx.now,
    )
    tx.insert(one_time_tokens, row)


def spend(tx: Tx, purpose: str, token: str) -> dict[str, Any] | None:
    """Use a token up; its details, or None when it is unknown, spent, expired or for something else."""
    row = tx.one(_SPEND, {"hash": fingerprint(token), "for_purpose": purpose, "now": tx.now})
    return dict(row[0]) if row else None


def look(tx: Tx, purpose: str, token: str) -> tuple[dict[str, Any], datetime] | None:
    """The details of a token that could be used now, and until when, without using it; else None."""
    row = tx.one(_LOOK, {"hash": fingerprint(token), "for_purpose": purpose, "now": tx.now})
    return (dict(row[0]), row[1]) if row else None


def void(tx: Tx, purpose: str, user_id: str) -> None:
    """Make a user's tokens of one purpose worth nothing."""
    tx.execute(_VOID, {"of_user": user_id, "for_purpose": purpose, "now": tx.now})


def bad_token() -> Invalid:
    """What is said of a token that is unknown, used, expired, for something else or for somebody else alike."""
    return Invalid.field("token", "this link was used, has expired, or is not whole; ask for another", code="bad_token")


def tidy(tx: Tx) -> int:
    """Forget tokens that expired over a day ago; how many."""
    return tx.execute(_TIDY, {"before": tx.now - timedelta(days=1)})
