"""A stand-in for BTCPay Server 2.4.1: stateful, scriptable, on loopback only.

Its answers are shaped by the Greenfield specification (``btcpay-greenfield-2.4.1.json``); prism.py keeps
them honest. What the specification leaves open follows the public behavior of BTCPay Server: which
status an invoice takes when, that deliveries to one webhook keep their order, and when they are retried.

Besides BTCPay's own paths it has ``/_control/...``, which plays the buyer, the blockchain, the clock and
bad luck (see ``_CONTROLS`` at the end). A control call answers after every webhook it caused has been
delivered or given up, unless its body says ``"wait": false``.

    python tests/peers/btcpay_server.py --port 23000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import html
import json
import os
import re
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import uvicorn

API_KEY = "fake-api-key"
STORE_ID = "FakeStore9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpF"
METHODS = ("BTC-CHAIN", "BTC-LN")
SATOSHI = Decimal("0.00000001")
RETRY_SECONDS = (10, 60, 600, 600, 600, 600, 600, 600)
LOOPBACK = ("127.0.0.1", "::1", "localhost")

STORE = "btcpay.store."
IMPLIED = {
    f"{STORE}canmodifystoresettings": {
        f"{STORE}canviewstoresettings",
        f"{STORE}canmodifyinvoices",
        f"{STORE}webhooks.canmodifywebhooks",
    },
    f"{STORE}canmodifyinvoices": {f"{STORE}canviewinvoices", f"{STORE}cancreateinvoice"},
    f"{STORE}canviewstoresettings": {f"{STORE}canviewinvoices"},
}


class Problem(Exception):
    """An error answer, in one of BTCPay's two shapes."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(body)
        self.status = status
        self.body = body

    @classmethod
    def invalid(cls, path: str, message: str) -> Problem:
        return cls(400, [{"path": path, "message": message}])

    @classmethod
    def api(cls, status: int, code: str, message: str) -> Problem:
        return cls(status, {"code": code, "message": message})


@dataclass
class Page:
    """An HTML answer."""

    text: str


@dataclass
class Key:
    token: str
    permissions: list[str]
    label: str = "test"
    reuse: tuple[Any, ...] | None = None

    def allows(self, policy: str, store_id: str) -> bool:
        names: set[str] = set()
        for permission in self.permissions:
            name, _, scope = permission.partition(":")
            if scope in {"", store_id}:
                names.add(name)
        while extra := {child for name in names for child in IMPLIED.get(name, ())} - names:
            names |= extra
        return "unrestricted" in names or policy in names


@dataclass
class Payment:
    id: str
    method: str
    value: Decimal
    fee: Decimal
    received: int
    destination: str
    status: str = "Processing"

    def data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "receivedDate": self.received,
            "value": f"{self.value:f}",
            "fee": f"{self.fee:f}",
            "status": self.status,
            "destination": self.destination,
        }


@dataclass
class Invoice:
    id: str
    store_id: str
    amount: Decimal
    currency: str
    rate: Decimal
    metadata: dict[str, Any]
    checkout: dict[str, Any]
    link: str
    created: int
    expires: int
    monitored: int
    tolerance: Decimal
    status: str = "New"
    additional: str = "None"
    payments: list[Payment] = field(default_factory=list)

    @property
    def accounted(self) -> list[Payment]:
        return [payment for payment in self.payments if payment.status != "Invalid"]

    def net(self, *, settled_only: bool = False) -> Decimal:
        """Bitcoin that counts towards the amount."""
        wanted = {"Settled"} if settled_only else {"Settled", "Processing"}
        return sum((p.value - p.fee for p in self.payments if p.status in wanted), Decimal(0))

    @property
    def price(self) -> Decimal:
        """The amount in bitcoin, rounded up to a satoshi."""
        return (self.amount / self.rate).quantize(SATOSHI, rounding=ROUND_CEILING)

    def enough(self, net: Decimal) -> bool:
        return net * self.rate >= self.amount * (1 - self.tolerance / 100)

    @property
    def over(self) -> bool:
        return self.net() > self.price

    def markable(self) -> list[str]:
        statuses = []
        if self.status != "Settled":
            statuses.append("Settled")
        if self.status in {"New", "Processing", "Expired"} or (self.status, self.additional) == ("Settled", "Marked"):
            statuses.append("Invalid")
        return statuses

    def data(self) -> dict[str, Any]:
        digits = {"BTC": 8, "JPY": 0}.get(self.currency, 2)
        paid = (self.net() * self.rate).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN)
        return {
            "id": self.id,
            "storeId": self.store_id,
            "amount": f"{self.amount:f}",
            "paidAmount": f"{paid:f}",
            "currency": self.currency,
            "type": "Standard",
            "checkoutLink": self.link,
            "createdTime": self.created,
            "expirationTime": self.expires,
            "monitoringExpiration": self.monitored,
            "status": self.status,
            "additionalStatus": self.additional,
            "availableStatusesForManualMarking": self.markable(),
            "archived": False,
            "metadata": self.metadata,
            "checkout": self.checkout,
            "receipt": {"enabled": None, "showQR": None, "showPayments": None},
        }

    def method_data(self, method: str) -> dict[str, Any]:
        mine = [payment for payment in self.accounted if payment.method == method]
        fees = sum((payment.fee for payment in self.accounted), Decimal(0))
        return {
            "paymentMethodId": method,
            "currency": "BTC",
            "destination": f"destination-of-{self.id}",
            "paymentLink": f"bitcoin:destination-of-{self.id}",
            "rate": f"{self.rate:f}",
            "paymentMethodPaid": f"{sum((p.value for p in mine), Decimal(0)):f}",
            "totalPaid": f"{self.net() + fees:f}",
            "due": f"{self.price - self.net():f}",
            "amount": f"{self.price + fees:f}",
            "paymentMethodFee": f"{fees:f}",
            "payments": [payment.data() for payment in mine],
            "activated": True,
            "additionalData": {"keyPath": "0/1", "payjoinEnabled": False} if method == "BTC-CHAIN" else {},
        }


@dataclass
class Webhook:
    id: str
    store_id: str
    url: str
    secret: str
    enabled: bool
    redeliver: bool
    everything: bool
    events: list[str]
    queue: asyncio.Queue[tuple[Delivery, asyncio.Future[None]]] = field(default_factory=asyncio.Queue)
    worker: asyncio.Task[None] | None = None

    def wants(self, kind: str) -> bool:
        return self.enabled and (self.everything or kind in self.events)

    def data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "enabled": self.enabled,
            "automaticRedelivery": self.redeliver,
            "url": self.url,
            "authorizedEvents": {"everything": self.everything, "specificEvents": self.events},
        }


@dataclass
class Delivery:
    """One attempt: the signed bytes, and what became of them."""

    webhook: Webhook
    event: dict[str, Any]
    body: bytes
    headers: dict[str, str]
    status: str = "Pending"
    http_code: int | None = None
    error: str | None = None
    sent_at: int = 0

    @property
    def id(self) -> str:
        return str(self.event["deliveryId"])

    @property
    def retryable(self) -> bool:
        code = self.http_code
        return self.status != "HttpSuccess" and (code is None or code >= 500 or code in {408, 429})

    def data(self) -> dict[str, Any]:
        answer = {
            "id": self.id,
            "timestamp": self.event["timestamp"],
            "deliveryTime": self.sent_at,
            "httpCode": self.http_code,
            "status": self.status,
        }
        return answer if self.error is None else {**answer, "errorMessage": self.error}

    def view(self) -> dict[str, Any]:
        """For control: everything, so that a test can send the same bytes itself."""
        return {
            **self.data(),
            "webhookId": self.webhook.id,
            "url": self.webhook.url,
            "type": self.event["type"],
            "invoiceId": self.event.get("invoiceId"),
            "originalDeliveryId": self.event["originalDeliveryId"],
            "isRedelivery": self.event["isRedelivery"],
            "headers": self.headers,
            "body": self.body.decode(),
        }


@dataclass
class Fault:
    """Bad luck for the next requests whose ``METHOD path`` matches."""

    count: int
    status: int | None
    body: str | None
    match: re.Pattern[str]
    after: bool
    hang_up: bool


@dataclass
class Request:
    method: str
    path: str
    host: str
    authorization: str
    query: dict[str, list[str]]
    raw: bytes
    params: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.raw or b"{}")
        except ValueError as error:
            raise Problem.invalid("", "The body is not JSON.") from error
        if not isinstance(value, dict):
            raise Problem.invalid("", "The body is not an object.")
        return value

    def first(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


class HungUp(Exception):
    """The connection breaks before the answer is through."""


class FakeBTCPay:
    """All state of the server, and everything that can happen to it."""

    def __init__(self, *, retry_scale: float = 0.01) -> None:
        self.retry_scale = retry_scale
        self.client = httpx.AsyncClient(timeout=20, trust_env=False)
        self.offset = 0
        self.jobs: set[asyncio.Future[None]] = set()
        self.webhooks: dict[str, Webhook] = {}
        self.reset()

    def reset(self) -> None:
        for webhook in self.webhooks.values():
            if webhook.worker is not None:
                webhook.worker.cancel()
        for job in self.jobs:
            job.cancel()
        self.jobs.clear()
        self.offset = 0
        self.capture = False
        self.late_settles = True
        self.tolerance = Decimal(0)
        self.methods = list(METHODS)
        self.rates = {"BTC": Decimal(1), "USD": Decimal(100_000), "EUR": Decimal(90_000), "JPY": Decimal(15_000_000)}
        self.keys = {API_KEY: Key(API_KEY, ["unrestricted"])}
        self.stores = {STORE_ID: "Fake store"}
        self.invoices: dict[str, Invoice] = {}
        self.webhooks = {}
        self.deliveries: dict[str, Delivery] = {}
        self.faults: list[Fault] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=10_000)

    def now(self) -> int:
        return int(time.time()) + self.offset

    # -- who may what ------------------------------------------------------------------------------

    def key_of(self, request: Request) -> Key:
        scheme, _, token = request.authorization.partition(" ")
        key = self.keys.get(token.strip()) if scheme.lower() == "token" else None
        if key is None:
            raise Problem.api(401, "unauthenticated", "Authentication is required for accessing this endpoint")
        return key

    def need(self, request: Request, policy: str, store_id: str) -> None:
        if not self.key_of(request).allows(policy, store_id) or store_id not in self.stores:
            message = f"Insufficient API Permissions. Please use an API key with permission: {policy}"
            raise Problem(403, {"code": "missing-permission", "message": message, "missingPermission": policy})

    def current_key(self, request: Request) -> Any:
        key = self.key_of(request)
        return {"apiKey": key.token, "label": key.label, "permissions": key.permissions}

    def revoke_key(self, request: Request) -> Any:
        key = self.key_of(request)
        del self.keys[key.token]
        return {"apiKey": key.token, "label": key.label, "permissions": key.permissions}

    def authorize(self, request: Request) -> Any:
        """The consent page, with consent given at once."""
        redirect = request.first("redirect")
        permissions = request.query.get("permissions", [])
        if request.first("selectiveStores") == "true":
            permissions = [f"{name}:{STORE_ID}" if name.startswith(STORE) else name for name in permissions]
        identifier = request.first("applicationIdentifier")
        reuse = (identifier, urlsplit(redirect).netloc, tuple(permissions)) if identifier and redirect else None
        key = next((key for key in self.keys.values() if reuse and key.reuse == reuse), None)
        if key is None:
            key = Key(secrets.token_hex(20), permissions, request.first("applicationName", "application"), reuse)
            self.keys[key.token] = key
        if not redirect.startswith(("http://", "https://")):
            return Page("<!doctype html><title>API keys</title><p>The key was created.</p>")
        fields = [("apiKey", key.token), ("userId", "fake-user"), *(("permissions[]", p) for p in permissions)]
        inputs = "".join(f'<input type="hidden" name="{n}" value="{html.escape(v)}">' for n, v in fields)
        return Page(
            f'<!doctype html><title>Authorize</title><form method="post" action="{html.escape(redirect)}">{inputs}'
            "<button>Continue</button></form><script>document.forms[0].submit()</script>"
        )

    # -- stores ------------------------------------------------------------------------------------

    def list_stores(self, request: Request) -> Any:
        key = self.key_of(request)
        seen = [store_id for store_id in self.stores if key.allows(f"{STORE}canviewstoresettings", store_id)]
        return [self.store_data(store_id) for store_id in seen]

    def get_store(self, request: Request) -> Any:
        self.need(request, f"{STORE}canviewstoresettings", request.params["storeId"])
        return self.store_data(request.params["storeId"])

    def store_data(self, store_id: str) -> dict[str, Any]:
        return {
            "id": store_id,
            "name": self.stores[store_id],
            "defaultCurrency": "USD",
            "invoiceExpiration": 900,
            "monitoringExpiration": 86_400,
            "speedPolicy": "MediumSpeed",
            "paymentTolerance": int(self.tolerance),
            "archived": False,
        }

    def store_methods(self, request: Request) -> Any:
        self.need(request, f"{STORE}canviewstoresettings", request.params["storeId"])
        known = [{"paymentMethodId": method, "enabled": method in self.methods} for method in METHODS]
        return [method for method in known if method["enabled"] or request.first("onlyEnabled") != "true"]

    # -- invoices ----------------------------------------------------------------------------------

    def create_invoice(self, request: Request) -> Any:
        store_id = request.params["storeId"]
        self.need(request, f"{STORE}cancreateinvoice", store_id)
        body = request.json()
        try:
            amount = Decimal(str(body.get("amount", "")))
        except InvalidOperation as error:
            raise Problem.invalid("amount", "The amount is not a number.") from error
        currency = body.get("currency") or "USD"
        checkout = body.get("checkout") or {}
        minutes = Decimal(str(checkout.get("expirationMinutes") or 15))
        monitoring = Decimal(str(checkout.get("monitoringMinutes") or 1440))
        tolerance = Decimal(str(checkout.get("paymentTolerance") or self.tolerance))
        methods = checkout.get("paymentMethods") or self.methods
        if amount < 0:
            raise Problem.invalid("amount", "The amount should be 0 or more.")
        if minutes < Decimal("0.5"):
            raise Problem.invalid("checkout.expirationMinutes", "Expiration time must be at least 30 seconds")
        if not 0 <= tolerance <= 100:
            raise Problem.invalid("checkout.paymentTolerance", "PaymentTolerance can only be between 0 and 100 percent")
        if unknown := [index for index, method in enumerate(methods) if method not in METHODS]:
            raise Problem.invalid(f"checkout.paymentMethods[{unknown[0]}]", "Invalid PaymentMethodId")
        if currency not in self.rates:
            raise Problem.invalid("currency", "Invalid currency")
        if not methods:
            raise Problem.invalid("checkout.paymentMethods", "No payment method available for this invoice")
        now = self.now()
        identity = secrets.token_hex(11)
        expires = now + int(minutes * 60)
        invoice = Invoice(
            id=identity,
            store_id=store_id,
            amount=amount,
            currency=currency,
            rate=self.rates[currency],
            metadata=body.get("metadata") or {},
            checkout={
                "speedPolicy": checkout.get("speedPolicy") or "MediumSpeed",
                "paymentMethods": list(methods),
                "defaultPaymentMethod": checkout.get("defaultPaymentMethod") or methods[0],
                "expirationMinutes": int(minutes),
                "monitoringMinutes": int(monitoring),
                "paymentTolerance": int(tolerance),
                "redirectURL": checkout.get("redirectURL"),
                "redirectAutomatically": bool(checkout.get("redirectAutomatically")),
                "defaultLanguage": checkout.get("defaultLanguage"),
            },
            link=f"http://{request.host}/i/{identity}",
            created=now,
            expires=expires,
            monitored=expires + int(monitoring * 60),
            tolerance=tolerance,
        )
        self.invoices[identity] = invoice
        self.emit(invoice, "InvoiceCreated")
        return invoice.data()

    def list_invoices(self, request: Request) -> Any:
        store_id = request.params["storeId"]
        self.need(request, f"{STORE}canviewinvoices", store_id)
        orders, statuses = request.query.get("orderId"), request.query.get("status")
        found = [
            invoice
            for invoice in reversed(self.invoices.values())
            if invoice.store_id == store_id
            and (orders is None or invoice.metadata.get("orderId") in orders)
            and (statuses is None or invoice.status in statuses)
        ]
        skip, take = int(request.first("skip", "0")), int(request.first("take", str(len(found))))
        return [invoice.data() for invoice in found[skip : skip + take]]

    def invoice_of(self, request: Request, policy: str) -> Invoice:
        """The invoice in the path, which on newer paths names no store."""
        invoice = self.invoices.get(request.params["invoiceId"])
        store_id = request.params.get("storeId") or (invoice.store_id if invoice else STORE_ID)
        self.need(request, f"{STORE}{policy}", store_id)
        if invoice is None or invoice.store_id != store_id:
            raise Problem.api(404, "invoice-not-found", "The invoice was not found")
        return invoice

    def get_invoice(self, request: Request) -> Any:
        return self.invoice_of(request, "canviewinvoices").data()

    def invoice_methods(self, request: Request) -> Any:
        invoice = self.invoice_of(request, "canviewinvoices")
        return [invoice.method_data(method) for method in invoice.checkout["paymentMethods"]]

    def mark_invoice(self, request: Request) -> Any:
        invoice = self.invoice_of(request, "canmodifyinvoices")
        self.mark(invoice, request.json().get("status"))
        return invoice.data()

    def checkout_page(self, request: Request) -> Any:
        invoice = self.invoices.get(request.params["invoiceId"])
        if invoice is None:
            raise Problem.api(404, "invoice-not-found", "The invoice was not found")
        back = html.escape(str(invoice.checkout["redirectURL"] or "/"))
        return Page(
            f"<!doctype html><title>Invoice</title><h1>{html.escape(f'{invoice.amount:f} {invoice.currency}')}</h1>"
            f'<p id="status">{invoice.status}</p><a href="{back}">Return to the store</a>'
        )

    # -- webhooks ----------------------------------------------------------------------------------

    def webhook_of(self, request: Request) -> Webhook:
        webhook = self.webhooks.get(request.params["webhookId"])
        store_id = request.params.get("storeId") or (webhook.store_id if webhook else STORE_ID)
        self.need(request, f"{STORE}webhooks.canmodifywebhooks", store_id)
        if webhook is None or webhook.store_id != store_id:
            raise Problem.api(404, "webhook-not-found", "The webhook was not found")
        return webhook

    def list_webhooks(self, request: Request) -> Any:
        store_id = request.params["storeId"]
        self.need(request, f"{STORE}webhooks.canmodifywebhooks", store_id)
        return [webhook.data() for webhook in self.webhooks.values() if webhook.store_id == store_id]

    def create_webhook(self, request: Request) -> Any:
        store_id = request.params["storeId"]
        self.need(request, f"{STORE}webhooks.canmodifywebhooks", store_id)
        body = request.json()
        wanted = body.get("authorizedEvents") or {}
        if not str(body.get("url", "")).startswith(("http://", "https://")):
            raise Problem.invalid("url", "The url is invalid")
        webhook = Webhook(
            id=secrets.token_hex(11),
            store_id=store_id,
            url=body["url"],
            secret=body.get("secret") or secrets.token_hex(20),
            enabled=body.get("enabled", True),
            redeliver=body.get("automaticRedelivery", True),
            everything=wanted.get("everything", True),
            events=list(wanted.get("specificEvents") or []),
        )
        self.webhooks[webhook.id] = webhook
        return {**webhook.data(), "secret": webhook.secret}

    def get_webhook(self, request: Request) -> Any:
        return self.webhook_of(request).data()

    def update_webhook(self, request: Request) -> Any:
        webhook, body = self.webhook_of(request), request.json()
        wanted = body.get("authorizedEvents") or {}
        webhook.url = body.get("url", webhook.url)
        webhook.enabled = body.get("enabled", webhook.enabled)
        webhook.redeliver = body.get("automaticRedelivery", webhook.redeliver)
        webhook.everything = wanted.get("everything", webhook.everything)
        webhook.events = list(wanted.get("specificEvents", webhook.events))
        webhook.secret = body.get("secret") or webhook.secret
        return webhook.data()

    def delete_webhook(self, request: Request) -> Any:
        webhook = self.webhook_of(request)
        webhook.enabled = False
        del self.webhooks[webhook.id]

    def list_deliveries(self, request: Request) -> Any:
        webhook = self.webhook_of(request)
        sent = [d.data() for d in self.deliveries.values() if d.webhook is webhook and d.status != "Pending"]
        return sent[::-1][: int(request.first("count", str(len(sent))))]

    def redeliver_delivery(self, request: Request) -> Any:
        webhook = self.webhook_of(request)
        old = self.deliveries.get(request.params["deliveryId"])
        if old is None or old.webhook is not webhook:
            raise Problem.api(404, "webhookdelivery-not-found", "The webhook delivery was not found")
        fresh = self.sign(webhook, self.again(old))
        self.enqueue(fresh)
        return fresh.id

    # -- what happens to an invoice ----------------------------------------------------------------

    def pay(self, invoice: Invoice, body: dict[str, Any]) -> Payment:
        """A transaction arrives: the whole rest, or ``sats``; ``extra_sats`` on top."""
        method = body.get("method", "BTC-CHAIN")
        fee = int(body.get("fee_sats", 0)) * SATOSHI
        rest = max(invoice.price - invoice.net(), SATOSHI) + fee
        value = int(body["sats"]) * SATOSHI if "sats" in body else rest
        value += int(body.get("extra_sats", 0)) * SATOSHI
        where = f"{method}-{secrets.token_hex(8)}"
        identity = f"{secrets.token_hex(32)}-0" if method == "BTC-CHAIN" else secrets.token_hex(32)
        payment = Payment(identity, method, value, fee, self.now(), where)
        invoice.payments.append(payment)
        self.emit_payment(invoice, "InvoiceReceivedPayment", payment)
        if method != "BTC-CHAIN" or invoice.checkout["speedPolicy"] == "HighSpeed":
            self.confirm(invoice, payment)
        self.refresh(invoice)
        return payment

    def confirm(self, invoice: Invoice, payment: Payment) -> None:
        if payment.status == "Processing":
            payment.status = "Settled"
            self.emit_payment(invoice, "InvoicePaymentSettled", payment)

    def mark(self, invoice: Invoice, status: Any) -> None:
        if status not in invoice.markable():
            raise Problem.invalid(
                "status", "Status can only be marked to invalid or settled within certain conditions."
            )
        invoice.status, invoice.additional = status, "Marked"
        more = {"overPaid": False} if status == "Settled" else {}
        self.emit(invoice, f"Invoice{status}", manuallyMarked=True, **more)

    def refresh(self, invoice: Invoice) -> None:
        """Bring the status in line with payments and time."""
        now, net = self.now(), invoice.net()
        paid = bool(invoice.accounted) and invoice.enough(net)
        if invoice.status == "Processing" and not paid:
            invoice.status = "New"
        if invoice.status == "New":
            self.refresh_new(invoice, now, paid=paid)
        elif invoice.status == "Expired":
            self.refresh_expired(invoice, paid=paid)
        if invoice.status == "Processing":
            invoice.additional = "PaidOver" if invoice.over else "None"
            if invoice.enough(invoice.net(settled_only=True)):
                self.settle(invoice)
            elif now > invoice.monitored:
                invoice.status = "Invalid"
                self.emit(invoice, "InvoiceInvalid", manuallyMarked=False)

    def refresh_new(self, invoice: Invoice, now: int, *, paid: bool) -> None:
        if paid:
            invoice.status = "Processing"
            invoice.additional = "PaidOver" if invoice.over else "None"
            self.emit(invoice, "InvoiceProcessing", overPaid=invoice.over)
            return
        invoice.additional = "PaidPartial" if invoice.accounted else "None"
        if now >= invoice.expires:
            partly = invoice.additional == "PaidPartial"
            invoice.status = "Expired"
            self.emit(invoice, "InvoiceExpired", partiallyPaid=partly)
            if partly:
                self.emit(invoice, "InvoiceExpiredPaidPartial", afterExpiration=True)

    def refresh_expired(self, invoice: Invoice, *, paid: bool) -> None:
        if not paid:
            invoice.additional = "PaidPartial" if invoice.accounted else "None"
            return
        if invoice.additional != "PaidLate":
            invoice.additional = "PaidLate"
            self.emit(invoice, "InvoicePaidAfterExpiration", afterExpiration=True)
        if self.late_settles and invoice.enough(invoice.net(settled_only=True)):
            self.settle(invoice)

    def settle(self, invoice: Invoice) -> None:
        invoice.status = "Settled"
        self.emit(invoice, "InvoiceSettled", manuallyMarked=False, overPaid=invoice.over)

    def emit_payment(self, invoice: Invoice, kind: str, payment: Payment) -> None:
        late = invoice.status in {"Expired", "Invalid"}
        self.emit(invoice, kind, afterExpiration=late, paymentMethodId=payment.method, payment=payment.data())

    # -- deliveries --------------------------------------------------------------------------------

    def emit(self, invoice: Invoice, kind: str, **more: Any) -> None:
        for webhook in self.webhooks.values():
            if webhook.store_id == invoice.store_id and webhook.wants(kind):
                identity = secrets.token_hex(11)
                event = {
                    **more,
                    "invoiceId": invoice.id,
                    "storeId": invoice.store_id,
                    "metadata": invoice.metadata,
                    "deliveryId": identity,
                    "webhookId": webhook.id,
                    "originalDeliveryId": identity,
                    "isRedelivery": False,
                    "type": kind,
                    "timestamp": self.now(),
                }
                self.enqueue(self.sign(webhook, event))

    def sign(self, webhook: Webhook, event: dict[str, Any]) -> Delivery:
        body = json.dumps(event, indent=2).encode()
        digest = hmac.new(webhook.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "btcpay-sig": f"sha256={digest}"}
        delivery = Delivery(webhook, event, body, headers)
        self.deliveries[delivery.id] = delivery
        return delivery

    def again(self, old: Delivery) -> dict[str, Any]:
        return {**old.event, "deliveryId": secrets.token_hex(11), "isRedelivery": True}

    def enqueue(self, delivery: Delivery) -> None:
        if self.capture:
            return
        webhook, job = delivery.webhook, asyncio.get_running_loop().create_future()
        self.jobs.add(job)
        job.add_done_callback(self.jobs.discard)
        webhook.queue.put_nowait((delivery, job))
        if webhook.worker is None:
            webhook.worker = asyncio.create_task(self.work(webhook))

    async def work(self, webhook: Webhook) -> None:
        """Deliver in order; while one delivery is being retried, later ones wait."""
        while True:
            delivery, job = await webhook.queue.get()
            await self.send(delivery)
            for wait in RETRY_SECONDS if webhook.redeliver else ():
                if not delivery.retryable or not webhook.wants(delivery.event["type"]):
                    break
                await asyncio.sleep(wait * self.retry_scale)
                delivery = self.sign(webhook, self.again(delivery))
                await self.send(delivery)
            if not job.done():
                job.set_result(None)

    async def send(self, delivery: Delivery) -> None:
        delivery.sent_at = self.now()
        if urlsplit(delivery.webhook.url).hostname not in LOOPBACK:
            delivery.status, delivery.error = "Failed", "this server reaches loopback only"
            return
        try:
            url, headers = delivery.webhook.url, delivery.headers
            response = await self.client.post(url, content=delivery.body, headers=headers)
        except httpx.HTTPError as error:
            delivery.status, delivery.error = "Failed", repr(error)
            return
        delivery.http_code = response.status_code
        delivery.status = "HttpSuccess" if response.is_success else "HttpError"
        delivery.error = None if response.is_success else f"HTTP Error Code {response.status_code}"

    async def idle(self) -> None:
        """Until nothing is waiting to be delivered."""
        while self.jobs:
            await asyncio.wait(set(self.jobs))

    async def close(self) -> None:
        self.reset()
        await self.client.aclose()


# -- control: everything that is not BTCPay's own ------------------------------------------------------


class Control:
    """What a test can make happen."""

    def __init__(self, server: FakeBTCPay) -> None:
        self.server = server

    def invoice(self, request: Request) -> Invoice:
        invoice = self.server.invoices.get(request.params["invoiceId"])
        if invoice is None:
            raise Problem.api(404, "invoice-not-found", "The invoice was not found")
        return invoice

    async def answer(self, request: Request, invoice: Invoice, **more: Any) -> Any:
        if request.json().get("wait", True):
            await self.server.idle()
        return {**invoice.data(), **more}

    async def reset(self, _request: Request) -> Any:
        self.server.reset()

    async def config(self, request: Request) -> Any:
        body, server = request.json(), self.server
        server.rates |= {code: Decimal(str(rate)) for code, rate in body.get("rates", {}).items()}
        server.late_settles = body.get("late_settles", server.late_settles)
        server.capture = body.get("capture", server.capture)
        server.tolerance = Decimal(str(body.get("tolerance", server.tolerance)))
        server.methods = body.get("methods", server.methods)
        server.stores |= body.get("stores", {})
        server.retry_scale = float(body.get("retry_scale", server.retry_scale))

    async def add_key(self, request: Request) -> Any:
        key = Key(secrets.token_hex(20), list(request.json().get("permissions", [])))
        self.server.keys[key.token] = key
        return {"apiKey": key.token}

    async def revoke_key(self, request: Request) -> Any:
        del self.server.keys[request.json()["apiKey"]]

    async def advance(self, request: Request) -> Any:
        self.server.offset += int(request.json()["seconds"])
        for invoice in list(self.server.invoices.values()):
            self.server.refresh(invoice)
        await self.server.idle()
        return {"now": self.server.now()}

    async def fail(self, request: Request) -> Any:
        body = request.json()
        fault = Fault(
            count=int(body.get("count", 1)),
            status=body.get("status"),
            body=body.get("body"),
            match=re.compile(body.get("match", "")),
            after=bool(body.get("after", False)),
            hang_up=bool(body.get("hang_up", False)),
        )
        self.server.faults.append(fault)

    async def pay(self, request: Request) -> Any:
        invoice = self.invoice(request)
        payment = self.server.pay(invoice, request.json())
        return await self.answer(request, invoice, paymentId=payment.id)

    def chosen(self, request: Request, invoice: Invoice) -> list[Payment]:
        wanted = request.json().get("payment_id")
        return [payment for payment in invoice.payments if wanted in {None, payment.id}]

    async def confirm(self, request: Request) -> Any:
        invoice = self.invoice(request)
        for payment in self.chosen(request, invoice):
            self.server.confirm(invoice, payment)
        self.server.refresh(invoice)
        return await self.answer(request, invoice)

    async def double_spend(self, request: Request) -> Any:
        invoice = self.invoice(request)
        for payment in self.chosen(request, invoice):
            payment.status = "Invalid"
        self.server.refresh(invoice)
        return await self.answer(request, invoice)

    async def expire(self, request: Request) -> Any:
        invoice = self.invoice(request)
        invoice.expires = self.server.now()
        self.server.refresh(invoice)
        return await self.answer(request, invoice)

    async def end_monitoring(self, request: Request) -> Any:
        invoice = self.invoice(request)
        invoice.monitored = self.server.now() - 1
        self.server.refresh(invoice)
        return await self.answer(request, invoice)

    async def mark(self, request: Request) -> Any:
        invoice = self.invoice(request)
        self.server.mark(invoice, request.json()["status"])
        return await self.answer(request, invoice)

    async def invoices(self, _request: Request) -> Any:
        return [invoice.data() for invoice in self.server.invoices.values()]

    async def deliveries(self, _request: Request) -> Any:
        return [delivery.view() for delivery in self.server.deliveries.values()]

    async def redeliver(self, request: Request) -> Any:
        """The same news again, ``times`` times at once, past the queue."""
        server, old = self.server, self.server.deliveries[request.params["deliveryId"]]
        copies = [server.sign(old.webhook, server.again(old)) for _ in range(int(request.json().get("times", 1)))]
        if not server.capture:
            await asyncio.gather(*(server.send(copy) for copy in copies))
        return [copy.view() for copy in copies]

    async def drain(self, _request: Request) -> Any:
        await self.server.idle()

    async def seen(self, _request: Request) -> Any:
        return list(self.server.requests)


Handler = Callable[[Request], Any]
Route = tuple[str, re.Pattern[str], Handler]

_API: tuple[tuple[str, str, str], ...] = (
    ("GET", "/api-keys/authorize", "authorize"),
    ("GET", "/i/{invoiceId}", "checkout_page"),
    ("GET", "/api/v1/api-keys/current", "current_key"),
    ("DELETE", "/api/v1/api-keys/current", "revoke_key"),
    ("GET", "/api/v1/stores", "list_stores"),
    ("GET", "/api/v1/stores/{storeId}", "get_store"),
    ("GET", "/api/v1/stores/{storeId}/payment-methods", "store_methods"),
    ("GET", "/api/v1/stores/{storeId}/invoices", "list_invoices"),
    ("POST", "/api/v1/stores/{storeId}/invoices", "create_invoice"),
    ("GET", "/api/v1/stores/{storeId}/webhooks", "list_webhooks"),
    ("POST", "/api/v1/stores/{storeId}/webhooks", "create_webhook"),
)

# Newer servers know these without the store, older ones only with it; both work here.
_EITHER: tuple[tuple[str, str, str], ...] = (
    ("GET", "/invoices/{invoiceId}", "get_invoice"),
    ("GET", "/invoices/{invoiceId}/payment-methods", "invoice_methods"),
    ("POST", "/invoices/{invoiceId}/status", "mark_invoice"),
    ("GET", "/webhooks/{webhookId}", "get_webhook"),
    ("PUT", "/webhooks/{webhookId}", "update_webhook"),
    ("DELETE", "/webhooks/{webhookId}", "delete_webhook"),
    ("GET", "/webhooks/{webhookId}/deliveries", "list_deliveries"),
    ("POST", "/webhooks/{webhookId}/deliveries/{deliveryId}/redeliver", "redeliver_delivery"),
)

_CONTROLS: tuple[tuple[str, str, str], ...] = (
    ("POST", "/_control/reset", "reset"),
    # {rates, late_settles, capture, tolerance, methods, stores, retry_scale}; capture signs, but sends nothing
    ("POST", "/_control/config", "config"),
    ("POST", "/_control/keys", "add_key"),  # {permissions}
    ("POST", "/_control/keys/revoke", "revoke_key"),  # {apiKey}
    ("POST", "/_control/advance", "advance"),  # {seconds}: invoices expire, monitoring ends
    # {count, match: regex on "METHOD path", status, body, after: act first, hang_up: never answer}
    ("POST", "/_control/fail", "fail"),
    ("GET", "/_control/invoices", "invoices"),
    ("POST", "/_control/invoices/{invoiceId}/pay", "pay"),  # {sats | extra_sats, fee_sats, method}
    ("POST", "/_control/invoices/{invoiceId}/confirm", "confirm"),  # {payment_id}: default all
    ("POST", "/_control/invoices/{invoiceId}/double-spend", "double_spend"),  # {payment_id}
    ("POST", "/_control/invoices/{invoiceId}/expire", "expire"),
    ("POST", "/_control/invoices/{invoiceId}/end-monitoring", "end_monitoring"),
    ("POST", "/_control/invoices/{invoiceId}/mark", "mark"),  # {status}
    ("GET", "/_control/deliveries", "deliveries"),
    ("POST", "/_control/deliveries/{deliveryId}/redeliver", "redeliver"),  # {times}
    ("POST", "/_control/drain", "drain"),
    ("GET", "/_control/requests", "seen"),
)


class App:
    """The ASGI application."""

    def __init__(self, server: FakeBTCPay | None = None) -> None:
        self.server = server or FakeBTCPay()
        control = Control(self.server)
        paths = [*_API]
        for method, path, name in _EITHER:
            paths += [(method, f"/api/v1{path}", name), (method, f"/api/v1/stores/{{storeId}}{path}", name)]
        self.routes: list[Route] = [
            (method, _pattern(path), getattr(owner, name))
            for owner, table in ((self.server, paths), (control, _CONTROLS))
            for method, path, name in table
        ]

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(
            method=scope["method"],
            path=scope["path"],
            host=headers.get("host", "127.0.0.1"),
            authorization=headers.get("authorization", ""),
            query=parse_qs(scope["query_string"].decode(), keep_blank_values=True),
            raw=raw,
        )
        try:
            status, body = await self.handle(request)
        except HungUp:
            # Promise more than is sent: the server then closes the connection in the middle of the answer.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            return
        page = isinstance(body, Page)
        if isinstance(body, bytes):
            content = body
        elif page:
            content = body.text.encode()
        else:
            content = b"" if body is None else json.dumps(body).encode()
        kind = b"text/html; charset=utf-8" if page else b"application/json"
        date = formatdate(self.server.now(), usegmt=True).encode()
        head = [(b"content-length", str(len(content)).encode()), (b"date", date)]
        if body is not None:
            head.append((b"content-type", kind))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": content})

    async def handle(self, request: Request) -> tuple[int, Any]:
        if request.path.startswith("/_control/"):
            return await self.dispatch(request)
        fault = self.fault(request)
        if fault is None or fault.after:
            status, body = await self.dispatch(request)
        else:
            status, body = 0, None
        if fault is not None:
            status, body = fault.status or status, (fault.body or "").encode() if fault.status else body
        entry = {"method": request.method, "path": request.path, "query": request.query, "status": status}
        self.server.requests.append(entry)
        if fault is not None and fault.hang_up:
            raise HungUp
        return status, body

    async def dispatch(self, request: Request) -> tuple[int, Any]:
        for method, pattern, handler in self.routes:
            match = pattern.fullmatch(request.path) if method == request.method else None
            if match is not None:
                request.params = match.groupdict()
                try:
                    result = handler(request)
                    return 200, await result if asyncio.iscoroutine(result) else result
                except Problem as problem:
                    return problem.status, problem.body
        return 404, {"code": "not-found", "message": "There is nothing here"}

    def fault(self, request: Request) -> Fault | None:
        for fault in self.server.faults:
            if fault.count > 0 and fault.match.search(f"{request.method} {request.path}"):
                fault.count -= 1
                return fault
        return None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on loopback: whoever connects from now on is served, however early."""
    if host not in LOOPBACK:
        raise SystemExit(f"{host} is not a loopback address")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio sets TCP_NODELAY only where it is.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(128)
    return sock


async def serve(sock: socket.socket, parent: int, *, retry_scale: float, max_seconds: float) -> None:
    """Serve until told to stop, until ``max_seconds`` are over, or until the parent process is gone."""
    app = App(FakeBTCPay(retry_scale=retry_scale))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", date_header=False, server_header=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    deadline = time.monotonic() + max_seconds
    while not task.done():
        await asyncio.wait({task}, timeout=0.5)
        if os.getppid() != parent or time.monotonic() > deadline:
            server.should_exit = True
    await app.server.close()


@contextlib.contextmanager
def _socket(host: str, port: int) -> Iterator[socket.socket]:
    sock = listen(host, port)
    try:
        yield sock
    finally:
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for BTCPay Server, on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--retry-scale", type=float, default=0.01)
    parser.add_argument("--max-seconds", type=float, default=900)
    options = parser.parse_args()
    parent = os.getppid()
    with _socket(options.host, options.port) as sock:
        sys.stdout.write(f"http://{options.host}:{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        asyncio.run(serve(sock, parent, retry_scale=options.retry_scale, max_seconds=options.max_seconds))


if __name__ == "__main__":
    main()
