"""Subjects and intents for the tests of Paddle's rail."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from counterfoil.kernel.ids import IdMaker
from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutIntent, HttpRequest, HttpResponse, LineIntent, RefundIntent
from counterfoil.rails.mirror import Address, Business, Customer, Discount, Price, Product
from counterfoil.rails.paddle import PaddleRail, PaddleSettings

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RAIL = PaddleRail("paddle-test")
SECRET = "pdl_ntfset_01hs0t3tw21j988db1pam5xg8m_" + "s" * 32
SETTINGS = PaddleSettings(
    api_key="pdl_sdbx_apikey_secret", livemode=False, webhook_secrets=(SECRET,), notification_setting_id="ntfset_1"
)
EXTERNAL = msgspec.structs.replace(SETTINGS, tax_mode="external")


def new_id(prefix: str, at: datetime = NOW) -> str:
    return IdMaker(at)(prefix)


def with_defaults(kind: type[Any], base: dict[str, Any], changes: dict[str, Any]) -> Any:
    return kind(**{**base, **changes})


def product(**changes: Any) -> Product:
    base = {
        "id": new_id("pro"), "name": "Éditeur", "description": "A text editor",
        "image_url": "https://shop.example/e.png", "tax_category": "standard", "active": True,
        "metadata": {"line": "desktop"},
    }  # fmt: skip
    return with_defaults(Product, base, changes)  # type: ignore[no-any-return]


def price(**changes: Any) -> Price:
    base = {
        "id": new_id("pri"), "product_id": new_id("pro"), "product_reference": "pro_" + "0" * 26, "name": "Monthly",
        "description": "Paid every month", "asset": "USD", "unit_amount": 1_200, "interval": "month",
        "interval_count": 1, "trial_days": 0, "country_overrides": ((("DE", "AT"), 1_100),),
        "quantity_min": 1, "quantity_max": 50, "tax_mode": "account_setting", "active": True,
    }  # fmt: skip
    return with_defaults(Price, base, changes)  # type: ignore[no-any-return]


def discount(**changes: Any) -> Discount:
    base = {
        "id": new_id("dsc"), "description": "Margin", "code": None, "kind": "percentage", "amount": 3_000,
        "asset": None, "recurring": True, "max_periods": None, "usage_limit": None, "per_customer_limit": None,
        "starts_at": None, "expires_at": None, "product_references": (), "price_references": (), "active": True,
    }  # fmt: skip
    return with_defaults(Discount, base, changes)  # type: ignore[no-any-return]


def customer(**changes: Any) -> Customer:
    base = {
        "id": new_id("cus"), "name": "Ada", "email": "ada@example.com", "locale": "en", "marketing_consent": False,
        "active": True,
    }  # fmt: skip
    return with_defaults(Customer, base, changes)  # type: ignore[no-any-return]


def address(**changes: Any) -> Address:
    base = {
        "id": new_id("adr"), "customer_id": new_id("cus"), "customer_reference": "ctm_" + "0" * 26, "description": None,
        "first_line": "1 Main St", "second_line": None, "city": "Bern", "region": None, "postal_code": "3000",
        "country": "CH", "active": True,
    }  # fmt: skip
    return with_defaults(Address, base, changes)  # type: ignore[no-any-return]


def business(**changes: Any) -> Business:
    base = {
        "id": new_id("biz"), "customer_id": new_id("cus"), "customer_reference": "ctm_" + "0" * 26, "name": "Ada AG",
        "company_number": None, "tax_identifier": "CHE123456789", "contacts": (("Ada", "ada@example.com"),),
        "active": True,
    }  # fmt: skip
    return with_defaults(Business, base, changes)  # type: ignore[no-any-return]


def line(**changes: Any) -> LineIntent:
    base = {
        "price_id": new_id("pri"), "price_reference": None, "product_reference": None, "name": "Éditeur", "quantity": 1,
        "unit_amount": 1_200, "total": 1_200,
    }  # fmt: skip
    return with_defaults(LineIntent, base, changes)  # type: ignore[no-any-return]


def intent(*lines: LineIntent, **changes: Any) -> CheckoutIntent:
    now = changes.pop("now", NOW)
    base = {
        "checkout_id": new_id("chk", now),
        "amount": Money(sum(0 if at.trial_days else at.total for at in lines), "USD"),
        "description": "Éditeur", "email": None, "return_url": "https://shop.example/thanks", "now": now,
        "expires_at": now + timedelta(minutes=15), "lines": lines,
    }  # fmt: skip
    return with_defaults(CheckoutIntent, base, changes)  # type: ignore[no-any-return]


def refund(payment: str, amount: int, **changes: Any) -> RefundIntent:
    base = {
        "refund_id": new_id("rfd"), "payment_reference": payment, "amount": Money(amount, "USD"),
        "reason": "did not like it", "recipient": None,
    }  # fmt: skip
    return with_defaults(RefundIntent, base, changes)  # type: ignore[no-any-return]


def answer(data: Any, status: int = 200, **headers: str) -> HttpResponse:
    """A success in Paddle's envelope."""
    return HttpResponse(status=status, headers=headers, body=json.dumps({"data": data, "meta": {}}).encode())


def page(*data: Any, more: bool = False) -> HttpResponse:
    meta = {"pagination": {"per_page": 30, "next": "https://evil.example/", "has_more": more, "estimated_total": 1}}
    return HttpResponse(status=200, body=json.dumps({"data": data, "meta": meta}).encode())


def refusal(status: int, code: str, detail: str = "no", **headers: str) -> HttpResponse:
    error = {"type": "request_error", "code": code, "detail": detail, "documentation_url": "https://paddle.example"}
    return HttpResponse(status=status, headers=headers, body=json.dumps({"error": error, "meta": {}}).encode())


def sent(request: Any) -> Any:
    """The body of a request."""
    assert isinstance(request, HttpRequest)
    return json.loads(request.body)


def totals(total: int, tax: int = 0) -> dict[str, str]:
    return {"subtotal": str(total - tax), "discount": "0", "tax": str(tax), "total": str(total)}


def transaction(*lines: tuple[int, int], mode: str = "account_setting", **changes: Any) -> dict[str, Any]:
    """A paid transaction of lines (total, tax), all of the same tax mode."""
    pairs = lines or ((1_200, 200),)
    prices = [f"pri_{place}" for place in range(len(pairs))]
    whole = totals(sum(total for total, _ in pairs), sum(tax for _, tax in pairs))
    more = {"credit": "0", "grand_total": whole["total"], "fee": "110", "earnings": "890", "currency_code": "USD"}
    base: dict[str, Any] = {
        "id": "txn_1", "status": "completed", "customer_id": "ctm_1", "address_id": "add_1", "business_id": None,
        "custom_data": {"checkout_id": "chk_1", "amount": 1_200}, "currency_code": "USD", "origin": "api",
        "subscription_id": None, "invoice_id": "inv_1", "invoice_number": "325-10566", "collection_mode": "automatic",
        "discount_id": None, "billing_details": None, "billing_period": None,
        "checkout": {"url": "https://shop.example/pay"},
        "items": [
            {"price": {"id": price_id, "description": "x", "tax_mode": mode, "billing_cycle": None}, "quantity": 1}
            for price_id in prices
        ],
        "details": {
            "totals": whole | more,
            "adjusted_totals": {"total": whole["total"]},
            "payout_totals": {"total": whole["total"], "earnings": "890", "currency_code": "USD"},
            "line_items": [
                {"id": f"txnitm_{place}", "price_id": price_id, "quantity": 1, "totals": totals(*pair),
                 "product": {"name": "A"}}
                for place, (price_id, pair) in enumerate(zip(prices, pairs, strict=True))
            ],
        },
        "payments": [
            {"amount": "1200", "status": "captured", "captured_at": "2026-03-01T12:05:00.123456Z"},
            {"amount": "1200", "status": "error", "captured_at": None},
        ],
        "created_at": "2026-03-01T12:00:01.123456789Z", "updated_at": "2026-03-01T12:05:02Z",
        "billed_at": "2026-03-01T12:05:01.5Z",
    }  # fmt: skip
    return base | changes


def adjustment(total: int, tax: int = 0, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "adj_1", "action": "refund", "type": "partial", "transaction_id": "txn_1", "subscription_id": None,
        "customer_id": "ctm_1", "reason": "error", "currency_code": "USD", "status": "approved",
        "items": [{"id": "adjitm_1", "item_id": "txnitm_0", "type": "partial", "amount": str(total),
                   "totals": totals(total, tax)}],
        "totals": totals(total, tax) | {"currency_code": "USD"}, "payout_totals": None,
        "created_at": "2026-03-02T00:00:00Z", "updated_at": "2026-03-02T00:00:00Z",
    }  # fmt: skip
    return base | changes


def subscription(**changes: Any) -> dict[str, Any]:
    item = {
        "price": {"id": "pri_1", "description": "x", "custom_data": {"counterfoil_id": "pri_ours"}},
        "product": {"id": "pro_1", "name": "Éditeur"}, "quantity": 2, "status": "active", "recurring": True,
        "trial_dates": None, "next_billed_at": "2026-04-01T12:00:00Z", "previously_billed_at": "2026-03-01T12:00:00Z",
    }  # fmt: skip
    base: dict[str, Any] = {
        "id": "sub_1", "status": "active", "customer_id": "ctm_1", "address_id": "add_1", "business_id": None,
        "currency_code": "USD", "created_at": "2026-03-01T12:00:01Z", "updated_at": "2026-03-01T12:00:01.5Z",
        "started_at": "2026-03-01T12:00:00Z", "first_billed_at": "2026-03-01T12:00:00Z",
        "next_billed_at": "2026-04-01T12:00:00Z", "paused_at": None, "canceled_at": None, "discount": None,
        "collection_mode": "automatic", "billing_details": None,
        "current_billing_period": {"starts_at": "2026-03-01T12:00:00Z", "ends_at": "2026-04-01T12:00:00Z"},
        "billing_cycle": {"interval": "month", "frequency": 1}, "scheduled_change": None,
        "custom_data": {"checkout_id": "chk_1"}, "items": [item],
    }  # fmt: skip
    return base | changes
