"""From a BTCPay invoice and its payments to a report.

Source: the Greenfield specification 2.4.1, schemas ``InvoiceData``, ``InvoicePaymentMethodDataModel``
and ``Payment``; servers from 2.0 on speak it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

import msgspec

from counterfoil.kernel.clock import from_seconds
from counterfoil.kernel.money import MAX_AMOUNT, Money, UnknownAsset, decimals
from counterfoil.rails.base import CheckoutReport, CheckoutState, PaymentFact, RailUnavailable

BTC: Final = "BTC"
SAT: Final = "SAT"
BTC_PLACES: Final = 8

_STATES: Final[dict[str, CheckoutState]] = {
    "New": "open",
    "Processing": "processing",
    "Settled": "settled",
    "Expired": "expired",
    "Invalid": "failed",
}

# A .NET decimal, which is what BTCPay counts in, has 29 digits. Numbers within these bounds are computed
# with exactly; others are none of BTCPay's.
_MOST_DIGITS: Final = 40
_EXACT: Final = Context(prec=5 * _MOST_DIGITS)


class Invoice(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of ``InvoiceData`` we act on. Times are Unix seconds, amounts decimal strings."""

    id: str
    store_id: str
    amount: Decimal
    currency: str
    checkout_link: str
    created_time: int
    status: Literal["New", "Processing", "Settled", "Expired", "Invalid"]
    additional_status: str | None = None
    monitoring_expiration: int | None = None
    paid_amount: Decimal | None = None
    metadata: dict[str, Any] | None = None

    @property
    def order_id(self) -> str | None:
        """``metadata.orderId``: the checkout's id, if the invoice is one of ours."""
        value = (self.metadata or {}).get("orderId")
        return value if isinstance(value, str) and value else None


class Payment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One incoming transaction. ``value`` and ``fee`` are in the currency of its payment method."""

    id: str
    received_date: int
    value: Decimal
    fee: Decimal | None = None
    status: Literal["Invalid", "Processing", "Settled"]


class Method(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One way to pay the invoice. ``rate`` is the invoice's currency per unit of ``currency``."""

    payment_method_id: str
    currency: str | None = None
    rate: Decimal | None = None
    payments: list[Payment] = []


class _Piece(msgspec.Struct, frozen=True):
    """A payment, and what it counts for."""

    payment: Payment
    fact: PaymentFact


def build_report(rail: str, invoice: Invoice, methods: list[Method], answered_at: datetime | None) -> CheckoutReport:
    """What BTCPay says about one invoice.

    ``state`` is BTCPay's own verdict and settlement's authority. "Settled" means paid in full by
    BTCPay's rules, which include the store's payment tolerance: the payments' sum may be a little less
    than the amount asked, through that tolerance or through rounding each payment, and is no shortfall:
    ``accepted_short`` says by how much.

    ``payments`` holds what is proved:

    - every payment with status Settled, in whatever state the invoice is (part payments and late ones too);
    - of a Settled invoice also payments still Processing, oldest first, as far as they are needed to
      cover the amount: BTCPay's speed policy, or the seller's hand, has accepted them. Any beyond that
      wait for their own confirmation;
    - of an invoice that the seller marked Settled by hand, one fact ``<invoice id>:marked`` for whatever
      is missing: money the seller vouches for. BTCPay does not tell when it was marked, so it is dated
      by the answer (its ``Date``), else by the invoice's creation.

    ``final`` holds for Settled and Invalid invoices, and for Expired ones once ``answered_at`` is after
    ``monitoringExpiration`` (until then a late payment may revive them); but never while an uncounted
    payment is in flight. After that only the seller's hand can change an invoice (marking an Invalid one
    Settled, say), and BTCPay sends a webhook for it.

    Raises RailUnavailable when the two answers contradict each other: asked a moment apart, they may.
    """
    due = _minor(_number(invoice.amount), invoice.currency)
    pieces = _pieces(invoice, methods)
    settled = invoice.status == "Settled"
    marked = invoice.additional_status == "Marked"

    proved = [piece for piece in pieces if piece.payment.status == "Settled"]
    waiting = [piece for piece in pieces if piece.payment.status == "Processing"]
    missing = due.amount - sum(piece.fact.amount.amount for piece in proved)
    while settled and waiting and missing > 0:
        piece = waiting.pop(0)
        missing -= piece.fact.amount.amount
        proved.append(piece)
    if settled and not marked and due.amount > 0 and not proved:
        raise RailUnavailable("BTCPay says that the invoice is settled, but shows no payment")

    facts = [piece.fact for piece in sorted(proved, key=_age)]
    if settled and marked and missing > 0:
        facts.append(
            PaymentFact(
                reference=f"{invoice.id}:marked",
                amount=Money(missing, due.asset),
                occurred_at=answered_at or _time(invoice.created_time),
                details={"marked": True, "invoiceId": invoice.id},
            )
        )
    return CheckoutReport(
        rail=rail,
        reference=invoice.id,
        checkout_id=invoice.order_id,
        state=_STATES[invoice.status],
        payments=tuple(facts),
        accepted_short=max(0, missing) if settled and not marked else 0,
        final=not waiting and _over(invoice, answered_at),
    )


def read_date(header: str | None) -> datetime | None:
    """An HTTP ``Date`` (RFC 9110, 5.6.7); None when absent or unreadable."""
    if header is None:
        return None
    try:
        value = parsedate_to_datetime(header)
    except ValueError:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _over(invoice: Invoice, answered_at: datetime | None) -> bool:
    if invoice.status in {"Settled", "Invalid"}:
        return True
    if invoice.status != "Expired" or invoice.monitoring_expiration is None or answered_at is None:
        return False
    return answered_at > _time(invoice.monitoring_expiration)


def _pieces(invoice: Invoice, methods: list[Method]) -> list[_Piece]:
    """Every payment that counts for something, once, oldest first."""
    pieces: dict[str, _Piece] = {}
    for method in methods:
        for payment in method.payments:
            if payment.status == "Invalid" or payment.id in pieces:
                continue
            piece = _piece(invoice, method, payment)
            # Dust that its own fee eats up, or that rounds to nothing, is no payment.
            if piece.fact.amount.amount > 0:
                pieces[payment.id] = piece
    return sorted(pieces.values(), key=_age)


def _age(piece: _Piece) -> tuple[int, str]:
    return piece.payment.received_date, piece.payment.id


def _piece(invoice: Invoice, method: Method, payment: Payment) -> _Piece:
    """What one payment counts for: (value - fee) x rate, rounded half up to minor units.

    BTCPay adds ``fee`` to what is due when it charges the buyer for extra transactions, so it does not
    count towards the amount; its own ``paidAmount`` leaves it out too. When the invoice is in the
    currency it was paid in there is no rate to apply, and satoshis stay exact.
    """
    value, fee = _number(payment.value), _number(payment.fee or Decimal(0))
    rate = Decimal(1) if method.currency == invoice.currency else _number(method.rate or Decimal(0))
    if rate <= 0:
        raise RailUnavailable(f"BTCPay gives no rate for {method.payment_method_id}")
    with localcontext(_EXACT):
        net = (value - fee) * rate
    details = {
        "invoiceId": invoice.id,
        "paymentMethodId": method.payment_method_id,
        "value": f"{value:f}",
        "fee": f"{fee:f}",
        "rate": f"{rate:f}",
        "additionalStatus": invoice.additional_status,
        "paidAmount": None if invoice.paid_amount is None else f"{_number(invoice.paid_amount):f}",
    }
    fact = PaymentFact(
        reference=payment.id,
        amount=_minor(net, invoice.currency),
        occurred_at=_time(payment.received_date),
        details=details,
    )
    return _Piece(payment, fact)


def _minor(value: Decimal, currency: str) -> Money:
    """A decimal amount as Money; bitcoin in satoshis."""
    try:
        asset, places = (SAT, BTC_PLACES) if currency == BTC else (currency, decimals(currency))
    except UnknownAsset as error:
        raise RailUnavailable(f"BTCPay counts in a currency we do not know: {currency}") from error
    with localcontext(_EXACT):
        amount = int(value.scaleb(places).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if abs(amount) > MAX_AMOUNT:
        raise RailUnavailable("BTCPay gives an amount beyond all sense")
    return Money(amount, asset)


def _number(value: Decimal) -> Decimal:
    """The same number, if it is one that BTCPay can have meant."""
    if not value.is_finite() or value.adjusted() > _MOST_DIGITS or int(value.as_tuple().exponent) < -_MOST_DIGITS:
        raise RailUnavailable("BTCPay gives a number that makes no sense")
    return value


def _time(seconds: int) -> datetime:
    try:
        return from_seconds(seconds)
    except OverflowError as error:
        raise RailUnavailable(f"BTCPay gives a time that makes no sense: {seconds}") from error
