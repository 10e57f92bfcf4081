"""A letter outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

EmailStatus = Literal["queued", "sending", "sent", "failed", "unknown", "canceled"]


class Email(msgspec.Struct, frozen=True):
    """A letter to one address, and how far it has come.

    ``unknown``: we cannot tell whether it was sent, so it is not sent again.
    """

    id: str
    recipient: str
    template: str
    context_sealed: bytes
    """What the template says, sealed: its links are secrets. Emptied once it was sent, failed for good or canceled."""
    status: EmailStatus
    attempts: int
    next_attempt_at: datetime
    claimed_by: str | None
    claimed_until: datetime | None
    error: str | None
    sent_at: datetime | None
    created_at: datetime
    updated_at: datetime
