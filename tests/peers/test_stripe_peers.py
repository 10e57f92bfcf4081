"""Stripe's stateful stand-in, driven by Stripe's own client: checkouts, subscriptions, refunds and disputes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe

from tests.peers import stripe_schema
from tests.peers.stripe_peers import CardRefused, StripePeer
from tests.peers.stripe_shop import DONE, LINE, REFUSED_LATER, catalog, kinds, open_session, plain, subscribe

# One worker runs both modules, so that each peer starts once.
pytestmark = pytest.mark.xdist_group("stripe-peers")


@pytest.fixture
def peer(stripe_peer: StripePeer) -> StripePeer:
    return stripe_peer


@pytest.fixture
def client(stripe_client: Any) -> Any:
    return stripe_client


# --- checkout ---------------------------------------------------------------------------------------------


def test_one_payment(peer: StripePeer, client: Any) -> None:
    product, once, _monthly = catalog(client)
    session = open_session(
        client,
        "payment",
        {"price": once, "quantity": 2},
        {"price_data": {"currency": "eur", "unit_amount": 250, "product": product}, "quantity": 1},
        {"price_data": {"currency": "eur", "unit_amount": 50, "product_data": {"name": "Help"}}, "quantity": 1},
        client_reference_id="chk_1",
        customer_email="ada@example.com",
        payment_intent_data={"metadata": {"checkout_id": "chk_1"}},
        expires_at=int(time.time()) + 1900,
    )
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 3300)
    assert session.payment_intent is None
    paid = peer.pay(session.id)
    assert (paid["status"], paid["payment_status"], paid["url"]) == ("complete", "paid", None)
    assert paid["customer_details"]["email"] == "ada@example.com"
    assert paid["customer"] is None
    intent = client.payment_intents.retrieve(paid["payment_intent"])
    assert (intent.status, intent.amount_received, intent.currency) == ("succeeded", 3300, "eur")
    assert intent.metadata["checkout_id"] == "chk_1"
    lines = client.checkout.sessions.line_items.list(session.id)
    assert [(line.description, line.amount_total) for line in lines] == [
        ("Editor", 3000),
        ("Editor", 250),
        ("Help", 50),
    ]
    assert kinds(peer)[-4:] == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    assert peer.events()[-1]["data"]["object"] == plain(client.checkout.sessions.retrieve(session.id))


def test_a_refused_card_leaves_the_session_open_and_one_payment_intent(peer: StripePeer, client: Any) -> None:
    _product, once, _monthly = catalog(client)
    session = open_session(client, "payment", {"price": once, "quantity": 1})
    with pytest.raises(CardRefused) as refused:
        peer.pay(session.id, card="4000000000009995")
    assert refused.value.args[0]["decline_code"] == "insufficient_funds"
    assert client.checkout.sessions.retrieve(session.id).status == "open"
    assert kinds(peer)[-2:] == ["charge.failed", "payment_intent.payment_failed"]
    peer.pay(session.id)
    assert len(peer.objects()["payment_intents"]) == 1


def test_a_bank_that_decides_later(peer: StripePeer, client: Any) -> None:
    _product, once, _monthly = catalog(client)
    for paid, end in ((True, "async_payment_succeeded"), (False, "async_payment_failed")):
        session = open_session(client, "payment", {"price": once, "quantity": 1})
        assert peer.pay(session.id, later=True)["payment_status"] == "unpaid"
        assert kinds(peer)[-2:] == ["payment_intent.processing", "checkout.session.completed"]
        settled = peer.control(f"sessions/{session.id}/settle", paid=paid)
        assert settled["payment_status"] == ("paid" if paid else "unpaid")
        assert kinds(peer)[-1] == f"checkout.session.{end}"


@pytest.mark.parametrize("by_code", [False, True])
def test_a_discount(peer: StripePeer, client: Any, by_code: bool) -> None:
    _product, once, monthly = catalog(client)
    coupon = client.coupons.create({"id": "dsc_1", "percent_off": 12.5, "duration": "forever"}).id
    discount = {"coupon": coupon}
    if by_code:
        promotion = {"promotion": {"type": "coupon", "coupon": coupon}, "code": "SAVE"}
        discount = {"promotion_code": client.promotion_codes.create(promotion).id}
    session = open_session(client, "payment", {"price": once, "quantity": 3}, discounts=[discount])
    assert (session.amount_subtotal, session.amount_total) == (4500, 3937)
    assert session.total_details.amount_discount == 563
    assert peer.pay(session.id)["payment_status"] == "paid"
    session = open_session(client, "subscription", {"price": monthly, "quantity": 1}, discounts=[discount])
    assert peer.pay(session.id)["amount_total"] == session.amount_total == 787
    assert client.coupons.retrieve(coupon).times_redeemed == 2


def test_everything_free_needs_no_payment(peer: StripePeer, client: Any) -> None:
    _product, once, _monthly = catalog(client)
    coupon = client.coupons.create({"percent_off": 100, "duration": "once"}).id
    session = open_session(client, "payment", {"price": once, "quantity": 1}, discounts=[{"coupon": coupon}])
    paid = peer.pay(session.id)
    assert (paid["payment_status"], paid["payment_intent"]) == ("no_payment_required", None)


def test_a_session_expires_once(peer: StripePeer, client: Any) -> None:
    _product, once, _monthly = catalog(client)
    session = open_session(client, "payment", {"price": once, "quantity": 1})
    assert client.checkout.sessions.expire(session.id).status == "expired"
    assert kinds(peer)[-1] == "checkout.session.expired"
    with pytest.raises(stripe.InvalidRequestError, match="status of expired"):
        client.checkout.sessions.expire(session.id)
    with pytest.raises(AssertionError, match="nothing to pay"):
        peer.pay(session.id)


def test_time_can_be_ours(stripe_server: StripePeer) -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    peer = stripe_server.fresh(now=start)
    client = peer.official()
    _product, once, _monthly = catalog(client)
    expires = int((start + timedelta(minutes=30)).timestamp())
    session = open_session(client, "payment", {"price": once, "quantity": 1}, expires_at=expires)
    assert session.created == int(start.timestamp())
    assert peer.control("clock", now=(start + timedelta(minutes=29)).isoformat()) == []
    expired = peer.control("clock", now=(start + timedelta(minutes=30)).isoformat())
    assert [each["id"] for each in expired] == [session.id]
    assert peer.events()[-1]["created"] == expires


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bogus": 1}, "unknown parameter: bogus"),
        ({"line_items": [{**LINE, "bogus": 1}]}, r"unknown parameter: line_items\[0\]\[bogus\]"),
        ({"subscription_data": {"bogus": 1}}, r"unknown parameter: subscription_data\[bogus\]"),
        ({"mode": "lease"}, "mode"),
        ({"mode": "subscription"}, "recurring"),
        ({"line_items": [{"price": "price_none"}]}, "No such price"),
        ({"line_items": [{**LINE, "quantity": "x"}]}, "Invalid integer: x"),
        ({"customer": "cus_none"}, "No such customer"),
        ({"discounts": [{"coupon": "none"}]}, "No such coupon"),
        ({"expires_at": 1}, "expires_at"),
        ({"success_url": None}, "success_url"),
    ],
)
def test_a_bad_session_is_refused(client: Any, change: dict[str, Any], says: str) -> None:
    wanted = {"mode": "payment", "success_url": DONE, "line_items": [LINE], **change}
    with pytest.raises(stripe.InvalidRequestError, match=says):
        client.checkout.sessions.create({name: value for name, value in wanted.items() if value is not None})


# --- subscriptions ----------------------------------------------------------------------------------------


def test_a_subscription_lives(peer: StripePeer, client: Any) -> None:
    product, once, monthly = catalog(client)
    session = open_session(
        client,
        "subscription",
        {"price": monthly, "quantity": 1},
        {"price": once, "quantity": 2},
        subscription_data={"metadata": {"checkout_id": "chk_1"}},
    )
    with pytest.raises(CardRefused):
        peer.pay(session.id, card=REFUSED_LATER)
    assert peer.objects()["subscriptions"] == []
    paid = peer.pay(session.id)
    assert (paid["payment_status"], paid["amount_total"]) == ("paid", 3900)
    assert kinds(peer)[-2:] == ["customer.subscription.created", "checkout.session.completed"]
    subscription = client.subscriptions.retrieve(paid["subscription"])
    assert (subscription.status, subscription.metadata["checkout_id"]) == ("active", "chk_1")
    invoice = client.invoices.retrieve(paid["invoice"])
    lines = [(line.pricing.price_details.price, line.amount) for line in invoice.lines]
    assert sorted(lines) == sorted([(monthly, 900), (once, 3000)])
    # Nothing was made for the one-time line: the catalog is as it was.
    assert peer.objects()["products"] == [product]
    assert sorted(peer.objects()["prices"]) == sorted([once, monthly])

    (item,) = subscription["items"].data
    control = f"subscriptions/{subscription.id}"
    renewed = peer.control(f"{control}/cycle")
    assert renewed["items"]["data"][0]["current_period_start"] == item.current_period_end
    assert kinds(peer)[-1] == "customer.subscription.updated"

    peer.control(f"{control}/card", card=REFUSED_LATER)
    assert peer.control(f"{control}/cycle")["status"] == "past_due"
    assert {"invoice.payment_failed", "payment_intent.payment_failed"} <= set(kinds(peer)[-6:])
    assert peer.events()[-1]["data"]["previous_attributes"]["status"] == "active"
    assert peer.control(f"{control}/recover", card=REFUSED_LATER)["error"]["code"] == "card_declined"
    assert peer.control(f"{control}/recover")["status"] == "active"
    assert len(peer.objects()["payment_intents"]) == 3

    client.subscriptions.update(subscription.id, {"pause_collection": {"behavior": "void"}})
    paused = peer.control(f"{control}/cycle")
    assert client.invoices.retrieve(paused["latest_invoice"]).status == "void"
    client.subscriptions.update(subscription.id, {"pause_collection": ""})
    assert client.subscriptions.retrieve(subscription.id).pause_collection is None

    yearly = client.prices.create(
        {"product": product, "currency": "eur", "unit_amount": 9000, "recurring": {"interval": "year"}}
    ).id
    change = {"items": [{"id": item.id, "price": yearly}], "proration_behavior": "always_invoice"}
    changed = client.subscriptions.update(subscription.id, change)
    assert changed["items"].data[0].price.id == yearly

    client.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert peer.control(f"{control}/cycle")["status"] == "canceled"
    assert kinds(peer)[-1] == "customer.subscription.deleted"


def test_a_trial_costs_nothing_at_first(peer: StripePeer, client: Any) -> None:
    paid = subscribe(peer, client, subscription_data={"trial_period_days": 14})
    assert (paid["amount_total"], paid["payment_status"]) == (0, "no_payment_required")
    control = f"subscriptions/{paid['subscription']}"
    assert client.subscriptions.retrieve(paid["subscription"]).status == "trialing"
    assert client.invoices.retrieve(paid["invoice"]).status == "paid"
    peer.control(f"{control}/warn-of-trial-end")
    assert kinds(peer)[-1] == "customer.subscription.trial_will_end"
    active = peer.control(f"{control}/cycle")
    assert (active["status"], client.invoices.retrieve(active["latest_invoice"]).amount_paid) == ("active", 900)


def test_nobody_pays_and_it_ends(peer: StripePeer, client: Any) -> None:
    control = f"subscriptions/{subscribe(peer, client)['subscription']}"
    peer.control(f"{control}/card", card=REFUSED_LATER)
    peer.control(f"{control}/cycle")
    assert peer.control(f"{control}/give-up")["status"] == "canceled"


def test_the_money_of_an_invoice_is_a_payment_intent(peer: StripePeer, client: Any) -> None:
    paid = subscribe(peer, client)
    (payment,) = client.invoice_payments.list({"invoice": paid["invoice"]}).data
    intent = payment.payment.payment_intent
    assert (payment.status, payment.amount_paid) == ("paid", 900)
    by_intent = {"payment": {"type": "payment_intent", "payment_intent": intent}}
    assert client.invoice_payments.list(by_intent).data[0].id == payment.id
    assert client.invoice_payments.list({"invoice": "in_none"}).data == []
    refund = client.refunds.create({"payment_intent": intent, "amount": 400})
    assert (refund.status, refund.payment_intent) == ("succeeded", intent)
    charge = peer.events()[-1]["data"]["object"]
    assert (peer.events()[-1]["type"], charge["payment_intent"], charge["amount_refunded"]) == (
        "charge.refunded",
        intent,
        400,
    )


# --- refunds and disputes ---------------------------------------------------------------------------------


def test_a_refund_that_takes_time_and_one_that_comes_back(peer: StripePeer, client: Any) -> None:
    _product, once, _monthly = catalog(client)
    session = open_session(client, "payment", {"price": once, "quantity": 1})
    intent = peer.pay(session.id, card="4000000000007726")["payment_intent"]
    refund = client.refunds.create({"payment_intent": intent, "amount": 500, "metadata": {"refund_id": "rfd_1"}})
    assert refund.status == "pending"
    assert peer.control(f"refunds/{refund.id}/settle", paid=True)["status"] == "succeeded"
    assert client.charges.list({"payment_intent": intent}).data[0].amount_refunded == 500
    assert peer.control(f"refunds/{refund.id}/settle", paid=False)["status"] == "failed"
    assert kinds(peer)[-1] == "refund.failed"
    assert client.charges.list({"payment_intent": intent}).data[0].amount_refunded == 0


@pytest.mark.parametrize("won", [True, False])
def test_a_dispute(peer: StripePeer, client: Any, won: bool) -> None:
    paid = subscribe(peer, client)
    intent = client.invoice_payments.list({"invoice": paid["invoice"]}).data[0].payment.payment_intent
    dispute = peer.control(f"payments/{intent}/dispute", reason="product_not_received")
    assert (dispute["status"], dispute["payment_intent"], dispute["amount"]) == ("needs_response", intent, 900)
    assert kinds(peer)[-2:] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    closed = peer.control(f"disputes/{dispute['id']}/close", won=won)
    assert closed["status"] == ("won" if won else "lost")
    assert ("charge.dispute.funds_reinstated" in kinds(peer)) is won
    assert kinds(peer)[-1] == "charge.dispute.closed"


# --- where the world was narrower than Stripe -------------------------------------------------------------


def test_a_product_has_the_id_we_choose_once(client: Any) -> None:
    product, once, _monthly = catalog(client)
    assert client.prices.retrieve(once).product == product == "prd_1"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.products.create({"id": product, "name": "Again"})
    assert refused.value.code == "resource_already_exists"


@pytest.mark.parametrize("query", ["metadata['our_id']:'cus \"1\"'", 'metadata["our_id"]:"cus \\"1\\""'])
def test_search_takes_either_quotes(client: Any, query: str) -> None:
    made = client.customers.create({"metadata": {"our_id": 'cus "1"'}}).id
    client.customers.create({"metadata": {"our_id": "cus"}})
    assert [each.id for each in client.customers.search({"query": query})] == [made]


def test_an_item_can_go_with_a_change(peer: StripePeer, client: Any) -> None:
    paid = subscribe(peer, client)["subscription"]
    (first,) = client.subscriptions.retrieve(paid)["items"].data
    wanted = {"product": "prd_1", "currency": "eur", "unit_amount": 100, "recurring": {"interval": "month"}}
    extra = client.prices.create(wanted).id
    items = [{"id": first.id, "deleted": True}, {"price": extra, "quantity": 2}]
    changed = client.subscriptions.update(paid, {"items": items, "proration_behavior": "none"})
    assert [(item.price.id, item.quantity) for item in changed["items"]] == [(extra, 2)]


def test_discounts_expand(peer: StripePeer, client: Any) -> None:
    coupon = client.coupons.create({"id": "dsc_1", "percent_off": 50, "duration": "forever"}).id
    paid = subscribe(peer, client, discounts=[{"coupon": coupon}])
    whole = {"expand": ["discounts"]}
    for owner in (
        client.subscriptions.retrieve(paid["subscription"], whole),
        client.invoices.retrieve(paid["invoice"], whole),
    ):
        assert [discount.source.coupon for discount in owner.discounts] == [coupon]
        assert stripe_schema.faults("discount", plain(owner)["discounts"][0]) == []
