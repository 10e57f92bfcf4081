"""What every call to BTCPay's Greenfield API shares: addresses, headers, bodies and error answers.

Source: the Greenfield specification 2.4.1 (``btcpay-greenfield-2.4.1.json``), sections ``servers``,
``securitySchemes/API_Key``, ``ProblemDetails`` and ``ValidationProblemDetails``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from counterfoil.kernel.errors import Invalid
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable

T = TypeVar("T")

NO: Final = frozenset({400, 401, 403, 404, 422})
"""Answers to a change that asking again will not improve."""

UNKNOWN: Final = frozenset({400, 404, 422})
"""Answers to a question about money that asking again will not improve.

401 and 403 are left out on purpose: a revoked key says nothing about the invoice. The seller connects
again, and the question is answered then; until then no money may be written off.
"""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises when it is none, is not of the expected shape, or is nested absurdly deep."""

_LONGEST_WORDS: Final = 500


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _FieldProblem(msgspec.Struct):
    path: str | None = None
    message: str | None = None


def normalize_base_url(text: str) -> str:
    """The address of a BTCPay Server as it is stored: an http(s) origin, an optional path, no last slash.

    Raises Invalid (field ``base_url``) for anything else, such as credentials, a query or a fragment.
    """
    trimmed = text.strip()
    try:
        parts = urlsplit(trimmed)
        port = parts.port
    except ValueError as error:
        raise Invalid.field("base_url", "This is not a web address.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid.field("base_url", "The address must start with https:// or http:// and name a host.")
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in trimmed):
        raise Invalid.field("base_url", "The address must not contain spaces, backslashes or control characters.")
    if parts.username is not None or parts.password is not None:
        raise Invalid.field("base_url", "The address must not contain a user name or password.")
    if parts.query or parts.fragment or trimmed.endswith(("?", "#")):
        raise Invalid.field("base_url", "The address must end before any ? or #.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def address(base_url: str, *segments: str, query: Iterable[tuple[str, str]] = ()) -> str:
    """The address of one thing: each segment is escaped, so no id can lead elsewhere."""
    path = "".join(f"/{quote(segment, safe='')}" for segment in segments)
    pairs = urlencode(list(query))
    return f"{base_url}{path}?{pairs}" if pairs else f"{base_url}{path}"


def call(
    base_url: str,
    api_key: str,
    method: str,
    *segments: str,
    query: Iterable[tuple[str, str]] = (),
    body: Any = None,
) -> HttpRequest:
    """A request under ``/api/v1``, authorized as ``Authorization: token <key>`` (securitySchemes/API_Key)."""
    headers = {"authorization": f"token {api_key}", "accept": "application/json"}
    raw = b""
    if body is not None:
        headers["content-type"] = "application/json"
        raw = msgspec.json.encode(body)
    url = address(base_url, "api", "v1", *segments, query=query)
    return HttpRequest(method=method, url=url, headers=headers, body=raw)


def words(response: HttpResponse) -> str:
    """BTCPay's own explanation of a failure, in one line: either of its two shapes, else the status."""
    said = ""
    try:
        answer = msgspec.json.decode(response.body, type=list[_FieldProblem] | _Problem)
    except UNREADABLE:
        pass
    else:
        if isinstance(answer, list):
            said = "; ".join(": ".join(filter(None, (item.path, item.message))) for item in answer)
        else:
            said = answer.message or answer.code or ""
    said = " ".join(said.split())[:_LONGEST_WORDS]
    return f"BTCPay answered {response.status}: {said}" if said else f"BTCPay answered {response.status}"


def check(response: HttpResponse, refusals: frozenset[int] = NO) -> None:
    """Pass a success (2xx) through.

    Raises RailRefused with BTCPay's words for a status in ``refusals``; RailUnavailable for any other,
    408, 429 and 5xx among them, and redirects, which usually mean that the address is wrong.
    """
    if 200 <= response.status < 300:
        return
    if response.status in refusals:
        raise RailRefused(words(response))
    raise RailUnavailable(words(response))


def read(response: HttpResponse, kind: type[T], refusals: frozenset[int] = NO) -> T:
    """The body of a success as ``kind``. Raises as :func:`check`, and RailUnavailable when unreadable."""
    check(response, refusals)
    try:
        return msgspec.json.decode(response.body, type=kind)
    except UNREADABLE as error:
        raise RailUnavailable(f"BTCPay's answer cannot be read: {error}") from error
