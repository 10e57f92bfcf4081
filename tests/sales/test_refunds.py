"""Asking for money back, and deciding about it: nobody ever claims more than was paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.app import MINUTE, Shop, good, opening, problem, total
from tests.support.refunds import ask, decide, execute, give_back, paid

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.kernel.secrets import MasterKey
from counterfoil.sales import refunds
from counterfoil.sales.refunds import NewRefund


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def books(shop: Shop) -> tuple[int, int, int]:
    """Of the only payment: paid, claimed, given back."""
    row = await shop.row("payments")
    return row["amount"], row["refund_reserved"], row["refunded"]


# -- asking -------------------------------------------------------------------------------------------


async def test_a_refund_of_an_order_claims_all_that_was_paid(shop: Shop) -> None:
    bought = await paid(shop)
    made = await ask(shop, order_id=bought["order"]["id"], reason=" Not what I\nexpected ", metadata={"ticket": 7})
    key = (await shop.rows("api_keys"))[0]["id"]
    assert made == {
        "id": made["id"],
        "payment_id": bought["payments"][0]["id"],
        "order_id": bought["order"]["id"],
        "kind": "refund",
        "type": "full",
        "rail": "sandbox",
        "amount": 1_000,
        "asset": "USD",
        "recipient": None,
        "status": "pending",
        "reason": "Not what I\nexpected",
        "grants_policy": "revoke",
        "restock": [],
        "requested_by": f"key:{key}",
        "approved_by": None,
        "processed_by": None,
        "rail_reference": None,
        "attempts": 0,
        "next_attempt_at": None,
        "claimed_by": None,
        "claimed_until": None,
        "error": None,
        "expires_at": None,
        "processed_at": None,
        "metadata": {"ticket": 7},
        "created_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05.678901Z",
    }
    assert await books(shop) == (1_000, 1_000, 0)
    event = await shop.row("events", type="refund.requested")
    assert (event["object_id"], event["amount"], event["asset"]) == (made["id"], 1_000, "USD")
    before = await shop.everything()
    again = await shop.staff.post("/v1/refunds", json={"order_id": bought["order"]["id"]})
    problem(again, 409, "refund_exceeds_payment")
    assert await shop.everything() == before
    assert await execute(shop) == 0  # nobody has approved it
    assert await shop.everything() == before


async def test_partial_refunds_keep_what_was_bought_until_nothing_is_left(shop: Shop) -> None:
    bought = await paid(shop)
    first = await ask(shop, order_id=bought["order"]["id"], amount=400)
    assert (first["type"], first["grants_policy"]) == ("partial", "keep")
    body = {"payment_id": bought["payments"][0]["id"], "amount": 601}
    refusal = problem(await shop.staff.post("/v1/refunds", json=body), 409, "refund_exceeds_payment")
    assert refusal["detail"] == "Of what was paid, $6.00 is left to give back."
    rest = await ask(shop, payment_id=bought["payments"][0]["id"])
    assert (rest["amount"], rest["type"], rest["grants_policy"]) == (600, "partial", "revoke")
    assert rest["order_id"] == bought["order"]["id"]
    assert await books(shop) == (1_000, 1_000, 0)


async def test_of_several_payments_the_request_names_one(shop: Shop) -> None:
    bought = await paid(shop, actions=("underpay", "pay"))
    first, second = bought["payments"]
    assert (first["amount"], second["amount"]) == (500, 500)
    before = await shop.everything()
    body = {"order_id": bought["order"]["id"]}
    problem(await shop.staff.post("/v1/refunds", json=body), 422, "payment_required")
    assert await shop.everything() == before
    one = await ask(shop, **body, payment_id=first["id"])
    assert (one["amount"], one["type"], one["grants_policy"]) == (500, "full", "keep")
    other = await ask(shop, **body, payment_id=second["id"])
    assert other["grants_policy"] == "revoke"


async def test_money_over_the_price_goes_back_without_the_license(shop: Shop) -> None:
    bought = await paid(shop, actions=("overpay",))
    (payment,) = bought["payments"]
    assert (payment["amount"], payment["status"]) == (1_100, "overpaid")
    over = await give_back(shop, payment_id=payment["id"], amount=100)
    assert (over["status"], over["grants_policy"]) == ("processed", "keep")
    order = await shop.row("orders")
    assert (order["status"], order["refunded"]) == ("paid", 0)
    assert (await shop.row("licenses"))["status"] == "active"
    rest = await give_back(shop, payment_id=payment["id"])
    assert (rest["amount"], rest["grants_policy"]) == (1_000, "revoke")
    order = await shop.row("orders")
    assert (order["status"], order["refunded"]) == ("refunded", 1_000)
    assert (await shop.row("licenses"))["status"] == "revoked"


@pytest.mark.parametrize("action", ["underpay", "wrong_asset"])
async def test_money_that_bought_nothing_can_be_given_back(shop: Shop, action: Any) -> None:
    bought = await paid(shop, actions=(action,))
    assert bought["order"] is None
    (payment,) = bought["payments"]
    done = await give_back(shop, payment_id=payment["id"])
    assert (done["status"], done["order_id"], done["asset"]) == ("processed", None, payment["asset"])
    assert await books(shop) == (payment["amount"], payment["amount"], payment["amount"])
    assert await shop.count("orders") == 0


async def test_what_was_free_has_nothing_to_give_back(shop: Shop) -> None:
    sold = await shop.tier("editor", amount=0, asset="USD")
    await shop.checkout(sold)
    order, payment = await shop.row("orders"), await shop.row("payments")
    before = await shop.everything()
    for body in ({"order_id": order["id"]}, {"payment_id": payment["id"]}, {"payment_id": payment["id"], "amount": 1}):
        refusal = problem(await shop.staff.post("/v1/refunds", json=body), 409, "refund_exceeds_payment")
        assert refusal["detail"] == "Of what was paid, nothing is left to give back."
    assert await shop.everything() == before


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({}, 422, "payment_required", "payment_id"),
    ({"order_id": "ord_x"}, 404, "order_not_found", None),
    ({"payment_id": "pay_x"}, 404, "payment_not_found", None),
    ({"payment_id": "P", "order_id": "ord_x"}, 404, "order_not_found", None),
    ({"payment_id": "OTHER", "order_id": "O"}, 422, "payment_not_of_order", "payment_id"),
    ({"payment_id": "P", "asset": "EUR"}, 422, "asset_mismatch", "asset"),
    ({"payment_id": "P", "amount": 0}, 422, "invalid_request", "amount"),
    ({"payment_id": "P", "amount": -1}, 422, "invalid_request", "amount"),
    ({"payment_id": "P", "amount": 2**63}, 422, "invalid_request", "amount"),
    ({"payment_id": "P", "amount": 1_001}, 409, "refund_exceeds_payment", "amount"),
    ({"payment_id": "P", "amount": 1.5}, 422, "invalid_request", None),
    ({"payment_id": "P", "reason": "x" * 2001}, 422, "invalid_request", "reason"),
    ({"payment_id": "P", "reason": "\x07"}, 422, "invalid_request", "reason"),
    ({"payment_id": "P", "recipient": ""}, 422, "invalid_request", "recipient"),
    ({"payment_id": "P", "recipient": "a\nb"}, 422, "invalid_request", "recipient"),
    ({"payment_id": "P", "metadata": {"a": "x" * 11_000}}, 422, "invalid_request", "metadata"),
    ({"payment_id": "P", "expires_at": "2026-01-02T03:04:05Z"}, 422, "invalid_request", "expires_at"),
    ({"payment_id": "P", "expires_at": "2027-01-02T03:04:05"}, 422, "invalid_request", "expires_at"),
    ({"payment_id": "P", "restock": [{"line": 1, "quantity": 1}]}, 422, "invalid_request", "restock/0/line"),
    ({"payment_id": "P", "restock": [{"line": -1, "quantity": 1}]}, 422, "invalid_request", "restock/0/line"),
    ({"payment_id": "P", "restock": [{"line": 0, "quantity": 2}]}, 422, "invalid_request", "restock/0/quantity"),
    ({"payment_id": "P", "restock": [{"line": 0, "quantity": 1}] * 2}, 422, "invalid_request", "restock"),
    ({"payment_id": "P", "kind": "gift"}, 422, "invalid_request", None),
    ({"payment_id": "P", "status": "processed"}, 422, "invalid_request", None),
]


async def test_bad_requests_change_nothing(shop: Shop) -> None:
    bought, other = await paid(shop), await paid(shop)
    known = {"P": bought["payments"][0]["id"], "OTHER": other["payments"][0]["id"], "O": bought["order"]["id"]}
    before = await shop.everything()
    for fields, status, code, pointer in BAD:
        body = {name: known.get(value, value) if isinstance(value, str) else value for name, value in fields.items()}
        refusal = problem(await shop.staff.post("/v1/refunds", json=body), status, code)
        two = {"refunds": [{"order_id": other["order"]["id"], "amount": 1}, body]}
        in_batch = problem(await shop.staff.post("/v1/refunds/batch", json=two), status, code)
        if pointer is not None:
            assert [error["pointer"] for error in refusal["errors"]] == [f"/{pointer}"]
            assert [error["pointer"] for error in in_batch["errors"]] == [f"/refunds/1/{pointer}"]
    assert await shop.everything() == before


async def test_a_batch_is_made_whole_or_not_at_all(shop: Shop) -> None:
    bought = [await paid(shop) for _ in range(3)]
    wanted = [{"order_id": one["order"]["id"], "amount": 300} for one in reversed(bought)]
    before = await shop.everything()
    refusal = problem(
        await shop.staff.post("/v1/refunds/batch", json={"refunds": [*wanted, {**wanted[0], "amount": 701}]}),
        409,
        "refund_exceeds_payment",
    )
    assert [error["pointer"] for error in refusal["errors"]] == ["/refunds/3/amount"]
    for count in (0, 101):
        body = {"refunds": [wanted[0]] * count}
        problem(await shop.staff.post("/v1/refunds/batch", json=body), 422, "invalid_request")
    assert await shop.everything() == before
    made = good(await shop.staff.post("/v1/refunds/batch", json={"refunds": [*wanted, {**wanted[0], "amount": 700}]}))
    assert [one["amount"] for one in made["data"]] == [300, 300, 300, 700]
    assert [one["order_id"] for one in made["data"][:3]] == [one["order_id"] for one in wanted]
    assert (made["data"][0]["grants_policy"], made["data"][3]["grants_policy"]) == ("keep", "revoke")
    assert await shop.count("events", type="refund.requested") == 4


async def test_no_line_goes_back_more_often_than_it_was_sold(shop: Shop) -> None:
    sold = await shop.tier("editor", amount=1_000, asset="USD")
    bought = await paid(shop, (sold, 3))
    order = bought["order"]["id"]
    first = await ask(shop, order_id=order, amount=1, restock=[{"line": 0, "quantity": 2}])
    two = {"order_id": order, "amount": 1, "restock": [{"line": 0, "quantity": 2}]}
    problem(await shop.staff.post("/v1/refunds", json=two), 422, "invalid_request")
    good(await decide(shop, first, "deny"))
    assert (await ask(shop, **two))["restock"] == [{"line": 0, "quantity": 2}]
    await ask(shop, order_id=order, amount=1, restock=[{"line": 0, "quantity": 1}])
    problem(await shop.staff.post("/v1/refunds", json=two), 422, "invalid_request")


# -- deciding -----------------------------------------------------------------------------------------


async def test_denied_money_is_free_again(shop: Shop) -> None:
    bought = await paid(shop)
    made = await ask(shop, order_id=bought["order"]["id"])
    denied = good(await decide(shop, made, "deny", note="Used for a year"))
    assert (denied["status"], denied["error"]) == ("denied", "Used for a year")
    assert denied["approved_by"] == made["requested_by"]
    assert await books(shop) == (1_000, 0, 0)
    before = await shop.everything("nonces")
    problem(await decide(shop, made, "deny"), 409, "refund_not_pending")
    problem(await decide(shop, made, "approve"), 409, "refund_not_pending")
    problem(await decide(shop, made, "settle", reference="x"), 409, "refund_not_approved")
    problem(await shop.staff.delete(f"/v1/refunds/{made['id']}"), 409, "refund_not_pending")
    assert await shop.everything("nonces") == before
    assert (await give_back(shop, order_id=bought["order"]["id"]))["status"] == "processed"


async def test_a_request_can_be_withdrawn_until_somebody_decides(shop: Shop) -> None:
    bought = await paid(shop)
    made = await ask(shop, order_id=bought["order"]["id"])
    assert (await shop.staff.delete(f"/v1/refunds/{made['id']}")).status_code == 204
    row = await shop.row("refunds")
    assert (row["status"], row["error"]) == ("denied", "withdrawn")
    assert await books(shop) == (1_000, 0, 0)
    again = await ask(shop, order_id=bought["order"]["id"])
    good(await decide(shop, again, "approve"))
    problem(await shop.staff.delete(f"/v1/refunds/{again['id']}"), 409, "refund_not_pending")
    problem(await shop.staff.delete("/v1/refunds/rfd_x"), 404, "refund_not_found")
    assert await books(shop) == (1_000, 1_000, 0)


async def test_the_approver_may_overrule_what_becomes_of_the_license(shop: Shop) -> None:
    bought = await paid(shop)
    made = await ask(shop, order_id=bought["order"]["id"])
    approved = good(await decide(shop, made, "approve", grants_policy="keep"))
    assert (approved["status"], approved["grants_policy"]) == ("approved", "keep")
    await execute(shop)
    assert (await shop.row("licenses"))["status"] == "active"
    assert (await shop.row("orders"))["status"] == "refunded"


async def test_requests_expire(shop: Shop) -> None:
    bought = await paid(shop)
    soon = (shop.clock.now() + MINUTE).isoformat()
    made = [await ask(shop, order_id=bought["order"]["id"], amount=100, expires_at=soon) for _ in range(3)]
    lasting = await ask(shop, order_id=bought["order"]["id"], amount=100)
    good(await decide(shop, made[0], "approve"))
    assert await shop.scope.run(refunds.expire_due) == 0
    shop.clock.advance(MINUTE)
    assert await shop.scope.run(refunds.expire_due) == 2
    assert await shop.scope.run(refunds.expire_due) == 0
    states = {row["id"]: (row["status"], row["error"], row["approved_by"]) for row in await shop.rows("refunds")}
    assert states[made[1]["id"]] == states[made[2]["id"]] == ("denied", "expired", None)
    assert states[lasting["id"]][0] == "pending"
    assert await books(shop) == (1_000, 200, 0)


# -- at once ------------------------------------------------------------------------------------------


async def test_a_hundred_requests_never_claim_more_than_was_paid(shop: Shop) -> None:
    bought = await paid(shop)
    body = {"order_id": bought["order"]["id"], "amount": 30}
    answers = await asyncio.gather(*[shop.staff.post("/v1/refunds", json=body) for _ in range(100)])
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, 409, "refund_exceeds_payment")
    rows = await shop.rows("refunds")
    assert (len(rows), total(rows)) == (33, 990)
    assert await books(shop) == (1_000, 990, 0)


async def test_a_hundred_decisions_are_one(shop: Shop) -> None:
    bought = await paid(shop)
    made = await ask(shop, order_id=bought["order"]["id"])

    async def one(number: int) -> str:
        op: Any = (refunds.approve, refunds.deny, refunds.withdraw)[number % 3]
        try:
            return str((await shop.scope.run(op, made["id"])).status)
        except CounterfoilError as error:
            return error.code

    answers = await asyncio.gather(*[one(number) for number in range(100)])
    (decided,) = [answer for answer in answers if answer != "refund_not_pending"]
    assert (await shop.row("refunds"))["status"] == decided
    assert await books(shop) == (1_000, 1_000 if decided == "approved" else 0, 0)
    assert await shop.count("events", type=f"refund.{decided}") == 1


async def test_of_two_payments_asked_for_at_once_one_takes_the_license(shop: Shop) -> None:
    """Whoever claims what is left last sees that nothing is."""
    bought = await paid(shop, actions=("underpay", "pay"))
    news = [NewRefund(payment_id=payment["id"]) for payment in bought["payments"]]
    made = await asyncio.gather(*[shop.scope.run(refunds.request, new) for new in news])
    assert sorted(one.grants_policy for one in made) == ["keep", "revoke"]


# -- reading ------------------------------------------------------------------------------------------


async def test_lists(shop: Shop) -> None:
    bought = [await paid(shop) for _ in range(2)]
    made = []
    for one in bought:
        for _ in range(2):
            made.append(await ask(shop, order_id=one["order"]["id"], amount=1))
            shop.clock.advance(timedelta(milliseconds=1))
    denied = good(await decide(shop, made[0], "deny"))

    async def found(**query: Any) -> list[str]:
        return [one["id"] for one in good(await shop.staff.get("/v1/refunds", params=query))["data"]]

    ids = [one["id"] for one in made]
    assert await found() == ids
    assert await found(status="pending") == ids[1:]
    assert await found(status="denied") == ids[:1]
    assert await found(order_id=bought[1]["order"]["id"]) == ids[2:]
    assert await found(payment_id=bought[0]["payments"][0]["id"], status="pending") == ids[1:2]
    assert await found(purchase_reference=bought[1]["order"]["purchase_reference"]) == ids[2:]
    assert await found(purchase_reference="nothing") == []
    assert await found(ids=f"{ids[2]},nothing,{ids[0]},{ids[2]}") == [ids[2], ids[0]]
    assert await found(ids="") == []
    problem(await shop.staff.get("/v1/refunds", params={"ids": ",".join(["x"] * 101)}), 422, "invalid_request")
    page = good(await shop.staff.get("/v1/refunds", params={"limit": 3}))
    assert [one["id"] for one in page["data"]] == ids[:3]
    assert await found(limit=3, after=page["next"]) == ids[3:]
    assert good(await shop.staff.get(f"/v1/refunds/{ids[0]}")) == denied
    problem(await shop.staff.get("/v1/refunds/rfd_x"), 404, "refund_not_found")
