"""Rails that keep copies are asked: about subscriptions that fell silent, and for webhooks that never came."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.peers.stripe_peers import StripePeer
from tests.support.mirrors import Till

from counterfoil.db.tx import Tx
from counterfoil.exchange import inbox
from counterfoil.exchange.inbox import News
from counterfoil.exchange.reconcile_mirrors import reconcile_mirrors
from counterfoil.kernel.errors import Conflict
from counterfoil.rails.base import Notice
from counterfoil.settlement.settle import Settlement

pytestmark = pytest.mark.xdist_group("mirrors")

MONTHLY: dict[str, Any] = {"type": "recurring", "interval": "month", "interval_count": 1, "asset": "USD"}


async def subscribe(till: Till) -> dict[str, Any]:
    """A subscription that was bought and heard of."""
    sold = await till.shop.tier(amount=900, **MONTHLY)
    opened = await till.checkout(sold)
    till.pay(opened)
    await till.hear()
    return await till.shop.row("subscriptions")


async def reconcile(till: Till) -> int:
    house = till.shop.house
    return await reconcile_mirrors(till.shop.scope, house.rails, house.pusher)


def asked(till: Till, path: str) -> int:
    """How often the provider was asked for something."""
    if isinstance(till.peer, StripePeer):
        return len(till.peer.requests(f"GET /v1{path}"))
    return sum(one["method"] == "GET" and one["path"].startswith(path) for one in till.peer.look("requests"))


async def books(till: Till) -> dict[str, list[Any]]:
    """The money of the only subscription, oldest first."""
    shop = till.shop
    invoices = {row["id"]: row for row in await shop.rows("invoices")}
    orders = {row["id"]: row for row in await shop.rows("orders")}
    periods = sorted(await shop.rows("subscription_periods"), key=lambda row: row["period_start"])
    for row in periods:
        assert invoices[row["invoice_id"]]["order_id"] == row["order_id"]
        assert invoices[row["invoice_id"]]["payment_id"] in {one["id"] for one in await shop.rows("payments")}
    return {
        "payments": sorted((row["amount"], row["asset"], row["status"]) for row in await shop.rows("payments")),
        "periods": [(row["status"], row["amount"], orders[row["order_id"]]["amount"]) for row in periods],
        "invoices": sorted(row["status"] for row in invoices.values()),
        "licenses": [row["status"] for row in await shop.rows("licenses")],
    }


ONE = {
    "payments": [(900, "USD", "settled")],
    "periods": [("paid", 900, 900)],
    "invoices": ["paid"],
    "licenses": ["active"],
}
TWO = {
    "payments": [(900, "USD", "settled")] * 2,
    "periods": [("paid", 900, 900)] * 2,
    "invoices": ["paid"] * 2,
    "licenses": ["active"],
}


async def test_events_bring_what_webhooks_did_not_and_twice_is_once(till: Till) -> None:
    subscription = await subscribe(till)
    assert subscription["status"] == "active"
    assert await books(till) == ONE
    before = await till.shop.everything("rail_settings")
    assert await till.hear() == 0
    assert await till.shop.everything("rail_settings") == before


async def test_a_renewal_that_nobody_told_of_is_found(till: Till) -> None:
    subscription = await subscribe(till)
    await till.renew(subscription["id"])
    till.shop.clock.advance(timedelta(days=31, hours=2))
    assert await reconcile(till) >= 2  # the subscription, and what happened to it
    assert await books(till) == TWO
    renewed = await till.shop.row("subscriptions")
    assert renewed["current_period_start"] == subscription["current_period_end"]
    assert renewed["checked_at"] == till.shop.clock.now()
    assert await reconcile(till) == 0


async def test_a_subscription_is_asked_about_when_its_bill_is_late_or_after_a_day(till: Till) -> None:
    subscription = await subscribe(till)
    path = f"/subscriptions/{await till.name_of('subscription', subscription['id'])}"
    for silent, times in ((timedelta(hours=23), 0), (timedelta(hours=1), 1), (timedelta(hours=23), 1)):
        till.shop.clock.advance(silent)
        await reconcile(till)
        assert asked(till, path) == times
    due = subscription["current_period_end"] - till.shop.clock.now()
    till.shop.clock.advance(due)
    await reconcile(till)
    assert asked(till, path) == 2
    till.shop.clock.advance(timedelta(minutes=59))  # not an hour late
    await reconcile(till)
    assert asked(till, path) == 2
    till.shop.clock.advance(timedelta(minutes=2))
    await reconcile(till)
    assert asked(till, path) == 3


async def test_a_quiet_rail_is_asked_for_its_events_once_an_hour(till: Till) -> None:
    await subscribe(till)
    known = asked(till, "/events")
    for wait, times in ((timedelta(minutes=59), 0), (timedelta(minutes=2), 1), (timedelta(0), 1)):
        till.shop.clock.advance(wait)
        await reconcile(till)
        assert asked(till, "/events") == known + times


async def test_a_rail_that_is_heard_is_asked_once_a_day_all_the_same(till: Till) -> None:
    await subscribe(till)
    known, last = asked(till, "/events"), await till.shop.rows("inbox")
    for hours, times in ((23, 0), (2, 1)):
        till.shop.clock.advance(timedelta(hours=hours))
        news = News(till.rail, notice(f"evt_{hours}", till.shop.clock.now()), None)
        await till.shop.scope.run(inbox.apply_many, [news])
        till.shop.clock.advance(timedelta(minutes=1))
        await reconcile(till)
        assert asked(till, "/events") == known + times
    assert await till.shop.count("inbox") == len(last) + 2


async def test_a_rail_that_does_not_answer_is_asked_again(till: Till) -> None:
    subscription = await subscribe(till)
    await till.renew(subscription["id"])
    till.shop.clock.advance(timedelta(days=31, hours=2))
    if isinstance(till.peer, StripePeer):
        till.peer.fail("GET /v1/subscriptions", hang_up=True)
    else:
        till.peer.control("fail", match="GET /subscriptions", hang_up=True)
    assert await reconcile(till) == 0
    assert await books(till) == ONE
    till.shop.clock.advance(timedelta(hours=2))
    assert await reconcile(till) >= 2
    assert await books(till) == TWO


@pytest.mark.parametrize("till", ["paddle"], indirect=True)
async def test_an_answer_that_is_news_has_the_events_read_at_once(till: Till) -> None:
    subscription = await subscribe(till)
    till.shop.clock.advance(subscription["current_period_end"] - till.shop.clock.now())
    await till.hear()
    await till.renew(subscription["id"])
    till.shop.clock.advance(timedelta(minutes=90))
    news = News(till.rail, notice("evt_other", till.shop.clock.now()), None)  # so that the rail is not quiet
    await till.shop.scope.run(inbox.apply_many, [news])
    till.shop.clock.advance(timedelta(minutes=1))
    assert await reconcile(till) >= 2
    assert await books(till) == TWO


@pytest.mark.parametrize("till", ["paddle"], indirect=True)
async def test_a_list_that_does_not_go_back_that_far_is_read_from_its_beginning(till: Till) -> None:
    subscription = await subscribe(till)
    till.shop.clock.advance(timedelta(hours=1))
    await till.hear()
    await till.renew(subscription["id"])
    till.shop.clock.advance(timedelta(days=40))
    body = '{"error": {"type": "request_error", "code": "not_found", "detail": "no such event"}, "meta": {}}'
    till.peer.control("fail", match="GET /events", status=404, body=body)
    assert await till.hear() > 0
    assert await books(till) == TWO


async def test_news_that_does_not_fit_is_set_aside_and_the_rest_goes_on(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = inbox.apply

    def refuse_some(tx: Tx, one: News, *locked: Any) -> Settlement:
        if one.notice.type == "product.created":
            raise Conflict("It does not fit.", code="does_not_fit")
        return original(tx, one, *locked)

    monkeypatch.setattr(inbox, "apply", refuse_some)
    await subscribe(till)
    assert await books(till) == ONE
    aside = await till.shop.rows("inbox", status="set_aside")
    assert {(row["type"], row["error"]) for row in aside} == {("product.created", "does_not_fit: It does not fit.")}
    assert await till.hear() == 0


async def test_what_happened_in_between_is_not_skipped(till: Till) -> None:
    """A webhook that came after some that were lost does not move the place from where events are read."""
    subscription = await subscribe(till)
    await till.renew(subscription["id"])
    till.shop.clock.advance(timedelta(days=40))
    news = News(till.rail, notice("evt_later", till.shop.clock.now()), None)
    await till.shop.scope.run(inbox.apply_many, [news])
    assert await till.hear() > 0
    assert await books(till) == TWO


def notice(event_id: str, at: datetime) -> Notice:
    return Notice(event_id=event_id, type="product.updated", occurred_at=at, reference=None)
