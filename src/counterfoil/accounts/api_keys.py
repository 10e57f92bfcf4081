"""API keys: ``cfk_`` + 32 random characters + 6 of checksum.

The prefix lets scanners of public code recognize a leaked key, and the checksum lets us refuse a
mistyped one without asking the database.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.access import Identity
from counterfoil.accounts.assignments import ids_of
from counterfoil.accounts.permissions import KEY_ROLES, expand, unknown
from counterfoil.accounts.tables import api_keys, customers, tenants
from counterfoil.accounts.types import ApiKey
from counterfoil.db.base import single_statement
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel import secrets
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.text import check_line

PREFIX = "cfk_"
WORN_AFTER = timedelta(minutes=5)
"""How exact the time of last use is kept."""

_SECRET_CHARS = 32
_CHECK_CHARS = 6

_IDENTIFY = (
    sa.select(api_keys.c.tenant_id, *columns(api_keys), customers.c.path.label("target_path"))
    .join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
    .outerjoin(
        customers,
        sa.and_(
            customers.c.tenant_id == api_keys.c.tenant_id,
            customers.c.id == sa.bindparam("target"),
            customers.c.deleted_at.is_(None),
        ),
    )
    .where(
        api_keys.c.secret_hash == sa.bindparam("secret_hash"),
        api_keys.c.revoked_at.is_(None),
        sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.bindparam("now")),
        tenants.c.status == "active",
        sa.bindparam("tenant", type_=sa.Text) != "",
    )
)
_GET = sa.select(*columns(api_keys)).where(mine(api_keys), api_keys.c.id == sa.bindparam("id"))
_GET_OF = _GET.where(api_keys.c.customer_id == sa.bindparam("customer_id"))
_HELD = _GET.where(
    api_keys.c.revoked_at.is_(None),
    sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.bindparam("now")),
).with_for_update(read=True)
_LIST = (
    sa.select(*columns(api_keys))
    .where(mine(api_keys), api_keys.c.id > sa.bindparam("after"))
    .order_by(api_keys.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_OF = _LIST.where(api_keys.c.customer_id == sa.bindparam("customer_id"))
_TOUCH = (
    sa.update(api_keys)
    .where(
        mine(api_keys),
        any_of(api_keys.c.id, "ids"),
        sa.or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < sa.bindparam("now")),
    )
    .values(last_used_at=sa.bindparam("now"))
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


def create(
    tx: Tx,
    name: str,
    scopes: list[str],
    *,
    secret: str,
    expires_at: datetime | None = None,
    role: str | None = None,
    customer_id: str | None = None,
) -> NewApiKey:
    """Make a key from ``secret`` (see :func:`new_secret`); only its hash is kept.

    ``role`` names a set (permissions.KEY_ROLES) that ``scopes`` add to. Raises Invalid. Whether the caller may give
    such a key is decided before.
    """
    if role is not None and role not in KEY_ROLES:
        raise Invalid.field("role", f"one of {', '.join(KEY_ROLES)}", code="unknown_role")
    wrong = unknown(scopes)
    if wrong:
        raise Invalid.field("scopes", f"unknown: {', '.join(wrong)}", code="unknown_scope")
    if expires_at is not None and expires_at <= tx.now:
        raise Invalid.field("expires_at", "must be in the future")
    key = ApiKey(
        id=tx.new_id("key"),
        name=check_line("name", name, most=200, least=1),
        secret_hash=secrets.fingerprint(secret),
        role=role,
        scopes=sorted({*KEY_ROLES.get(role or "", []), *scopes}),
        customer_id=customer_id,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(api_keys, key)
    tx.record(
        "api_key.created", "api_key", key.id, customer_id=customer_id, name=key.name, role=role, scopes=key.scopes
    )
    return NewApiKey(key, secret)


@single_statement
def identify(tx: Tx, secret: str, target: str | None) -> Identity | None:
    """Whose key this is, in whichever tenant, and what it may do at ``target`` (a customer) or in the tenant.

    None when it is unknown, revoked or expired, or its tenant is suspended.
    """
    params = {"secret_hash": secrets.fingerprint(secret), "target": target, "now": tx.now}
    for tenant, *rest, target_path in tx.all(_IDENTIFY, params):
        key = ApiKey(*rest)
        limit = key.customer_id
        reaches = limit is None or (target_path is not None and f"{limit}/" in target_path)
        return Identity(
            tenant=tenant,
            kind="key",
            id=key.id,
            name=key.name,
            held=expand(key.scopes) if reaches else frozenset(),
            scopes=tuple(key.scopes),
            customer_id=limit,
            target=target,
            target_exists=target_path is not None,
            worn=key.last_used_at is None or tx.now - key.last_used_at > WORN_AFTER,
        )
    return None


def held_by(tx: Tx, key_id: str, path: str | None) -> frozenset[str]:
    """What a key may do at the customer with this path, or (None) in the tenant, at this very moment.

    It stays so until the transaction ends: whoever revokes the key waits for us.
    """
    row = tx.one(_HELD, {"id": key_id, "now": tx.now})
    if row is None:
        return frozenset()
    key = ApiKey(*row)
    return expand(key.scopes) if key.customer_id is None or key.customer_id in ids_of(path) else frozenset()


def get(tx: Tx, key_id: str, *, customer_id: str | None = None) -> ApiKey:
    """A key; with ``customer_id`` only one that is limited to that very customer. Raises NotFound."""
    params = {"id": key_id}
    row = tx.one(_GET, params) if customer_id is None else tx.one(_GET_OF, {**params, "customer_id": customer_id})
    if row is None:
        raise NotFound("There is no such API key.", code="api_key_not_found")
    return ApiKey(*row)


def touch(tx: Tx, ids: list[str]) -> None:
    """Note that keys are in use."""
    tx.execute(_TOUCH, {"ids": ids, "now": tx.now})


def list_(tx: Tx, *, customer_id: str | None = None, after: str = "", limit: int = 20) -> Page[ApiKey]:
    """A page of keys, oldest first: all, or those limited to one customer."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST, params) if customer_id is None else tx.all(_LIST_OF, {**params, "customer_id": customer_id})
    return page_of([ApiKey(*row) for row in rows], limit)


def revoke(tx: Tx, key_id: str, *, customer_id: str | None = None) -> None:
    """End a key, for good. With ``customer_id`` only one that is limited to that very customer.

    Raises NotFound when there is no such working key.
    """
    key = get(tx, key_id, customer_id=customer_id)
    if not tx.execute(_REVOKE, {"key_id": key_id, "now": tx.now}):
        raise NotFound("There is no working API key with this id.", code="api_key_not_found")
    tx.record("api_key.revoked", "api_key", key_id, customer_id=key.customer_id)
