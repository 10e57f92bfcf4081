"""Languages and time zones that people name: BCP 47 tags and names of the time zone database."""

from __future__ import annotations

import re
from functools import cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global

from counterfoil.kernel.errors import Invalid

_TAG = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")


def check_locale(field: str, value: str) -> str:
    """A language tag (``en``, ``de-AT``, ``zh-Hant-TW``). Raises Invalid (``unknown_locale``)."""
    if not _TAG.fullmatch(value) or not _is_language(value):
        raise Invalid.field(field, "not a language we know (en, de-AT, zh-Hant-TW, ...)", code="unknown_locale")
    return value


def check_time_zone(field: str, value: str) -> str:
    """A name of the time zone database (``UTC``, ``Europe/Berlin``). Raises Invalid (``unknown_time_zone``)."""
    if value not in _time_zones():
        raise Invalid.field(field, "not a time zone (UTC, Europe/Berlin, ...)", code="unknown_time_zone")
    return value


def _is_language(tag: str) -> bool:
    try:
        Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return False
    return True


@cache
def _time_zones() -> frozenset[str]:
    # Babel's own list, so that the answer does not depend on what this machine has installed.
    return frozenset({*get_global("zone_territories"), *get_global("zone_aliases")} - {"Etc/Unknown"})
