"""Selling through BTCPay, whole: a real server process, a stateful stand-in for BTCPay, real HTTP both ways."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.peers import prism
from tests.peers.btcpay_server import API_KEY, STORE_ID
from tests.peers.fixtures import BTCPayPeer, running_btcpay
from tests.support.app import good, named, opening, problem
from tests.support.databases import Databases, Dialect
from tests.support.remote import Remote, connected
from tests.support.server import serving

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange.reconcile import reconcile
from counterfoil.house import House, open_house
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.btcpay import connect as btcpay_connect
from counterfoil.settings import Settings

INVOICES = f"/api/v1/stores/{STORE_ID}/invoices"
PRICE = 21_000
_slugs = itertools.count(1)


class Shop:
    """Our server, the stand-in, and what is sold this time."""

    def __init__(self, remote: Remote, peer: BTCPayPeer, master: MasterKey) -> None:
        self.remote = remote
        self.peer = peer
        self.master = master
        self.http = remote.http
        self.slug = ""
        self.price_id = ""

    def stock(self, amount: int = PRICE, asset: str = "SAT") -> None:
        """A product of this test's own."""
        self.slug = f"editor-{next(_slugs)}"
        product = self.remote.staff("POST", "/v1/products", slug=self.slug, name="Editor")["id"]
        self.remote.staff("PUT", f"/v1/products/{product}/benefits", license={"max_machines": 1})
        price = self.remote.staff("POST", f"/v1/products/{product}/prices", asset=asset, unit_amount=amount)
        self.price_id = price["id"]

    def connect(self, base_url: str | None = None, **fields: Any) -> httpx.Response:
        return self.http.post(
            "/v1/rails/btcpay",
            json={"base_url": base_url or self.peer.url, "api_key": API_KEY, **fields},
            headers={"Authorization": f"Bearer {self.remote.key}"},
        )

    def try_checkout(self, key: str | None = None, **fields: Any) -> httpx.Response:
        body = {"lines": [{"price_id": self.price_id}], **fields}
        return self.http.post("/v1/checkouts", json=body, headers={"Idempotency-Key": key} if key else {})

    def checkout(self, key: str | None = None, **fields: Any) -> dict[str, Any]:
        opened: dict[str, Any] = good(self.try_checkout(key, **fields))
        return opened

    def invoice_of(self, opened: dict[str, Any]) -> dict[str, Any]:
        """The only invoice of a checkout at BTCPay."""
        (found,) = self.invoices_of(opened)
        return found

    def invoices_of(self, opened: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for one in self.peer.look("invoices") if one["metadata"].get("orderId") == opened["id"]]

    def act(self, opened: dict[str, Any], action: str, **body: Any) -> dict[str, Any]:
        """Make something happen to the invoice, and wait until its webhooks are through."""
        done: dict[str, Any] = self.peer.invoice(self.invoice_of(opened)["id"], action, **body)
        return done

    def claim(self, opened: dict[str, Any]) -> dict[str, Any]:
        seen: dict[str, Any] = good(self.http.get(f"/v1/claims/{opened['claim']}"))
        return seen

    def deliveries(self, opened: dict[str, Any]) -> list[dict[str, Any]]:
        invoice_id = self.invoice_of(opened)["id"]
        return [one for one in self.peer.look("deliveries") if one["invoiceId"] == invoice_id]

    def deliver(self, delivery: dict[str, Any]) -> httpx.Response:
        """Send a captured delivery's very bytes."""
        return self.http.post("/v1/webhooks/btcpay", content=delivery["body"].encode(), headers=delivery["headers"])

    def books(self, opened: dict[str, Any]) -> Any:
        """All that is written about one checkout, comparable with another's: without times."""
        every = self.remote.books()

        def of(table: str, **where: Any) -> list[dict[str, Any]]:
            return [row for row in every[table] if all(row[name] == value for name, value in where.items())]

        (checkout,) = of("checkouts", id=opened["id"])
        orders = of("orders", checkout_id=opened["id"])
        payments = sorted(of("payments", checkout_id=opened["id"]), key=lambda row: int(row["amount"]))
        known = {row["reference"]: f"payment {place}" for place, row in enumerate(payments)}
        for row in payments:
            for name in ("additionalStatus", "paidAmount"):  # how the invoice stood when we first heard of the money
                row["details"].pop(name, None)
        story = {
            "checkout": [{**checkout, "url": checkout["url"] is not None}],
            "payments": payments,
            "orders": orders,
            "licenses": [row for order in orders for row in of("licenses", order_id=order["id"])],
            "grants": [row for order in orders for row in of("grants", order_id=order["id"])],
        }
        return named(_timeless(story), {**known, str(checkout["rail_reference"]): "invoice"})

    def statuses(self, opened: dict[str, Any]) -> list[tuple[int, str]]:
        found = [row for row in self.remote.rows("payments") if row["checkout_id"] == opened["id"]]
        return sorted((row["amount"], row["status"]) for row in found)


def _timeless(value: Any) -> Any:
    match value:
        case dict():
            return {name: _timeless(inner) for name, inner in value.items()}
        case list():
            return [_timeless(inner) for inner in value]
        case datetime():
            return "a time"
        case _:
            return value


@pytest.fixture(scope="module")
def peer() -> Iterator[BTCPayPeer]:
    with running_btcpay() as running:
        yield running


@pytest.fixture(scope="module", params=get_args(Dialect))
def world(
    request: pytest.FixtureRequest,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    master: MasterKey,
    peer: BTCPayPeer,
) -> Iterator[Shop]:
    """One server process for all of these tests; each sells a product of its own, to be told apart."""
    folder = tmp_path_factory.mktemp("server")
    with (
        databases.fresh(request.param) as url,
        serving(url, folder, master=master, sandbox=False, jobs="false", validations_per_minute="0") as server,
        connected(server.url, url, master) as remote,
    ):
        yield Shop(remote, peer, master)


@pytest.fixture
def shop(world: Shop) -> Shop:
    world.peer.control("reset")
    world.peer.control("config", retry_scale=0.0001)
    world.stock()
    good(world.connect())
    return world


@contextlib.asynccontextmanager
async def worker(shop: Shop, ahead: timedelta) -> AsyncIterator[House]:
    """A worker beside the server, on the same database, whose clock is ``ahead``."""
    clock = ManualClock(datetime.now(UTC) + ahead)
    key = shop.master.to_text()
    settings = Settings.load(database_url=shop.remote.database_url, master_key=key, jobs=False)  # type: ignore[arg-type]
    async with open_house(settings, clock) as house:
        yield house


async def ask_rails(shop: Shop, *, ahead: timedelta = timedelta(minutes=2)) -> int:
    """Ask about everything unsettled, as the job does; how many checkouts."""
    async with worker(shop, ahead) as house:
        return await reconcile(house.scope(DEFAULT_TENANT), house.rails, house.client)


# -- connecting ---------------------------------------------------------------------------------------


def test_connecting_with_a_key(shop: Shop) -> None:
    done = good(shop.connect(store_id=STORE_ID))
    assert done == {
        "rail": "btcpay",
        "base_url": shop.peer.url,
        "store_id": STORE_ID,
        "store_name": "Fake store",
        "payment_methods": ["BTC-CHAIN", "BTC-LN"],
    }
    at = f"{shop.peer.url}/api/v1/stores/{STORE_ID}/webhooks"
    *_, webhook = shop.peer.client.get(at, headers={"Authorization": f"token {API_KEY}"}).json()
    assert webhook["url"] == f"{shop.remote.url}/v1/webhooks/btcpay"
    assert (webhook["enabled"], webhook["automaticRedelivery"]) == (True, True)
    assert set(webhook["authorizedEvents"]["specificEvents"]) == set(btcpay_connect.EVENTS)
    listed = {one["rail"]: one for one in shop.remote.staff("GET", "/v1/rails")}
    assert listed["btcpay"]["status"] == "active"
    assert API_KEY not in json.dumps(listed)
    (row,) = [row for row in shop.remote.rows("rail_settings") if row["rail"] == "btcpay"]
    assert API_KEY.encode() not in row["sealed"]


@pytest.mark.parametrize(
    ("granted", "lacks"),
    [
        (["canviewstoresettings", "webhooks.canmodifywebhooks"], ["cancreateinvoice", "canmodifyinvoices"]),
        (["canviewstoresettings", "cancreateinvoice", "webhooks.canmodifywebhooks"], ["canmodifyinvoices"]),
        (["canviewstoresettings", "canmodifyinvoices"], ["webhooks.canmodifywebhooks"]),
    ],
)
def test_a_permission_that_the_key_lacks_is_named(shop: Shop, granted: list[str], lacks: list[str]) -> None:
    permissions = [f"btcpay.store.{name}:{STORE_ID}" for name in granted]
    key = shop.peer.control("keys", permissions=permissions)["apiKey"]
    before, asked = shop.remote.books(), len(shop.peer.look("requests"))
    refusal = problem(shop.connect(api_key=key), 422, "missing_permissions")
    named_ones = ", ".join(f"btcpay.store.{name}" for name in lacks)
    assert refusal["errors"] == [{"pointer": "/api_key", "detail": f"lacks {named_ones}"}]
    assert [one["method"] for one in shop.peer.look("requests")[asked:] if one["method"] != "GET"] == []
    assert shop.remote.books() == before


@pytest.mark.parametrize("scope", ["", ":another-store"])
def test_a_key_that_does_not_reach_the_store(shop: Shop, scope: str) -> None:
    """Without the permission to see a store, or with all of them for another."""
    names = [name for name in btcpay_connect.PERMISSIONS if scope or name != "btcpay.store.canviewstoresettings"]
    key = shop.peer.control("keys", permissions=[name + scope for name in names])["apiKey"]
    before = shop.remote.books()
    problem(shop.connect(api_key=key), 422, "store_not_found")
    assert shop.remote.books() == before


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"api_key": "wrong"}, 502, "rail_refused"),
        ({"store_id": "another"}, 422, "store_not_found"),
        ({"base_url": "ftp://x.example"}, 422, "invalid_request"),
        ({"base_url": "http://127.0.0.1:1"}, 503, "rail_unavailable"),
    ],
)
def test_connecting_goes_wrong(shop: Shop, fields: dict[str, Any], status: int, code: str) -> None:
    before = shop.remote.books()
    refusal = problem(shop.connect(**fields), status, code)
    assert refusal["retryable"] == (status == 503)
    assert shop.remote.books() == before
    assert shop.checkout()["url"].startswith(shop.peer.url)  # what was connected before still is


def test_connecting_in_the_sellers_browser(shop: Shop) -> None:
    link = shop.remote.staff("POST", "/v1/rails/btcpay/authorize", base_url=f"{shop.peer.url}/")["authorize_url"]
    asked = parse_qs(urlsplit(link).query)
    assert (asked["strict"], asked["selectiveStores"]) == (["true"], ["true"])
    assert asked["permissions"] == list(btcpay_connect.PERMISSIONS)
    page = shop.peer.client.get(link).text
    action = unescape(re.findall(r'action="([^"]+)"', page)[0])
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page))
    assert action.startswith(f"{shop.remote.url}/v1/rails/btcpay/callback?state=")
    before = shop.remote.books()
    forged = shop.http.post(f"{shop.remote.url}/v1/rails/btcpay/callback?state=guessed", data=form)
    problem(forged, 401, "bad_state")
    assert shop.remote.books() == before
    done = shop.http.post(action, data=form)
    assert (done.status_code, done.text) == (200, "Connected to the store 'Fake store'. You can close this page.")
    before = shop.remote.books()
    problem(shop.http.post(action, data=form), 401, "bad_state")
    assert shop.remote.books() == before
    opened = shop.checkout()
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.claim(opened)["status"] == "settled"


def test_a_callback_without_a_key(shop: Shop) -> None:
    link = shop.remote.staff("POST", "/v1/rails/btcpay/authorize", base_url=shop.peer.url)["authorize_url"]
    redirect = parse_qs(urlsplit(link).query)["redirect"][0]
    problem(shop.http.post(redirect, data={"userId": "x"}), 502, "rail_refused")
    assert shop.checkout()["url"].startswith(shop.peer.url)


async def test_an_authorize_link_lasts_half_an_hour(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master) as here:
        for wait, code in [(timedelta(minutes=30), "bad_state"), (timedelta(minutes=29), "rail_refused")]:
            asked = await here.staff.post("/v1/rails/btcpay/authorize", json={"base_url": "http://127.0.0.1:1"})
            redirect = parse_qs(urlsplit(good(asked)["authorize_url"]).query)["redirect"][0]
            clock.advance(wait)
            answer = await here.http.post(redirect, data={"userId": "x"})
            assert answer.json()["code"] == code


def test_disconnecting(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    *_, delivery = shop.deliveries(opened)
    done = shop.remote.staff("DELETE", "/v1/rails/btcpay")
    assert done == {"rail": "btcpay", "left": []}
    at = f"{shop.peer.url}/api/v1/stores/{STORE_ID}/webhooks"
    assert shop.peer.client.get(at, headers={"Authorization": f"token {API_KEY}"}).json() == []
    (row,) = [row for row in shop.remote.rows("rail_settings") if row["rail"] == "btcpay"]
    assert (row["status"], row["sealed"]) == ("disconnected", b"")
    problem(shop.try_checkout(rail="btcpay"), 404, "rail_not_connected")
    problem(shop.deliver(delivery), 404, "rail_not_connected")
    good(shop.connect())
    problem(shop.deliver(delivery), 401, "bad_signature")  # a new connection has a new secret


# -- the usual way ------------------------------------------------------------------------------------


def buy_on_chain(shop: Shop) -> dict[str, Any]:
    """From checkout to key, looking at every step."""
    opened = shop.checkout(email="ann@x.example")
    invoice = shop.invoice_of(opened)
    assert (opened["status"], opened["rail"], opened["amount"], opened["asset"]) == ("open", "btcpay", PRICE, "SAT")
    assert (invoice["amount"], invoice["currency"]) == ("0.00021000", "BTC")
    assert invoice["metadata"] == {"orderId": opened["id"], "itemDesc": "Editor", "buyerEmail": "ann@x.example"}
    assert invoice["checkout"]["redirectURL"] == f"{shop.remote.url}/thanks/{opened['id']}"
    assert invoice["checkout"]["expirationMinutes"] in {14, 15}
    assert opened["claim"] not in json.dumps(invoice)
    assert shop.peer.client.get(opened["url"]).status_code == 200
    shop.act(opened, "pay")
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("processing", [])
    shop.act(opened, "confirm")
    seen = shop.claim(opened)
    assert (seen["status"], seen["paid"], len(seen["license_keys"])) == ("settled", PRICE, 1)
    assert shop.statuses(opened) == [(PRICE, "settled")]
    answer = good(shop.http.post("/v1/validate", json={"key": seen["license_keys"][0], "product_slug": shop.slug}))
    assert answer["ok"] is True
    assert {one["httpCode"] for one in shop.deliveries(opened)} == {200}
    return opened


def test_bought_on_chain(shop: Shop) -> None:
    opened = buy_on_chain(shop)
    assert [one["type"] for one in shop.deliveries(opened)] == [
        "InvoiceReceivedPayment", "InvoiceProcessing", "InvoicePaymentSettled", "InvoiceSettled",
    ]  # fmt: skip
    (payment,) = [row for row in shop.remote.rows("payments") if row["checkout_id"] == opened["id"]]
    assert payment["details"]["paymentMethodId"] == "BTC-CHAIN"
    assert payment["payer"] is None


def test_bought_behind_a_proxy_that_holds_both_sides_to_the_specification(shop: Shop) -> None:
    if reason := prism.available():
        pytest.skip(reason)
    with prism.running(shop.peer.url) as url:
        good(shop.connect(base_url=url))
        shop.peer.control("config", capture=True)
        opened = shop.checkout(email="ann@x.example")
        shop.act(opened, "pay")
        shop.act(opened, "confirm")
        # The webhook of the connection before is still there, with a secret that is no longer ours.
        codes = [shop.deliver(delivery).status_code for delivery in shop.deliveries(opened)]
        assert sorted(codes) == [200] * 4 + [401] * 4
        assert shop.claim(opened)["status"] == "settled"
        assert len(shop.claim(opened)["license_keys"]) == 1


def test_bought_over_lightning(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.claim(opened)["status"] == "settled"
    assert shop.statuses(opened) == [(PRICE, "settled")]


def test_bought_for_dollars(shop: Shop) -> None:
    shop.stock(amount=4999, asset="USD")
    opened = shop.checkout()
    invoice = shop.invoice_of(opened)
    assert (invoice["amount"], invoice["currency"]) == ("49.99", "USD")
    shop.act(opened, "pay", method="BTC-LN")
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("settled", 4999)
    assert shop.statuses(opened) == [(4999, "settled")]


@pytest.mark.parametrize(
    ("pieces", "tolerance"),
    [
        ([3_334, 3_333, 3_333], 0),  # $3.334 + $3.333 + $3.333: each rounded to cents, $9.99
        ([9_900], 2),
    ],
    ids=["rounded", "tolerated"],
)
def test_what_btcpay_counts_as_paid_in_full_is(shop: Shop, pieces: list[int], tolerance: int) -> None:
    shop.peer.control("config", tolerance=tolerance)
    shop.stock(amount=1000, asset="USD")
    opened = shop.checkout()
    for sats in pieces:
        shop.act(opened, "pay", sats=sats, method="BTC-LN")
    assert shop.invoice_of(opened)["status"] == "Settled"
    assert shop.claim(opened)["status"] == "settled"


# -- the other ways -----------------------------------------------------------------------------------


def test_paid_in_two_pieces(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "pay", sats=10_000)
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("open", [])
    shop.act(opened, "confirm")
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("open", 10_000)
    assert shop.statuses(opened) == [(10_000, "underpaid")]
    shop.act(opened, "pay")
    shop.act(opened, "confirm")
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("settled", PRICE)
    assert shop.statuses(opened) == [(10_000, "settled"), (11_000, "settled")]
    assert len(shop.claim(opened)["license_keys"]) == 1


def test_paid_in_part_and_expired(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "pay", sats=10_000, method="BTC-LN")
    shop.act(opened, "expire")
    assert (shop.claim(opened)["status"], shop.claim(opened)["license_keys"]) == ("expired", [])
    assert shop.statuses(opened) == [(10_000, "underpaid")]
    (waiting,) = [one for one in attention(shop) if one["checkout_id"] == opened["id"]]
    body = {"resolution": "accepted", "note": "close enough"}
    shop.remote.staff("POST", f"/v1/payments/{waiting['id']}/resolve", **body)
    assert (shop.claim(opened)["status"], len(shop.claim(opened)["license_keys"])) == ("settled", 1)


def attention(shop: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.remote.staff("GET", "/v1/payments?attention=true&limit=100")["data"]
    return found


def test_paid_after_it_expired(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "expire")
    assert shop.claim(opened)["status"] == "expired"
    shop.peer.control("advance", seconds=3600)
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.invoice_of(opened)["additionalStatus"] == "PaidLate"
    assert shop.claim(opened)["status"] == "settled"
    assert shop.statuses(opened) == [(PRICE, "late")]
    assert len(shop.claim(opened)["license_keys"]) == 1


def test_paid_after_it_expired_and_not_accepted_by_btcpay(shop: Shop) -> None:
    shop.peer.control("config", late_settles=False)
    opened = shop.checkout()
    shop.act(opened, "expire")
    shop.peer.control("advance", seconds=3600)
    shop.act(opened, "pay", method="BTC-LN")
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("expired", [(PRICE, "late")])
    assert shop.claim(opened)["license_keys"] == []
    shop.act(opened, "mark", status="Settled")
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("settled", [(PRICE, "late")])


def test_paid_too_much(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "pay", extra_sats=500, method="BTC-LN")
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("settled", PRICE + 500)
    assert shop.statuses(opened) == [(PRICE + 500, "overpaid")]


@pytest.mark.parametrize("before", [0, 10_000])
def test_marked_settled_by_the_sellers_hand(shop: Shop, before: int) -> None:
    opened = shop.checkout()
    if before:
        shop.act(opened, "pay", sats=before, method="BTC-LN")
    shop.act(opened, "mark", status="Settled")
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("settled", PRICE)
    pieces = [piece for piece in (before, PRICE - before) if piece]
    assert shop.statuses(opened) == [(piece, "settled") for piece in pieces]
    marked = [row for row in shop.remote.rows("payments") if row["reference"].endswith(":marked")]
    assert [row["amount"] for row in marked if row["checkout_id"] == opened["id"]] == [PRICE - before]


def test_invalid_and_given_back(shop: Shop) -> None:
    code = f"CODE-{shop.slug.upper()}"
    discount = shop.remote.staff("POST", "/v1/discounts", code=code, kind="percentage", amount=1000, usage_limit=1)[
        "id"
    ]
    opened = shop.checkout(code=code)
    problem(shop.try_checkout(code=code), 422, "discount_exhausted")
    shop.act(opened, "mark", status="Invalid")
    assert (shop.claim(opened)["status"], shop.claim(opened)["license_keys"]) == ("failed", [])
    assert shop.remote.staff("GET", f"/v1/discounts/{discount}")["times_used"] == 0
    shop.act(opened, "mark", status="Settled")  # the seller changes their mind
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("settled", 18_900)
    assert shop.remote.staff("GET", f"/v1/discounts/{discount}")["times_used"] == 1


def test_double_spent(shop: Shop) -> None:
    opened = shop.checkout()
    shop.act(opened, "pay")
    assert shop.claim(opened)["status"] == "processing"
    shop.act(opened, "double-spend")
    shop.act(opened, "expire")
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("expired", [])


# -- redeliveries, order, forgeries -------------------------------------------------------------------


def test_fifty_deliveries_of_one_event_at_once(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.claim(opened)["status"] == "open"
    *_, settled = shop.deliveries(opened)
    assert settled["type"] == "InvoiceSettled"
    shop.peer.control("config", capture=False)
    inbox = len(shop.remote.rows("inbox"))
    sent = shop.peer.control(f"deliveries/{settled['id']}/redeliver", times=50)
    assert {one["httpCode"] for one in sent} == {200}
    assert len({one["id"] for one in sent}) == 50
    assert {one["originalDeliveryId"] for one in sent} == {settled["id"]}
    told = shop.books(opened)
    assert [len(told[name]) for name in ("payments", "orders", "licenses", "grants")] == [1, 1, 1, 1]
    assert len(shop.remote.rows("inbox")) == inbox + 1
    order = shop.claim(opened)["order_id"]
    events = shop.remote.staff("GET", f"/v1/events?object_id={order}")["data"]
    assert [event["type"] for event in events] == ["order.created", "order.paid"]


def test_fifty_deliveries_of_all_events_at_once(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", sats=10_000, method="BTC-LN")
    shop.act(opened, "pay", method="BTC-LN")
    news = shop.deliveries(opened)
    assert len(news) == 6
    with ThreadPoolExecutor(25) as threads:
        answers = list(threads.map(shop.deliver, (news * 9)[:50]))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["new"] for answer in answers) == 6
    assert shop.statuses(opened) == [(10_000, "settled"), (11_000, "settled")]
    told = shop.books(opened)
    assert [len(told[name]) for name in ("orders", "licenses", "grants")] == [1, 1, 1]


def test_every_order_of_the_events_with_duplicates_ends_the_same(shop: Shop) -> None:
    """BTCPay has the whole story behind it when its news arrives, in every order, each twice."""
    shop.peer.control("config", capture=True)
    first: Any = None
    runs = 0
    for order in itertools.permutations(range(4)):
        opened = shop.checkout()
        shop.act(opened, "pay")
        shop.act(opened, "confirm")
        news = shop.deliveries(opened)
        assert len(news) == 4
        answers = [good(shop.deliver(news[place])) for place in order + order[::-1]]
        assert [answer["new"] for answer in answers] == [True] * 4 + [False] * 4
        told = shop.books(opened)
        first = first or told
        assert told == first, f"order {order}"
        runs += 1
    assert runs == 24
    assert [row["status"] for row in first["checkout"]] == ["settled"]
    assert [row["status"] for row in first["payments"]] == ["settled"]
    assert [len(first[name]) for name in ("orders", "licenses", "grants")] == [1, 1, 1]


def test_news_that_arrives_while_the_story_goes_on_ends_the_same(shop: Shop) -> None:
    """Each piece of news arrives, twice, at a random moment after it was sent: BTCPay may be further by then."""
    chance = random.Random(20260102)  # the same schedules every time
    shop.peer.control("config", capture=True)
    steps: list[tuple[str, dict[str, Any]]] = [("pay", {"sats": 10_000}), ("confirm", {}), ("pay", {}), ("confirm", {})]
    first: Any = None
    ways = set()
    for _ in range(12):
        opened = shop.checkout()
        waiting: list[dict[str, Any]] = []
        known = 0
        way = []
        for action, body in steps:
            shop.act(opened, action, **body)
            news = shop.deliveries(opened)
            waiting += news[known:] * 2
            known = len(news)
            chance.shuffle(waiting)
            for _ in range(chance.randint(0, len(waiting))):
                delivery = waiting.pop()
                way.append((action, delivery["type"]))
                assert shop.deliver(delivery).status_code == 200
        for delivery in waiting:
            way.append(("end", delivery["type"]))
            assert shop.deliver(delivery).status_code == 200
        ways.add(tuple(way))
        told = shop.books(opened)
        first = first or told
        assert told == first, way
    assert len(ways) == 12
    assert [row["status"] for row in first["checkout"]] == ["settled"]
    assert [row["status"] for row in first["payments"]] == ["settled", "settled"]
    assert [len(first[name]) for name in ("orders", "licenses", "grants")] == [1, 1, 1]


def test_forged_and_tampered_news_is_refused_and_changes_nothing(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    *_, settled = shop.deliveries(opened)
    body, signature = settled["body"].encode(), settled["headers"]["btcpay-sig"]
    before = shop.remote.books()
    asked = len(shop.peer.look("requests"))

    def send(content: bytes, **headers: str) -> httpx.Response:
        return shop.http.post("/v1/webhooks/btcpay", content=content, headers=headers)

    own = "sha256=" + hmac.new(b"guessed", body, hashlib.sha256).hexdigest()
    empty = "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()
    other = body.replace(b"InvoiceSettled", b"InvoiceExpired")
    assert other != body
    for content, headers in [
        (body, {}),
        (body, {"BTCPay-Sig": ""}),
        (body, {"BTCPay-Sig": "sha256="}),
        (body, {"BTCPay-Sig": own}),
        (body, {"BTCPay-Sig": empty}),
        (body, {"BTCPay-Sig": signature.removeprefix("sha256=")}),
        (body, {"BTCPay-Sig": f"sha1={signature[7:47]}"}),
        (body, {"BTCPay-Sig": signature[:-1] + ("0" if signature[-1] != "0" else "1")}),
        (body + b" ", {"BTCPay-Sig": signature}),
        (other, {"BTCPay-Sig": signature}),
        (b"", {"BTCPay-Sig": signature}),
        (json.dumps(json.loads(body)).encode(), {"BTCPay-Sig": signature}),
    ]:
        problem(send(content, **headers), 401, "bad_signature")
    assert shop.remote.books() == before
    assert len(shop.peer.look("requests")) == asked  # nobody can make us ask BTCPay either
    assert good(send(body, **{"BTCPay-Sig": signature}))["new"] is True
    assert shop.claim(opened)["status"] == "settled"


def test_news_of_what_is_not_ours_changes_no_checkout(shop: Shop) -> None:
    """An invoice that the seller made by hand, in the same store."""
    headers = {"Authorization": f"token {API_KEY}"}
    body = {"amount": "0.001", "currency": "BTC", "metadata": {"orderId": "a-shop-of-their-own"}}
    invoice = shop.peer.client.post(f"{shop.peer.url}{INVOICES}", json=body, headers=headers).json()
    before = shop.remote.rows("orders")
    shop.peer.invoice(invoice["id"], "pay", method="BTC-LN")
    assert {one["httpCode"] for one in shop.peer.look("deliveries")} == {200}
    assert shop.remote.rows("orders") == before
    (stray,) = [row for row in shop.remote.rows("payments") if row["details"].get("invoiceId") == invoice["id"]]
    assert (stray["status"], stray["checkout_id"], stray["amount"]) == ("unmatched", None, 100_000)


def test_an_invoice_that_only_names_our_checkout_does_not_pay_for_it(shop: Shop) -> None:
    """Whoever may make invoices in the store can write our checkout's id on a cheap one."""
    opened = shop.checkout()
    headers = {"Authorization": f"token {API_KEY}"}
    body = {"amount": "0.00000001", "currency": "BTC", "metadata": {"orderId": opened["id"]}}
    cheap = shop.peer.client.post(f"{shop.peer.url}{INVOICES}", json=body, headers=headers).json()
    shop.peer.invoice(cheap["id"], "pay", method="BTC-LN")
    assert {one["httpCode"] for one in shop.peer.look("deliveries")} == {200}
    assert (shop.claim(opened)["status"], shop.claim(opened)["paid"]) == ("open", 0)


# -- BTCPay is away -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "body": "<html>down for maintenance</html>"},
        {"status": 429},
        {"status": 408},
        {"status": 401, "body": '{"code":"unauthenticated","message":"Authentication is required"}'},
        {"status": 403, "body": '{"code":"missing-permission","message":"Insufficient API Permissions"}'},
        {"status": 200, "body": "not json"},
        {"status": 200, "body": "[]"},
        {"status": 302},
        {"hang_up": True},
    ],
    ids=lambda fault: "-".join(str(value)[:12] for value in fault.values()),
)
def test_while_btcpay_cannot_be_asked_news_is_answered_so_that_it_comes_again(
    shop: Shop, fault: dict[str, Any]
) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    *_, settled = shop.deliveries(opened)
    shop.peer.control("fail", match=rf"GET {INVOICES}/", count=1, **fault)
    before = shop.remote.books()
    refusal = problem(shop.deliver(settled), 503, "rail_unavailable")
    assert refusal["retryable"] is True
    assert shop.remote.books() == before  # the event is not claimed
    assert good(shop.deliver(settled))["new"] is True
    assert shop.claim(opened)["status"] == "settled"


def test_btcpay_delivers_again_until_it_can_be_asked(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("fail", match=rf"GET {INVOICES}/[^/]+$", status=500, count=5)
    shop.act(opened, "pay", method="BTC-LN")
    codes = [one["httpCode"] for one in shop.deliveries(opened)]
    assert codes.count(503) == 5
    assert codes.count(200) == 4
    assert any(one["isRedelivery"] for one in shop.deliveries(opened))
    assert shop.claim(opened)["status"] == "settled"
    told = shop.books(opened)
    assert [len(told[name]) for name in ("payments", "orders", "licenses")] == [1, 1, 1]


@pytest.mark.parametrize("after", [True, False], ids=["made", "not made"])
def test_the_connection_breaks_while_the_invoice_is_made(shop: Shop, after: bool) -> None:
    shop.peer.control("fail", match=rf"POST {INVOICES}$", hang_up=True, after=after)
    key = f"key-{shop.slug}"
    refusal = problem(shop.try_checkout(key), 503, "rail_unavailable")
    assert refusal["retryable"] is True
    (row,) = [row for row in shop.remote.rows("checkouts") if (row["idempotency_key"] or "").split()[-1:] == [key]]
    assert (row["status"], row["url"], row["rail_reference"]) == ("open", None, None)
    assert len(shop.peer.look("invoices")) == (1 if after else 0)
    opened = shop.checkout(key)
    assert opened["id"] == row["id"]
    invoice = shop.invoice_of(opened)
    assert opened["url"] == invoice["checkoutLink"]
    assert shop.checkout(key)["url"] == opened["url"]
    assert len(shop.peer.look("invoices")) == 1
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.claim(opened)["status"] == "settled"


def test_a_paid_invoice_whose_answer_was_lost_finds_its_checkout(shop: Shop) -> None:
    """The buyer never got our answer, yet pays: they had the page open in BTCPay's own way."""
    shop.peer.control("fail", match=rf"POST {INVOICES}$", hang_up=True, after=True)
    key = f"key-{shop.slug}"
    problem(shop.try_checkout(key), 503, "rail_unavailable")
    (invoice,) = shop.peer.look("invoices")
    shop.peer.invoice(invoice["id"], "pay", method="BTC-LN")
    opened = shop.checkout(key)
    assert (opened["status"], opened["paid"], len(opened["license_keys"])) == ("settled", PRICE, 1)
    assert len(shop.peer.look("invoices")) == 1


def test_many_at_once_with_one_key_get_the_same_checkout(shop: Shop) -> None:
    key = f"key-{shop.slug}"
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: shop.checkout(key), range(10)))
    assert len({answer["id"] for answer in answers}) == 1
    assert len({answer["url"] for answer in answers}) == 1
    (row,) = [row for row in shop.remote.rows("checkouts") if (row["idempotency_key"] or "").split()[-1:] == [key]]
    noted = next(one for one in shop.invoices_of(answers[0]) if one["id"] == row["rail_reference"])
    assert answers[0]["url"] == noted["checkoutLink"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, '[{"path":"amount","message":"The amount is too small."}]', "The amount is too small."),
        (422, '{"code":"generic-error","message":"No wallet is set up."}', "No wallet is set up."),
        (403, '{"code":"missing-permission","message":"Insufficient API Permissions"}', "Insufficient API Permissions"),
    ],
)
def test_btcpay_refuses_the_invoice(shop: Shop, status: int, body: str, words: str) -> None:
    code, key = f"CODE-{shop.slug.upper()}", f"key-{shop.slug}"
    discount = shop.remote.staff("POST", "/v1/discounts", code=code, kind="percentage", amount=1000, usage_limit=1)[
        "id"
    ]
    shop.peer.control("fail", match=rf"POST {INVOICES}$", status=status, body=body)
    refusal = problem(shop.try_checkout(key, code=code), 502, "rail_refused")
    assert words in refusal["detail"]
    assert refusal["retryable"] is False
    (row,) = [row for row in shop.remote.rows("checkouts") if (row["idempotency_key"] or "").split()[-1:] == [key]]
    assert (row["status"], row["rail_final"], row["url"]) == ("failed", True, None)
    assert shop.remote.staff("GET", f"/v1/discounts/{discount}")["times_used"] == 0
    events = shop.remote.staff("GET", f"/v1/events?object_id={row['id']}")["data"]
    assert [event["type"] for event in events] == ["checkout.opened", "checkout.failed"]
    assert words in events[1]["details"]["why"]
    again = shop.checkout(f"{key}-2", code=code)
    assert again["url"] is not None
    assert len(shop.peer.look("invoices")) == 1


# -- news that never comes ----------------------------------------------------------------------------


async def test_what_no_webhook_told_is_asked_for(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    assert shop.claim(opened)["status"] == "open"
    await ask_rails(shop, ahead=timedelta(seconds=30))
    assert shop.claim(opened)["status"] == "open"  # too young to be asked about
    await ask_rails(shop)
    assert (shop.claim(opened)["status"], shop.statuses(opened)) == ("settled", [(PRICE, "settled")])
    for delivery in shop.deliveries(opened):  # the webhooks come after all
        assert good(shop.deliver(delivery))["ok"] is True
    told = shop.books(opened)
    assert [len(told[name]) for name in ("payments", "orders", "licenses", "grants")] == [1, 1, 1, 1]
    asked = len(shop.peer.look("requests"))
    await ask_rails(shop, ahead=timedelta(hours=1))
    ours = [one for one in shop.peer.look("requests")[asked:] if shop.invoice_of(opened)["id"] in one["path"]]
    assert ours == []  # what is over is not asked about any more


async def test_the_job_asks_on_its_own(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    async with worker(shop, timedelta(minutes=20)) as house:
        # Other runs on this database have set the jobs' times; all are due long before tomorrow.
        house.database.clock.advance(timedelta(days=1))  # type: ignore[attr-defined]
        runner = house.runner()
        assert await runner.run_due() == len(runner.names)
    assert shop.claim(opened)["status"] == "settled"


async def test_an_expiry_that_no_webhook_told_gives_the_discount_back(shop: Shop) -> None:
    code = f"CODE-{shop.slug.upper()}"
    discount = shop.remote.staff("POST", "/v1/discounts", code=code, kind="percentage", amount=1000)["id"]
    opened = shop.checkout(code=code)
    shop.peer.control("config", capture=True)
    shop.act(opened, "expire")
    await ask_rails(shop)
    assert shop.claim(opened)["status"] == "expired"
    assert shop.remote.staff("GET", f"/v1/discounts/{discount}")["times_used"] == 0
    (row,) = [row for row in shop.remote.rows("checkouts") if row["id"] == opened["id"]]
    assert row["rail_final"] is False  # BTCPay may still settle it, while it watches
    shop.act(opened, "end-monitoring")
    await ask_rails(shop, ahead=timedelta(minutes=5))
    (row,) = [row for row in shop.remote.rows("checkouts") if row["id"] == opened["id"]]
    assert (row["status"], row["rail_final"]) == ("expired", True)


async def test_an_invoice_whose_answer_was_lost_is_found_without_the_buyer(shop: Shop) -> None:
    shop.peer.control("config", capture=True)
    shop.peer.control("fail", match=rf"POST {INVOICES}$", hang_up=True, after=True)
    key = f"key-{shop.slug}"
    problem(shop.try_checkout(key), 503, "rail_unavailable")
    (invoice,) = shop.peer.look("invoices")
    shop.peer.invoice(invoice["id"], "pay", method="BTC-LN")
    await ask_rails(shop)
    (row,) = [row for row in shop.remote.rows("checkouts") if (row["idempotency_key"] or "").split()[-1:] == [key]]
    assert (row["rail_reference"], row["url"]) == (invoice["id"], invoice["checkoutLink"])
    assert (row["status"], row["paid"]) == ("settled", PRICE)


async def test_one_invoice_that_makes_no_sense_does_not_keep_the_others_waiting(shop: Shop) -> None:
    await ask_rails(shop)  # whatever earlier tests left behind
    odd, fine = shop.checkout(), shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(fine, "pay", method="BTC-LN")
    shop.peer.control("fail", match=rf"GET {INVOICES}/{shop.invoice_of(odd)['id']}$", status=500, count=1000)
    for minutes in (2, 4, 6, 8):
        await ask_rails(shop, ahead=timedelta(minutes=minutes))
    assert shop.claim(fine)["status"] == "settled"
    assert shop.claim(odd)["status"] == "open"


async def test_webhooks_and_asking_at_once(shop: Shop) -> None:
    opened = shop.checkout()
    shop.peer.control("config", capture=True)
    shop.act(opened, "pay", method="BTC-LN")
    news = shop.deliveries(opened)
    async with worker(shop, timedelta(minutes=2)) as house, httpx.AsyncClient(trust_env=False) as http:
        scope = house.scope(DEFAULT_TENANT)
        at = f"{shop.remote.url}/v1/webhooks/btcpay"
        told = [http.post(at, content=one["body"].encode(), headers=one["headers"]) for one in news * 3]
        answers = await asyncio.gather(*told, *(reconcile(scope, house.rails, house.client) for _ in range(3)))
    assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} == {200}
    assert shop.statuses(opened) == [(PRICE, "settled")]
    seen = shop.books(opened)
    assert [len(seen[name]) for name in ("payments", "orders", "licenses", "grants")] == [1, 1, 1, 1]
