"""Nonces: permission for one admin action, once, within five minutes, for whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import nonces
from counterfoil.accounts.types import Nonce
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Forbidden, Invalid
from counterfoil.kernel.secrets import fingerprint

P = ParamSpec("P")
R = TypeVar("R")

LASTS = timedelta(minutes=5)

PURPOSES = frozenset({"staff.grant", "tenant.suspend", "refund.approve", "refund.deny", "refund.settle"})
"""The actions that need one."""

_GET = sa.select(*columns(nonces)).where(mine(nonces), nonces.c.nonce_hash == sa.bindparam("hash"))
_CONSUME = (
    sa.update(nonces)
    .where(
        mine(nonces),
        nonces.c.nonce_hash == sa.bindparam("hash"),
        nonces.c.purpose == sa.bindparam("for_purpose"),
        nonces.c.issued_to == sa.bindparam("caller"),
        nonces.c.consumed_at.is_(None),
        nonces.c.expires_at > sa.bindparam("now"),
    )
    .values(consumed_at=sa.bindparam("now"))
)
_TIDY = sa.delete(nonces).where(mine(nonces), nonces.c.expires_at < sa.bindparam("before"))


class NewNonce(msgspec.Struct, frozen=True):
    """A nonce just made, with the secret that is shown this once."""

    nonce: Nonce
    secret: str


def create(tx: Tx, purpose: str, secret: str) -> NewNonce:
    """Make one for the transaction's actor. Raises Invalid (``invalid_nonce_purpose``)."""
    if purpose not in PURPOSES:
        raise Invalid.field("purpose", f"one of {', '.join(sorted(PURPOSES))}", code="invalid_nonce_purpose")
    nonce = Nonce(
        id=tx.new_id("non"),
        purpose=purpose,
        nonce_hash=fingerprint(secret),
        issued_to=_caller(tx),
        expires_at=tx.now + LASTS,
        consumed_at=None,
        created_at=tx.now,
    )
    tx.insert(nonces, nonce)
    return NewNonce(nonce, secret)


def consume(tx: Tx, secret: str | None, purpose: str) -> None:
    """Use a nonce up. Raises Forbidden with a code that says what is wrong with it."""
    if secret is None:
        raise Forbidden(f"This needs a nonce for {purpose}: POST /v1/nonces.", code="nonce_required")
    params = {"hash": fingerprint(secret), "for_purpose": purpose, "caller": _caller(tx), "now": tx.now}
    if tx.execute(_CONSUME, params):
        return
    row = tx.one(_GET, {"hash": fingerprint(secret)})
    nonce = Nonce(*row) if row else None
    if nonce is None or nonce.issued_to != _caller(tx):
        raise Forbidden("There is no such nonce.", code="nonce_not_found")
    if nonce.purpose != purpose:
        raise Forbidden(f"This nonce is for {nonce.purpose}, not {purpose}.", code="invalid_nonce_purpose")
    if nonce.consumed_at is not None:
        raise Forbidden("This nonce has been used.", code="nonce_already_used")
    raise Forbidden("This nonce has expired.", code="nonce_expired")


def guarded(
    tx: Tx, secret: str | None, purpose: str, op: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Use a nonce up and do what it is for, both or neither."""
    consume(tx, secret, purpose)
    return op(tx, *args, **kwargs)


def tidy(tx: Tx) -> int:
    """Forget nonces that expired over a day ago; how many."""
    return tx.execute(_TIDY, {"before": tx.now - timedelta(days=1)})


def _caller(tx: Tx) -> str:
    return f"{tx.actor.kind}:{tx.actor.id}"
