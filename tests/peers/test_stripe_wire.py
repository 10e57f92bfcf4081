"""Stripe's stand-ins on the wire: signed events, bad luck, and the shapes of Stripe's own specification."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import stripe

from counterfoil.rails.base import HttpRequest
from tests.peers import stripe_schema
from tests.peers.fixtures import Receiver, running_receiver
from tests.peers.stripe_peers import LocalStripe, Steady, StripePeer
from tests.peers.stripe_shop import (
    DONE,
    LINE,
    REFUSED_LATER,
    assert_shaped,
    catalog,
    open_session,
    pay_once,
    plain,
    subscribe,
)

# One worker runs both modules, so that each peer starts once.
pytestmark = pytest.mark.xdist_group("stripe-peers")


@pytest.fixture
def peer(stripe_peer: StripePeer) -> StripePeer:
    return stripe_peer


@pytest.fixture
def client(stripe_client: Any) -> Any:
    return stripe_client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as endpoint:
        yield endpoint


# --- webhooks ---------------------------------------------------------------------------------------------


def test_events_are_signed_as_stripe_signs(peer: StripePeer, client: Any, receiver: Receiver) -> None:
    hook = client.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["price.created"], "api_version": "2026-08-26.dahlia"}
    )
    assert hook.secret.startswith("whsec_")
    assert "secret" not in client.webhook_endpoints.retrieve(hook.id)
    catalog(client)
    assert [each.status for each in peer.deliver_new()] == [200, 200]
    assert peer.deliver_new() == []
    (first, second) = [
        stripe.Webhook.construct_event(body, headers["stripe-signature"], hook.secret)
        for headers, body in receiver.received
    ]
    assert (first.type, second.type) == ("price.created", "price.created")
    assert first.id != second.id
    # Any event can be sent again, out of order, or late.
    late = peer.deliver(peer.events()[0], receiver.url, hook.secret, at=int(time.time()) - 301)
    assert late.status == 200
    headers, body = receiver.received[-1]
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.Webhook.construct_event(body, headers["stripe-signature"], hook.secret)
    client.webhook_endpoints.update(hook.id, {"disabled": True})
    client.products.create({"name": "More"})
    assert peer.deliver_new() == []
    assert client.webhook_endpoints.delete(hook.id).deleted
    assert client.webhook_endpoints.list().data == []


def test_delivery_in_the_background(peer: StripePeer, client: Any, receiver: Receiver) -> None:
    client.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["*"]})
    with peer.delivering(every=0.01) as sent:
        catalog(client)
    assert [each.event["type"] for each in sent] == ["product.created", "price.created", "price.created"]
    assert len(receiver.received) == 3


def test_localstripe_sends_signed_events(localstripe: LocalStripe, receiver: Receiver) -> None:
    localstripe.listen(receiver.url, "whsec_local")
    localstripe.ask("POST", "/v1/customers", email="ada@example.com")
    deadline = time.monotonic() + 10
    while not receiver.received and time.monotonic() < deadline:
        time.sleep(0.02)
    headers, body = receiver.received[0]
    event = stripe.Webhook.construct_event(body, headers["stripe-signature"], "whsec_local")
    assert (event.type, event.data.object.email) == ("customer.created", "ada@example.com")


# --- bad luck ---------------------------------------------------------------------------------------------


def refund_request(peer: StripePeer, intent: str, key: str = "rfd_1") -> HttpRequest:
    headers = {
        "authorization": f"Bearer {peer.api_key}",
        "content-type": "application/x-www-form-urlencoded",
        "idempotency-key": key,
    }
    body = urlencode({"payment_intent": intent, "amount": 300}).encode()
    return HttpRequest(method="POST", url=f"{peer.url}/v1/refunds", headers=headers, body=body)


def test_an_answer_lost_after_the_work_was_done(peer: StripePeer, client: Any) -> None:
    request = refund_request(peer, pay_once(peer, client))
    peer.fail("POST /v1/refunds", hang_up=True, after=True)
    with pytest.raises(httpx.TransportError):
        peer.send(request)
    (refund,) = peer.objects()["refunds"]
    again = peer.send(request)
    assert (again.status, json.loads(again.body)["id"]) == (200, refund)
    assert again.headers["idempotent-replayed"] == "true"
    assert peer.objects()["refunds"] == [refund]
    asked = peer.requests("POST /v1/refunds")
    assert [(each["status"], each["idempotency_key"]) for each in asked] == [(200, "rfd_1"), (200, "rfd_1")]


def test_a_request_lost_before_the_work(peer: StripePeer, client: Any) -> None:
    request = refund_request(peer, pay_once(peer, client))
    peer.fail("POST /v1/refunds", hang_up=True)
    with pytest.raises(httpx.TransportError):
        peer.send(request)
    assert peer.objects()["refunds"] == []
    assert "idempotent-replayed" not in peer.send(request).headers
    assert len(peer.objects()["refunds"]) == 1


def test_other_bad_luck(peer: StripePeer, client: Any) -> None:
    request = refund_request(peer, pay_once(peer, client))
    peer.fail("POST /v1/refunds", status=429, retry_after=7)
    answer = peer.send(request)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert json.loads(answer.body)["error"]["code"] == "rate_limit"
    peer.fail("POST /v1/refunds", status=500, after=True, delay=0.05)
    assert peer.send(request).status == 500
    assert peer.look(f"refunds/{peer.objects()['refunds'][0]}")["status"] == "succeeded"
    assert peer.send(request).headers["idempotent-replayed"] == "true"


def test_an_idempotency_key_is_for_one_session(peer: StripePeer, client: Any) -> None:
    wanted = {"mode": "payment", "success_url": DONE, "line_items": [LINE]}
    options = {"idempotency_key": "chk_1"}
    first = client.checkout.sessions.create(wanted, options)
    assert client.checkout.sessions.create(wanted, options).id == first.id
    assert peer.objects()["sessions"] == [first.id]
    with pytest.raises(stripe.IdempotencyError):
        client.checkout.sessions.create({**wanted, "client_reference_id": "other"}, options)


def test_accounts_are_apart_and_live_is_live(peer: StripePeer, stripe_server: StripePeer) -> None:
    live = stripe_server.fresh(livemode=True)
    session = open_session(live.official(), "payment", LINE)
    assert (session.livemode, session.id.startswith("cs_live_")) == (True, True)
    assert peer.objects()["sessions"] == []
    assert live.official().accounts.retrieve_current().charges_enabled
    nobody = peer.client.get(f"{peer.url}/v1/account")
    assert (nobody.status_code, nobody.json()["error"]["type"]) == (401, "invalid_request_error")


# --- shapes -----------------------------------------------------------------------------------------------


def test_what_we_add_has_the_specification_s_shape(peer: StripePeer, client: Any) -> None:
    _product, once, monthly = catalog(client)
    coupon = client.coupons.create({"amount_off": 100, "currency": "eur", "duration": "once"}).id
    line = {"price": once, "quantity": 1}
    more = {"automatic_tax": {"enabled": True}, "expand": ["line_items"]}
    opened = open_session(client, "payment", line, discounts=[{"coupon": coupon}], **more)
    assert_shaped("checkout.session", plain(opened))
    for item in plain(opened)["line_items"]["data"]:
        assert_shaped("item", item)
    assert_shaped("checkout.session", peer.pay(opened.id))
    assert_shaped("checkout.session", plain(client.checkout.sessions.expire(open_session(client, "payment", line).id)))
    paid = peer.pay(open_session(client, "subscription", {"price": monthly, "quantity": 1}).id)
    sessions = plain(client.checkout.sessions.list({"expand": ["data.subscription", "data.invoice"]}))["data"]
    assert [session["status"] for session in sessions] == ["complete", "expired", "complete"]
    for session in sessions:
        assert_shaped("checkout.session", session)
    control = f"subscriptions/{paid['subscription']}"
    peer.control(f"{control}/card", card=REFUSED_LATER)
    peer.control(f"{control}/cycle")
    payments = plain(client.invoice_payments.list())["data"]
    assert [payment["status"] for payment in payments] == ["open", "paid"]
    for payment in payments:
        assert_shaped("invoice_payment", payment)
    portal = client.billing_portal.sessions.create({"customer": paid["customer"], "return_url": DONE})
    assert_shaped("billing_portal.session", plain(portal))
    hook = {"url": "https://shop.example/hook", "enabled_events": ["*"], "description": "Ours"}
    assert_shaped("webhook_endpoint", plain(client.webhook_endpoints.create(hook)))
    assert_shaped("account", plain(client.accounts.retrieve_current()))


def test_every_event_has_the_specification_s_shape(peer: StripePeer, client: Any) -> None:
    paid = subscribe(peer, client)
    control = f"subscriptions/{paid['subscription']}"
    peer.control(f"{control}/card", card=REFUSED_LATER)
    peer.control(f"{control}/cycle")
    invoice = client.subscriptions.retrieve(paid["subscription"]).latest_invoice
    peer.control(f"{control}/recover")
    intent = client.invoice_payments.list({"invoice": invoice}).data[0].payment.payment_intent
    refund = client.refunds.create({"payment_intent": intent, "amount": 100}).id
    peer.control(f"refunds/{refund}/settle", paid=False)
    dispute = peer.control(f"payments/{intent}/dispute")["id"]
    peer.control(f"disputes/{dispute}/close", won=True)
    events = peer.events()
    assert len(events) > 40
    for event in events:
        assert_shaped("event", event)
        value = event["data"]["object"]
        assert stripe_schema.faults(value["object"], value) == [], event["type"]


def test_pages(client: Any) -> None:
    made = [open_session(client, "payment", LINE).id for _ in range(5)]
    first = client.checkout.sessions.list({"limit": 2})
    assert ([each.id for each in first.data], first.has_more) == (made[:2:-1], True)
    rest = client.checkout.sessions.list({"limit": 3, "starting_after": made[3]})
    assert ([each.id for each in rest.data], rest.has_more) == (made[2::-1], False)
    back = client.checkout.sessions.list({"limit": 1, "ending_before": made[2]})
    assert ([each.id for each in back.data], back.has_more) == ([made[3]], True)
    assert [each.id for each in client.checkout.sessions.list({"limit": 2}).auto_paging_iter()] == made[::-1]


# --- the validator ----------------------------------------------------------------------------------------


def steady_request(steady: Steady, path: str, **form: Any) -> HttpRequest:
    headers = {"authorization": "Bearer sk_test_x", "content-type": "application/x-www-form-urlencoded"}
    return HttpRequest(method="POST", url=steady.url + path, headers=headers, body=urlencode(form).encode())


def test_steady_takes_what_stripe_would(steady: Steady) -> None:
    form = {"mode": "payment", "success_url": DONE, "line_items[0][price]": "price_1", "line_items[0][quantity]": 2}
    answer = steady.check(steady_request(steady, "/v1/checkout/sessions", **form))
    assert (answer.status, json.loads(answer.body)["object"]) == (200, "checkout.session")


@pytest.mark.parametrize("wrong", [{"mode": "lease"}, {"bogus": "1"}, {"line_items[0][quantity]": "x"}])
def test_steady_says_what_is_wrong(steady: Steady, wrong: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="x-steady-error"):
        steady.check(steady_request(steady, "/v1/checkout/sessions", **wrong))
