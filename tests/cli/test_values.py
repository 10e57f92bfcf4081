from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.cli.output import text
from counterfoil.cli.values import parse_duration, parse_moment, show_duration

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("wdhms")), min_size=1, max_size=5))
def test_durations_add_up(parts: list[tuple[int, str]]) -> None:
    typed = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(typed, "--x") == sum(number * _UNITS[unit] for number, unit in parts)


@given(st.integers(1, 10**10 - 1))
def test_shown_durations_read_back(seconds: int) -> None:
    count, unit = show_duration(seconds, "none").split()
    assert parse_duration(f"{count}{unit[0]}", "--x") == seconds


@pytest.mark.parametrize("typed", ["", "1", "-1d", "1y", "1.5d", "d", "1d ", "٣d", "1D", "99999999999d"])
def test_other_durations_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a duration"):
        parse_duration(typed, "--x")


def test_shown_durations() -> None:
    shown = [show_duration(seconds, "for ever") for seconds in (0, 1, 90, 7200, 86_400, 365 * 86_400)]
    assert shown == ["for ever", "1 second", "90 seconds", "2 hours", "1 day", "365 days"]


@pytest.mark.parametrize(
    ("typed", "moment"),
    [
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-12-31T18:00Z", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("2026-12-31T18:00+02:00", datetime(2026, 12, 31, 16, tzinfo=UTC)),
    ],
)
def test_moments(typed: str, moment: datetime) -> None:
    assert parse_moment(typed, "--x") == moment


@pytest.mark.parametrize("typed", ["", "tomorrow", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_other_moments_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        parse_moment(typed, "--x")


@given(st.text())
def test_shown_text_is_one_printable_line(value: str) -> None:
    assert text(value).isprintable()


def test_shown_values() -> None:
    values = [None, "", True, False, 7, [], ["a", "b"], {}, {"a": 1}, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)]
    assert [text(value) for value in values] == [
        "-", "-", "yes", "no", "7", "-", "a, b", "-", '{"a":1}', "2026-01-02 03:04:05Z",
    ]  # fmt: skip
