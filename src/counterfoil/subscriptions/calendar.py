"""When a period ends."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta
from typing import Literal

Interval = Literal["day", "week", "month", "year"]


def after(start: datetime, interval: Interval, count: int) -> datetime:
    """The end of ``count`` intervals from ``start``.

    Months and years keep the day of the month, or take the last one of a month that is shorter.
    """
    if interval == "day":
        return start + timedelta(days=count)
    if interval == "week":
        return start + timedelta(weeks=count)
    months = count * (12 if interval == "year" else 1)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)
