"""Webhook endpoints and deliveries outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

EndpointStatus = Literal["enabled", "disabled"]
DeliveryStatus = Literal["pending", "processing", "success", "failed"]


class StoredEndpoint(msgspec.Struct, frozen=True):
    """Where news goes, with its secrets sealed."""

    id: str
    url: str
    description: str
    event_types: list[str]
    """``order.paid``, ``order.*`` or ``*``."""
    secret_sealed: bytes
    old_secret_sealed: bytes | None
    """The secret before the last rotation; news is signed with both until ``old_secret_until``."""
    old_secret_until: datetime | None
    signing_key_sealed: bytes
    """Ed25519, for signatures that receivers check without a shared secret."""
    public_key: str
    status: EndpointStatus
    disabled_reason: str | None
    first_failed_at: datetime | None
    """When the first of the attempts failed that have all failed since; None while it works."""
    created_at: datetime
    updated_at: datetime


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    object_kind: str
    object_id: str
    sequence: int
    """How much had been told about this object before, plus one."""
    payload: str
    """The body, as it is signed and sent: what was true when it happened."""
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime
    claimed_by: str | None
    claimed_until: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Sequence(msgspec.Struct, frozen=True):
    """How much was told about an object."""

    object_id: str
    last: int
    created_at: datetime
