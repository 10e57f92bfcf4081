"""Identifiers: a prefix, an underscore, and a lower-case ULID (``ord_01j8...``).

A ULID is 48 bits of milliseconds and 80 random bits in Crockford's base 32: sortable by time, and a
valid UUID underneath, which is how license and product ids enter a license key.
Source: the ULID specification (github.com/ulid/spec).
"""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import datetime

from counterfoil.kernel.clock import from_micros, to_micros

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_ULID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_RANDOM_BITS = 80


def ulid_text(value: int) -> str:
    """Twenty-six characters for a 128-bit integer."""
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def ulid_value(text: str) -> int:
    """The 128-bit integer behind twenty-six characters. Raises ValueError for anything else."""
    if not _ULID.fullmatch(text):
        raise ValueError("not a lower-case ULID")
    value = 0
    for char in text:
        value = value << 5 | _VALUES[char]
    return value


def new_ulid(now: datetime) -> int:
    """A fresh 128-bit value for the millisecond ``now`` falls in."""
    return (to_micros(now) // 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)


class IdMaker:
    """Makes the ids of one transaction: unique everywhere, and strictly rising within it.

    Rising matters because lists page by id: rows that one transaction writes keep their order.
    """

    __slots__ = ("_last", "_now")

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._last = 0

    def __call__(self, prefix: str) -> str:
        """A new id with this prefix."""
        self._last = self._last + 1 if self._last else new_ulid(self._now)
        return f"{prefix}_{ulid_text(self._last)}"


def is_id(prefix: str, text: str) -> bool:
    """Whether ``text`` is a well-formed id of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and _ULID.fullmatch(tail) is not None


def to_uuid(text: str) -> uuid.UUID:
    """The UUID underneath an id. Raises ValueError for a malformed id."""
    return uuid.UUID(int=ulid_value(text.partition("_")[2]))


def from_uuid(prefix: str, value: uuid.UUID) -> str:
    """The id over a UUID."""
    return f"{prefix}_{ulid_text(value.int)}"


def first_id(prefix: str, at: datetime) -> str:
    """The smallest id that could be made at this moment: everything made before sorts before it."""
    return f"{prefix}_{ulid_text((to_micros(at) // 1000) << _RANDOM_BITS)}"


def made_at(text: str) -> datetime:
    """When an id was made, to the millisecond. Raises ValueError for a malformed id."""
    return from_micros((ulid_value(text.partition("_")[2]) >> _RANDOM_BITS) * 1000)
