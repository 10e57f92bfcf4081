"""What the stand-in for Paddle remembers, and what every part of it needs: ids, a clock, errors, pages.

Shapes follow Paddle's specification (``paddle-openapi-2025-05-27.yaml``), its webhook examples and its error
reference. Objects are plain dictionaries, as they go over the wire.
"""

from __future__ import annotations

import calendar
import json
import secrets
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import urlencode

Row = dict[str, Any]

API_KEY = "pdl_sdbx_apikey_01gtgztp8f4kek3yd4g1wrksa3_q6TGTJyvoIz7LDtXT65bX7_AQO"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DOCUMENTATION = "https://developer.paddle.com/errors"

KINDS = {
    "product": "pro",
    "price": "pri",
    "discount": "dsc",
    "customer": "ctm",
    "address": "add",
    "business": "biz",
    "transaction": "txn",
    "subscription": "sub",
    "adjustment": "adj",
    "setting": "ntfset",
    "notification": "ntf",
    "event": "evt",
    "log": "ntflog",
}
"""What is remembered, and how its ids begin."""


class Problem(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, detail: str, errors: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers: dict[str, str] = {}

    def body(self, request_id: str) -> Row:
        group = self.code.split("_")[0] + "s"
        folder = group if group[:-1] in KINDS else "shared"
        error: Row = {
            "type": "request_error" if self.status < 500 else "api_error",
            "code": self.code,
            "detail": self.detail,
            "documentation_url": f"{_DOCUMENTATION}/{folder}/{self.code}",
        }
        if self.errors:
            error["errors"] = [{"field": name, "message": message} for name, message in self.errors]
        return {"error": error, "meta": {"request_id": request_id}}


def invalid(name: str, message: str) -> Problem:
    """A field that is not as it has to be."""
    return Problem(400, "bad_request", "Invalid request.", [(name, message)])


@dataclass
class Request:
    method: str
    path: str
    base: str
    headers: dict[str, str]
    query: list[tuple[str, str]]
    raw: bytes
    params: dict[str, str] = field(default_factory=dict)

    def json(self) -> Row:
        """The body; Paddle takes none for an empty object."""
        if not self.raw:
            return {}
        try:
            value = json.loads(self.raw)
        except ValueError as error:
            raise Problem(400, "invalid_json", "Request body is not valid JSON.") from error
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise invalid("(root)", "must be an object")
        return value

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)

    def values(self, name: str) -> list[str] | None:
        """A comma-separated list; None when it is not asked for."""
        found = [part for key, value in self.query if key == name for part in value.split(",") if part]
        return found or None


@dataclass
class Answer:
    """``data`` in Paddle's envelope; None with 204."""

    data: Any
    status: int = 200
    pagination: Row | None = None


@dataclass(frozen=True)
class Listing:
    """How a list may be filtered, ordered and paged."""

    filters: tuple[str, ...] = ()
    moments: tuple[str, ...] = ()
    orders: tuple[str, ...] = ("id",)
    per_page: int = 50
    most: int = 200
    only_active: bool = False
    """Whether archived ones have to be asked for."""


def stamp(moment: datetime) -> str:
    """RFC 3339 with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def fine_stamp(moment: datetime) -> str:
    """With nanoseconds, as Paddle writes some moments of transactions and prices."""
    return stamp(moment)[:-1] + "238Z"


def parse(text: str) -> datetime:
    """A moment; without an offset it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def later(moment: datetime, cycle: Row) -> datetime:
    """One ``{interval, frequency}`` on; the last day of a month stays within its month."""
    interval, frequency = cycle["interval"], int(cycle["frequency"])
    if interval in {"day", "week"}:
        return moment + timedelta(days=frequency * (7 if interval == "week" else 1))
    months = moment.month - 1 + frequency * (12 if interval == "year" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))


class World:
    """The objects, the clock, what tests chose, and every event so far."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Row], None]] = []
        self.reset()

    def reset(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in KINDS}
        self.numbers = count(1)
        self.invoices = count(1)
        self.offset = timedelta(0)
        self.frozen: datetime | None = None
        self.last = datetime.min.replace(tzinfo=UTC)
        # What /_control/config changes.
        self.tax_rate = Decimal("0.2")
        self.account_tax_mode = "external"
        self.default_checkout_url: str | None = "https://shop.example/pay"
        self.auto_approve = False
        self.payout_currency = "USD"
        self.exchange_rate = Decimal(1)
        self.api_keys = {API_KEY}

    # -- ids and time ----------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The moment; never the same one twice."""
        moment = self.frozen or datetime.fromtimestamp(time.time(), UTC) + self.offset
        self.last = moment if moment > self.last else self.last + timedelta(microseconds=1)
        return self.last

    def set_clock(self, moment: datetime, *, freeze: bool = False) -> None:
        """Move the clock, also back."""
        self.offset = moment - datetime.now(UTC)
        self.frozen = moment if freeze else None
        self.last = moment - timedelta(microseconds=1)

    def at_least(self, moment: datetime) -> None:
        """Move the clock on to a moment, unless it is past it."""
        if self.now() < moment:
            self.set_clock(moment, freeze=self.frozen is not None)

    def token(self) -> str:
        """26 characters that sort by the moment, and by order within it."""
        value = (int(self.now().timestamp() * 1000) << 80) | (next(self.numbers) << 40) | secrets.randbits(40)
        return "".join(_ALPHABET[(value >> (5 * place)) & 31] for place in reversed(range(26)))

    def new_id(self, kind: str) -> str:
        return f"{KINDS.get(kind, kind)}_{self.token()}"

    # -- objects ---------------------------------------------------------------------------------------

    def get(self, kind: str, entity_id: str) -> Row:
        row = self.rows[kind].get(entity_id)
        if row is None:
            raise Problem(404, "not_found", f"Entity {entity_id} not found")
        return row

    def add(self, kind: str, row: Row) -> Row:
        self.rows[kind][row["id"]] = row
        return row

    def touch(self, row: Row) -> None:
        row["updated_at"] = (fine_stamp if row["id"].startswith(("txn", "pri_")) else stamp)(self.now())

    def emit(self, event_type: str, row: Row, **more: Any) -> Row:
        """Something happened to an object: remember it, and tell whoever listens."""
        data = {name: value for name, value in deepcopy(row).items() if name not in {"management_urls", "times_used"}}
        if event_type.startswith("transaction."):
            for item in data["items"]:
                item.pop("price_id", None)  # as in the specification's examples: the price alone names it
        event: Row = {
            "event_id": self.new_id("event"),
            "event_type": event_type,
            "occurred_at": stamp(self.now()),
            "data": {**data, **more},
        }
        self.rows["event"][event["event_id"]] = event
        for listener in self.listeners:
            listener(event)
        return event

    # -- lists -----------------------------------------------------------------------------------------

    def page(self, request: Request, rows: Iterable[Row], listing: Listing, key: str = "id") -> Answer:
        """One page of what the query asks for, newest first unless it says otherwise."""
        per_page = _number(request.first("per_page"), listing.per_page, listing.most)
        ordered = _ordered(list(rows), request.first("order_by") or "id[DESC]", listing, key)
        after = request.first("after")
        wanted = [row for row in ordered if _matches(row, request, listing)]
        total = len(wanted)
        if after is not None:
            if after not in (places := {row[key]: place for place, row in enumerate(ordered)}):
                raise invalid("after", f"{after} not found")
            wanted = [row for row in wanted if places[row[key]] > places[after]]
        found = wanted[:per_page]
        last = found[-1][key] if found else after
        query = [(name, value) for name, value in request.query if name != "after"]
        if last is not None:
            query.append(("after", last))
        pagination = {
            "per_page": per_page,
            "next": f"{request.base}{request.path}" + (f"?{urlencode(query)}" if query else ""),
            "has_more": len(wanted) > per_page,
            "estimated_total": total,
        }
        return Answer(found, pagination=pagination)


def _number(text: str | None, default: int, most: int) -> int:
    if text is None:
        return default
    if not text.isdigit() or text == "0":
        raise invalid("per_page", "must be a number above 0")
    return min(int(text), most)


def _ordered(rows: list[Row], order: str, listing: Listing, key: str) -> list[Row]:
    name, _, direction = order.partition("[")
    direction = direction.removesuffix("]") or "ASC"
    if name not in listing.orders or direction not in {"ASC", "DESC"}:
        raise invalid("order_by", f"cannot order by {order}")
    places = {row[key]: place for place, row in enumerate(rows)}
    if name == "id":
        return sorted(rows, key=lambda row: places[row[key]], reverse=direction == "DESC")
    return sorted(rows, key=lambda row: (row[name] or "", places[row[key]]), reverse=direction == "DESC")


_COMPARE: dict[str, Callable[[datetime, datetime], bool]] = {
    "": lambda a, b: a == b,
    "[LT]": lambda a, b: a < b,
    "[LTE]": lambda a, b: a <= b,
    "[GT]": lambda a, b: a > b,
    "[GTE]": lambda a, b: a >= b,
}


def _matches(row: Row, request: Request, listing: Listing) -> bool:
    return all(_is_wanted(row, name, request.values(name), listing) for name in listing.filters) and all(
        _is_within(row[name], name, suffix, text)
        for name in listing.moments
        for suffix in _COMPARE
        if (text := request.first(name + suffix)) is not None
    )


def _is_wanted(row: Row, name: str, wanted: list[str] | None, listing: Listing) -> bool:
    if wanted is not None:
        return _text(row.get(name)) in wanted
    if name == "type":
        return bool(row["type"] != "custom")  # items made for one transaction are listed only when asked for
    return bool(name != "status" or not listing.only_active or row["status"] == "active")


def _is_within(value: str | None, name: str, suffix: str, text: str) -> bool:
    try:
        bound = parse(text)
    except ValueError as error:
        raise Problem(400, "invalid_time_query_parameter", f"invalid time in {name}") from error
    return value is not None and _COMPARE[suffix](parse(value), bound)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
