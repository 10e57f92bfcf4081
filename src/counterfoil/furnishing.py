"""What a tenant needs before its first sale, from every room that has a part in it."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from counterfoil.accounts import enrollment, roles, tenants
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.accounts.tenants import KnownTenant, NewTenant, TenantChanges
from counterfoil.accounts.types import DEFAULT_TENANT, Tenant
from counterfoil.db.tx import Tx
from counterfoil.exchange import rail_settings
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys
from counterfoil.mail import outgoing
from counterfoil.rails.sandbox.rail import SandboxSettings
from counterfoil.settings import Settings


class Fresh(msgspec.Struct, frozen=True):
    """Secrets made for a tenant to be."""

    signing_key: PrivateKey
    sandbox_secret: str
    enrollment_token: str


def furnish(tx: Tx, master: MasterKey, fresh: PrivateKey) -> None:
    """Give the transaction's tenant what is missing: roles, and a key that signs. Raises SealBroken."""
    if tx.tenant == DEFAULT_TENANT:
        tenants.create(tx, "default", "Default")
    roles.furnish(tx)
    known = signing_keys.everyone(tx)
    for key in known:  # a wrong master key must end here, not at the first sale
        master.open(key.private_key_sealed, signing_keys.context(tx.tenant, key.id))
    if not any(key.status == "active" for key in known):
        signing_keys.create_first(tx, master, fresh)


def tend_sandbox(tx: Tx, settings: Settings, master: MasterKey, fresh_secret: str) -> None:
    """Connect the sandbox at the tenant's address or disconnect it, as the settings say."""
    connected = rail_settings.load(tx, "sandbox")
    if not settings.sandbox:
        if connected is not None:
            rail_settings.disconnect(tx, "sandbox")
        return
    base = address_of(settings, tx.tenant, tenants.own(tx))
    secret = fresh_secret
    if connected is not None:
        known: SandboxSettings = rail_settings.unseal(connected, tx.tenant, master, SandboxSettings)
        if known.base_url == base:
            return
        secret = known.secret  # pages and webhooks from before the move stay good
    rail_settings.save(tx, master, "sandbox", SandboxSettings(base_url=base, secret=secret), {"base_url": base})


def address_of(settings: Settings, tenant_id: str, tenant: Tenant | KnownTenant) -> str:
    """Where a tenant's pages and webhooks are reached, without a slash at the end."""
    if tenant_id == DEFAULT_TENANT:
        return settings.base_url
    if tenant.hosts:
        return f"{settings.base_url.partition('://')[0]}://{tenant.hosts[0]}"
    return f"{settings.base_url}/t/{tenant.slug}"


def _host_of(settings: Settings) -> str:
    return urlsplit(settings.base_url).hostname or ""


def create_tenant(tx: Tx, settings: Settings, master: MasterKey, new: NewTenant, fresh: Fresh) -> KnownTenant:
    """Make the transaction's own tenant and all it needs; owe its owner the letter that lets them in.

    Raises Invalid; Conflict (``slug_taken``, ``host_taken``).
    """
    made = tenants.open_(tx, new, own_host=_host_of(settings))
    furnish(tx, master, fresh.signing_key)
    if settings.sandbox:
        tend_sandbox(tx, settings, master, fresh.sandbox_secret)
    if new.owner_email is not None:
        owner = enrollment.invite(tx, fresh.enrollment_token, email=new.owner_email, role=SUPER_ADMIN)
        link = f"{address_of(settings, made.id, made)}/enroll/{fresh.enrollment_token}"
        outgoing.queue(tx, master, owner.email, "staff_enrollment", {"link": link, "expires": "in one day"})
    return made


def update_tenant(
    tx: Tx, settings: Settings, master: MasterKey, changes: TenantChanges, sandbox_secret: str
) -> KnownTenant:
    """Change the transaction's own tenant; what is paid in its sandbox from now on follows its address.

    Raises Invalid; NotFound; Conflict (``host_taken``).
    """
    changed = tenants.update(tx, changes, own_host=_host_of(settings))
    if settings.sandbox:
        tend_sandbox(tx, settings, master, sandbox_secret)
    return changed
