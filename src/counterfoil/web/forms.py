"""Reading what a form sent."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl

from litestar.exceptions import HTTPException

from counterfoil.http import csrf
from counterfoil.http.access import Asker, check_origin
from counterfoil.kernel.errors import Invalid, Malformed

_ATTEMPT = re.compile(r"[0-9a-f]{32}")
_MOST_FIELDS = 50


async def read_form(request: Asker, *, holds_a_secret: bool = False) -> dict[str, str]:
    """The fields of a form of ours, without the blanks around their values; the first of a name counts.

    ``holds_a_secret``: a field of it can be known to nobody who was not shown the form, so it needs no other token.
    Raises Malformed, Invalid; Forbidden for a form of another site's or of another browser; HTTPException (415) for
    anything but an ordinary form.
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
    if holds_a_secret:
        check_origin(request)
    else:
        csrf.check(request, fields)
    return fields


def new_attempt() -> str:
    """A name for one form as it was shown, so that sending it twice is one act."""
    return secrets.token_hex(16)


def is_attempt(text: str) -> bool:
    """Whether it could have come from :func:`new_attempt`."""
    return _ATTEMPT.fullmatch(text) is not None
