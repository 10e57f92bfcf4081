"""The sums of the stand-in for Paddle: lines, discounts, tax, fees and what adjustments leave.

Everything is in whole minor units. For every line and every sum: subtotal - discount + tax = total.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from tests.peers.paddle_world import Row

FEE_RATE = Decimal("0.05")
FEE_FIXED = 50
CHARGEBACK_FEE = 1500


def whole(value: Decimal) -> int:
    """Rounded half up."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """Shares of an amount in proportion, by largest remainder; their sum is the amount."""
    total = sum(weights)
    if total == 0:
        return [0 for _ in weights]
    shares = [amount * weight // total for weight in weights]
    by_rest = sorted(range(len(weights)), key=lambda place: -(amount * weights[place] % total))
    for place in by_rest[: amount - sum(shares)]:
        shares[place] += 1
    return shares


@dataclass(frozen=True)
class Line:
    """What one line comes to."""

    price: Row
    product: Row
    quantity: int
    gross: int
    """Units times price, in the price's own terms (with or without tax)."""
    tax_mode: Literal["external", "internal"]
    rate: Decimal
    off: int = 0
    """The discount, in the price's own terms."""
    proration: Row | None = None

    def totals(self) -> dict[str, int]:
        if self.tax_mode == "external":
            tax = whole((self.gross - self.off) * self.rate)
            return sums(self.gross, self.off, tax)
        total = self.gross - self.off
        subtotal, net = (whole(Decimal(value) / (1 + self.rate)) for value in (self.gross, total))
        return sums(subtotal, subtotal - net, total - net)

    def unit(self) -> Line:
        """The same for one unit."""
        count = max(abs(self.quantity), 1)
        gross, off = whole(Decimal(self.gross) / count), whole(Decimal(self.off) / count)
        return Line(self.price, self.product, 1, gross, self.tax_mode, self.rate, off, self.proration)

    def data(self, item_id: str) -> Row:
        return {
            "id": item_id,
            "price_id": self.price["id"],
            "quantity": self.quantity,
            "proration": self.proration,
            "tax_rate": f"{self.rate:f}",
            "unit_totals": texts(self.unit().totals()),
            "totals": texts(self.totals()),
            "product": self.product,
        }


def sums(subtotal: int, discount: int, tax: int) -> dict[str, int]:
    return {"subtotal": subtotal, "discount": discount, "tax": tax, "total": subtotal - discount + tax}


def texts(amounts: dict[str, int]) -> dict[str, str]:
    return {name: str(value) for name, value in amounts.items()}


def add_up(parts: Iterable[dict[str, int]], names: Sequence[str]) -> dict[str, int]:
    rows = list(parts)
    return {name: sum(row[name] for row in rows) for name in names}


def discounts(discount: Row | None, products: Sequence[tuple[Row, int, int]]) -> list[int]:
    """How much each line gets off: of (price, quantity, gross) under a discount."""
    if discount is None:
        return [0 for _ in products]
    limits = discount["restrict_to"]
    grosses = [
        gross if not limits or {price["id"], price["product_id"]} & set(limits) else 0 for price, _, gross in products
    ]
    if discount["type"] == "percentage":
        return [whole(gross * Decimal(discount["amount"]) / 100) for gross in grosses]
    amount = int(discount["amount"])
    if discount["type"] == "flat_per_seat":
        return [min(amount * quantity, gross) for (_, quantity, _), gross in zip(products, grosses, strict=True)]
    return spread(min(amount, sum(grosses)), grosses)


_TOTALS = ("subtotal", "discount", "tax", "total")


def details(lines: Sequence[tuple[str, Line]], currency: str, *, credit: int = 0, paid: bool = False) -> Row:
    """A transaction's ``details`` before it is completed; ``lines``: ids of its items, and the items."""
    total = add_up((line.totals() for _, line in lines), _TOTALS)
    to_balance = max(-total["total"], 0)
    used = min(credit, max(total["total"], 0))
    grand = max(total["total"], 0) - used
    rates = sorted({line.rate for _, line in lines})
    by_rate = [add_up((line.totals() for _, line in lines if line.rate == rate), _TOTALS) for rate in rates]
    totals = {
        **texts(total),
        "credit": str(used),
        "credit_to_balance": str(to_balance),
        "balance": "0" if paid else str(grand),
        "grand_total": str(grand),
        "grand_total_tax": str(max(total["tax"], 0)),
        "fee": None,
        "earnings": None,
        "currency_code": currency,
    }
    return {
        "tax_rates_used": [
            {"tax_rate": f"{rate:f}", "totals": texts(found)} for rate, found in zip(rates, by_rate, strict=True)
        ],
        "totals": totals,
        "adjusted_totals": _adjusted(totals, currency),
        "payout_totals": None,
        "adjusted_payout_totals": None,
        "line_items": [line.data(item_id) for item_id, line in lines],
    }


def _adjusted(totals: Row, currency: str) -> Row:
    kept = {name: totals[name] for name in ("subtotal", "tax", "total", "grand_total", "grand_total_tax")}
    subtotal = int(totals["subtotal"]) - int(totals["discount"])
    fees = {"fee": totals["fee"] or "0", "earnings": totals["earnings"] or "0", "retained_fee": "0"}
    return {**kept, "subtotal": str(subtotal), **fees, "currency_code": currency}


def complete(found: Row, payout_currency: str, exchange_rate: Decimal) -> None:
    """Add fee, earnings and payout to the details of a paid transaction."""
    totals = found["totals"]
    grand = int(totals["grand_total"])
    fee = whole(grand * FEE_RATE) + FEE_FIXED if grand else 0
    tax = min(int(totals["grand_total_tax"]), grand)
    totals |= {"balance": "0", "fee": str(fee), "earnings": str(grand - tax - fee)}
    found["adjusted_totals"] = _adjusted(totals, totals["currency_code"])
    rate = Decimal(1) if totals["currency_code"] == payout_currency else exchange_rate
    amounts = {name: value for name, value in totals.items() if name != "currency_code"}
    found["payout_totals"] = {
        **{name: exchanged(value, rate) for name, value in amounts.items()},
        "fee_rate": f"{FEE_RATE}",
        "exchange_rate": f"{rate:f}",
        "currency_code": payout_currency,
    }
    adjust(found, ())


def exchanged(amount: str, rate: Decimal) -> str:
    return str(whole(int(amount) * rate))


_ADJUSTED = ("subtotal", "tax", "total", "fee", "earnings")


def adjust(found: Row, adjustments: Iterable[Row]) -> None:
    """What approved adjustments leave of a completed transaction.

    Reversals give back what they reverse; warnings take nothing.
    """
    left = {name: int(value) for name, value in _adjusted(found["totals"], "").items() if name != "currency_code"}
    fees = 0
    for row in adjustments:
        fee = row["payout_totals"].get("chargeback_fee") if row["payout_totals"] else None
        fees += int(fee["amount"]) if fee else 0
        sign = {"refund": -1, "credit": -1, "chargeback": -1, "chargeback_reverse": 1, "credit_reverse": 1}
        if row["status"] not in {"approved", "reversed"} or row["action"] not in sign:
            continue
        amounts = {name: int(row["totals"][name]) for name in _ADJUSTED}
        amounts |= {"grand_total": amounts["total"], "grand_total_tax": amounts["tax"]}
        for name, value in amounts.items():
            left[name] += sign[row["action"]] * value
    found["adjusted_totals"] = {**texts(left), "currency_code": found["totals"]["currency_code"]}
    payout = found["payout_totals"]
    if payout is None:
        return
    rate = Decimal(payout["exchange_rate"])
    found["adjusted_payout_totals"] = {
        **{name: exchanged(str(left[name]), rate) for name in (*_ADJUSTED, "retained_fee")},
        "chargeback_fee": {"amount": str(fees), "original": None},
        "exchange_rate": payout["exchange_rate"],
        "currency_code": payout["currency_code"],
    }
