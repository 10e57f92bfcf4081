"""Which letters people want besides those they must get, and the links that end one kind of them (RFC 8058)."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple, get_args

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import users
from counterfoil.accounts.tables import email_preferences
from counterfoil.accounts.types import EmailPreference, EmailType
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.ids import is_id
from counterfoil.kernel.secrets import hmac_sha256, same

TYPES: tuple[EmailType, ...] = get_args(EmailType)
_UNSAID: dict[EmailType, bool] = {"marketing": False, "product_updates": True, "payment_receipts": True}
"""What holds for whoever has not said otherwise. Offers take consent first (GDPR; ePrivacy Directive, article 13)."""
_MAC_CHARS = 40
_TOKEN = re.compile(r"([a-z0-9_]{1,60})\.([a-z_]{1,40})\.([0-9a-f]{40})")

_ALL = sa.select(*columns(email_preferences)).where(
    mine(email_preferences), email_preferences.c.user_id == sa.bindparam("user_id")
)
_SET = (
    sa.update(email_preferences)
    .where(
        mine(email_preferences),
        email_preferences.c.user_id == sa.bindparam("of_user"),
        email_preferences.c.email_type == sa.bindparam("of_type"),
        email_preferences.c.subscribed != sa.bindparam("wanted"),
    )
    .values(subscribed=sa.bindparam("wanted"), updated_at=sa.bindparam("now"))
)


class Preferences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters somebody wants. Who has said nothing gets product updates and receipts, and no offers."""

    marketing: bool
    product_updates: bool
    payment_receipts: bool


class Unsubscribing(NamedTuple):
    """Whom a link unsubscribes, and from what."""

    user_id: str
    email_type: EmailType


def of_user(tx: Tx, user_id: str) -> Preferences:
    """What a user wants."""
    rows = [EmailPreference(*row) for row in tx.all(_ALL, {"user_id": user_id})]
    said = {row.email_type: row.subscribed for row in rows}
    return msgspec.convert({name: said.get(name, _UNSAID[name]) for name in TYPES}, Preferences)


def wants(tx: Tx, user_id: str, email_type: EmailType) -> bool:
    """Whether a user wants letters of one type."""
    return bool(getattr(of_user(tx, user_id), email_type))


def put(tx: Tx, user_id: str, wanted: Preferences) -> Preferences:
    """Note what a user wants."""
    for name in TYPES:
        set_one(tx, user_id, name, subscribed=getattr(wanted, name))
    return wanted


def set_one(tx: Tx, user_id: str, email_type: EmailType, *, subscribed: bool) -> None:
    """Note whether a user wants letters of one type; saying it again changes nothing."""
    params = {"of_user": user_id, "of_type": email_type, "wanted": subscribed, "now": tx.now}
    changed = tx.execute(_SET, params) == 1
    if not changed and subscribed != _UNSAID[email_type]:
        row = EmailPreference(
            id=tx.new_id("epr"),
            user_id=user_id,
            email_type=email_type,
            subscribed=subscribed,
            created_at=tx.now,
            updated_at=tx.now,
        )
        changed = tx.insert_if_new(email_preferences, row)
    if changed:
        verb = "subscribed" if subscribed else "unsubscribed"
        tx.record(f"email_preference.{verb}", "user", user_id, email_type=email_type)


def unsubscribe(tx: Tx, unsubscribing: Unsubscribing) -> None:
    """Do what a letter's link is for. Whoever has no account any more gets no letters anyway."""
    with contextlib.suppress(NotFound):
        users.get(tx, unsubscribing.user_id)
        set_one(tx, unsubscribing.user_id, unsubscribing.email_type, subscribed=False)


# -- one click ----------------------------------------------------------------------------------------


def make_token(key: bytes, tenant: str, user_id: str, email_type: EmailType) -> str:
    """What a letter's link carries: good for ever, for this and nothing else."""
    return f"{user_id}.{email_type}.{_mac(key, tenant, user_id, email_type)}"


def read_token(key: bytes, tenant: str, token: str) -> Unsubscribing | None:
    """Whom a link unsubscribes, and from what; None when it is not one of ours."""
    match = _TOKEN.fullmatch(token)
    if match is None or not is_id("usr", match[1]) or match[2] not in TYPES:
        return None
    if not same(match[3], _mac(key, tenant, match[1], match[2])):
        return None
    return Unsubscribing(match[1], msgspec.convert(match[2], EmailType))


def _mac(key: bytes, tenant: str, user_id: str, email_type: str) -> str:
    return hmac_sha256(key, f"{tenant}\n{user_id}\n{email_type}".encode())[:_MAC_CHARS]
