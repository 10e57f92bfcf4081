"""Checking what is sent to the stand-in for Paddle, field by field, with errors in Paddle's manner."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.peers.paddle_world import Problem, Row, parse

Check = Callable[[Any, str], list[tuple[str, str]]]
"""What is wrong with a value: fields and messages. Its second argument is the value's own path."""

CURRENCIES = frozenset(
    [
        "USD",
        "EUR",
        "GBP",
        "JPY",
        "AUD",
        "CAD",
        "CHF",
        "HKD",
        "SGD",
        "SEK",
        "ARS",
        "BRL",
        "CNY",
        "COP",
        "CZK",
        "DKK",
        "HUF",
        "ILS",
        "INR",
        "KRW",
        "MXN",
        "NOK",
        "NZD",
        "PLN",
        "RUB",
        "THB",
        "TRY",
        "TWD",
        "UAH",
        "VND",
        "ZAR",
    ]
)
TAX_CATEGORIES = (
    "digital-goods",
    "ebooks",
    "implementation-services",
    "professional-services",
    "saas",
    "software-programming-services",
    "standard",
    "training-services",
    "website-hosting",
)
UNSUPPORTED_COUNTRIES = frozenset({"BY", "CU", "IR", "KP", "RU", "SY"})


def read(body: Row, fields: Mapping[str, Check], required: tuple[str, ...] = (), *, closed: bool = True) -> Row:
    """The known fields that are there. Raises Problem with everything that is wrong."""
    errors = [("(root)", f"{name} is required") for name in required if name not in body]
    if closed:
        errors += [("(root)", f"Additional property {name} is not allowed") for name in body if name not in fields]
    for name, check in fields.items():
        if name in body:
            errors += check(body[name], name)
    if errors:
        raise Problem(400, "bad_request", "Invalid request.", errors)
    return {name: body[name] for name in fields if name in body}


def text(low: int = 0, high: int | None = None, pattern: str | None = None) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        if not isinstance(value, str):
            return [(path, "must be a string")]
        if len(value) < low:
            return [(path, f"min length of {low} required, provided value length {len(value)}")]
        if high is not None and len(value) > high:
            return [(path, f"max length of {high} exceeded, provided value length {len(value)}")]
        if pattern is not None and re.fullmatch(pattern, value) is None:
            return [(path, f"must match {pattern}")]
        return []

    return check


def entity(prefix: str) -> Check:
    return text(pattern=prefix + r"_[a-z\d]{26}")


def one_of(*values: str) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        return [] if value in values else [(path, "must be one of " + ", ".join(values))]

    return check


def nullable(inner: Check) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        return [] if value is None else inner(value, path)

    return check


def integer(low: int, high: int | None = None) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        if not isinstance(value, int) or isinstance(value, bool):
            return [(path, "must be a number")]
        if value < low or (high is not None and value > high):
            return [(path, f"must be between {low} and {high}" if high is not None else f"must be {low} or more")]
        return []

    return check


def many(inner: Check, low: int = 0, high: int | None = None) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        if not isinstance(value, list):
            return [(path, "must be an array")]
        if len(value) < low or (high is not None and len(value) > high):
            return [(path, f"must have {low} to {high or 'any number of'} items")]
        return [error for place, item in enumerate(value) for error in inner(item, f"{path}.{place}")]

    return check


def object_of(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, path: str) -> list[tuple[str, str]]:
        if not isinstance(value, dict):
            return [(path, "must be an object")]
        errors = [(f"{path}.{name}", "is required") for name in required if name not in value]
        for name, inner in fields.items():
            if name in value:
                errors += inner(value[name], f"{path}.{name}")
        return errors

    return check


def anything(value: Any, path: str) -> list[tuple[str, str]]:
    """Taken and ignored, such as what only Paddle sets."""
    return []


def boolean(value: Any, path: str) -> list[tuple[str, str]]:
    return [] if isinstance(value, bool) else [(path, "must be a boolean")]


def free_object(value: Any, path: str) -> list[tuple[str, str]]:
    return [] if isinstance(value, dict) else [(path, "must be an object")]


def moment(value: Any, path: str) -> list[tuple[str, str]]:
    try:
        parse(value)
    except (TypeError, ValueError):
        return [(path, "must be an RFC 3339 datetime")]
    return []


def country(value: Any, path: str) -> list[tuple[str, str]]:
    return text(pattern="[A-Z]{2}")(value, path)


def email(value: Any, path: str) -> list[tuple[str, str]]:
    errors = text(1, 320)(value, path)
    return errors or ([] if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value) else [(path, "must be a valid email")])


AMOUNT = text(1, 18, r"\d+")
CURRENCY = one_of(*sorted(CURRENCIES))
CUSTOM_DATA = nullable(free_object)
MONEY = object_of({"amount": AMOUNT, "currency_code": CURRENCY}, ("amount", "currency_code"))
CYCLE = object_of(
    {"interval": one_of("day", "week", "month", "year"), "frequency": integer(1)}, ("interval", "frequency")
)
PERIOD = object_of({"starts_at": moment, "ends_at": moment}, ("starts_at", "ends_at"))
QUANTITY_RANGE = object_of({"minimum": integer(1), "maximum": integer(1)}, ("minimum", "maximum"))
OVERRIDES = many(
    object_of({"country_codes": many(country, 1), "unit_price": MONEY}, ("country_codes", "unit_price")), high=250
)
STATUS = one_of("active", "archived")
