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
    """Claim pieces of news and settle what they prove; None for those applied before.

    Several share a transaction under load: its round trips, and its flush to disk. All claims come first,
    in the order of event ids, then the checkouts, in the order of their references. So nobody waits for a
    claim while holding a checkout, and transactions never wait in a circle.
    """
    answers: list[Settlement | CounterfoilError | None] = [None] * len(news)
    by_event = sorted(range(len(news)), key=lambda place: news[place].notice.event_id)
    claimed = [place for place in by_event if _claim(tx, news[place])]
    for place in sorted(claimed, key=lambda place: news[place].notice.reference or ""):
        report = news[place].report
        answers[place] = settle(tx, report) if report is not None else Settlement("waiting", None)
    return answers


def _claim(tx: Tx, news: News) -> bool:
    """Write down that this news is applied, once. Whether it is new."""
    entry = InboxEntry(
        id=tx.new_id("inb"),
        rail=news.rail,
        event_id=news.notice.event_id,
        type=news.notice.type,
        reference=news.notice.reference,
        occurred_at=news.notice.occurred_at,
        applied_at=tx.now,
        created_at=tx.now,
    )
    return tx.insert_if_new(inbox, entry)
