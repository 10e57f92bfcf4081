"""What rails tell us: each piece of news once, its claim and its whole effect in one transaction."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.exchange.tables import inbox
from counterfoil.exchange.types import InboxEntry
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.rails.base import CheckoutReport, Notice
from counterfoil.settlement.settle import Settlement, settle

_SEEN = sa.select(inbox.c.id).where(
    mine(inbox), inbox.c.rail == sa.bindparam("rail"), inbox.c.event_id == sa.bindparam("event_id")
)


def seen(tx: Tx, rail: str, event_id: str) -> bool:
    """Whether this news was applied before: only to spare a question; the claim decides."""
    return tx.one(_SEEN, {"rail": rail, "event_id": event_id}) is not None


class News(msgspec.Struct, frozen=True):
    """A verified webhook, and what its rail says of the checkout it is about."""

    rail: str
    notice: Notice
    report: CheckoutReport | None


def apply_many(tx: Tx, news: list[News]) -> list[Settlement | CounterfoilError | None]:
    """Apply several pieces of news in one transaction: under load they share its round trips and its flush to disk.

    Checkouts are locked in the order of their references, so that transactions never wait in a circle.
    """
    answers: list[Settlement | CounterfoilError | None] = [None] * len(news)
    places = range(len(news))
    for place in sorted(places, key=lambda place: (news[place].notice.reference or "", news[place].notice.event_id)):
        answers[place] = apply(tx, news[place].rail, news[place].notice, news[place].report)
    return answers


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
