"""A day's payments as our books have them, and as their rail has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, NamedTuple

import msgspec

from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import rail_settings
from counterfoil.exchange.catching_up import catch_up
from counterfoil.exchange.outbox import MIRRORED
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.errors import Invalid, NotFound, RailFailed, Unavailable
from counterfoil.logs import get_logger
from counterfoil.rails.base import PaymentFact, RailRefused, RailUnavailable
from counterfoil.sales import payments_by_day
from counterfoil.sales.payments_by_day import Entry

DAY: Final = timedelta(days=1)
SETTLES: Final = timedelta(hours=1)
"""How long after its end a day is compared: webhooks may be under way."""
LOOKS_BACK: Final = timedelta(days=28)
"""How many days are made up for after a long stop."""
_AROUND: Final = timedelta(hours=1)
"""A rail may date money a moment before or after the day that we have it in: so much around the day is looked at."""
_CLOSE: Final = timedelta(minutes=1)
"""Money came in before a rail was connected, when it came so long before: its clock is not ours."""
_PAGE: Final = 500

_log = get_logger(__name__)


class Difference(msgspec.Struct, frozen=True):
    """A payment that is not the same here and there. Amounts in minor units; None where there is none."""

    kind: Literal["missing_here", "missing_there", "differs"]
    reference: str
    """The rail's name for it."""
    occurred_at: datetime
    payment_id: str | None
    amount: int | None
    asset: str | None
    their_amount: int | None
    their_asset: str | None


class Comparison(msgspec.Struct, frozen=True):
    """What came of comparing one day (UTC) with one rail."""

    rail: str
    day: date
    ours: int
    """Payments in our books."""
    theirs: int
    """Payments in the rail's list."""
    found: int
    """Pieces of news that the rail was asked for because payments were missing here, and that took effect."""
    differences: list[Difference]

    def count(self, kind: str) -> int:
        """How many differences of a kind there are."""
        return sum(one.kind == kind for one in self.differences)


class _Span(NamedTuple):
    since: datetime
    until: datetime

    def __contains__(self, at: object) -> bool:
        return isinstance(at, datetime) and self.since <= at < self.until


async def compare(
    scope: Scope,
    rails: Rails,
    pusher: Pusher,
    rail: str,
    day: date,
    *,
    repair: bool = True,
    since: datetime | None = None,
    show: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Compare the payments of a day (UTC) with the rail's own list, and write down what differs.

    With ``repair``, payments that are missing here are looked for in the rail's events first; without, nothing is
    written. ``since``: leave out what came before. ``show`` is told how many payments were looked at.

    Raises NotFound (``rail_not_connected``, ``rail_keeps_no_copies``); Invalid for a day that the rail's list does
    not have (any more); RailFailed, Unavailable.
    """
    connection = await rails.get(scope.tenant, rail)
    span = _span(scope, connection, day, since)
    try:
        seen, differences, theirs = await _walk_theirs(scope, connection, pusher, span, show)
        found = 0
        missing = [one.reference for one in differences if one.kind == "missing_here"]
        if missing and repair:
            found = await catch_up(scope, rails, pusher, rail, since=span.since)
            known = await scope.read(payments_by_day.of_references, rail, missing)
            differences = [again for one in differences if (again := _again(one, known)) is not None]
    except RailRefused as error:
        raise RailFailed(f"{rail}: {error}") from error
    except RailUnavailable as error:
        raise Unavailable(f"{rail} does not answer: {error}", code="rail_unavailable") from error
    ours, gone = await _walk_ours(scope, rail, span, seen)
    done = Comparison(rail, day, ours, theirs, found, differences + gone)
    if repair:
        await _note(scope, done, span.until)
    return done


def _span(scope: Scope, connection: Connection, day: date, since: datetime | None) -> _Span:
    kept = connection.mirror.payments_kept
    start = datetime.combine(day, time(), UTC)
    now = scope.database.clock.now()
    if start > now:
        raise Invalid.field("day", "this day has not begun")
    if kept is not None and start < now - kept:
        name = connection.rail.name
        raise Invalid.field("day", f"{name} lists payments of the last {kept.days} days only", code="day_too_old")
    return _Span(max(start, since) if since is not None else start, start + DAY)


async def _walk_theirs(
    scope: Scope, connection: Connection, pusher: Pusher, span: _Span, show: Callable[[int], None]
) -> tuple[set[str], list[Difference], int]:
    """Every name in the rail's list, the differences to our books, and how many payments are of this day."""
    mirror, settings = connection.mirror, connection.settings
    seen: set[str] = set()
    differences: list[Difference] = []
    count, after = 0, None
    while True:
        request = mirror.payments_request(settings, span.since - _AROUND, span.until + _AROUND, after)
        facts, after = await pusher.ask(
            scope, connection, request, lambda response: mirror.read_payments(settings, response)
        )
        fresh = {fact.reference: fact for fact in facts if fact.reference not in seen}
        seen |= fresh.keys()
        of_day = [fact for fact in fresh.values() if fact.occurred_at in span]
        known = await scope.read(
            payments_by_day.of_references, connection.rail.name, [fact.reference for fact in of_day]
        )
        differences += [one for fact in of_day if (one := _compare(fact, known.get(fact.reference))) is not None]
        count += len(of_day)
        show(count)
        if after is None:
            return seen, differences, count


async def _walk_ours(scope: Scope, rail: str, span: _Span, seen: set[str]) -> tuple[int, list[Difference]]:
    """How many payments our books have of this day, and those that are not in the rail's list."""
    count, gone, after = 0, list[Difference](), ""
    while True:
        page = await scope.read(payments_by_day.between, rail, *span, after=after, limit=_PAGE)
        count += len(page)
        gone += [_gone(one) for one in page if one.reference not in seen]
        if len(page) < _PAGE:
            return count, gone
        after = page[-1].id


def _compare(fact: PaymentFact, ours: Entry | None) -> Difference | None:
    if ours is not None and (ours.amount, ours.asset) == (fact.amount.amount, fact.amount.asset):
        return None
    return Difference(
        kind="missing_here" if ours is None else "differs",
        reference=fact.reference,
        occurred_at=fact.occurred_at,
        payment_id=ours.id if ours else None,
        amount=ours.amount if ours else None,
        asset=ours.asset if ours else None,
        their_amount=fact.amount.amount,
        their_asset=fact.amount.asset,
    )


def _again(one: Difference, known: dict[str, Entry]) -> Difference | None:
    """The same once more, now that the rail's events were read."""
    ours = known.get(one.reference)
    if one.kind != "missing_here" or ours is None:
        return one
    if (ours.amount, ours.asset) == (one.their_amount, one.their_asset):
        return None
    return msgspec.structs.replace(one, kind="differs", payment_id=ours.id, amount=ours.amount, asset=ours.asset)


def _gone(one: Entry) -> Difference:
    return Difference(
        kind="missing_there",
        reference=one.reference,
        occurred_at=one.occurred_at,
        payment_id=one.id,
        amount=one.amount,
        asset=one.asset,
        their_amount=None,
        their_asset=None,
    )


async def _note(scope: Scope, done: Comparison, until: datetime) -> None:
    for first in range(0, len(done.differences), _PAGE):
        await scope.run(_record_differences, done, first)
    await scope.run(_record, done, until)


def _record_differences(tx: Tx, done: Comparison, first: int) -> None:
    for one in done.differences[first : first + _PAGE]:
        tx.record("payments.differ", "rail", done.rail, day=done.day.isoformat(), **msgspec.to_builtins(one))


def _record(tx: Tx, done: Comparison, until: datetime) -> None:
    tx.record(
        "payments.compared",
        "rail",
        done.rail,
        day=done.day.isoformat(),
        ours=done.ours,
        theirs=done.theirs,
        found=done.found,
        missing_here=done.count("missing_here"),
        missing_there=done.count("missing_there"),
        differs=done.count("differs"),
    )
    if until <= tx.now:
        rail_settings.compared(tx, done.rail, until=until)


async def compare_due(scope: Scope, rails: Rails, pusher: Pusher) -> int:
    """The nightly job: compare every day that is over and was not compared, rail by rail; how many days."""
    done = 0
    for name in MIRRORED:
        try:
            await rails.get(scope.tenant, name)
            done += await _compare_days(scope, rails, pusher, name)
        except NotFound:
            continue
        except (RailFailed, Unavailable) as error:  # the next run goes on with this day
            _log.warning("payments could not be compared", rail=name, why=error.detail)
    return done


async def _compare_days(scope: Scope, rails: Rails, pusher: Pusher, name: str) -> int:
    row = await scope.read(rail_settings.load, name)
    if row is None:
        return 0
    now = scope.database.clock.now()
    done, start = 0, max(row.compared_until or row.created_at, now - LOOKS_BACK)
    day = start.date() if start == (row.compared_until or row.created_at) else start.date() + DAY
    while datetime.combine(day, time(), UTC) + DAY + SETTLES <= now:
        result = await compare(scope, rails, pusher, name, day, since=row.created_at - _CLOSE)
        if result.differences:
            _log.warning("payments differ", rail=name, day=day.isoformat(), count=len(result.differences))
        done, day = done + 1, day + DAY
    return done
