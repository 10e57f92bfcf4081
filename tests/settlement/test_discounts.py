"""Which discounts a cart gets, how often each can be used, and that every way out gives its use back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, Sold, competitor, good, opening, problem

from counterfoil.catalog import redemptions
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.tables import checkouts
from counterfoil.settlement import holds
from counterfoil.settlement.checkout import OpenCheckout, give_up, open_checkout

QUOTE = timedelta(minutes=15)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def automatic(shop: Shop, amount: int = 1_000, **fields: Any) -> str:
    """Its id."""
    body = {"kind": "percentage", "amount": amount, "auto_apply": True, **fields}
    return str(good(await shop.staff.post("/v1/discounts", json=body))["id"])


async def customer(shop: Shop, name: str = "Acme") -> str:
    return str(good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": name}))["id"])


async def uses(shop: Shop, id_: str) -> int:
    return int((await shop.row("discounts", id=id_))["times_used"])


async def line_notes(shop: Shop) -> list[tuple[str, int]]:
    """Of the latest line: which discount took how much."""
    line = (await shop.rows("cart_lines"))[-1]
    return [(note["discount_id"], note["amount"]) for note in line["discounts"]]


async def amount(shop: Shop, *lines: Sold | tuple[Sold, int], **fields: Any) -> int:
    return int((await shop.checkout(*lines, **fields))["amount"])


# -- which ones ---------------------------------------------------------------------------------------


async def test_the_vector(shop: Shop) -> None:
    """$10 with 10 %, 20 %, $1 and $0.50 costs $5.70, however they got in."""
    sold = await shop.tier(amount=1_000, asset="USD")
    buyer = await customer(shop)
    body = {"kind": "percentage", "customer_id": buyer, "amount": 1_000}
    margin = good(await shop.staff.post("/v1/discounts", json=body))["id"]
    first = await automatic(shop, 2_000)
    shop.clock.advance(timedelta(seconds=1))
    second = await automatic(shop, 100, kind="flat", asset="USD")
    typed = await shop.discount("HALF-A-DOLLAR", kind="flat", amount=50, asset="USD")
    wanted = {"lines": [{"price_id": sold.price_id}], "code": "half-a-dollar"}
    opened = good(await shop.staff.post(f"/v1/customers/{buyer}/checkouts", json=wanted))
    assert opened["amount"] == 570
    assert await line_notes(shop) == [(margin, 100), (first, 180), (second, 100), (typed, 50)]
    assert [await uses(shop, id_) for id_ in (margin, first, second, typed)] == [0, 1, 1, 1]
    held = {row["discount_id"]: row["amount"] for row in await shop.rows("discount_redemptions")}
    assert held == {margin: 100, first: 180, second: 100, typed: 50}


async def test_what_applies_by_itself(shop: Shop) -> None:
    sold, other = await shop.tier(amount=1_000, asset="USD"), await shop.tier("viewer", amount=1_000, asset="USD")
    now = shop.clock.now()
    one = await automatic(shop, 1_000, price_ids=[sold.price_id])
    await automatic(shop, 5_000, starts_at=(now + timedelta(days=1)).isoformat())
    await automatic(shop, 5_000, expires_at=(now + timedelta(minutes=1)).isoformat(), product_ids=["pro_other"])
    await automatic(shop, 5_000, rails=["stripe"])
    await automatic(shop, 5_000, tiers=["team"])
    await automatic(shop, 2_000, kind="set_price", asset="USD")  # which never makes dearer, and so is not used
    assert await amount(shop, sold, other) == 1_900
    assert [row["discount_id"] for row in await shop.rows("discount_redemptions")] == [one]
    assert await amount(shop, other) == 1_000
    good(await shop.staff.patch(f"/v1/discounts/{one}", json={"status": "archived"}))
    assert await amount(shop, sold) == 1_000
    shop.clock.advance(timedelta(days=1))
    assert await amount(shop, sold) == 500


async def test_a_code_that_applies_by_itself_counts_once(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    both = await automatic(shop, 1_000, code="BOTH")
    assert await amount(shop, sold) == 900
    assert await amount(shop, sold, code="both") == 900
    assert await uses(shop, both) == 2


async def test_of_a_group_a_cart_gets_one(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000, asset="USD")
    await automatic(shop, 1_000, group_id="spring")
    best = await automatic(shop, 150, kind="flat", asset="USD", group_id="spring")
    await automatic(shop, 500, group_id="other")
    assert await amount(shop, sold) == 1_000 - 50 - 150
    assert best in {id_ for id_, _ in await line_notes(shop)}
    typed = await shop.discount("SMALL", amount=100, group_id="spring")
    shop.clock.advance(timedelta(seconds=1))  # so that this cart's line is the last
    assert await amount(shop, sold, code="SMALL") == 940  # 50 and 9.5 are taken off as 60
    assert typed in {id_ for id_, _ in await line_notes(shop)}


async def test_of_two_that_are_worth_the_same_the_older_counts(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    older = await automatic(shop, 1_000, group_id="g")
    shop.clock.advance(timedelta(seconds=1))
    await automatic(shop, 1_000, group_id="g")
    assert await amount(shop, sold) == 900
    assert await line_notes(shop) == [(older, 100)]


async def test_a_code_for_another_rail(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    await shop.discount("BTC", amount=1_000, rails=["btcpay", "solana"])
    await shop.discount("PLAY", amount=1_000, rails=["sandbox"])
    before = await shop.everything()
    told = problem(await shop.try_checkout(sold, code="BTC"), 422, "discount_wrong_rail")
    assert "btcpay or solana" in told["detail"]
    body = {"lines": [{"price_id": sold.price_id}], "code": "PLAY"}
    problem(await shop.http.post("/v1/carts", json=body), 422, "discount_wrong_rail")  # which rail, nobody knows yet
    assert await shop.everything() == before
    assert await amount(shop, sold, code="PLAY") == 900
    assert good(await shop.http.post("/v1/carts", json={**body, "rail": "sandbox"}))["total"] == 900


# -- limits -------------------------------------------------------------------------------------------


async def test_so_often_for_each_customer(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("ONCE-EACH", amount=1_000, per_customer_limit=1)
    before = await shop.everything()
    told = problem(await shop.try_checkout(sold, code="ONCE-EACH"), 422, "buyer_required")
    assert [error["pointer"] for error in told["errors"]] == ["/email"]
    assert await shop.everything() == before
    first = await shop.checkout(sold, code="ONCE-EACH", email="Ann@x.example")
    problem(await shop.try_checkout(sold, code="ONCE-EACH", email="ann@x.example"), 422, "discount_exhausted")
    assert await amount(shop, sold, code="ONCE-EACH", email="bob@x.example") == 900
    buyer = await customer(shop)
    wanted = {"lines": [{"price_id": sold.price_id}], "code": "once-each", "email": "ann@x.example"}
    good(await shop.staff.post(f"/v1/customers/{buyer}/checkouts", json=wanted))
    problem(await shop.staff.post(f"/v1/customers/{buyer}/checkouts", json=wanted), 422, "discount_exhausted")
    counted = {row["buyer"]: row["times_used"] for row in await shop.rows("discount_buyers")}
    assert counted == {"email:ann@x.example": 1, "email:bob@x.example": 1, buyer: 1}
    await shop.play(first, "expire")
    assert await uses(shop, id_) == 2
    again = await shop.checkout(sold, code="ONCE-EACH", email="ann@x.example")
    await shop.play(again, "pay")
    assert await uses(shop, id_) == 3
    problem(await shop.try_checkout(sold, code="ONCE-EACH", email="ann@x.example"), 422, "discount_exhausted")


async def test_late_money_takes_the_buyers_use_again_if_there_is_one(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    await shop.discount("ONCE-EACH", amount=1_000, per_customer_limit=1)
    fields = {"code": "ONCE-EACH", "email": "ann@x.example"}
    late, later = await shop.checkout(sold, **fields), None
    shop.clock.advance(QUOTE)
    await shop.house.runner().run_due()
    assert (await shop.row("discount_buyers"))["times_used"] == 0
    later = await shop.checkout(sold, **fields)
    await shop.play(late, "pay")
    assert await shop.count("orders") == 0  # the use is the later checkout's
    assert [(row["times_used"]) for row in await shop.rows("discounts")] == [1]
    await shop.play(later, "expire")
    assert (await shop.row("discount_buyers"))["times_used"] == 0


async def test_an_automatic_one_with_a_limit_per_customer(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    await automatic(shop, 1_000, per_customer_limit=1)
    assert await amount(shop, sold) == 1_000  # nobody to count
    assert await amount(shop, sold, email="ann@x.example") == 900
    assert await amount(shop, sold, email="ann@x.example") == 1_000


async def test_an_automatic_one_that_is_used_up_is_left_out(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await automatic(shop, 1_000, usage_limit=2)
    assert [await amount(shop, sold) for _ in range(3)] == [900, 900, 1_000]
    assert await uses(shop, id_) == 2


@TRANSACTIONS_OVERLAP
async def test_an_automatic_one_that_runs_out_meanwhile_is_left_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the count, a rival takes the last use: the next best of its group comes in."""
    sold = await shop.tier(amount=1_000)
    await shop.checkout(sold)  # quoted once, so that the two do not meet at the price
    last = await automatic(shop, 1_000, usage_limit=1, group_id="g")
    second = await automatic(shop, 500, group_id="g")

    def buy(tx: Tx) -> int:
        wanted = OpenCheckout(lines=[WantedLine(price_id=sold.price_id)], rail="sandbox", holds_for=QUOTE)
        return open_checkout(tx, wanted).checkout.amount

    rival = competitor(monkeypatch, redemptions, "count", shop.scope, buy)
    opened = await shop.checkout(sold)
    assert (rival, opened["amount"]) == ([900], 950)
    assert [await uses(shop, id_) for id_ in (last, second)] == [1, 1]
    assert await shop.count("discount_redemptions") == 2


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_two_hundred_buyers_of_a_few_uses(shop: Shop, limit: int) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("FEW", amount=1_000, usage_limit=limit)
    answers = await asyncio.gather(*[shop.try_checkout(sold, code="FEW") for _ in range(200)])
    won = [good(answer) for answer in answers if answer.status_code == 201]
    assert len(won) == limit
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, 422, "discount_exhausted")
    assert await uses(shop, id_) == limit
    assert [await shop.count(name) for name in ("checkouts", "carts", "discount_redemptions")] == [limit] * 3
    shop.clock.advance(QUOTE)
    await shop.house.runner().run_due()
    assert await uses(shop, id_) == 0


async def test_two_hundred_buyers_of_a_few_automatic_uses(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await automatic(shop, 1_000, usage_limit=10)
    answers = [good(one) for one in await asyncio.gather(*[shop.try_checkout(sold) for _ in range(200)])]
    assert sorted(one["amount"] for one in answers) == [900] * 10 + [1_000] * 190
    assert await uses(shop, id_) == 10


async def test_a_hundred_checkouts_of_one_buyer(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("EACH", amount=1_000, per_customer_limit=3)
    fields = {"code": "EACH", "email": "ann@x.example"}
    answers = await asyncio.gather(*[shop.try_checkout(sold, **fields) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 97
    assert (await shop.row("discount_buyers"))["times_used"] == await uses(shop, id_) == 3


# -- every way out ------------------------------------------------------------------------------------


async def test_every_way_out_gives_back(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("ONE", amount=1_000, usage_limit=1, per_customer_limit=1)
    fields = {"code": "ONE", "email": "ann@x.example"}

    async def counted() -> tuple[int, int]:
        return await uses(shop, id_), (await shop.row("discount_buyers"))["times_used"]

    wanted = OpenCheckout(
        lines=[WantedLine(price_id=sold.price_id)], rail="sandbox", holds_for=QUOTE, code="ONE", email="ann@x.example"
    )
    refused = (await shop.scope.run(open_checkout, wanted)).checkout
    assert await counted() == (1, 1)
    await shop.scope.run(give_up, refused.id, why="The rail said no.")
    assert await counted() == (0, 0)
    for way in ("expire", "cancel", "job"):
        opened = await shop.checkout(sold, **fields)
        assert await counted() == (1, 1)
        match way:
            case "cancel":
                good(await shop.http.post(f"/v1/claims/{opened['claim']}/cancel"))
            case "job":
                shop.clock.advance(QUOTE)
                await shop.house.runner().run_due()
            case "expire":
                await shop.play(opened, "expire")
        assert await counted() == (0, 0), way
    assert {row["status"] for row in await shop.rows("discount_redemptions")} == {"released"}


async def test_what_a_crash_left_reserved_is_found(shop: Shop) -> None:
    """A checkout that is over and holds something all the same: the job gives it back."""
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("ONE", amount=1_000, usage_limit=1)
    opened = await shop.checkout(sold, code="ONE")

    def end(tx: Tx) -> None:
        tx.execute(sa.update(checkouts).where(mine(checkouts)).values(status="expired"))

    assert await shop.scope.run(holds.reap) == 0
    await shop.scope.run(end)
    assert await uses(shop, id_) == 1
    await shop.house.runner().run_due()
    assert await uses(shop, id_) == 0
    assert (await shop.row("discount_redemptions", checkout_id=opened["id"]))["status"] == "released"
    assert await shop.scope.run(holds.reap) == 0


# -- changed ------------------------------------------------------------------------------------------


async def test_what_may_change(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("CODE", amount=1_000, usage_limit=5)
    for _ in range(2):
        await shop.checkout(sold, code="CODE")
    at = f"/v1/discounts/{id_}"
    before = await shop.everything()
    problem(await shop.staff.patch(at, json={"usage_limit": 1}), 409, "limit_below_uses")
    wrong: list[dict[str, Any]] = [
        {"usage_limit": 0},
        {"per_customer_limit": 0},
        {"description": "x" * 2_001},
        {"expires_at": "2026-02-01T00:00:00"},
        {"metadata": {"k": "x" * 10_240}},
        {},
        {"kind": "free"},
    ]
    for changes in wrong:
        problem(await shop.staff.patch(at, json=changes), 422, "invalid_request")
    assert await shop.everything() == before
    changes = {
        "description": "Two.",
        "usage_limit": 2,
        "per_customer_limit": 1,
        "expires_at": "2026-02-01T01:00:00+01:00",
        "metadata": {"a": 1},
    }
    changed = good(await shop.staff.patch(at, json=changes))
    assert {name: changed[name] for name in changes} == {**changes, "expires_at": "2026-02-01T00:00:00Z"}
    assert good(await shop.staff.get(at)) == changed
    problem(await shop.try_checkout(sold, code="CODE", email="a@x.example"), 422, "discount_exhausted")
    shop.clock.advance(timedelta(seconds=1))
    good(await shop.staff.patch(at, json={"usage_limit": None, "per_customer_limit": None, "expires_at": None}))
    assert await amount(shop, sold, code="CODE") == 900
    (event, *_) = [row for row in await shop.rows("events", object_id=id_) if row["type"] == "discount.updated"]
    assert event["details"] == {
        "changed": ["description", "expires_at", "metadata", "per_customer_limit", "usage_limit"]
    }


async def test_a_limit_is_lowered_while_two_hundred_buy(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000)
    id_ = await shop.discount("CODE", amount=1_000, usage_limit=50)
    at = f"/v1/discounts/{id_}"
    buyers = [shop.try_checkout(sold, code="CODE") for _ in range(100)]
    changes = [shop.staff.patch(at, json={"usage_limit": limit}) for limit in range(40, 20, -1)]
    answers = await asyncio.gather(*buyers, *changes)
    assert {answer.status_code for answer in answers} <= {200, 201, 409, 422}
    row = await shop.row("discounts")
    won = sum(answer.status_code == 201 for answer in answers)
    assert (row["times_used"], row["times_used"] <= row["usage_limit"]) == (won, True)


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({}, "/code", "code_or_customer"),
        ({"auto_apply": True, "kind": "flat", "asset": "USD", "stage": "catalog"}, "/stage", "invalid_request"),
        ({"code": "C", "kind": "flat_per_seat"}, "/asset", "invalid_request"),
        ({"code": "C", "max_periods": 3}, "/max_periods", "invalid_request"),
        ({"code": "C", "recurring": True, "max_periods": 0}, "/max_periods", "invalid_request"),
        ({"code": "C", "per_customer_limit": 0}, "/per_customer_limit", "invalid_request"),
        ({"code": "C", "group_id": "two words"}, "/group_id", "invalid_request"),
        ({"code": "C", "rails": ["a b"]}, "/rails/0", "invalid_request"),
        ({"code": "C", "price_ids": ["x"] * 501}, "/price_ids", "invalid_request"),
        ({"customer_id": "cus_x", "auto_apply": True}, "/auto_apply", "invalid_request"),
        ({"customer_id": "cus_x", "per_customer_limit": 1}, "/per_customer_limit", "margin_usage_limit"),
    ],
)
async def test_a_discount_that_makes_no_sense(shop: Shop, fields: dict[str, Any], pointer: str, code: str) -> None:
    before = await shop.everything()
    told = problem(await shop.staff.post("/v1/discounts", json={"kind": "percentage", **fields}), 422, code)
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_discounts_are_found_by_what_they_are(shop: Shop) -> None:
    one = await shop.discount("ONE", group_id="g")
    two = await automatic(shop, group_id="g")
    three = await automatic(shop, code="THREE", recurring=True, max_periods=3)
    good(await shop.staff.patch(f"/v1/discounts/{three}", json={"status": "archived"}))

    async def found(**query: Any) -> set[str]:
        return {row["id"] for row in good(await shop.staff.get("/v1/discounts", params=query))["data"]}

    assert await found(code=" one ") == {one}
    assert await found(group_id="g") == {one, two}
    assert await found(auto_apply=True) == {two, three}
    assert await found(auto_apply=False) == {one}
    assert await found(status="archived", auto_apply=True) == {three}
    assert await found(code="NOSUCH") == set()


# -- asked about --------------------------------------------------------------------------------------


async def test_what_a_code_would_take_off(shop: Shop) -> None:
    sold = await shop.tier(amount=1_000, asset="USD")
    await automatic(shop, 1_000)
    id_ = await shop.discount("LIST", amount=2_000, usage_limit=2, expires_at="2026-03-01T00:00:00Z")

    async def asked(**fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = good(await shop.staff.post("/v1/discounts/validate", json=fields))
        return answer

    before = await shop.everything()
    told = await asked(code=" list ", lines=[{"price_id": sold.price_id, "quantity": 2}])
    assert {name: told[name] for name in told if name != "discount"} == {
        "valid": True,
        "code": "LIST",
        "reason": None,
        "detail": None,
        "takes_off": 360,
        "total": 1_440,
        "asset": "USD",
        "remaining_uses": 2,
        "expires_at": "2026-03-01T00:00:00Z",
    }
    assert told["discount"]["id"] == id_
    assert (await asked(code="LIST", price_ids=[sold.price_id]))["takes_off"] == 180
    assert (await asked(code="LIST"))["takes_off"] is None
    told = await asked(code="NOSUCH", price_ids=[sold.price_id])
    assert (told["valid"], told["reason"]) == (False, "discount_not_found")
    nowhere = {"code": "LIST", "price_ids": ["pri_nobody"]}
    problem(await shop.staff.post("/v1/discounts/validate", json=nowhere), 404, "price_not_found")
    problem(await shop.http.post("/v1/discounts/validate", json={"code": "LIST"}), 401, "unauthorized")
    assert await shop.everything() == before
    for _ in range(2):
        await shop.checkout(sold, code="LIST")
    assert (await asked(code="LIST"))["reason"] == "discount_exhausted"


async def test_why_a_code_cannot_be_used(shop: Shop) -> None:
    sold, other = await shop.tier(amount=1_000), await shop.tier("viewer")
    await shop.discount("RAIL", rails=["btcpay"])
    await shop.discount("EACH", per_customer_limit=1)
    await shop.discount("OTHER", product_ids=[other.product_id])
    await shop.discount("LATER", starts_at="2026-03-01T00:00:00Z")
    await shop.discount("OVER", expires_at="2026-01-02T00:00:00Z")
    reasons = {}
    for code in ("RAIL", "EACH", "OTHER", "LATER", "OVER", "É"):
        body = {"code": code, "price_ids": [sold.price_id], "rail": "sandbox"}
        reasons[code] = good(await shop.staff.post("/v1/discounts/validate", json=body))["reason"]
    assert reasons == {
        "RAIL": "discount_wrong_rail",
        "EACH": "buyer_required",
        "OTHER": "discount_not_applicable",
        "LATER": "discount_inactive",
        "OVER": "discount_expired",
        "É": "discount_not_found",
    }
