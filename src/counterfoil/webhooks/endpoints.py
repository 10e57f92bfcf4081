"""Operations on endpoints: where news goes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.kernel.text import check_note
from counterfoil.webhooks import signing
from counterfoil.webhooks.signing import Keys
from counterfoil.webhooks.tables import webhook_deliveries, webhook_endpoints
from counterfoil.webhooks.targets import check_url
from counterfoil.webhooks.types import EndpointStatus, StoredEndpoint

OVERLAP = timedelta(hours=24)
"""How long news is signed with the secret before the last rotation, too."""
BY_HAND, GONE, FAILING = "by_hand", "gone", "failing"
"""Why an endpoint is disabled."""

_MOST_PATTERNS = 100
_PATTERN = re.compile(r"\*|[a-z][a-z0-9_]{0,49}\.(?:\*|[a-z][a-z0-9_]{0,49})")
_LONGEST_DESCRIPTION = 500

_GET = sa.select(*columns(webhook_endpoints)).where(
    mine(webhook_endpoints), webhook_endpoints.c.id == sa.bindparam("id")
)
_GET_ALONE = _GET.with_for_update()
_GET_HELD = _GET.with_for_update(read=True, key_share=True)
_LIST = (
    sa.select(*columns(webhook_endpoints))
    .where(mine(webhook_endpoints), webhook_endpoints.c.id > sa.bindparam("after"))
    .order_by(webhook_endpoints.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_CHANGE = (
    sa.update(webhook_endpoints)
    .where(mine(webhook_endpoints), webhook_endpoints.c.id == sa.bindparam("endpoint_id"))
    .values(updated_at=sa.bindparam("now"))
    .returning(*columns(webhook_endpoints))
)
_ROTATE = _CHANGE.values(
    old_secret_sealed=webhook_endpoints.c.secret_sealed,
    old_secret_until=sa.bindparam("until"),
    secret_sealed=sa.bindparam("new_sealed"),
)
_ENABLE = _CHANGE.where(webhook_endpoints.c.status == "disabled").values(
    status="enabled", disabled_reason=None, first_failed_at=None
)
_DISABLE = _CHANGE.where(webhook_endpoints.c.status == "enabled").values(
    status="disabled", disabled_reason=sa.bindparam("reason")
)
_DELETE = sa.delete(webhook_endpoints).where(
    mine(webhook_endpoints), webhook_endpoints.c.id == sa.bindparam("endpoint_id")
)
_DELETE_DELIVERIES = sa.delete(webhook_deliveries).where(
    mine(webhook_deliveries), webhook_deliveries.c.endpoint_id == sa.bindparam("endpoint_id")
)
_FORGET_OLD_SECRETS = (
    sa.update(webhook_endpoints)
    .where(mine(webhook_endpoints), webhook_endpoints.c.old_secret_until <= sa.bindparam("now"))
    .values(old_secret_sealed=None, old_secret_until=None)
)


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to have news sent somewhere."""

    url: str
    event_types: list[str] = msgspec.field(default_factory=lambda: ["*"])
    """What it wants to hear of: ``order.paid``, ``order.*`` or ``*``."""
    description: str = ""


class EndpointChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of an endpoint; what is left out stays."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    event_types: list[str] | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET


class Endpoint(msgspec.Struct, frozen=True):
    """Where news goes. ``secret`` is shown only when it is made."""

    id: str
    url: str
    description: str
    event_types: list[str]
    public_key: str
    """Checks the ``v1a`` signatures."""
    status: EndpointStatus
    disabled_reason: str | None
    first_failed_at: datetime | None
    """When the first of the attempts failed that have all failed since."""
    old_secret_until: datetime | None
    """Until when news is signed with the secret before the last rotation, too."""
    created_at: datetime
    updated_at: datetime
    secret: str | msgspec.UnsetType = msgspec.UNSET


_SHOWN = [name for name in Endpoint.__struct_fields__ if name != "secret"]


def show(stored: StoredEndpoint, secret: str | msgspec.UnsetType = msgspec.UNSET) -> Endpoint:
    """An endpoint without what is sealed, and with its secret where it was just made."""
    return Endpoint(**{name: getattr(stored, name) for name in _SHOWN}, secret=secret)


def _check(fields: NewEndpoint | EndpointChanges, *, allow_loopback: bool) -> dict[str, Any]:
    """The fields that are given, checked. Raises Invalid."""
    checked: dict[str, Any] = {}
    if isinstance(fields.url, str):
        checked["url"] = check_url("url", fields.url, allow_loopback=allow_loopback)
    if isinstance(fields.event_types, list):
        checked["event_types"] = _check_patterns(fields.event_types)
    if isinstance(fields.description, str):
        checked["description"] = check_note("description", fields.description, most=_LONGEST_DESCRIPTION)
    return checked


def _check_patterns(patterns: list[str]) -> list[str]:
    if not 1 <= len(patterns) <= _MOST_PATTERNS:
        raise Invalid.field("event_types", f"name 1 to {_MOST_PATTERNS}", code="bad_event_types")
    for place, pattern in enumerate(patterns):
        if not _PATTERN.fullmatch(pattern):
            raise Invalid.field(f"event_types/{place}", "say order.paid, order.* or *", code="bad_event_types")
    return list(dict.fromkeys(patterns))


def create(
    tx: Tx, master: MasterKey, new: NewEndpoint, *, secret: str, signing_key: PrivateKey, allow_loopback: bool
) -> Endpoint:
    """Have news sent somewhere, from now on; the answer shows the secret. ``secret``, ``signing_key``: fresh ones.

    Raises Invalid (``bad_webhook_url``, ``webhook_target_refused``, ``bad_event_types``).
    """
    checked = _check(new, allow_loopback=allow_loopback)
    endpoint_id = tx.new_id("whe")
    row = StoredEndpoint(
        id=endpoint_id,
        **checked,
        secret_sealed=master.seal(secret.encode(), _secret_context(tx.tenant, endpoint_id)),
        old_secret_sealed=None,
        old_secret_until=None,
        signing_key_sealed=master.seal(signing_key.to_raw(), _key_context(tx.tenant, endpoint_id)),
        public_key=signing.public_text(signing_key.public()),
        status="enabled",
        disabled_reason=None,
        first_failed_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert(webhook_endpoints, row)
    tx.record("webhook_endpoint.created", "webhook_endpoint", endpoint_id, url=row.url, event_types=row.event_types)
    return show(row, secret)


def _secret_context(tenant: str, endpoint_id: str) -> str:
    return f"webhook_secret:{tenant}:{endpoint_id}"


def _key_context(tenant: str, endpoint_id: str) -> str:
    return f"webhook_key:{tenant}:{endpoint_id}"


def keys_of(stored: StoredEndpoint, tenant: str, master: MasterKey, now: datetime) -> Keys:
    """What an endpoint's news is signed with now. Raises SealBroken."""
    context = _secret_context(tenant, stored.id)
    sealed = [stored.secret_sealed]
    if stored.old_secret_sealed is not None and stored.old_secret_until is not None and now < stored.old_secret_until:
        sealed.append(stored.old_secret_sealed)
    secrets = [master.open(one, context).decode() for one in sealed]
    return Keys(secrets, PrivateKey(master.open(stored.signing_key_sealed, _key_context(tenant, stored.id))))


def _found(row: Row | None) -> StoredEndpoint:
    if row is None:
        raise NotFound("There is no such webhook endpoint.", code="webhook_endpoint_not_found")
    return StoredEndpoint(*row)


def get(tx: Tx, endpoint_id: str) -> Endpoint:
    """Raise NotFound (``webhook_endpoint_not_found``) when there is none."""
    return show(_found(tx.one(_GET, {"id": endpoint_id})))


def list_(tx: Tx, *, after: str = "", limit: int = 20) -> Page[Endpoint]:
    """A page of endpoints, oldest first."""
    rows = tx.all(_LIST, {"after": after, "limit": limit + 1})
    return page_of([show(StoredEndpoint(*row)) for row in rows], limit)


def update(tx: Tx, endpoint_id: str, changes: EndpointChanges, *, allow_loopback: bool) -> Endpoint:
    """Change an endpoint. What is queued for it goes to its new address. Raises NotFound; Invalid, see create."""
    checked = _check(changes, allow_loopback=allow_loopback)
    row = tx.one(_CHANGE.values(**checked), {"endpoint_id": endpoint_id, "now": tx.now})
    changed = show(_found(row))
    tx.record("webhook_endpoint.updated", "webhook_endpoint", endpoint_id, changed=sorted(checked))
    return changed


def rotate_secret(tx: Tx, master: MasterKey, endpoint_id: str, *, secret: str) -> Endpoint:
    """Give an endpoint a new secret, which the answer shows; the one before is good for 24 hours. Raises NotFound."""
    params = {
        "endpoint_id": endpoint_id,
        "new_sealed": master.seal(secret.encode(), _secret_context(tx.tenant, endpoint_id)),
        "until": tx.now + OVERLAP,
        "now": tx.now,
    }
    rotated = _found(tx.one(_ROTATE, params))
    tx.record("webhook_endpoint.secret_rotated", "webhook_endpoint", endpoint_id)
    return show(rotated, secret)


def enable(tx: Tx, endpoint_id: str) -> Endpoint:
    """Send news there again, beginning with what still waits. Raises NotFound."""
    row = tx.one(_ENABLE, {"endpoint_id": endpoint_id, "now": tx.now})
    if row is None:  # it is enabled
        return get(tx, endpoint_id)
    tx.record("webhook_endpoint.enabled", "webhook_endpoint", endpoint_id)
    return show(StoredEndpoint(*row))


def disable(tx: Tx, endpoint_id: str, *, reason: str = BY_HAND) -> Endpoint:
    """Send nothing there, and queue nothing for it, until it is enabled again. Raises NotFound."""
    stored = disable_if_enabled(tx, endpoint_id, reason)
    return show(stored) if stored is not None else get(tx, endpoint_id)


def disable_if_enabled(tx: Tx, endpoint_id: str, reason: str) -> StoredEndpoint | None:
    """Disable an endpoint; None when there is none that is enabled."""
    row = tx.one(_DISABLE, {"endpoint_id": endpoint_id, "reason": reason, "now": tx.now})
    if row is None:
        return None
    tx.record("webhook_endpoint.disabled", "webhook_endpoint", endpoint_id, reason=reason)
    return StoredEndpoint(*row)


def delete(tx: Tx, endpoint_id: str) -> None:
    """Forget an endpoint and all that was ever queued for it. Raises NotFound."""
    _found(tx.one(_GET_ALONE, {"id": endpoint_id}))  # from here on nothing can be queued for it
    tx.execute(_DELETE_DELIVERIES, {"endpoint_id": endpoint_id})
    tx.execute(_DELETE, {"endpoint_id": endpoint_id})
    tx.record("webhook_endpoint.deleted", "webhook_endpoint", endpoint_id)


def hold_enabled(tx: Tx, endpoint_id: str) -> None:
    """Keep an endpoint from being deleted until the transaction ends.

    Raises NotFound; Conflict (``webhook_endpoint_disabled``) unless news is sent there.
    """
    endpoint = _found(tx.one(_GET_HELD, {"id": endpoint_id}))
    if endpoint.status != "enabled":
        raise Conflict("This endpoint is disabled: enable it first.", code="webhook_endpoint_disabled")


def forget_old_secrets(tx: Tx) -> int:
    """Forget the secrets that were replaced long enough ago; how many."""
    return tx.execute(_FORGET_OLD_SECRETS, {"now": tx.now})
