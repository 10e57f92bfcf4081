"""What an event is outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

ActorKind = Literal["key", "anonymous", "rail", "job", "system"]


class Actor(msgspec.Struct, frozen=True):
    """Who does it: a program with an API key, somebody we do not know, a rail, a job, or we ourselves."""

    kind: ActorKind
    id: str | None = None
    """The key's id, the rail's or the job's name."""
    address: str | None = None
    user_agent: str | None = None


SYSTEM = Actor("system")


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    id: str
    type: str
    object_kind: str
    object_id: str
    actor_kind: ActorKind
    actor_id: str | None
    amount: int | None
    asset: str | None
    address: str | None
    user_agent: str | None
    details: dict[str, Any]
    created_at: datetime
