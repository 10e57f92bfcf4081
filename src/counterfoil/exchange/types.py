"""The inbox and the rails' settings outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec


class InboxEntry(msgspec.Struct, frozen=True):
    """One piece of news from a rail, applied."""

    id: str
    rail: str
    event_id: str
    type: str
    reference: str | None
    occurred_at: datetime
    applied_at: datetime
    created_at: datetime


class RailSettings(msgspec.Struct, frozen=True):
    """How a tenant's rail is reached. Secrets are sealed."""

    id: str
    rail: str
    status: Literal["active", "disconnected"]
    public: dict[str, Any]
    sealed: bytes
    created_at: datetime
    updated_at: datetime
