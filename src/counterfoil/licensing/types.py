"""Licenses and machines outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

LicenseStatus = Literal["active", "suspended", "revoked"]


class SigningKey(msgspec.Struct, frozen=True):
    """A tenant's key for signing licenses. The private half is sealed under the master key."""

    id: str
    algorithm: Literal["ed25519"]
    public_key: bytes
    private_key_sealed: bytes
    status: Literal["active", "verify_only", "retired"]
    created_at: datetime
    updated_at: datetime


class License(msgspec.Struct, frozen=True):
    """The right to run a product. Its key is derived from this row, not stored."""

    id: str
    product_id: str
    order_id: str | None
    """None for a license issued by hand."""
    line: int | None
    unit: int | None
    customer_id: str | None
    tier: str
    status: LicenseStatus
    issued_at: datetime
    """Whole seconds: it enters the key."""
    expires_at: datetime | None
    grace_seconds: int
    max_machines: int
    machine_count: int
    """Machines active now; never above ``max_machines`` unless that is 0."""
    is_trial: bool
    entitlements: list[str]
    email: str | None
    note: str | None
    signing_key_id: str
    suspended_at: datetime | None
    suspension_reason: str | None
    revoked_at: datetime | None
    revocation_reason: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Machine(msgspec.Struct, frozen=True):
    """One fingerprint a license was activated on. Only the fingerprint's SHA-256 is kept."""

    id: str
    license_id: str
    fingerprint_hash: str
    hostname: str | None
    platform: str | None
    address: str | None
    last_heartbeat_at: datetime
    deactivated_at: datetime | None
    deactivation_reason: str | None
    created_at: datetime
    updated_at: datetime


class ValidationEntry(msgspec.Struct, frozen=True):
    """One question whether a license is good, and the answer it got."""

    id: str
    license_id: str | None
    product_id: str | None
    machine_id: str | None
    fingerprint_hash: str | None
    result: str
    address: str | None
    user_agent: str | None
    created_at: datetime
