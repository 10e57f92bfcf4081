"""What rails tell us: each piece of news once, its claim and its whole effect in one transaction."""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.exchange.tables import inbox
from counterfoil.exchange.types import InboxEntry
from counterfoil.rails.base import CheckoutReport, Notice
from counterfoil.settlement.settle import Settlement, settle

_SEEN = sa.select(inbox.c.id).where(
    mine(inbox), inbox.c.rail == sa.bindparam("rail"), inbox.c.event_id == sa.bindparam("event_id")
)


def seen(tx: Tx, rail: str, event_id: str) -> bool:
    """Whether this news was applied before: only to spare a question; the claim decides."""
    return tx.one(_SEEN, {"rail": rail, "event_id": event_id}) is not None


def apply(tx: Tx, rail: str, notice: Notice, report: CheckoutReport | None) -> Settlement | None:
    """Claim a piece of news and settle what it proves; None when it was applied before."""
    entry = InboxEntry(
        id=tx.new_id("inb"),
        rail=rail,
        event_id=notice.event_id,
        type=notice.type,
        reference=notice.reference,
        occurred_at=notice.occurred_at,
        applied_at=tx.now,
        created_at=tx.now,
    )
    if not tx.insert_if_new(inbox, entry):
        return None
    return settle(tx, report) if report is not None else Settlement("waiting", None)
