"""BTCPay as a rail: invoices out, signed webhooks and invoice states in.

Only the paths nested under ``/stores/{storeId}`` are used: servers older than 2.4 know no others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from babel.numbers import list_currencies

from counterfoil.kernel.clock import from_seconds
from counterfoil.kernel.money import Money, to_decimal
from counterfoil.kernel.secrets import hmac_sha256, same
from counterfoil.rails.base import (
    AsksNothing,
    BadSignature,
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    Notice,
    OpenedCheckout,
    RailRefused,
    RailUnavailable,
    RefundsByHand,
)
from counterfoil.rails.btcpay.reports import BTC, BTC_PLACES, SAT, Invoice, Method, build_report, read_date
from counterfoil.rails.btcpay.settings import BTCPaySettings
from counterfoil.rails.btcpay.wire import UNKNOWN, UNREADABLE, call, read

SIGNATURE_HEADER: Final = "btcpay-sig"

_ASSETS: Final = frozenset({SAT, *list_currencies()})
_SIGNATURE: Final = re.compile(r"sha256=([0-9a-fA-F]{64})")
_TEST_ID: Final = "__test__"
_FOUND_AT_MOST: Final = 50

# Where money is, or may yet come, first.
_PREFERENCE: Final = ("Settled", "Processing", "New", "Expired", "Invalid")


class _Event(msgspec.Struct, rename="camel"):
    """What every webhook body carries (schemas ``WebhookEvent``, ``WebhookInvoiceEvent``)."""

    type: str
    delivery_id: str | None = None
    original_delivery_id: str | None = None
    timestamp: Any = None
    store_id: str | None = None
    invoice_id: str | None = None


class BTCPayRail(AsksNothing, RefundsByHand):
    """The translations for BTCPay Server's Greenfield API, 2.0 to 2.4."""

    name = "btcpay"

    def assets(self, settings: BTCPaySettings) -> frozenset[str] | None:
        """Satoshis, and every currency: which of them has a rate, BTCPay decides when asked."""
        return _ASSETS

    def open_request(self, settings: BTCPaySettings, intent: CheckoutIntent) -> HttpRequest:
        """``POST /stores/{storeId}/invoices`` (schema ``CreateInvoiceRequest``).

        The checkout's id goes into ``metadata.orderId``, which BTCPay indexes, so that
        :meth:`find_request` can find the invoice again. The time to pay is in whole minutes, rounded
        down, at least one. Raises RailRefused for a token or an amount of nothing (to BTCPay, no amount
        means "pay what you want").
        """
        if intent.amount.asset not in _ASSETS:
            raise RailRefused(f"BTCPay takes bitcoin and currencies, not {intent.amount.asset}")
        if intent.amount.amount <= 0:
            raise RailRefused("BTCPay takes amounts above zero only")
        amount, currency = _asked(intent.amount)
        metadata = {"orderId": intent.checkout_id, "itemDesc": intent.description}
        if intent.email is not None:
            metadata["buyerEmail"] = intent.email
        minutes = int((intent.expires_at - intent.now).total_seconds() // 60)
        checkout = {
            "expirationMinutes": max(1, minutes),
            "redirectURL": intent.return_url,
            "redirectAutomatically": True,
        }
        body = {"amount": amount, "currency": currency, "metadata": metadata, "checkout": checkout}
        return _call(settings, "POST", "invoices", body=body)

    def read_opened(self, settings: BTCPaySettings, response: HttpResponse) -> OpenedCheckout:
        """The created invoice.

        Raises RailRefused with BTCPay's words for 400, 401, 403, 404 and 422, and RailUnavailable for
        everything else that is no readable invoice: then it may or may not exist, and
        :meth:`find_request` tells.
        """
        invoice = read(response, Invoice)
        return _opened(settings, invoice)

    def find_request(self, settings: BTCPaySettings, checkout_id: str) -> HttpRequest:
        """``GET /stores/{storeId}/invoices?orderId=``."""
        query = [("orderId", checkout_id), ("take", str(_FOUND_AT_MOST))]
        return _call(settings, "GET", "invoices", query=query)

    def read_found(
        self, settings: BTCPaySettings, response: HttpResponse, checkout_id: str | None = None
    ) -> OpenedCheckout | None:
        """The invoice of that checkout, or None.

        If there are several, the one with money on it comes first, then the newest. Raises
        RailUnavailable for 401 and 403 too: a revoked key does not prove that nothing was created; and
        when the invoices belong to different checkouts, for then the server did not filter them.
        """
        invoices = read(response, list[Invoice], UNKNOWN)
        if not invoices:
            return None
        orders = {invoice.order_id for invoice in invoices}
        if len(orders) > 1 or None in orders or (checkout_id is not None and orders != {checkout_id}):
            raise RailUnavailable("BTCPay listed invoices of other checkouts")
        best = min(invoices, key=lambda found: (_PREFERENCE.index(found.status), -found.created_time, found.id))
        return _opened(settings, best)

    def read_webhook(self, settings: BTCPaySettings, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
        """Check ``BTCPay-Sig: sha256=<hex>``, the HMAC-SHA256 of the exact bytes, then read.

        The notice never carries a report: a webhook body has neither amount nor status, so BTCPay must
        be asked. ``event_id`` is the original delivery's id, which every redelivery repeats.
        ``reference`` is the invoice's id for any event named ``Invoice...``, published or not; None for
        other events (payouts, payment requests, subscribers), for other stores, and for the made-up ids
        (``__test__...``) that BTCPay's "test webhook" button sends. A time that makes no sense is
        replaced by ``now``, because nothing depends on it.

        Raises BadSignature also for a signed body that is no event.
        """
        found = _SIGNATURE.fullmatch(headers.get(SIGNATURE_HEADER, ""))
        if found is None:
            raise BadSignature("BTCPay-Sig is missing or not of the form sha256=<64 hex digits>")
        if not settings.webhook_secret:
            raise BadSignature("no webhook secret is set for this store")
        if not same(found[1].lower(), hmac_sha256(settings.webhook_secret.encode(), body)):
            raise BadSignature("BTCPay-Sig does not match the body")
        try:
            event = msgspec.json.decode(body, type=_Event)
        except UNREADABLE as error:
            raise BadSignature(f"the body is signed but is no BTCPay event: {error}") from error
        event_id = event.original_delivery_id or event.delivery_id
        if not event_id:
            raise BadSignature("the body is signed but names no delivery")
        ours = event.type.startswith("Invoice") and event.store_id == settings.store_id
        invoice_id = event.invoice_id or ""
        return Notice(
            event_id=event_id,
            type=event.type,
            occurred_at=_moment(event.timestamp, now),
            reference=invoice_id if ours and invoice_id and not invoice_id.startswith(_TEST_ID) else None,
        )

    def report_requests(self, settings: BTCPaySettings, reference: str) -> tuple[HttpRequest, ...]:
        """The invoice, then its payments: send them in this order, or a report may lag behind itself."""
        return (
            _call(settings, "GET", "invoices", reference),
            _call(settings, "GET", "invoices", reference, "payment-methods"),
        )

    def read_report(self, settings: BTCPaySettings, responses: tuple[HttpResponse, ...]) -> CheckoutReport:
        """What the two answers prove; the rules are at :func:`~counterfoil.rails.btcpay.reports.build_report`.

        Raises RailRefused for 404 (and 400, 422): the store has no such invoice. Raises RailUnavailable
        for 401 and 403 (the key was revoked; the seller must connect again, and the money is still
        there), for 408, 429 and 5xx, and for answers that make no sense.
        """
        if len(responses) != 2:
            raise RailUnavailable("a report needs both answers")
        invoice = read(responses[0], Invoice, UNKNOWN)
        methods = read(responses[1], list[Method], UNKNOWN)
        if invoice.store_id != settings.store_id:
            raise RailUnavailable("BTCPay answered with an invoice of another store")
        return build_report(self.name, invoice, methods, read_date(responses[0].headers.get("date")))


def _call(settings: BTCPaySettings, method: str, *segments: str, query: Any = (), body: Any = None) -> HttpRequest:
    path = ("stores", settings.store_id, *segments)
    return call(settings.base_url, settings.api_key, method, *path, query=query, body=body)


def _asked(amount: Money) -> tuple[str, str]:
    """Amount and currency as BTCPay reads them: a plain decimal string; satoshis as bitcoin."""
    if amount.asset == SAT:
        return f"{to_decimal(amount).scaleb(-BTC_PLACES):f}", BTC
    return f"{to_decimal(amount):f}", amount.asset


def _opened(settings: BTCPaySettings, invoice: Invoice) -> OpenedCheckout:
    # The link becomes a redirect of the buyer's browser.
    if not invoice.checkout_link.startswith(("https://", "http://")):
        raise RailUnavailable("BTCPay gives no address for its checkout page")
    if invoice.store_id != settings.store_id:
        raise RailUnavailable("BTCPay answered with an invoice of another store")
    return OpenedCheckout(reference=invoice.id, url=invoice.checkout_link)


def _moment(timestamp: Any, now: datetime) -> datetime:
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        try:
            return from_seconds(timestamp)
        except OverflowError:
            pass
    return now
