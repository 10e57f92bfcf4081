"""What discounts take off a cart: the order, the rounding, and that sums are exact."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.catalog import pricing
from counterfoil.catalog.pricing import Item
from counterfoil.catalog.types import Discount

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def discount(kind: str, amount: int = 0, name: str = "", **fields: Any) -> Discount:
    values: dict[str, Any] = dict.fromkeys(Discount.__struct_fields__)
    values |= {
        "id": name or f"{kind}-{amount}",
        "code": None,
        "kind": kind,
        "amount": amount,
        "asset": "USD" if kind in {"flat", "flat_per_seat", "set_price"} else None,
        "product_ids": [],
        "price_ids": [],
        "tiers": [],
        "rails": [],
        "stage": "checkout",
        **fields,
    }
    return Discount(**values)


def item(amount: int, quantity: int = 1, price: str = "a", product: str = "p", tier: str = "default") -> Item:
    return Item(product_id=product, price_id=price, tier=tier, asset="USD", unit_amount=amount, quantity=quantity)


def off(items: list[Item], *discounts: Discount) -> list[int]:
    """What is taken off each line."""
    return [sum(cut.amount for cut in line) for line in pricing.reduce(items, discounts)]


PERCENT_10, PERCENT_20 = discount("percentage", 1_000), discount("percentage", 2_000)
DOLLAR, HALF_DOLLAR = discount("flat", 100), discount("flat", 50)


def test_the_vector() -> None:
    """$10 with 10 %, 20 %, $1 and $0.50 costs $5.70."""
    (cuts,) = pricing.reduce([item(1_000)], [PERCENT_10, PERCENT_20, DOLLAR, HALF_DOLLAR])
    assert [cut.amount for cut in cuts] == [100, 180, 100, 50]
    assert off([item(1_000)], HALF_DOLLAR, PERCENT_20, DOLLAR, PERCENT_10) == [430]


@pytest.mark.parametrize(
    ("unit", "quantity", "discounts", "taken"),
    [
        (1_000, 1, [], []),
        (1_000, 3, [discount("set_price", 750), PERCENT_10], [750, 225]),
        (1_000, 3, [PERCENT_10, discount("set_price", 750)], [225, 750]),  # the order is the rule's, not theirs
        (1_000, 3, [discount("set_price", 750), discount("set_price", 600)], [750, 450]),
        (1_000, 3, [discount("flat_per_seat", 100), DOLLAR], [300, 100]),
        (1_000, 3, [discount("flat_per_seat", 900), discount("flat", 900)], [2_700, 300]),
        (1_000, 3, [discount("free"), DOLLAR, PERCENT_10], [2_600, 100, 300]),
        (1_000, 3, [PERCENT_10, PERCENT_10], [300]),  # one counts once
        (333, 1, [PERCENT_10, PERCENT_20], [33, 60]),  # 33.3 and 59.94: 93.24 together
        (5, 1, [discount("percentage", 5_000)], [3]),  # 2.5 up
        (5, 1, [discount("percentage", 5_000, "x"), discount("percentage", 5_000, "y")], [3, 1]),  # 2.5, then 3.75
    ],
)
def test_one_line(unit: int, quantity: int, discounts: list[Discount], taken: list[int]) -> None:
    (cuts,) = pricing.reduce([item(unit, quantity)], discounts)
    assert [cut.amount for cut in cuts] == taken


def test_the_catalog_stage_is_rounded_on_each_unit() -> None:
    assert off([item(333, 3)], discount("percentage", 5_000, stage="catalog")) == [3 * 167]
    assert off([item(333, 3)], discount("percentage", 5_000)) == [500]
    first = discount("percentage", 5_000, stage="catalog")
    assert off([item(333, 3)], discount("set_price", 150), first) == [501 + 48]
    assert off([item(1_000, 3)], discount("free", stage="catalog"), DOLLAR) == [3_000]
    assert off([item(1_000, 3)], discount("flat_per_seat", 100, stage="catalog"), PERCENT_10) == [300 + 270]


def test_a_flat_amount_is_spread_by_what_is_left() -> None:
    items = [item(300, price="a"), item(900, price="b"), item(0, price="c")]
    assert off(items, discount("flat", 200)) == [50, 150, 0]
    assert off(items, discount("flat", 2)) == [1, 1, 0]  # 0.5 and 1.5: the odd unit goes by what is bought
    assert off(items, discount("flat", 5_000)) == [300, 900, 0]
    assert off(items, discount("flat", 5_000, price_ids=["a"])) == [300, 0, 0]
    assert off(items, discount("flat", 200, asset="EUR")) == [0, 0, 0]


def test_only_what_is_covered() -> None:
    items = [item(100, price="a", product="p"), item(100, price="b", product="p", tier="team"), item(100, 2, "c", "q")]
    assert off(items, discount("free", product_ids=["p"])) == [100, 100, 0]
    assert off(items, discount("free", price_ids=["c"])) == [0, 0, 200]
    assert off(items, discount("free", tiers=["team"])) == [0, 100, 0]
    assert off(items, discount("free", product_ids=["q"], tiers=["team"])) == [0, 0, 0]
    assert pricing.reduce(items, [discount("free", price_ids=["c"])])[0] == []


PRICES = {"a": ("p", "default"), "b": ("p", "team"), "c": ("q", "default"), "d": ("r", "default")}


@st.composite
def carts(draw: st.DrawFn) -> list[Item]:
    def one() -> Item:
        price = draw(st.sampled_from(sorted(PRICES)))
        product, tier = PRICES[price]
        return item(draw(st.integers(0, 2_000)), draw(st.integers(1, 12)), price, product, tier)

    return [one() for _ in range(draw(st.integers(1, 6)))]


@st.composite
def sets_of_discounts(draw: st.DrawFn) -> list[Discount]:
    def one(place: int) -> Discount:
        stage = draw(st.sampled_from(["catalog", "checkout"]))
        kinds = ["percentage", "flat_per_seat", "set_price", "free"] + (["flat"] if stage == "checkout" else [])
        kind = draw(st.sampled_from(kinds))
        most = {"percentage": 10_000, "free": 0}.get(kind, 3_000)
        some = st.lists(st.sampled_from(sorted(PRICES)), max_size=2, unique=True)
        return discount(kind, draw(st.integers(0, most)), f"dsc-{place}", stage=stage, price_ids=draw(some))

    return [one(place) for place in range(draw(st.integers(0, 6)))]


def total(items: list[Item], discounts: list[Discount]) -> int:
    return sum(one.unit_amount * one.quantity for one in items) - sum(off(items, *discounts))


@given(carts(), sets_of_discounts())
def test_nothing_costs_less_than_0_and_no_cut_adds(items: list[Item], discounts: list[Discount]) -> None:
    for one, cuts in zip(items, pricing.reduce(items, discounts), strict=True):
        assert all(cut.amount >= 0 for cut in cuts)
        assert sum(cut.amount for cut in cuts) <= one.unit_amount * one.quantity
        assert len({cut.discount_id for cut in cuts}) == len(cuts)


@given(carts(), sets_of_discounts(), st.randoms())
def test_the_order_of_lines_does_not_matter(items: list[Item], discounts: list[Discount], random: Any) -> None:
    shuffled = [*items]
    random.shuffle(shuffled)
    assert total(shuffled, discounts) == total(items, discounts)


@given(carts(), st.integers(0, 30_000))
def test_a_flat_amount_comes_off_to_the_last_unit(items: list[Item], amount: int) -> None:
    before = total(items, [])
    assert total(items, [discount("flat", amount)]) == max(0, before - amount)


@given(carts(), sets_of_discounts())
def test_twice_the_same_discounts_are_the_same(items: list[Item], discounts: list[Discount]) -> None:
    assert pricing.reduce(items, [*discounts, *discounts]) == pricing.reduce(items, discounts)
