"""Time: exact, in UTC, and months that clamp."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.clock import (
    ManualClock,
    SystemClock,
    add_months,
    from_micros,
    from_seconds,
    to_micros,
    to_seconds,
)

moments = st.datetimes(timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("moment", "micros"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC), 1_767_323_045_678_901),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799_999_999),
    ],
)
def test_micros(moment: datetime, micros: int) -> None:
    assert to_micros(moment) == micros
    assert from_micros(micros) == moment
    assert from_micros(micros).tzinfo is UTC


@given(moments)
def test_micros_lose_nothing(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), 1_767_323_045),
        (datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), -1),
    ],
)
def test_seconds_round_down(moment: datetime, seconds: int) -> None:
    assert to_seconds(moment) == seconds
    assert from_seconds(seconds) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2026-01-31", 2, "2026-03-31"),
        ("2026-01-31", 3, "2026-04-30"),
        ("2024-01-31", 1, "2024-02-29"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2024-02-29", 48, "2028-02-29"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-12-15", 1, "2027-01-15"),
        ("2026-01-15", -1, "2025-12-15"),
        ("2026-03-31", -1, "2026-02-28"),
        ("2026-05-05", 0, "2026-05-05"),
    ],
)
def test_add_months(start: str, months: int, expected: str) -> None:
    time = "T03:04:05.678901+00:00"
    assert add_months(datetime.fromisoformat(start + time), months) == datetime.fromisoformat(expected + time)


@given(st.datetimes(max_value=datetime(9000, 1, 1)), st.integers(0, 1200))  # noqa: DTZ001
def test_add_months_keeps_the_day_or_takes_the_last(start: datetime, months: int) -> None:
    end = add_months(start, months)
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == months
    assert end.time() == start.time()
    assert end.day == start.day or (end.day < start.day and (end + timedelta(days=1)).day == 1)


def test_a_manual_clock_moves_only_when_told() -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    clock = ManualClock(start)
    assert [clock.now(), clock.now()] == [start, start]
    clock.advance(timedelta(seconds=90))
    assert clock.now() == datetime(2026, 1, 2, 0, 1, 30, tzinfo=UTC)


def test_the_system_clock_is_in_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC
