"""Stripe's translations: bytes in, values out."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.ids import IdMaker
from counterfoil.kernel.money import Money, decimals
from counterfoil.rails.base import (
    BadSignature,
    CheckoutIntent,
    HttpRequest,
    HttpResponse,
    LineIntent,
    Notice,
    Rail,
    RailRefused,
    RailUnavailable,
)
from counterfoil.rails.mirror import Mirror, RailBusy
from counterfoil.rails.stripe import StripeRail, StripeSettings, connect
from counterfoil.rails.stripe.amounts import ASSETS, from_stripe, to_stripe
from counterfoil.rails.stripe.wire import pairs

RAIL = StripeRail("stripe-test")
AS_RAIL: Rail = RAIL
AS_MIRROR: Mirror = RAIL
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
SECRET, OTHER = "whsec_one", "whsec_two"
SETTINGS = StripeSettings(
    base_url="https://stripe.example/v",
    api_key="sk_test_secret",
    webhook_secrets=(SECRET, OTHER),
    webhook_id="we_1",
    account_id="acct_1",
    livemode=False,
)


def answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers, body=raw)


def refusal(status: int, **error: Any) -> HttpResponse:
    return answer({"error": {"type": "invalid_request_error", "message": "No.", **error}}, status)


def event(kind: str, value: dict[str, Any], **changes: Any) -> bytes:
    base = {"id": "evt_1", "object": "event", "type": kind, "created": AT, "livemode": False, "data": {"object": value}}
    return json.dumps({**base, **changes}).encode()


def signed(body: bytes, *, secret: str = SECRET, at: int = AT) -> dict[str, str]:
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=at)
    return {"stripe-signature": header}


def read(kind: str, value: dict[str, Any], **changes: Any) -> Notice:
    body = event(kind, value, **changes)
    return RAIL.read_webhook(SETTINGS, signed(body), body, NOW)


def fact(kind: str, value: dict[str, Any], **changes: Any) -> Any:
    notice = read(kind, value, **changes)
    assert (notice.problem, notice.question) == (None, None)
    (only,) = notice.facts
    return only


def line(**changes: Any) -> LineIntent:
    base: dict[str, Any] = {
        "price_id": "pri_1",
        "price_reference": None,
        "product_reference": None,
        "name": "Editor",
        "quantity": 1,
        "unit_amount": 1500,
        "total": 1500,
    }
    return LineIntent(**{**base, **changes})


def intent(*lines: LineIntent, **changes: Any) -> CheckoutIntent:
    base: dict[str, Any] = {
        "checkout_id": "chk_1",
        "amount": Money(sum(each.total for each in lines), "EUR"),
        "description": "Editor, 1 seat",
        "email": "ada@shop.example",
        "return_url": "https://shop.example/thanks",
        "now": NOW,
        "expires_at": NOW + timedelta(minutes=15),
        "lines": lines,
    }
    return CheckoutIntent(**{**base, **changes})


def form(request: HttpRequest | None) -> dict[str, str]:
    assert request is not None
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def opened(*lines: LineIntent, **changes: Any) -> dict[str, str]:
    return form(RAIL.open_request(SETTINGS, intent(*lines, **changes)))


class TestSettings:
    def test_no_representation_shows_a_secret(self) -> None:
        shown = f"{SETTINGS!r} {SETTINGS} {SETTINGS.__rich_repr__()}"
        assert "sk_test_secret" not in shown
        assert "whsec" not in shown
        assert "acct_1" in shown


class TestKeys:
    @pytest.mark.parametrize(
        ("rail", "key", "live"),
        [
            ("stripe", "sk_live_abc", True),
            ("stripe", "rk_live_abc", True),
            ("stripe-test", "sk_test_abc", False),
            ("stripe-test", "rk_test_abc", False),
        ],
    )
    def test_a_key_of_the_rail_s_mode(self, rail: str, key: str, live: bool) -> None:
        assert connect.check_key(rail, key) is live

    @pytest.mark.parametrize(
        ("rail", "key"),
        [
            ("stripe", "sk_test_abc"),
            ("stripe-test", "rk_live_abc"),
            ("stripe", "pk_live_abc"),
            ("stripe", "sk_live_"),
            ("stripe", "sk_live_a b"),
            ("stripe-test", ""),
        ],
    )
    def test_any_other(self, rail: str, key: str) -> None:
        with pytest.raises(Invalid):
            connect.check_key(rail, key)

    def test_a_webhook_s_secret(self) -> None:
        assert connect.check_secret("whsec_a+b/c=") == "whsec_a+b/c="
        with pytest.raises(Invalid):
            connect.check_secret("sk_test_a")

    def test_a_refused_key_is_said_to_whoever_connects(self) -> None:
        with pytest.raises(RailRefused, match="the key was refused"):
            connect.read_account(refusal(401))
        with pytest.raises(RailRefused, match="the key was refused"):
            connect.read_balance(refusal(403))

    def test_a_narrow_key_is_looked_at_by_its_balance(self) -> None:
        assert connect.read_account(refusal(403)) is None
        assert connect.read_balance(answer({"object": "balance", "livemode": True})) is True
        with pytest.raises(RailUnavailable):
            connect.read_balance(answer({"object": "balance"}))


class TestAmounts:
    def test_every_currency_there_and_back(self) -> None:
        for asset in ASSETS:
            money = Money(12_300, asset)
            assert from_stripe(to_stripe(money), asset.lower()) == money

    def test_minor_units_are_stripe_s_but_for_the_exceptions_it_names(self) -> None:
        whole = [
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "JPY",
            "KMF",
            "KRW",
            "MGA",
            "PYG",
            "RWF",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ]
        finest = {"BHD", "JOD", "KWD", "OMR", "TND"}
        for asset in ASSETS:
            places = 0 if asset in whole else 3 if asset in finest else 2
            assert to_stripe(Money(10 ** decimals(asset), asset)) == 10**places, asset

    @pytest.mark.parametrize(
        ("money", "theirs"),
        [
            (Money(1999, "USD"), 1999),
            (Money(500, "JPY"), 500),
            (Money(500, "ISK"), 50_000),
            (Money(500, "UGX"), 50_000),
            (Money(500, "MGA"), 5),
            (Money(1230, "KWD"), 1230),
            (Money(50_000, "HUF"), 50_000),
        ],
    )
    def test_examples(self, money: Money, theirs: int) -> None:
        assert to_stripe(money) == theirs
        assert from_stripe(theirs, money.asset.lower()) == money

    @pytest.mark.parametrize("money", [Money(1234, "KWD"), Money(150, "MGA"), Money(1, "SAT"), Money(1, "USDC")])
    def test_what_stripe_does_not_take(self, money: Money) -> None:
        with pytest.raises(RailRefused):
            to_stripe(money)

    @pytest.mark.parametrize(("amount", "currency"), [(50, "isk"), (1, "usdc"), (1, ""), (10**17, "eur")])
    def test_what_makes_no_sense(self, amount: int, currency: str) -> None:
        with pytest.raises(RailUnavailable):
            from_stripe(amount, currency)

    def test_assets(self) -> None:
        assets = RAIL.assets(SETTINGS)
        assert assets is not None
        assert {"USD", "EUR", "JPY"} <= assets
        assert not {"SAT", "USDC", "XXX"} & assets


class TestForms:
    def test_names_and_order(self) -> None:
        given_ = {"a": {"b": [{"c": True, "d": None}, {"c": 2}]}, "expand": ["x", "y"], "z": ""}
        assert pairs(given_) == [
            ("a[b][0][c]", "true"),
            ("a[b][1][c]", "2"),
            ("expand[]", "x"),
            ("expand[]", "y"),
            ("z", ""),
        ]

    def test_a_request(self) -> None:
        request = RAIL.open_request(SETTINGS, intent(line()))
        assert (request.method, request.url) == ("POST", "https://stripe.example/v/v1/checkout/sessions")
        assert request.headers == {
            "authorization": "Bearer sk_test_secret",
            "accept": "application/json",
            "stripe-version": "2026-08-26.dahlia",
            "content-type": "application/x-www-form-urlencoded",
            "idempotency-key": "chk_1",
        }

    def test_no_id_leads_elsewhere(self) -> None:
        request = RAIL.subscription_request(SETTINGS, "../v1/accounts?x=1")
        assert urlsplit(request.url).path == "/v/v1/subscriptions/..%2Fv1%2Faccounts%3Fx%3D1"


class TestOpen:
    def test_a_purchase(self) -> None:
        asked = opened(line(price_reference="price_1", quantity=2, total=3000), customer_reference="cus_1")
        assert asked == {
            "mode": "payment",
            "client_reference_id": "chk_1",
            "metadata[checkout_id]": "chk_1",
            "success_url": "https://shop.example/thanks",
            "cancel_url": "https://shop.example/thanks",
            "expires_at": str(AT + 45 * 60),
            "customer": "cus_1",
            "line_items[0][price]": "price_1",
            "line_items[0][quantity]": "2",
            "payment_intent_data[description]": "Editor, 1 seat",
            "payment_intent_data[metadata][checkout_id]": "chk_1",
        }

    def test_a_discounted_line_is_priced_inline(self) -> None:
        asked = opened(line(price_reference="price_1", product_reference="prod_1", quantity=2, total=2000))
        assert asked["line_items[0][price_data][unit_amount]"] == "1000"
        assert asked["line_items[0][price_data][product]"] == "prod_1"
        assert asked["line_items[0][price_data][currency]"] == "eur"
        assert asked["line_items[0][price_data][tax_behavior]"] == "inclusive"
        assert asked["line_items[0][quantity]"] == "2"
        assert asked["customer_email"] == "ada@shop.example"

    def test_a_line_that_does_not_divide_becomes_one_thing(self) -> None:
        asked = opened(line(product_reference="prod_1", quantity=3, total=1000))
        assert asked["line_items[0][price_data][unit_amount]"] == "1000"
        assert asked["line_items[0][price_data][product_data][name]"] == "Editor × 3"  # noqa: RUF001
        assert asked["line_items[0][price_data][product_data][metadata][counterfoil_line]"] == "chk_1"
        assert asked["line_items[0][quantity]"] == "1"

    def test_an_amount_without_lines(self) -> None:
        asked = opened(amount=Money(500, "JPY"))
        assert asked["line_items[0][price_data][unit_amount]"] == "500"
        assert asked["line_items[0][price_data][product_data][name]"] == "Editor, 1 seat"

    def test_a_subscription(self) -> None:
        recurring = line(interval="month", interval_count=3, trial_days=14, total=0, quantity=2)
        asked = opened(recurring, line(), discount_reference="dsc_1")
        assert asked["mode"] == "subscription"
        assert asked["subscription_data[trial_period_days]"] == "14"
        assert asked["subscription_data[metadata][checkout_id]"] == "chk_1"
        assert asked["discounts[0][coupon]"] == "dsc_1"
        assert asked["line_items[0][price_data][unit_amount]"] == "1500"
        assert asked["line_items[0][price_data][recurring][interval]"] == "month"
        assert asked["line_items[0][price_data][recurring][interval_count]"] == "3"
        assert "line_items[1][price_data][recurring][interval]" not in asked
        assert not any(name.startswith("payment_intent_data") for name in asked)

    @pytest.mark.parametrize(
        ("wanted", "why"),
        [
            (intent(line(), amount=Money(1499, "EUR")), "sum"),
            (intent(amount=Money(1, "SAT")), "currencies"),
            (intent(amount=Money(0, "EUR")), "above zero"),
            (intent(amount=Money(1234, "KWD")), "hundredth"),
            (intent(line(interval="month", total=1000)), "does not know the discount"),
            (intent(line(interval="month", trial_days=7, total=0), line(interval="month")), "one trial"),
        ],
    )
    def test_what_stripe_cannot_represent(self, wanted: CheckoutIntent, why: str) -> None:
        with pytest.raises(RailRefused, match=why):
            RAIL.open_request(SETTINGS, wanted)

    def test_tax(self) -> None:
        taxed = msgspec.structs.replace(SETTINGS, automatic_tax=True)
        asked = form(RAIL.open_request(taxed, intent(line(), customer_reference="cus_1")))
        assert (asked["automatic_tax[enabled]"], asked["customer_update[address]"]) == ("true", "auto")
        assert opened(line(tax_mode="external"))["line_items[0][price_data][tax_behavior]"] == "exclusive"
        with pytest.raises(RailRefused, match="tax on top"):
            RAIL.open_request(taxed, intent(line(tax_mode="external")))

    def test_the_same_checkout_gives_the_same_bytes_whenever_it_is_asked(self) -> None:
        wanted = intent(line())
        later = msgspec.structs.replace(wanted, now=NOW + timedelta(hours=3))
        assert RAIL.open_request(SETTINGS, wanted) == RAIL.open_request(SETTINGS, later)

    @pytest.mark.parametrize(
        ("minutes", "ends"), [(15, 45), (5, 35), (12 * 60, 12 * 60 + 30), (24 * 60, 1430), (9_999, 1430)]
    )
    def test_a_session_ends_when_stripe_allows(self, minutes: int, ends: int) -> None:
        name = IdMaker(NOW)("chk")
        asked = opened(line(), checkout_id=name, expires_at=NOW + timedelta(minutes=minutes))
        assert int(asked["expires_at"]) - AT == ends * 60

    def test_an_answer_without_an_address_makes_no_sense(self) -> None:
        with pytest.raises(RailUnavailable, match="no url"):
            RAIL.read_opened(SETTINGS, answer({"id": "cs_1", "object": "checkout.session", "url": None}))

    def test_nothing_is_looked_up(self) -> None:
        assert RAIL.find_request(SETTINGS, "chk_1") is None


class TestErrors:
    @pytest.mark.parametrize("status", [400, 402, 404])
    def test_refused_in_stripe_s_words(self, status: int) -> None:
        with pytest.raises(RailRefused, match=rf"^Stripe answered {status}: Declined\. \(insufficient_funds\)$"):
            RAIL.read_opened(SETTINGS, refusal(status, message=" Declined. \n", decline_code="insufficient_funds"))

    @pytest.mark.parametrize("status", [301, 401, 403, 409, 500, 503])
    def test_an_open_outcome(self, status: int) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_opened(SETTINGS, refusal(status))

    def test_a_key_used_for_something_else(self) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_opened(SETTINGS, refusal(400, type="idempotency_error"))

    @pytest.mark.parametrize(("said", "wait"), [("7", 7.0), ("", None), ("soon", None), ("999999", 3600.0)])
    def test_too_many(self, said: str, wait: float | None) -> None:
        with pytest.raises(RailBusy) as caught:
            RAIL.read_opened(SETTINGS, answer({}, 429, **{"retry-after": said}))
        assert caught.value.retry_after == wait

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{", b"[" * 100_000, b"\xff", b"null"])
    def test_no_sense(self, body: bytes) -> None:
        for status in (200, 400, 500):
            with pytest.raises((RailUnavailable, RailRefused)):
                RAIL.read_opened(SETTINGS, answer(body, status))

    def test_an_object_that_is_there_already_is_looked_for(self) -> None:
        with pytest.raises(RailUnavailable, match="already"):
            RAIL.read_copy(SETTINGS, "product", refusal(400, code="resource_already_exists"))

    def test_a_list_that_is_none(self) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_list(SETTINGS, "product", answer({"id": "prod_1"}))


class TestSignature:
    BODY = event("customer.created", {"id": "cus_1", "object": "customer"})

    def read(self, headers: dict[str, str], body: bytes = BODY, now: datetime = NOW) -> Notice:
        return RAIL.read_webhook(SETTINGS, headers, body, now)

    @pytest.mark.parametrize("secret", [SECRET, OTHER])
    def test_any_of_our_secrets(self, secret: str) -> None:
        notice = self.read(signed(self.BODY, secret=secret))
        assert (notice.event_id, notice.type, notice.occurred_at) == ("evt_1", "customer.created", NOW)

    def test_any_of_their_signatures(self) -> None:
        theirs = signed(self.BODY, secret="whsec_old")["stripe-signature"]
        ours = signed(self.BODY)["stripe-signature"].partition(",")[2]
        assert self.read({"stripe-signature": f"{theirs},{ours}"}).event_id == "evt_1"
        assert self.read({"stripe-signature": f"{theirs},v0=x,{ours}"}).event_id == "evt_1"

    @pytest.mark.parametrize("seconds", [-300, 0, 300])
    def test_near_in_time(self, seconds: int) -> None:
        assert self.read(signed(self.BODY, at=AT + seconds)).event_id == "evt_1"

    @pytest.mark.parametrize("seconds", [-301, 301, 10**11])
    def test_far_in_time(self, seconds: int) -> None:
        with pytest.raises(BadSignature):
            self.read(signed(self.BODY, at=AT + seconds))

    @pytest.mark.parametrize(
        "header",
        ["", "t=1", "v1=" + "0" * 64, "t=x,v1=" + "0" * 64, f"t={AT},v1=" + "0" * 64, f"t={AT},t=2,v1=" + "0" * 64],
    )
    def test_other_headers(self, header: str) -> None:
        with pytest.raises(BadSignature):
            self.read({"stripe-signature": header})

    def test_no_header_and_no_secret(self) -> None:
        with pytest.raises(BadSignature):
            self.read({})
        none = msgspec.structs.replace(SETTINGS, webhook_secrets=())
        with pytest.raises(BadSignature):
            RAIL.read_webhook(none, signed(self.BODY, secret=""), self.BODY, NOW)

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b"[" * 100_000, event("x", {}, created="y")])
    def test_a_signed_body_that_is_no_event(self, body: bytes) -> None:
        with pytest.raises(BadSignature):
            self.read(signed(body), body)

    @given(header=st.text(max_size=120), body=st.binary(max_size=60))
    def test_mangled_headers_and_bodies(self, header: str, body: bytes) -> None:
        with pytest.raises(BadSignature):
            self.read({"stripe-signature": header}, body)

    @given(cut=st.integers(0, len(BODY)), put=st.binary(max_size=3))
    def test_a_body_that_was_tampered_with(self, cut: int, put: bytes) -> None:
        body = self.BODY[:cut] + put + self.BODY[cut + len(put) :]
        if body == self.BODY:
            return
        with pytest.raises(BadSignature):
            self.read(signed(self.BODY), body)

    def test_stripe_s_own_client_agrees(self) -> None:
        now = int(time.time())
        headers = signed(self.BODY, at=now)
        stripe.Webhook.construct_event(self.BODY, headers["stripe-signature"], SECRET)
        assert self.read(headers, now=datetime.now(UTC)).event_id == "evt_1"
