"""What every call to Stripe's API shares: addresses, headers, forms, error answers, and reading objects.

Sources: Stripe's OpenAPI specification, version 2026-08-26.dahlia, and the pages "Errors", "Idempotent requests",
"Rate limits" and "Pagination" of its API reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from counterfoil.kernel.clock import from_seconds
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.mirror import RailBusy
from counterfoil.rails.stripe.settings import StripeSettings

Object = dict[str, Any]
"""One of Stripe's objects, as it said it."""

REFUSALS: Final = frozenset({400, 402, 404})
"""Answers that asking again will not improve.

401 and 403 are left out on purpose: a key that is refused proves nothing about what was made with it.
"""

OURS: Final = "counterfoil_id"
"""The metadata key that holds our id in Stripe's copy."""

VARIANT: Final = "counterfoil_variant"
"""The metadata key that only variants of a copy have: their own id (see :mod:`counterfoil.rails.stripe.variants`)."""

PAGE: Final = 100
"""How many objects a page of a list has at most."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises when it is none, is not of the expected shape, or is nested absurdly deep."""

_VARIANT_COUPON: Final = re.compile(r"(dsc_[0-9a-z]{26})-[0-9]+m")
_LONGEST_WORDS: Final = 500
_LONGEST_WAIT: Final = 3600.0

Form = Mapping[str, Any]
"""Parameters: text, numbers and booleans, nested in mappings and sequences. None leaves one out; "" clears it."""


def pairs(form: Form, prefix: str = "") -> list[tuple[str, str]]:
    """A form in the order it was built in, nested names in brackets: ``items[0][price]``, ``expand[]``."""
    found: list[tuple[str, str]] = []
    for key, value in form.items():
        found += _pairs(f"{prefix}[{key}]" if prefix else key, value)
    return found


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return pairs(value, name)
    if isinstance(value, list | tuple):
        return [
            pair
            for position, item in enumerate(value)
            for pair in _pairs(f"{name}[{position if isinstance(item, Mapping) else ''}]", item)
        ]
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, str(value))]


def call(
    settings: StripeSettings,
    method: str,
    *segments: str,
    query: Form | None = None,
    form: Form | None = None,
    key: str | None = None,
) -> HttpRequest:
    """A request under ``/v1``; each segment is escaped, so no id can lead elsewhere. ``key``: its Idempotency-Key."""
    headers = {
        "authorization": f"Bearer {settings.api_key}",
        "accept": "application/json",
        "stripe-version": settings.api_version,
    }
    raw = b""
    if method == "POST":
        headers["content-type"] = "application/x-www-form-urlencoded"
        raw = urlencode(pairs(form or {})).encode()
    if key is not None:
        headers["idempotency-key"] = key
    path = "".join(f"/{quote(segment, safe='')}" for segment in segments)
    asked = urlencode(pairs(query or {}))
    url = f"{settings.base_url}/v1{path}" + (f"?{asked}" if asked else "")
    return HttpRequest(method=method, url=url, headers=headers, body=raw)


# -- answers -----------------------------------------------------------------------------------------------------------


def error_of(response: HttpResponse) -> Object:
    """Stripe's ``error`` object; empty where the answer has none."""
    try:
        answer = msgspec.json.decode(response.body)
    except UNREADABLE:
        return {}
    return child(answer, "error") if isinstance(answer, dict) else {}


def words(response: HttpResponse) -> str:
    """Stripe's own explanation of a failure, in one line; else the status."""
    error = error_of(response)
    said = " ".join((text(error, "message") or text(error, "code") or "").split())[:_LONGEST_WORDS]
    reason = text(error, "decline_code")
    if said and reason:
        said = f"{said} ({reason})"
    return f"Stripe answered {response.status}: {said}" if said else f"Stripe answered {response.status}"


def check(response: HttpResponse, refusals: frozenset[int] = REFUSALS) -> None:
    """Pass a success (2xx) through.

    Raises RailRefused with Stripe's words for a status in ``refusals``; RailBusy for 429 (too many requests, or an
    object that another request holds: nothing was done); RailUnavailable for any other: 409, 5xx, a refused key, and
    an ``idempotency_error``, which says that an earlier, different request with the same key did arrive.
    """
    if 200 <= response.status < 300:
        return
    if response.status == 429:
        raise RailBusy(words(response), retry_after=_retry_after(response))
    if response.status in {401, 403}:
        raise RailUnavailable(f"the key was refused: {words(response)}")
    if response.status in refusals and text(error_of(response), "type") != "idempotency_error":
        raise RailRefused(words(response))
    raise RailUnavailable(words(response))


def read(response: HttpResponse, refusals: frozenset[int] = REFUSALS) -> Object:
    """The object in a success. Raises as :func:`check`, and RailUnavailable when unreadable."""
    check(response, refusals)
    try:
        return msgspec.json.decode(response.body, type=dict[str, Any])
    except UNREADABLE as error:
        raise RailUnavailable(f"Stripe's answer cannot be read: {error}") from error


def read_page(response: HttpResponse, refusals: frozenset[int] = REFUSALS) -> tuple[list[Object], str | None]:
    """A list's objects, and the id after which the next page starts (None: it was the last). As :func:`read`."""
    page = read(response, refusals)
    if not isinstance(page.get("data"), list):
        raise RailUnavailable("Stripe's answer is no list")
    found = objects(page, "data")
    return found, need(found[-1], "id") if found and page.get("has_more") is True else None


def answered_at(response: HttpResponse) -> datetime | None:
    """The answer's ``Date`` (RFC 9110, 5.6.7); None when absent or unreadable."""
    try:
        value = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _retry_after(response: HttpResponse) -> float | None:
    said = response.headers.get("retry-after", "")
    return min(float(said), _LONGEST_WAIT) if said.isascii() and said.isdecimal() else None


# -- objects -----------------------------------------------------------------------------------------------------------
# Stripe adds fields and values every month, and leaves out what is null: so what we do not need may be anything.


def text(data: Mapping[str, Any], key: str) -> str | None:
    """A text that is not empty, or None."""
    value = data.get(key)
    return value if isinstance(value, str) and value else None


def need(data: Mapping[str, Any], key: str) -> str:
    """A text that has to be there. Raises RailUnavailable."""
    value = text(data, key)
    if value is None:
        raise RailUnavailable(f"Stripe's {data.get('object', 'object')} has no {key}")
    return value


def number(data: Mapping[str, Any], key: str) -> int | None:
    """A whole number, or None."""
    value = data.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def need_number(data: Mapping[str, Any], key: str) -> int:
    """A whole number that has to be there. Raises RailUnavailable."""
    value = number(data, key)
    if value is None:
        raise RailUnavailable(f"Stripe's {data.get('object', 'object')} has no {key}")
    return value


def moment(data: Mapping[str, Any], key: str) -> datetime | None:
    """A time, given in seconds since 1970; None where there is none. Raises RailUnavailable for nonsense."""
    seconds = number(data, key)
    if not seconds:  # 0 means none, in ``evidence_details.due_by``
        return None
    try:
        return from_seconds(seconds)
    except OverflowError as error:
        raise RailUnavailable(f"Stripe gives a time that makes no sense: {seconds}") from error


def need_moment(data: Mapping[str, Any], key: str) -> datetime:
    """A time that has to be there. Raises RailUnavailable."""
    value = moment(data, key)
    if value is None:
        raise RailUnavailable(f"Stripe's {data.get('object', 'object')} has no {key}")
    return value


def child(data: Mapping[str, Any], *keys: str) -> Object:
    """An object inside, however deep; empty where there is none."""
    value: Any = data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def objects(data: Mapping[str, Any], key: str) -> list[Object]:
    """The objects of a plain list, or of one of Stripe's list objects."""
    value = data.get(key)
    if isinstance(value, dict):
        value = value.get("data")
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def reference(data: Mapping[str, Any], key: str) -> str | None:
    """The id of another object, which Stripe gives as its id or, expanded, as the whole object."""
    value = data.get(key)
    return text(value, "id") if isinstance(value, dict) else text(data, key)


def metadata(data: Mapping[str, Any]) -> dict[str, str]:
    """An object's metadata."""
    return {key: value for key, value in child(data, "metadata").items() if isinstance(value, str)}


def first(values: Iterable[str | None]) -> str | None:
    """The first that is there."""
    return next((value for value in values if value), None)


def coupon_of(data: Object) -> str | None:
    """The discount of a subscription or invoice: its coupon, or the one that its coupon is a variant of.

    None also where Stripe does not name it: not expanded, it gives the discount's id only.
    """
    for discount in (*objects(data, "discounts"), child(data, "discount")):
        coupon = first((reference(child(discount, "source"), "coupon"), reference(discount, "coupon")))
        if coupon:
            return plain_coupon(coupon)
    return None


def plain_coupon(name: str) -> str:
    """The coupon that is a discount's copy, for one of its variants; any other for itself.

    The name tells: discounts name their coupon by its id alone, without the metadata.
    """
    found = _VARIANT_COUPON.fullmatch(name)
    return name if found is None else found[1]
