"""Passkeys: WebAuthn credentials, of security keys (YubiKeys), phones and computers alike.

What a browser sent has been verified before (http.webauthn), but for what only the database knows: that its
challenge is one of ours, not used before, and that its counter has moved on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import one_time_tokens, recovery_codes
from counterfoil.accounts.sessions import Lasts, revoke_all
from counterfoil.accounts.tables import passkeys, role_assignments, sessions, users
from counterfoil.accounts.types import Passkey
from counterfoil.accounts.users import emails_of
from counterfoil.db.base import single_statement
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Forbidden, NotFound, Unauthorized
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.text import check_line
from counterfoil.mail import outgoing

CHALLENGE_LASTS = timedelta(minutes=5)
REGISTER, SIGN_IN = "passkey.register", "passkey.sign_in"
MOST = 20
"""How many passkeys a person may have."""

_OF_USER = (
    sa.select(*columns(passkeys))
    .where(mine(passkeys), passkeys.c.user_id == sa.bindparam("user_id"))
    .order_by(passkeys.c.id)
)
_FIND = (
    sa.select(*columns(passkeys))
    .join(
        users,
        sa.and_(users.c.tenant_id == passkeys.c.tenant_id, users.c.id == passkeys.c.user_id),
    )
    .where(
        mine(passkeys),
        passkeys.c.credential_id == sa.bindparam("credential_id"),
        users.c.status == "active",
        users.c.deleted_at.is_(None),
    )
)
_LOCK_USER = (
    sa.select(users.c.role)
    .where(mine(users), users.c.id == sa.bindparam("user_id"), users.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_STAFF_ROLE = (
    sa.select(role_assignments.c.id)
    .where(
        mine(role_assignments),
        role_assignments.c.user_id == sa.bindparam("user_id"),
        role_assignments.c.customer_id.is_(None),
    )
    .limit(1)
)
_SESSION = sa.select(sessions.c.method, sessions.c.passkey_at).where(
    mine(sessions),
    sessions.c.id == sa.bindparam("session_id"),
    sessions.c.user_id == sa.bindparam("user_id"),
    sessions.c.revoked_at.is_(None),
    sessions.c.expires_at > sa.bindparam("now"),
)
# A counter that does not move on was copied (WebAuthn Level 3, section 6.1.1). Authenticators without one say 0.
_COUNT_UP = (
    sa.update(passkeys)
    .where(
        mine(passkeys),
        passkeys.c.id == sa.bindparam("passkey_id"),
        sa.or_(
            passkeys.c.sign_count < sa.bindparam("shown", type_=sa.BigInteger),
            sa.and_(passkeys.c.sign_count == 0, sa.bindparam("shown", type_=sa.BigInteger) == 0),
        ),
    )
    .values(
        sign_count=sa.bindparam("shown", type_=sa.BigInteger),
        backed_up=sa.bindparam("is_backed_up"),
        last_used_at=sa.bindparam("now"),
    )
)
_OWN = sa.and_(
    mine(passkeys), passkeys.c.id == sa.bindparam("passkey_id"), passkeys.c.user_id == sa.bindparam("of_user")
)
_RENAME = sa.update(passkeys).where(_OWN).values(name=sa.bindparam("new_name")).returning(*columns(passkeys))
_REMOVE = sa.delete(passkeys).where(_OWN)


class NewPasskey(msgspec.Struct, frozen=True):
    """A credential as a browser made it, verified."""

    credential_id: str
    public_key: bytes
    sign_count: int
    transports: list[str]
    aaguid: str
    backed_up: bool


class Answer(msgspec.Struct, frozen=True):
    """An answer to one of our challenges, and whom or what the challenge was bound to."""

    challenge: str
    bound_to: str


class Shown(msgspec.Struct, frozen=True):
    """A passkey as it was shown; its signature is good."""

    passkey: Passkey
    sign_count: int
    backed_up: bool


class Registered(msgspec.Struct, frozen=True):
    """A passkey just added, with fresh recovery codes where there were none; they are shown this once."""

    passkey: Passkey
    recovery_codes: list[str]


# -- challenges ---------------------------------------------------------------------------------------


def challenge(tx: Tx, purpose: str, answer: Answer, *, user_id: str | None = None) -> None:
    """Remember a challenge just handed out; only its hash is kept. ``user_id``: whose passkey must answer it."""
    details = {} if user_id is None else {"user_id": user_id}
    one_time_tokens.create(tx, purpose, _text(answer), lasts=CHALLENGE_LASTS, details=details)


def spend_challenge(tx: Tx, purpose: str, answer: Answer) -> dict[str, Any]:
    """Take a challenge back, once; its details. Raises Conflict (``challenge_expired``)."""
    details = one_time_tokens.spend(tx, purpose, _text(answer))
    if details is None:
        raise Conflict("This took more than five minutes, or was sent before. Try again.", code="challenge_expired")
    return details


def _text(answer: Answer) -> str:
    return f"{answer.bound_to}:{answer.challenge}"


# -- signing in ---------------------------------------------------------------------------------------


def of_user(tx: Tx, user_id: str) -> list[Passkey]:
    """A user's passkeys, oldest first."""
    return [Passkey(*row) for row in tx.all(_OF_USER, {"user_id": user_id})]


@single_statement
def find(tx: Tx, credential_id: str) -> Passkey | None:
    """The passkey with this credential, if its user may sign in."""
    row = tx.one(_FIND, {"credential_id": credential_id})
    return Passkey(*row) if row else None


def bad_credentials() -> Unauthorized:
    """What whoever fails to sign in is told, whatever the reason."""
    return Unauthorized("This did not work. Check what you entered, and try again.", code="bad_credentials")


def use(tx: Tx, answer: Answer, shown: Shown) -> str:
    """Count a passkey's use; whose it is.

    Raises Conflict (``challenge_expired``), Unauthorized (``bad_credentials``), Forbidden (``passkey_cloned``):
    see :func:`refuse_rollback`.
    """
    details = spend_challenge(tx, SIGN_IN, answer)
    passkey = find(tx, shown.passkey.credential_id)
    if passkey is None or passkey.user_id != details.get("user_id", passkey.user_id):
        raise bad_credentials()
    params = {"passkey_id": passkey.id, "shown": shown.sign_count, "is_backed_up": shown.backed_up, "now": tx.now}
    if not tx.execute(_COUNT_UP, params):
        raise Forbidden(
            "This passkey's counter has gone back: there may be a copy of it. Use another one.", code="passkey_cloned"
        )
    return passkey.user_id


def refuse_rollback(tx: Tx, answer: Answer, shown: Shown) -> None:
    """Put on record that a passkey's counter did not move on. The challenge is used up."""
    one_time_tokens.spend(tx, SIGN_IN, _text(answer))
    passkey = shown.passkey
    tx.record(
        "passkey.rollback_refused", "passkey", passkey.id, user_id=passkey.user_id,
        known=passkey.sign_count, shown=shown.sign_count,
    )  # fmt: skip


# -- one's own ----------------------------------------------------------------------------------------


def may_add(tx: Tx, user_id: str, session_id: str, lasts: Lasts) -> None:
    """Let a session add a passkey, or not. Raises Forbidden (``passkey_required``).

    It may where a passkey was shown, and after signing in with a recovery code. A first one needs no more than a
    session, unless its owner is staff: a password alone must not lead to their rights.
    """
    method = _method(tx, user_id, session_id, lasts)
    if method in {"passkey", "recovery_code"}:
        return
    if method is None or of_user(tx, user_id) or is_staff(tx, user_id):
        raise _passkey_required()


def check_shown(tx: Tx, user_id: str, session_id: str, lasts: Lasts) -> None:
    """Refuse a session in which no passkey was shown of late. Raises Forbidden (``passkey_required``)."""
    if _method(tx, user_id, session_id, lasts) != "passkey":
        raise _passkey_required()


def _method(tx: Tx, user_id: str, session_id: str, lasts: Lasts) -> str | None:
    """How a live session was opened; ``passkey`` only as long as that counts."""
    row = tx.one(_SESSION, {"user_id": user_id, "session_id": session_id, "now": tx.now})
    if row is None:
        return None
    fresh = row.passkey_at is not None and tx.now < row.passkey_at + lasts.passkey
    return "passkey" if fresh else "password" if row.method == "passkey" else str(row.method)


def _passkey_required() -> Forbidden:
    return Forbidden("Sign in with your passkey to do this.", code="passkey_required")


def is_staff(tx: Tx, user_id: str) -> bool:
    """Whether a user has a role in the tenant itself."""
    return tx.one(_STAFF_ROLE, {"user_id": user_id}) is not None


def lock_user(tx: Tx, user_id: str) -> None:
    """Wait until nobody else changes the user's passkeys. Raises NotFound."""
    if tx.one(_LOCK_USER, {"user_id": user_id}) is None:
        raise NotFound("There is no such user.", code="user_not_found")


def register(
    tx: Tx,
    user_id: str,
    session_id: str,
    lasts: Lasts,
    answer: Answer,
    new: NewPasskey,
    *,
    name: str,
    codes: list[str],
    master: MasterKey,
) -> Registered:
    """Add a passkey from a session that may (:func:`may_add`), which ends with it: see ``sign_in_by``.

    Raises Forbidden, Invalid, Conflict (``challenge_expired``, ``passkey_known``, ``too_many_passkeys``).
    """
    spend_challenge(tx, REGISTER, answer)
    lock_user(tx, user_id)
    may_add(tx, user_id, session_id, lasts)
    return store(tx, user_id, new, name=name, codes=codes, master=master)


def store(
    tx: Tx, user_id: str, new: NewPasskey, *, name: str, codes: list[str], master: MasterKey, tell: bool = True
) -> Registered:
    """Add a passkey to a user who is locked, and ``tell`` them by letter; ``codes`` count where they have none."""
    if len(of_user(tx, user_id)) >= MOST:
        raise Conflict(f"Nobody may have more than {MOST} passkeys. Remove one first.", code="too_many_passkeys")
    passkey = Passkey(
        id=tx.new_id("psk"),
        user_id=user_id,
        credential_id=new.credential_id,
        public_key=new.public_key,
        sign_count=new.sign_count,
        name=check_name(name),
        transports=new.transports,
        aaguid=new.aaguid,
        backed_up=new.backed_up,
        last_used_at=None,
        created_at=tx.now,
    )
    if not tx.insert_if_new(passkeys, passkey):
        raise Conflict("This passkey is registered already.", code="passkey_known")
    tx.record("passkey.added", "passkey", passkey.id, user_id=user_id, name=passkey.name)
    for one in emails_of(tx, user_id):
        if tell and one.is_primary:
            outgoing.queue(tx, master, one.email, "new_passkey", {"name": passkey.name})
    if recovery_codes.left(tx, user_id):
        return Registered(passkey, [])
    recovery_codes.replace(tx, user_id, codes)
    return Registered(passkey, codes)


def check_name(name: str) -> str:
    """What a passkey may be called. Raises Invalid."""
    return check_line("name", name, most=100, least=1)


def rename(tx: Tx, user_id: str, session_id: str, lasts: Lasts, passkey_id: str, name: str) -> Passkey:
    """Call one of one's passkeys something else. Raises Forbidden (``passkey_required``), NotFound, Invalid."""
    check_shown(tx, user_id, session_id, lasts)
    name = check_name(name)
    row = tx.one(_RENAME, {"of_user": user_id, "passkey_id": passkey_id, "new_name": name})
    if row is None:
        raise _not_found()
    tx.record("passkey.renamed", "passkey", passkey_id, user_id=user_id, name=name)
    return Passkey(*row)


def remove(tx: Tx, user_id: str, session_id: str, lasts: Lasts, passkey_id: str) -> None:
    """Forget one of one's passkeys; whoever signed in with it elsewhere is signed out.

    Raises Forbidden (``passkey_required``), NotFound; Conflict (``last_passkey``) for the only one of staff.
    """
    lock_user(tx, user_id)
    check_shown(tx, user_id, session_id, lasts)
    known = of_user(tx, user_id)
    if all(one.id != passkey_id for one in known):
        raise _not_found()
    if len(known) == 1 and is_staff(tx, user_id):
        raise Conflict("Staff need a passkey: add another before you remove the last one.", code="last_passkey")
    tx.execute(_REMOVE, {"of_user": user_id, "passkey_id": passkey_id})
    tx.record("passkey.removed", "passkey", passkey_id, user_id=user_id)
    revoke_all(tx, user_id, but=session_id)


def _not_found() -> NotFound:
    return NotFound("You have no such passkey.", code="passkey_not_found")


def replace_codes(tx: Tx, user_id: str, session_id: str, lasts: Lasts, codes: list[str]) -> None:
    """Make new recovery codes; the old ones are worth nothing any more. Raises Forbidden (``passkey_required``)."""
    lock_user(tx, user_id)
    check_shown(tx, user_id, session_id, lasts)
    recovery_codes.replace(tx, user_id, codes)
