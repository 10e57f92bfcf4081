"""Benefits: what a tier promises, from now on; what was promised before is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

SECOND = timedelta(seconds=1)
NOTHING_SAID = {
    "duration_seconds": 0,
    "grace_seconds": 0,
    "max_machines": 1,
    "is_trial": False,
    "entitlements": [],
}
NOBODY = "01j00000000000000000000000"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def product(shop: Shop) -> str:
    """The address of a new product's benefits."""
    made = good(await shop.staff.post("/v1/products", json={"slug": "editor", "name": "Editor"}))
    return f"/v1/products/{made['id']}/benefits"


async def test_a_benefit_in_every_detail(shop: Shop) -> None:
    at = await product(shop)
    spec = {
        "duration_seconds": 3_600,
        "grace_seconds": 60,
        "max_machines": 5,
        "is_trial": True,
        "entitlements": ["sync", "Export"],
    }
    made = good(await shop.staff.put(at, json={"tier": "team", "license": spec}))
    now = "2026-01-02T03:04:05.678901Z"
    assert made == {
        "id": made["id"],
        "product_id": at.split("/")[3],
        "tier": "team",
        "kind": "license",
        "spec": spec,
        "created_at": now,
        "updated_at": now,
    }
    assert good(await shop.staff.get(at)) == [made]
    shown = good(await shop.http.get("/v1/products/editor"))["benefits"]
    assert shown == [{"tier": "team", "kind": "license", "spec": spec}]
    assert (await shop.row("events", object_id=made["id"]))["type"] == "benefit.set"
    problem(await shop.http.get(at), 401, "unauthorized")


async def test_what_is_left_out_has_a_default(shop: Shop) -> None:
    made = good(await shop.staff.put(await product(shop), json={"license": {}}))
    assert (made["tier"], made["spec"]) == ("default", NOTHING_SAID)


async def test_a_tier_promises_one_license_and_the_last_word_counts(shop: Shop) -> None:
    at = await product(shop)
    first = good(await shop.staff.put(at, json={"license": {"max_machines": 2}}))
    shop.clock.advance(SECOND)
    other = good(await shop.staff.put(at, json={"license": {"max_machines": 9}, "tier": "team"}))
    again = good(await shop.staff.put(at, json={"license": {"is_trial": True}}))
    # Set as a whole: what is left out is not kept from before.
    spec = {**NOTHING_SAID, "is_trial": True}
    assert again == {**first, "spec": spec, "updated_at": "2026-01-02T03:04:06.678901Z"}
    assert good(await shop.staff.get(at)) == [again, other]


async def test_many_set_the_same_benefit_at_once(shop: Shop) -> None:
    at = await product(shop)
    made = await asyncio.gather(
        *(shop.staff.put(at, json={"license": {"max_machines": place}}) for place in range(1, 21))
    )
    assert len({good(answer)["id"] for answer in made}) == 1
    assert (await shop.row("benefits"))["spec"]["max_machines"] in range(1, 21)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"tier": "Team", "license": {}}, "/tier"),
        ({"tier": "", "license": {}}, "/tier"),
        ({"tier": "x" * 81, "license": {}}, "/tier"),
        ({"license": {"duration_seconds": -1}}, "/license/duration_seconds"),
        ({"license": {"duration_seconds": 100 * 366 * 86_400 + 1}}, "/license/duration_seconds"),
        ({"license": {"grace_seconds": -1}}, "/license/grace_seconds"),
        ({"license": {"max_machines": -1}}, "/license/max_machines"),
        ({"license": {"max_machines": 1_000_001}}, "/license/max_machines"),
        ({"license": {"entitlements": ["a", "a"]}}, "/license/entitlements"),
        ({"license": {"entitlements": [f"e{place}" for place in range(256)]}}, "/license/entitlements"),
        ({"license": {"entitlements": ["a", ""]}}, "/license/entitlements/1"),
        ({"license": {"entitlements": ["é" * 128]}}, "/license/entitlements/0"),
        ({"license": {"entitlements": ["a\nb"]}}, "/license/entitlements/0"),
    ],
)
async def test_a_promise_that_cannot_be_kept(shop: Shop, body: dict[str, Any], pointer: str) -> None:
    at = await product(shop)
    good(await shop.staff.put(at, json={"license": {"max_machines": 2}}))
    before = await shop.everything()
    told = problem(await shop.staff.put(at, json=body), 422, "invalid_request")
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


@pytest.mark.parametrize(
    "body", [{}, {"tier": "team"}, {"license": {"seats": 1}}, {"license": {}, "kind": "credits"}, {"license": None}]
)
async def test_what_is_missing_unknown_or_of_the_wrong_kind(shop: Shop, body: dict[str, Any]) -> None:
    at = await product(shop)
    before = await shop.everything()
    problem(await shop.staff.put(at, json=body), 422, "invalid_request")
    assert await shop.everything() == before


async def test_no_such_product_and_no_such_benefit(shop: Shop) -> None:
    before = await shop.everything()
    at = f"/v1/products/pro_{NOBODY}/benefits"
    problem(await shop.staff.put(at, json={"license": {}}), 404, "product_not_found")
    problem(await shop.staff.delete(f"/v1/benefits/ben_{NOBODY}"), 404, "benefit_not_found")
    assert await shop.everything() == before


async def test_a_change_leaves_what_an_open_checkout_promised(shop: Shop) -> None:
    sold = await shop.tier(license={"max_machines": 5, "entitlements": ["sync"], "duration_seconds": 3_600})
    early = await shop.checkout(sold)
    await shop.set_benefit(sold.product_id, "default", {"max_machines": 1})
    late = await shop.checkout(sold)
    given = []
    for opened in (early, late):
        await shop.play(opened, "pay")
        order = await shop.row("orders", checkout_id=opened["id"])
        given.append(await shop.row("licenses", order_id=order["id"]))
    assert [(row["max_machines"], row["entitlements"]) for row in given] == [(5, ["sync"]), (1, [])]
    assert given[0]["expires_at"] == given[0]["issued_at"] + timedelta(hours=1)
    assert given[1]["expires_at"] is None


async def test_a_removed_benefit_is_promised_no_longer_but_kept_where_it_was(shop: Shop) -> None:
    sold = await shop.tier(license={"max_machines": 5})
    early = await shop.checkout(sold)
    benefit = await shop.row("benefits")
    removed = good(await shop.staff.delete(f"/v1/benefits/{benefit['id']}"))
    assert (removed["id"], removed["spec"]["max_machines"]) == (benefit["id"], 5)
    before = await shop.everything()
    problem(await shop.staff.delete(f"/v1/benefits/{benefit['id']}"), 404, "benefit_not_found")
    assert await shop.everything() == before
    assert good(await shop.staff.get(f"/v1/products/{sold.product_id}/benefits")) == []
    assert good(await shop.http.get("/v1/products/editor/policies"))["policies"] == []
    await shop.play(early, "pay")
    assert (await shop.row("licenses"))["max_machines"] == 5
    # Nothing is promised to later buyers, so their money buys an order without a license.
    late = await shop.checkout(sold)
    await shop.play(late, "pay")
    assert (await shop.claim(late))["license_keys"] == []
    assert (await shop.count("orders"), await shop.count("licenses"), await shop.count("grants")) == (2, 1, 1)


async def test_a_price_gives_the_benefits_of_its_own_tier_only(shop: Shop) -> None:
    solo = await shop.tier(license={"max_machines": 1})
    team = await shop.tier(tier="team", amount=50_000, license={"max_machines": 5})
    await shop.buy((solo, 1), (team, 2))
    given = sorted((row["tier"], row["max_machines"]) for row in await shop.rows("licenses"))
    assert given == [("default", 1), ("team", 5), ("team", 5)]
