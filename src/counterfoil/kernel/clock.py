"""Time, as something that is handed in.

All times are aware UTC datetimes with microseconds. Only a transaction and the edges of the program
ask a clock; operations use ``tx.now``.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Whatever tells the time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told to: for tests and simulations."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """The time it was last set to."""
        return self._now

    def advance(self, delta: timedelta) -> None:
        """Move on by ``delta``."""
        self._now += delta


def to_micros(value: datetime) -> int:
    """Whole microseconds since 1970-01-01T00:00:00Z; integer arithmetic, so exact."""
    return (value - EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    """The inverse of :func:`to_micros`."""
    return EPOCH + timedelta(microseconds=value)


def to_seconds(value: datetime) -> int:
    """Whole seconds since the epoch, rounded down."""
    return to_micros(value) // 1_000_000


def from_seconds(value: int) -> datetime:
    """The inverse of :func:`to_seconds`."""
    return EPOCH + timedelta(seconds=value)


def add_months(start: datetime, months: int) -> datetime:
    """The same day ``months`` later, or the month's last day when it has no such day.

    Always count from the anchor, never from a clamped result: Jan 31 + 1 = Feb 28, Jan 31 + 2 = Mar 31.
    """
    index = start.year * 12 + start.month - 1 + months
    year, month = divmod(index, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)
