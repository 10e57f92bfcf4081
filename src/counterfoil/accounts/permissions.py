"""What there is to be allowed, and the sets it comes in.

A permission names a thing and what may be done with it (``orders:read``). Roles and API keys hold permissions
or bundles of them; :func:`expand` is the one place that says what a bundle holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

PERMISSIONS = {
    "products:read": "See products, prices and benefits that are not public.",
    "products:write": "Make and change products, prices and benefits.",
    "discounts:read": "See discounts and margins.",
    "discounts:write": "Make and archive discounts and margins.",
    "stock:read": "See stock and what checkouts hold of it.",
    "stock:write": "Count stock.",
    "carts:read": "See priced carts.",
    "carts:write": "Price carts, and say that they are paid.",
    "checkouts:read": "See attempts to pay.",
    "checkouts:write": "Buy for a customer.",
    "orders:read": "See what was bought.",
    "orders:write": "Move orders on, and ship them.",
    "payments:read": "See what was paid.",
    "payments:write": "Resolve payments that need a person.",
    "refunds:read": "See what is given back.",
    "refunds:write": "Ask for money back.",
    "refunds:approve": "Approve and deny refunds.",
    "invoices:read": "See invoices.",
    "invoices:pay": "Pay invoices.",
    "subscriptions:read": "See subscriptions.",
    "subscriptions:write": "Change subscriptions.",
    "licenses:read": "See licenses and their keys.",
    "licenses:write": "Issue, suspend, reinstate and revoke licenses.",
    "machines:read": "See the machines of a license.",
    "machines:write": "Take a machine off a license.",
    "vaults:read": "Read vaults.",
    "vaults:write": "Write to vaults.",
    "vaults:create": "Make vaults.",
    "agents:create": "Make agents.",
    "devices:enroll": "Enroll devices.",
    "customers:read": "See customers, their addresses and businesses.",
    "customers:write": "Make and change customers below.",
    "customers:move": "Move customers within the tree.",
    "customers:notes": "Read and write what staff notes about a customer.",
    "members:read": "See members and invitations.",
    "members:write": "Invite and remove members, and change their roles.",
    "roles:read": "See roles.",
    "roles:write": "Make and change roles.",
    "users:read": "See the people who can sign in.",
    "users:write": "Disable people and end their sessions.",
    "staff:read": "See who is staff.",
    "staff:write": "Make and unmake staff.",
    "api_keys:read": "See API keys, without their secrets.",
    "api_keys:write": "Make and revoke API keys.",
    "rails:read": "See which rails are connected.",
    "rails:write": "Connect and disconnect rails.",
    "webhooks:read": "See where news goes, and what became of it.",
    "webhooks:write": "Say where news goes, and send it again.",
    "emails:read": "See letters on their way out.",
    "emails:write": "Send letters again, or not at all.",
    "events:read": "Read the record.",
    "tenant:read": "See the tenant's settings.",
    "tenant:write": "Change the tenant's settings.",
    "tenants:read": "See every tenant of the installation.",
    "tenants:write": "Make, change and suspend tenants.",
}
"""Every permission, and what it allows."""

ALL = frozenset(PERMISSIONS)

BUNDLES = {
    "*": ALL,
    "all": ALL,
    "customer_admin": frozenset(
        {
            "customers:read", "customers:write", "members:read", "members:write", "roles:read",
            "licenses:read", "machines:read", "machines:write", "events:read",
        }
    ),
    "billing_view": frozenset(
        {"orders:read", "payments:read", "refunds:read", "checkouts:read", "invoices:read", "subscriptions:read"}
    ),
    "invoices": frozenset({"invoices:read", "invoices:pay"}),
    "vault_create": frozenset({"vaults:create"}),
    "vault_read": frozenset({"vaults:read"}),
    "vault_write": frozenset({"vaults:write"}),
    "agent_create": frozenset({"agents:create"}),
    "device_enroll": frozenset({"devices:enroll"}),
}  # fmt: skip
"""Names that stand for several permissions at once."""


class BuiltIn(NamedTuple):
    """A role that every tenant has."""

    permissions: list[str]
    description: str


SUPER_ADMIN, OWNER, MEMBER = "SuperAdmin", "Owner", "Member"

ROLES = {
    SUPER_ADMIN: BuiltIn(["all"], "Full system access"),
    "MSPAdmin": BuiltIn(["customer_admin", "billing_view"], "MSP-level admin"),
    "TenantAdmin": BuiltIn(["vault_create", "agent_create", "device_enroll"], "Customer admin"),
    "VaultUser": BuiltIn(["vault_read", "vault_write"], "Regular user"),
    "BillingAdmin": BuiltIn(["billing_view", "invoices"], "Can view/pay invoices"),
    "ReadOnly": BuiltIn(["vault_read"], "View only"),
    OWNER: BuiltIn(
        [
            "customer_admin", "billing_view", "invoices", "checkouts:write", "refunds:write",
            "subscriptions:write",
            "api_keys:read", "api_keys:write", "vault_create", "vault_read", "vault_write", "agent_create",
            "device_enroll",
        ],
        "Everything within one customer",
    ),
    MEMBER: BuiltIn(["customers:read", "members:read", "licenses:read", "machines:read"], "Takes part in a customer"),
}  # fmt: skip
"""The roles every tenant has from the start."""

A_LA_CARTE = frozenset(
    {"rails:write", "api_keys:write", "staff:write", "roles:write", "tenant:write", "tenants:read", "tenants:write"}
)
"""What no named set of an API key includes: whoever makes the key must spell it out."""

_READS = sorted(name for name in ALL - A_LA_CARTE if name.endswith(":read"))

KEY_ROLES = {
    "read-only": _READS,
    "license-issuer": [*_READS, "licenses:write"],
    "support": [*_READS, "subscriptions:write", "machines:write"],
    "merchant-onboard": [*_READS, "products:write", "licenses:write"],
    "full-admin": sorted(ALL - A_LA_CARTE),
}
"""The named sets of an API key."""


def unknown(names: Iterable[str]) -> list[str]:
    """Those that are neither a permission nor a bundle, sorted."""
    return sorted({name for name in names if name not in PERMISSIONS and name not in BUNDLES})


def expand(names: Iterable[str]) -> frozenset[str]:
    """Every permission that these permissions and bundles hold; unknown names hold none."""
    return _expand(tuple(names))


@lru_cache(maxsize=1024)
def _expand(names: tuple[str, ...]) -> frozenset[str]:
    held: set[str] = set()
    for name in names:
        held |= BUNDLES.get(name, frozenset({name}) & ALL)
    return frozenset(held)
