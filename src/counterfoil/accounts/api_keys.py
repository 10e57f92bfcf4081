"""API keys: ``cfk_`` + 32 random characters + 6 of checksum.

The prefix lets scanners of public code recognize a leaked key, and the checksum lets us refuse a
mistyped one without asking the database.
"""

from __future__ import annotations

import zlib
from datetime import datetime

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import api_keys
from counterfoil.accounts.types import ApiKey
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import secrets
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of

PREFIX = "cfk_"
_SECRET_CHARS = 32
_CHECK_CHARS = 6

SCOPES = (
    "products:read",
    "products:write",
    "discounts:read",
    "discounts:write",
    "checkouts:read",
    "checkouts:write",
    "orders:read",
    "payments:read",
    "payments:write",
    "licenses:read",
    "licenses:write",
    "machines:read",
    "machines:write",
    "rails:read",
    "rails:write",
    "events:read",
)
"""Everything a key may be allowed. ``*`` stands for all of them."""

_BY_HASH = sa.select(api_keys.c.tenant_id, *columns(api_keys)).where(
    api_keys.c.secret_hash == sa.bindparam("secret_hash"), sa.bindparam("tenant", type_=sa.Text) != ""
)
_LIST = (
    sa.select(*columns(api_keys))
    .where(mine(api_keys), api_keys.c.id > sa.bindparam("after"))
    .order_by(api_keys.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_REVOKE = (
    sa.update(api_keys)
    .where(mine(api_keys), api_keys.c.id == sa.bindparam("key_id"), api_keys.c.revoked_at.is_(None))
    .values(revoked_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)


class NewApiKey(msgspec.Struct, frozen=True):
    """A key just made, with the secret that is shown this once."""

    key: ApiKey
    secret: str


class Caller(msgspec.Struct, frozen=True):
    """Whose key it is, and what it may do."""

    tenant: str
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None

    def may(self, scope: str) -> bool:
        """Whether the key carries this scope."""
        return "*" in self.scopes or scope in self.scopes


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[value >> shift & 31] for shift in range(0, 30, 5))


def new_secret() -> str:
    """A fresh key's text."""
    body = secrets.new_secret(_SECRET_CHARS * 5 // 8)
    return f"{PREFIX}{body}{_checksum(body)}"


def looks_right(secret: str) -> bool:
    """Whether the text has the form and the checksum of a key."""
    body, check = secret[len(PREFIX) : -_CHECK_CHARS], secret[-_CHECK_CHARS:]
    return secret.startswith(PREFIX) and len(body) == _SECRET_CHARS and check == _checksum(body)


def create(tx: Tx, name: str, scopes: list[str], *, secret: str, expires_at: datetime | None = None) -> NewApiKey:
    """Make a key from ``secret`` (see :func:`new_secret`); only its hash is kept. Raises Invalid."""
    unknown = sorted(set(scopes) - {*SCOPES, "*"})
    if unknown:
        raise Invalid.field("scopes", f"unknown: {', '.join(unknown)}", code="unknown_scope")
    key = ApiKey(
        id=tx.new_id("key"),
        name=name,
        secret_hash=secrets.fingerprint(secret),
        role=None,
        scopes=scopes,
        customer_id=None,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(api_keys, key)
    tx.record("api_key.created", "api_key", key.id, name=name, scopes=scopes)
    return NewApiKey(key, secret)


def find(tx: Tx, secret: str) -> Caller | None:
    """Whose key this is, in whichever tenant; None when unknown, revoked or expired."""
    for tenant, *rest in tx.all(_BY_HASH, {"secret_hash": secrets.fingerprint(secret)}):
        key = ApiKey(*rest)
        if key.revoked_at is None and (key.expires_at is None or tx.now < key.expires_at):
            return Caller(tenant, key.id, frozenset(key.scopes), key.expires_at)
    return None


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[ApiKey]:
    """A page of keys, oldest first."""
    return page_of([ApiKey(*row) for row in tx.all(_LIST, {"after": after, "limit": limit + 1})], limit)


def revoke(tx: Tx, key_id: str) -> None:
    """End a key, for good. Raises NotFound when there is no such working key."""
    if not tx.execute(_REVOKE, {"key_id": key_id, "now": tx.now}):
        raise NotFound("There is no working API key with this id.", code="api_key_not_found")
    tx.record("api_key.revoked", "api_key", key_id)
