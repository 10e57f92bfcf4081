"""Reading what a form sent."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl

from litestar.exceptions import HTTPException

from counterfoil.http.access import Asker
from counterfoil.kernel.errors import Invalid, Malformed

_ATTEMPT = re.compile(r"[0-9a-f]{32}")
_MOST_FIELDS = 50


async def read_form(request: Asker) -> dict[str, str]:
    """The fields of a form, without the blanks around their values; the first of a name counts.

    Raises Malformed, Invalid; HTTPException (415) for anything but an ordinary form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException("Send an HTML form.", status_code=415)
    body = (await request.body()).decode(errors="replace")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Malformed("The form has too many fields.") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if "\x00" in value:
            raise Invalid("The NUL character is not allowed anywhere.", code="nul_character")
        fields.setdefault(name, value.strip())
    return fields


def new_attempt() -> str:
    """A name for one form as it was shown, so that sending it twice is one act."""
    return secrets.token_hex(16)


def is_attempt(text: str) -> bool:
    """Whether it could have come from :func:`new_attempt`."""
    return _ATTEMPT.fullmatch(text) is not None
