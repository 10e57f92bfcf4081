"""Subscriptions over HTTP: what is shown, what may be asked for in which state, and what the rail is asked then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.accounts.organizations import organization, owner_of
from tests.support.app import MINUTE, Shop, Sold, good, opening, problem
from tests.support.fake_rails import NAME, Provider, connect, push, renew, subscribe, tell
from tests.support.people import person

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.subscriptions import subscriptions

NOW = "2026-01-02T03:04:05.678901Z"
PERIOD_END = "2026-02-02T03:04:05.678901Z"
REQUESTED = "subscription.change_requested"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
async def rail(shop: Shop) -> Provider:
    return connect(shop)


async def monthly(shop: Shop, slug: str = "editor", amount: int = 1_000, **fields: Any) -> Sold:
    """What is paid every month, and gives a license."""
    return await shop.tier(
        slug, amount=amount, asset="EUR", type="recurring", **{"interval": "month", "interval_count": 1, **fields}
    )


async def post(shop: Shop, subscription: str, verb: str, **body: Any) -> Any:
    return good(await shop.staff.post(f"/v1/subscriptions/{subscription}/{verb}", json=body))


async def refused(shop: Shop, subscription: str, verb: str, status: int, code: str, **body: Any) -> dict[str, Any]:
    """Ask for what cannot be; nothing changes."""
    before = await shop.everything()
    said = problem(await shop.staff.post(f"/v1/subscriptions/{subscription}/{verb}", json=body), status, code)
    assert await shop.everything() == before
    return said


async def test_a_subscription_is_shown_with_what_hangs_on_it(shop: Shop, rail: Provider) -> None:
    sold = await monthly(shop)
    made = await subscribe(shop, rail, (sold, 2), email="Ada@Example.com")
    await renew(shop, rail, "sub-1")
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    item, period = shown["items"][0], shown["periods"][0]
    assert (shown["reference"], shown["status"], shown["email"]) == ("sub-1", "active", "ada@example.com")
    assert (shown["customer_reference"], shown["paid_until"]) == ("cus-1", "2026-03-05T03:04:05.678901Z")
    assert (item["price_id"], item["quantity"], item["reference"]) == (sold.price_id, 2, "si-0")
    assert (period["period_start"], period["status"], period["amount"]) == (PERIOD_END, "paid", 1_000)
    assert shown["license_ids"] == sorted(row["id"] for row in await shop.rows("licenses"))
    assert (len(shown["license_ids"]), shown["changes"]) == (2, [])
    assert not {"heard", "heard_at"} & shown.keys()
    problem(await shop.staff.get("/v1/subscriptions/sub_x"), 404, "subscription_not_found")


async def test_lists_page_and_filter(shop: Shop, rail: Provider) -> None:
    sold, firm = await monthly(shop), await organization(shop)
    one = await subscribe(shop, rail, sold, email="ada@example.com")
    two = await subscribe(shop, rail, sold, customer_id=firm)
    good(await shop.staff.patch(f"/v1/subscriptions/{two}", json={"vault_l0": "v1"}))
    rail.change("sub-1", status="past_due")
    await tell(shop, rail, "sub-1")

    async def ids(**params: str) -> list[str]:
        return [row["id"] for row in good(await shop.staff.get("/v1/subscriptions", params=params))["data"]]

    first = good(await shop.staff.get("/v1/subscriptions", params={"limit": 1}))
    rest = good(await shop.staff.get("/v1/subscriptions", params={"limit": 1, "after": first["next"]}))
    assert ([first["data"][0]["id"], rest["data"][0]["id"]], rest["next"]) == (sorted([one, two]), None)
    assert await ids(status="past_due") == await ids(email="ADA@example.com") == [one]
    assert await ids(customer_id=firm) == await ids(vault_l0="v1") == await ids(status="active") == [two]
    assert await ids(status="past_due", customer_id=firm) == []
    problem(await shop.staff.get("/v1/subscriptions", params={"status": "gone"}), 422, "invalid_request")


async def test_a_change_is_owed_asked_of_the_rail_and_shown(
    shop: Shop, rail: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    woken: list[Any] = []
    monkeypatch.setattr(shop.house.database, "on_wake", lambda _, who: woken.append(set(who)))
    asked = await post(shop, made, "pause", at_period_end=False, resume_at="2026-01-20T02:00:00+02:00")
    (change,) = asked["changes"]
    assert change == {
        "id": change["id"],
        "action": "pause",
        "status": "owed",
        "details": {"at_period_end": False, "resume_at": "2026-01-20T00:00:00Z"},
        "error": None,
        "attempts": 0,
        "next_attempt_at": NOW,
        "done_at": None,
        "created_at": NOW,
    }
    assert (asked["status"], woken) == ("active", [{"pusher"}])
    assert (await shop.rows("events", type=REQUESTED))[0]["details"] == {
        "action": "pause", "at_period_end": False, "resume_at": "2026-01-20T00:00:00Z",
    }  # fmt: skip
    assert await push(shop) == 1
    assert [(one["action"], one["resume_at"]) for one in rail.changes()] == [("pause", "2026-01-20T00:00:00Z")]
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (shown["status"], shown["changes"][0]["status"]) == ("paused", "done")
    assert (await shop.row("licenses"))["status"] == "suspended"
    shop.clock.advance(MINUTE)
    await post(shop, made, "resume")
    await push(shop)
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (shown["status"], [one["action"] for one in shown["changes"]]) == ("active", ["resume", "pause"])
    assert (await shop.row("licenses"))["status"] == "active"


async def test_an_end_is_scheduled_taken_back_and_made(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop, quantity_max=2))
    await post(shop, made, "cancel")
    await push(shop)
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (shown["status"], shown["cancel_at_period_end"], shown["ends_at"]) == ("active", True, PERIOD_END)
    assert shown["scheduled_change"] == {"action": "cancel", "effective_at": PERIOD_END, "resume_at": None}
    for verb in ("cancel", "pause"):
        await refused(shop, made, verb, 409, "change_scheduled")
    more = [{"price_id": (await shop.row("prices"))["id"], "quantity": 2}]
    await post(shop, made, "change", items=more)  # which is the rail's to refuse
    await push(shop)
    assert (await shop.row("subscription_items"))["quantity"] == 2
    await post(shop, made, "keep")
    await push(shop)
    kept = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (kept["cancel_at_period_end"], kept["ends_at"], kept["scheduled_change"]) == (False, None, None)
    await post(shop, made, "cancel", at_period_end=False)
    await push(shop)
    assert good(await shop.staff.get(f"/v1/subscriptions/{made}"))["status"] == "canceled"
    for verb in ("pause", "resume", "cancel", "keep"):
        await refused(shop, made, verb, 409, "subscription_canceled")


async def test_another_plan_is_copied_asked_for_and_given(shop: Shop, rail: Provider) -> None:
    basic, extra = await monthly(shop), await monthly(shop, "extra", 200)
    made = await subscribe(shop, rail, basic)
    rail.asked.clear()
    better = await monthly(shop, tier="pro", amount=3_000)
    items = [{"price_id": better.price_id}, {"price_id": extra.price_id, "quantity": 1}]
    asked = await post(shop, made, "change", items=items, proration="next_period")
    wanted = [{"price_id": better.price_id, "quantity": 1}, {"price_id": extra.price_id, "quantity": 1}]
    assert asked["changes"][0]["details"] == {"items": wanted, "proration": "next_period"}
    assert (await shop.rows("events", type=REQUESTED))[0]["details"] == {
        "action": "change", "items": wanted, "proration": "next_period",
    }  # fmt: skip
    await push(shop)
    (change,) = rail.changes()
    assert change["items"] == [[f"r-{better.price_id}", 1], [f"r-{extra.price_id}", 1]]
    assert change["proration"] == "next_period"
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert sorted(item["price_id"] for item in shown["items"]) == sorted([better.price_id, extra.price_id])
    assert sorted(row["tier"] for row in await shop.rows("licenses", status="active")) == ["default", "pro"]


async def test_of_many_at_once_one_is_owed(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    path = f"/v1/subscriptions/{made}/cancel"
    answers = await asyncio.gather(*[shop.staff.post(path, json={}) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"change_in_progress"}
    assert await shop.count("outbox", kind="subscription") == await shop.count("events", type=REQUESTED) == 1


async def test_a_change_in_a_trial_costs_nothing(shop: Shop, rail: Provider) -> None:
    firm = await organization(shop)
    made = await subscribe(shop, rail, await monthly(shop), customer_id=firm)
    other = await monthly(shop, "other")
    rail.change("sub-1", status="trialing")
    await tell(shop, rail, "sub-1")
    path = f"/v1/customers/{firm}/subscriptions/{made}/change"
    good(await shop.staff.post(path, json={"items": [{"price_id": other.price_id}]}))
    await push(shop)
    assert [change["proration"] for change in rail.changes()] == ["none"]


async def test_states_that_allow_less(shop: Shop, rail: Provider) -> None:
    sold = await monthly(shop)
    made = await subscribe(shop, rail, sold)
    items = [{"price_id": sold.price_id, "quantity": 1}]
    await refused(shop, made, "resume", 409, "subscription_not_paused")
    await refused(shop, made, "keep", 409, "nothing_scheduled")
    await refused(shop, made, "change", 409, "nothing_to_change", items=items)
    await refused(shop, "sub_x", "cancel", 404, "subscription_not_found")
    for resume_at in ("2026-01-02T03:04:05Z", "2026-03-01T00:00:00", "9999-12-31T23:00:00-10:00"):
        said = await refused(shop, made, "pause", 422, "invalid_request", resume_at=resume_at)
        assert said["errors"][0]["pointer"] == "/resume_at"
    await post(shop, made, "pause", at_period_end=False)
    await refused(shop, made, "cancel", 409, "change_in_progress")
    await push(shop)
    for verb, body in (("pause", {}), ("change", {"items": items})):
        await refused(shop, made, verb, 409, "subscription_paused", **body)
    rail.change("sub-1", status="incomplete")
    await tell(shop, rail, "sub-1")
    for verb in ("pause", "resume", "keep"):
        await refused(shop, made, verb, 409, "subscription_incomplete")
    await post(shop, made, "cancel", at_period_end=False)
    await push(shop)
    assert (await shop.row("subscriptions"))["status"] == "canceled"


async def test_items_that_cannot_be(shop: Shop, rail: Provider) -> None:
    sold = await monthly(shop, quantity_max=5)
    made = await subscribe(shop, rail, sold)
    once = await shop.tier("once", amount=500, asset="EUR")
    dollars = await shop.tier("dollars", amount=5, asset="USD", type="recurring", interval="month", interval_count=1)
    yearly = await monthly(shop, "yearly", interval="year")
    gone = await monthly(shop, "gone")
    good(await shop.staff.patch(f"/v1/prices/{gone.price_id}", json={"status": "archived"}))

    async def check(code: str, *items: dict[str, Any], status: int = 422) -> None:
        await refused(shop, made, "change", status, code, items=list(items))

    held = {"price_id": sold.price_id, "quantity": 2}
    await check("invalid_request")
    await check("invalid_request", *[held] * 101)
    await check("price_not_found", {"price_id": "pri_x"}, status=404)
    await check("price_not_recurring", {"price_id": once.price_id})
    await check("mixed_assets", {"price_id": dollars.price_id})
    await check("mixed_intervals", held, {"price_id": yearly.price_id})
    await check("price_archived", {"price_id": gone.price_id})
    await check("duplicate_price", held, held)
    for quantity in (0, -1, 6):
        await check("quantity_out_of_range", {"price_id": sold.price_id, "quantity": quantity})
    await refused(shop, made, "change", 422, "invalid_request", items=[held], proration="never")
    good(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json={"status": "archived"}))
    await post(shop, made, "change", items=[held])  # whoever has an archived price keeps it
    await push(shop)
    assert rail.changes()[0]["items"] == [[f"r-{sold.price_id}", 2]]


async def test_a_rail_that_refuses_and_one_that_does_not_answer(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    await post(shop, made, "cancel")
    rail.failing["POST"] = (402, "Locked for renewal.")
    await push(shop)
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (shown["changes"][0]["status"], shown["changes"][0]["error"]) == ("refused", "Locked for renewal.")
    assert (shown["status"], shown["cancel_at_period_end"]) == ("active", False)
    rail.failing["POST"] = (500, "")
    shop.clock.advance(MINUTE)
    await post(shop, made, "cancel")
    await push(shop)
    doubted = good(await shop.staff.get(f"/v1/subscriptions/{made}"))["changes"][0]
    assert (doubted["status"], doubted["next_attempt_at"]) == ("in_doubt", "2026-01-02T03:10:05.678901Z")
    await refused(shop, made, "cancel", 409, "change_in_progress")
    rail.failing.clear()
    shop.clock.advance(timedelta(minutes=5))
    await push(shop)
    shown = good(await shop.staff.get(f"/v1/subscriptions/{made}"))
    assert (shown["changes"][0]["status"], shown["cancel_at_period_end"]) == ("done", True)


async def test_a_discount_is_given_and_taken_away_by_hand(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    gift = await shop.discount("GIFT", amount=2_000, recurring=True, usage_limit=1)
    asked = await post(shop, made, "discount", discount_id=gift)
    (change,) = asked["changes"]
    assert (change["action"], change["status"], change["details"]) == ("discount", "owed", {"discount_id": gift})
    assert asked["discount_id"] is None
    assert (await shop.row("events", type=REQUESTED))["details"] == {"action": "discount", "discount_id": gift}
    await refused(shop, made, "discount", 409, "change_in_progress", discount_id=gift)
    await push(shop)
    assert good(await shop.staff.get(f"/v1/subscriptions/{made}"))["discount_id"] == gift
    (sent,) = rail.changes()
    assert (sent["action"], sent["discount_reference"], sent["items"]) == ("change", f"r-{gift}", [])
    assert (await shop.row("discounts"))["times_used"] == 0  # uses are counted by checkouts
    await refused(shop, made, "discount", 409, "nothing_to_change", discount_id=gift)
    shop.clock.advance(MINUTE)
    taken = await post(shop, made, "discount", discount_id=None)
    assert taken["changes"][0]["details"] == {"discount_id": None}
    await push(shop)
    assert good(await shop.staff.get(f"/v1/subscriptions/{made}"))["discount_id"] is None
    assert rail.changes()[-1]["discount_reference"] == ""
    await refused(shop, made, "discount", 409, "nothing_to_change", discount_id=None)


async def test_discounts_that_cannot_be_given(shop: Shop, rail: Provider) -> None:
    firm, other = await organization(shop), await organization(shop, "Other")
    sold = await monthly(shop)
    made = await subscribe(shop, rail, sold, customer_id=firm)

    async def check(status: int, code: str, discount_id: str | None) -> dict[str, Any]:
        return await refused(shop, made, "discount", status, code, discount_id=discount_id)

    await refused(shop, made, "discount", 422, "invalid_request")
    await check(404, "discount_not_found", "dsc_x")
    archived = await shop.discount("ARCHIVED", amount=1_000, recurring=True)
    good(await shop.staff.patch(f"/v1/discounts/{archived}", json={"status": "archived"}))
    said = await check(422, "discount_inactive", archived)
    assert said["errors"] == [{"pointer": "/discount_id", "detail": "is not in use"}]
    later = await shop.discount("LATER", amount=1_000, starts_at="2026-01-02T03:04:06Z")
    await check(422, "discount_inactive", later)
    over = await shop.discount("OVER", amount=1_000, expires_at="2026-01-02T03:04:05Z")
    await check(422, "discount_expired", over)
    await check(422, "discount_wrong_rail", await shop.discount("PADDLE", amount=1_000, rails=["paddle"]))
    once = await shop.tier("once", amount=500, asset="EUR")
    await check(422, "discount_not_applicable", await shop.discount("ONCE", amount=1, product_ids=[once.product_id]))
    dollars = await shop.discount("USD", kind="flat", amount=1, asset="USD", recurring=True)
    await check(422, "discount_not_applicable", dollars)
    theirs = good(
        await shop.staff.post("/v1/discounts", json={"kind": "percentage", "customer_id": other, "amount": 9_000})
    )["id"]
    await check(422, "discount_not_applicable", theirs)
    margin = good(
        await shop.staff.post("/v1/discounts", json={"kind": "percentage", "customer_id": firm, "amount": 3_000})
    )["id"]
    await check(409, "margin_applies", await shop.discount("LESS", amount=2_999, recurring=True))
    await check(409, "margin_applies", await shop.discount("SAME", amount=3_000, recurring=True))
    await check(409, "margin_applies", await shop.discount("FIRST", amount=9_000))  # one bill only
    await post(shop, made, "discount", discount_id=margin)  # which follows by itself, too
    await push(shop)
    await check(409, "margin_applies", None)
    await post(shop, made, "discount", discount_id=await shop.discount("MORE", amount=3_100, recurring=True))
    await push(shop)
    for status, code in (("incomplete", "subscription_incomplete"), ("canceled", "subscription_canceled")):
        rail.change("sub-1", status=status)
        await tell(shop, rail, "sub-1")
        await check(409, code, margin)
    await refused(shop, "sub_x", "discount", 404, "subscription_not_found", discount_id=margin)
    path = f"/v1/customers/{firm}/subscriptions/{made}/discount"
    problem(await shop.staff.post(path, json={"discount_id": margin}), 404, "not_found")  # staff's alone


async def test_a_price_that_cannot_be_copied_now_only_waits(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    other = await monthly(shop, "other")
    await post(shop, made, "change", items=[{"price_id": other.price_id}])
    rail.failing["POST"] = (500, "")
    await push(shop)
    waiting = await shop.row("outbox", kind="subscription")
    assert (waiting["status"], waiting["attempts"]) == ("owed", 0)
    rail.failing.clear()
    shop.clock.advance(timedelta(minutes=5))
    await push(shop)
    shop.clock.advance(timedelta(minutes=5))
    await push(shop)
    assert (await shop.row("subscription_items"))["price_id"] == other.price_id


async def test_a_rail_that_keeps_no_copies_is_not_asked(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    await shop.scope.run(_move_to_sandbox, made)
    for verb in ("pause", "cancel", "portal"):
        await refused(shop, made, verb, 409, "rail_keeps_no_copies")
    await refused(shop, made, "discount", 409, "rail_keeps_no_copies", discount_id=None)


def _move_to_sandbox(tx: Any, subscription_id: str) -> None:
    subscriptions.write(tx, subscriptions.lock(tx, subscription_id), rail="sandbox")


async def test_what_we_note_about_a_subscription(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    ada = await person(shop, "ada@example.com")
    path = f"/v1/subscriptions/{made}"
    shop.clock.advance(MINUTE)
    shown = good(await shop.staff.patch(path, json={"metadata": {"a": 1}, "vault_l0": " v1 ", "user_id": ada.id}))
    assert (shown["metadata"], shown["vault_l0"], shown["user_id"]) == ({"a": 1}, "v1", ada.id)
    assert (await shop.rows("events", type="subscription.updated"))[-1]["details"] == {
        "changed": ["metadata", "user_id", "vault_l0"]
    }
    assert good(await shop.staff.patch(path, json={"vault_l0": None}))["vault_l0"] is None
    before = await shop.everything()
    assert good(await shop.staff.patch(path, json={}))["user_id"] == ada.id
    problem(await shop.staff.patch(path, json={"user_id": "usr_x"}), 404, "user_not_found")
    for body in ({"vault_l0": ""}, {"vault_l0": "x" * 256}, {"metadata": {"a": "x" * 10_240}}, {"status": "active"}):
        problem(await shop.staff.patch(path, json=body), 422, "invalid_request")
    problem(await shop.staff.patch("/v1/subscriptions/sub_x", json={}), 404, "subscription_not_found")
    assert await shop.everything() == before


async def test_the_portal_of_whoever_pays(shop: Shop, rail: Provider) -> None:
    made = await subscribe(shop, rail, await monthly(shop))
    path = f"/v1/subscriptions/{made}/portal"
    portal = {"url": "https://rail.example/p/cus-1", "update_payment_method": None, "cancel": "sub-1"}
    assert good(await shop.staff.post(path, json={})) == portal
    assert good(await shop.staff.post(path, json={"return_url": "https://shop.example/me"})) == portal
    assert [body["return_url"] for method, _, body in rail.asked if "return_url" in body] == [
        "http://127.0.0.1:8787",
        "https://shop.example/me",
    ]
    problem(await shop.staff.post(path, json={"return_url": "javascript:1"}), 422, "invalid_request")
    problem(await shop.staff.post("/v1/subscriptions/sub_x/portal", json={}), 404, "subscription_not_found")
    rail.failing["POST"] = (400, "No such customer.")
    assert problem(await shop.staff.post(path, json={}), 502, "rail_refused")["detail"] == f"{NAME}: No such customer."
    rail.failing["POST"] = (503, "")
    problem(await shop.staff.post(path, json={}), 503, "rail_unavailable")
    rail.change("sub-1", customer_reference=None)
    await tell(shop, rail, "sub-1")
    problem(await shop.staff.post(path, json={}), 409, "payer_unknown")


async def test_a_member_sees_and_changes_their_own(shop: Shop, rail: Provider) -> None:
    firm, rival = await organization(shop), await organization(shop, "Rival")
    sold, other = await monthly(shop), await monthly(shop, "other")
    made = await subscribe(shop, rail, sold, customer_id=firm)
    theirs = await subscribe(shop, rail, sold, customer_id=rival)
    await renew(shop, rail, "sub-1")
    owner = await owner_of(shop, firm)
    path = f"/v1/customers/{firm}/subscriptions"
    assert [row["id"] for row in good(await owner.http.get(path))["data"]] == [made]
    good(await owner.http.post(f"{path}/{made}/change", json={"items": [{"price_id": other.price_id}]}))
    rail.failing["POST"] = (402, "secret words")
    await push(shop)
    shown = good(await owner.http.get(f"{path}/{made}"))
    change = shown["changes"][0]
    assert change == {
        "id": change["id"], "action": "change", "status": "refused", "done_at": None, "created_at": NOW,
    }  # fmt: skip
    assert shown["items"] == [
        {"product_id": sold.product_id, "price_id": sold.price_id, "quantity": 1, "status": "active",
         "recurring": True, "next_billed_at": None}
    ]  # fmt: skip
    assert shown["periods"][0]["period_start"] == PERIOD_END
    assert not {"metadata", "customer_reference", "discount_id", "reference"} & shown.keys()
    rail.failing.clear()
    before = await shop.everything()
    for verb in ("pause", "resume", "cancel", "keep", "change", "portal"):
        body = {"items": [{"price_id": other.price_id}]} if verb == "change" else {}
        problem(await owner.http.post(f"{path}/{theirs}/{verb}", json=body), 404, "subscription_not_found")
        elsewhere = f"/v1/customers/{rival}/subscriptions/{theirs}/{verb}"
        problem(await owner.http.post(elsewhere, json=body), 404, "customer_not_found")
        problem(await owner.http.post(f"/v1/subscriptions/{made}/{verb}", json=body), 403, "missing_permission")
    cheap = {"items": [{"price_id": other.price_id}], "proration": "none"}
    problem(await owner.http.post(f"{path}/{made}/change", json=cheap), 422, "invalid_request")
    problem(await owner.http.get(f"{path}/{theirs}"), 404, "subscription_not_found")
    assert await shop.everything() == before
    good(await owner.http.post(f"{path}/{made}/change", json={"items": [{"price_id": other.price_id}]}))
    await push(shop)
    assert (rail.changes()[-1]["action"], rail.changes()[-1]["proration"]) == ("change", "now")
    for verb in ("pause", "cancel"):
        good(await owner.http.post(f"{path}/{made}/{verb}", json={"at_period_end": verb == "pause"}))
        await push(shop)
        assert rail.changes()[-1]["action"] == verb
    assert good(await owner.http.get(f"{path}/{made}"))["status"] == "canceled"


async def test_a_members_portal_is_of_all_that_goes_on(shop: Shop, rail: Provider) -> None:
    firm = await organization(shop)
    sold = await monthly(shop)
    for _ in range(3):
        await subscribe(shop, rail, sold, customer_id=firm)
        shop.clock.advance(MINUTE)
    rail.change("sub-2", status="canceled")
    await tell(shop, rail, "sub-2")
    owner = await owner_of(shop, firm)
    path = f"/v1/customers/{firm}/portal"
    opened = good(await owner.http.post(path, json={}))
    assert (opened["url"], opened["cancel"]) == (f"https://rail.example/p/r-{firm}", "sub-1,sub-3")
    assert good(await owner.http.post(path, json={"rail": NAME})) == opened
    problem(await owner.http.post(path, json={"rail": "paddle"}), 409, "payer_unknown")
    new = await organization(shop, "New")
    problem(await shop.staff.post(f"/v1/customers/{new}/portal", json={}), 409, "payer_unknown")
    problem(await shop.staff.post("/v1/customers/cus_x/portal", json={}), 404, "customer_not_found")


async def test_news_of_a_subscription_says_what_it_is_for(shop: Shop, rail: Provider) -> None:
    body = {"url": "https://example.com/hook", "event_types": ["subscription.*"]}
    good(await shop.staff.post("/v1/webhook-endpoints", json=body))
    sold = await monthly(shop)
    made = await subscribe(shop, rail, sold)
    told = await shop.row("webhook_deliveries", object_id=made, event_type="subscription.created")
    data = json.loads(told["payload"])["data"]
    assert (data["id"], data["status"], data["rail"]) == (made, "active", NAME)
    assert [(item["price_id"], item["quantity"]) for item in data["items"]] == [(sold.price_id, 1)]
    assert not {"heard", "heard_at", "checked_at"} & data.keys()
