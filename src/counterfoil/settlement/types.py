"""Grants outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class Grant(msgspec.Struct, frozen=True):
    """A benefit given by one unit of one line of one order."""

    id: str
    kind: Literal["license", "goods"]
    customer_id: str | None
    product_id: str
    order_id: str
    subscription_id: str | None
    """The subscription that it lasts with."""
    line: int
    unit: int
    object_id: str
    """What was given: the license's id, or the order's own where it is goods."""
    status: Literal["active", "suspended", "revoked", "expired"]
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime


LinkKind = Literal["product", "price", "discount", "customer", "address", "business", "subscription"]
SyncStatus = Literal["pending", "synced", "different", "refused"]


class RailLink(msgspec.Struct, frozen=True):
    """What a rail calls one of our objects, and how far its copy is in step."""

    id: str
    rail: str
    kind: LinkKind
    object_id: str
    reference: str
    sync_status: SyncStatus
    last_synced_at: datetime | None
    """When we last sent it, or read it, and it was as ours."""
    last_event_at: datetime | None
    """When the rail's newest news of it happened, by its clock: older news does not count any more."""
    last_event_id: str | None
    pending_since: datetime | None
    raw: dict[str, Any] | None
    """The rail's own words about it, the last time."""
    created_at: datetime
    updated_at: datetime
