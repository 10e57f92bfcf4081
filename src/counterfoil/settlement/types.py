"""Grants outside the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Grant(msgspec.Struct, frozen=True):
    """A benefit given by one unit of one line of one order."""

    id: str
    kind: Literal["license", "goods"]
    customer_id: str | None
    product_id: str
    order_id: str
    line: int
    unit: int
    object_id: str
    """What was given: the license's id, or the order's own where it is goods."""
    status: Literal["active", "suspended", "revoked", "expired"]
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime
