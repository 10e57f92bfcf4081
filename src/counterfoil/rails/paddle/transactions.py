"""A transaction of Paddle's in our terms: what was paid, what that says of a checkout, and the bill that it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from counterfoil.rails.base import CheckoutReport, CheckoutState, PaymentFact
from counterfoil.rails.facts import InvoiceFact, InvoiceLine, InvoiceStatus
from counterfoil.rails.paddle.entities import LineItem, Transaction
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.wire import CHECKOUT_ID, OUR_ID, Json, custom, maybe_moment, minor, moment, money, shape

ASKED_FOR: Final = timedelta(days=7)
"""For how long a transaction that nobody pays is asked about. Paddle keeps it payable for ever; later money is told
by webhook only."""

_FIRST_ORIGINS: Final = frozenset({"api", "web"})
"""Transactions that a checkout makes. All others come of a subscription, and carry its ``custom_data``, so that our
checkout's id on them says where the subscription came from, not what is paid."""

_STATES: Final[dict[str, CheckoutState]] = {"paid": "settled", "completed": "settled", "canceled": "failed"}
_INVOICE_STATES: Final[dict[str, InvoiceStatus]] = {
    "draft": "draft",
    "ready": "open",
    "billed": "open",
    "past_due": "open",
    "paid": "paid",
    "completed": "paid",
    "canceled": "void",
}
_REASONS: Final = {
    "subscription_recurring": "subscription_cycle",
    "subscription_update": "subscription_update",
    "subscription_charge": "subscription_charge",
    "subscription_payment_method_change": "subscription_payment_method_change",
}
_MONEY: Final = ("totals", "adjusted_totals", "payout_totals", "adjusted_payout_totals", "tax_rates_used")
_ASKED: Final = ("subtotal", "discount", "tax", "total", "grand_total", "currency_code")
"""Of the totals, what nothing changes once the money is in: neither Paddle's books nor adjustments."""
_LINE: Final = ("id", "price_id", "quantity", "proration", "tax_rate", "unit_totals", "totals")
_REST: Final = (
    "status", "origin", "invoice_id", "customer_id", "address_id", "business_id", "collection_mode", "billing_details",
    "billing_period", "checkout", "custom_data", "created_at", "updated_at", "billed_at", "revised_at",
)  # fmt: skip


class Reading:
    """One transaction, read. Raises RailUnavailable when it makes no sense.

    Paddle charges tax by the buyer's country. In a price that has its tax in it (``internal``), the total is what we
    asked for; where tax comes on top (``external``), the total less tax is. Only that counts for our checkout: the
    rest is between Paddle and the tax office.
    """

    def __init__(self, settings: PaddleSettings, data: Json) -> None:
        self.data = data
        self.entity = shape(Transaction, data)
        self._modes = {item.price.id: item.price.tax_mode for item in self.entity.items}
        self._our_prices = {item.price.id: custom({"custom_data": item.price.custom_data}, OUR_ID)
                            for item in self.entity.items}  # fmt: skip
        self._mode = settings.tax_mode

    def is_external(self, line: LineItem) -> bool:
        """Whether tax comes on top of this line."""
        mode = self._modes.get(line.price_id or "", "account_setting")
        return (mode if mode in {"internal", "external"} else self._mode) == "external"

    def counted(self, line: LineItem) -> int:
        """What of a line counts as our price, in minor units."""
        total = minor(line.totals.total)
        return total - minor(line.totals.tax) if self.is_external(line) else total

    @property
    def amount(self) -> int:
        """What of the transaction counts as our prices, in minor units."""
        totals = self.entity.details.totals
        external = [line for line in self.entity.details.line_items if self.is_external(line)]
        if len(external) == len(self.entity.details.line_items):  # tax is rounded on the sum, not on each line
            none = not external and self._mode == "internal"
            return minor(totals.total) - (0 if none else minor(totals.tax))
        return minor(totals.total) - sum(minor(line.totals.tax) for line in external)

    @property
    def checkout_id(self) -> str | None:
        """Our checkout that this is the payment of."""
        return custom(self.data, CHECKOUT_ID) if self.entity.origin in _FIRST_ORIGINS else None

    def payment(self) -> PaymentFact | None:
        """The money, once it is in: the same in all that Paddle says of it from ``paid`` on."""
        entity = self.entity
        if not entity.is_paid:
            return None
        captured = [moment(at.captured_at) for at in entity.payments if at.status == "captured" and at.captured_at]
        when = max(captured, default=None) or maybe_moment(entity.billed_at) or moment(entity.created_at)
        return PaymentFact(
            reference=entity.id,
            amount=money(self.amount, entity.currency_code),
            occurred_at=when,
            payer=entity.customer_id,
            details=self._lasting(),
        )

    def report(self, rail: str, at: datetime | None) -> CheckoutReport:
        """What it says of the checkout; ``at``: when it said so, where that is known."""
        payment = self.payment()
        over = at is not None and at - moment(self.entity.created_at) > ASKED_FOR
        return CheckoutReport(
            rail=rail,
            reference=self.entity.id,
            checkout_id=self.checkout_id,
            state=_STATES.get(self.entity.status, "open"),
            payments=() if payment is None else (payment,),
            final=self.entity.status in _STATES or over,
        )

    def invoice(self, at: datetime) -> InvoiceFact | None:
        """The bill; None for a checkout that nobody has paid yet: Paddle has made none of it."""
        entity = self.entity
        if entity.billed_at is None and entity.subscription_id is None and not entity.is_paid:
            return None
        totals = entity.details.totals
        payment = self.payment()
        period = entity.billing_period
        return InvoiceFact(
            reference=entity.id,
            occurred_at=at,
            status=_INVOICE_STATES.get(entity.status, "open"),
            amount=money(minor(totals.total), entity.currency_code).amount,
            tax=minor(totals.tax),
            asset=entity.currency_code,
            number=entity.invoice_number,
            billing_reason=self._reason(),
            checkout_id=custom(self.data, CHECKOUT_ID),
            is_first=self.checkout_id is not None,
            subscription_reference=entity.subscription_id,
            customer_reference=entity.customer_id,
            discount_reference=entity.discount_id,
            period_start=None if period is None else moment(period.starts_at),
            period_end=None if period is None else moment(period.ends_at),
            payment=payment,
            paid_at=None if payment is None else payment.occurred_at,
            lines=tuple(self._line(line) for line in entity.details.line_items),
            details=self._details() | {key: self.data.get(key) for key in _REST},
        )

    def _reason(self) -> str:
        if self.entity.origin not in _FIRST_ORIGINS:
            return _REASONS.get(self.entity.origin, self.entity.origin)
        if any(item.price.billing_cycle is not None for item in self.entity.items):
            return "subscription_create"
        return "manual" if self.entity.collection_mode == "manual" else "purchase"

    def _line(self, line: LineItem) -> InvoiceLine:
        return InvoiceLine(
            price_reference=line.price_id,
            price_id=self._our_prices.get(line.price_id or ""),
            description=line.product.name if line.product is not None else "",
            quantity=line.quantity,
            amount=self.counted(line),
            subtotal=self._before_discount(line),
            proration=_is_part(line.proration),
        )

    def _before_discount(self, line: LineItem) -> int | None:
        """What of a line would count without its discount; None where Paddle says it only without the tax in it."""
        if minor(line.totals.discount) == 0:
            return self.counted(line)
        return minor(line.totals.subtotal) if line.totals.subtotal and self.is_external(line) else None

    def _lasting(self) -> Json:
        """What is known when the money comes, and stays so: fees, payouts and what is left are in the bill's."""
        details = self.data["details"]
        totals = details["totals"]
        return {
            "totals": {key: totals.get(key) for key in _ASKED},
            "tax_rates_used": details.get("tax_rates_used"),
            "line_items": self._lines(),
            "payments": self.data.get("payments") or [],
            "tax": totals.get("tax"),
        }

    def _lines(self) -> list[Json]:
        return [{key: line.get(key) for key in _LINE} for line in self.data["details"].get("line_items") or ()]

    def _details(self) -> Json:
        details = self.data["details"]
        totals = details["totals"]
        return {
            **{key: details.get(key) for key in _MONEY},
            "line_items": self._lines(),
            "payments": self.data.get("payments") or [],
            "invoice_number": self.entity.invoice_number,
            **{key: totals.get(key) for key in ("tax", "fee", "earnings")},
        }


def _is_part(proration: Any) -> bool:
    """Whether a line is for a part of a period; a renewal's are for the whole of it, at the rate 1."""
    rate = proration.get("rate") if isinstance(proration, dict) else None
    return isinstance(rate, str) and rate.partition(".")[0] != "1"
