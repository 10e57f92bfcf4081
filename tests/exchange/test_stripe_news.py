"""Stripe's news that does not fit, is of no kind we know, comes late, or comes from another's program."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.peers.stripe_peers import LocalStripe
from tests.peers.stripe_shop import LINE, open_session
from tests.support.app import good, problem
from tests.support.receiver import Message, Reply, receiving
from tests.support.stripe_shop import MONTHLY, RAIL, SECRET, StripeShop, books_equal, connect

from counterfoil.db.tx import Tx
from counterfoil.exchange.reconcile import reconcile
from counterfoil.kernel.secrets import MasterKey
from counterfoil.settlement import links

pytestmark = pytest.mark.xdist_group("stripe-peers")

ON_SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])


async def test_a_price_that_is_none_of_ours(stripe_shop: StripeShop) -> None:
    """Its news is set aside, answered as taken, and applied once the price is known."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    row, reference = await stripe_shop.subscribe()
    sold = await shop.tier("viewer", amount=400, license={"max_machines": 1}, **MONTHLY)
    client = peer.official()
    theirs = client.prices.create(
        {"product": (await shop.row("products", slug="editor"))["id"], "currency": "eur", "unit_amount": 400,
         "recurring": {"interval": "month"}}
    ).id  # fmt: skip
    (item,) = peer.look(f"subscriptions/{reference}")["items"]["data"]
    stripe_shop.move_on(timedelta(days=1))
    client.subscriptions.update(reference, {"items": [{"id": item["id"], "price": theirs}]})
    await stripe_shop.tell_all()
    aside = await shop.row("inbox", status="set_aside")
    assert aside["type"] == "customer.subscription.updated"
    assert aside["error"].startswith("price_unknown: ")
    assert theirs in aside["error"]
    assert (await shop.row("subscriptions"))["updated_at"] == row["updated_at"]
    assert await shop.events("inbox.set_aside") == ["inbox.set_aside"]
    problem(await shop.staff.post(f"/v1/inbox/{aside['id']}/replay"), 409, "price_unknown")
    # Somebody says that it is ours.
    await shop.scope.run(_link, sold.price_id, theirs)
    assert good(await shop.staff.post(f"/v1/inbox/{aside['id']}/replay"))["new"] is True
    assert (await shop.row("inbox", id=aside["id"]))["status"] == "applied"
    (kept,) = await shop.rows("subscription_items")
    assert (kept["price_id"], kept["quantity"]) == (sold.price_id, 1)
    assert good(await shop.staff.post(f"/v1/inbox/{aside['id']}/replay"))["new"] is False


def _link(tx: Tx, price_id: str, reference: str) -> None:
    links.link(tx, RAIL, "price", price_id, reference)


@ON_SQLITE
async def test_what_we_do_not_know_is_kept_as_it_came(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    await stripe_shop.sell()
    event = {**stripe_shop.peer.events()[-1], "id": "evt_new", "type": "checkout.session.dreamed"}
    before = await shop.everything("inbox")
    assert (await stripe_shop.tell(event))["new"] is True
    assert (await stripe_shop.tell(event))["new"] is False
    assert await shop.everything("inbox") == before
    kept = await shop.row("inbox", event_id="evt_new")
    assert (kept["status"], kept["error"]) == ("unknown", None)
    assert '"checkout.session.dreamed"' in kept["body"]


@ON_SQLITE
async def test_what_cannot_be_read_is_kept_with_why(stripe_shop: StripeShop) -> None:
    shop = stripe_shop.shop
    await stripe_shop.sell()
    paid = next(one for one in stripe_shop.peer.events() if one["type"] == "payment_intent.succeeded")
    broken = {**paid, "id": "evt_broken", "data": {"object": {**paid["data"]["object"], "amount_received": "much"}}}
    await stripe_shop.tell(broken)
    kept = await shop.row("inbox", event_id="evt_broken")
    assert kept["status"] == "unknown"
    assert "amount_received" in kept["error"]
    live = {**paid, "id": "evt_live", "livemode": True}
    await stripe_shop.tell(live)
    assert (await shop.row("inbox", event_id="evt_live"))["status"] == "unknown"


@ON_SQLITE
async def test_older_news_changes_nothing(stripe_shop: StripeShop) -> None:
    shop, peer = stripe_shop.shop, stripe_shop.peer
    _row, reference = await stripe_shop.subscribe()
    stripe_shop.move_on(timedelta(days=1))
    peer.official().subscriptions.update(reference, {"cancel_at_period_end": True})
    stripe_shop.move_on(timedelta(days=1))
    peer.official().subscriptions.update(reference, {"cancel_at_period_end": False})
    first, second = (one for one in stripe_shop.news() if one["type"] == "customer.subscription.updated")
    await stripe_shop.tell(second)
    await books_equal(stripe_shop)
    before = await shop.everything("inbox", "subscriptions")
    await stripe_shop.tell(first)
    await books_equal(stripe_shop)
    assert await shop.everything("inbox", "subscriptions") == before


@ON_SQLITE
async def test_a_webhook_asks_nobody_anything(stripe_shop: StripeShop) -> None:
    """Not even where its news raises a question: that is asked after."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    await stripe_shop.sell()
    peer.official().refunds.create({"payment_intent": peer.objects()["payment_intents"][-1], "amount": 500})
    asked = len(peer.requests())
    for event in stripe_shop.news():
        await stripe_shop.tell(event)
    assert len(peer.requests()) == asked
    assert {row["type"] for row in await shop.rows("inbox", status="waiting")} == {"refund.created"}
    assert await shop.count("refunds") == 0
    peer.fail("GET /v1/invoice_payments", status=500)
    await stripe_shop.ask()
    assert (await shop.row("inbox", status="waiting"))["attempts"] == 1
    stripe_shop.move_on(timedelta(seconds=30))
    await stripe_shop.ask()
    assert await shop.count("inbox", status="waiting") == 0
    assert (await shop.row("refunds"))["amount"] == 500


@ON_SQLITE
async def test_money_back_of_a_payment_that_is_not_ours(stripe_shop: StripeShop) -> None:
    """Another program may use the same account: its refunds wait a while, and are then let be."""
    shop, peer = stripe_shop.shop, stripe_shop.peer
    client = peer.official()
    session = open_session(client, "payment", LINE, metadata={})
    intent = peer.pay(session.id)["payment_intent"]
    client.refunds.create({"payment_intent": intent})
    await stripe_shop.tell_all()
    assert await shop.count("inbox", status="waiting") == 1
    for _ in range(13):
        stripe_shop.move_on(timedelta(hours=6))
        await stripe_shop.ask()
    assert await shop.count("inbox", status="waiting") == await shop.count("inbox", status="set_aside") == 0
    assert (await shop.row("inbox", type="refund.created"))["status"] == "unknown"
    assert await shop.count("payments") == await shop.count("refunds") == 0


@ON_SQLITE
async def test_anothers_program_sends_signed_events(
    stripe_shop: StripeShop, localstripe: LocalStripe, master: MasterKey
) -> None:
    """localstripe's shapes are of 2017: each event is accepted, and applied or kept as one we do not know."""
    shop = stripe_shop.shop
    shop.clock.advance(datetime.now(UTC) - shop.clock.now())
    await connect(shop, stripe_shop.peer, master, webhook_secrets=("whsec_retired", SECRET))
    statuses: list[int] = []
    enough = asyncio.Event()

    async def relay(message: Message) -> Reply:
        answer = await shop.http.post(f"/v1/webhooks/{RAIL}", content=message.body, headers=message.headers)
        statuses.append(answer.status_code)
        if len(statuses) >= _AT_LEAST:
            enough.set()
        return Reply(answer.status_code)

    async with receiving() as receiver:
        receiver.answer = relay
        await asyncio.to_thread(_live_a_little, localstripe, receiver.url)
        async with asyncio.timeout(15):
            await enough.wait()
    assert statuses == [200] * len(statuses)
    types = {row["type"]: row["status"] for row in await shop.rows("inbox")}
    assert types["product.created"] == types["customer.created"] == "applied"
    assert set(types.values()) <= {"applied", "unknown", "waiting"}
    await stripe_shop.ask()
    assert await shop.count("inbox", status="set_aside") == 0
    assert await shop.count("payments") == await shop.count("subscriptions") == 0


_AT_LEAST = 6
"""So many events follow from it at least."""


def _live_a_little(other: LocalStripe, url: str) -> None:
    """A customer there buys a subscription."""
    other.listen(url, SECRET)
    product = other.ask("POST", "/v1/products", name="Editor", type="service")
    plan = other.ask("POST", "/v1/plans", product=product["id"], amount="900", currency="eur", interval="month")
    customer = other.ask("POST", "/v1/customers", email="ada@example.com")
    card = {"card[number]": "4242424242424242", "card[exp_month]": "12", "card[exp_year]": "2040", "card[cvc]": "123"}
    method = other.ask("POST", "/v1/payment_methods", type="card", **card)
    other.ask("POST", f"/v1/payment_methods/{method['id']}/attach", customer=customer["id"])
    settings = {"invoice_settings[default_payment_method]": method["id"]}
    other.ask("POST", f"/v1/customers/{customer['id']}", **settings)
    bought = other.ask("POST", "/v1/subscriptions", customer=customer["id"], **{"items[0][plan]": plan["id"]})
    other.ask("DELETE", f"/v1/subscriptions/{bought['id']}")


@ON_SQLITE
async def test_webhooks_that_never_came(stripe_shop: StripeShop) -> None:
    """What was bought is found by asking about the checkout, and the rest by asking for events."""
    shop = stripe_shop.shop
    sold = await shop.tier("editor", amount=900, license={"max_machines": 2}, **MONTHLY)
    opened = await shop.checkout(sold, rail=RAIL, email="ada@example.com")
    stripe_shop.pay(opened)
    stripe_shop.move_on(timedelta(minutes=2))
    house = shop.house
    await reconcile(shop.scope, house.rails, house.client)
    assert (await shop.claim(opened))["status"] == "settled"
    assert await shop.count("licenses", status="active") == 1
    stripe_shop.move_on(timedelta(hours=25))
    await stripe_shop.reconcile()
    await stripe_shop.ask()
    await books_equal(stripe_shop)
    assert (await shop.row("licenses"))["expires_at"] == (await shop.row("subscriptions"))["current_period_end"]
    before = await shop.everything("inbox", "rail_settings")
    await stripe_shop.tell_all()  # late after all
    assert await shop.everything("inbox", "rail_settings") == before
