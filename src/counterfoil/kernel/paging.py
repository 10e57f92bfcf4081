"""Lists page by keyset: a page names the last row it showed, and the next page starts after it.

A cursor is opaque to callers: the sort values of that row, as URL-safe base 64 of JSON. It is not a
secret and grants nothing; a cursor made up by a caller can only ask for a different place in a list
the caller may read anyway.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Generic, TypeVar

import msgspec

from counterfoil.kernel.errors import FieldError, Invalid

T = TypeVar("T")

_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what a BIGINT holds

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some rows of a list; ``next`` is the cursor of the following page, null on the last."""

    data: list[T]
    next: str | None = None


def encode_cursor(values: tuple[str | int, ...]) -> str:
    """The cursor that stands after a row with these sort values."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: tuple[type, ...]) -> tuple[str | int, ...]:
    """The sort values in a cursor. Raises Invalid (``invalid_cursor``) when it is not one of ours."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        values = msgspec.json.decode(raw, type=list[str | _Integer])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        values = []
    if tuple(type(value) for value in values) != kinds or any("\x00" in str(value) for value in values):
        error = FieldError("/after", "This cursor did not come from a list of this kind.")
        raise Invalid("after: not a cursor of this list", code="invalid_cursor", errors=(error,))
    return tuple(values)


def page_of(rows: list[T], limit: int, key: str = "id") -> Page[T]:
    """Cut ``limit + 1`` fetched rows, sorted by the attribute ``key``, into a page."""
    if len(rows) <= limit:
        return Page(rows)
    shown = rows[:limit]
    return Page(shown, encode_cursor((getattr(shown[-1], key),)))
