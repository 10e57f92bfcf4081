"""Variants of Stripe's copies: values in, values out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.rails.stripe_values import (
    RAIL,
    SETTINGS,
    answer,
    discount,
    fact,
    intent,
    invoice,
    line,
    listed,
    period,
    price,
    read,
)

from counterfoil.rails.base import HttpRequest, RailRefused
from counterfoil.rails.facts import InvoiceFact, SubscriptionFact
from counterfoil.rails.mirror import Rhythm

PRICE, DISCOUNT = price().id, discount().id
MARKS = {"counterfoil_id": PRICE, "counterfoil_variant": f"{PRICE}-400"}
OF_PRICE = {"id": "price_400", "object": "price", "lookup_key": f"{PRICE}-400", "metadata": MARKS}
OF_DISCOUNT = {
    "id": f"{DISCOUNT}-24m",
    "object": "coupon",
    "metadata": {"counterfoil_id": DISCOUNT, "counterfoil_variant": f"{DISCOUNT}-24m"},
}
JANUARY = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)


def form(request: HttpRequest) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(request.body.decode()).items()}


class TestPrices:
    def test_the_copy_does_for_its_own_amount(self) -> None:
        assert RAIL.price_variant(SETTINGS, price(country_overrides=((("IN",), 400),)), 900) is None

    def test_another_amount(self) -> None:
        # Also of a price that is not sold any more: whoever holds it keeps it.
        variant = RAIL.price_variant(SETTINGS, price(country_overrides=((("IN",), 400),), active=False), 400)
        assert variant is not None
        sent = form(RAIL.create_request(SETTINGS, variant, "key"))
        copied = form(RAIL.create_request(SETTINGS, price(), "key"))
        assert {name: value for name, value in sent.items() if copied.get(name) != value} == {
            "unit_amount": "400",
            "lookup_key": f"{PRICE}-400",
            "metadata[counterfoil_variant]": f"{PRICE}-400",
        }
        assert f"lookup_keys%5B%5D={PRICE}-400" in RAIL.find_copy_request(SETTINGS, variant).url
        found = RAIL.read_found_copy(SETTINGS, variant, listed(OF_PRICE))
        assert found is not None
        assert found.reference == "price_400"
        # Somebody else's price that took our name is not it.
        assert RAIL.read_found_copy(SETTINGS, variant, listed({**OF_PRICE, "metadata": {}})) is None

    def test_of_another_currency_s_least_unit(self) -> None:
        variant = RAIL.price_variant(SETTINGS, price(asset="KWD", unit_amount=9_000), 4_005)
        assert variant is not None
        with pytest.raises(RailRefused, match="hundredth"):
            RAIL.create_request(SETTINGS, variant, "key")

    def test_a_subscription_says_whose_they_are(self) -> None:
        held = line(price_id=PRICE, price_reference="price_400", is_variant=True, interval="month", interval_count=1)
        other = line(price_id="pri_2", price_reference="price_2", interval="month", interval_count=1)
        opened = RAIL.open_request(SETTINGS, intent(held, other))
        sent = form(opened)
        assert sent[f"subscription_data[metadata][{PRICE}]"] == "price_400"
        assert "subscription_data[metadata][pri_2]" not in sent

    def test_a_bill_tells_whose_they_are(self) -> None:
        pricing = {"pricing": {"type": "price_details", "price_details": {"price": "price_400", "product": "prod_1"}}}
        parent = {
            "type": "subscription_details",
            "subscription_details": {
                "subscription": "sub_1",
                "metadata": {"own": "price_400", PRICE: "price_400", "other": "price_400"},
            },
        }
        told = fact("invoice.paid", invoice(parent=parent, lines={"data": [{**period(0), **pricing}]}))
        assert isinstance(told, InvoiceFact)
        (only,) = told.lines
        assert (only.price_reference, only.price_id, only.subtotal, only.amount) == ("price_400", PRICE, 1_000, 900)


class TestDiscounts:
    @pytest.mark.parametrize(
        ("interval", "count", "trial", "months"),
        [
            ("month", 1, 0, None),
            ("month", 3, 0, 9),
            ("year", 1, 0, 36),
            ("year", 2, 0, 72),
            ("month", 1, 14, None),
            ("month", 1, 29, 4),
            ("month", 1, 28, None),  # to the last day of February, which has no 31st
            ("month", 1, 365, 15),
            ("year", 1, 14, 36),
            ("year", 1, 60, 38),
        ],
    )
    def test_periods_as_months(self, interval: Any, count: int, trial: int, months: int | None) -> None:
        rhythm = Rhythm(interval, count, trial, JANUARY)
        variant = RAIL.discount_variant(SETTINGS, discount(max_periods=3), rhythm)
        if months is None:
            assert variant is None
            return
        assert variant is not None
        sent = form(RAIL.create_request(SETTINGS, variant, "key"))
        copied = form(RAIL.create_request(SETTINGS, discount(), "key"))
        assert {name: value for name, value in sent.items() if copied.get(name) != value} == {
            "id": f"{DISCOUNT}-{months}m",
            "duration_in_months": str(months),
            "metadata[counterfoil_variant]": f"{DISCOUNT}-{months}m",
        }
        assert RAIL.find_copy_request(SETTINGS, variant).url.endswith(f"/coupons/{DISCOUNT}-{months}m")
        # Codes are the copy's.
        made = RAIL.read_copy(SETTINGS, "discount", answer({**OF_DISCOUNT, "id": variant.id}))
        assert RAIL.follow_up_request(SETTINGS, variant, made, "key") is None

    @pytest.mark.parametrize(("interval", "count", "every"), [("week", 1, "week"), ("day", 10, "10 days")])
    def test_what_has_no_months(self, interval: Any, count: int, every: str) -> None:
        rhythm = Rhythm(interval, count, 0, JANUARY)
        with pytest.raises(RailRefused, match=f"every {every} cannot have one for 3 periods"):
            RAIL.discount_variant(SETTINGS, discount(max_periods=3), rhythm)
        for changes in ({"max_periods": None}, {"max_periods": 1}, {"recurring": False}):
            assert RAIL.discount_variant(SETTINGS, discount(**changes), rhythm) is None

    @pytest.mark.parametrize(
        ("coupon", "ours"),
        [
            (f"{DISCOUNT}-24m", DISCOUNT),
            (DISCOUNT, DISCOUNT),
            ("SPRING-24m", "SPRING-24m"),
            (f"{DISCOUNT}-x", f"{DISCOUNT}-x"),
        ],
    )
    def test_whose_a_coupon_is(self, coupon: str, ours: str) -> None:
        said = {"id": "sub_1", "object": "subscription", "status": "active", "currency": "eur", "items": {"data": []}}
        discounts = [{"id": "di_1", "source": {"type": "coupon", "coupon": coupon}}]
        told = fact("customer.subscription.updated", {**said, "discounts": discounts})
        assert isinstance(told, SubscriptionFact)
        assert told.discount_reference == ours


@pytest.mark.parametrize(("kind", "variant"), [("price", OF_PRICE), ("coupon", OF_DISCOUNT)])
def test_they_are_no_copies(kind: Any, variant: dict[str, Any]) -> None:
    """Neither news of them counts, nor are they listed."""
    for what in ("created", "updated", "deleted"):
        notice = read(f"{kind}.{what}", variant)
        assert (notice.is_known, notice.facts) == (True, ())
    copy = {**variant, "id": "other", "metadata": {"counterfoil_id": PRICE}}
    page, after = RAIL.read_list(SETTINGS, "price" if kind == "price" else "discount", listed(variant, copy))
    assert ([one.reference for one in page], after) == (["other"], None)
