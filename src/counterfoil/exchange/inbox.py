"""What rails tell us: each piece of news once, its claim and its whole effect in one transaction.

What cannot take effect is kept as it came: news that its rail has to be asked about first, news of a kind we do not
know, and news that does not fit our books, which is set aside with its error to be replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.exchange import copies
from counterfoil.exchange.tables import inbox
from counterfoil.exchange.types import InboxEntry
from counterfoil.kernel.errors import Conflict, CounterfoilError, NotFound
from counterfoil.kernel.ids import first_id
from counterfoil.kernel.paging import Page, page_of
from counterfoil.rails.base import CheckoutReport, Notice
from counterfoil.rails.facts import DisputeFact, InvoiceFact, RailCopy, RefundFact, SubscriptionFact
from counterfoil.sales import checkouts
from counterfoil.sales.checkouts import CheckoutWithLines
from counterfoil.sales.types import GrantsPolicy
from counterfoil.settlement import billing, disputing, rail_refunds, subscribing
from counterfoil.settlement.settle import Settlement, settle

InboxStatus = Literal["applied", "waiting", "unknown", "set_aside"]
_PAUSES: Final = (timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=1), timedelta(hours=6))
_MOST_ATTEMPTS: Final = 12
"""After which news that nobody can make sense of is set aside."""

_SEEN = sa.select(inbox.c.id).where(
    mine(inbox), inbox.c.rail == sa.bindparam("rail"), inbox.c.event_id == sa.bindparam("event_id")
)
_ALL_SEEN = sa.select(inbox.c.event_id).where(
    mine(inbox), inbox.c.rail == sa.bindparam("rail"), any_of(inbox.c.event_id, "event_ids")
)
_LAST = (
    sa.select(inbox.c.event_id, inbox.c.created_at)
    .where(mine(inbox), inbox.c.rail == sa.bindparam("rail"), inbox.c.id < sa.bindparam("below"))
    .order_by(inbox.c.id.desc())
    .limit(1)
)
_GET = sa.select(*columns(inbox)).where(mine(inbox), inbox.c.id == sa.bindparam("id"))
_FIND = sa.select(*columns(inbox)).where(
    mine(inbox), inbox.c.rail == sa.bindparam("rail"), inbox.c.event_id == sa.bindparam("event_id")
)
_LOCK = _GET.with_for_update()
_LIST = (
    sa.select(*columns(inbox))
    .where(mine(inbox), inbox.c.id > sa.bindparam("after"), inbox.c.status != "applied")
    .order_by(inbox.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_STATUS = _LIST.where(inbox.c.status == sa.bindparam("status"))
_DUE = (
    sa.select(*columns(inbox))
    .where(mine(inbox), inbox.c.next_attempt_at <= sa.bindparam("now"))
    .order_by(inbox.c.next_attempt_at, inbox.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_KEEP = (
    sa.update(inbox)
    .where(mine(inbox), inbox.c.rail == sa.bindparam("of_rail"), inbox.c.event_id == sa.bindparam("of_event"))
    .values(
        status="waiting",
        applied_at=None,
        body=sa.bindparam("new_body"),
        error=sa.bindparam("why"),
        next_attempt_at=sa.bindparam("next"),
    )
)
_WRITE = (
    sa.update(inbox)
    .where(mine(inbox), inbox.c.id == sa.bindparam("entry_id"))
    .values(
        status=sa.bindparam("new_status"),
        applied_at=sa.bindparam("new_applied"),
        body=sa.case((sa.bindparam("new_status", type_=sa.Text) == "applied", sa.null()), else_=inbox.c.body),
        error=sa.bindparam("why"),
        attempts=inbox.c.attempts + 1,
        next_attempt_at=sa.bindparam("next"),
    )
)


def seen(tx: Tx, rail: str, event_id: str) -> bool:
    """Whether this news was taken in before: only to spare a question; the claim decides."""
    return tx.one(_SEEN, {"rail": rail, "event_id": event_id}) is not None


def seen_of(tx: Tx, rail: str, event_ids: Iterable[str]) -> set[str]:
    """Those of a rail's events that were taken in before."""
    return {row.event_id for row in tx.all(_ALL_SEEN, {"rail": rail, "event_ids": sorted(set(event_ids))})}


class LastNews(msgspec.Struct, frozen=True):
    """News by the rail's name for it, and when we took it in."""

    event_id: str
    created_at: datetime


def last(tx: Tx, rail: str, *, before: datetime) -> LastNews | None:
    """The last news of a rail that came in before a moment."""
    row = tx.one(_LAST, {"rail": rail, "below": first_id("inb", before)})
    return LastNews(*row) if row else None


class TooEarly(Conflict):
    """News of money going back that we have not heard come in, and maybe never shall: it may not be ours."""

    default_code = "payment_unheard"


class News(msgspec.Struct, frozen=True):
    """A verified webhook, and what its rail says of the checkout it is about."""

    rail: str
    notice: Notice
    report: CheckoutReport | None
    body: bytes = b""
    """As it came: kept where it does not take effect."""
    on_dispute: GrantsPolicy = disputing.POLICY


def apply_many(tx: Tx, news: list[News]) -> list[Settlement | CounterfoilError | None]:
    """Claim pieces of news and apply what they prove; None for those taken in before.

    Several share a transaction under load: its round trips, and its flush to disk. All claims come first,
    in the order of event ids, then the checkouts, in the order of their references. So nobody waits for a
    claim while holding a checkout, and transactions never wait in a circle.
    """
    answers: list[Settlement | CounterfoilError | None] = [None] * len(news)
    by_event = sorted(range(len(news)), key=lambda place: news[place].notice.event_id)
    new = tx.insert_new(inbox, [_entry(tx, news[place], _status(news[place])) for place in by_event])
    claimed = [place for place, is_new in zip(by_event, new, strict=True) if is_new]
    locked = _lock(tx, [news[place] for place in claimed])
    for place in sorted(claimed, key=lambda place: news[place].notice.reference or ""):
        one = news[place]
        if _status(one) != "applied":
            answers[place] = Settlement("waiting", None)
            continue
        # What was read of a checkout holds for the first news of it, and until facts change who knows what.
        known = locked.pop((one.rail, one.report.reference), None) if one.report is not None else None
        if one.notice.facts:
            locked.clear()
        try:
            answers[place] = apply(tx, one, known)
        except TooEarly as error:
            _keep_for_later(tx, one, error.detail)
            answers[place] = Settlement("waiting", None)
    return answers


def _lock(tx: Tx, news: list[News]) -> dict[tuple[str, str], CheckoutWithLines]:
    """Read and lock the checkouts that several pieces of news report on, in one statement for each rail."""
    by_rail: dict[str, set[str]] = {}
    for one in news:
        if one.report is not None and one.report.reference and _status(one) == "applied":
            by_rail.setdefault(one.rail, set()).add(one.report.reference)
    return {
        (rail, reference): found
        for rail, references in sorted(by_rail.items())
        if len(references) > 1
        for reference, found in checkouts.lock_by_references(tx, rail, references).items()
    }


def apply(tx: Tx, one: News, locked: CheckoutWithLines | None = None) -> Settlement:
    """Apply what a piece of news proves. Raises TooEarly; what does not fit our books.

    ``locked``: the checkout that it reports on, where it was read.
    """
    done = settle(tx, one.report, locked) if one.report is not None else Settlement("waiting", None)
    if one.notice.facts:
        tx.write_rows()  # facts are about what the news before may have given a moment ago
    for fact in one.notice.facts:
        _apply_fact(tx, one, fact)
    return done


def _apply_fact(tx: Tx, one: News, fact: Any) -> None:
    rail = one.rail
    match fact:
        case SubscriptionFact():
            subscribing.apply(tx, rail, fact, event_id=one.notice.event_id)
        case InvoiceFact():
            billing.bill(tx, rail, fact)
        case RefundFact() | DisputeFact():
            if isinstance(fact, RefundFact):
                outcome = rail_refunds.apply(tx, rail, fact)
            else:
                outcome = disputing.apply(tx, rail, fact, policy=one.on_dispute)
            if outcome == "unmatched":
                raise TooEarly(f"We have not heard of the payment {fact.payment_reference}.")
        case RailCopy():
            copies.hear(tx, rail, fact, event_id=one.notice.event_id, at=one.notice.occurred_at)
        case _:
            raise TypeError(f"{type(fact).__name__} is no fact that we know")


def _status(one: News) -> InboxStatus:
    if not one.notice.is_known:
        return "unknown"
    return "waiting" if one.notice.question is not None else "applied"


def _keep_for_later(tx: Tx, one: News, why: str) -> None:
    """Not yet: what it is about has not been heard of. What it has done before it came to that may be done twice."""
    params = {"of_rail": one.rail, "of_event": one.notice.event_id, "new_body": _text(one.body), "why": why}
    tx.execute(_KEEP, {**params, "next": tx.now + _PAUSES[0]})


def _text(body: bytes) -> str:
    return body.decode(errors="replace").replace("\x00", "")


def _entry(tx: Tx, one: News, status: InboxStatus, *, error: str | None = None) -> InboxEntry:
    is_applied = status == "applied"
    return InboxEntry(
        id=tx.new_id("inb"),
        rail=one.rail,
        event_id=one.notice.event_id,
        type=one.notice.type,
        reference=one.notice.reference,
        occurred_at=one.notice.occurred_at,
        applied_at=tx.now if is_applied else None,
        status=status,
        body=None if is_applied else _text(one.body),
        error=error or one.notice.problem,
        attempts=0,
        next_attempt_at=tx.now if status == "waiting" else None,
        created_at=tx.now,
    )


def set_aside(tx: Tx, one: News, why: str) -> None:
    """Keep news that does not fit our books, with its error, for a person to look at and to replay."""
    if tx.insert_if_new(inbox, _entry(tx, one, "set_aside", error=why)):
        tx.record("inbox.set_aside", "inbox", one.notice.event_id, rail=one.rail, of_type=one.notice.type, why=why)


def get(tx: Tx, entry_id: str) -> InboxEntry:
    """Raise NotFound (``news_not_found``) when there is none."""
    row = tx.one(_GET, {"id": entry_id})
    if row is None:
        raise NotFound("There is no such news.", code="news_not_found")
    return InboxEntry(*row)


def list_(tx: Tx, *, status: InboxStatus | None = None, after: str = "", limit: int = 20) -> Page[InboxEntry]:
    """A page of news that has not taken effect, oldest first; of one status, or all."""
    params = {"after": after, "limit": limit + 1}
    rows = tx.all(_LIST_STATUS, {**params, "status": status}) if status else tx.all(_LIST, params)
    return page_of([InboxEntry(*row) for row in rows], limit)


def due(tx: Tx, *, limit: int = 100) -> list[InboxEntry]:
    """News whose rail is to be asked about it now."""
    return [InboxEntry(*row) for row in tx.all(_DUE, {"now": tx.now, "limit": limit})]


def replay(tx: Tx, entry_id: str, one: News) -> Settlement | None:
    """Apply news that was kept, now; None when it took effect meanwhile. Raises what does not fit our books."""
    row = tx.one(_LOCK, {"id": entry_id})
    if row is None or InboxEntry(*row).status == "applied":
        return None
    done = apply(tx, one)
    _write(tx, entry_id, "applied", applied=tx.now)
    return done


def postpone(tx: Tx, entry: InboxEntry, why: str) -> None:
    """Ask again after a pause; at last, set it aside."""
    if entry.attempts >= _MOST_ATTEMPTS:
        fail(tx, entry, why)
        return
    _pause(tx, entry, why)


def wait_for_payment(tx: Tx, entry: InboxEntry, why: str) -> None:
    """Try again after a pause, until it is plain that the payment it is about is none of ours."""
    if entry.attempts >= _MOST_ATTEMPTS:
        _write(tx, entry.id, "unknown", why=why)
        return
    _pause(tx, entry, why)


def _pause(tx: Tx, entry: InboxEntry, why: str) -> None:
    pause = _PAUSES[min(entry.attempts, len(_PAUSES) - 1)]
    _write(tx, entry.id, "waiting", why=why, again=tx.now + pause)


def fail(tx: Tx, entry: InboxEntry, why: str) -> None:
    """Set kept news aside, with its error."""
    _write(tx, entry.id, "set_aside", why=why)
    tx.record("inbox.set_aside", "inbox", entry.event_id, rail=entry.rail, of_type=entry.type, why=why)


def _write(
    tx: Tx,
    entry_id: str,
    status: InboxStatus,
    *,
    applied: datetime | None = None,
    why: str | None = None,
    again: datetime | None = None,
) -> None:
    params = {"entry_id": entry_id, "new_status": status, "new_applied": applied, "why": why, "next": again}
    tx.execute(_WRITE, params)
