"""The BTCPay stand-in, driven by our rail over real HTTP; and again with Prism watching every byte."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import pytest

from counterfoil.kernel.money import Money
from counterfoil.rails.base import (
    BadSignature,
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    OpenedCheckout,
    Rail,
    RailRefused,
    RailUnavailable,
)
from counterfoil.rails.btcpay import BTCPayRail, BTCPaySettings, connect
from tests.peers import btcpay_server, prism
from tests.peers.btcpay_server import API_KEY, STORE_ID
from tests.peers.fixtures import BTCPayPeer, Receiver, running_btcpay, running_receiver, send

RAIL: Rail = BTCPayRail()
SECRET = "a-webhook-secret"


@pytest.fixture(scope="module")
def server() -> Iterator[BTCPayPeer]:
    with running_btcpay() as peer:
        yield peer


@pytest.fixture(scope="module")
def proxy(server: BTCPayPeer) -> Iterator[str]:
    if reason := prism.available():
        pytest.skip(reason)
    with prism.running(server.url) as url:
        yield url


@pytest.fixture
def peer(server: BTCPayPeer) -> BTCPayPeer:
    server.control("reset")
    server.control("config", retry_scale=0)
    return server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as endpoint:
        yield endpoint


@dataclass
class Route:
    """One way to the stand-in: straight, or through Prism, which then must have nothing to say."""

    url: str
    client: httpx.Client
    api_key: str = API_KEY

    @property
    def settings(self) -> BTCPaySettings:
        return BTCPaySettings(
            base_url=self.url, store_id=STORE_ID, api_key=self.api_key, webhook_id=None, webhook_secret=SECRET
        )

    def send(self, request: HttpRequest) -> HttpResponse:
        response = send(self.client, request)
        # The specification leaves out some statuses that BTCPay answers with, such as 401: only a warning.
        found = json.loads(response.headers.get("sl-violations", "[]"))
        found = [entry for entry in found if "Unable to match the returned status code" not in entry["message"]]
        assert found == []
        assert b"stoplight.io/prism" not in response.body, response.body
        return response

    def ask(self, method: str, path: str, body: Any = None) -> HttpResponse:
        headers = {"authorization": f"token {self.api_key}", "content-type": "application/json"}
        raw = b"" if body is None else json.dumps(body).encode()
        return self.send(HttpRequest(method=method, url=self.url + path, headers=headers, body=raw))

    def open(self, amount: Money, checkout_id: str = "chk_1") -> OpenedCheckout:
        request = RAIL.open_request(self.settings, intent(amount, checkout_id))
        assert isinstance(request, HttpRequest)
        return RAIL.read_opened(self.settings, self.send(request))

    def find(self, checkout_id: str) -> OpenedCheckout | None:
        request = RAIL.find_request(self.settings, checkout_id)
        assert request is not None
        return RAIL.read_found(self.settings, self.send(request))

    def report(self, reference: str) -> CheckoutReport:
        answers = tuple(self.send(request) for request in RAIL.report_requests(self.settings, reference))
        return RAIL.read_report(self.settings, answers)

    def listen(self, receiver: Receiver) -> str:
        request = connect.create_webhook_request(self.url, self.api_key, STORE_ID, receiver.url, SECRET)
        return connect.read_webhook_created(self.send(request))


@pytest.fixture(params=["direct", "prism"])
def route(request: pytest.FixtureRequest, peer: BTCPayPeer) -> Iterator[Route]:
    url = peer.url if request.param == "direct" else request.getfixturevalue("proxy")
    with httpx.Client(timeout=60, trust_env=False) as client:
        yield Route(url, client)


@pytest.fixture
def direct(peer: BTCPayPeer) -> Iterator[Route]:
    with httpx.Client(timeout=60, trust_env=False) as client:
        yield Route(peer.url, client)


def intent(amount: Money, checkout_id: str) -> CheckoutIntent:
    now = datetime.now(UTC)
    return CheckoutIntent(
        checkout_id=checkout_id,
        amount=amount,
        description="Editor, 1 seat",
        email="ada@example.com",
        return_url="https://shop.example/thanks",
        now=now,
        expires_at=now + timedelta(minutes=15),
    )


def told(report: CheckoutReport) -> tuple[str, list[int], bool]:
    return report.state, [fact.amount.amount for fact in report.payments], report.final


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(body)["type"] for _, body in receiver.received]


class TestLifecycles:
    """Each with the invoice's status as BTCPay names it, and what our rail makes of it."""

    def test_paid_in_satoshis(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(21_001, "SAT"))
        assert opened.url.endswith(f"/i/{opened.reference}")
        assert told(route.report(opened.reference)) == ("open", [], False)
        paid = peer.invoice(opened.reference, "pay")
        assert (paid["status"], paid["additionalStatus"]) == ("Processing", "None")
        assert told(route.report(opened.reference)) == ("processing", [], False)
        assert peer.invoice(opened.reference, "confirm")["status"] == "Settled"
        report = route.report(opened.reference)
        assert told(report) == ("settled", [21_001], True)
        assert report.checkout_id == "chk_1"
        assert report.payments[0].reference == paid["paymentId"]
        assert report.payments[0].amount == Money(21_001, "SAT")

    def test_paid_by_lightning(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(500, "SAT"))
        assert peer.invoice(opened.reference, "pay", method="BTC-LN")["status"] == "Settled"
        assert told(route.report(opened.reference)) == ("settled", [500], True)

    @pytest.mark.parametrize(
        ("amount", "rate"),
        [(Money(1_000, "USD"), "64392.23"), (Money(1, "USD"), "100000"), (Money(1_999, "EUR"), "77777.77777")],
    )
    def test_paid_in_a_currency(self, route: Route, peer: BTCPayPeer, amount: Money, rate: str) -> None:
        peer.control("config", rates={amount.asset: rate})
        opened = route.open(amount)
        peer.control("config", rates={amount.asset: "1"})  # the rate was fixed when the invoice was made
        peer.invoice(opened.reference, "pay")
        peer.invoice(opened.reference, "confirm")
        report = route.report(opened.reference)
        assert told(report) == ("settled", [amount.amount], True)
        assert report.payments[0].amount == amount
        assert report.payments[0].details["rate"] == rate

    def test_yen_has_no_minor_units(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_500, "JPY"))
        peer.invoice(opened.reference, "pay", method="BTC-LN")
        assert route.report(opened.reference).payments[0].amount == Money(1_500, "JPY")

    def test_paid_over(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        assert peer.invoice(opened.reference, "pay", extra_sats=250)["additionalStatus"] == "PaidOver"
        peer.invoice(opened.reference, "confirm")
        assert told(route.report(opened.reference)) == ("settled", [1_250], True)

    def test_paid_in_parts(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        part = peer.invoice(opened.reference, "pay", sats=400)
        assert (part["status"], part["additionalStatus"]) == ("New", "PaidPartial")
        peer.invoice(opened.reference, "confirm")
        assert told(route.report(opened.reference)) == ("open", [400], False)
        # The second transaction costs the buyer a fee, which does not count.
        assert peer.invoice(opened.reference, "pay", fee_sats=7)["additionalStatus"] == "None"
        peer.invoice(opened.reference, "confirm")
        state, paid, final = told(route.report(opened.reference))
        assert (state, sorted(paid), final) == ("settled", [400, 600], True)

    def test_underpaid_and_expired(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay", sats=400)
        gone = peer.invoice(opened.reference, "expire")
        assert (gone["status"], gone["additionalStatus"]) == ("Expired", "PaidPartial")
        assert told(route.report(opened.reference)) == ("expired", [], False)
        peer.invoice(opened.reference, "confirm")
        assert told(route.report(opened.reference)) == ("expired", [400], False)
        peer.invoice(opened.reference, "end-monitoring")
        assert told(route.report(opened.reference)) == ("expired", [400], True)

    def test_expired_unpaid_is_asked_about_until_monitoring_ends(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        assert told(route.report(opened.reference)) == ("expired", [], False)
        peer.invoice(opened.reference, "end-monitoring")
        assert told(route.report(opened.reference)) == ("expired", [], True)

    def test_paid_late(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        late = peer.invoice(opened.reference, "pay")
        assert (late["status"], late["additionalStatus"]) == ("Expired", "PaidLate")
        assert told(route.report(opened.reference)) == ("expired", [], False)
        assert peer.invoice(opened.reference, "confirm")["status"] == "Settled"
        assert told(route.report(opened.reference)) == ("settled", [1_000], True)

    def test_paid_late_and_left_expired(self, route: Route, peer: BTCPayPeer) -> None:
        peer.control("config", late_settles=False)
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        peer.invoice(opened.reference, "pay")
        assert peer.invoice(opened.reference, "confirm")["status"] == "Expired"
        assert told(route.report(opened.reference)) == ("expired", [1_000], False)

    def test_never_confirmed(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        assert peer.invoice(opened.reference, "end-monitoring")["status"] == "Invalid"
        assert told(route.report(opened.reference)) == ("failed", [], False)
        peer.invoice(opened.reference, "double-spend")
        assert told(route.report(opened.reference)) == ("failed", [], True)

    def test_double_spent(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        assert peer.invoice(opened.reference, "double-spend")["status"] == "New"
        assert told(route.report(opened.reference)) == ("open", [], False)

    def test_marked_by_hand(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay", sats=300, method="BTC-LN")
        path = f"/api/v1/stores/{STORE_ID}/invoices/{opened.reference}/status"
        assert route.ask("POST", path, {"status": "Settled"}).status == 200
        report = route.report(opened.reference)
        assert told(report) == ("settled", [300, 700], True)
        assert report.payments[1].reference == f"{opened.reference}:marked"
        assert route.ask("POST", path, {"status": "Settled"}).status == 400
        assert route.ask("POST", path, {"status": "Invalid"}).status == 200
        assert told(route.report(opened.reference)) == ("failed", [300], True)

    def test_marked_settled_while_a_payment_is_in_flight(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        peer.invoice(opened.reference, "mark", status="Settled")
        before = route.report(opened.reference)
        assert told(before) == ("settled", [1_000], True)
        peer.invoice(opened.reference, "confirm")
        assert route.report(opened.reference).payments == before.payments

    def test_within_the_stores_tolerance(self, route: Route, peer: BTCPayPeer) -> None:
        peer.control("config", tolerance=5)
        opened = route.open(Money(1_000, "SAT"))
        assert peer.invoice(opened.reference, "pay", sats=949)["status"] == "New"
        assert peer.invoice(opened.reference, "pay", sats=1)["status"] == "Processing"
        peer.invoice(opened.reference, "confirm")
        state, paid, final = told(route.report(opened.reference))
        assert (state, sum(paid), final) == ("settled", 950, True)

    def test_time_passes(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.control("advance", seconds=899)
        assert route.report(opened.reference).state == "open"
        peer.control("advance", seconds=2)
        assert route.report(opened.reference).state == "expired"


class TestFinding:
    def test_by_our_id(self, route: Route) -> None:
        assert route.find("chk_1") is None
        one, two = route.open(Money(1, "SAT"), "chk_1"), route.open(Money(1, "SAT"), "chk_2")
        assert (route.find("chk_1"), route.find("chk_2"), route.find("chk_3")) == (one, two, None)

    def test_of_two_the_paid_one(self, route: Route, peer: BTCPayPeer) -> None:
        old, new = route.open(Money(1, "SAT")), route.open(Money(1, "SAT"))
        peer.invoice(old.reference, "pay")
        assert route.find("chk_1") == old
        assert new != old

    def test_an_answer_that_never_came_made_no_second_invoice(self, direct: Route, peer: BTCPayPeer) -> None:
        peer.control("fail", match="POST .*/invoices$", hang_up=True, after=True)
        with pytest.raises(httpx.TransportError):
            direct.open(Money(1_000, "SAT"))
        found = direct.find("chk_1")
        assert found is not None
        assert [invoice["id"] for invoice in peer.look("invoices")] == [found.reference]

    def test_a_request_that_never_arrived_left_nothing(self, direct: Route, peer: BTCPayPeer) -> None:
        peer.control("fail", match="POST .*/invoices$", hang_up=True)
        with pytest.raises(httpx.TransportError):
            direct.open(Money(1_000, "SAT"))
        assert direct.find("chk_1") is None


class TestFailures:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
    def test_passing_trouble(self, direct: Route, peer: BTCPayPeer, status: int) -> None:
        opened = direct.open(Money(1_000, "SAT"))
        peer.control("fail", count=3, status=status, body="<html>busy</html>")
        with pytest.raises(RailUnavailable):
            direct.open(Money(1_000, "SAT"))
        with pytest.raises(RailUnavailable):
            direct.find("chk_1")
        with pytest.raises(RailUnavailable):
            direct.report(opened.reference)
        assert direct.report(opened.reference).state == "open"

    def test_a_revoked_key(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        peer.control("keys/revoke", apiKey=API_KEY)
        with pytest.raises(RailRefused, match="Authentication is required"):
            route.open(Money(1_000, "SAT"))
        with pytest.raises(RailUnavailable):
            route.find("chk_1")
        with pytest.raises(RailUnavailable):
            route.report(opened.reference)

    def test_a_key_that_may_only_look(self, route: Route, peer: BTCPayPeer) -> None:
        opened = route.open(Money(1_000, "SAT"))
        route.api_key = peer.control("keys", permissions=["btcpay.store.canviewinvoices"])["apiKey"]
        assert route.report(opened.reference).state == "open"
        with pytest.raises(RailRefused, match=r"btcpay\.store\.cancreateinvoice"):
            route.open(Money(1_000, "SAT"))

    def test_a_key_of_another_store(self, route: Route, peer: BTCPayPeer) -> None:
        scoped = [f"{name}:another" for name in connect.PERMISSIONS]
        route.api_key = peer.control("keys", permissions=scoped)["apiKey"]
        with pytest.raises(RailRefused, match="403"):
            route.open(Money(1_000, "SAT"))

    def test_a_currency_without_a_rate(self, route: Route, peer: BTCPayPeer) -> None:
        with pytest.raises(RailRefused, match="currency: Invalid currency"):
            route.open(Money(1_000, "CHF"))
        assert peer.look("invoices") == []

    def test_a_store_that_cannot_be_paid(self, route: Route, peer: BTCPayPeer) -> None:
        peer.control("config", methods=[])
        with pytest.raises(RailRefused, match="No payment method"):
            route.open(Money(1_000, "SAT"))

    def test_an_invoice_nobody_made(self, route: Route) -> None:
        with pytest.raises(RailRefused, match="The invoice was not found"):
            route.report("nope")


class TestConnecting:
    def test_by_key(self, route: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        scoped = [f"{name}:{STORE_ID}" for name in connect.PERMISSIONS]
        route.api_key = peer.control("keys", permissions=scoped)["apiKey"]
        granted = connect.read_current_key(route.send(connect.current_key_request(route.url, route.api_key)))
        assert connect.missing_permissions(granted, STORE_ID) == ()
        stores = connect.read_stores(route.send(connect.stores_request(route.url, route.api_key)))
        assert [store.id for store in stores] == [STORE_ID]
        request = connect.payment_methods_request(route.url, route.api_key, STORE_ID)
        methods = connect.read_payment_methods(route.send(request))
        assert [method.payment_method_id for method in methods] == ["BTC-CHAIN", "BTC-LN"]
        webhook = route.listen(receiver)
        listed = json.loads(route.ask("GET", f"/api/v1/stores/{STORE_ID}/webhooks").body)
        assert listed == [
            {
                "id": webhook,
                "enabled": True,
                "automaticRedelivery": True,
                "url": receiver.url,
                "authorizedEvents": {"everything": False, "specificEvents": list(connect.EVENTS)},
            }
        ]
        opened = route.open(Money(1_000, "SAT"))
        assert route.report(opened.reference).state == "open"

    @pytest.mark.parametrize("lacking", connect.PERMISSIONS)
    def test_a_lacking_permission_is_named(self, route: Route, peer: BTCPayPeer, lacking: str) -> None:
        rest = [name for name in connect.PERMISSIONS if name != lacking]
        route.api_key = peer.control("keys", permissions=rest)["apiKey"]
        granted = connect.read_current_key(route.send(connect.current_key_request(route.url, route.api_key)))
        # Seeing and making invoices come with other permissions; the rest must be granted by name.
        implied = {"btcpay.store.canviewinvoices", "btcpay.store.cancreateinvoice"}
        expected = () if lacking in implied else (lacking,)
        assert connect.missing_permissions(granted, STORE_ID) == expected

    def test_by_the_authorize_flow(self, route: Route) -> None:
        back = "https://shop.example/connect/btcpay?state=s3cr3t"
        url = connect.authorize_url(route.url, back, "Counterfoil", "counterfoil")
        page = route.send(HttpRequest(method="GET", url=url)).body.decode()
        action = re.search(r'action="([^"]*)"', page)
        assert action is not None
        assert unescape(action[1]) == back
        form: dict[str, list[str]] = {}
        for name, value in re.findall(r'name="([^"]*)" value="([^"]*)"', page):
            form.setdefault(unescape(name), []).append(unescape(value))
        assert form["permissions[]"] == [f"{name}:{STORE_ID}" for name in connect.PERMISSIONS]
        route.api_key = connect.read_authorize_callback(form)
        granted = connect.read_current_key(route.send(connect.current_key_request(route.url, route.api_key)))
        assert connect.missing_permissions(granted, STORE_ID) == ()
        again = route.send(HttpRequest(method="GET", url=url)).body.decode()
        assert route.api_key in again  # the same application, place and permissions: the same key

    def test_disconnecting(self, direct: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        webhook = direct.listen(receiver)
        request = connect.delete_webhook_request(direct.url, direct.api_key, STORE_ID, webhook)
        connect.read_webhook_deleted(direct.send(request))
        connect.read_webhook_deleted(direct.send(request))  # gone already
        opened = direct.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        assert receiver.received == []

    def test_newer_paths_name_no_store(self, route: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        webhook = route.listen(receiver)
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        assert json.loads(route.ask("GET", f"/api/v1/invoices/{opened.reference}").body)["status"] == "Processing"
        assert route.ask("GET", f"/api/v1/invoices/{opened.reference}/payment-methods").status == 200
        assert json.loads(route.ask("GET", f"/api/v1/webhooks/{webhook}").body)["id"] == webhook
        deliveries = json.loads(route.ask("GET", f"/api/v1/webhooks/{webhook}/deliveries").body)
        assert [entry["status"] for entry in deliveries] == ["HttpSuccess"] * 2
        path = f"/api/v1/webhooks/{webhook}/deliveries/{deliveries[0]['id']}/redeliver"
        fresh = json.loads(route.ask("POST", path).body)
        peer.control("drain")
        assert [json.loads(body)["deliveryId"] for _, body in receiver.received][2:] == [fresh]
        assert route.ask("DELETE", f"/api/v1/webhooks/{webhook}").status == 200
        assert route.ask("GET", f"/api/v1/webhooks/{webhook}").status == 404


class TestWebhooks:
    def test_a_sale_told_in_order(self, route: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        route.listen(receiver)
        opened = route.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        peer.invoice(opened.reference, "confirm")
        assert kinds(receiver) == [
            "InvoiceReceivedPayment",
            "InvoiceProcessing",
            "InvoicePaymentSettled",
            "InvoiceSettled",
        ]
        notices = [
            RAIL.read_webhook(route.settings, headers, body, datetime.now(UTC)) for headers, body in receiver.received
        ]
        assert {notice.reference for notice in notices} == {opened.reference}
        assert len({notice.event_id for notice in notices}) == 4

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            ([("expire", {})], ["InvoiceExpired"]),
            (
                [("pay", {"sats": 1}), ("expire", {})],
                ["InvoiceReceivedPayment", "InvoiceExpired"],
            ),
            (
                [("expire", {}), ("pay", {}), ("confirm", {})],
                ["InvoiceExpired", "InvoiceReceivedPayment", "InvoicePaymentSettled", "InvoiceSettled"],
            ),
            ([("mark", {"status": "Settled"})], ["InvoiceSettled"]),
            ([("mark", {"status": "Invalid"})], ["InvoiceInvalid"]),
            ([("pay", {}), ("end-monitoring", {})], ["InvoiceReceivedPayment", "InvoiceProcessing", "InvoiceInvalid"]),
        ],
    )
    def test_other_stories(
        self,
        direct: Route,
        peer: BTCPayPeer,
        receiver: Receiver,
        steps: list[tuple[str, dict[str, Any]]],
        expected: list[str],
    ) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        for action, body in steps:
            peer.invoice(opened.reference, action, **body)
        assert kinds(receiver) == expected

    def test_bodies_obey_the_specification(self, direct: Route, peer: BTCPayPeer) -> None:
        if not prism.SPEC.is_file():
            pytest.skip("the specification is not in ../shared/specs")
        spec = json.loads(prism.SPEC.read_bytes())
        body = {"url": "http://127.0.0.1:9/hook", "secret": SECRET, "authorizedEvents": {"everything": True}}
        assert direct.ask("POST", f"/api/v1/stores/{STORE_ID}/webhooks", body).status == 200
        peer.control("config", capture=True)
        for steps in (["pay", "confirm"], ["expire"], ["pay", "end-monitoring"]):
            opened = direct.open(Money(1_000, "SAT"))
            for step in steps:
                peer.invoice(opened.reference, step)
        checked = set()
        for delivery in peer.look("deliveries"):
            hook = spec["x-webhooks"][delivery["type"]]["post"]
            schema = hook["requestBody"]["content"]["application/json"]["schema"]
            everything = {**schema, "components": spec["components"]}
            validator = jsonschema_rs.Draft4Validator(everything)
            errors = [error.message for error in validator.iter_errors(json.loads(delivery["body"]))]
            assert errors == [], delivery["type"]
            checked.add(delivery["type"])
        assert checked == {"InvoiceCreated", *connect.EVENTS}

    @pytest.mark.parametrize("trouble", [500, 503, 429, 408])
    def test_passing_trouble_is_retried(
        self, direct: Route, peer: BTCPayPeer, receiver: Receiver, trouble: int
    ) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        receiver.statuses = [trouble, trouble]
        peer.invoice(opened.reference, "expire")
        events = [json.loads(body) for _, body in receiver.received]
        assert [event["isRedelivery"] for event in events] == [False, True, True]
        assert len({event["deliveryId"] for event in events}) == 3
        assert {event["originalDeliveryId"] for event in events} == {events[0]["deliveryId"]}
        ids = set()
        for headers, body in receiver.received:
            ids.add(RAIL.read_webhook(direct.settings, headers, body, datetime.now(UTC)).event_id)
        assert len(ids) == 1

    @pytest.mark.parametrize("refusal", [400, 401, 403, 404, 409, 410, 422])
    def test_any_other_4xx_is_never_retried(
        self, direct: Route, peer: BTCPayPeer, receiver: Receiver, refusal: int
    ) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        receiver.statuses = [refusal]
        peer.invoice(opened.reference, "expire")
        assert len(receiver.received) == 1

    def test_a_refusal_ends_the_retries(self, direct: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        receiver.statuses = [500, 400, 200]
        peer.invoice(opened.reference, "expire")
        assert len(receiver.received) == 2

    def test_it_gives_up_after_nine_attempts(self, direct: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        receiver.statuses = [503] * 20
        peer.invoice(opened.reference, "expire")
        assert len(receiver.received) == 1 + len(btcpay_server.RETRY_SECONDS) == 9

    def test_no_answer_is_retried(self, direct: Route, peer: BTCPayPeer) -> None:
        with running_receiver() as gone:
            direct.listen(gone)
        opened = direct.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        attempts = peer.look("deliveries")
        assert [(attempt["status"], attempt["httpCode"]) for attempt in attempts] == [("Failed", None)] * 9

    def test_later_news_waits_for_retries(self, direct: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        receiver.statuses = [500, 500]
        peer.invoice(opened.reference, "pay")
        assert kinds(receiver) == ["InvoiceReceivedPayment"] * 3 + ["InvoiceProcessing"]

    def test_the_same_news_many_times_at_once(self, direct: Route, peer: BTCPayPeer, receiver: Receiver) -> None:
        direct.listen(receiver)
        opened = direct.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        first = peer.look("deliveries")[0]
        copies = peer.control(f"deliveries/{first['id']}/redeliver", times=20)
        assert [copy["httpCode"] for copy in copies] == [200] * 20
        assert len(receiver.received) == 21
        events = [json.loads(body) for _, body in receiver.received]
        assert {event["originalDeliveryId"] for event in events} == {first["id"]}
        assert len({event["deliveryId"] for event in events}) == 21

    def test_captured_news_can_be_replayed_in_any_order(
        self, direct: Route, peer: BTCPayPeer, receiver: Receiver
    ) -> None:
        direct.listen(receiver)
        peer.control("config", capture=True)
        opened = direct.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "pay")
        peer.invoice(opened.reference, "confirm")
        captured = peer.look("deliveries")
        assert receiver.received == []
        reports = set()
        for order in itertools.permutations(captured):
            for delivery in order:
                raw = delivery["body"].encode()
                notice = RAIL.read_webhook(direct.settings, delivery["headers"], raw, datetime.now(UTC))
                assert notice.event_id == delivery["originalDeliveryId"]
                assert notice.reference == opened.reference
                assert notice.report is None
                reports.add(notice.reference)
        assert told(direct.report(reports.pop())) == ("settled", [1_000], True)
        with pytest.raises(BadSignature):
            RAIL.read_webhook(direct.settings, captured[0]["headers"], captured[1]["body"].encode(), datetime.now(UTC))

    def test_it_reaches_loopback_only(self, direct: Route, peer: BTCPayPeer) -> None:
        elsewhere = Receiver()
        elsewhere.url = "http://192.0.2.1/hook"
        direct.listen(elsewhere)
        opened = direct.open(Money(1_000, "SAT"))
        peer.invoice(opened.reference, "expire")
        assert {attempt["errorMessage"] for attempt in peer.look("deliveries")} == {"this server reaches loopback only"}


class TestTheServerItself:
    def test_it_binds_loopback_only(self) -> None:
        with pytest.raises(SystemExit, match="not a loopback address"):
            btcpay_server.listen("0.0.0.0", 0)

    def test_it_says_where_and_keeps_a_log(self, direct: Route, peer: BTCPayPeer) -> None:
        assert urlsplit(peer.url).hostname == "127.0.0.1"
        direct.find("chk_1")
        assert peer.look("requests") == [
            {
                "method": "GET",
                "path": f"/api/v1/stores/{STORE_ID}/invoices",
                "query": {"orderId": ["chk_1"], "take": ["50"]},
                "status": 200,
            }
        ]

    def test_it_does_not_outlive_its_parent(self) -> None:
        # The parent starts it, waits until it listens, and dies; the pipe closes when the server is gone too.
        script = (
            "import subprocess, sys\n"
            "server = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)\n"
            "print(server.stdout.readline().strip(), flush=True)\n"
            "import os; os._exit(0)\n"
        )
        command = [sys.executable, "-c", script, btcpay_server.__file__]
        parent = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert parent.stdout.startswith("http://127.0.0.1:")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{parent.stdout.strip()}/api/v1/stores", trust_env=False)

    def test_it_ends_by_itself(self) -> None:
        command = [sys.executable, btcpay_server.__file__, "--max-seconds", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.startswith("http://127.0.0.1:")
