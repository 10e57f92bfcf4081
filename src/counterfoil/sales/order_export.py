"""Orders as lines of CSV (RFC 4180): one order a line, amounts in major units, for spreadsheets. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from counterfoil.kernel.money import Money, to_decimal
from counterfoil.sales.types import Order

COLUMNS = (
    "id",
    "created_at",
    "status",
    "status_updated_at",
    "source",
    "purchase_reference",
    "customer_id",
    "email",
    "items",
    "asset",
    "amount",
    "refunded",
    "discount_total",
    "tax_total",
)
_AMOUNTS = frozenset({"amount", "refunded", "discount_total", "tax_total"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def header() -> bytes:
    """The first line: the names of the columns."""
    return _encoded([COLUMNS])


def lines(orders: Iterable[Order]) -> bytes:
    """One line for each order."""
    return _encoded([[_cell(order, name) for name in COLUMNS] for order in orders])


def _cell(order: Order, name: str) -> str:
    if name in _AMOUNTS:  # never below 0, so never mistaken for a formula
        return str(to_decimal(Money(getattr(order, name), order.asset)))
    if name == "items":
        return _tamed("; ".join(f"{item['quantity']} x {item['name']}" for item in order.items))
    value = getattr(order, name)
    if value is None:
        return ""
    if name.endswith("_at"):
        return str(value.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    return _tamed(str(value))


def _tamed(text: str) -> str:
    """What a buyer wrote must not be run by the spreadsheet that opens it: a quote in front makes it text."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _encoded(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
