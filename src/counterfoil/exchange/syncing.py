"""What is owed to rails, as people and programs see it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox
from counterfoil.exchange.types import Owed
from counterfoil.kernel.paging import Page
from counterfoil.settlement import links

_MOST_AGAIN: Final = 1000


class OwedView(msgspec.Struct, frozen=True):
    """Something that is owed to a rail, in doubt, or refused."""

    id: str
    rail: str
    kind: str
    object_id: str
    action: str
    status: str
    attempts: int
    pending_since: datetime
    next_attempt_at: datetime | None
    error: str | None
    """Why it is not done: the rail's words."""


def view(row: Owed) -> OwedView:
    """What is shown of it."""
    return OwedView(*[getattr(row, name) for name in OwedView.__struct_fields__])


def list_owed(tx: Tx, *, after: str = "", limit: int = 20) -> Page[OwedView]:
    """A page of what is owed, in doubt or refused, oldest first."""
    page = outbox.list_open(tx, after=after, limit=limit)
    return Page([view(row) for row in page.data], page.next)


def retry(tx: Tx, rail: str) -> int:
    """Have all that is owed to a rail tried again now, what it refused and what differs there, too; how many."""
    count = outbox.retry(tx, rail)
    differing = links.different(tx, rail, outbox.MIRRORED.get(rail, ()), limit=_MOST_AGAIN)
    outbox.owe(tx, rail, [(link.kind, link.object_id) for link in differing])
    return count + len(differing)
