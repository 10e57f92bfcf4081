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
    applied_at: datetime | None
    status: Literal["applied", "waiting", "unknown", "set_aside"]
    """Whether it took effect; waits until its rail was asked about it; is of a type we do not know; or could not be
    applied, and is there to be replayed."""
    body: str | None
    """What the rail sent, for what has not taken effect."""
    error: str | None
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime


class Owed(msgspec.Struct, frozen=True):
    """Something that we owe a rail: to bring its copy of an object in step, or a change of a subscription."""

    id: str
    rail: str
    kind: str
    object_id: str
    action: str
    """``push``: make the copy as ours is when it is sent; otherwise the change that ``payload`` describes."""
    payload: dict[str, Any] | None
    rank: int
    """What others refer to goes first."""
    revision: int
    """How often it was owed; what changes while it is being sent is sent again."""
    status: Literal["owed", "in_doubt", "refused", "done"]
    """``in_doubt``: sent, with no answer; the rail is asked before anything is sent again."""
    attempts: int
    pending_since: datetime
    next_attempt_at: datetime | None
    claimed_by: str | None
    claimed_until: datetime | None
    error: str | None
    """Why it is not done: the rail's words."""
    done_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RailSettings(msgspec.Struct, frozen=True):
    """How a tenant's rail is reached. Secrets are sealed."""

    id: str
    rail: str
    status: Literal["active", "disconnected"]
    public: dict[str, Any]
    sealed: bytes
    caught_up_at: datetime | None
    """Of what happened at the rail until then, nothing was missed: its own list of events was read."""
    compared_until: datetime | None
    """Payments of the days until then were compared with the rail's own list."""
    created_at: datetime
    updated_at: datetime
