"""Operations on idempotency keys: claim one, make its change once, keep its answer.

A key's row goes from ``in_progress`` to ``done``. Whoever handles a request claims the row first. The
transaction that makes the change then says so in the row (``effect_at``), on the condition that nobody did
before: so the change is made once even when whoever claimed it is taken for dead and is only slow.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.idempotency.tables import idempotency_keys
from counterfoil.idempotency.types import IdempotencyKey
from counterfoil.kernel.errors import Conflict, Invalid

KEPT = timedelta(hours=24)
"""How long a key is good for its answer."""
CLAIMED = timedelta(seconds=30)
"""When whoever handles a request is taken for dead."""

_ONE = sa.and_(mine(idempotency_keys), idempotency_keys.c.id == sa.bindparam("key_id"))
_OURS = sa.and_(_ONE, idempotency_keys.c.claimed_by == sa.bindparam("me"))
_GET = sa.select(*columns(idempotency_keys)).where(_ONE)
_BEGIN_ANEW = (
    sa.update(idempotency_keys)
    .where(_ONE, idempotency_keys.c.expires_at <= sa.bindparam("now"))
    .values(
        request_hash=sa.bindparam("new_hash"),
        status="in_progress",
        claimed_by=sa.bindparam("new_handler"),
        claimed_until=sa.bindparam("until"),
        effect_at=None,
        answer_status=None,
        answer_sealed=None,
        expires_at=sa.bindparam("expiry"),
        created_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
)
_TAKE_OVER = (
    sa.update(idempotency_keys)
    .where(
        _ONE,
        idempotency_keys.c.status == "in_progress",
        idempotency_keys.c.effect_at.is_(None),
        idempotency_keys.c.claimed_until <= sa.bindparam("now"),
    )
    .values(claimed_by=sa.bindparam("new_handler"), claimed_until=sa.bindparam("until"), updated_at=sa.bindparam("now"))
)
_MARK_FIRST = (
    sa.update(idempotency_keys)
    .where(_OURS, idempotency_keys.c.effect_at.is_(None))
    .values(effect_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
_MARK_AGAIN = (
    sa.update(idempotency_keys)
    .where(_OURS, idempotency_keys.c.effect_at.is_not(None))
    .values(updated_at=sa.bindparam("now"))
)
_ANSWER = {
    "status": "done",
    "answer_status": sa.bindparam("new_status", type_=sa.Integer),
    "answer_sealed": sa.bindparam("new_answer"),
    "updated_at": sa.bindparam("now"),
}
_STORE = sa.update(idempotency_keys).where(_OURS).values(_ANSWER)
_STORE_FIRST = sa.update(idempotency_keys).where(_ONE, idempotency_keys.c.status == "in_progress").values(_ANSWER)
_FREE = sa.delete(idempotency_keys).where(_OURS)
_FREE_UNLESS_DONE = _FREE.where(idempotency_keys.c.status == "in_progress", idempotency_keys.c.effect_at.is_(None))
_LET_GO = (
    sa.update(idempotency_keys)
    .where(_OURS, idempotency_keys.c.status == "in_progress")
    .values(claimed_until=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
_EXPIRED = (
    sa.select(idempotency_keys.c.id)
    .where(mine(idempotency_keys), idempotency_keys.c.expires_at <= sa.bindparam("now"))
    .order_by(idempotency_keys.c.expires_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_TIDY = sa.delete(idempotency_keys).where(
    mine(idempotency_keys),
    idempotency_keys.c.id.in_(_EXPIRED),
    idempotency_keys.c.expires_at <= sa.bindparam("now"),
)


class KeyInUse(Conflict):
    """The request that this key belongs to is being handled; asking again soon finds its answer."""

    default_code = "idempotency_key_in_use"
    retryable = True
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("A request with this Idempotency-Key is in progress.")


class Overtaken(KeyInUse):
    """This handling was taken for dead, and another one has the key: nothing was changed by this one."""


class Answer(msgspec.Struct, frozen=True):
    """A stored answer, sealed."""

    status: int
    sealed: bytes


class Claim(msgspec.Struct, frozen=True):
    """What a key stands for: a request to handle now, or one that has its answer."""

    begun_at: datetime
    """When the key was used first; another life of the same key begins at another time."""
    answer: Answer | None


def claim(tx: Tx, key_id: str, request_hash: str, me: str, *, shared: bool = False) -> Claim:
    """Claim a key for the handling ``me``, or find its answer.

    ``shared``: the change is kept single by other means, so that several handlings do no harm. Raises Invalid
    (``idempotency_key_reused``); KeyInUse; Conflict (``idempotency_answer_lost``).
    """
    until, expiry = tx.now + CLAIMED, tx.now + KEPT
    row = IdempotencyKey(
        id=key_id,
        request_hash=request_hash,
        status="in_progress",
        claimed_by=me,
        claimed_until=until,
        effect_at=None,
        answer_status=None,
        answer_sealed=None,
        expires_at=expiry,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if tx.insert_if_new(idempotency_keys, row):
        return Claim(tx.now, None)
    params = {"key_id": key_id, "new_handler": me, "until": until, "now": tx.now}
    if tx.execute(_BEGIN_ANEW, {**params, "new_hash": request_hash, "expiry": expiry}):
        return Claim(tx.now, None)
    found = tx.one(_GET, {"key_id": key_id})
    if found is None:  # freed, or tidied, a moment ago
        raise KeyInUse
    known = IdempotencyKey(*found)
    if known.request_hash != request_hash:
        raise Invalid("This Idempotency-Key was used with another request.", code="idempotency_key_reused")
    if known.answer_status is not None and known.answer_sealed is not None:
        return Claim(known.created_at, Answer(known.answer_status, known.answer_sealed))
    if shared or tx.execute(_TAKE_OVER, params):
        return Claim(known.created_at, None)
    if known.effect_at is not None and known.claimed_until <= tx.now:
        raise Conflict(
            "This was done, but its answer was lost. Look at what there is before you ask with another key.",
            code="idempotency_answer_lost",
        )
    raise KeyInUse


def mark_effect(tx: Tx, key_id: str, me: str, *, first: bool) -> None:
    """Say that this transaction makes the request's change; ``first`` unless this handling committed one before.

    Raises Overtaken when another handling has the key, or made the change.
    """
    statement = _MARK_FIRST if first else _MARK_AGAIN
    if not tx.execute(statement, {"key_id": key_id, "me": me, "now": tx.now}):
        raise Overtaken


def store(tx: Tx, key_id: str, me: str, answer: Answer) -> bool:
    """Keep the answer of a handling. Whether the key was its own still."""
    params = {"key_id": key_id, "me": me, "new_status": answer.status, "new_answer": answer.sealed, "now": tx.now}
    return tx.execute(_STORE, params) == 1


def store_first(tx: Tx, key_id: str, answer: Answer) -> Answer:
    """Keep the answer of one of several handlings, and give the one that was kept first."""
    params = {"key_id": key_id, "new_status": answer.status, "new_answer": answer.sealed, "now": tx.now}
    if not tx.execute(_STORE_FIRST, params):
        return answer_of(tx, key_id) or answer
    return answer


def answer_of(tx: Tx, key_id: str) -> Answer | None:
    """The answer a key has, if it has one."""
    row = tx.one(_GET, {"key_id": key_id})
    known = IdempotencyKey(*row) if row else None
    if known is None or known.answer_status is None or known.answer_sealed is None:
        return None
    return Answer(known.answer_status, known.answer_sealed)


def free(tx: Tx, key_id: str, me: str) -> None:
    """Forget a key whose request was refused in a way that may change: it can be used as if for the first time."""
    tx.execute(_FREE, {"key_id": key_id, "me": me})


def let_go(tx: Tx, key_id: str, me: str) -> None:
    """Forget a key whose request failed, unless its change was made: then nothing makes it again."""
    if not tx.execute(_FREE_UNLESS_DONE, {"key_id": key_id, "me": me}):
        tx.execute(_LET_GO, {"key_id": key_id, "me": me, "now": tx.now})


def tidy(tx: Tx, *, limit: int = 1000) -> int:
    """Delete keys whose time is over; how many."""
    return tx.execute(_TIDY, {"now": tx.now, "limit": limit})
