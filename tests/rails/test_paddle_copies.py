"""Paddle's copies of our objects: what is sent, what is compared, and how they are found again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.rails.paddle_subjects import (
    EXTERNAL,
    NOW,
    RAIL,
    SETTINGS,
    address,
    answer,
    business,
    customer,
    discount,
    page,
    price,
    product,
    refusal,
    sent,
)

from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.rails.mirror import MoreToAsk

API = "https://sandbox-api.paddle.com"


class TestCopies:
    def test_a_product(self) -> None:
        request = RAIL.create_request(SETTINGS, product(id="pro_ours", tax_category="widgets", description=""), "key")
        assert (request.method, request.url) == ("POST", f"{API}/products")
        assert sent(request) == {
            "name": "Éditeur", "description": None, "image_url": "https://shop.example/e.png",
            "tax_category": "standard", "custom_data": {"line": "desktop", "counterfoil_id": "pro_ours"},
        }  # fmt: skip

    def test_a_price(self) -> None:
        one = price(id="pri_ours", trial_days=14, name="", description="")
        body = sent(RAIL.create_request(SETTINGS, one, "key"))
        assert body == {
            "product_id": one.product_reference, "name": None, "description": "Price",
            "billing_cycle": {"interval": "month", "frequency": 1},
            "trial_period": {"interval": "day", "frequency": 14}, "tax_mode": "internal",
            "unit_price": {"amount": "1200", "currency_code": "USD"},
            "unit_price_overrides": [
                {"country_codes": ["DE", "AT"], "unit_price": {"amount": "1100", "currency_code": "USD"}}
            ],
            "quantity": {"minimum": 1, "maximum": 50}, "custom_data": {"counterfoil_id": "pri_ours"},
        }  # fmt: skip
        update = RAIL.update_request(SETTINGS, msgspec.structs.replace(one, active=False), "pri_1", "key")
        assert update is not None
        assert (update.method, update.url) == ("PATCH", f"{API}/prices/pri_1")
        assert sent(update) == {key: value for key, value in body.items() if key != "product_id"} | {
            "status": "archived"
        }
        assert sent(RAIL.create_request(EXTERNAL, one, "key"))["tax_mode"] == "external"
        fixed = msgspec.structs.replace(one, tax_mode="internal")
        assert sent(RAIL.create_request(EXTERNAL, fixed, "key"))["tax_mode"] == "internal"

    def test_a_copy_is_compared_in_our_terms(self) -> None:
        one = price(trial_days=14)
        body = sent(RAIL.create_request(SETTINGS, one, "key"))
        body |= {"id": "pri_1", "status": "active", "trial_period": {"interval": "week", "frequency": 2}}
        body["unit_price_overrides"][0]["country_codes"].reverse()
        copy = RAIL.read_copy(SETTINGS, "price", answer(body | {"updated_at": "2026-03-01T12:00:00.5Z", "type": "new"}))
        assert copy.values == RAIL.expected(SETTINGS, one)
        assert (copy.reference, copy.our_id, copy.active) == ("pri_1", one.id, True)
        assert copy.occurred_at == datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
        for changes in (
            {"unit_amount": 1}, {"interval": "year"}, {"trial_days": 13}, {"country_overrides": ()}, {"active": False},
            {"quantity_max": 3}, {"tax_mode": "external"}, {"metadata": {"a": 1}}, {"name": "x"},
        ):  # fmt: skip
            assert copy.values != RAIL.expected(SETTINGS, msgspec.structs.replace(one, **changes))

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"amount": 1_000}, ("percentage", "10", None)),
            ({"amount": 1_250}, ("percentage", "12.5", None)),
            ({"amount": 1}, ("percentage", "0.01", None)),
            ({"amount": 10_000}, ("percentage", "100", None)),
            ({"kind": "free", "amount": 0}, ("percentage", "100", None)),
            ({"kind": "flat", "amount": 500, "asset": "EUR"}, ("flat", "500", "EUR")),
            ({"kind": "flat_per_seat", "amount": 5, "asset": "JPY"}, ("flat_per_seat", "5", "JPY")),
        ],
    )
    def test_discounts(self, changes: dict[str, Any], expected: tuple[str, str, str | None]) -> None:
        one = discount(**changes)
        body = sent(RAIL.create_request(SETTINGS, one, "key"))
        assert (body["type"], body["amount"], body["currency_code"]) == expected
        assert body["enabled_for_checkout"] is False  # codes are typed here
        copy = RAIL.read_copy(SETTINGS, "discount", answer(body | {"id": "dsc_1", "restrict_to": []}))
        assert copy.values == RAIL.expected(SETTINGS, one)

    def test_a_discounts_limits(self) -> None:
        one = discount(
            code="SPRING-26", max_periods=3, usage_limit=10, expires_at=NOW + timedelta(seconds=1.5),
            product_references=("pro_2", "pro_1"), price_references=("pri_1",), description="",
        )  # fmt: skip
        body = sent(RAIL.create_request(SETTINGS, one, "key"))
        assert (body["code"], body["recur"], body["maximum_recurring_intervals"]) == (None, True, 3)
        assert (body["usage_limit"], body["expires_at"]) == (10, "2026-03-01T12:00:01Z")
        assert body["restrict_to"] == ["pri_1", "pro_1", "pro_2"]
        assert body["description"] == "SPRING-26"
        once = msgspec.structs.replace(one, recurring=False, code="Spring26")
        body = sent(RAIL.create_request(SETTINGS, once, "key"))
        assert (body["recur"], body["maximum_recurring_intervals"], body["code"]) == (False, None, "Spring26")

    @pytest.mark.parametrize(
        ("subject", "why"),
        [
            (discount(kind="set_price", amount=500, asset="USD"), "sets a price"),
            (discount(amount=0), "above nothing"),
            (discount(kind="flat", amount=5, asset="SAT"), "SAT"),
            (price(asset="SAT"), "SAT"),
            (price(interval=None, interval_count=None, trial_days=3), "trials"),
            (price(name="x" * 151), "150"),
            (product(name="x" * 201), "200"),
            (customer(email=None), "e-mail"),
            (address(customer_reference=None), "no copy"),
        ],
    )
    def test_what_paddle_cannot_say_is_refused(self, subject: Any, why: str) -> None:
        with pytest.raises(RailRefused, match=why):
            RAIL.create_request(SETTINGS, subject, "key")

    def test_whose_addresses_and_businesses_they_are(self) -> None:
        where, company = address(customer_reference="ctm_1"), business(customer_reference="ctm_1")
        assert RAIL.create_request(SETTINGS, where, "key").url == f"{API}/customers/ctm_1/addresses"
        assert RAIL.get_request(SETTINGS, "business", "biz_1", company).url == f"{API}/customers/ctm_1/businesses/biz_1"
        for refused in (
            lambda: RAIL.get_request(SETTINGS, "address", "add_1", None),
            lambda: RAIL.list_request(SETTINGS, "business", None),
        ):
            with pytest.raises(RailRefused, match="by their customer"):
                refused()

    def test_ids_cannot_lead_elsewhere(self) -> None:
        request = RAIL.get_request(SETTINGS, "product", "a/../b?c#d", None)
        assert request.url == f"{API}/products/a%2F..%2Fb%3Fc%23d"
        request = RAIL.list_request(SETTINGS, "product", "a&status=x#")
        assert request.url.endswith("&after=a%26status%3Dx%23")

    def test_finding_stops_where_it_cannot_be_any_more(self) -> None:
        wanted = product()
        row = {"id": "pro_5", "name": "A", "tax_category": "standard", "custom_data": None}
        young, old = ({"created_at": (NOW - timedelta(days=days)).isoformat()} for days in (0, 2))
        with pytest.raises(MoreToAsk) as caught:
            RAIL.read_found_copy(SETTINGS, wanted, page(row | young, more=True))
        assert caught.value.request.url == (
            f"{API}/products?status=active,archived&order_by=id[DESC]&per_page=200&after=pro_5"
        )
        assert RAIL.read_found_copy(SETTINGS, wanted, page(row | old, more=True)) is None
        assert RAIL.read_found_copy(SETTINGS, wanted, page(row | young)) is None
        ours = row | {"id": "pro_4", "custom_data": {"counterfoil_id": wanted.id}}
        found = RAIL.read_found_copy(SETTINGS, wanted, page(row | young, ours | old, more=True))
        assert found is not None
        assert found.reference == "pro_4"

    def test_lists_are_narrowed_where_they_can_be(self) -> None:
        one = price()
        assert f"product_id={one.product_reference}" in RAIL.find_copy_request(SETTINGS, one).url
        assert "email=a%2Bb%40example.com" in RAIL.find_copy_request(SETTINGS, customer(email="a+b@example.com")).url

    def test_an_email_address_that_paddle_knows(self) -> None:
        known = "ctm_01ghbk4xjn4qdsmstcwzgcgg35"
        words = f"customer email conflicts with customer of id {known}"
        with pytest.raises(MoreToAsk) as caught:
            RAIL.read_copy(SETTINGS, "customer", refusal(409, "customer_already_exists", words))
        assert caught.value.request.url == f"{API}/customers/{known}"
        with pytest.raises(RailUnavailable) as plain:
            RAIL.read_copy(SETTINGS, "customer", refusal(409, "customer_already_exists", "no"))
        assert not isinstance(plain.value, MoreToAsk)
        with pytest.raises(RailRefused):
            RAIL.read_copy(SETTINGS, "customer", refusal(409, "else", words))
