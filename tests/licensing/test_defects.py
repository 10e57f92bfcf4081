"""Mistakes that license servers are known for, and that this one does not make."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import Shop, Sold, client_of, good, opening, problem

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.ids import to_uuid
from counterfoil.kernel.secrets import MasterKey, fingerprint
from counterfoil.rails.base import CheckoutReport
from counterfoil.sales.claims import Claims

CLIENTS = 50


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def purchase(shop: Shop, product: str = "editor", **fields: Any) -> dict[str, Any]:
    """What a license client is told when it starts buying."""
    started: dict[str, Any] = good(await shop.http.post("/v1/purchase", json={"product": product, **fields}))
    return started


async def refused(shop: Shop, path: str, status: int, because: str, /, **body: Any) -> None:
    """A request that is refused, and changes nothing at all."""
    before = await shop.everything()
    problem(await shop.http.post(path, json=body), status, because)
    assert await shop.everything() == before


async def paid(shop: Shop, invoice_id: str) -> dict[str, Any]:
    """Pay for a purchase on the sandbox page; what the client then sees."""
    (checkout,) = [
        row for row in await shop.rows("checkouts") if shop.house.claims.make(DEFAULT_TENANT, row["id"]) == invoice_id
    ]
    await shop.play(checkout, "pay")
    seen: dict[str, Any] = good(await shop.http.get(f"/v1/purchase/{invoice_id}"))
    return seen


async def rights(shop: Shop, license_id: str) -> tuple[str, int, list[str]]:
    """A license's tier, its machines and its features, by the UUID that clients know."""
    (row,) = [row for row in await shop.rows("licenses") if str(to_uuid(row["id"])) == license_id]
    return row["tier"], row["max_machines"], row["entitlements"]


async def ask(shop: Shop, verb: str, key: str, machine: str) -> dict[str, Any]:
    path = "/v1/validate" if verb == "validate" else f"/v1/machines/{verb}"
    answer: dict[str, Any] = good(await shop.http.post(path, json={"key": key, "fingerprint": machine}))
    return answer


# -- 8: what a code takes off -------------------------------------------------------------------------


async def test_8_ten_dollars_off_are_dollars(shop: Shop) -> None:
    dollars = await shop.tier(amount=4_900, asset="USD", tier="usd")
    await shop.discount("TENOFF", kind="flat", amount=1_000, asset="USD")
    opened = await shop.checkout(dollars, code="tenoff")
    assert (opened["amount"], opened["asset"]) == (3_900, "USD")
    assert [line["discount_total"] for line in await shop.rows("cart_lines")] == [1_000]


@pytest.mark.parametrize(("asset", "amount"), [("SAT", 21_000), ("EUR", 4_900), ("USDC", 49_000_000)])
async def test_8_ten_dollars_off_are_nothing_in_another_asset(shop: Shop, asset: str, amount: int) -> None:
    sold = await shop.tier(amount=amount, asset=asset)
    discount = await shop.discount("TENOFF", kind="flat", amount=1_000, asset="USD")
    line = {"price_id": sold.price_id, "quantity": 1}
    await refused(shop, "/v1/checkouts", 422, "discount_not_applicable", lines=[line], code="TENOFF")
    if asset == "SAT":
        await refused(shop, "/v1/purchase", 400, "discount_not_applicable", product="editor", code="TENOFF")
    assert (await shop.row("discounts", id=discount))["times_used"] == 0


async def test_8_a_flat_discount_in_satoshis_is_satoshis(shop: Shop) -> None:
    await shop.tier(amount=21_000)
    await shop.discount("SATS", kind="flat", amount=1_000, asset="SAT")
    started = await purchase(shop, code="sats")
    assert (started["base_price_sats"], started["discount_applied_sats"], started["amount_sats"]) == (
        21_000,
        1_000,
        20_000,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "percentage", "amount": 10_000},
        {"kind": "free"},
        {"kind": "flat", "amount": 21_000, "asset": "SAT"},
        {"kind": "flat", "amount": 99_999, "asset": "SAT"},
        {"kind": "set_price", "amount": 0, "asset": "SAT"},
    ],
    ids=["100 %", "free", "flat, all of it", "flat, more than all of it", "set to 0"],
)
async def test_8_all_of_it_off_costs_0_and_is_given_at_once(shop: Shop, fields: dict[str, Any]) -> None:
    await shop.tier(amount=21_000, license={"max_machines": 2})
    await shop.discount("GIFT", **fields)
    started = await purchase(shop, code="gift")
    assert (started["amount_sats"], started["discount_applied_sats"], started["checkout_url"]) == (0, 21_000, "")
    assert (await ask(shop, "validate", started["license_key"], "laptop"))["ok"] is True
    checkout = await shop.row("checkouts")
    assert (checkout["rail"], checkout["status"], checkout["amount"], checkout["paid"]) == ("free", "settled", 0, 0)
    payment = await shop.row("payments")
    assert (payment["rail"], payment["amount"], payment["asset"], payment["status"]) == ("free", 0, "SAT", "settled")
    assert (await shop.row("discounts"))["times_used"] == 1
    assert (await shop.row("discount_redemptions"))["status"] == "redeemed"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "percentage", "amount": 0},
        {"kind": "percentage", "amount": 1},
        {"kind": "percentage", "amount": 10_000},
        {"kind": "flat", "amount": 1, "asset": "SAT"},
        {"kind": "set_price", "amount": 5_000, "asset": "SAT"},
        {"kind": "free"},
    ],
)
async def test_8_any_code_on_a_free_tier_leaves_it_free(shop: Shop, fields: dict[str, Any]) -> None:
    await shop.tier(amount=0)
    await shop.discount("CODE", **fields)
    started = await purchase(shop, code="CODE")
    assert (started["base_price_sats"], started["discount_applied_sats"], started["amount_sats"]) == (0, 0, 0)
    assert started["license_key"].startswith("LIC1-")
    assert (await shop.row("orders"))["amount"] == (await shop.row("payments"))["amount"] == 0


async def test_8_redeeming_keeps_to_the_tiers_of_the_code(shop: Shop) -> None:
    for tier, amount, machines in [("default", 21_000, 1), ("team", 50_000, 5), ("site", 90_000, 0)]:
        await shop.tier(tier=tier, amount=amount, license={"max_machines": machines})
    await shop.discount("BIG", kind="free", tiers=["team", "site"])
    for tier in ("default", "nosuch"):
        expected = (400, "discount_not_applicable") if tier == "default" else (404, "not_found")
        await refused(shop, "/v1/redeem", *expected, product="editor", code="BIG", policy_slug=tier)
    chosen = good(await shop.http.post("/v1/redeem", json={"product": "editor", "code": "big", "policy_slug": "site"}))
    assert (await rights(shop, chosen["license_id"]))[:2] == ("site", 0)
    # Left to us, it is the cheapest tier that the code is for, never the default one.
    ours = good(await shop.http.post("/v1/redeem", json={"product": "editor", "code": "BIG"}))
    assert (await rights(shop, ours["license_id"]))[:2] == ("team", 5)
    assert [order["amount"] for order in await shop.rows("orders")] == [0, 0]


async def test_8_only_a_code_that_makes_it_free_is_redeemed(shop: Shop) -> None:
    await shop.tier()
    await shop.tier("viewer")
    await shop.discount("ALMOST", kind="percentage", amount=9_999)
    viewer = good(await shop.http.get("/v1/products/viewer"))
    await shop.discount("VIEWER", kind="free", product_ids=[viewer["id"]])
    for code in ("ALMOST", "VIEWER"):
        await refused(shop, "/v1/redeem", 400, "discount_not_applicable", product="editor", code=code)
    await refused(shop, "/v1/redeem", 400, "discount_not_found", product="editor", code="NOSUCH")


# -- 9: what is charged is what is given --------------------------------------------------------------

TIERS = {
    "default": (21_000, 1, ["export"]),
    "lite": (5_000, 2, ["view"]),
    "team": (50_000, 5, ["export", "sync"]),
}


async def stocked(shop: Shop, *names: str) -> dict[str, Sold]:
    return {
        name: await shop.tier(
            tier=name, amount=TIERS[name][0], license={"max_machines": TIERS[name][1], "entitlements": TIERS[name][2]}
        )
        for name in names
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["default"], "default"),
        (["team"], "team"),
        (["team", "lite"], "lite"),
        (["lite", "default", "team"], "default"),
        (["team", "default", "lite"], "default"),
    ],
)
async def test_9_without_a_tier_the_rights_follow_the_price(shop: Shop, names: list[str], expected: str) -> None:
    await stocked(shop, *names)
    amount, machines, entitlements = TIERS[expected]
    started = await purchase(shop)
    assert (started["amount_sats"], started["base_price_sats"]) == (amount, amount)
    listed = good(await shop.http.get("/v1/products/editor/policies"))
    assert listed["product"]["base_price_sats"] == amount  # what is announced is what is charged
    seen = await paid(shop, started["invoice_id"])
    assert await rights(shop, seen["license_id"]) == (expected, machines, entitlements)
    assert (await shop.row("payments"))["amount"] == amount


@pytest.mark.parametrize("name", TIERS)
async def test_9_a_named_tier_is_charged_and_given(shop: Shop, name: str) -> None:
    await stocked(shop, *TIERS)
    amount, machines, entitlements = TIERS[name]
    started = await purchase(shop, policy_slug=name)
    assert started["amount_sats"] == amount
    seen = await paid(shop, started["invoice_id"])
    assert await rights(shop, seen["license_id"]) == (name, machines, entitlements)


async def test_9_an_archived_tier_is_not_for_sale(shop: Shop) -> None:
    sold = await stocked(shop, "default", "team")
    await shop.discount("GIFT", kind="free", tiers=["team"])
    good(await shop.staff.patch(f"/v1/prices/{sold['team'].price_id}", json={"status": "archived"}))
    listed = good(await shop.http.get("/v1/products/editor/policies"))["policies"]
    assert [policy["slug"] for policy in listed] == ["default"]
    await refused(shop, "/v1/purchase", 404, "not_found", product="editor", policy_slug="team")
    await refused(shop, "/v1/redeem", 404, "not_found", product="editor", policy_slug="team", code="GIFT")
    await refused(shop, "/v1/redeem", 404, "not_found", product="editor", code="GIFT")
    line = {"price_id": sold["team"].price_id}
    await refused(shop, "/v1/checkouts", 422, "price_archived", lines=[line])
    await refused(shop, "/v1/checkouts", 422, "price_archived", lines=[line], code="GIFT")


async def test_9_an_archived_product_is_not_for_sale(shop: Shop) -> None:
    sold = await shop.tier()
    await shop.discount("GIFT", kind="free")
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"status": "archived"}))
    problem(await shop.http.get("/v1/products/editor/policies"), 404, "not_found")
    await refused(shop, "/v1/purchase", 404, "not_found", product="editor")
    await refused(shop, "/v1/redeem", 404, "not_found", product="editor", code="GIFT")
    await refused(shop, "/v1/checkouts", 422, "price_archived", lines=[{"price_id": sold.price_id}])
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"status": "active"}))
    assert (await purchase(shop))["amount_sats"] == 21_000


async def test_9_what_is_archived_while_a_buyer_pays_is_still_given(shop: Shop) -> None:
    sold = await shop.tier(license={"max_machines": 4})
    started = await purchase(shop)
    good(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json={"status": "archived"}))
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"status": "archived"}))
    seen = await paid(shop, started["invoice_id"])
    assert await rights(shop, seen["license_id"]) == ("default", 4, [])


async def test_9_tiers_for_other_money_are_not_listed_in_satoshis(shop: Shop) -> None:
    await shop.tier(tier="usd", amount=4_900, asset="USD")
    await shop.tier(tier="eur", amount=4_500, asset="EUR")
    only_fiat = good(await shop.http.get("/v1/products/editor/policies"))
    assert (only_fiat["policies"], only_fiat["product"]["base_price_sats"]) == ([], 0)
    await refused(shop, "/v1/purchase", 404, "not_found", product="editor")
    await refused(shop, "/v1/purchase", 404, "not_found", product="editor", policy_slug="usd")
    # A tier sold for both is listed once, at its price in satoshis.
    await shop.tier(tier="usd", amount=90_000)
    both = good(await shop.http.get("/v1/products/editor/policies"))
    assert [(policy["slug"], policy["price_sats"]) for policy in both["policies"]] == [("usd", 90_000)]
    assert both["product"]["base_price_sats"] == 90_000


# -- 10: seats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [1, 4])
@pytest.mark.parametrize("verbs", [["activate"], ["validate"], ["activate", "validate"]])
async def test_10_the_cap_holds_however_many_come_at_once(shop: Shop, cap: int, verbs: list[str]) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=cap)
    answers = await asyncio.gather(
        *(ask(shop, verbs[place % len(verbs)], license_["key"], f"m-{place}") for place in range(CLIENTS))
    )
    assert Counter(answer["ok"] for answer in answers) == {True: cap, False: CLIENTS - cap}
    assert await shop.count("machines", deactivated_at=None) == cap
    assert (await shop.row("licenses"))["machine_count"] == cap


@pytest.mark.parametrize("first", ["activate", "validate"])
async def test_10_the_first_machine_has_the_only_seat(shop: Shop, first: str) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=1)
    machine = (await ask(shop, first, license_["key"], "laptop"))["machine_id"]
    for verb in ("validate", "activate", "validate", "heartbeat"):
        answer = await ask(shop, verb, license_["key"], "laptop")
        assert (answer["ok"], answer["machine_id"]) == (True, machine)
    for verb, reason in [("validate", "fingerprint_mismatch"), ("activate", "too_many_machines")]:
        before = await shop.everything("validation_log")
        answer = await ask(shop, verb, license_["key"], "desktop")
        assert (answer["ok"], answer["reason"]) == (False, reason)
        assert await shop.everything("validation_log") == before
    assert [row["fingerprint_hash"] for row in await shop.rows("machines")] == [fingerprint("laptop")]


@pytest.mark.parametrize("verb", ["activate", "validate"])
async def test_10_a_seat_that_staff_frees_is_free_for_another_machine(shop: Shop, verb: str) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=1)
    machine = (await ask(shop, "validate", license_["key"], "laptop"))["machine_id"]
    good(await shop.staff.post(f"/v1/machines/{machine}/deactivate", json={"reason": "lost"}))
    assert (await ask(shop, verb, license_["key"], "desktop"))["ok"] is True
    assert (await ask(shop, "validate", license_["key"], "laptop"))["reason"] == "fingerprint_mismatch"
    assert (await ask(shop, "heartbeat", license_["key"], "laptop"))["reason"] == "not_activated"
    assert (await shop.row("machines", deactivated_at=None))["fingerprint_hash"] == fingerprint("desktop")


async def test_10_an_expired_license_activates_nothing(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=2, duration_seconds=60, grace_seconds=30)
    shop.clock.advance(timedelta(seconds=89))
    assert (await ask(shop, "activate", license_["key"], "laptop"))["ok"] is True  # within its grace
    shop.clock.advance(timedelta(seconds=1))
    for verb in ("activate", "validate", "heartbeat"):
        for machine in ("laptop", "desktop"):
            before = await shop.everything("validation_log")
            answer = await ask(shop, verb, license_["key"], machine)
            assert (answer["ok"], answer["reason"]) == (False, "expired")
            assert await shop.everything("validation_log") == before


@pytest.mark.parametrize(("verb", "reason"), [("suspend", "suspended"), ("revoke", "revoked")])
async def test_10_a_heartbeat_follows_the_license(shop: Shop, verb: str, reason: str) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=2)
    await ask(shop, "activate", license_["key"], "laptop")
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/{verb}", json={}))
    shop.clock.advance(timedelta(hours=1))
    before = await shop.everything()
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": False, "reason": reason}
    assert await shop.everything() == before


# -- 11: the rate limit -------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", [False, True], ids=["no header", "a new address in each header"])
async def test_11_exactly_as_many_pass_as_may(
    database_url: str, clock: ManualClock, master: MasterKey, forged: bool
) -> None:
    async with opening(database_url, clock, master, validations_per_minute=20) as shop:
        license_ = await shop.license(await shop.tier(), max_machines=0)
        async with client_of(shop.app, address="192.0.2.7") as stranger, client_of(shop.app, address="192.0.2.8") as b:
            answers = await asyncio.gather(
                *(
                    stranger.post(
                        "/v1/validate",
                        json={"key": license_["key"]},
                        headers={"X-Forwarded-For": f"198.51.100.{place}"} if forged else {},
                    )
                    for place in range(CLIENTS)
                )
            )
            told = Counter(good(answer).get("reason", "ok") for answer in answers)
            assert told == {"ok": 20, "rate_limited": 30}
            assert await shop.count("validation_log") == 20
            assert {line["address"] for line in await shop.rows("validation_log")} == {"192.0.2.7"}
            # Another address has a bucket of its own, also for the same license.
            assert good(await b.post("/v1/validate", json={"key": license_["key"]}))["ok"] is True
            # The other routes count for the same address, and refuse with an error status.
            before = await shop.everything()
            body = {"key": license_["key"], "fingerprint": "laptop"}
            for verb in ("activate", "heartbeat", "deactivate"):
                limited = await stranger.post(f"/v1/machines/{verb}", json=body)
                assert problem(limited, 429, "rate_limited")["retryable"] is True
            problem(await stranger.post("/v1/purchase", json={"product": "editor"}), 429, "rate_limited")
            problem(await stranger.post("/v1/redeem", json={"product": "editor", "code": "X"}), 429, "rate_limited")
            assert await shop.everything() == before


async def test_11_addresses_do_not_share_a_bucket(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, validations_per_minute=2) as shop:
        license_ = await shop.license(await shop.tier(), max_machines=0)
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
            async with client_of(shop.app, address=address) as http:
                answers = [good(await http.post("/v1/validate", json={"key": license_["key"]})) for _ in range(3)]
            assert [answer["ok"] for answer in answers] == [True, True, False], address


# -- 13: who gets to see the key ----------------------------------------------------------------------


async def bought(shop: Shop) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A paid purchase: as it was started, as its buyer sees it, and its row."""
    await shop.tier()
    started = await purchase(shop, buyer_email="ann@x.example")
    seen = await paid(shop, started["invoice_id"])
    assert seen["license_key"].startswith("LIC1-")
    return started, seen, await shop.row("checkouts")


async def test_13_no_other_name_of_a_purchase_shows_its_key(shop: Shop) -> None:
    started, seen, checkout = await bought(shop)
    assert started["btcpay_invoice_id"] == checkout["rail_reference"] not in {None, ""}
    order, payment, license_ = [await shop.row(name) for name in ("orders", "payments", "licenses")]
    names = {
        checkout["id"],
        checkout["id"].partition("_")[2],
        str(to_uuid(checkout["id"])),
        "pur_" + checkout["id"].partition("_")[2],
        checkout["rail_reference"],
        started["btcpay_invoice_id"],
        checkout["cart_id"],
        order["id"],
        payment["id"],
        payment["reference"],
        license_["id"],
        seen["license_id"],
        seen["product_id"],
    }
    for name in names:
        for at, code in ((f"/v1/purchase/{name}", "not_found"), (f"/v1/claims/{name}", "checkout_not_found")):
            answer = await shop.http.get(at)
            problem(answer, 404, code)
            assert "LIC1-" not in answer.text
            assert "ann@x.example" not in answer.text
    # Nor does the checkout, which needs a key of staff's, and has none of the buyer's secrets.
    problem(await shop.http.get(f"/v1/checkouts/{checkout['id']}"), 401, "unauthorized")
    staff = good(await shop.staff.get(f"/v1/checkouts/{checkout['id']}"))
    assert {"claim", "license_keys", "order_id"}.isdisjoint(staff)


async def test_13_the_rail_is_never_told_the_claim(shop: Shop) -> None:
    started, _, checkout = await bought(shop)
    claim = started["invoice_id"]
    session = await shop.session(checkout)
    assert claim not in str(session)
    assert claim not in str(await shop.everything())  # nor is it written anywhere


async def test_13_a_forged_claim_is_not_found(shop: Shop) -> None:
    started, _, checkout = await bought(shop)
    claim = started["invoice_id"]
    assert len(claim) == 4 + 26 + 26
    other = (await purchase(shop))["invoice_id"]
    ulid = checkout["id"].partition("_")[2]
    forged = [
        claim[:-1] + ("a" if claim[-1] != "a" else "b"),
        claim[:-1],
        claim + "a",
        claim.upper(),
        claim.replace("pur_", "chk_"),
        f"pur_{ulid}{'a' * 26}",
        f"pur_{ulid}{other[-26:]}",
        other[:-26] + claim[-26:],
        claim[:-1] + "é",
        "pur_",
    ]
    before = await shop.everything()
    for name in forged:
        problem(await shop.http.get(f"/v1/claims/{name}"), 404, "checkout_not_found")
        answer = problem(await shop.http.get(f"/v1/purchase/{name}"), 404, "not_found")
        assert (answer["ok"], answer["error"]) == (False, "not_found")
    assert await shop.everything() == before


async def test_13_a_claim_is_good_in_its_own_installation_only(shop: Shop) -> None:
    _, _, checkout = await bought(shop)
    elsewhere = Claims(MasterKey(bytes(32)).derive("claims")).make(DEFAULT_TENANT, checkout["id"])
    problem(await shop.http.get(f"/v1/claims/{elsewhere}"), 404, "checkout_not_found")
    another_tenant = shop.house.claims.make("ten_other", checkout["id"])
    problem(await shop.http.get(f"/v1/claims/{another_tenant}"), 404, "checkout_not_found")


async def test_13_a_claim_stops_showing_the_key(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, claim_days=7) as shop:
        started, seen, _ = await bought(shop)
        claim = started["invoice_id"]
        clock.advance(timedelta(days=7) - timedelta(microseconds=1))
        assert good(await shop.http.get(f"/v1/purchase/{claim}"))["license_key"] == seen["license_key"]
        assert good(await shop.http.get(f"/v1/claims/{claim}"))["license_keys"] == [seen["license_key"]]
        clock.advance(timedelta(microseconds=1))
        late = good(await shop.http.get(f"/v1/purchase/{claim}"))
        assert (late["status"], late["license_key"], late["license_id"]) == ("settled", None, None)
        answer = await shop.http.get(f"/v1/claims/{claim}")
        assert (good(answer)["status"], good(answer)["license_keys"]) == ("settled", [])
        assert "LIC1-" not in answer.text


async def test_13_a_claim_lasts_from_the_settlement_not_from_the_checkout(shop: Shop) -> None:
    await shop.tier()
    started = await purchase(shop)
    shop.clock.advance(timedelta(days=40))  # longer than a claim lasts
    checkout = await shop.row("checkouts")
    await shop.play(checkout, "pay")
    assert (await shop.row("payments"))["status"] == "late"
    assert good(await shop.http.get(f"/v1/purchase/{started['invoice_id']}"))["license_key"].startswith("LIC1-")


@pytest.mark.parametrize("verb", ["revoke", "suspend"])
async def test_13_the_key_of_a_license_that_was_stopped_is_not_shown(shop: Shop, verb: str) -> None:
    started, seen, _ = await bought(shop)
    license_ = await shop.row("licenses")
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/{verb}", json={"reason": "chargeback"}))
    status = good(await shop.http.get(f"/v1/purchase/{started['invoice_id']}"))
    assert (status["status"], status["license_key"], status["license_id"]) == ("settled", None, None)
    answer = await shop.http.get(f"/v1/claims/{started['invoice_id']}")
    assert good(answer)["license_keys"] == []
    assert seen["license_key"] not in answer.text


async def test_13_only_the_keys_of_good_licenses_are_shown(shop: Shop) -> None:
    opened = await shop.checkout((await shop.tier(), 3))
    await shop.play(opened, "pay")
    before: list[str] = (await shop.claim(opened))["license_keys"]
    middle = sorted(await shop.rows("licenses"), key=lambda row: int(row["unit"]))[1]
    good(await shop.staff.post(f"/v1/licenses/{middle['id']}/revoke", json={}))
    assert (await shop.claim(opened))["license_keys"] == [before[0], before[2]]


@pytest.mark.parametrize("state", ["expired", "failed"])
async def test_13_an_end_that_comes_after_the_money_changes_nothing(shop: Shop, state: Any) -> None:
    started, seen, checkout = await bought(shop)
    before = await shop.everything("checkouts")
    end = CheckoutReport(
        rail="sandbox", reference=checkout["rail_reference"], checkout_id=checkout["id"], state=state, final=True
    )
    await shop.settle(end)
    assert await shop.everything("checkouts") == before
    assert good(await shop.http.get(f"/v1/purchase/{started['invoice_id']}")) == seen


async def test_13_an_unsigned_word_of_the_rail_changes_nothing(shop: Shop) -> None:
    await shop.tier()
    started = await purchase(shop)
    before = await shop.everything()
    body = b'{"id":"evt","type":"settled"}'
    for headers in ({}, {"Sandbox-Signature": "t=1,v1=00"}):
        answer = await shop.http.post("/v1/webhooks/sandbox", content=body, headers=headers)
        assert answer.status_code in {400, 401, 403}, answer.text
    assert await shop.everything() == before
    assert good(await shop.http.get(f"/v1/purchase/{started['invoice_id']}"))["status"] == "pending"
