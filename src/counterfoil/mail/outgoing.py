"""Operations on letters: queued with what they report, claimed, sent or not.

A letter is never sent twice. It is claimed before anybody speaks to a mail server, and whoever claimed
it and is not heard of again leaves it ``unknown``: only a person sends such a letter again.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.secrets import MasterKey, fingerprint
from counterfoil.kernel.text import normalize_email
from counterfoil.mail.tables import emails
from counterfoil.mail.types import Email, EmailStatus

CLAIM_LASTS = timedelta(minutes=5)
"""Longer than one attempt can take."""
MAILBOX = "mailbox"
"""What the claims begin with of those who only write files, which may be written again."""

TEMPLATES: dict[str, frozenset[str]] = {
    "verify_sign_up": frozenset({"link", "expires", "first_name"}),
    "already_registered": frozenset({"link", "reset_link"}),
    "verify_address": frozenset({"link", "expires"}),
    "reset_password": frozenset({"link", "expires"}),
    "password_changed": frozenset(),
    "invitation": frozenset({"link", "expires", "customer_name", "inviter_name", "role"}),
    "staff_enrollment": frozenset({"link", "expires"}),
    "new_passkey": frozenset(),
    "sign_in_recovered": frozenset(),
    "webhook_disabled": frozenset({"host", "endpoint_id", "reason"}),
    "test": frozenset(),
}
"""Which letters there are, and what the context of each must say.

``link`` is the page the letter is about (of ``already_registered``: where one signs in). ``expires`` ends the
sentence "The link expires ...": "in one hour". ``reason`` of ``webhook_disabled`` is ``gone`` or ``failing``.
``new_passkey`` may say its ``name``, and any letter may carry ``unsubscribe_url`` (RFC 8058).
"""
_LINKS = {"link", "reset_link", "unsubscribe_url"}
_LINK = re.compile(r"https?://[^\s\x00-\x20\x7f-\x9f<>\"\\^`{|}]{1,900}")

_RETRY_AFTER = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=12),
)

_GET = sa.select(*columns(emails)).where(mine(emails), emails.c.id == sa.bindparam("id"))
_LIST = (
    sa.select(*columns(emails))
    .where(mine(emails), emails.c.id > sa.bindparam("after"))
    .order_by(emails.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(emails.c.status == sa.bindparam("status"))
_DUE = sa.and_(mine(emails), emails.c.status == "queued", emails.c.next_attempt_at <= sa.bindparam("now"))
_LOST = sa.and_(mine(emails), emails.c.status == "sending", emails.c.claimed_until <= sa.bindparam("now"))
_COUNT_DUE = sa.select(sa.func.count()).select_from(
    sa.select(emails.c.id).where(_DUE).limit(sa.bindparam("limit", type_=sa.Integer)).subquery()
)
_ANY_LOST = sa.select(emails.c.id).where(_LOST).limit(1)
_TAKE = (
    sa.update(emails)
    .where(mine(emails), emails.c.status == "queued")
    .values(
        status="sending",
        attempts=emails.c.attempts + 1,
        claimed_by=sa.bindparam("worker"),
        claimed_until=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(emails))
)
_CLAIM = _TAKE.where(
    emails.c.id
    == sa.select(emails.c.id)
    .where(_DUE)
    .order_by(emails.c.next_attempt_at, emails.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .correlate(None)
    .scalar_subquery()
)
_CLAIM_THIS = _TAKE.where(emails.c.id == sa.bindparam("letter_id"))
# Whoever made an attempt may say how it ended also when we gave up hearing of it, unless there was another since.
_END = (
    sa.update(emails)
    .where(
        mine(emails),
        emails.c.id == sa.bindparam("letter_id"),
        emails.c.attempts == sa.bindparam("attempt"),
        emails.c.status.in_(sa.bindparam("from_statuses", expanding=True)),
    )
    .values(
        status=sa.bindparam("new_status"),
        context_sealed=sa.bindparam("new_context"),
        next_attempt_at=sa.bindparam("new_next_attempt_at"),
        error=sa.bindparam("new_error"),
        sent_at=sa.bindparam("new_sent_at"),
        claimed_by=None,
        claimed_until=None,
        updated_at=sa.bindparam("now"),
    )
)
_TIDY = sa.delete(emails).where(
    mine(emails), emails.c.status.in_(["sent", "failed", "canceled"]), emails.c.updated_at < sa.bindparam("before")
)
_SEND_LOST_FILES = (
    sa.update(emails)
    .where(_LOST, emails.c.claimed_by.startswith(f"{MAILBOX}/"))
    .values(
        status="queued",
        next_attempt_at=sa.bindparam("now"),
        claimed_by=None,
        claimed_until=None,
        updated_at=sa.bindparam("now"),
    )
)
_GIVE_UP_LOST = (
    sa.update(emails)
    .where(_LOST)
    .values(
        status="unknown",
        error="whoever was sending it was cut off",
        claimed_by=None,
        claimed_until=None,
        updated_at=sa.bindparam("now"),
    )
    .returning(emails.c.id, emails.c.template)
)
_WAITING = (
    sa.update(emails)
    .where(mine(emails), emails.c.id == sa.bindparam("letter_id"), emails.c.status.in_(["queued", "unknown"]))
    .returning(*columns(emails))
)
_RETRY = _WAITING.values(status="queued", next_attempt_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
_CANCEL = _WAITING.values(status="canceled", context_sealed=b"", updated_at=sa.bindparam("now"))


class Unrenderable(ValueError):
    """There is no such letter, or its context does not say what it must: a defect of the caller."""


def queue(tx: Tx, master: MasterKey, recipient: str, template: str, context: dict[str, Any]) -> str:
    """Owe a letter; its id. It leaves once the transaction is durable, or not at all.

    ``context`` is what the template needs (:data:`TEMPLATES`); it is sealed, and forgotten once the letter is out
    of our hands. Raises Invalid for a recipient that is no address, Unrenderable.
    """
    recipient = normalize_email("recipient", recipient)
    _check(template, context)
    letter_id = tx.new_id("eml")
    row = Email(
        id=letter_id,
        recipient=recipient,
        template=template,
        context_sealed=master.seal(msgspec.json.encode(context), _context(tx.tenant, letter_id)),
        status="queued",
        attempts=0,
        next_attempt_at=tx.now,
        claimed_by=None,
        claimed_until=None,
        error=None,
        sent_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(emails, row)
    tx.record("email.queued", "email", letter_id, template=template, recipient_hash=fingerprint(recipient))
    return letter_id


def _context(tenant: str, letter_id: str) -> str:
    return f"email:{tenant}:{letter_id}"


def _check(template: str, context: dict[str, Any]) -> None:
    wanted = TEMPLATES.get(template)
    if wanted is None:
        raise Unrenderable(f"there is no letter {template!r}")
    if missing := sorted(wanted - context.keys()):
        raise Unrenderable(f"{template}: the context lacks {', '.join(missing)}")
    for name, value in context.items():
        # Never the value itself: it may be a secret.
        if not isinstance(value, str):
            raise Unrenderable(f"{template}: {name} must be text")
        if name in _LINKS and not _LINK.fullmatch(value):
            raise Unrenderable(f"{template}: {name} must be a web address")


def unseal(letter: Email, tenant: str, master: MasterKey) -> dict[str, str]:
    """What a letter's template says. Raises SealBroken, also when it was forgotten."""
    return msgspec.json.decode(master.open(letter.context_sealed, _context(tenant, letter.id)), type=dict[str, str])


def get(tx: Tx, letter_id: str) -> Email:
    """Raise NotFound (``email_not_found``) when there is none."""
    row = tx.one(_GET, {"id": letter_id})
    if row is None:
        raise NotFound("There is no such letter.", code="email_not_found")
    return Email(*row)


def list_(tx: Tx, *, status: EmailStatus | None = None, after: str = "", limit: int = 20) -> Page[Email]:
    """A page of letters, oldest first."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([Email(*row) for row in rows], limit)


# -- sending ------------------------------------------------------------------------------------------


def due(tx: Tx, *, most: int) -> int:
    """How many letters may leave now, counted up to ``most``."""
    row = tx.one(_COUNT_DUE, {"now": tx.now, "limit": most})
    return int(row[0]) if row else 0


def any_lost(tx: Tx) -> bool:
    """Whether somebody claimed a letter and is not heard of any more."""
    return tx.one(_ANY_LOST, {"now": tx.now}) is not None


def claim(tx: Tx, worker: str, *, letter_id: str | None = None) -> Email | None:
    """Take the letter that has been due longest, or this one, if nobody else has it. None when there is none.

    ``worker`` begins with the transport's name and a slash.
    """
    params = {"worker": worker, "until": tx.now + CLAIM_LASTS, "now": tx.now}
    row = tx.one(_CLAIM_THIS, {**params, "letter_id": letter_id}) if letter_id else tx.one(_CLAIM, params)
    return Email(*row) if row else None


def mark_sent(tx: Tx, letter: Email) -> None:
    """A mail server has taken responsibility for it. Its content is forgotten."""
    # "queued" too: a person may have asked for another attempt before this one was heard of.
    if _end(tx, letter, "sent", ("sending", "unknown", "queued")):
        tx.record("email.sent", "email", letter.id, template=letter.template, attempts=letter.attempts)


def mark_failed(tx: Tx, letter: Email, error: str) -> None:
    """It was refused for good. Its content is forgotten."""
    if _end(tx, letter, "failed", ("sending", "unknown"), error=error):
        tx.record("email.failed", "email", letter.id, template=letter.template, attempts=letter.attempts)


def mark_postponed(tx: Tx, letter: Email, error: str) -> None:
    """It was surely not sent; it will be tried again, unless it was often enough."""
    if letter.attempts > len(_RETRY_AFTER):
        mark_failed(tx, letter, error)
        return
    _end(tx, letter, "queued", ("sending", "unknown"), error=error, after=_RETRY_AFTER[letter.attempts - 1])


def release(tx: Tx, letter: Email) -> None:
    """Whoever claimed it stops before it was sent."""
    _end(tx, letter, "queued", ("sending", "unknown"), error=letter.error)


def mark_unknown(tx: Tx, letter: Email, error: str) -> None:
    """It may have been sent or not. Only a person has it sent again."""
    if _end(tx, letter, "unknown", ("sending",), error=error):
        tx.record("email.unknown", "email", letter.id, template=letter.template)


def give_up_lost(tx: Tx) -> int:
    """See to the letters whose claims have run out; how many are unknown now.

    Files may be written again. What was on its way to a mail server may have arrived.
    """
    tx.execute(_SEND_LOST_FILES, {"now": tx.now})
    lost = tx.all(_GIVE_UP_LOST, {"now": tx.now})
    for letter_id, template in lost:
        tx.record("email.unknown", "email", letter_id, template=template)
    return len(lost)


def _end(
    tx: Tx,
    letter: Email,
    status: EmailStatus,
    from_statuses: tuple[EmailStatus, ...],
    *,
    error: str | None = None,
    after: timedelta = timedelta(0),
) -> bool:
    over = status in {"sent", "failed"}
    params = {
        "letter_id": letter.id,
        "attempt": letter.attempts,
        "from_statuses": from_statuses,
        "new_status": status,
        "new_context": b"" if over else letter.context_sealed,
        "new_next_attempt_at": tx.now + after,
        "new_error": error,
        "new_sent_at": tx.now if status == "sent" else None,
        "now": tx.now,
    }
    return tx.execute(_END, params) == 1


# -- what a person decides ----------------------------------------------------------------------------


def retry(tx: Tx, letter_id: str) -> Email:
    """Have a letter sent now that waits, or of which we do not know whether it was sent: it may then arrive twice.

    Raises NotFound; Conflict (``email_not_waiting``) for any other.
    """
    return _decide(tx, letter_id, _RETRY, "email.retried")


def cancel(tx: Tx, letter_id: str) -> Email:
    """Do not send a letter that waits, or of which we do not know whether it was sent. Its content is forgotten.

    Raises NotFound; Conflict (``email_not_waiting``) for any other.
    """
    return _decide(tx, letter_id, _CANCEL, "email.canceled")


def _decide(tx: Tx, letter_id: str, statement: sa.Executable, event: str) -> Email:
    row = tx.one(statement, {"letter_id": letter_id, "now": tx.now})
    if row is None:
        letter = get(tx, letter_id)
        raise Conflict(f"This letter is {letter.status}.", code="email_not_waiting")
    letter = Email(*row)
    tx.record(event, "email", letter.id, template=letter.template)
    return letter


def tidy(tx: Tx, *, keep: timedelta) -> int:
    """Forget letters that were done with long ago, and so whom they went to; how many."""
    return tx.execute(_TIDY, {"before": tx.now - keep})
