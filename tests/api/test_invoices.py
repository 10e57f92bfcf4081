"""Bills and disputes over HTTP: what staff sees, and what customers see of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.accounts.organizations import organization, owner_of
from tests.support.app import MINUTE, Shop, good, opening, problem
from tests.support.fake_rails import NAME, connect, renew, subscribe

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.facts import DisputeFact
from counterfoil.settlement import disputing


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def billed(shop: Shop) -> tuple[str, str]:
    """Two customers; each has paid a second period of a subscription, the other one a minute later."""
    rail = connect(shop)
    sold = await shop.tier(amount=1_000, asset="EUR", type="recurring", interval="month", interval_count=1)
    firm, rival = await organization(shop), await organization(shop, "Rival")
    for number, customer in enumerate((firm, rival), 1):
        await subscribe(shop, rail, sold, customer_id=customer)
        await renew(shop, rail, f"sub-{number}")
        shop.clock.advance(MINUTE)
    return firm, rival


async def test_bills_are_listed_and_shown(shop: Shop) -> None:
    firm, _ = await billed(shop)
    page = good(await shop.staff.get("/v1/invoices", params={"limit": 1}))
    (first,) = page["data"]
    rest = good(await shop.staff.get("/v1/invoices", params={"after": page["next"]}))
    assert ([one["reference"] for one in rest["data"]], rest["next"]) == (["in-sub-2-0305"], None)
    assert (first["reference"], first["customer_id"], first["status"]) == ("in-sub-1-0305", firm, "paid")
    assert (first["amount"], first["number"], first["details"]) == (1_000, "A-2", {"secret": "of the seller"})
    assert good(await shop.staff.get(f"/v1/invoices/{first['id']}")) == first
    for params in ({"customer_id": firm}, {"subscription_id": first["subscription_id"], "status": "paid"}):
        assert good(await shop.staff.get("/v1/invoices", params=params))["data"] == [first]
    assert good(await shop.staff.get("/v1/invoices", params={"status": "open"}))["data"] == []
    problem(await shop.staff.get("/v1/invoices/inv_x"), 404, "invoice_not_found")
    problem(await shop.staff.get("/v1/invoices", params={"status": "lost"}), 422, "invalid_request")


async def test_a_member_sees_their_own_bills(shop: Shop) -> None:
    firm, rival = await billed(shop)
    owner = await owner_of(shop, firm)
    path = f"/v1/customers/{firm}/invoices"
    (mine,) = good(await owner.http.get(path))["data"]
    row = await shop.row("invoices", customer_id=firm)
    assert mine == {
        "id": row["id"],
        "number": "A-2",
        "customer_id": firm,
        "order_id": row["order_id"],
        "subscription_id": row["subscription_id"],
        "rail": NAME,
        "amount": 1_000,
        "tax": 0,
        "asset": "EUR",
        "billing_reason": "subscription_cycle",
        "status": "paid",
        "period_start": "2026-02-02T03:04:05.678901Z",
        "period_end": "2026-03-05T03:04:05.678901Z",
        "pdf_url": None,
        "receipt_url": None,
        "hosted_url": "https://rail.example/i/2",
        "paid_at": "2026-02-02T03:04:05.678901Z",
        "created_at": "2026-01-02T03:04:05.678901Z",
    }
    assert good(await owner.http.get(f"{path}/{row['id']}")) == mine
    theirs = (await shop.row("invoices", customer_id=rival))["id"]
    problem(await owner.http.get(f"{path}/{theirs}"), 404, "invoice_not_found")
    problem(await owner.http.get(f"/v1/customers/{rival}/invoices/{theirs}"), 404, "customer_not_found")
    problem(await owner.http.get("/v1/invoices"), 403, "missing_permission")
    problem(await owner.http.get("/v1/disputes"), 403, "missing_permission")


async def test_whoever_is_above_sees_the_bills_below(shop: Shop) -> None:
    msp = await organization(shop, level=1)
    firm = await organization(shop, "Below", parent_id=msp)
    rail = connect(shop)
    sold = await shop.tier(amount=1_000, asset="EUR", type="recurring", interval="month", interval_count=1)
    made = await subscribe(shop, rail, sold, customer_id=firm)
    await renew(shop, rail, "sub-1")
    owner = await owner_of(shop, msp)
    for kind, count in (("subscriptions", 1), ("invoices", 1)):
        path = f"/v1/customers/{msp}/{kind}"
        assert good(await owner.http.get(path))["data"] == []
        assert len(good(await owner.http.get(path, params={"below": True}))["data"]) == count
    # What is to be done below is done there: the path says at which customer.
    problem(await owner.http.get(f"/v1/customers/{msp}/subscriptions/{made}"), 404, "subscription_not_found")
    good(await owner.http.post(f"/v1/customers/{firm}/subscriptions/{made}/cancel", json={}))


async def dispute(shop: Shop, number: int, **values: Any) -> None:
    payment = f"pi-sub-{number}-0305"
    fact = DisputeFact(
        **{
            "reference": f"dp-{number}",
            "payment_reference": payment,
            "occurred_at": shop.clock.now() + timedelta(days=40),
            "amount": 1_000,
            "asset": "EUR",
            "status": "needs_response",
            "reason": "fraudulent",
            **values,
        }
    )
    assert await shop.scope.run(disputing.apply, NAME, fact) == "applied"


async def test_disputes_are_listed_shown_and_told(shop: Shop) -> None:
    firm, _ = await billed(shop)
    hook = {"url": "https://example.com/hook", "event_types": ["dispute.*", "invoice.*"]}
    good(await shop.staff.post("/v1/webhook-endpoints", json=hook))
    await dispute(shop, 1)
    shop.clock.advance(MINUTE)
    await dispute(shop, 2, status="lost")
    page = good(await shop.staff.get("/v1/disputes", params={"limit": 1}))
    (first,) = page["data"]
    assert (first["reference"], first["status"], first["customer_id"]) == ("dp-1", "needs_response", firm)
    assert (first["amount"], first["reason"], first["grants_policy"]) == (1_000, "fraudulent", "suspend")
    assert good(await shop.staff.get(f"/v1/disputes/{first['id']}")) == first
    (second,) = good(await shop.staff.get("/v1/disputes", params={"after": page["next"]}))["data"]
    assert [row["id"] for row in good(await shop.staff.get("/v1/disputes", params={"status": "lost"}))["data"]] == [
        second["id"]
    ]
    problem(await shop.staff.get("/v1/disputes/dsp_x"), 404, "dispute_not_found")
    problem(await shop.staff.get("/v1/disputes", params={"status": "gone"}), 422, "invalid_request")
    told = await shop.row("webhook_deliveries", event_type="dispute.opened", object_id=first["id"])
    assert '"status":"needs_response"' in told["payload"]
    assert (await shop.row("licenses", customer_id=firm))["status"] == "suspended"
