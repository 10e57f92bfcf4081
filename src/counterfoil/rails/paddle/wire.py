"""What every call to Paddle's API shares: addresses, headers, envelopes, pages, errors, and how it writes values.

Source: Paddle's OpenAPI specification of 2025-05-27 (schemas ``meta``, ``pagination``, ``error``, ``money``,
``timestamp``) and the error reference at developer.paddle.com/errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from counterfoil.kernel.money import MAX_AMOUNT, Money, is_known
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.mirror import RailBusy
from counterfoil.rails.paddle.settings import PaddleSettings

T = TypeVar("T")
Json = dict[str, Any]

ALL_COPIES: Final = ("status", "active,archived")
"""Lists hold active objects only, unless asked for the others, too."""
OUR_ID: Final = "counterfoil_id"
"""Where the copy of an object has our id, in its ``custom_data``."""
CHECKOUT_ID: Final = "checkout_id"
"""Where a transaction, and the subscription that comes of it, have our checkout's id, in their ``custom_data``."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises when it is none, is not of the expected shape, or is nested absurdly deep."""

_BUSY: Final = frozenset(
    {
        "too_many_requests",
        "subscription_locked_renewal",  # half an hour around a renewal nothing can be changed
        "subscription_locked_processing",
        "adjustment_pending_refund_request",  # one refund at a time waits for Paddle's approval
    }
)
_BUSY_PREFIX: Final = "subscription_immediate_charge_"  # ..._limit_exceeded: 20 an hour, 100 a day
_UNANSWERED: Final = frozenset({401, 403, 408})
_LONGEST_WORDS: Final = 500
_AMOUNT: Final = re.compile(r"-?[0-9]{1,18}")


class _FieldProblem(msgspec.Struct):
    field: str | None = None
    message: str | None = None


class _Problem(msgspec.Struct):
    type: str | None = None
    code: str = ""
    detail: str = ""
    errors: list[_FieldProblem] | None = None


class _Failure(msgspec.Struct):
    error: _Problem


class _Pagination(msgspec.Struct):
    has_more: bool = False


class _Meta(msgspec.Struct):
    pagination: _Pagination = msgspec.field(default_factory=_Pagination)


class _One(msgspec.Struct):
    data: Json


class _Many(msgspec.Struct):
    data: list[Json]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Failure(msgspec.Struct, frozen=True):
    """Paddle's no."""

    code: str
    detail: str
    words: str
    """In one line, for a seller."""


def call(
    settings: PaddleSettings, method: str, *segments: str, query: Iterable[tuple[str, str]] = (), body: Any = None
) -> HttpRequest:
    """A request, authorized. Each segment is escaped, so no id can lead elsewhere."""
    headers = {"authorization": f"Bearer {settings.api_key}", "accept": "application/json", "paddle-version": "1"}
    raw = b""
    if body is not None:
        headers["content-type"] = "application/json"
        raw = msgspec.json.encode(body)
    path = "".join(f"/{quote(segment, safe='')}" for segment in segments)
    pairs = urlencode(list(query), safe=",[]:")
    url = f"{settings.base_url}{path}?{pairs}" if pairs else f"{settings.base_url}{path}"
    return HttpRequest(method=method, url=url, headers=headers, body=raw)


def failure(response: HttpResponse) -> Failure | None:
    """What Paddle says of a failure; None when the answer is not in its form."""
    try:
        said = msgspec.json.decode(response.body, type=_Failure).error
    except UNREADABLE:
        return None
    fields = (": ".join(filter(None, (item.field, item.message))) for item in said.errors or ())
    words = "; ".join(filter(None, (said.detail or said.code, *fields)))
    line = " ".join(words.split())[:_LONGEST_WORDS]
    return Failure(said.code, said.detail, f"Paddle answered {response.status}: {line}")


def check(response: HttpResponse) -> None:
    """Pass a success (2xx) through.

    Raises RailBusy for 429 and for locks that pass by themselves: nothing was done. Raises RailRefused, in Paddle's
    words, for any other 4xx that Paddle itself explains. Raises RailUnavailable for 401 and 403 (a revoked key proves
    nothing about what exists there), 5xx, redirects, and answers that are not in Paddle's form: a proxy's, say.
    """
    if 200 <= response.status < 300:
        return
    said = failure(response)
    words = said.words if said is not None else f"Paddle answered {response.status}"
    code = said.code if said is not None else ""
    if response.status == 429 or code in _BUSY or code.startswith(_BUSY_PREFIX):
        raise RailBusy(words, retry_after=_seconds(response.headers.get("retry-after")))
    if said is not None and 400 <= response.status < 500 and response.status not in _UNANSWERED:
        raise RailRefused(words)
    raise RailUnavailable(words)


def read(response: HttpResponse) -> Json:
    """The one object of a success. Raises as :func:`check`, and RailUnavailable when there is none."""
    check(response)
    return _decode(response, _One).data


def read_page(response: HttpResponse, key: str = "id") -> tuple[list[Json], str | None]:
    """The objects of a list, and the id after which its next page begins (None: it was the last). Raises as read.

    ``key``: what their id is called. The address of the next page that Paddle gives is not followed: it could lead
    elsewhere.
    """
    check(response)
    page = _decode(response, _Many)
    if not page.meta.pagination.has_more or not page.data:
        return page.data, None
    last = page.data[-1].get(key)
    if not isinstance(last, str) or not last:
        raise RailUnavailable("Paddle's list cannot be followed: its last object has no id")
    return page.data, last


def shape(kind: type[T], data: Any) -> T:
    """An object of Paddle's as ``kind``; what ``kind`` does not name is left out. Raises RailUnavailable."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RailUnavailable(f"Paddle says something that makes no sense: {error}") from error


def minor(text: str) -> int:
    """An amount: whole minor units, written as text. Raises RailUnavailable."""
    if _AMOUNT.fullmatch(text) is None or abs(int(text)) > MAX_AMOUNT:
        raise RailUnavailable(f"Paddle gives an amount that makes no sense: {text[:40]!r}")
    return int(text)


def money(amount: int, currency: str) -> Money:
    """An amount of a currency. Raises RailUnavailable for one that we do not know."""
    if not is_known(currency):
        raise RailUnavailable(f"Paddle counts in a currency that we do not know: {currency[:10]!r}")
    return Money(amount, currency)


def moment(text: str) -> datetime:
    """A time, cut to microseconds: Paddle writes the same one with six or nine digits. Raises RailUnavailable."""
    try:
        value = datetime.fromisoformat(text)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RailUnavailable(f"Paddle gives a time that makes no sense: {text[:40]!r}") from error


def maybe_moment(text: str | None) -> datetime | None:
    """The same, where there may be none."""
    return None if text is None else moment(text)


def write_moment(value: datetime) -> str:
    """A time for Paddle, to the second."""
    return value.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def answered_at(response: HttpResponse) -> datetime | None:
    """The answer's ``Date`` (RFC 9110, 6.6.1); None when absent or unreadable."""
    try:
        value = parsedate_to_datetime(response.headers.get("date", ""))
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def custom(data: Mapping[str, Any], key: str) -> str | None:
    """A text of ours in an object's ``custom_data``."""
    ours = data.get("custom_data")
    value = ours.get(key) if isinstance(ours, dict) else None
    return value if isinstance(value, str) and value else None


def _decode(response: HttpResponse, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.body, type=kind)
    except UNREADABLE as error:
        raise RailUnavailable(f"Paddle's answer cannot be read: {error}") from error


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` in seconds, the only form that Paddle documents."""
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text.strip()) else None
