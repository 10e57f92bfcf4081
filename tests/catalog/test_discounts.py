"""Discounts: what a code takes off to the last minor unit, when it may be used, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import MAX_AMOUNT
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
NOW = "2026-01-02T03:04:05.678901Z"
NOBODY = "dsc_01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def refused(shop: Shop, because: str, /, *lines: Any, **fields: Any) -> None:
    """A checkout that its code spoils, and that leaves nothing behind."""
    before = await shop.everything()
    told = problem(await shop.try_checkout(*lines, **fields), 422, because)
    assert [error["pointer"] for error in told["errors"]] == ["/code"]
    assert await shop.everything() == before


# -- made, read, archived -----------------------------------------------------------------------------


async def test_a_discount_in_every_detail(shop: Shop) -> None:
    sold = await shop.tier()
    fields = {
        "kind": "flat",
        "amount": 1_000,
        "asset": "USD",
        "description": "For the fair.",
        "product_ids": [sold.product_id],
        "tiers": ["default", "team"],
        "usage_limit": 3,
        "starts_at": "2026-02-01T00:00:00Z",
        "expires_at": "2026-03-01T00:00:00Z",
        "metadata": {"fair": 1},
    }
    answer = await shop.staff.post("/v1/discounts", json={"code": " fair-26 ", **fields})
    assert answer.status_code == 201
    made = good(answer)
    assert made == {
        "id": made["id"],
        "code": "FAIR-26",
        **fields,
        "price_ids": [],
        "rails": [],
        "stage": "checkout",
        "auto_apply": False,
        "recurring": False,
        "max_periods": None,
        "group_id": None,
        "customer_id": None,
        "per_customer_limit": None,
        "times_used": 0,
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert good(await shop.staff.get(f"/v1/discounts/{made['id']}")) == made
    assert good(await shop.staff.get("/v1/discounts")) == {"data": [made], "next": None}
    assert (await shop.row("events", object_id=made["id"]))["type"] == "discount.created"


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"code": ""}, "/code", "invalid_request"),
        ({"code": "TWO WORDS"}, "/code", "invalid_request"),
        ({"code": "É"}, "/code", "invalid_request"),
        ({"code": "X" * 65}, "/code", "invalid_request"),
        ({"amount": -1}, "/amount", "invalid_request"),
        ({"amount": 10_001}, "/amount", "invalid_request"),
        ({"kind": "free", "amount": 1}, "/amount", "invalid_request"),
        ({"kind": "flat", "asset": "USD", "amount": MAX_AMOUNT + 1}, "/amount", "invalid_request"),
        ({"asset": "USD"}, "/asset", "invalid_request"),
        ({"kind": "free", "asset": "USD"}, "/asset", "invalid_request"),
        ({"kind": "flat"}, "/asset", "invalid_request"),
        ({"kind": "set_price"}, "/asset", "invalid_request"),
        ({"kind": "flat", "asset": "XYZ"}, "/asset", "unknown_asset"),
        ({"usage_limit": 0}, "/usage_limit", "invalid_request"),
        ({"usage_limit": -1}, "/usage_limit", "invalid_request"),
        ({"starts_at": "2026-01-02T03:04:05"}, "/starts_at", "invalid_request"),
        ({"expires_at": "2026-01-02T03:04:05"}, "/expires_at", "invalid_request"),
        (
            {"starts_at": "2026-03-01T00:00:00Z", "expires_at": "2026-02-01T00:00:00Z"},
            "/expires_at",
            "invalid_request",
        ),
        (
            {"starts_at": "2026-03-01T01:00:00+01:00", "expires_at": "2026-03-01T00:00:00Z"},
            "/expires_at",
            "invalid_request",
        ),
        ({"description": "x" * 2_001}, "/description", "invalid_request"),
        ({"metadata": {"k": "x" * (10 * 1024)}}, "/metadata", "invalid_request"),
    ],
)
async def test_a_bad_field_is_named_and_changes_nothing(
    shop: Shop, fields: dict[str, Any], pointer: str, code: str
) -> None:
    before = await shop.everything()
    body = {"code": "CODE", "kind": "percentage", **fields}
    told = problem(await shop.staff.post("/v1/discounts", json=body), 422, code)
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_a_moment_beyond_the_calendar_is_refused_or_kept(shop: Shop) -> None:
    """The first and the last hours there are, in time zones where they are not within the years 1 to 9999."""
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        body = {"code": "CODE", "kind": "free", "starts_at": moment}
        before = await shop.everything()
        problem(await shop.staff.post("/v1/discounts", json=body), 422, "invalid_request")
        assert await shop.everything() == before


async def test_a_code_is_taken_once_in_either_case(shop: Shop) -> None:
    first = await shop.discount("fair")
    before = await shop.everything()
    for code in ("FAIR", "fair", " Fair "):
        answer = await shop.staff.post("/v1/discounts", json={"code": code, "kind": "free"})
        problem(answer, 409, "code_taken")
    assert await shop.everything() == before
    good(await shop.staff.patch(f"/v1/discounts/{first}", json={"status": "archived"}))
    problem(await shop.staff.post("/v1/discounts", json={"code": "fair", "kind": "free"}), 409, "code_taken")


async def test_an_archived_code_is_refused_until_it_comes_back(shop: Shop) -> None:
    sold = await shop.tier()
    discount = await shop.discount("HALF", amount=5_000)
    early = await shop.checkout(sold, code="HALF")
    at = f"/v1/discounts/{discount}"
    assert good(await shop.staff.patch(at, json={"status": "archived"}))["status"] == "archived"
    await refused(shop, "discount_inactive", sold, code="HALF")
    await shop.play(early, "pay")  # who was quoted it pays what was quoted
    assert (await shop.row("orders"))["amount"] == 10_500
    assert good(await shop.staff.patch(at, json={"status": "active"}))["status"] == "active"
    assert (await shop.checkout(sold, code="HALF"))["amount"] == 10_500


async def test_only_the_status_changes(shop: Shop) -> None:
    discount = await shop.discount("HALF", amount=5_000)
    before = await shop.everything()
    for body in ({"amount": 1}, {"status": "deleted"}, {}, {"status": "archived", "code": "X"}):
        answer = await shop.staff.patch(f"/v1/discounts/{discount}", json=body)
        problem(answer, 422, "invalid_request")
    problem(await shop.staff.patch(f"/v1/discounts/{NOBODY}", json={"status": "archived"}), 404, "discount_not_found")
    problem(await shop.staff.get(f"/v1/discounts/{NOBODY}"), 404, "discount_not_found")
    problem(await shop.http.get("/v1/discounts"), 401, "unauthorized")
    assert await shop.everything() == before


async def test_discounts_come_in_pages_that_stay_the_same_while_some_are_added(shop: Shop) -> None:
    for place in range(5):
        await shop.discount(f"CODE-{place}")
        shop.clock.advance(SECOND)
    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = good(await shop.staff.get("/v1/discounts", params={"limit": 2, **after}))
        seen += [row["code"] for row in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
        if len(seen) == 2:
            await shop.discount("ADDED")
    assert seen == ["CODE-0", "CODE-1", "CODE-2", "CODE-3", "CODE-4", "ADDED"]
    for wrong in ("0", "101"):
        problem(await shop.staff.get("/v1/discounts", params={"limit": wrong}), 422, "invalid_request")


# -- what it takes off --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "quantity", "fields", "taken"),
    [
        # Percentages in basis points: exact where they can be, else half up, once for the whole line.
        (1_000, 1, {"kind": "percentage", "amount": 3_333}, 333),  # 333.3
        (1_000, 3, {"kind": "percentage", "amount": 3_333}, 1_000),  # 999.9, not 3 x 333
        (1_000, 1, {"kind": "percentage", "amount": 6_667}, 667),  # 666.7
        (1, 1, {"kind": "percentage", "amount": 5_000}, 1),  # 0.5
        (3, 1, {"kind": "percentage", "amount": 5_000}, 2),  # 1.5
        (5, 1, {"kind": "percentage", "amount": 5_000}, 3),  # 2.5: half up, not half to even
        (1, 3, {"kind": "percentage", "amount": 5_000}, 2),  # 1.5
        (4, 1, {"kind": "percentage", "amount": 1_250}, 1),  # 0.5
        (12, 1, {"kind": "percentage", "amount": 1_250}, 2),  # 1.5
        (1, 1, {"kind": "percentage", "amount": 4_999}, 0),  # 0.4999
        (9_999, 1, {"kind": "percentage", "amount": 1}, 1),  # 0.9999
        (4_999, 1, {"kind": "percentage", "amount": 1}, 0),  # 0.4999
        (5_000, 1, {"kind": "percentage", "amount": 1}, 1),  # 0.5
        (999, 1, {"kind": "percentage", "amount": 0}, 0),
        (999, 7, {"kind": "percentage", "amount": 10_000}, 6_993),
        (MAX_AMOUNT, 1, {"kind": "percentage", "amount": 3_333}, 2_999_700_000_000_000),
        (MAX_AMOUNT - 1, 1, {"kind": "percentage", "amount": 5_000}, 4_500_000_000_000_000),  # ...999.5
        # Flat: once for the line, whatever its quantity, and never more than it costs.
        (1_000, 1, {"kind": "flat", "amount": 1, "asset": "USD"}, 1),
        (1_000, 3, {"kind": "flat", "amount": 250, "asset": "USD"}, 250),
        (1_000, 3, {"kind": "flat", "amount": 3_001, "asset": "USD"}, 3_000),
        (1_000, 3, {"kind": "flat", "amount": 0, "asset": "USD"}, 0),
        # Off each seat.
        (1_000, 3, {"kind": "flat_per_seat", "amount": 250, "asset": "USD"}, 750),
        (1_000, 3, {"kind": "flat_per_seat", "amount": 1_001, "asset": "USD"}, 3_000),
        # A price of its own: for each unit, and never a higher one.
        (1_000, 3, {"kind": "set_price", "amount": 750, "asset": "USD"}, 750),
        (1_000, 3, {"kind": "set_price", "amount": 0, "asset": "USD"}, 3_000),
        (1_000, 3, {"kind": "set_price", "amount": 1_000, "asset": "USD"}, 0),
        (1_000, 3, {"kind": "set_price", "amount": 1_001, "asset": "USD"}, 0),
        (1_000, 3, {"kind": "free"}, 3_000),
    ],
)
async def test_what_a_code_takes_off(shop: Shop, unit: int, quantity: int, fields: dict[str, Any], taken: int) -> None:
    sold = await shop.tier(amount=unit, asset="USD")
    await shop.discount("CODE", **fields)
    opened = await shop.checkout((sold, quantity), code="CODE")
    assert opened["amount"] == unit * quantity - taken
    line, cart, redemption = [await shop.row(name) for name in ("cart_lines", "carts", "discount_redemptions")]
    assert (line["subtotal"], line["discount_total"], line["total"]) == (
        unit * quantity,
        taken,
        unit * quantity - taken,
    )
    assert (cart["subtotal"], cart["discount_total"], cart["total"]) == (
        line["subtotal"],
        line["discount_total"],
        line["total"],
    )
    assert (redemption["amount"], redemption["asset"]) == (taken, "USD")


async def test_a_percentage_is_rounded_on_each_line(shop: Shop) -> None:
    one, other = await shop.tier(amount=1), await shop.tier("viewer", amount=1)
    await shop.discount("HALF", amount=5_000)
    assert (await shop.checkout(one, other, code="HALF"))["amount"] == 0
    assert sorted(line["discount_total"] for line in await shop.rows("cart_lines")) == [1, 1]


async def test_a_flat_amount_is_taken_once_and_spread_over_the_lines(shop: Shop) -> None:
    sold = [await shop.tier(f"p-{place}", amount=300, asset="USD") for place in range(3)]
    await shop.discount("FLAT", kind="flat", amount=500, asset="USD")
    assert (await shop.checkout(*sold, code="FLAT"))["amount"] == 400
    assert sorted(line["discount_total"] for line in await shop.rows("cart_lines")) == [166, 167, 167]


async def test_only_what_it_is_for_gets_cheaper(shop: Shop) -> None:
    solo = await shop.tier(amount=1_000)
    team = await shop.tier(tier="team", amount=5_000)
    viewer = await shop.tier("viewer", amount=2_000)
    await shop.discount("EDITOR", amount=1_000, product_ids=[solo.product_id])
    await shop.discount("TEAM", amount=1_000, tiers=["team"])
    await shop.discount("BOTH", amount=1_000, product_ids=[viewer.product_id], tiers=["team"])
    amounts = {}
    for code in ("EDITOR", "TEAM"):
        opened = await shop.checkout(solo, team, viewer, code=code)
        amounts[code] = opened["amount"]
    assert amounts == {"EDITOR": 8_000 - 600, "TEAM": 8_000 - 500}
    await refused(shop, "discount_not_applicable", viewer, code="EDITOR")
    await refused(shop, "discount_not_applicable", solo, viewer, code="TEAM")
    await refused(shop, "discount_not_applicable", solo, team, viewer, code="BOTH")


@pytest.mark.parametrize("kind", ["flat", "set_price"])
async def test_money_off_is_in_its_own_asset(shop: Shop, kind: str) -> None:
    yen = await shop.tier(amount=1_500, asset="JPY")
    dollars = await shop.tier("viewer", amount=1_500, asset="USD")
    await shop.discount("YEN", kind=kind, amount=1_000, asset="JPY")
    assert (await shop.checkout(yen, code="YEN"))["amount"] == (500 if kind == "flat" else 1_000)
    await refused(shop, "discount_not_applicable", dollars, code="YEN")


async def test_a_country_price_is_what_is_discounted(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000, country_overrides=[{"countries": ["IN"], "unit_amount": 301}])
    await shop.discount("HALF", amount=5_000)
    assert (await shop.checkout(sold, code="HALF", country="IN"))["amount"] == 150  # 150.5 are taken off as 151


# -- codes, times and limits --------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["SPRING", "spring", "Spring", "  spring\t"])
async def test_codes_are_the_same_in_either_case(shop: Shop, typed: str) -> None:
    sold = await shop.tier(amount=1_000)
    await shop.discount("sPrInG", amount=1_000)
    assert (await shop.checkout(sold, code=typed))["amount"] == 900


@pytest.mark.parametrize("typed", ["NOSUCH", "", " ", "SPR ING", "SPRÏNG", "SPRING;--", "x" * 1_000])
async def test_a_code_there_is_not(shop: Shop, typed: str) -> None:
    await shop.discount("SPRING", amount=1_000)
    await refused(shop, "discount_not_found", await shop.tier(), code=typed)


async def test_a_code_is_good_from_its_start_to_its_end(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    begins, ends = shop.clock.now() + timedelta(hours=1), shop.clock.now() + timedelta(hours=2)
    window = {"starts_at": begins.isoformat(), "expires_at": ends.isoformat()}
    await shop.discount("HOUR", amount=1_000, **window)
    shop.clock.advance(timedelta(hours=1) - MICROSECOND)
    await refused(shop, "discount_inactive", sold, code="HOUR")
    shop.clock.advance(MICROSECOND)
    assert (await shop.checkout(sold, code="HOUR"))["amount"] == 900
    shop.clock.advance(timedelta(hours=1) - MICROSECOND)
    last = await shop.checkout(sold, code="HOUR")
    shop.clock.advance(MICROSECOND)
    await refused(shop, "discount_expired", sold, code="HOUR")
    # Whoever opened a checkout in time has the discount for as long as the quote holds.
    await shop.play(last, "pay")
    assert (await shop.row("orders"))["amount"] == 900


async def test_a_window_in_another_time_zone_is_the_same_window(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    await shop.discount("TOKYO", amount=1_000, starts_at="2026-01-02T12:04:06+09:00")  # 03:04:06 UTC
    await refused(shop, "discount_inactive", sold, code="TOKYO")
    shop.clock.advance(SECOND)
    assert (await shop.checkout(sold, code="TOKYO"))["amount"] == 900


async def test_no_more_uses_than_the_limit(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    discount = await shop.discount("TWICE", amount=1_000, usage_limit=2)
    opened = [await shop.checkout((sold, 3), code="TWICE") for _ in range(2)]  # a checkout is one use
    await refused(shop, "discount_exhausted", sold, code="TWICE")
    await shop.play(opened[0], "pay")
    await shop.play(opened[1], "expire")
    uses = good(await shop.staff.get(f"/v1/discounts/{discount}"))["times_used"]
    assert uses == 1  # what was not paid is given back
    assert (await shop.checkout(sold, code="TWICE"))["amount"] == 900
    await refused(shop, "discount_exhausted", sold, code="TWICE")


async def test_a_limit_holds_however_many_ask_for_it_free(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    discount = await shop.discount("GIFTS", kind="free", usage_limit=3)
    answers = await asyncio.gather(*(shop.try_checkout(sold, code="GIFTS") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 17
    assert good(await shop.staff.get(f"/v1/discounts/{discount}"))["times_used"] == 3
    assert [await shop.count(name) for name in ("orders", "licenses", "checkouts")] == [3, 3, 3]
