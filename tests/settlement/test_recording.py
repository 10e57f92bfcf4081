"""Money that staff writes down itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

CASH: dict[str, Any] = {"reference": "receipt 7", "amount": 1200, "asset": "EUR"}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def test_money_that_stands_for_itself(shop: Shop) -> None:
    buyer = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "Acme"}))["id"]
    made = good(await shop.staff.post("/v1/payments", json={**CASH, "customer_id": buyer, "payer": "Ada"}))
    assert {name: made[name] for name in ("rail", "reference", "amount", "asset", "status", "payer")} == {
        "rail": "manual", "reference": "receipt 7", "amount": 1200, "asset": "EUR", "status": "settled", "payer": "Ada",
    }  # fmt: skip
    assert made["customer_id"] == buyer
    assert good(await shop.staff.get(f"/v1/payments/{made['id']}")) == made
    assert good(await shop.staff.get("/v1/payments?attention=true"))["data"] == []
    before = await shop.everything()
    problem(await shop.staff.post("/v1/payments", json=CASH), 409, "payment_exists")
    assert await shop.everything() == before
    good(await shop.staff.post("/v1/payments", json={**CASH, "rail": "bank"}))


@pytest.mark.parametrize("by", ["checkout_id", "claim"])
async def test_money_for_a_checkout_fulfills_it(shop: Shop, by: str) -> None:
    sold = await shop.tier(amount=1200, asset="EUR")
    opened = await shop.checkout(sold)
    name = opened["id"] if by == "checkout_id" else opened["claim"]
    short = {**CASH, "reference": "first", "amount": 200, by: name}
    assert good(await shop.staff.post("/v1/payments", json=short))["status"] == "underpaid"
    assert (await shop.claim(opened))["status"] == "processing"
    rest = {**CASH, "amount": 1000, by: name}
    made = good(await shop.staff.post("/v1/payments", json=rest))
    assert (made["status"], made["checkout_id"]) == ("settled", opened["id"])
    done = await shop.claim(opened)
    assert (done["status"], done["paid"], len(done["license_keys"])) == ("settled", 1200, 1)
    before = await shop.everything()
    problem(await shop.staff.post("/v1/payments", json=rest), 409, "payment_exists")
    assert await shop.everything() == before


async def test_a_batch_is_all_or_none(shop: Shop) -> None:
    sold = await shop.tier(amount=1200, asset="EUR")
    opened = await shop.checkout(sold)
    parts = [{**CASH, "reference": str(n), "amount": 600, "checkout_id": opened["id"]} for n in range(2)]
    before = await shop.everything()
    bad: list[tuple[list[dict[str, Any]], int, str]] = [
        ([*parts, {**CASH, "reference": "1"}], 409, "payment_exists"),
        ([*parts, {**CASH, "checkout_id": "chk_00000000000000000000000000"}], 404, "checkout_not_found"),
        ([], 422, "invalid_request"),
        ([{**CASH, "reference": str(n)} for n in range(101)], 422, "invalid_request"),
    ]
    for batch, status, code in bad:
        problem(await shop.staff.post("/v1/payments/batch", json={"payments": batch}), status, code)
    wrong = [*parts, {**CASH, "amount": -1}]
    refused = problem(await shop.staff.post("/v1/payments/batch", json={"payments": wrong}), 422, "invalid_request")
    assert [error["pointer"] for error in refused["errors"]] == ["/payments/2/amount"]
    assert await shop.everything() == before
    made = good(await shop.staff.post("/v1/payments/batch", json={"payments": parts}))["payments"]
    assert [(one["reference"], one["status"]) for one in made] == [("0", "settled"), ("1", "settled")]
    assert (await shop.claim(opened))["status"] == "settled"


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"rail": "sandbox"}, "rail_taken", "/rail"),
        ({"rail": "free"}, "rail_taken", "/rail"),
        ({"rail": "stripe"}, "rail_taken", "/rail"),
        ({"rail": "By Hand"}, "invalid_request", "/rail"),
        ({"reference": ""}, "invalid_request", "/reference"),
        ({"reference": "a\nb"}, "invalid_request", "/reference"),
        ({"reference": "a" * 201}, "invalid_request", "/reference"),
        ({"amount": -1}, "invalid_request", "/amount"),
        ({"amount": 9_000_000_000_000_001}, "invalid_request", "/amount"),
        ({"asset": "XXY"}, "invalid_request", "/asset"),
        ({"occurred_at": "2026-01-02T04:04:05Z"}, "invalid_request", "/occurred_at"),
        ({"occurred_at": "2025-01-02T04:04:05"}, "invalid_request", "/occurred_at"),
        ({"checkout_id": "c", "customer_id": "c"}, "invalid_request", "/customer_id"),
        ({"checkout_id": "c", "claim": "c"}, "invalid_request", "/claim"),
        ({"details": {"a": "x" * 11_000}}, "invalid_request", "/details"),
    ],
)
async def test_bad_input(shop: Shop, fields: dict[str, Any], code: str, pointer: str) -> None:
    before = await shop.everything()
    refused = problem(await shop.staff.post("/v1/payments", json={**CASH, **fields}), 422, code)
    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_unknown_places(shop: Shop) -> None:
    before = await shop.everything()
    for field, code in (("checkout_id", "checkout_not_found"), ("claim", "checkout_not_found"),
                        ("customer_id", "customer_not_found")):  # fmt: skip
        problem(await shop.staff.post("/v1/payments", json={**CASH, field: "nothing"}), 404, code)
    assert await shop.everything() == before


async def test_a_hundred_at_once_are_one(shop: Shop) -> None:
    sold = await shop.tier(amount=1200, asset="EUR")
    opened = await shop.checkout(sold)
    body = {**CASH, "checkout_id": opened["id"]}
    answers = await asyncio.gather(*(shop.staff.post("/v1/payments", json=body) for _ in range(100)))
    assert sorted(one.status_code for one in answers) == [201] + [409] * 99
    assert (await shop.row("payments"))["status"] == "settled"
    assert len(await shop.rows("orders")) == 1
