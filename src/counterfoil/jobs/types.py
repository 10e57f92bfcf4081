"""A job outside the database."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Job(msgspec.Struct, frozen=True):
    """When a job runs next, and who runs it now."""

    id: str
    due_at: datetime
    claimed_by: str | None
    claimed_until: datetime | None
    finished_at: datetime | None
    error: str | None
    created_at: datetime
    updated_at: datetime
