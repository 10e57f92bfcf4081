"""Rails that keep copies, measured: webhooks taken in, what is owed worked off, and a catalog imported."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks import stand_in
from benchmarks.load import request
from benchmarks.seed import settings_for
from benchmarks.server import resident_mb
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.catalog import benefits, prices, products
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.prices import NewPrice
from counterfoil.catalog.products import NewProduct
from counterfoil.catalog.types import LicenseSpec
from counterfoil.db.tx import Tx
from counterfoil.exchange import importing, rail_settings
from counterfoil.house import House, open_house
from counterfoil.kernel.clock import to_seconds
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import hmac_sha256
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.rails.mirror import Rate
from counterfoil.rails.stripe import StripeRail, StripeSettings
from counterfoil.sales import checkouts
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.types import Checkout
from counterfoil.settlement import links
from counterfoil.settlement.checkout import OpenCheckout, open_checkout
from counterfoil.settlement.settle import settle
from counterfoil.subscriptions import subscriptions

RAIL = "stripe"
_SECRET = "whsec_bench"  # of this run only
_BATCH = 200
_MONTH = timedelta(days=30)


class Hooks(msgspec.Struct, frozen=True):
    """What the runs send; signed for five minutes from now."""

    paid: list[bytes]
    """``checkout.session.completed``, each for an open checkout."""
    renewed: list[bytes]
    """``invoice.paid``, each for another period of a subscription."""
    checked_rate: float
    """How many of these one process checks and decodes a second, doing nothing else."""


class Drained(msgspec.Struct, frozen=True):
    """What became of owed operations."""

    rate: float
    """Operations a second without a limit of the rail's."""
    resident_half: float
    """MB when half was done."""
    resident_end: float
    limit: float
    """The rail's own limit, in requests a second."""
    limited_rate: float
    """Operations a second within it."""


def _settings(base_url: str) -> StripeSettings:
    return StripeSettings(base_url=base_url, api_key="sk_live_bench", webhook_secrets=(_SECRET,), livemode=True)


async def _connect(house: House, base_url: str = "http://127.0.0.1:9") -> None:
    await house.scope(DEFAULT_TENANT).run(rail_settings.save, house.master, RAIL, _settings(base_url), {})
    house.rails.forget(DEFAULT_TENANT, RAIL)


async def _disconnect(house: House) -> None:
    await house.scope(DEFAULT_TENANT).run(rail_settings.disconnect, RAIL)


# -- webhooks ----------------------------------------------------------------------------------------------------------


def prepare_hooks(url: str, folder: Path, *, sales: int, subscriptions: int, renewals: int) -> Hooks:
    """So many open checkouts, and subscriptions with so many renewals each, on a migrated database."""
    return asyncio.run(_prepare_hooks(url, folder, sales, subscriptions, renewals))


async def _prepare_hooks(url: str, folder: Path, sales: int, number: int, renewals: int) -> Hooks:
    settings = settings_for(url, folder, jobs=False)
    async with open_house(settings) as house:
        scope = house.scope(DEFAULT_TENANT)
        once, again = await scope.run(_catalog)
        await _connect(house)
        opened: list[Checkout] = []
        while len(opened) < sales:
            opened += await scope.run(_open, once, _BATCH)
        begun: list[tuple[str, str]] = []
        while len(begun) < number:
            begun += await scope.run(_subscribe, again, _BATCH)
        now = house.database.clock.now()
    paid = [_session_event(checkout, now) for checkout in opened]
    renewed = [_invoice_event(*one, period, now) for period in range(1, renewals + 1) for one in begun]
    return Hooks(
        [_signed(body, now) for body in paid],
        [_signed(body, now) for body in renewed],
        _check_alone(paid[:1000]),
    )


def _catalog(tx: Tx) -> tuple[str, str]:
    found = []
    for slug, terms in (
        ("bench-stripe", NewPrice(asset="USD", unit_amount=1_900)),
        ("bench-monthly", NewPrice(asset="USD", unit_amount=900, type="recurring", interval="month", interval_count=1)),
    ):
        product = products.create(tx, NewProduct(slug=slug, name=slug))
        benefits.put(tx, product.id, BenefitTerms(license=LicenseSpec(max_machines=3)))
        found.append(prices.create(tx, product.id, terms).id)
    links.link(tx, RAIL, "price", found[1], "price_bench")
    return found[0], found[1]


def _open(tx: Tx, price_id: str, count: int) -> list[Checkout]:
    wanted = OpenCheckout(
        lines=[WantedLine(price_id=price_id)],
        rail=RAIL,
        rail_renews=True,
        email="buyer@example.com",
        holds_for=timedelta(hours=2),
    )
    opened = [open_checkout(tx, wanted).checkout for _ in range(count)]
    return [checkouts.attach(tx, one.id, reference=f"cs_{one.id}", url="https://checkout.example/") for one in opened]


def _subscribe(tx: Tx, price_id: str, count: int) -> list[tuple[str, str]]:
    """Subscriptions whose first bill is paid: the names that Stripe has for them, and their checkouts."""
    made = []
    for checkout in _open(tx, price_id, count):
        assert checkout.rail_reference is not None
        money = PaymentFact(reference=f"in_{checkout.id}", amount=Money(900, "USD"), occurred_at=tx.now)
        settle(
            tx,
            CheckoutReport(
                rail=RAIL,
                reference=checkout.rail_reference,
                checkout_id=checkout.id,
                state="settled",
                payments=(money,),
                final=True,
            ),
        )
        begun = subscriptions.of_checkout(tx, checkout.id)
        assert begun is not None
        links.link(tx, RAIL, "subscription", begun.id, f"sub_{begun.id}")
        made.append((f"sub_{begun.id}", checkout.id))
    return made


def _event(name: str, kind: str, value: dict[str, Any], now: datetime) -> bytes:
    return msgspec.json.encode(
        {"id": f"evt_{name}", "object": "event", "api_version": "2026-08-26.dahlia", "created": to_seconds(now),
         "data": {"object": value}, "livemode": True, "pending_webhooks": 1, "type": kind,
         "request": {"id": f"req_{name}", "idempotency_key": None}}
    )  # fmt: skip


def _session_event(checkout: Checkout, now: datetime) -> bytes:
    value = {
        "id": checkout.rail_reference, "object": "checkout.session", "mode": "payment", "status": "complete",
        "payment_status": "paid", "amount_subtotal": checkout.amount, "amount_total": checkout.amount,
        "client_reference_id": checkout.id, "currency": "usd", "created": to_seconds(now), "customer": None,
        "customer_details": {"email": "buyer@example.com", "name": "Ada Lovelace", "phone": None, "tax_ids": [],
                             "address": {"city": None, "country": "US", "line1": None, "postal_code": "94107"}},
        "expires_at": to_seconds(now) + 3600, "invoice": None, "livemode": True, "locale": None,
        "metadata": {"checkout_id": checkout.id}, "payment_intent": f"pi_{checkout.id}",
        "payment_method_types": ["card"], "subscription": None, "success_url": "https://shop.example/thanks",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "url": None,
    }  # fmt: skip
    return _event(checkout.id, "checkout.session.completed", value, now)


def _invoice_event(subscription: str, checkout_id: str, period: int, now: datetime) -> bytes:
    name = f"{subscription}-{period}"
    start = to_seconds(now + _MONTH * period)
    line = {
        "id": f"il_{name}", "object": "line_item", "amount": 900, "currency": "usd", "description": "Bench",
        "quantity": 1, "period": {"start": start, "end": start + int(_MONTH.total_seconds())},
        "parent": {"type": "subscription_item_details",
                   "subscription_item_details": {"proration": False, "subscription": subscription}},
        "pricing": {"type": "price_details", "price_details": {"price": "price_bench", "product": "prod_bench"}},
        "discount_amounts": [],
    }  # fmt: skip
    value = {
        "id": f"in_{name}", "object": "invoice", "status": "paid", "currency": "usd", "customer": "cus_bench",
        "number": name, "billing_reason": "subscription_cycle", "total": 900, "amount_due": 900, "amount_paid": 900,
        "total_taxes": [], "discounts": [], "metadata": {},
        "parent": {"type": "subscription_details",
                   "subscription_details": {"subscription": subscription, "metadata": {"checkout_id": checkout_id}}},
        "hosted_invoice_url": "https://invoice.example/", "invoice_pdf": "https://invoice.example/pdf",
        "status_transitions": {"paid_at": to_seconds(now)}, "lines": {"object": "list", "data": [line]},
    }  # fmt: skip
    return _event(name, "invoice.paid", value, now)


def _signed(body: bytes, now: datetime) -> bytes:
    stamp = to_seconds(now)
    mac = hmac_sha256(_SECRET.encode(), f"{stamp}.".encode() + body)
    return request("POST", f"/v1/webhooks/{RAIL}", body, Stripe_Signature=f"t={stamp},v1={mac}")


def _check_alone(bodies: list[bytes]) -> float:
    started = time.perf_counter()
    for body in bodies:
        hmac_sha256(_SECRET.encode(), b"1700000000." + body)
        msgspec.json.decode(body)
    return len(bodies) / (time.perf_counter() - started)


# -- what is owed ------------------------------------------------------------------------------------------------------


def drain(url: str, folder: Path, count: int) -> Drained:
    """Owe copies of so many products to a rail that takes everything, and of some more to one with Stripe's limit."""
    with stand_in.running() as address, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drain(url, folder, address, count))


async def _drain(url: str, folder: Path, address: str, count: int) -> Drained:
    settings = settings_for(url, folder, jobs=False)
    async with open_house(settings) as house:
        await _connect(house, address)
        own, limit = StripeRail.rate, StripeRail().rate(_settings(address))
        StripeRail.rate = lambda _rail, _settings: Rate(1_000_000, 1, 8)  # type: ignore[method-assign]
        try:
            await house.pusher.go_round(DEFAULT_TENANT)  # what earlier runs owed
            seconds, half = 0.0, 0.0
            for part in range(2):
                await _owe(house, count // 2, f"drain-{part}")
                started = time.perf_counter()
                assert await house.pusher.go_round(DEFAULT_TENANT) == count // 2
                seconds += time.perf_counter() - started
                half = half or resident_mb(os.getpid())
            end = resident_mb(os.getpid())
        finally:
            StripeRail.rate = own  # type: ignore[method-assign]
        few = max(1, count // 25)
        await _owe(house, few, "drain-limited")
        started = time.perf_counter()
        done = await house.pusher.go_round(DEFAULT_TENANT)
        limited = done / (time.perf_counter() - started)
        await _disconnect(house)
        return Drained(count / seconds, half, end, limit.requests / limit.seconds, limited)


async def _owe(house: House, count: int, slug: str) -> None:
    for first in range(0, count, _BATCH):
        await house.scope(DEFAULT_TENANT).run(_make, slug, first, min(_BATCH, count - first))


def _make(tx: Tx, slug: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        products.create(tx, NewProduct(slug=f"{slug}-{number}", name=f"Product {number}"))


# -- importing ---------------------------------------------------------------------------------------------------------


def import_catalog(url: str, folder: Path, prices_wanted: int) -> float:
    """Import so many prices, of a hundredth as many products, from a rail with Stripe's limit; seconds."""
    many = max(1, prices_wanted // 100)
    with (
        stand_in.running(prices=prices_wanted, products=many) as address,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_import(url, folder, address, prices_wanted))


async def _import(url: str, folder: Path, address: str, prices_wanted: int) -> float:
    settings = settings_for(url, folder, jobs=False)
    async with open_house(settings) as house:
        await _connect(house, address)
        started = time.perf_counter()
        done = await importing.pull(house.scope(DEFAULT_TENANT), house.rails, house.pusher, RAIL, "price")
        seconds = time.perf_counter() - started
        assert done.prices == prices_wanted, done
        await _disconnect(house)
        return seconds
