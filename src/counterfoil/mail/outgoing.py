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
from counterfoil.kernel.errors import NotFound
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
    "test": frozenset(),
}
"""Which letters there are, and what the context of each must say.

``link`` is the page the letter is about (of ``already_registered``: where one signs in). ``expires`` ends the
sentence "The link works once, ...": "within one hour". Any letter may also carry ``unsubscribe_url``.
"""
_LINKS = {"link", "reset_link", "unsubscribe_url"}
_LINK = re.compile(r"https?://[^\s\x00-\x20\x7f-\x9f<>\"\\^`{|}]{1,2000}")

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
