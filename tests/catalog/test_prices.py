"""Prices: their terms are fixed once they were quoted, and a buyer pays exactly what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, Sold, competitor, good, opening, problem

from counterfoil.catalog import prices
from counterfoil.catalog.prices import PriceChanges
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import MAX_AMOUNT
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
NOW = "2026-01-02T03:04:05.678901Z"
NOBODY = "01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def product(shop: Shop) -> str:
    """A product's id."""
    return str(good(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "Editor"}))["id"])


async def price_of(shop: Shop, price_id: str) -> dict[str, Any]:
    found: dict[str, Any] = good(await shop.staff.get(f"/v1/prices/{price_id}"))
    return found


async def change(shop: Shop, price_id: str, **fields: Any) -> dict[str, Any]:
    changed: dict[str, Any] = good(await shop.staff.patch(f"/v1/prices/{price_id}", json=fields))
    return changed


async def refused(shop: Shop, at: str, body: dict[str, Any], pointer: str, *, code: str = "invalid_request") -> None:
    """A price (POST), or a change to one (PATCH), that names a bad field and changes nothing."""
    before = await shop.everything()
    answer = await (shop.staff.post(at, json=body) if at.endswith("/prices") else shop.staff.patch(at, json=body))
    assert [error["pointer"] for error in problem(answer, 422, code)["errors"]] == [pointer]
    assert await shop.everything() == before


async def cannot_buy(shop: Shop, code: str, pointer: str, *lines: tuple[Sold, int], **fields: Any) -> None:
    before = await shop.everything()
    told = problem(await shop.try_checkout(*lines, **fields), 422, code)
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


# -- made and read ------------------------------------------------------------------------------------


async def test_a_price_in_every_detail(shop: Shop) -> None:
    fields = {
        "asset": "USD",
        "unit_amount": 1_999,
        "tier": "team",
        "name": "Team",
        "description": "For five.",
        "type": "recurring",
        "interval": "month",
        "interval_count": 3,
        "trial_days": 14,
        "tax_mode": "internal",
        "country_overrides": [{"countries": ["IN", "BD"], "unit_amount": 499}],
        "quantity_min": 5,
        "quantity_max": 50,
        "metadata": {"a": [1]},
    }
    owner = await product(shop)
    answer = await shop.staff.post(f"/v1/products/{owner}/prices", json=fields)
    assert answer.status_code == 201
    made = good(answer)
    assert made == {
        "id": made["id"],
        "product_id": owner,
        **fields,
        "billing_scheme": "per_unit",
        "usage_type": "licensed",
        "status": "active",
        "locked_at": None,
        "replaces": None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert await price_of(shop, made["id"]) == made
    (shown,) = good(await shop.http.get("/v1/products/editor"))["prices"]
    hidden = {
        "product_id",
        "billing_scheme",
        "usage_type",
        "tax_mode",
        "metadata",
        "status",
        "locked_at",
        "replaces",
        "created_at",
        "updated_at",
    }
    assert shown == {name: value for name, value in made.items() if name not in hidden}
    event = await shop.row("events", object_id=made["id"])
    assert (event["type"], event["amount"], event["asset"]) == ("price.created", 1_999, "USD")


async def test_what_is_left_out_has_a_default(shop: Shop) -> None:
    at = f"/v1/products/{await product(shop)}/prices"
    made = good(await shop.staff.post(at, json={"asset": "SAT", "unit_amount": 0}))
    assert (made["tier"], made["type"], made["interval"], made["interval_count"], made["trial_days"]) == (
        "default",
        "one_time",
        None,
        None,
        0,
    )
    assert (made["quantity_min"], made["quantity_max"], made["country_overrides"]) == (1, 10_000, [])


@pytest.mark.parametrize(
    ("asset", "amount", "shown"),
    [("USD", 1_999, 1_999), ("JPY", 1_500, 1_500), ("KWD", 1_234, 1_234), ("SAT", 1, 1), ("USDC", 1, 1)],
)
async def test_amounts_are_whole_minor_units_of_their_asset(shop: Shop, asset: str, amount: int, shown: int) -> None:
    """1500 JPY are 1,500 yen, for yen have no smaller unit."""
    opened = await shop.checkout((await shop.tier(amount=amount, asset=asset), 3))
    assert (opened["amount"], opened["asset"]) == (shown * 3, asset)


@pytest.mark.parametrize("asset", ["XYZ", "usd", "", "BTC ", "US", "USDX"])
async def test_an_asset_that_nobody_knows(shop: Shop, asset: str) -> None:
    at = f"/v1/products/{await product(shop)}/prices"
    await refused(shop, at, {"asset": asset, "unit_amount": 1}, "/asset", code="unknown_asset")


MONTHLY = {"type": "recurring", "interval": "month", "interval_count": 1}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"unit_amount": -1}, "/unit_amount"),
        ({"unit_amount": MAX_AMOUNT + 1}, "/unit_amount"),
        ({"tier": "Team"}, "/tier"),
        ({"tier": ""}, "/tier"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "\x07"}, "/name"),
        ({"description": "x" * 2_001}, "/description"),
        ({"metadata": {"k": "x" * (10 * 1024)}}, "/metadata"),
        ({"quantity_min": 0}, "/quantity_max"),
        ({"quantity_min": 3, "quantity_max": 2}, "/quantity_max"),
        ({"quantity_max": 10_001}, "/quantity_max"),
        ({"type": "recurring"}, "/interval"),
        ({"type": "recurring", "interval": "month"}, "/interval"),
        ({"type": "recurring", "interval_count": 1}, "/interval"),
        ({"interval": "month", "interval_count": 1}, "/interval"),
        ({**MONTHLY, "interval_count": 0}, "/interval_count"),
        ({**MONTHLY, "interval_count": 1_001}, "/interval_count"),
        ({**MONTHLY, "trial_days": -1}, "/trial_days"),
        ({**MONTHLY, "trial_days": 5 * 366 + 1}, "/trial_days"),
        ({"trial_days": 7}, "/trial_days"),
        ({"country_overrides": [{"countries": ["in"], "unit_amount": 1}]}, "/country_overrides/0/countries"),
        ({"country_overrides": [{"countries": ["IND"], "unit_amount": 1}]}, "/country_overrides/0/countries"),
        ({"country_overrides": [{"countries": ["IN\n"], "unit_amount": 1}]}, "/country_overrides/0/countries"),
        ({"country_overrides": [{"countries": ["IN", "IN"], "unit_amount": 1}]}, "/country_overrides/0/countries"),
        (
            {"country_overrides": [{"countries": ["IN"], "unit_amount": 1}, {"countries": ["IN"], "unit_amount": 2}]},
            "/country_overrides/1/countries",
        ),
        ({"country_overrides": [{"countries": ["IN"], "unit_amount": -1}]}, "/country_overrides/0/unit_amount"),
    ],
)
async def test_a_bad_field_is_named_and_changes_nothing(shop: Shop, fields: dict[str, Any], pointer: str) -> None:
    at = f"/v1/products/{await product(shop)}/prices"
    await refused(shop, at, {"asset": "USD", "unit_amount": 100, **fields}, pointer)


@pytest.mark.parametrize("interval", ["day", "week", "month", "year"])
async def test_every_interval_there_is(shop: Shop, interval: str) -> None:
    sold = await shop.tier(asset="USD", type="recurring", interval=interval, interval_count=2)
    assert (await price_of(shop, sold.price_id))["interval"] == interval
    at = f"/v1/products/{sold.product_id}/prices"
    before = await shop.everything()
    body = {"asset": "USD", "unit_amount": 1, "type": "recurring", "interval": "decade", "interval_count": 1}
    problem(await shop.staff.post(at, json=body), 422, "invalid_request")
    assert await shop.everything() == before


async def test_no_such_price_and_no_such_product(shop: Shop) -> None:
    before = await shop.everything()
    problem(await shop.staff.get(f"/v1/prices/pri_{NOBODY}"), 404, "price_not_found")
    problem(await shop.staff.patch(f"/v1/prices/pri_{NOBODY}", json={"name": "x"}), 404, "price_not_found")
    body = {"asset": "USD", "unit_amount": 1}
    problem(await shop.staff.post(f"/v1/products/pro_{NOBODY}/prices", json=body), 404, "product_not_found")
    problem(await shop.http.post("/v1/checkouts", json={"lines": [{"price_id": "x"}]}), 404, "price_not_found")
    assert await shop.everything() == before


async def test_prices_come_in_pages_that_stay_the_same_while_prices_are_added(shop: Shop) -> None:
    made = []
    for place in range(5):
        made.append((await shop.tier(amount=place)).price_id)
        shop.clock.advance(SECOND)
    await shop.tier("viewer")
    for at in ("/v1/prices", f"/v1/products/{(await shop.row('products', slug='editor'))['id']}/prices"):
        first = good(await shop.staff.get(at, params={"limit": 3}))
        shop.clock.advance(SECOND)
        added = (await shop.tier(amount=99)).price_id
        second = good(await shop.staff.get(at, params={"limit": 100, "after": first["next"]}))
        assert [row["id"] for row in first["data"]] == made[:3]
        rest = [row["id"] for row in second["data"] if row["product_id"] == first["data"][0]["product_id"]]
        assert rest == [*made[3:], added]
        assert second["next"] is None
        made.append(added)
    for wrong in ("0", "101"):
        problem(await shop.staff.get("/v1/prices", params={"limit": wrong}), 422, "invalid_request")


# -- before and after the first quote -----------------------------------------------------------------

NEW_TERMS: list[dict[str, Any]] = [
    {"unit_amount": 500},
    {"country_overrides": [{"countries": ["IN"], "unit_amount": 5}]},
    {"quantity_min": 2},
    {"quantity_max": 3},
]


@pytest.mark.parametrize("terms", NEW_TERMS)
async def test_terms_change_in_place_before_any_quote(shop: Shop, terms: dict[str, Any]) -> None:
    sold = await shop.tier()
    before = await price_of(shop, sold.price_id)
    shop.clock.advance(SECOND)
    assert await change(shop, sold.price_id, **terms) == {
        **before,
        **terms,
        "updated_at": "2026-01-02T03:04:06.678901Z",
    }
    assert await shop.count("prices") == 1


@pytest.mark.parametrize("terms", NEW_TERMS)
async def test_new_terms_after_a_quote_make_a_new_price(shop: Shop, terms: dict[str, Any]) -> None:
    sold = await shop.tier(name="Solo", metadata={"a": 1})
    opened = await shop.checkout(sold)
    old = await price_of(shop, sold.price_id)
    assert old["locked_at"] == NOW
    shop.clock.advance(SECOND)
    later = "2026-01-02T03:04:06.678901Z"
    new = await change(shop, sold.price_id, **terms)
    assert new["id"] != old["id"]
    assert new == {
        **old,
        **terms,
        "id": new["id"],
        "locked_at": None,
        "replaces": old["id"],
        "created_at": later,
        "updated_at": later,
    }
    assert await price_of(shop, sold.price_id) == {**old, "status": "archived", "updated_at": later}
    assert [price["id"] for price in good(await shop.http.get("/v1/products/editor"))["prices"]] == [new["id"]]
    assert sorted(await shop.events("price.created", "price.archived")) == [
        "price.archived",
        "price.created",
        "price.created",
    ]
    # Nobody buys at the old terms any more, but whoever was quoted them gets them.
    await cannot_buy(shop, "price_archived", "/lines/0/price_id", (sold, 1))
    await shop.play(opened, "pay")
    order = await shop.row("orders")
    assert (order["amount"], order["items"][0]["price_id"]) == (21_000, old["id"])


async def test_a_trial_is_part_of_the_terms(shop: Shop) -> None:
    sold = await shop.tier(asset="USD", trial_days=7, **MONTHLY)
    await shop.scope.run(prices.lock_terms, [sold.price_id])
    new = await change(shop, sold.price_id, trial_days=14)
    assert (new["replaces"], new["trial_days"], new["interval"]) == (sold.price_id, 14, "month")


async def test_words_change_in_place_also_after_a_quote(shop: Shop) -> None:
    sold = await shop.tier(name="Solo")
    await shop.checkout(sold)
    old = await price_of(shop, sold.price_id)
    shop.clock.advance(SECOND)
    words = {"name": "Single", "description": "For one.", "metadata": {"b": 2}}
    changed = await change(shop, sold.price_id, **words)
    assert changed == {**old, **words, "updated_at": "2026-01-02T03:04:06.678901Z"}
    assert await shop.count("prices") == 1
    # What was quoted keeps the words it was quoted with.
    assert (await shop.row("cart_lines"))["name"] == "Editor Solo"


async def test_the_same_terms_again_change_nothing(shop: Shop) -> None:
    sold = await shop.tier(country_overrides=[{"countries": ["IN"], "unit_amount": 5}])
    await shop.checkout(sold)
    before = await shop.everything()
    same = {"unit_amount": 21_000, "country_overrides": [{"countries": ["IN"], "unit_amount": 5}], "status": "active"}
    assert (await change(shop, sold.price_id, **same))["id"] == sold.price_id
    assert (await change(shop, sold.price_id))["id"] == sold.price_id
    assert await shop.everything() == before


async def test_new_words_and_new_terms_go_together_into_the_new_price(shop: Shop) -> None:
    sold = await shop.tier(name="Solo")
    await shop.checkout(sold)
    new = await change(shop, sold.price_id, unit_amount=5, name="Single")
    assert (new["name"], new["unit_amount"]) == ("Single", 5)
    assert (await price_of(shop, sold.price_id))["name"] == "Solo"


async def test_asset_tier_and_type_are_for_good(shop: Shop) -> None:
    sold = await shop.tier()
    before = await shop.everything()
    for fields in ({"asset": "USD"}, {"tier": "team"}, {"type": "recurring"}, {"interval": "day"}, {"locked_at": None}):
        problem(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json=fields), 422, "invalid_request")
    assert await shop.everything() == before


@pytest.mark.parametrize("quoted", [False, True])
async def test_a_change_is_checked_like_a_new_price(shop: Shop, quoted: bool) -> None:
    sold = await shop.tier(quantity_max=5)
    if quoted:
        await shop.checkout(sold)
    at = f"/v1/prices/{sold.price_id}"
    await refused(shop, at, {"unit_amount": -1}, "/unit_amount")
    await refused(shop, at, {"quantity_min": 6}, "/quantity_max")
    await refused(shop, at, {"trial_days": 1}, "/trial_days")
    await refused(shop, at, {"name": "x" * 201}, "/name")


async def test_an_archived_price_comes_back_but_keeps_its_terms(shop: Shop) -> None:
    sold = await shop.tier()
    await shop.checkout(sold)
    assert (await change(shop, sold.price_id, status="archived"))["status"] == "archived"
    await cannot_buy(shop, "price_archived", "/lines/0/price_id", (sold, 1))
    before = await shop.everything()
    for fields in ({"unit_amount": 5}, {"unit_amount": 5, "status": "active"}):
        answer = await shop.staff.patch(f"/v1/prices/{sold.price_id}", json=fields)
        problem(answer, 409, "price_archived")
    assert await shop.everything() == before
    assert (await change(shop, sold.price_id, status="active"))["id"] == sold.price_id
    assert (await shop.checkout(sold))["amount"] == 21_000


async def test_changes_and_quotes_at_once(shop: Shop) -> None:
    """Whoever wins, each cart holds the terms of the price it points at, and one price is for sale."""
    sold = await shop.tier(amount=1_000)

    async def raise_it(place: int) -> None:
        answer = await shop.staff.patch(f"/v1/prices/{sold.price_id}", json={"unit_amount": 1_001 + place})
        assert answer.status_code in {200, 409}, answer.text

    async def quote() -> int:
        answer = await shop.try_checkout(sold)
        if not answer.is_success:
            problem(answer, 422, "price_archived")
        return answer.status_code

    jobs = [job for place in range(10) for job in (raise_it(place), quote(), quote())]
    await asyncio.gather(*jobs)
    rows = {row["id"]: row for row in await shop.rows("prices")}
    for line in await shop.rows("cart_lines"):
        assert line["unit_amount"] == rows[line["price_id"]]["unit_amount"]
        assert rows[line["price_id"]]["locked_at"] is not None
    assert len([row for row in rows.values() if row["status"] == "active"]) == 1
    assert len({row["replaces"] for row in rows.values()}) == len(rows)  # nothing was replaced twice
    assert await shop.count("checkouts") == await shop.count("cart_lines")


@TRANSACTIONS_OVERLAP
async def test_a_price_archived_while_it_is_first_quoted_is_not_sold(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = await shop.tier()
    gone = PriceChanges(status="archived")
    competitor(monkeypatch, prices, "lock_terms", shop.scope, prices.update, sold.price_id, gone)
    problem(await shop.try_checkout(sold), 422, "price_archived")
    assert (await shop.row("prices"))["locked_at"] is None
    assert await shop.count("checkouts") == await shop.count("carts") == 0


# -- countries and quantities -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("country", "amount"), [(None, 4_900), ("US", 4_900), ("IN", 990), ("BD", 990), ("CH", 5_900), ("XX", 4_900)]
)
async def test_a_country_may_have_a_price_of_its_own(shop: Shop, country: str | None, amount: int) -> None:
    overrides = [{"countries": ["IN", "BD"], "unit_amount": 990}, {"countries": ["CH"], "unit_amount": 5_900}]
    sold = await shop.tier(amount=4_900, asset="USD", country_overrides=overrides)
    opened = await shop.checkout((sold, 2), country=country)
    assert (opened["amount"], opened["asset"]) == (amount * 2, "USD")
    assert (await shop.row("cart_lines"))["unit_amount"] == amount
    assert (await shop.row("carts"))["country"] == country


async def test_a_country_may_get_it_for_nothing(shop: Shop) -> None:
    sold = await shop.tier(country_overrides=[{"countries": ["UA"], "unit_amount": 0}])
    given = await shop.checkout(sold, country="UA")
    assert (given["status"], given["rail"], given["amount"], len(given["license_keys"])) == ("settled", "free", 0, 1)


@pytest.mark.parametrize("country", ["us", "USA", "U", "", "U1", "US\n", "ÉÉ"])
async def test_a_country_that_is_no_code(shop: Shop, country: str) -> None:
    await cannot_buy(shop, "invalid_request", "/country", (await shop.tier(), 1), country=country)


@pytest.mark.parametrize(("quantity", "fits"), [(1, False), (2, True), (5, True), (6, False), (0, False), (-2, False)])
async def test_a_price_sells_within_its_quantities(shop: Shop, quantity: int, fits: bool) -> None:
    sold = await shop.tier(amount=100, quantity_min=2, quantity_max=5)
    if fits:
        assert (await shop.checkout((sold, quantity)))["amount"] == 100 * quantity
    else:
        await cannot_buy(shop, "quantity_out_of_range", "/lines/0/quantity", (sold, quantity))


async def test_a_cart_is_in_one_asset_and_no_more_than_we_count(shop: Shop) -> None:
    sats, dollars = await shop.tier(), await shop.tier("viewer", asset="USD")
    await cannot_buy(shop, "mixed_assets", "/lines/1/price_id", (sats, 1), (dollars, 1))
    dear = await shop.tier("yacht", amount=MAX_AMOUNT)
    assert (await shop.checkout(dear))["amount"] == MAX_AMOUNT
    await cannot_buy(shop, "cart_too_large", "/lines", (dear, 2))
    await cannot_buy(shop, "empty_cart", "/lines")
    await cannot_buy(shop, "cart_too_large", "/lines", *[(sats, 1)] * 101)
