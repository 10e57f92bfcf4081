"""Stripe's objects, and ours to send there, for its tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe

from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutIntent, HttpResponse, LineIntent, Notice, RefundIntent
from counterfoil.rails.mirror import Address, Customer, Discount, Price, Product
from counterfoil.rails.stripe import StripeRail, StripeSettings

RAIL = StripeRail("stripe-test")
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
DAY = 86_400
SECRET = "whsec_one"
SETTINGS = StripeSettings(api_key="sk_test_secret", webhook_secrets=(SECRET,), livemode=False)


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(status=status, headers=headers, body=json.dumps(body).encode())


def listed(*values: dict[str, Any], has_more: bool = False) -> HttpResponse:
    return answer({"object": "list", "data": values, "has_more": has_more})


def event(kind: str, value: dict[str, Any], **changes: Any) -> bytes:
    base = {"id": "evt_1", "object": "event", "type": kind, "created": AT, "livemode": False, "data": {"object": value}}
    return json.dumps({**base, **changes}).encode()


def read(kind: str, value: dict[str, Any], **changes: Any) -> Notice:
    body = event(kind, value, **changes)
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, timestamp=AT)
    return RAIL.read_webhook(SETTINGS, {"stripe-signature": header}, body, NOW)


def fact(kind: str, value: dict[str, Any], **changes: Any) -> Any:
    notice = read(kind, value, **changes)
    assert (notice.problem, notice.question, notice.is_known) == (None, None, True)
    (only,) = notice.facts
    return only


def session(**changes: Any) -> dict[str, Any]:
    base = {
        "id": "cs_1",
        "object": "checkout.session",
        "mode": "payment",
        "status": "complete",
        "payment_status": "paid",
        "amount_subtotal": 1500,
        "amount_total": 1500,
        "currency": "eur",
        "created": AT - 60,
        "customer": None,
        "payment_intent": "pi_1",
        "invoice": None,
        "metadata": {"checkout_id": "chk_1"},
        "total_details": {"amount_discount": 0, "amount_tax": 0, "amount_shipping": 0},
    }
    return {**base, **changes}


# -- Stripe's --


def subscription(**changes: Any) -> dict[str, Any]:
    recurring = {"interval": "month", "interval_count": 1}
    price = {"id": "price_1", "metadata": {"counterfoil_id": "pri_1"}, "recurring": recurring, "product": "prod_1"}
    item = {"id": "si_1", "price": price, "quantity": 2}
    period = {"current_period_start": AT, "current_period_end": AT + 30 * DAY}
    base = {
        "id": "sub_1",
        "object": "subscription",
        "status": "active",
        "currency": "eur",
        "created": AT,
        "start_date": AT,
        "customer": "cus_1",
        "items": {"data": [{**item, **period}]},
        "metadata": {"checkout_id": "chk_1"},
        "cancel_at_period_end": False,
        "collection_method": "charge_automatically",
        "discounts": [],
    }
    return {**base, **changes}


def invoice(**changes: Any) -> dict[str, Any]:
    details = {"subscription": "sub_1", "metadata": {"checkout_id": "chk_1"}}
    base = {
        "id": "in_1",
        "object": "invoice",
        "status": "paid",
        "currency": "eur",
        "customer": "cus_1",
        "number": "A-1",
        "billing_reason": "subscription_create",
        "total": 1071,
        "amount_due": 1071,
        "amount_paid": 1071,
        "total_taxes": [{"amount": 100}, {"amount": 71}],
        "parent": {"type": "subscription_details", "subscription_details": details},
        "hosted_invoice_url": "https://invoice.example/1",
        "invoice_pdf": "https://invoice.example/1.pdf",
        "status_transitions": {"paid_at": AT - 1},
        "lines": {"data": [proration(), period(0), period(1)]},
        "discounts": [],
        "metadata": {},
    }
    return {**base, **changes}


def period(number: int) -> dict[str, Any]:
    return {
        "amount": 1000,
        "description": "1 × Editor",  # noqa: RUF001
        "quantity": 1,
        "period": {"start": AT + number * DAY, "end": AT + (number + 1) * DAY},
        "parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": False}},
        "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "prod_1"}},
        "discount_amounts": [{"amount": 100}],
    }


def proration() -> dict[str, Any]:
    return {
        "amount": -500,
        "description": "Unused time",
        "quantity": 1,
        "period": {"start": AT, "end": AT + 90 * DAY},
        "parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": True}},
    }


def refund(**changes: Any) -> dict[str, Any]:
    base = {"id": "re_1", "object": "refund", "amount": 300, "currency": "eur", "status": "succeeded"}
    return {**base, "payment_intent": "pi_1", "charge": "ch_1", "metadata": {}, **changes}


OURS = {"refund_id": "rfd_1", "payment_reference": "in_1"}


# -- ours --


def product(**changes: Any) -> Product:
    base: dict[str, Any] = {
        "id": "pro_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "name": "Editor",
        "description": "Edits.",
        "image_url": "https://shop.example/editor.png",
        "tax_category": "saas",
        "active": True,
    }
    return Product(**{**base, **changes})


def price(**changes: Any) -> Price:
    base: dict[str, Any] = {
        "id": "pri_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "product_id": "pro_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "product_reference": "pro_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "name": "Monthly",
        "description": "",
        "asset": "EUR",
        "unit_amount": 900,
        "interval": "month",
        "interval_count": 1,
        "trial_days": 0,
        "country_overrides": (),
        "quantity_min": 1,
        "quantity_max": 10,
        "tax_mode": "account_setting",
        "active": True,
    }
    return Price(**{**base, **changes})


def discount(**changes: Any) -> Discount:
    base: dict[str, Any] = {
        "id": "dsc_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "description": "Spring",
        "code": "SPRING-1",
        "kind": "percentage",
        "amount": 1250,
        "asset": None,
        "recurring": True,
        "max_periods": 3,
        "usage_limit": 10,
        "per_customer_limit": None,
        "starts_at": None,
        "expires_at": None,
        "product_references": (),
        "price_references": (),
        "active": True,
    }
    return Discount(**{**base, **changes})


def customer(**changes: Any) -> Customer:
    base: dict[str, Any] = {
        "id": "cus_01j8zzzzzzzzzzzzzzzzzzzzz1",
        "name": "Ada",
        "email": "ada@shop.example",
        "locale": "de",
        "marketing_consent": False,
        "active": True,
    }
    return Customer(**{**base, **changes})


def line(**changes: Any) -> LineIntent:
    base: dict[str, Any] = {
        "price_id": "pri_1",
        "price_reference": None,
        "product_reference": None,
        "name": "Editor",
        "quantity": 1,
        "unit_amount": 1500,
        "total": 1500,
    }
    return LineIntent(**{**base, **changes})


def monthly(**changes: Any) -> LineIntent:
    return line(**{"unit_amount": 900, "total": 900, "interval": "month", "interval_count": 1, **changes})


def intent(*lines: LineIntent, **changes: Any) -> CheckoutIntent:
    now = datetime.now(UTC)
    base: dict[str, Any] = {
        "checkout_id": "chk_test",
        "amount": Money(sum(each.total for each in lines), "EUR"),
        "description": "Editor",
        "email": "ada@shop.example",
        "return_url": "https://shop.example/thanks",
        "now": now,
        "expires_at": now + timedelta(minutes=15),
        "lines": lines,
    }
    return CheckoutIntent(**{**base, **changes})


def refund_intent(name: str, payment: str, amount: int) -> RefundIntent:
    money = Money(amount, "EUR")
    return RefundIntent(refund_id=name, payment_reference=payment, amount=money, reason="asked", recipient=None)


KINDS: tuple[Any, ...] = ("product", "price", "discount", "customer")


def address() -> Address:
    return Address(
        id="add_1",
        customer_id="cus_1",
        customer_reference=None,
        description=None,
        first_line="1 Road",
        second_line=None,
        city="Bern",
        region=None,
        postal_code="3000",
        country="CH",
        active=True,
    )


def subjects() -> tuple[Any, ...]:
    return product(), price(), discount(), customer(address=address())
