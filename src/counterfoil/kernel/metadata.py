"""Objects of a caller's own, which we keep and never read."""

from __future__ import annotations

from typing import Any

import msgspec

from counterfoil.kernel.errors import Invalid

_MOST_BYTES = 10 * 1024


def check_metadata(field: str, value: dict[str, Any]) -> dict[str, Any]:
    """The object, if it is at most 10 KiB of JSON without a character that databases cannot store. Raises Invalid."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise Invalid.field(field, "must be valid Unicode") from error
    if len(encoded) > _MOST_BYTES:
        raise Invalid.field(field, "must be at most 10 KiB of JSON")
    if b"\\u0000" in encoded:
        raise Invalid.field(field, "must not contain the NUL character")
    return value
