"""What an event is outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

ActorKind = Literal["user", "key", "anonymous", "rail", "job", "system"]
Source = Literal["api", "web", "cli", "webhook", "job", "system"]


class Actor(msgspec.Struct, frozen=True):
    """Who does it: a person, a program with an API key, somebody unknown, a rail, a job, or we ourselves."""

    kind: ActorKind
    id: str | None = None
    """The user's or the key's id, the rail's or the job's name."""
    address: str | None = None
    user_agent: str | None = None
    source: Source = "system"
    """Through which door."""


SYSTEM = Actor("system")


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    id: str
    type: str
    object_kind: str
    object_id: str
    customer_id: str | None
    """Whom it is about."""
    actor_kind: ActorKind
    actor_id: str | None
    amount: int | None
    asset: str | None
    source: Source | None
    """Through which door; None: it happened before that was kept."""
    address: str | None
    user_agent: str | None
    details: dict[str, Any]
    created_at: datetime


class EventSeal(msgspec.Struct, frozen=True):
    """One link of the chain that seals the record: the event of the same id, at its place."""

    id: str
    seq: int
    """1, 2, 3, ... without a gap."""
    digest: str
    """SHA-256 of the event."""
    hash: str
    """SHA-256 of the hash before and the digest."""
    signature: str | None
    """Ed25519 over the place and the hash, on the last link of each run of the job."""
    signing_key_id: str | None
    created_at: datetime
