"""What Paddle is asked for: checkouts, copies, refunds, changes, and how its answers are taken."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rails.paddle_subjects import (
    EXTERNAL,
    NOW,
    RAIL,
    SETTINGS,
    adjustment,
    answer,
    intent,
    line,
    new_id,
    page,
    refund,
    refusal,
    sent,
    transaction,
)

from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.money import Money
from counterfoil.rails.base import HttpRequest, HttpResponse, OpenedCheckout, RailRefused, RailUnavailable, RefundDone
from counterfoil.rails.mirror import MoreToAsk, RailBusy, SubscriptionChange
from counterfoil.rails.paddle import PaddleSettings, connect
from counterfoil.rails.paddle.adjustments import split, tag, untag

API = "https://sandbox-api.paddle.com"


class TestSettings:
    def test_no_representation_shows_a_secret(self) -> None:
        shown = f"{SETTINGS!r} {SETTINGS} {SETTINGS.__rich_repr__()}"
        assert SETTINGS.api_key not in shown
        assert SETTINGS.webhook_secrets[0] not in shown
        assert "ntfset_1" in shown

    def test_where_the_api_is(self) -> None:
        assert PaddleSettings(api_key="k", livemode=True).base_url == "https://api.paddle.com"
        assert PaddleSettings(api_key="k", livemode=False).base_url == API
        assert (
            PaddleSettings(api_key="k", livemode=True, base_url="http://127.0.0.1:1/").base_url == "http://127.0.0.1:1"
        )

    @pytest.mark.parametrize("livemode", [True, False])
    def test_keys_fit_their_mode(self, livemode: bool) -> None:
        connect.check_key(f"pdl_{'live' if livemode else 'sdbx'}_apikey_x", livemode=livemode)
        connect.check_key("an-older-key", livemode=livemode)
        with pytest.raises(Invalid):
            connect.check_key(f"pdl_{'sdbx' if livemode else 'live'}_apikey_x", livemode=livemode)
        for key in ("", "with space", "with\nbreak", "x" * 201):
            with pytest.raises(Invalid):
                connect.check_key(key, livemode=livemode)

    def test_a_destination_is_asked_for(self) -> None:
        request = connect.create_destination_request(SETTINGS, "https://shop.example/hook", "d" * 600)
        body = sent(request)
        events = body.pop("subscribed_events")
        assert body == {
            "type": "url", "destination": "https://shop.example/hook", "description": "d" * 500, "api_version": 1,
            "include_sensitive_fields": False, "traffic_source": "platform",
        }  # fmt: skip
        assert len(events) == len(set(events)) == 39
        assert {"transaction.completed", "adjustment.updated", "business.imported"} <= set(events)


class TestOpening:
    def test_what_has_no_copy_is_described(self) -> None:
        request = RAIL.open_request(
            SETTINGS, intent(line(quantity=2, total=2_400, tax_category="saas"), checkout_id="chk_1")
        )
        assert (request.method, request.url) == ("POST", f"{API}/transactions")
        assert request.headers == {
            "authorization": "Bearer pdl_sdbx_apikey_secret", "accept": "application/json", "paddle-version": "1",
            "content-type": "application/json",
        }  # fmt: skip
        assert sent(request) == {
            "items": [
                {
                    "quantity": 2,
                    "price": {
                        "description": "Éditeur",
                        "name": "Éditeur",
                        "product": {"name": "Éditeur", "tax_category": "saas"},
                        "unit_price": {"amount": "1200", "currency_code": "USD"},
                        "tax_mode": "internal",
                        "billing_cycle": None,
                        "trial_period": None,
                        "quantity": {"minimum": 2, "maximum": 2},
                    },
                }
            ],
            "currency_code": "USD",
            "collection_mode": "automatic",
            "custom_data": {"checkout_id": "chk_1", "amount": 2_400},
        }

    def test_what_has_a_copy_is_named_at_its_full_price_only(self) -> None:
        named = {"price_reference": "pri_1", "product_reference": "pro_1"}
        body = sent(
            RAIL.open_request(
                EXTERNAL,
                intent(
                    line(**named, quantity=2, total=2_400),
                    line(**named, quantity=2, total=2_000),
                    line(**named, quantity=3, total=3_500),
                    line(**named, total=0),
                ),
            )
        )
        first, *others = body["items"]
        assert first == {"price_id": "pri_1", "quantity": 2}
        assert [
            (
                it["quantity"],
                it["price"]["unit_price"]["amount"],
                it["price"]["name"],
                it["price"]["quantity"]["maximum"],
            )
            for it in others
        ] == [(2, "1000", "Éditeur", 2), (1, "3500", "Éditeur × 3", 1), (1, "0", "Éditeur", 1)]  # noqa: RUF001
        assert {it["price"]["product_id"] for it in others} == {"pro_1"}
        assert {it["price"]["tax_mode"] for it in others} == {"external"}

    def test_what_depends_on_the_country_is_charged_as_we_said(self) -> None:
        named = {"price_reference": "pri_1", "product_reference": "pro_1", "by_country": True}
        once, again = sent(
            RAIL.open_request(
                SETTINGS, intent(line(**named), line(**named, price_id="prc_9", interval="month", interval_count=1))
            )
        )["items"]
        assert once["price"]["unit_price"] == again["price"]["unit_price"] == {"amount": "1200", "currency_code": "USD"}
        assert again["price"]["custom_data"] == {"counterfoil_id": "prc_9"}

    def test_whoever_is_known_is_named(self) -> None:
        one = intent(line(), address_reference="add_1", business_reference="biz_1", discount_reference="dsc_1")
        body = sent(RAIL.open_request(SETTINGS, one))
        assert body["discount_id"] == "dsc_1"
        assert not {"customer_id", "address_id", "business_id", "checkout"} & set(body)
        settings = msgspec.structs.replace(SETTINGS, checkout_url="https://shop.example/pay")
        body = sent(RAIL.open_request(settings, msgspec.structs.replace(one, customer_reference="ctm_1")))
        assert (body["customer_id"], body["address_id"], body["business_id"]) == ("ctm_1", "add_1", "biz_1")
        assert body["checkout"] == {"url": "https://shop.example/pay"}

    def test_subscriptions(self) -> None:
        monthly = {"interval": "month", "interval_count": None, "product_reference": "pro_1"}
        item = sent(RAIL.open_request(SETTINGS, intent(line(**monthly, quantity=200, total=240_000))))["items"][0]
        assert item["price"]["billing_cycle"] == {"interval": "month", "frequency": 1}
        assert item["price"]["trial_period"] is None
        assert item["price"]["quantity"] == {"minimum": 1, "maximum": 200}
        margin = intent(
            line(**monthly, total=840), line(quantity=3, unit_amount=100, total=210), discount_reference="d"
        )
        one, other = sent(RAIL.open_request(SETTINGS, margin))["items"]
        assert (one["price"]["unit_price"]["amount"], one["quantity"]) == ("1200", 1)
        assert (other["price"]["unit_price"]["amount"], other["quantity"]) == ("100", 3)
        for total in (0, 1_200):
            trial = intent(line(**monthly, trial_days=14, total=total))
            assert trial.amount.amount == 0
            item = sent(RAIL.open_request(SETTINGS, trial))["items"][0]
            assert item["price"]["trial_period"] == {"interval": "day", "frequency": 14}
            assert item["price"]["unit_price"]["amount"] == "1200"

    def test_an_amount_without_lines(self) -> None:
        body = sent(RAIL.open_request(SETTINGS, intent(amount=Money(500, "JPY"), description=" ")))
        (item,) = body["items"]
        assert (item["quantity"], item["price"]["product"]["name"]) == (1, "Purchase")
        assert item["price"]["unit_price"] == {"amount": "500", "currency_code": "JPY"}

    def test_long_and_short_names(self) -> None:
        for name, shown, described in (("x" * 300, "x" * 149 + "…", "x" * 300), ("x", "x", "x -")):
            made = sent(RAIL.open_request(SETTINGS, intent(line(name=name))))["items"][0]["price"]
            assert (made["name"], made["description"]) == (shown, described)
            assert len(made["product"]["name"]) <= 200

    @pytest.mark.parametrize(
        ("wanted", "why"),
        [
            (intent(amount=Money(500, "SAT")), "SAT"),
            (intent(amount=Money(500, "BHD")), "BHD"),
            (intent(amount=Money(0, "USD")), "above zero"),
            (intent(line(), amount=Money(1_100, "USD")), "add up"),
            (intent(*[line()] * 101), "100 lines"),
            (intent(line(interval="month", total=1_100)), "discount on a subscription"),
            (intent(line(quantity=10**9, unit_amount=1, total=10**9)), "999999999"),
        ],
    )
    def test_what_paddle_cannot_say_is_refused(self, wanted: Any, why: str) -> None:
        with pytest.raises(RailRefused, match=why):
            RAIL.open_request(SETTINGS, wanted)

    def test_assets(self) -> None:
        found = RAIL.assets(SETTINGS)
        assert found is not None
        assert len(found) == 31
        assert {"USD", "EUR", "JPY"} <= found

    @pytest.mark.parametrize("url", [None, "javascript:alert(1)", ""])
    def test_a_page_that_is_none(self, url: str | None) -> None:
        data = transaction(status="draft", checkout={"url": url})
        with pytest.raises((RailRefused, RailUnavailable)):
            RAIL.read_opened(SETTINGS, answer(data, 201))

    def test_an_answer_that_is_none(self) -> None:
        for response in (
            HttpResponse(status=201, body=b"<html>"),
            answer([]),
            answer({"id": 1}),
            HttpResponse(status=302),
        ):
            with pytest.raises(RailUnavailable):
                RAIL.read_opened(SETTINGS, response)


class TestFinding:
    def test_the_question(self) -> None:
        checkout_id = new_id("chk")
        request = RAIL.find_request(SETTINGS, checkout_id)
        assert (request.method, request.body) == ("GET", b"")
        assert request.url == (
            f"{API}/transactions?created_at[GTE]=2026-03-01T11:50:00Z"
            "&status=canceled,draft,ready,past_due,billed,paid,completed&order_by=id[ASC]&per_page=30"
        )
        with pytest.raises(RailRefused):
            RAIL.find_request(SETTINGS, "chk_1")

    def test_money_comes_first_then_the_newest(self) -> None:
        checkout_id = new_id("chk")
        ours = {"custom_data": {"checkout_id": checkout_id}}

        def found(*rows: dict[str, Any]) -> OpenedCheckout | None:
            return RAIL.read_found(SETTINGS, page(*rows), checkout_id)

        draft = transaction(**ours, id="txn_2", status="draft")
        newer = transaction(**ours, id="txn_3", status="draft")
        paid = transaction(**ours, id="txn_1", status="paid", checkout=None)
        other = transaction(id="txn_9")
        renewal = transaction(**ours, id="txn_8", origin="subscription_recurring")
        assert found(other, renewal) is None
        for rows, expected in (((draft, other, newer), "txn_3"), ((draft, newer, renewal), "txn_3")):
            opened = found(*rows)
            assert opened is not None
            assert opened.reference == expected
        settings = msgspec.structs.replace(SETTINGS, checkout_url="https://shop.example/pay")
        assert RAIL.read_found(settings, page(draft, paid, newer), checkout_id) == OpenedCheckout(
            reference="txn_1", url="https://shop.example/pay"
        )

    def test_absence_is_proved_by_the_last_page_only(self) -> None:
        checkout_id = new_id("chk")
        with pytest.raises(MoreToAsk) as caught:
            RAIL.read_found(SETTINGS, page(transaction(id="txn_7"), more=True), checkout_id)
        assert caught.value.request.url == f"{RAIL.find_request(SETTINGS, checkout_id).url}&after=txn_7"
        with pytest.raises(RailUnavailable):
            RAIL.read_found(SETTINGS, page())
        for status in (401, 403, 500, 502):
            with pytest.raises(RailUnavailable):
                RAIL.read_found(SETTINGS, refusal(status, "no"), checkout_id)


class TestRefusals:
    def test_paddles_words_are_the_message(self) -> None:
        error = {
            "type": "request_error", "code": "bad_request", "detail": "Invalid request.", "documentation_url": "x",
            "errors": [{"field": "name", "message": "too long"}],
        }  # fmt: skip
        response = HttpResponse(status=400, body=json.dumps({"error": error, "meta": {}}).encode())
        with pytest.raises(RailRefused, match=r"^Paddle answered 400: Invalid request\.; name: too long$"):
            RAIL.read_copy(SETTINGS, "product", response)

    @pytest.mark.parametrize("status", [400, 402, 404, 409, 422])
    def test_a_no_is_final_only_from_paddle_itself(self, status: int) -> None:
        with pytest.raises(RailRefused):
            RAIL.read_opened(SETTINGS, refusal(status, "some_code"))
        with pytest.raises(RailUnavailable):
            RAIL.read_opened(SETTINGS, HttpResponse(status=status, body=b"<html>nginx</html>"))

    @pytest.mark.parametrize("status", [301, 401, 403, 408, 500, 503])
    def test_what_proves_nothing(self, status: int) -> None:
        with pytest.raises(RailUnavailable) as caught:
            RAIL.read_opened(SETTINGS, refusal(status, "forbidden"))
        assert not isinstance(caught.value, RailBusy)

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (429, "too_many_requests"),
            (409, "subscription_locked_renewal"),
            (409, "subscription_locked_processing"),
            (400, "subscription_immediate_charge_hour_limit_exceeded"),
            (409, "adjustment_pending_refund_request"),
        ],
    )
    def test_what_passes_by_itself(self, status: int, code: str) -> None:
        for header, seconds in (("12", 12.0), ("soon", None), ("-1", None)):
            with pytest.raises(RailBusy) as caught:
                RAIL.read_subscription(SETTINGS, refusal(status, code, **{"retry-after": header}))
            assert caught.value.retry_after == seconds
        with pytest.raises(RailBusy):
            RAIL.read_subscription(SETTINGS, HttpResponse(status=429))

    def test_the_rate(self) -> None:
        assert RAIL.rate(SETTINGS) == (200, 60, 4, True)


class TestRefunds:
    def plan(self, amount: int, data: Any, settings: PaddleSettings = SETTINGS) -> Any:
        wanted = refund("txn_1", amount, details={"fee": "110"})
        question = RAIL.refund_question(settings, wanted)
        assert question is not None
        assert question.url == f"{API}/transactions/txn_1?include=adjustments"
        ready = RAIL.read_refund_question(settings, wanted, answer(data))
        assert ready.details["fee"] == "110"
        body = sent(RAIL.refund_request(settings, ready))
        assert (body.pop("action"), body.pop("transaction_id")) == ("refund", "txn_1")
        assert body.pop("reason") == f"did not like it [{wanted.refund_id}]"
        return body

    def test_all_of_it(self) -> None:
        assert self.plan(1_200, transaction()) == {"type": "full"}
        assert self.plan(1_000, transaction(), EXTERNAL) == {"type": "full"}

    def test_a_part_is_split_over_the_lines(self) -> None:
        data = transaction((900, 150), (300, 50))
        assert self.plan(101, data) == {
            "type": "partial", "tax_mode": "internal",
            "items": [
                {"item_id": "txnitm_0", "type": "partial", "amount": "76"},
                {"item_id": "txnitm_1", "type": "partial", "amount": "25"},
            ],
        }  # fmt: skip
        assert self.plan(100, data, EXTERNAL)["tax_mode"] == "external"
        assert [item["amount"] for item in self.plan(100, data, EXTERNAL)["items"]] == ["75", "25"]

    def test_what_was_given_back_before_is_left_out(self) -> None:
        data = transaction((900, 150), (300, 50))
        data["adjustments"] = [
            adjustment(800),
            adjustment(1, status="rejected"),
            adjustment(99, action="chargeback_warning"),
        ]
        assert self.plan(400, data)["items"] == [
            {"item_id": "txnitm_0", "type": "partial", "amount": "100"},
            {"item_id": "txnitm_1", "type": "full"},
        ]
        with pytest.raises(RailRefused, match="400 USD"):
            self.plan(401, data)

    def test_what_cannot_be_given_back(self) -> None:
        both = transaction((900, 150), (300, 50))
        both["items"][1]["price"]["tax_mode"] = "external"
        assert self.plan(1_150, both) == {"type": "full"}
        for amount, data, error in (
            (10, both, RailRefused),
            (1_201, transaction(), RailRefused),
            (10, transaction(currency_code="EUR"), RailRefused),
            (10, transaction(status="canceled"), RailRefused),
            (10, transaction(status="paid"), RailUnavailable),
        ):
            with pytest.raises(error):
                self.plan(amount, data)
        with pytest.raises(RailUnavailable):  # unasked
            RAIL.refund_request(SETTINGS, refund("txn_1", 10))

    def test_what_was_made_before_is_looked_up_and_not_made_again(self) -> None:
        wanted = refund("txn_1", 1_200)
        for status in ("pending_approval", "approved", "rejected"):
            data = transaction(adjustments=[adjustment(1_200, status=status, reason=tag("x", wanted.refund_id))])
            ready = RAIL.read_refund_question(SETTINGS, wanted, answer(data))
            with pytest.raises(RailUnavailable):
                RAIL.refund_request(SETTINGS, ready)

    def test_what_became_of_it(self) -> None:
        wanted = refund("txn_1", 100)
        ours = adjustment(100, reason=tag("x", wanted.refund_id))
        request = RAIL.find_refund_request(SETTINGS, wanted)
        assert isinstance(request, HttpRequest)
        assert request.url == f"{API}/adjustments?transaction_id=txn_1&action=refund&order_by=id[DESC]&per_page=50"
        assert RAIL.read_found_refund(SETTINGS, wanted, page(adjustment(5), ours)) == RefundDone(reference="adj_1")
        assert RAIL.read_found_refund(SETTINGS, wanted, page(adjustment(5))) is None
        with pytest.raises(MoreToAsk):
            RAIL.read_found_refund(SETTINGS, wanted, page(adjustment(5), more=True))
        with pytest.raises(RailRefused, match="rejected"):
            RAIL.read_found_refund(SETTINGS, wanted, page(ours | {"status": "rejected"}))
        with pytest.raises(RailUnavailable):
            RAIL.read_refunded(SETTINGS, answer(ours | {"status": "pondered"}, 201))

    @given(st.text(max_size=400))
    def test_our_id_comes_back(self, reason: str) -> None:
        refund_id = new_id("rfd")
        assert untag(tag(reason, refund_id))[0] == refund_id

    @given(st.lists(st.integers(-5, 10**12), min_size=1, max_size=8), st.data())
    def test_a_split_is_exact_and_never_takes_more_than_there_is(self, left: list[int], data: st.DataObject) -> None:
        whole = sum(rest for rest in left if rest > 0)
        lines = [(str(place), rest) for place, rest in enumerate(left)]
        if not whole:
            with pytest.raises(ValueError, match="of 0"):
                split(1, lines)
            return
        amount = data.draw(st.integers(1, whole))
        shares = split(amount, lines)
        assert sum(shares.values()) == amount
        assert all(0 < shares[line] <= rest for line, rest in lines if line in shares)


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "method", "path", "body"),
        [
            ({"action": "pause"}, "POST", "/pause", {"effective_from": "next_billing_period"}),
            (
                {"action": "pause", "at_period_end": False, "resume_at": NOW},
                "POST", "/pause", {"effective_from": "immediately", "resume_at": "2026-03-01T12:00:00Z"},
            ),
            ({"action": "resume"}, "POST", "/resume", {"effective_from": "immediately"}),
            ({"action": "cancel"}, "POST", "/cancel", {"effective_from": "next_billing_period"}),
            ({"action": "cancel", "at_period_end": False}, "POST", "/cancel", {"effective_from": "immediately"}),
            ({"action": "keep"}, "PATCH", "", {"scheduled_change": None}),
            (
                {"action": "change", "discount_reference": "dsc_1"},
                "PATCH", "", {"discount": {"id": "dsc_1", "effective_from": "next_billing_period"}},
            ),
            ({"action": "change", "discount_reference": ""}, "PATCH", "", {"discount": None}),
        ],
    )  # fmt: skip
    def test_each(self, change: dict[str, Any], method: str, path: str, body: Any) -> None:
        request = RAIL.change_request(SETTINGS, "sub_1", SubscriptionChange(**change), (), "key")
        assert (request.method, request.url) == (method, f"{API}/subscriptions/sub_1{path}")
        assert sent(request) == body

    @pytest.mark.parametrize(
        ("proration", "mode"),
        [
            ("now", "prorated_immediately"),
            ("next_period", "prorated_next_billing_period"),
            ("full_now", "full_immediately"),
            ("full_next_period", "full_next_billing_period"),
            ("none", "do_not_bill"),
        ],
    )
    def test_proration(self, proration: Any, mode: str) -> None:
        change = SubscriptionChange(action="change", items=(("pri_1", 2), ("pri_2", 1)), proration=proration)
        assert sent(RAIL.change_request(SETTINGS, "sub_1", change, (), "key")) == {
            "items": [{"price_id": "pri_1", "quantity": 2}, {"price_id": "pri_2", "quantity": 1}],
            "proration_billing_mode": mode, "on_payment_failure": "prevent_change",
        }  # fmt: skip

    def test_a_change_of_nothing(self) -> None:
        with pytest.raises(RailRefused):
            RAIL.change_request(SETTINGS, "sub_1", SubscriptionChange(action="change"), (), "key")

    def test_the_portals_links(self) -> None:
        request = RAIL.portal_request(SETTINGS, "ctm_1", ("sub_1", "sub_1", *map(str, range(30))), "https://x")
        assert (request.url, len(sent(request)["subscription_ids"])) == (f"{API}/customers/ctm_1/portal-sessions", 25)
        assert sent(RAIL.portal_request(SETTINGS, "ctm_1", (), "https://x")) == {}


class TestCatchingUp:
    def test_money_of_a_day(self) -> None:
        request = RAIL.payments_request(SETTINGS, NOW, NOW + timedelta(days=1), "txn_1")
        assert request.url == (
            f"{API}/transactions?status=paid,completed&updated_at[GTE]=2026-03-01T12:00:00Z"
            "&created_at[LT]=2026-03-02T12:00:00Z&order_by=id[ASC]&per_page=30&after=txn_1"
        )
        listed, more = RAIL.read_payments(SETTINGS, page(transaction(), transaction(id="txn_2"), more=True))
        assert ([fact.reference for fact in listed], more) == (["txn_1", "txn_2"], "txn_2")

    def test_events_are_followed_by_their_own_ids(self) -> None:
        assert RAIL.events_request(SETTINGS, None, NOW).url == f"{API}/events?order_by=id[ASC]&per_page=200"
        assert RAIL.events_request(SETTINGS, "evt_1", NOW).url.endswith("&after=evt_1")
        row = {"event_id": "evt_5", "event_type": "x.y", "occurred_at": "2026-03-01T12:00:00Z", "data": {}}
        bodies, more = RAIL.read_events(SETTINGS, page(row, more=True))
        assert (json.loads(bodies[0]), more) == (row, "evt_5")
        assert RAIL.read_event(SETTINGS, bodies[0]).event_id == "evt_5"
        with pytest.raises(RailUnavailable):
            RAIL.read_events(SETTINGS, page({"id": "evt_5"}, more=True))
