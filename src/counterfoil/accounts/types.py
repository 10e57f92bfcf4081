"""Tenants and credentials outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

DEFAULT_TENANT = "ten_00000000000000000000000000"
"""The tenant every installation starts with."""


class Tenant(msgspec.Struct, frozen=True):
    """One seller on this installation."""

    name: str
    slug: str
    hosts: list[str]
    settings: dict[str, Any]
    status: Literal["active", "suspended"]
    created_at: datetime
    updated_at: datetime


class ApiKey(msgspec.Struct, frozen=True):
    """A program's credential. The secret itself is shown once and never stored."""

    id: str
    name: str
    secret_hash: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime


class OneTimeToken(msgspec.Struct, frozen=True):
    """A secret good for one purpose, once, for a while."""

    id: str
    purpose: str
    token_hash: str
    details: dict[str, Any]
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime
