"""Refunds over HTTP: who may ask, who decides, and what each is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.accounts.organizations import organization, owner_of
from tests.support.app import Shop, good, opening, problem
from tests.support.people import person
from tests.support.refunds import ask, decide, execute, nonce, paid

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

PURPOSES = ("refund.approve", "refund.deny", "refund.settle")


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def bought_by(shop: Shop, customer: str) -> tuple[str, str]:
    """The ids of a customer's order and its payment."""
    sold = await shop.tier("editor", amount=1_000, asset="USD")
    body = {"lines": [{"price_id": sold.price_id}]}
    opened = good(await shop.staff.post(f"/v1/customers/{customer}/checkouts", json=body))
    await shop.play(opened, "pay")
    return (
        (await shop.row("orders", checkout_id=opened["id"]))["id"],
        (await shop.row("payments", checkout_id=opened["id"]))["id"],
    )


async def test_each_decision_needs_a_nonce_of_its_own(shop: Shop) -> None:
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    bodies: dict[str, dict[str, Any]] = {"approve": {}, "deny": {}, "settle": {"reference": "x"}}
    made = {purpose: await nonce(shop.staff, purpose) for purpose in PURPOSES}
    stranger = await person(shop, "boss@example.com", staff="SuperAdmin")
    theirs = {purpose: await nonce(stranger.http, purpose) for purpose in PURPOSES}
    before = await shop.everything()
    for verb, body in bodies.items():
        path = f"/v1/refunds/{refund['id']}/{verb}"
        other = "refund.deny" if verb != "deny" else "refund.approve"
        problem(await shop.staff.post(path, json=body), 403, "nonce_required")
        problem(await shop.staff.post(path, json=body, headers={"Nonce": "made-up"}), 403, "nonce_not_found")
        problem(await shop.staff.post(path, json=body, headers=theirs[f"refund.{verb}"]), 403, "nonce_not_found")
        problem(await shop.staff.post(path, json=body, headers=made[other]), 403, "invalid_nonce_purpose")
    assert await shop.everything() == before
    good(await shop.staff.post(f"/v1/refunds/{refund['id']}/approve", json={}, headers=made["refund.approve"]))
    again = await shop.staff.post(f"/v1/refunds/{refund['id']}/approve", json={}, headers=made["refund.approve"])
    problem(again, 403, "nonce_already_used")


async def test_a_decision_that_is_refused_leaves_the_nonce_good(shop: Shop) -> None:
    header = await nonce(shop.staff, "refund.approve")
    problem(await shop.staff.post("/v1/refunds/rfd_x/approve", json={}, headers=header), 404, "refund_not_found")
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    approved = good(await shop.staff.post(f"/v1/refunds/{refund['id']}/approve", json={}, headers=header))
    assert approved["status"] == "approved"
    for verb, body in (("deny", {}), ("settle", {"reference": "x"})):
        headers = await nonce(shop.staff, f"refund.{verb}")
        answer = await shop.staff.post(f"/v1/refunds/rfd_x/{verb}", json=body, headers=headers)
        problem(answer, 404, "refund_not_found")


async def test_twenty_approvals_at_once_are_one(shop: Shop) -> None:
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    headers = [await nonce(shop.staff, "refund.approve") for _ in range(20)]
    path = f"/v1/refunds/{refund['id']}/approve"
    answers = await asyncio.gather(*[shop.staff.post(path, json={}, headers=one) for one in headers])
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    await asyncio.gather(*[execute(shop) for _ in range(5)])
    payment = await shop.row("payments")
    assert (payment["refund_reserved"], payment["refunded"]) == (1_000, 1_000)


async def test_a_member_asks_for_the_money_of_their_own_purchases(shop: Shop) -> None:
    acme, rival = await organization(shop), await organization(shop, "Rival")
    owner = await owner_of(shop, acme)
    order, payment = await bought_by(shop, acme)
    theirs, their_payment = await bought_by(shop, rival)
    path = f"/v1/customers/{acme}/refunds"
    before = await shop.everything()
    problem(await owner.http.post(path, json={"order_id": theirs}), 404, "order_not_found")
    problem(await owner.http.post(path, json={"payment_id": their_payment}), 404, "payment_not_found")
    for field, value in (("grants_policy", "keep"), ("kind", "credit"), ("restock", []), ("metadata", {})):
        problem(await owner.http.post(path, json={"order_id": order, field: value}), 422, "invalid_request")
    problem(
        await owner.http.post(f"/v1/customers/{rival}/refunds", json={"order_id": theirs}), 404, "customer_not_found"
    )
    problem(await owner.http.post("/v1/refunds", json={"order_id": order}), 403, "missing_permission")
    assert await shop.everything() == before
    made = good(await owner.http.post(path, json={"order_id": order, "amount": 400, "reason": "broken"}))
    assert made == {
        "id": made["id"],
        "payment_id": payment,
        "order_id": order,
        "kind": "refund",
        "type": "partial",
        "rail": "sandbox",
        "amount": 400,
        "asset": "USD",
        "recipient": None,
        "status": "pending",
        "reason": "broken",
        "rail_reference": None,
        "expires_at": None,
        "processed_at": None,
        "created_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05.678901Z",
    }
    row = await shop.row("refunds")
    assert row["requested_by"] == f"user:{owner.id}"
    event = await shop.row("events", type="refund.requested")
    assert (event["customer_id"], event["actor_id"]) == (acme, owner.id)
    assert good(await owner.http.get(path)) == {"data": [made], "next": None}
    assert good(await shop.staff.get(f"/v1/customers/{rival}/refunds"))["data"] == []
    # Staff decides, and they do not.
    header = await nonce(owner.http, "refund.approve")
    answer = await owner.http.post(f"/v1/refunds/{made['id']}/approve", json={}, headers=header)
    problem(answer, 403, "missing_permission")
    good(await decide(shop, made, "approve"))
    await execute(shop)
    assert good(await owner.http.get(path))["data"][0]["status"] == "processed"


async def test_a_member_takes_back_what_they_asked_for(shop: Shop) -> None:
    acme, rival = await organization(shop), await organization(shop, "Rival")
    owner, other = await owner_of(shop, acme), await person(shop, "rival@example.com", at=(("Owner", rival),))
    order, payment = await bought_by(shop, acme)
    made = good(await owner.http.post(f"/v1/customers/{acme}/refunds", json={"payment_id": payment}))
    assert made["order_id"] == order
    before = await shop.everything()
    problem(await other.http.delete(f"/v1/customers/{rival}/refunds/{made['id']}"), 404, "refund_not_found")
    problem(await other.http.delete(f"/v1/customers/{acme}/refunds/{made['id']}"), 404, "customer_not_found")
    problem(await owner.http.delete(f"/v1/refunds/{made['id']}"), 403, "missing_permission")
    assert await shop.everything() == before
    assert (await owner.http.delete(f"/v1/customers/{acme}/refunds/{made['id']}")).status_code == 204
    problem(await owner.http.delete(f"/v1/customers/{acme}/refunds/{made['id']}"), 409, "refund_not_pending")
    assert (await shop.row("payments"))["refund_reserved"] == 0


async def test_who_may_not_approve_may_still_ask(shop: Shop) -> None:
    good(await shop.staff.post("/v1/roles", json={"name": "Support", "permissions": ["refunds:write", "refunds:read"]}))
    helper = await person(shop, "help@example.com", staff="Support")
    bought = await paid(shop)
    made = good(await helper.http.post("/v1/refunds", json={"order_id": bought["order"]["id"]}))
    assert made["requested_by"] == f"user:{helper.id}"
    before = await shop.everything("nonces")
    for verb, body in (("approve", {}), ("deny", {}), ("settle", {"reference": "x"})):
        headers = await nonce(helper.http, f"refund.{verb}")
        answer = await helper.http.post(f"/v1/refunds/{made['id']}/{verb}", json=body, headers=headers)
        problem(answer, 403, "missing_permission")
    assert await shop.everything("nonces") == before


async def test_one_may_approve_what_one_asked_for(shop: Shop) -> None:
    boss = await person(shop, "boss@example.com", staff="SuperAdmin")
    bought = await paid(shop)
    made = good(await boss.http.post("/v1/refunds", json={"order_id": bought["order"]["id"]}))
    header = await nonce(boss.http, "refund.approve")
    approved = good(await boss.http.post(f"/v1/refunds/{made['id']}/approve", json={}, headers=header))
    assert approved["approved_by"] == approved["requested_by"] == f"user:{boss.id}"


async def test_a_repeated_request_asks_once(shop: Shop) -> None:
    bought = await paid(shop)
    body = {"order_id": bought["order"]["id"], "amount": 100}
    first, second = [
        await shop.staff.post("/v1/refunds", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert good(second) == good(first)
    assert await shop.count("refunds") == 1


async def test_with_jobs_the_rail_is_asked_right_after_the_approval(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master) as shop:
        shop.house.settings.jobs = True
        bought = await paid(shop)
        refund = await ask(shop, order_id=bought["order"]["id"])
        good(await decide(shop, refund, "approve"))
        await shop.house.refunder.soon(shop.scope.tenant)
        assert (await shop.row("refunds"))["status"] == "processed"
