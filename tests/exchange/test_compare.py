"""A day's payments beside the rail's own list: what is missing on either side, and what differs."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.peers.stripe_peers import StripePeer
from tests.support.app import good, problem
from tests.support.mirrors import PADDLE, Till

from counterfoil.db.tx import Tx
from counterfoil.exchange import comparing_payments
from counterfoil.exchange.comparing_payments import Comparison, compare, compare_due
from counterfoil.kernel.errors import Invalid, NotFound, Unavailable
from counterfoil.kernel.money import Money
from counterfoil.sales import payments
from counterfoil.sales.tables import payments as payments_table

pytestmark = pytest.mark.xdist_group("mirrors")

MONTHLY: dict[str, Any] = {"type": "recurring", "interval": "month", "interval_count": 1}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing_payments, "_PAGE", 2)


async def beside(till: Till, day: date, **how: Any) -> Comparison:
    house = till.shop.house
    return await compare(till.shop.scope, house.rails, house.pusher, till.rail, day, **how)


async def sell(till: Till, number: int) -> list[datetime]:
    """That many sales at the rail, the last one a subscription; when they were paid, as far as we heard."""
    once = await till.shop.tier(amount=1_900, asset="USD")
    again = await till.shop.tier("monthly", amount=900, asset="USD", **MONTHLY)
    for place in range(number):
        till.pay(await till.checkout(again if place == number - 1 else once, email="buyer@example.com"))
    return [row["occurred_at"] for row in await till.shop.rows("payments")]


def today() -> date:
    return datetime.now(UTC).date()


def wait_for_tomorrow(till: Till) -> None:
    """Until today is over, and nothing more of it can come."""
    clock = till.shop.clock
    clock.advance(datetime.combine(today() + timedelta(days=1), time(2), UTC) - clock.now())


async def test_a_day_is_the_same_here_and_there(till: Till) -> None:
    await sell(till, 3)
    await till.hear()
    done = await beside(till, today())
    assert (done.ours, done.theirs, done.found, done.differences) == (3, 3, 0, [])
    event = (await till.shop.rows("events", type="payments.compared"))[0]
    assert (event["object_kind"], event["object_id"]) == ("rail", till.rail)
    assert event["details"] == {
        "day": today().isoformat(), "ours": 3, "theirs": 3, "found": 0,
        "missing_here": 0, "missing_there": 0, "differs": 0,
    }  # fmt: skip
    assert await till.shop.events("payments.differ") == []
    assert (await beside(till, today() - timedelta(days=1))).theirs == 0


async def test_a_payment_that_is_missing_here_is_looked_for(till: Till) -> None:
    await sell(till, 3)
    assert await till.shop.count("payments") == 0
    told = await beside(till, today(), repair=False)
    assert ([one.kind for one in told.differences], told.ours, told.theirs) == (["missing_here"] * 3, 0, 3)
    assert sorted((one.their_amount, one.their_asset) for one in told.differences) == [
        (900, "USD"), (1_900, "USD"), (1_900, "USD"),
    ]  # fmt: skip
    assert await till.shop.count("payments") == 0
    assert await till.shop.events("payments.compared") == []
    done = await beside(till, today())
    assert (done.ours, done.theirs, done.differences) == (3, 3, [])
    assert done.found > 0
    assert sorted(row["amount"] for row in await till.shop.rows("orders")) == [900, 1_900, 1_900]


def _change(tx: Tx, payment_id: str, amount: int) -> None:
    """What nothing in the program does."""
    tx.execute(sa.update(payments_table).where(payments_table.c.id == payment_id).values(amount=amount), {})


async def test_what_differs_is_written_down(till: Till) -> None:
    at, *_ = await sell(till, 2) or [till.shop.clock.now()]
    await till.hear()
    first = (await till.shop.rows("payments"))[0]
    await till.shop.scope.run(_change, first["id"], first["amount"] + 1)
    made = await till.shop.scope.run(
        payments.add_if_new, rail=till.rail, reference="made-up", checkout_id=None, customer_id=None, payer=None,
        money=Money(5, "USD"), status="unmatched", details={}, occurred_at=at,
    )  # fmt: skip
    assert made is not None
    done = await beside(till, today())
    assert (done.ours, done.theirs) == (3, 2)
    by_kind = {one.kind: one for one in done.differences}
    assert len(done.differences) == 2
    differs, gone = by_kind["differs"], by_kind["missing_there"]
    assert (differs.payment_id, differs.reference) == (first["id"], first["reference"])
    assert (differs.amount, differs.their_amount, differs.their_asset) == (
        first["amount"] + 1, first["amount"], "USD",
    )  # fmt: skip
    assert (gone.payment_id, gone.reference, gone.amount, gone.their_amount) == (made.id, "made-up", 5, None)
    details = [row["details"] for row in await till.shop.rows("events", type="payments.differ")]
    assert sorted((one["kind"], one["reference"]) for one in details) == [
        ("differs", first["reference"]), ("missing_there", "made-up"),
    ]  # fmt: skip
    counts = (await till.shop.row("events", type="payments.compared"))["details"]
    assert (counts["missing_here"], counts["missing_there"], counts["differs"]) == (0, 1, 1)
    shown = good(await till.shop.staff.get(f"/v1/rails/{till.rail}/compare?day={today()}"))
    assert (shown["same"], shown["ours"], shown["theirs"], len(shown["differences"])) == (False, 3, 2, 2)
    assert await till.shop.count("events", type="payments.compared") == 1


async def test_every_day_is_compared_once_when_it_is_over(till: Till) -> None:
    await sell(till, 2)
    await till.hear()
    house = till.shop.house

    async def due() -> int:
        return await compare_due(till.shop.scope, house.rails, house.pusher)

    async def days() -> list[str]:
        rows = await till.shop.rows("events", type="payments.compared")
        return sorted(row["details"]["day"] for row in rows)

    assert await due() == 0
    over = datetime.combine(today() + timedelta(days=1), time(), UTC)
    till.shop.clock.advance(over + timedelta(minutes=59) - till.shop.clock.now())
    assert await due() == 0
    till.shop.clock.advance(timedelta(minutes=2))
    assert (await due(), await due()) == (1, 0)
    assert await days() == [today().isoformat()]
    assert [row["details"]["ours"] for row in await till.shop.rows("events", type="payments.compared")] == [2]
    till.shop.clock.advance(timedelta(days=3))  # nobody ran jobs meanwhile
    assert (await due(), await due()) == (3, 0)
    assert await days() == [(today() + timedelta(days=place)).isoformat() for place in range(4)]


async def test_the_jobs_do_it(till: Till) -> None:
    await sell(till, 2)
    wait_for_tomorrow(till)
    await till.shop.house.runner().run_due()
    event = await till.shop.row("events", type="payments.compared")
    assert event["actor_id"] == "compare_payments"
    assert (event["details"]["day"], event["details"]["ours"], event["details"]["theirs"]) == (
        today().isoformat(), 2, 2,
    )  # fmt: skip
    assert await till.shop.count("orders") == 2
    assert {row["error"] for row in await till.shop.rows("jobs")} == {None}


async def test_a_rail_that_does_not_answer_is_asked_about_the_same_day_again(till: Till) -> None:
    await sell(till, 1)
    await till.hear()
    wait_for_tomorrow(till)
    house = till.shop.house
    for status in (503, 401):
        if isinstance(till.peer, StripePeer):
            till.peer.fail("GET /v1/events", status=status)
        else:
            till.peer.control("fail", match="GET /transactions", status=status)
        with pytest.raises(Unavailable):
            await beside(till, today())
    if isinstance(till.peer, StripePeer):
        till.peer.fail("GET /v1/events", hang_up=True)
    else:
        till.peer.control("fail", match="GET /transactions", hang_up=True)
    before = await till.shop.everything()
    assert await compare_due(till.shop.scope, house.rails, house.pusher) == 0
    assert await till.shop.everything() == before
    assert await compare_due(till.shop.scope, house.rails, house.pusher) == 1


async def test_what_cannot_be_compared(till: Till) -> None:
    before = await till.shop.everything()
    with pytest.raises(Invalid, match="has not begun"):
        await beside(till, today() + timedelta(days=2))
    if till.rail == PADDLE:
        assert (await beside(till, today() - timedelta(days=400), repair=False)).theirs == 0
    else:
        with pytest.raises(Invalid, match="last 30 days"):
            await beside(till, today() - timedelta(days=31))
    house = till.shop.house
    with pytest.raises(NotFound):
        await compare(till.shop.scope, house.rails, house.pusher, "sandbox", today())
    get = till.shop.staff.get
    problem(await get(f"/v1/rails/{till.rail}/compare?day=yesterday"), 422, "invalid_request")
    problem(await get(f"/v1/rails/sandbox/compare?day={today()}"), 404, "rail_keeps_no_copies")
    problem(await get(f"/v1/rails/paddle/compare?day={today()}"), 404, "rail_not_connected")
    assert (await till.shop.http.get(f"/v1/rails/{till.rail}/compare?day={today()}")).status_code == 401
    assert await till.shop.everything() == before
