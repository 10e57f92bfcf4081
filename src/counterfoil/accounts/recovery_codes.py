"""Recovery codes: for whoever has lost every passkey. Each opens one session, once, that may add a new passkey."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from counterfoil.accounts import one_time_tokens, users
from counterfoil.accounts.tables import one_time_tokens as tokens
from counterfoil.accounts.types import User
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Invalid, Unauthorized
from counterfoil.kernel.secrets import MasterKey, new_secret
from counterfoil.kernel.text import normalize_email
from counterfoil.mail import outgoing

HOW_MANY = 10
_PURPOSE = "recovery_code"
_BYTES = 10
_GROUP = 4
_FOR_EVER = timedelta(days=365 * 100)

_OF_USER = sa.and_(mine(tokens), tokens.c.user_id == sa.bindparam("of_user"), tokens.c.purpose == _PURPOSE)
_LEFT = sa.select(sa.func.count()).select_from(tokens).where(_OF_USER, tokens.c.used_at.is_(None))
_FORGET = sa.delete(tokens).where(_OF_USER)


def new_codes() -> list[str]:
    """Fresh codes, of 80 bits each, grouped for reading: ``abcd-efgh-2345-mnop``."""
    texts = [new_secret(_BYTES) for _ in range(HOW_MANY)]
    return ["-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP)) for text in texts]


def replace(tx: Tx, user_id: str, codes: list[str]) -> None:
    """Give a user new codes; only their hashes are kept, and the old ones are forgotten."""
    tx.execute(_FORGET, {"of_user": user_id})
    for code in codes:
        text = _text(user_id, code)
        one_time_tokens.create(tx, _PURPOSE, text, lasts=_FOR_EVER, details={}, user_id=user_id)
    tx.record("recovery_codes.made", "user", user_id, count=len(codes))


def left(tx: Tx, user_id: str) -> int:
    """How many codes a user has not used yet."""
    row = tx.one(_LEFT, {"of_user": user_id})
    return int(row[0]) if row else 0


def whose(tx: Tx, email: str) -> User | None:
    """Who signs in with a code and this address, as it was typed. Who may not is nobody."""
    try:
        user = users.by_email(tx, normalize_email("email", email))
    except Invalid:
        return None
    return user if user is not None and user.status == "active" else None


def spend(tx: Tx, master: MasterKey, email: str, code: str) -> str:
    """Use a code up; whose it was. They are told by letter. Raises Unauthorized (``bad_credentials``)."""
    user = whose(tx, email)
    # An address without an account costs the same statements.
    details = one_time_tokens.spend(tx, _PURPOSE, _text(user.id if user else "", code))
    if user is None or details is None:
        raise bad_code()
    tx.record("recovery_code.used", "user", user.id, left=left(tx, user.id))
    outgoing.queue(tx, master, email, "sign_in_recovered", {})
    return user.id


def bad_code() -> Unauthorized:
    """What is said of a wrong address, a wrong code and a used one alike."""
    return Unauthorized("The e-mail address or the code is wrong, or the code was used.", code="bad_credentials")


def _text(user_id: str, code: str) -> str:
    # The user's id goes into the hash, so that no table of codes made once fits everybody.
    return f"{user_id}:{''.join(code.lower().split()).replace('-', '')}"
