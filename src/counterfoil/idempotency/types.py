"""Idempotency keys outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A request that may be sent again, and its answer once there is one."""

    id: str
    """The hash of who sent which key where."""
    request_hash: str
    status: Literal["in_progress", "done"]
    claimed_by: str
    """Which handling of the request it is."""
    claimed_until: datetime
    """When whoever handles it is taken for dead."""
    effect_at: datetime | None
    """When its change was committed; from then on nothing makes it again."""
    answer_status: int | None
    answer_sealed: bytes | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
