"""The stand-in for Paddle, judged by Paddle's specification (through Prism) and by Paddle's own SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.peers import paddle_sdk, prism
from tests.peers.fixtures import Receiver, running_receiver
from tests.peers.paddle_examples import SIGNED, violations, webhooks
from tests.peers.paddle_fixtures import PaddlePeer, running_paddle, webhook
from tests.peers.paddle_hooks import EVENT_NAMES, sign
from tests.peers.paddle_route import MONTH, Route
from tests.peers.paddle_world import API_KEY


@pytest.fixture(scope="module")
def server() -> Iterator[PaddlePeer]:
    with running_paddle() as peer:
        yield peer


@pytest.fixture(scope="module")
def proxy(server: PaddlePeer) -> Iterator[str]:
    if reason := prism.available(prism.PADDLE):
        pytest.skip(reason)
    with prism.running(server.url, prism.PADDLE) as url:
        yield url


@pytest.fixture
def peer(server: PaddlePeer) -> PaddlePeer:
    server.control("reset")
    return server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as endpoint:
        yield endpoint


@pytest.fixture
def route(peer: PaddlePeer) -> Route:
    return Route(peer.url, peer)


@pytest.fixture
def watched(peer: PaddlePeer, proxy: str) -> Route:
    return Route(proxy, peer)


class TestHonesty:
    """Nothing that it says surprises the specification or the SDK."""

    def test_catalog(self, watched: Route) -> None:
        product = watched.ask(
            "POST", "/products", {"name": "Editor", "tax_category": "saas", "custom_data": {"counterfoil_id": "prd_1"}}
        )
        price = watched.price(
            product_id=product["id"],
            name="Monthly",
            billing_cycle=MONTH,
            trial_period={"interval": "day", "frequency": 14},
            tax_mode="internal",
            unit_price_overrides=[
                {"country_codes": ["GB"], "unit_price": {"amount": "900", "currency_code": "GBP"}},
            ],
            quantity={"minimum": 1, "maximum": 5},
        )
        flat = {"description": "Off", "type": "flat", "amount": "500", "currency_code": "USD", "code": "SAVE5"}
        discount = watched.ask("POST", "/discounts", flat)
        customer, address = watched.buyer()
        business = watched.ask(
            "POST",
            f"/customers/{customer}/businesses",
            {"name": "Engines Ltd", "tax_identifier": "DE1", "contacts": [{"name": "Ada", "email": "ada@example.com"}]},
        )
        for path, change in (
            (f"/products/{product['id']}", {"name": "Editor 2", "description": None}),
            (f"/prices/{price['id']}", {"description": "Another"}),
            (f"/discounts/{discount['id']}", {"amount": "600"}),
            (f"/customers/{customer}", {"name": "Ada King", "locale": "de"}),
            (f"/customers/{customer}/addresses/{address}", {"city": "Berlin", "postal_code": "10115"}),
            (f"/customers/{customer}/businesses/{business['id']}", {"company_number": "7"}),
        ):
            before = watched.ask("GET", path)
            after = watched.ask("PATCH", path, change)
            assert after == before | change | {"updated_at": after["updated_at"]}
            assert watched.ask("PATCH", path, {"status": "archived"})["status"] == "archived"
            kind = path.rpartition("/")[0]
            assert watched.ask("GET", kind) == []
            assert [row["id"] for row in watched.ask("GET", f"{kind}?status=active,archived")] == [after["id"]]
            assert watched.refused("GET", path[:-4] + "zzzz") == (404, "not_found")
        portal = watched.ask("POST", f"/customers/{customer}/portal-sessions", {"subscription_ids": []})
        assert portal["customer_id"] == customer

    def test_purchase_and_refund(self, watched: Route) -> None:
        price, subscription = watched.subscribed(1000, 3)
        sale = watched.ask("GET", f"/transactions?subscription_id={subscription['id']}")[0]
        assert watched.ask("GET", f"/transactions/{sale['id']}?include=customer,address") != sale
        draft = watched.sale((price["id"], 1))
        changed = watched.ask("PATCH", f"/transactions/{draft['id']}", {"custom_data": {"a": 1}})
        assert changed["custom_data"] == {"a": 1}
        assert watched.ask("PATCH", f"/transactions/{draft['id']}", {"status": "canceled"})["status"] == "canceled"
        line = sale["details"]["line_items"][0]["id"]
        refund = {"action": "refund", "transaction_id": sale["id"], "reason": "Sorry [rfd_1]"}
        part = {**refund, "items": [{"item_id": line, "type": "partial", "amount": "1200"}]}
        adjustment = watched.ask("POST", "/adjustments", part)
        watched.peer.adjustment(adjustment["id"])
        rest = watched.ask("POST", "/adjustments", {**refund, "type": "full"})
        watched.peer.adjustment(rest["id"], "reject")
        watched.peer.transaction(sale["id"], "chargeback", warning=True)
        chargeback = watched.peer.transaction(sale["id"], "chargeback")
        watched.peer.adjustment(chargeback["id"], "reverse")
        actions = [row["action"] for row in watched.ask("GET", f"/adjustments?transaction_id={sale['id']}")]
        assert actions == ["chargeback_reverse", "chargeback", "chargeback_warning", "refund", "refund"]
        assert watched.ask("GET", f"/transactions/{sale['id']}")["details"]["adjusted_payout_totals"] is not None
        manual = watched.sale(
            (price["id"], 1),
            customer_id=sale["customer_id"],
            address_id=sale["address_id"],
            collection_mode="manual",
            billing_details={"payment_terms": {"interval": "day", "frequency": 14}},
            status="billed",
        )
        assert (manual["status"], manual["checkout"]) == ("billed", {"url": None})

    def test_subscription(self, watched: Route) -> None:
        price, subscription = watched.subscribed()
        path = f"/subscriptions/{subscription['id']}"
        once = watched.price(300, product_id=price["product_id"])
        percent = {"description": "Off", "type": "percentage", "amount": "12.5", "recur": True}
        discount = watched.ask("POST", "/discounts", {**percent, "maximum_recurring_intervals": 3})
        items = [{"price_id": price["id"], "quantity": 4}]
        watched.ask("PATCH", path, {"items": items, "proration_billing_mode": "prorated_immediately"})
        watched.ask("PATCH", path, {"discount": {"id": discount["id"], "effective_from": "immediately"}})
        items[0]["quantity"] = 2
        watched.ask("PATCH", path, {"items": items, "proration_billing_mode": "prorated_next_billing_period"})
        charge = {"effective_from": "immediately", "items": [{"price_id": once["id"], "quantity": 1}]}
        watched.ask("POST", f"{path}/charge", charge)
        watched.peer.subscription(subscription["id"])
        watched.ask("POST", f"{path}/pause", {"effective_from": "next_billing_period"})
        watched.ask("PATCH", path, {"scheduled_change": None})
        watched.ask("POST", f"{path}/pause", {"effective_from": "immediately", "resume_at": "2099-01-01T00:00:00Z"})
        watched.ask("POST", f"{path}/resume", {"effective_from": "immediately"})
        watched.peer.subscription(subscription["id"], declined=True)
        watched.peer.subscription(subscription["id"], "recover")
        watched.ask("POST", f"{path}/cancel", {"effective_from": "next_billing_period"})
        assert watched.ask("GET", path)["scheduled_change"]["action"] == "cancel"
        watched.ask("POST", f"/customers/{subscription['customer_id']}/portal-sessions", {"subscription_ids": []})
        watched.peer.subscription(subscription["id"])
        assert [row["status"] for row in watched.ask("GET", "/subscriptions?status=canceled")] == ["canceled"]
        assert len(watched.ask("GET", f"/transactions?subscription_id={subscription['id']}")) == 6
        price = watched.price(500, billing_cycle=MONTH, trial_period={"interval": "day", "frequency": 7})
        trial = watched.peer.transaction(watched.sale((price["id"], 1))["id"], email="grace@example.com")
        path = f"/subscriptions/{trial['subscription_id']}"
        assert watched.ask("GET", path)["status"] == "trialing"
        assert watched.ask("POST", f"{path}/activate")["status"] == "active"

    def test_notifications(self, watched: Route, receiver: Receiver) -> None:
        setting = watched.listen(receiver.url)
        path = f"/notification-settings/{setting['id']}"
        assert watched.ask("GET", path) == setting
        assert watched.ask("GET", "/notification-settings") == [setting]
        watched.subscribed()
        watched.peer.control("drain")
        assert len(watched.ask("GET", "/event-types")) == 50
        assert [event["event_type"] for event in watched.ask("GET", "/events?order_by=id[ASC]&per_page=2")] == [
            "customer.created",
            "address.created",
        ]
        sent = watched.ask("GET", "/notifications?status=delivered")
        assert [row["payload"]["event_id"] for row in sent] == [
            row["event_id"] for row in watched.ask("GET", "/events")
        ]
        assert watched.ask("GET", f"/notifications/{sent[0]['id']}") == sent[0]
        assert [row["response_code"] for row in watched.ask("GET", f"/notifications/{sent[0]['id']}/logs")] == [200]
        replayed = watched.ask("POST", f"/notifications/{sent[0]['id']}/replay")["notification_id"]
        watched.peer.control("drain")
        assert json.loads(receiver.received[-1][1]) == {**sent[0]["payload"], "notification_id": replayed}
        assert watched.ask("PATCH", path, {"active": False})["active"] is False
        assert watched.send("DELETE", path).status_code == 204

    def test_errors(self, watched: Route) -> None:
        price, subscription = watched.subscribed()
        assert watched.refused("POST", "/customers", {"email": "ADA@example.com"}) == (409, "customer_already_exists")
        refund = {"action": "refund", "transaction_id": watched.sale((price["id"], 1))["id"], "reason": "x"}
        expected = (400, "adjustment_transaction_invalid_status_for_refund")
        assert watched.refused("POST", "/adjustments", {**refund, "type": "full"}) == expected
        assert watched.refused("POST", f"/subscriptions/{subscription['id']}/activate") == (
            400,
            "subscription_cannot_activate",
        )
        watched.peer.control("fail", status=429, retry_after=7)
        answer = watched.send("GET", "/products")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        watched.peer.control("fail", status=500)
        assert watched.send("GET", "/products").json()["error"]["type"] == "api_error"
        with pytest.raises(AssertionError, match="tax_category"):
            watched.send("POST", "/products", {"name": "Prism notices what Paddle would not take"})

    def test_every_event_is_understood(self, route: Route) -> None:
        price, subscription = route.subscribed()
        path = f"/subscriptions/{subscription['id']}"
        route.ask("POST", f"{path}/pause", {"effective_from": "immediately"})
        route.ask("POST", f"{path}/resume", {"effective_from": "immediately"})
        route.peer.subscription(subscription["id"], declined=True)
        route.peer.subscription(subscription["id"], "give-up")
        sale = route.ask("GET", f"/transactions?subscription_id={subscription['id']}")[-1]
        refund = {"action": "refund", "transaction_id": sale["id"], "reason": "Sorry"}
        item = {"item_id": sale["details"]["line_items"][0]["id"], "type": "partial", "amount": "100"}
        route.peer.adjustment(route.ask("POST", "/adjustments", {**refund, "items": [item]})["id"])
        chargeback = route.peer.transaction(sale["id"], "chargeback")
        route.peer.adjustment(chargeback["id"], "reverse")
        draft = route.sale((price["id"], 1))
        route.peer.transaction(draft["id"], "decline")
        route.peer.transaction(draft["id"], "cancel")
        trial = route.price(500, billing_cycle=MONTH, trial_period={"interval": "day", "frequency": 7})
        route.peer.transaction(route.sale((trial["id"], 1))["id"], email="grace@example.com")
        examples, seen = webhooks(), set()
        for event in route.peer.events():
            _, body = webhook(event, "secret", datetime.now(UTC))
            assert violations(body) == []
            assert paddle_sdk.understand_webhook(body).event_type == event["event_type"]
            example = json.loads(examples[event["event_type"]])
            assert set(event["data"]) >= set(example["data"]) - {"import_meta"}, event["event_type"]
            seen.add(event["event_type"])
        assert seen == {
            *("customer.created", "address.created", "product.created", "price.created"),
            *("transaction.created", "transaction.ready", "transaction.paid", "transaction.completed"),
            *("transaction.billed", "transaction.payment_failed", "transaction.past_due", "transaction.updated"),
            *("transaction.canceled", "adjustment.created", "adjustment.updated"),
            *("subscription.created", "subscription.activated", "subscription.trialing", "subscription.updated"),
            *("subscription.paused", "subscription.resumed", "subscription.past_due", "subscription.canceled"),
        }

    def test_the_judges_agree_about_the_examples(self) -> None:
        found = webhooks()
        assert set(found) == set(EVENT_NAMES)
        for name, body in found.items():
            assert paddle_sdk.understand_webhook(body).event_type == name


class TestLists:
    def test_pages_hold_everything_once(self, route: Route) -> None:
        made = [route.ask("POST", "/customers", {"email": f"{n}@example.com"})["id"] for n in range(5)]
        for order, expected in (("", made[::-1]), ("&order_by=id[ASC]", made)):
            path, seen = f"/customers?per_page=2{order}", []
            while True:
                answer = route.send("GET", path).json()
                seen += [row["id"] for row in answer["data"]]
                pagination = answer["meta"]["pagination"]
                assert (pagination["per_page"], pagination["estimated_total"]) == (2, 5)
                if not pagination["has_more"]:
                    break
                path = pagination["next"].removeprefix(route.url)
            assert seen == expected
            assert pagination["next"].endswith(f"after={expected[-1]}")
        answer = route.send("GET", "/customers?per_page=1000").json()
        assert answer["meta"]["pagination"]["per_page"] == 200

    def test_moments(self, route: Route) -> None:
        price = route.price()
        first, second = route.sale((price["id"], 1)), route.sale((price["id"], 1))
        for query, expected in (
            (f"created_at[GTE]={second['created_at']}", [second]),
            (f"created_at[LT]={second['created_at']}", [first]),
            ("billed_at[GT]=2020-01-01T00:00:00Z", []),
            (f"id={first['id']},{second['id']}&order_by=created_at[ASC]", [first, second]),
        ):
            assert route.ask("GET", f"/transactions?{query}") == expected
        assert route.refused("GET", "/transactions?created_at=now") == (400, "invalid_time_query_parameter")

    def test_what_was_made_for_one_sale_is_not_listed(self, route: Route) -> None:
        made = {"description": "Setup", "unit_price": {"amount": "700", "currency_code": "USD"}}
        item = {"quantity": 1, "price": {**made, "product": {"name": "Setup", "tax_category": "standard"}}}
        sale = route.ask("POST", "/transactions", {"items": [item]})
        assert sale["items"][0]["price"]["type"] == "custom"
        assert route.ask("GET", "/prices") == []
        assert [row["name"] for row in route.ask("GET", "/products?type=custom")] == ["Setup"]
        both = {"items": [{**item, "price_id": sale["items"][0]["price"]["id"]}]}
        assert route.refused("POST", "/transactions", both) == (400, "transaction_both_price_id_and_object_found")


class TestWebhooks:
    def test_signed_and_delivered_in_order(self, route: Route, receiver: Receiver) -> None:
        setting = route.listen(receiver.url, "customer.created", "customer.updated")
        secret = setting["endpoint_secret_key"]
        assert secret.startswith(f"pdl_{setting['id']}_")
        customer = route.ask("POST", "/customers", {"email": "ada@example.com", "name": "Ada 😀"})
        route.ask("PATCH", f"/customers/{customer['id']}", {"name": "Grace"})
        route.peer.control("drain")
        bodies = [json.loads(body) for _, body in receiver.received]
        assert [body["event_type"] for body in bodies] == ["customer.created", "customer.updated"]
        assert bodies[0]["data"] == customer
        headers, raw = receiver.received[0]
        assert paddle_sdk.believes(headers["paddle-signature"], raw, secret)
        assert not paddle_sdk.believes(headers["paddle-signature"], raw + b" ", secret)

    def test_again_until_taken(self, route: Route, receiver: Receiver) -> None:
        route.peer.control("config", retry_seconds=0)
        receiver.statuses = [500, 503]
        route.listen(receiver.url, "customer.created")
        route.ask("POST", "/customers", {"email": "ada@example.com"})
        route.peer.control("drain")
        assert len({json.loads(body)["event_id"] for _, body in receiver.received}) == 1
        (row,) = route.ask("GET", "/notifications")
        assert (row["status"], row["times_attempted"]) == ("delivered", 3)
        receiver.statuses = [500] * 4
        route.ask("POST", "/customers", {"email": "grace@example.com"})
        route.peer.control("drain")
        assert route.ask("GET", "/notifications?status=failed")[0]["times_attempted"] == 4

    def test_two_secrets_while_they_are_exchanged(self, route: Route, receiver: Receiver) -> None:
        setting = route.listen(receiver.url, "customer.created")
        new = route.peer.control(f"settings/{setting['id']}/rotate")["endpoint_secret_key"]
        route.ask("POST", "/customers", {"email": "ada@example.com"})
        route.peer.control("drain")
        headers, raw = receiver.received[0]
        for secret in (setting["endpoint_secret_key"], new):
            assert paddle_sdk.believes(headers["paddle-signature"], raw, secret)

    def test_kept_instead_of_sent(self, route: Route, receiver: Receiver) -> None:
        secret = route.listen(receiver.url, "customer.created")["endpoint_secret_key"]
        route.peer.control("config", capture=True)
        route.ask("POST", "/customers", {"email": "ada@example.com"})
        (kept,) = route.peer.look("notifications")
        assert (kept["status"], receiver.received) == ("not_attempted", [])
        assert paddle_sdk.believes(kept["headers"]["paddle-signature"], kept["body"].encode(), secret)
        route.peer.control(f"notifications/{kept['id']}/send", times=3)
        assert [body for _, body in receiver.received] == [kept["body"].encode()] * 3

    def test_signatures(self) -> None:
        assert sign([SIGNED.secret], SIGNED.body, SIGNED.ts).removeprefix(f"ts={SIGNED.ts};") in SIGNED.header
        assert paddle_sdk.believes(SIGNED.header, SIGNED.body, SIGNED.secret, tolerance=0)
        assert not paddle_sdk.believes(SIGNED.header, SIGNED.body, *SIGNED.strangers, tolerance=0)
        event = {"event_id": "evt_01", "data": {"name": "Zoë"}}
        headers, body = webhook(event, ["one", "two"], datetime(2026, 1, 2, tzinfo=UTC))
        ts = 1_767_312_000
        hashes = ";".join(f"h1={paddle_sdk.signature(secret, ts, body)}" for secret in ("one", "two"))
        assert headers["paddle-signature"] == f"ts={ts};{hashes}"


class TestMisfortune:
    def test_the_answer_is_lost_after_the_act(self, route: Route) -> None:
        route.peer.control("fail", match="^POST /customers$", after=True, hang_up=True)
        with pytest.raises(httpx.TransportError):
            route.send("POST", "/customers", {"email": "ada@example.com"})
        assert len(route.ask("GET", "/customers?email=ada@example.com")) == 1

    def test_dropped_before_the_act(self, route: Route) -> None:
        route.peer.control("fail", match="^POST /customers$", hang_up=True)
        with pytest.raises(httpx.TransportError):
            route.send("POST", "/customers", {"email": "ada@example.com"})
        assert route.ask("GET", "/customers") == []
        assert route.peer.look("counts") == {"POST /customers": 1, "GET /customers": 1}
        assert [entry["status"] for entry in route.peer.look("requests")] == [0, 200]

    def test_an_error_before_and_after(self, route: Route) -> None:
        for email, after, count in (("a@example.com", False, 0), ("b@example.com", True, 1)):
            route.peer.control("fail", status=500, after=after)
            assert route.refused("POST", "/customers", {"email": email}) == (500, "internal_error")
            assert len(route.ask("GET", f"/customers?email={email}")) == count

    def test_too_many(self, route: Route) -> None:
        route.peer.control("config", rate_limit=2, rate_seconds=60)
        assert [route.send("GET", "/products").status_code for _ in range(3)] == [200, 200, 429]
        answer = route.send("GET", "/products")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert answer.json()["error"]["code"] == "too_many_requests"

    def test_keys(self, route: Route) -> None:
        for headers, expected in (
            ({}, (401, "authentication_missing")),
            ({"authorization": "Basic x"}, (403, "authentication_malformed")),
            ({"authorization": "Bearer x"}, (403, "invalid_token")),
        ):
            answer = route.peer.client.get(f"{route.url}/products", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == expected

    @pytest.mark.parametrize(
        ("path", "body", "fields"),
        [
            ("/products", {"name": "", "tax_category": "fun"}, ["name", "tax_category"]),
            ("/products", {"name": "Editor", "color": "red"}, ["(root)", "(root)"]),
            ("/customers", {"email": "nobody", "name": 7}, ["name", "email"]),
            ("/transactions", {}, ["(root)"]),
            ("/transactions", {"items": []}, ["items"]),
            (
                "/transactions",
                {"items": [{"price_id": "pri_1", "quantity": 0}]},
                ["items.0.quantity", "items.0.price_id"],
            ),
            ("/adjustments", {"action": "steal"}, ["(root)", "(root)", "action"]),
        ],
    )
    def test_nonsense_is_named(self, route: Route, path: str, body: Any, fields: list[str]) -> None:
        answer = route.send("POST", path, body)
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["error"]["errors"]] == fields

    def test_not_json_and_nowhere(self, route: Route) -> None:
        headers = {"authorization": f"Bearer {API_KEY}"}
        answer = route.peer.client.post(f"{route.url}/products", content=b"{", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
        assert route.refused("GET", "/nowhere") == (404, "invalid_url")
        assert route.refused("DELETE", "/products") == (405, "method_not_allowed")


class TestProcess:
    def test_time_stands_or_moves(self, peer: PaddlePeer) -> None:
        assert peer.control("clock", set="2030-01-01T00:00:00Z", freeze=True) == {"now": "2030-01-01T00:00:00.000000Z"}
        product = peer.api("POST", "/products", {"name": "Editor", "tax_category": "saas"})
        assert product["created_at"].startswith("2030-01-01T00:00:00.0000")
        assert peer.control("clock", advance=3600)["now"].startswith("2030-01-01T01:00:00.0000")

    def test_stops_by_itself(self) -> None:
        command = [sys.executable, "-m", "tests.peers.paddle_server", "--max-seconds", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=prism.ROOT)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("http://127.0.0.1:")

    def test_loopback_only(self) -> None:
        command = [sys.executable, "-m", "tests.peers.paddle_server", "--host", "0.0.0.0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=prism.ROOT)
        assert "not a loopback address" in done.stderr
