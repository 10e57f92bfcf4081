"""What money takes with it when it goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem
from tests.support.refunds import ask, decide, execute, give_back, paid

from counterfoil.catalog import stock
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.kernel.secrets import MasterKey
from counterfoil.licensing import licenses
from counterfoil.rails.sandbox.rail import REFUSE
from counterfoil.sales import refund_attempts
from counterfoil.settlement import reverse

ADDRESS = {"name": "Ada", "line1": "1 Main St", "city": "Bern", "postal_code": "3000", "country": "CH"}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def states(shop: Shop) -> tuple[list[str], list[str], str, int]:
    """Of the licenses, the grants and the only order; and what the order says went back."""
    order = await shop.row("orders")
    return (
        [row["status"] for row in await shop.rows("licenses")],
        [row["status"] for row in await shop.rows("grants")],
        order["status"],
        order["refunded"],
    )


@pytest.mark.parametrize(
    ("policy", "after"), [("revoke", "revoked"), ("suspend", "suspended"), ("keep", "active"), (None, "revoked")]
)
async def test_the_policy_decides_what_becomes_of_the_licenses(shop: Shop, policy: Any, after: str) -> None:
    sold = await shop.tier("editor", amount=1_000, asset="USD")
    bought = await paid(shop, (sold, 2))
    done = await give_back(shop, order_id=bought["order"]["id"], grants_policy=policy)
    assert await states(shop) == ([after] * 2, [after] * 2, "refunded", 2_000)
    reasons = {row["revocation_reason"] or row["suspension_reason"] for row in await shop.rows("licenses")}
    assert reasons == ({None} if after == "active" else {f"refunded: {done['id']}"})


async def test_partial_refunds_add_up_and_the_last_ones_policy_decides(shop: Shop) -> None:
    bought = await paid(shop)
    order = bought["order"]["id"]
    await give_back(shop, order_id=order, amount=400)
    assert await states(shop) == (["active"], ["active"], "paid", 400)
    await give_back(shop, order_id=order, amount=100, grants_policy="suspend")
    assert await states(shop) == (["suspended"], ["suspended"], "paid", 500)
    await give_back(shop, order_id=order)
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)
    payment = await shop.row("payments")
    assert (payment["refund_reserved"], payment["refunded"]) == (1_000, 1_000)
    notes = {row["note"] for row in await shop.rows("order_history")}
    assert {"Given back: 4.00 USD", "Given back: 1.00 USD", "Given back: 5.00 USD"} < notes


async def test_licenses_that_are_gone_already_do_not_hold_a_refund_up(shop: Shop) -> None:
    sold = await shop.tier("editor", amount=1_000, asset="USD")
    bought = await paid(shop, (sold, 3))
    first, second, _ = await shop.rows("licenses")
    await shop.scope.run(licenses.revoke, first["id"], reason="shared")
    await shop.scope.run(licenses.suspend, second["id"], reason="unpaid")
    await give_back(shop, order_id=bought["order"]["id"], grants_policy="suspend")
    kept = {
        row["id"]: (row["status"], row["revocation_reason"] or row["suspension_reason"])
        for row in await shop.rows("licenses")
    }
    assert kept[first["id"]] == ("revoked", "shared")
    assert kept[second["id"]] == ("suspended", "unpaid")
    assert {status for status, _ in kept.values()} == {"revoked", "suspended"}


async def test_other_orders_keep_what_they_gave(shop: Shop) -> None:
    other = await paid(shop)
    bought = await paid(shop)
    await give_back(shop, order_id=bought["order"]["id"])
    assert (await shop.row("licenses", order_id=other["order"]["id"]))["status"] == "active"
    assert (await shop.row("grants", order_id=other["order"]["id"]))["status"] == "active"
    assert (await shop.row("orders", id=other["order"]["id"]))["refunded"] == 0


async def test_goods_go_back_on_the_shelf(shop: Shop) -> None:
    product = good(await shop.staff.post("/v1/products", json={"slug": "mug", "name": "Mug"}))["id"]
    good(await shop.staff.put(f"/v1/products/{product}/benefits", json={"tier": "default", "goods": {"sku": "M"}}))
    body = {"asset": "USD", "unit_amount": 500}
    price = good(await shop.staff.post(f"/v1/products/{product}/prices", json=body))["id"]
    await shop.scope.run(stock.set_, product, on_hand=10)
    body = {"lines": [{"price_id": price, "quantity": 4}], "shipping": ADDRESS}
    opened = good(await shop.http.post("/v1/checkouts", json=body))
    await shop.play(opened, "pay")
    assert (await shop.row("stock_items"))["on_hand"] == 6
    order = (await shop.row("orders"))["id"]
    await give_back(shop, order_id=order, amount=500, restock=[{"line": 0, "quantity": 1}])
    assert (await shop.row("stock_items"))["on_hand"] == 7
    assert (await shop.row("grants"))["status"] == "active"
    refused = await give_back(shop, order_id=order, recipient=REFUSE, restock=[{"line": 0, "quantity": 3}])
    assert (refused["status"], (await shop.row("stock_items"))["on_hand"]) == ("failed", 7)
    await give_back(shop, order_id=order, restock=[{"line": 0, "quantity": 3}])
    assert (await shop.row("stock_items"))["on_hand"] == 10
    assert (await shop.row("grants"))["status"] == "revoked"
    # The one that failed has nothing left to give back, neither money nor mugs.
    before = await shop.everything("nonces")
    problem(await decide(shop, refused, "settle", reference="x"), 409, "refund_exceeds_payment")
    assert await shop.everything("nonces") == before


# -- once ---------------------------------------------------------------------------------------------


async def test_the_same_answer_many_times_changes_things_once(shop: Shop) -> None:
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    before = await shop.everything()
    with pytest.raises(CounterfoilError, match="Nobody has approved this refund"):
        await shop.scope.run(reverse.reverse, refund["id"], reference="r")
    assert await shop.everything() == before
    good(await decide(shop, refund, "approve"))
    await shop.scope.run(refund_attempts.claim, refund["id"], "one")
    done = await asyncio.gather(*[shop.scope.run(reverse.reverse, refund["id"], reference="r") for _ in range(20)])
    assert {(one.status, one.rail_reference) for one in done} == {("processed", "r")}
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)
    assert await shop.count("events", type="refund.processed") == 1
    after = await shop.everything()
    await shop.scope.run(reverse.reverse, refund["id"], reference="another")
    assert await shop.everything() == after


async def test_a_hundred_people_settle_by_hand_once(shop: Shop) -> None:
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    good(await decide(shop, refund, "approve"))

    async def one(number: int) -> str:
        try:
            done = await shop.scope.run(reverse.settle_by_hand, refund["id"], reference=str(number))
        except CounterfoilError as error:
            return error.code
        return str(done.rail_reference)

    answers = await asyncio.gather(*[one(number) for number in range(100)])
    (reference,) = [answer for answer in answers if answer != "refund_not_approved"]
    assert (await shop.row("refunds"))["rail_reference"] == reference
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)
    assert await execute(shop) == 0


async def test_many_partial_refunds_at_once_add_up(shop: Shop) -> None:
    """Of an order with two payments, so that what its order says is computed under its lock."""
    bought = await paid(shop, actions=("underpay", "pay"))
    made = []
    for payment in bought["payments"]:
        made += [await ask(shop, payment_id=payment["id"], amount=100) for _ in range(5)]
    for refund in made:
        good(await decide(shop, refund, "approve"))

    async def settle(refund: dict[str, Any]) -> None:
        await shop.scope.run(reverse.settle_by_hand, refund["id"], reference="x")

    await asyncio.gather(*[settle(refund) for refund in made])
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)
    assert [row["refunded"] for row in await shop.rows("payments")] == [500, 500]


# -- by hand ------------------------------------------------------------------------------------------


async def test_what_a_rail_refused_can_be_given_back_by_hand(shop: Shop) -> None:
    bought = await paid(shop)
    failed = await give_back(shop, order_id=bought["order"]["id"], recipient=REFUSE)
    assert (await shop.row("payments"))["refund_reserved"] == 0
    settled = good(await decide(shop, failed, "settle", reference="IBAN 1", note="by bank"))
    assert (settled["status"], settled["rail_reference"]) == ("processed", "IBAN 1")
    event = await shop.row("events", type="refund.processed")
    assert (event["details"]["reference"], event["details"]["note"]) == ("IBAN 1", "by bank")
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)


async def test_a_failed_refund_whose_money_is_claimed_again_stays_failed(shop: Shop) -> None:
    bought = await paid(shop)
    failed = await give_back(shop, order_id=bought["order"]["id"], recipient=REFUSE)
    await ask(shop, order_id=bought["order"]["id"], amount=1)
    before = await shop.everything("nonces")
    problem(await decide(shop, failed, "settle", reference="x"), 409, "refund_exceeds_payment")
    assert await shop.everything("nonces") == before


async def test_nobody_settles_by_hand_what_a_rail_is_just_asked_for(shop: Shop) -> None:
    bought = await paid(shop)
    refund = await ask(shop, order_id=bought["order"]["id"])
    problem(await decide(shop, refund, "settle", reference="x"), 409, "refund_not_approved")
    good(await decide(shop, refund, "approve"))
    claimed = await shop.scope.run(refund_attempts.claim, refund["id"], "one")
    assert claimed is not None
    before = await shop.everything("nonces")
    refusal = problem(await decide(shop, refund, "settle", reference="x"), 409, "refund_not_approved")
    assert refusal["detail"] == "Its rail is asked for this refund just now."
    for reference in ("", "a\nb", "x" * 501):
        problem(await decide(shop, refund, "settle", reference=reference), 422, "invalid_request")
    assert await shop.everything("nonces") == before
    await shop.scope.run(refund_attempts.postpone, claimed, "no answer")
    assert good(await decide(shop, refund, "settle", reference="seen there"))["status"] == "processed"


# -- money that had bought nothing --------------------------------------------------------------------


async def test_what_went_back_does_not_help_to_pay(shop: Shop) -> None:
    """Half is paid and given back; the other half then comes, and is half."""
    bought = await paid(shop, actions=("underpay",))
    (first,) = bought["payments"]
    assert (await shop.row("checkouts"))["paid"] == 500
    await give_back(shop, payment_id=first["id"])
    assert (await shop.row("checkouts"))["paid"] == 0
    refusal = await shop.staff.post(f"/v1/payments/{first['id']}/resolve", json={"resolution": "accepted"})
    problem(refusal, 409, "payment_refunded")
    await shop.play(bought["checkout"], "underpay", "pay")
    assert await shop.count("orders") == 0
    assert (await shop.row("checkouts"))["paid"] == 500
    assert await shop.count("licenses") == 0


async def test_what_bought_something_after_it_was_asked_for_counts_for_the_order(shop: Shop) -> None:
    bought = await paid(shop, actions=("underpay",))
    refund = await ask(shop, payment_id=bought["payments"][0]["id"])
    assert (refund["order_id"], refund["grants_policy"]) == (None, "revoke")
    await shop.play(bought["checkout"], "underpay", "pay")
    good(await decide(shop, refund, "approve"))
    await execute(shop)
    assert await states(shop) == (["active"], ["active"], "paid", 500)
    other = next(row for row in await shop.rows("payments") if row["id"] != refund["payment_id"])
    await give_back(shop, payment_id=other["id"])
    assert await states(shop) == (["revoked"], ["revoked"], "refunded", 1_000)
