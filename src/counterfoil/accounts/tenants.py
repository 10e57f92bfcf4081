"""Operations on tenants: one's own, and, for whoever runs the installation, everybody's.

No two tenants answer to one host name. ``hosts`` is a list, which no unique index sees into, so whoever claims a
name holds the default tenant's row meanwhile.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.accounts.tables import tenants
from counterfoil.accounts.types import DEFAULT_TENANT, Tenant
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.text import check_line, check_slug, check_url, normalize_email

MOST_HOSTS = 20
RESERVED = frozenset({"account", "admin", "api", "app", "default", "demo", "static", "t", "v1", "www"})
"""Slugs that are nobody's."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_COLOR = re.compile(r"#[0-9a-f]{6}")

# These few cross tenants: the parameter ``tenant`` is there because every statement gets it.
_ANY = sa.bindparam("tenant", type_=sa.Text) != ""
_GET = sa.select(*columns(tenants)).where(mine(tenants))
_LOCK = _GET.with_for_update(key_share=True)
_ALL = sa.select(tenants.c.tenant_id, *columns(tenants)).where(_ANY).order_by(tenants.c.tenant_id)
_LOCK_NAMES = (
    sa.select(tenants.c.tenant_id).where(tenants.c.tenant_id == DEFAULT_TENANT, _ANY).with_for_update(key_share=True)
)
_CHANGE = (
    sa.update(tenants)
    .where(mine(tenants))
    .values(
        name=sa.bindparam("new_name"),
        hosts=sa.bindparam("new_hosts", type_=tenants.c.hosts.type),
        settings=sa.bindparam("new_settings", type_=tenants.c.settings.type),
        updated_at=sa.bindparam("now"),
    )
)
_SET_STATUS = (
    sa.update(tenants)
    .where(
        tenants.c.tenant_id == sa.bindparam("of_tenant"),
        tenants.c.status != sa.bindparam("new_status"),
        _ANY,
    )
    .values(status=sa.bindparam("new_status"), updated_at=sa.bindparam("now"))
)


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to make a tenant."""

    slug: str
    """Its address here: /t/slug."""
    name: str
    hosts: list[str] = []
    """Host names of its own, the one to hand out first."""
    owner_email: str | None = None
    """Who runs it: gets a letter that makes them a SuperAdmin there."""


class SettingsChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's settings: what is left out stays, null takes away."""

    support_email: str | msgspec.UnsetType | None = msgspec.UNSET
    support_url: str | msgspec.UnsetType | None = msgspec.UNSET
    brand_color: str | msgspec.UnsetType | None = msgspec.UNSET
    """#1f6f54"""


class OwnChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant may change about itself; what is left out stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    settings: SettingsChanges | msgspec.UnsetType = msgspec.UNSET


class TenantChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change about a tenant; what is left out stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    hosts: list[str] | msgspec.UnsetType = msgspec.UNSET
    settings: SettingsChanges | msgspec.UnsetType = msgspec.UNSET


class KnownTenant(msgspec.Struct, frozen=True):
    """A tenant with its id."""

    id: str
    name: str
    slug: str
    hosts: list[str]
    settings: dict[str, Any]
    status: Literal["active", "suspended"]
    created_at: datetime
    updated_at: datetime


def create(
    tx: Tx, slug: str, name: str, hosts: list[str] | None = None, settings: dict[str, Any] | None = None
) -> bool:
    """Make the transaction's own tenant, unless it exists or its slug is taken. Whether it was made."""
    row = Tenant(
        name=name,
        slug=slug,
        hosts=hosts or [],
        settings=settings or {},
        status="active",
        created_at=tx.now,
        updated_at=tx.now,
    )
    return tx.insert_if_new(tenants, row)


def open_(tx: Tx, new: NewTenant, *, own_host: str) -> KnownTenant:
    """Make the transaction's own tenant.

    ``own_host`` is the host name of this installation, which is nobody's. Raises Invalid (``slug_reserved``);
    Conflict (``slug_taken``, ``host_taken``).
    """
    slug = check_slug("slug", new.slug)
    if slug in RESERVED:
        raise Invalid.field("slug", "this one is reserved", code="slug_reserved")
    name = check_line("name", new.name, most=200, least=1)
    hosts = _claim(tx, new.hosts, own_host)
    if not create(tx, slug, name, hosts):
        raise Conflict(f"There is already a tenant with the slug {slug!r}.", code="slug_taken")
    tx.record("tenant.created", "tenant", tx.tenant, slug=slug, hosts=hosts)
    return own(tx)


def update(tx: Tx, changes: TenantChanges, *, own_host: str) -> KnownTenant:
    """Change the transaction's own tenant. Raises Invalid; NotFound; Conflict (``host_taken``)."""
    hosts = None if changes.hosts is msgspec.UNSET else _claim(tx, changes.hosts, own_host)
    row = tx.one(_LOCK)
    if row is None:
        raise _not_found()
    known = Tenant(*row)
    name = known.name if changes.name is msgspec.UNSET else check_line("name", changes.name, most=200, least=1)
    settings = known.settings
    if changes.settings is not msgspec.UNSET:
        settings = _merged(known.settings, changes.settings)
    given = [field for field in changes.__struct_fields__ if getattr(changes, field) is not msgspec.UNSET]
    if given:
        params = {"new_name": name, "new_hosts": known.hosts if hosts is None else hosts, "new_settings": settings}
        tx.execute(_CHANGE, {**params, "now": tx.now})
        tx.record("tenant.updated", "tenant", tx.tenant, changed=given)
    return own(tx)


def update_own(tx: Tx, changes: OwnChanges) -> KnownTenant:
    """Change what a tenant may change about itself. Raises Invalid."""
    return update(tx, TenantChanges(name=changes.name, settings=changes.settings), own_host="")


def suspend(tx: Tx, slug_or_id: str) -> KnownTenant:
    """Close a tenant's doors: its pages, its keys and its sessions. It loses nothing.

    Raises NotFound; Conflict (``default_tenant``).
    """
    known = find(tx, slug_or_id)
    if known.id == DEFAULT_TENANT:
        raise Conflict("The default tenant cannot be suspended.", code="default_tenant")
    return _set_status(tx, known.id, "suspended")


def resume(tx: Tx, slug_or_id: str) -> KnownTenant:
    """Open a suspended tenant's doors again. Raises NotFound."""
    return _set_status(tx, find(tx, slug_or_id).id, "active")


def _set_status(tx: Tx, tenant_id: str, status: Literal["active", "suspended"]) -> KnownTenant:
    if tx.execute(_SET_STATUS, {"of_tenant": tenant_id, "new_status": status, "now": tx.now}):
        # In the record of whoever runs the installation: the tenant has no part in it.
        tx.record(f"tenant.{'resumed' if status == 'active' else 'suspended'}", "tenant", tenant_id)
    return find(tx, tenant_id)


# -- reading ------------------------------------------------------------------------------------------


def get(tx: Tx) -> Tenant | None:
    """The transaction's own tenant."""
    row = tx.one(_GET)
    return Tenant(*row) if row else None


def own(tx: Tx) -> KnownTenant:
    """The transaction's own tenant with its id. Raises NotFound."""
    row = tx.one(_GET)
    if row is None:
        raise _not_found()
    return KnownTenant(tx.tenant, *row)


def everyone(tx: Tx) -> dict[str, Tenant]:
    """Every tenant by id: the one read that crosses tenants, for finding whose request this is."""
    return {row[0]: Tenant(*row[1:]) for row in tx.all(_ALL)}


def list_(tx: Tx) -> list[KnownTenant]:
    """Every tenant of the installation, oldest first: for whoever runs it."""
    return [KnownTenant(*row) for row in tx.all(_ALL)]


def find(tx: Tx, slug_or_id: str) -> KnownTenant:
    """Any tenant, by slug or id: for whoever runs the installation. Raises NotFound (``tenant_not_found``)."""
    for tenant in list_(tx):
        if slug_or_id in {tenant.id, tenant.slug}:
            return tenant
    raise _not_found()


def _not_found() -> NotFound:
    return NotFound("There is no such tenant.", code="tenant_not_found")


# -- host names ---------------------------------------------------------------------------------------


def _claim(tx: Tx, hosts: list[str], own_host: str) -> list[str]:
    """These host names for the transaction's tenant, normalized; nobody else claims any until it ends."""
    if len(hosts) > MOST_HOSTS:
        raise Invalid.field("hosts", f"at most {MOST_HOSTS}")
    wanted = list(dict.fromkeys(check_host(f"hosts/{place}", host, own_host) for place, host in enumerate(hosts)))
    if not wanted:
        return wanted
    tx.one(_LOCK_NAMES)
    for tenant_id, other in everyone(tx).items():
        taken = sorted(set(wanted) & set(other.hosts))
        if taken and tenant_id != tx.tenant:
            raise Conflict(f"Another tenant has {', '.join(taken)}.", code="host_taken")
    return wanted


def check_host(field: str, host: str, own_host: str) -> str:
    """A host name as browsers send it: lower case, in ASCII (IDNA 2008, UTS 46). Raises Invalid."""
    import idna  # noqa: PLC0415 # its tables take a while, and are seldom needed

    try:
        name = idna.encode(host.strip().removesuffix("."), uts46=True).decode().lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise Invalid.field(field, "not a host name") from error
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise Invalid.field(field, "not a host name")
    if name in {own_host, "localhost"}:
        raise Invalid.field(field, "this is the installation's own name", code="host_reserved")
    return name


# -- settings -----------------------------------------------------------------------------------------


def _merged(known: dict[str, Any], changes: SettingsChanges) -> dict[str, Any]:
    merged = dict(known)
    for name in changes.__struct_fields__:
        value = getattr(changes, name)
        if value is None:
            merged.pop(name, None)
        elif value is not msgspec.UNSET:
            merged[name] = _CHECKS[name](f"settings/{name}", value)
    return merged


def _check_color(field: str, value: str) -> str:
    color = value.lower()
    if not _COLOR.fullmatch(color):
        raise Invalid.field(field, "must be a color such as #1f6f54")
    return color


_CHECKS = {"support_email": normalize_email, "support_url": check_url, "brand_color": _check_color}
