"""BTCPay's translations: bytes in, values out."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.money import Money
from counterfoil.rails.base import (
    BadSignature,
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    Notice,
    OpenedCheckout,
    PaymentFact,
    Rail,
    RailRefused,
    RailUnavailable,
)
from counterfoil.rails.btcpay import BTCPayRail, BTCPaySettings, connect, normalize_base_url
from counterfoil.rails.btcpay.reports import read_date
from counterfoil.rails.btcpay.wire import words

RAIL: Rail = BTCPayRail()
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CREATED = 1_772_366_400  # NOW in Unix seconds
DATE = "Sun, 01 Mar 2026 12:10:00 GMT"
ANSWERED = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
SETTINGS = BTCPaySettings(
    base_url="https://pay.example/btcpay",
    store_id="store1",
    api_key="key-secret",
    webhook_id="hook1",
    webhook_secret="hook-secret",
)


def intent(**changes: Any) -> CheckoutIntent:
    base: dict[str, Any] = {
        "checkout_id": "chk_01j8",
        "amount": Money(21_000, "SAT"),
        "description": "Éditeur, 1 seat",
        "email": None,
        "return_url": "https://shop.example/thanks?order={OrderId}",
        "now": NOW,
        "expires_at": NOW + timedelta(minutes=15),
    }
    return CheckoutIntent(**{**base, **changes})


def answer(body: Any, status: int = 200, date: str | None = DATE) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({} if date is None else {"date": date})
    return HttpResponse(status=status, headers=headers, body=raw)


def invoice(**changes: Any) -> dict[str, Any]:
    base = {
        "id": "inv1",
        "storeId": "store1",
        "amount": "0.00021000",
        "paidAmount": "0.00000000",
        "currency": "BTC",
        "type": "Standard",
        "checkoutLink": "https://pay.example/i/inv1",
        "createdTime": CREATED,
        "expirationTime": CREATED + 900,
        "monitoringExpiration": CREATED + 900 + 86_400,
        "status": "New",
        "additionalStatus": "None",
        "availableStatusesForManualMarking": ["Settled", "Invalid"],
        "archived": False,
        "metadata": {"orderId": "chk_01j8"},
    }
    return base | changes


def payment(identity: str, value: str, status: str = "Settled", *, at: int = 60, fee: str = "0") -> dict[str, Any]:
    return {
        "id": identity,
        "receivedDate": CREATED + at,
        "value": value,
        "fee": fee,
        "status": status,
        "destination": "bcrt1q",
    }


def method(*payments: dict[str, Any], name: str = "BTC-CHAIN", **changes: Any) -> dict[str, Any]:
    return {"paymentMethodId": name, "currency": "BTC", "rate": "1", "payments": list(payments)} | changes


def report(told: dict[str, Any], *methods: dict[str, Any], date: str | None = DATE) -> CheckoutReport:
    return RAIL.read_report(SETTINGS, (answer(told, date=date), answer(list(methods), date=date)))


def amounts(told: CheckoutReport) -> dict[str, int]:
    return {fact.reference: fact.amount.amount for fact in told.payments}


class TestSettings:
    def test_no_representation_shows_a_secret(self) -> None:
        shown = f"{SETTINGS!r} {SETTINGS} {SETTINGS.__rich_repr__()}"
        assert "key-secret" not in shown
        assert "hook-secret" not in shown
        assert "store1" in shown


class TestOpen:
    def test_satoshis_are_asked_for_as_bitcoin(self) -> None:
        request = RAIL.open_request(SETTINGS, intent())
        assert isinstance(request, HttpRequest)
        assert request.method == "POST"
        assert request.url == "https://pay.example/btcpay/api/v1/stores/store1/invoices"
        assert request.headers == {
            "authorization": "token key-secret",
            "accept": "application/json",
            "content-type": "application/json",
        }
        assert json.loads(request.body) == {
            "amount": "0.00021000",
            "currency": "BTC",
            "metadata": {"orderId": "chk_01j8", "itemDesc": "Éditeur, 1 seat"},
            "checkout": {
                "expirationMinutes": 15,
                "redirectURL": "https://shop.example/thanks?order={OrderId}",
                "redirectAutomatically": True,
            },
        }

    @pytest.mark.parametrize(
        ("amount", "expected"),
        [
            (Money(1, "SAT"), ("0.00000001", "BTC")),
            (Money(2_100_000_000_000_000, "SAT"), ("21000000.00000000", "BTC")),
            (Money(1_230, "USD"), ("12.30", "USD")),
            (Money(5, "EUR"), ("0.05", "EUR")),
            (Money(1_000, "JPY"), ("1000", "JPY")),
            (Money(1_234, "KWD"), ("1.234", "KWD")),
        ],
    )
    def test_amounts_are_plain_decimals(self, amount: Money, expected: tuple[str, str]) -> None:
        request = RAIL.open_request(SETTINGS, intent(amount=amount))
        assert isinstance(request, HttpRequest)
        body = json.loads(request.body)
        assert (body["amount"], body["currency"]) == expected

    def test_the_email_goes_along_when_given(self) -> None:
        request = RAIL.open_request(SETTINGS, intent(email="ada@example.com"))
        assert isinstance(request, HttpRequest)
        assert json.loads(request.body)["metadata"]["buyerEmail"] == "ada@example.com"

    @pytest.mark.parametrize(("seconds", "minutes"), [(-5, 1), (0, 1), (59, 1), (60, 1), (119, 1), (120, 2), (901, 15)])
    def test_time_to_pay_is_in_whole_minutes(self, seconds: int, minutes: int) -> None:
        request = RAIL.open_request(SETTINGS, intent(expires_at=NOW + timedelta(seconds=seconds)))
        assert isinstance(request, HttpRequest)
        assert json.loads(request.body)["checkout"]["expirationMinutes"] == minutes

    @pytest.mark.parametrize("asset", ["SOL", "USDC", "USDT", "PYUSD", "BTC", "NOPE"])
    def test_other_assets_are_refused(self, asset: str) -> None:
        with pytest.raises(RailRefused, match=asset):
            RAIL.open_request(SETTINGS, intent(amount=Money(1_000, asset)))
        assert asset not in (RAIL.assets(SETTINGS) or ())

    def test_assets_are_satoshis_and_currencies(self) -> None:
        assert {"SAT", "USD", "EUR", "JPY"} <= (RAIL.assets(SETTINGS) or set())

    @pytest.mark.parametrize("amount", [0, -1])
    def test_nothing_cannot_be_asked_for(self, amount: int) -> None:
        with pytest.raises(RailRefused):
            RAIL.open_request(SETTINGS, intent(amount=Money(amount, "SAT")))

    def test_ids_cannot_lead_elsewhere(self) -> None:
        settings = msgspec.structs.replace(SETTINGS, store_id="a/../b?c#d")
        request = RAIL.report_requests(settings, "x/status")[0]
        assert request.url == "https://pay.example/btcpay/api/v1/stores/a%2F..%2Fb%3Fc%23d/invoices/x%2Fstatus"

    def test_read_opened(self) -> None:
        expected = OpenedCheckout(reference="inv1", url="https://pay.example/i/inv1")
        assert RAIL.read_opened(SETTINGS, answer(invoice())) == expected

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ([{"path": "amount", "message": "Too small"}, {"path": "currency", "message": "Unknown"}],
             "amount: Too small; currency: Unknown"),
            ({"code": "missing-permission", "message": "Insufficient API Permissions"}, "Insufficient API Permissions"),
            ({"code": "unauthenticated"}, "unauthenticated"),
        ],
    )  # fmt: skip
    def test_a_refusal_carries_btcpays_words(self, status: int, body: Any, said: str) -> None:
        with pytest.raises(RailRefused) as caught:
            RAIL.read_opened(SETTINGS, answer(body, status))
        assert str(caught.value) == f"BTCPay answered {status}: {said}"

    @pytest.mark.parametrize("status", [301, 302, 408, 409, 429, 500, 502, 503, 504])
    def test_other_failures_may_pass(self, status: int) -> None:
        with pytest.raises(RailUnavailable, match=str(status)):
            RAIL.read_opened(SETTINGS, answer(b"<html>upstream</html>", status))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"id":"\xff"}',
            b"[" * 200_000,
            json.dumps(invoice(status="Complete")).encode(),
            json.dumps(invoice(checkoutLink="javascript:alert(1)")).encode(),
            json.dumps(invoice(storeId="another")).encode(),
        ],
    )
    def test_a_senseless_success_is_an_unknown_outcome(self, body: bytes) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_opened(SETTINGS, answer(body))

    def test_words_are_one_bounded_line(self) -> None:
        said = words(answer({"code": "c", "message": "a\n" * 5_000}, 400))
        assert "\n" not in said
        assert len(said) < 600


class TestFind:
    def test_by_our_id(self) -> None:
        request = RAIL.find_request(SETTINGS, "chk_01j8&x=1")
        assert request is not None
        parts = urlsplit(request.url)
        assert (request.method, parts.path) == ("GET", "/btcpay/api/v1/stores/store1/invoices")
        assert parse_qs(parts.query) == {"orderId": ["chk_01j8&x=1"], "take": ["50"]}

    def test_none(self) -> None:
        assert RAIL.read_found(SETTINGS, answer([])) is None

    def test_one(self) -> None:
        found = RAIL.read_found(SETTINGS, answer([invoice()]))
        assert found == OpenedCheckout(reference="inv1", url="https://pay.example/i/inv1")

    def test_of_several_the_one_with_money(self) -> None:
        statuses = ["Invalid", "Expired", "New", "Processing", "Settled"]
        several = [invoice(id=status, status=status, createdTime=CREATED - i) for i, status in enumerate(statuses)]
        for count in range(1, 6):
            for order in itertools.permutations(several[:count]):
                found = RAIL.read_found(SETTINGS, answer(list(order)))
                assert found is not None
                assert found.reference == statuses[count - 1]

    def test_of_equals_the_newest(self) -> None:
        old, new = invoice(id="old"), invoice(id="new", createdTime=CREATED + 1)
        for order in ([old, new], [new, old]):
            found = RAIL.read_found(SETTINGS, answer(order))
            assert found is not None
            assert found.reference == "new"

    @pytest.mark.parametrize("other", ["chk_other", None, "", 7])
    def test_an_unfiltered_list_is_no_answer(self, other: Any) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_found(SETTINGS, answer([invoice(), invoice(metadata={"orderId": other})]))
        if other != "chk_other":
            with pytest.raises(RailUnavailable):
                RAIL.read_found(SETTINGS, answer([invoice(metadata={"orderId": other})]))

    @pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
    def test_a_revoked_key_proves_nothing(self, status: int) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_found(SETTINGS, answer({"code": "x", "message": "y"}, status))


class TestReport:
    def test_requests_are_the_invoice_then_its_payments(self) -> None:
        first, second = RAIL.report_requests(SETTINGS, "inv1")
        assert first.url == "https://pay.example/btcpay/api/v1/stores/store1/invoices/inv1"
        assert second.url == f"{first.url}/payment-methods"
        assert {first.method, second.method} == {"GET"}
        assert first.body == second.body == b""
        assert "content-type" not in first.headers

    def test_new(self) -> None:
        assert report(invoice(), method()) == CheckoutReport(
            rail="btcpay", reference="inv1", checkout_id="chk_01j8", state="open", final=False
        )

    def test_settled(self) -> None:
        told = report(invoice(status="Settled", paidAmount="0.00021000"), method(payment("tx-0", "0.00021000")))
        details = {
            "invoiceId": "inv1",
            "paymentMethodId": "BTC-CHAIN",
            "value": "0.00021000",
            "fee": "0",
            "rate": "1",
            "additionalStatus": "None",
            "paidAmount": "0.00021000",
        }
        fact = PaymentFact(
            reference="tx-0",
            amount=Money(21_000, "SAT"),
            occurred_at=NOW + timedelta(seconds=60),
            details=details,
        )
        assert told == CheckoutReport(
            rail="btcpay", reference="inv1", checkout_id="chk_01j8", state="settled", payments=(fact,), final=True
        )

    @pytest.mark.parametrize(
        ("status", "state", "final"),
        [
            ("New", "open", False),
            ("Processing", "processing", False),
            ("Settled", "settled", True),
            ("Expired", "expired", False),
            ("Invalid", "failed", True),
        ],
    )
    @pytest.mark.parametrize("additional", ["None", "PaidLate", "PaidPartial", "Marked", "Invalid", "PaidOver", None])
    def test_every_status(self, status: str, additional: str | None, state: str, *, final: bool) -> None:
        # A confirmed payment is money, whatever BTCPay calls the invoice.
        told = report(invoice(status=status, additionalStatus=additional), method(payment("tx-0", "0.00021")))
        assert (told.state, told.final, amounts(told)) == (state, final, {"tx-0": 21_000})

    @pytest.mark.parametrize("status", ["New", "Processing", "Expired", "Invalid"])
    def test_an_unconfirmed_payment_proves_nothing_and_keeps_the_question_open(self, status: str) -> None:
        late = "Mon, 01 Mar 2027 12:00:00 GMT"
        told = report(invoice(status=status), method(payment("tx-0", "0.00021", "Processing")), date=late)
        assert (told.payments, told.final) == ((), False)

    def test_settled_counts_unconfirmed_payments_as_far_as_needed(self) -> None:
        parts = [
            payment("a", "0.00010000", "Processing", at=10),
            payment("b", "0.00011000", "Processing", at=20),
            payment("c", "0.00005000", "Processing", at=30),
        ]
        for order in itertools.permutations(parts):
            told = report(invoice(status="Settled"), method(*order))
            assert [fact.reference for fact in told.payments] == ["a", "b"]
            assert amounts(told) == {"a": 10_000, "b": 11_000}
            assert not told.final  # c is in flight

    def test_settled_prefers_confirmed_payments(self) -> None:
        told = report(
            invoice(status="Settled", additionalStatus="PaidOver"),
            method(payment("first", "0.00021", "Processing", at=10), payment("second", "0.00021", at=20)),
        )
        assert (amounts(told), told.final) == ({"second": 21_000}, False)

    def test_paid_over(self) -> None:
        told = report(
            invoice(status="Settled", additionalStatus="PaidOver"),
            method(payment("b", "0.00004000", at=20), payment("a", "0.00021000", at=10)),
        )
        assert [(fact.reference, fact.amount.amount) for fact in told.payments] == [("a", 21_000), ("b", 4_000)]
        assert told.final

    def test_a_double_spent_payment_is_none(self) -> None:
        told = report(invoice(), method(payment("tx-0", "0.00021", "Invalid")))
        assert told.payments == ()

    def test_a_payment_listed_twice_counts_once(self) -> None:
        twice = payment("hash", "0.00021")
        told = report(invoice(status="Settled"), method(twice, name="BTC-LN"), method(twice, name="BTC-LNURL"))
        assert amounts(told) == {"hash": 21_000}

    def test_lightning_fractions_round_half_up_to_satoshis(self) -> None:
        told = report(invoice(), method(payment("a", "0.00000001500"), payment("b", "0.00000002499"), name="BTC-LN"))
        assert amounts(told) == {"a": 2, "b": 2}

    def test_marked_settled_by_hand_vouches_for_what_is_missing(self) -> None:
        marked = invoice(status="Settled", additionalStatus="Marked")
        told = report(marked, method(payment("tx-0", "0.00001000")))
        expected = PaymentFact(
            reference="inv1:marked",
            amount=Money(20_000, "SAT"),
            occurred_at=ANSWERED,
            details={"marked": True, "invoiceId": "inv1"},
        )
        assert told.payments[1] == expected
        assert amounts(told) == {"tx-0": 1_000, "inv1:marked": 20_000}
        assert (told.state, told.final) == ("settled", True)

    def test_marked_without_payments_or_date(self) -> None:
        told = report(invoice(status="Settled", additionalStatus="Marked"), method(), date=None)
        assert amounts(told) == {"inv1:marked": 21_000}
        assert told.payments[0].occurred_at == NOW

    def test_marked_when_a_payment_is_on_its_way_counts_that(self) -> None:
        marked = invoice(status="Settled", additionalStatus="Marked")
        told = report(marked, method(payment("tx-0", "0.00021000", "Processing")))
        assert amounts(told) == {"tx-0": 21_000}

    def test_marked_invalid_fails(self) -> None:
        told = report(invoice(status="Invalid", additionalStatus="Marked"), method())
        assert (told.state, told.payments, told.final) == ("failed", (), True)

    def test_settled_without_a_payment_contradicts_itself(self) -> None:
        with pytest.raises(RailUnavailable, match="no payment"):
            report(invoice(status="Settled"), method())

    @pytest.mark.parametrize(
        ("date", "final"),
        [
            ("Mon, 02 Mar 2026 12:15:00 GMT", False),  # exactly when monitoring ends
            ("Mon, 02 Mar 2026 12:15:01 GMT", True),
            (None, False),
            ("soon", False),
        ],
    )
    @pytest.mark.parametrize("additional", ["None", "PaidPartial", "PaidLate"])
    def test_expired_is_final_when_monitoring_is_over(self, date: str | None, additional: str, *, final: bool) -> None:
        told = report(invoice(status="Expired", additionalStatus=additional), method(), date=date)
        assert (told.state, told.final) == ("expired", final)

    def test_expired_without_an_end_is_never_final(self) -> None:
        told = report(
            invoice(status="Expired", monitoringExpiration=None), method(), date="Sat, 01 Jan 2028 00:00:00 GMT"
        )
        assert not told.final

    def test_metadata_of_others(self) -> None:
        for metadata in (None, {}, {"orderId": None}, {"orderId": 5}, {"orderId": ""}):
            assert report(invoice(metadata=metadata), method()).checkout_id is None

    def test_unknown_fields_do_not_matter(self) -> None:
        told = report(invoice(novelty={"a": [1]}), method(extra=1), method(currency=None, rate="0", name="PLUGIN"))
        assert told.state == "open"


class TestFiat:
    USD = invoice(amount="10.00", currency="USD", paidAmount="10.00", status="Settled")

    def test_value_times_rate(self) -> None:
        told = report(self.USD, method(payment("tx-0", "0.00015530"), rate="64392.23"))
        fact = told.payments[0]
        assert fact.amount == Money(1_000, "USD")  # 10.000113...
        assert (fact.details["value"], fact.details["rate"]) == ("0.00015530", "64392.23")
        assert fact.details["paymentMethodId"] == "BTC-CHAIN"

    @pytest.mark.parametrize(
        ("value", "rate", "cents"),
        [
            ("0.00000100", "14999.9999", 1),  # 0.01499... down
            ("0.00000100", "15000", 2),  # 0.015 up
            ("0.00000100", "15000.00000000000000000000000001", 2),
            ("0.00000100", "14999.99999999999999999999999999", 1),
            ("1", "99999.995", 10_000_000),
        ],
    )
    def test_rounding_is_half_up_and_exact(self, value: str, rate: str, cents: int) -> None:
        told = report(self.USD, method(payment("tx-0", value), rate=rate))
        assert amounts(told) == {"tx-0": cents}

    def test_numbers_instead_of_strings_stay_exact(self) -> None:
        raw = b'[{"paymentMethodId":"BTC-CHAIN","currency":"BTC","rate":0.1,"payments":[{"id":"a","receivedDate":1,'
        raw += b'"value":100.15,"fee":0.0,"status":"Settled"}]}]'
        told = RAIL.read_report(SETTINGS, (answer(self.USD), answer(raw)))
        assert amounts(told) == {"a": 1_002}  # 10.015

    def test_currencies_have_their_own_minor_units(self) -> None:
        yen = invoice(amount="1500", currency="JPY", status="Settled")
        told = report(yen, method(payment("tx-0", "0.0001"), rate="15000000"))
        assert told.payments[0].amount == Money(1_500, "JPY")

    def test_the_fee_that_btcpay_charges_does_not_count(self) -> None:
        told = report(self.USD, method(payment("tx-0", "0.00010100", fee="0.00000100"), rate="100000"))
        assert told.payments[0].amount == Money(1_000, "USD")
        assert told.payments[0].details["fee"] == "0.00000100"

    def test_tolerance_and_rounding_leave_btcpays_verdict_alone(self) -> None:
        short = report(self.USD, method(payment("tx-0", "0.00009900"), rate="100000"))
        assert (short.state, amounts(short), short.final) == ("settled", {"tx-0": 990}, True)
        thirds = [payment(name, "0.00003333") for name in "abc"]
        split = report(self.USD, method(*thirds, rate="100010"))
        assert (split.state, amounts(split)) == ("settled", {"a": 333, "b": 333, "c": 333})

    def test_dust_is_no_payment(self) -> None:
        dust = [payment("a", "0.00000001"), payment("b", "0.00000100", fee="0.00000200")]
        told = report(invoice(amount="10.00", currency="USD"), method(*dust, rate="100000"))
        assert told.payments == ()

    def test_another_coin_counts_by_its_rate(self) -> None:
        told = report(invoice(), method(payment("l", "2"), name="LTC-CHAIN", currency="LTC", rate="0.000105"))
        assert amounts(told) == {"l": 21_000}

    def test_marked_in_fiat(self) -> None:
        told = report(self.USD | {"additionalStatus": "Marked"}, method())
        assert told.payments[0].amount == Money(1_000, "USD")

    @pytest.mark.parametrize("rate", [None, "0", "-1", "NaN", "Infinity", "1e-99"])
    def test_a_payment_without_a_rate_makes_no_sense(self, rate: str | None) -> None:
        with pytest.raises(RailUnavailable, match=r"rate|sense"):
            report(self.USD, method(payment("tx-0", "0.0001"), rate=rate))

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999999", "9000000000000", "sNaN"])
    def test_a_senseless_value_is_no_money(self, value: str) -> None:
        with pytest.raises(RailUnavailable):
            report(self.USD, method(payment("tx-0", value), rate="100000"))

    @pytest.mark.parametrize(("amount", "currency"), [("NaN", "USD"), ("1", "NOPE"), ("1e99", "BTC")])
    def test_a_senseless_invoice(self, amount: str, currency: str) -> None:
        with pytest.raises(RailUnavailable):
            report(invoice(amount=amount, currency=currency), method())


class TestReportFailures:
    GONE = {"code": "invoice-not-found", "message": "The invoice was not found"}

    def test_an_unknown_invoice_is_refused(self) -> None:
        with pytest.raises(RailRefused, match="The invoice was not found"):
            RAIL.read_report(SETTINGS, (answer(self.GONE, 404), answer(self.GONE, 404)))

    @pytest.mark.parametrize("status", [302, 401, 403, 408, 409, 429, 500, 502, 503])
    @pytest.mark.parametrize("which", [0, 1])
    def test_anything_passing_is_not(self, status: int, which: int) -> None:
        answers = [answer(invoice()), answer([method()])]
        answers[which] = answer({"code": "x", "message": "y"}, status)
        with pytest.raises(RailUnavailable):
            RAIL.read_report(SETTINGS, tuple(answers))

    @pytest.mark.parametrize(
        "pair",
        [
            (answer(b"<html>"), answer([method()])),
            (answer(invoice()), answer(b"<html>")),
            (answer(invoice()), answer({})),
            (answer(invoice(storeId="other")), answer([])),
            (answer(invoice(status="Frozen")), answer([])),
            (answer(invoice(createdTime=10**18, status="Settled", additionalStatus="Marked"), date=None), answer([])),
            (answer(invoice()), answer([method(payment("a", "1", "Odd"))])),
            (answer(invoice()), answer([method(payment("a", "1") | {"receivedDate": 10**18})])),
            (answer(invoice()),),
            (),
        ],
    )
    def test_senseless_answers(self, pair: tuple[HttpResponse, ...]) -> None:
        with pytest.raises(RailUnavailable):
            RAIL.read_report(SETTINGS, pair)

    def test_dates(self) -> None:
        assert read_date("Sun, 01 Mar 2026 12:10:00 GMT") == ANSWERED
        assert read_date("Sun, 01 Mar 2026 12:10:00 -0000") == ANSWERED
        assert read_date("Sun, 01 Mar 2026 13:10:00 +0100") == ANSWERED
        assert read_date("") is None
        assert read_date(None) is None


def event(**changes: Any) -> dict[str, Any]:
    base = {
        "deliveryId": "d2",
        "webhookId": "hook1",
        "originalDeliveryId": "d1",
        "isRedelivery": True,
        "type": "InvoiceSettled",
        "timestamp": CREATED,
        "storeId": "store1",
        "invoiceId": "inv1",
        "metadata": {"orderId": "chk_01j8"},
        "manuallyMarked": False,
        "overPaid": False,
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def sign(body: bytes, secret: str = "hook-secret") -> dict[str, str]:
    return {"btcpay-sig": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def notice(body: Any, settings: BTCPaySettings = SETTINGS) -> Notice:
    raw = body if isinstance(body, bytes) else json.dumps(body, indent=2).encode()
    return RAIL.read_webhook(settings, sign(raw, settings.webhook_secret), raw, NOW)


class TestWebhook:
    def test_a_known_signature(self) -> None:
        # Computed with: printf '%s' "$body" | openssl dgst -sha256 -hmac hook-secret
        body = b'{"deliveryId":"d1","type":"InvoiceCreated","storeId":"store1","invoiceId":"inv1","timestamp":1}'
        header = {"btcpay-sig": "sha256=2bf0a5a9f8ba8e70732426d12af9134bc174aceab5eb87dbcd25fbc7000267b4"}
        assert RAIL.read_webhook(SETTINGS, header, body, NOW) == Notice(
            event_id="d1",
            type="InvoiceCreated",
            occurred_at=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
            reference="inv1",
        )

    def test_every_invoice_event_means_ask(self) -> None:
        kinds = (
            *connect.EVENTS,
            "InvoiceCreated",
            "InvoiceExpiredPaidPartial",
            "InvoicePaidAfterExpiration",
            "InvoiceX",
        )
        for kind in kinds:
            told = notice(event(type=kind))
            assert told == Notice(event_id="d1", type=kind, occurred_at=NOW, reference="inv1", report=None)

    @pytest.mark.parametrize("original", [..., None, ""])
    def test_without_an_original_the_delivery_names_the_news(self, original: Any) -> None:
        assert notice(event(originalDeliveryId=original)).event_id == "d2"

    def test_redeliveries_name_the_same_news(self) -> None:
        first = notice(event(deliveryId="d1", isRedelivery=False))
        again = [notice(event(deliveryId=f"d{number}")) for number in range(2, 9)]
        assert {told.event_id for told in again} == {first.event_id}

    @pytest.mark.parametrize(
        "changes",
        [
            {"type": "PayoutCreated", "invoiceId": ...},
            {"type": "PaymentRequestUpdated", "invoiceId": ...},
            {"type": "SubscriberCharged"},
            {"storeId": "another"},
            {"storeId": ...},
            {"storeId": None},
            {"invoiceId": ...},
            {"invoiceId": None},
            {"invoiceId": ""},
            {"invoiceId": "__test__8c0d__test__", "originalDeliveryId": "__test__1__test__"},
        ],
    )
    def test_news_about_nothing_of_ours(self, changes: dict[str, Any]) -> None:
        told = notice(event(**changes))
        assert told.reference is None
        assert told.event_id == changes.get("originalDeliveryId", "d1")

    @pytest.mark.parametrize("timestamp", [..., None, "soon", 10**18, -(10**18), 1.5, True])
    def test_a_senseless_time_does_not_lose_the_news(self, timestamp: Any) -> None:
        told = notice(event(timestamp=timestamp))
        assert (told.occurred_at, told.reference) == (NOW, "inv1")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"not json",
            b"[]",
            b"null",
            b'{"type":"\xff"}',
            b'{"deliveryId":"d1","type":"InvoiceSettled","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            json.dumps(event(type=...)).encode(),
            json.dumps(event(type=5)).encode(),
            json.dumps(event(invoiceId=5)).encode(),
            json.dumps(event(deliveryId=..., originalDeliveryId=...)).encode(),
        ],
    )
    def test_signed_nonsense(self, body: bytes) -> None:
        with pytest.raises(BadSignature, match="signed"):
            notice(body)

    def test_the_signature_is_checked_before_anything_is_read(self) -> None:
        with pytest.raises(BadSignature, match="does not match"):
            RAIL.read_webhook(SETTINGS, {"btcpay-sig": "sha256=" + "0" * 64}, b"not json", NOW)

    @pytest.mark.parametrize(
        "where", [{}, {"btcpay-sig": ""}, {"btcpay-sig": "sha256="}, {"BTCPay-Sig": "sha256=" + "0" * 64}]
    )
    def test_no_signature(self, where: dict[str, str]) -> None:
        with pytest.raises(BadSignature, match="missing"):
            RAIL.read_webhook(SETTINGS, where, json.dumps(event()).encode(), NOW)

    def test_forms_of_the_header(self) -> None:
        body = json.dumps(event()).encode()
        good = sign(body)["btcpay-sig"]
        digits = good.removeprefix("sha256=")
        RAIL.read_webhook(SETTINGS, {"btcpay-sig": "sha256=" + digits.upper()}, body, NOW)
        for bad in (
            digits,
            f"sha1={digits}",
            f"{good} ",
            f" {good}",
            f"{good}\n",
            good[:-1],
            f"{good}0",
            f"{good},{good}",
        ):
            with pytest.raises(BadSignature):
                RAIL.read_webhook(SETTINGS, {"btcpay-sig": bad}, body, NOW)

    def test_another_secret(self) -> None:
        body = json.dumps(event()).encode()
        with pytest.raises(BadSignature):
            RAIL.read_webhook(SETTINGS, sign(body, "hook-secreT"), body, NOW)

    def test_an_empty_secret_verifies_nothing(self) -> None:
        with pytest.raises(BadSignature, match="no webhook secret"):
            notice(event(), msgspec.structs.replace(SETTINGS, webhook_secret=""))

    @given(st.binary(max_size=300), st.text(max_size=80))
    def test_nothing_but_the_right_signature_passes(self, body: bytes, header: str) -> None:
        with pytest.raises(BadSignature):
            RAIL.read_webhook(SETTINGS, {"btcpay-sig": header}, body, NOW)

    @given(st.data())
    def test_any_changed_byte_breaks_the_signature(self, data: st.DataObject) -> None:
        body = json.dumps(event()).encode()
        headers = sign(body)
        index = data.draw(st.integers(0, len(body) - 1))
        changed = bytearray(body)
        changed[index] ^= data.draw(st.integers(1, 255))
        cut = body[: data.draw(st.integers(0, len(body) - 1))]
        for forged in (bytes(changed), cut, body + data.draw(st.binary(min_size=1, max_size=5))):
            with pytest.raises(BadSignature, match="does not match"):
                RAIL.read_webhook(SETTINGS, headers, forged, NOW)

    @given(st.integers(0, 63), st.sampled_from("0123456789abcdef"))
    def test_any_changed_digit_breaks_the_signature(self, index: int, digit: str) -> None:
        body = json.dumps(event()).encode()
        digits = sign(body)["btcpay-sig"].removeprefix("sha256=")
        forged = digits[:index] + digit + digits[index + 1 :]
        if forged == digits:
            assert RAIL.read_webhook(SETTINGS, {"btcpay-sig": f"sha256={forged}"}, body, NOW).event_id == "d1"
        else:
            with pytest.raises(BadSignature):
                RAIL.read_webhook(SETTINGS, {"btcpay-sig": f"sha256={forged}"}, body, NOW)


class TestConnect:
    BASE = "https://pay.example"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("https://pay.example", "https://pay.example"),
            (" https://pay.example/ ", "https://pay.example"),
            ("HTTPS://Pay.Example/btcpay//", "https://pay.example/btcpay"),
            ("http://127.0.0.1:23000/", "http://127.0.0.1:23000"),
            ("http://[::1]:23000", "http://[::1]:23000"),
        ],
    )
    def test_base_url(self, text: str, expected: str) -> None:
        assert normalize_base_url(text) == expected
        assert normalize_base_url(expected) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "pay.example",
            "ftp://pay.example",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://user:pw@pay.example",
            "https://@pay.example",
            "https://pay.example?x=1",
            "https://pay.example?",
            "https://pay.example#",
            "https://pay.example/#x",
            "https://pay.example:port",
            "https://pay.example:99999",
            "https://pay example",
            "https://pay.example/a b",
            "https://pay.example\\@evil.example",
            "https://[::1",
        ],
    )
    def test_bad_base_url(self, text: str) -> None:
        with pytest.raises(Invalid) as caught:
            normalize_base_url(text)
        assert caught.value.errors[0].pointer == "/base_url"

    def test_authorize_url(self) -> None:
        redirect = "https://shop.example/connect?state=abc&x=1"
        parts = urlsplit(connect.authorize_url(f"{self.BASE}/sub", redirect, "Counterfoil", "counterfoil"))
        assert (parts.netloc, parts.path) == ("pay.example", "/sub/api-keys/authorize")
        assert parse_qs(parts.query) == {
            "permissions": list(connect.PERMISSIONS),
            "applicationName": ["Counterfoil"],
            "applicationIdentifier": ["counterfoil"],
            "strict": ["true"],
            "selectiveStores": ["true"],
            "redirect": [redirect],
        }

    def test_callback(self) -> None:
        form = {"apiKey": [" k1 "], "userId": ["u"], "permissions[]": ["a", "b"]}
        assert connect.read_authorize_callback(form) == "k1"

    @pytest.mark.parametrize("form", [{}, {"apiKey": []}, {"apiKey": [""]}, {"apiKey": [" "]}, {"apiKey": ["a", "b"]}])
    def test_callback_without_a_key(self, form: dict[str, list[str]]) -> None:
        with pytest.raises(RailRefused):
            connect.read_authorize_callback(form)

    def test_current_key(self) -> None:
        request = connect.current_key_request(self.BASE, "k")
        assert (request.method, request.url) == ("GET", f"{self.BASE}/api/v1/api-keys/current")
        assert request.headers["authorization"] == "token k"
        body = {"apiKey": "k", "label": "l", "permissions": ["a", "b:store1"]}
        assert connect.read_current_key(answer(body)) == ("a", "b:store1")
        with pytest.raises(RailRefused, match="unauthenticated"):
            connect.read_current_key(answer({"code": "unauthenticated"}, 401))

    @pytest.mark.parametrize(
        ("granted", "missing"),
        [
            (connect.PERMISSIONS, ()),
            ([f"{name}:store1" for name in connect.PERMISSIONS], ()),
            ([f"{name}:store2" for name in connect.PERMISSIONS], connect.PERMISSIONS),
            (["unrestricted"], ()),
            (["btcpay.store.canmodifystoresettings:store1"], ()),
            (["btcpay.store.canmodifystoresettings:store2"], connect.PERMISSIONS),
            ([], connect.PERMISSIONS),
            (
                ["btcpay.store.canmodifyinvoices"],
                ("btcpay.store.canviewstoresettings", "btcpay.store.webhooks.canmodifywebhooks"),
            ),
            (
                ["btcpay.store.canviewstoresettings", "btcpay.store.webhooks.canmodifywebhooks"],
                ("btcpay.store.cancreateinvoice", "btcpay.store.canmodifyinvoices"),
            ),
        ],
    )
    def test_missing_permissions_by_name(self, granted: list[str], missing: tuple[str, ...]) -> None:
        assert connect.missing_permissions(granted, "store1") == missing

    def test_stores(self) -> None:
        assert connect.stores_request(self.BASE, "k").url == f"{self.BASE}/api/v1/stores"
        stores = connect.read_stores(
            answer([{"id": "s", "name": "n", "defaultCurrency": "EUR"}, {"id": "t", "name": "m"}])
        )
        assert stores == (
            connect.Store(id="s", name="n", default_currency="EUR"),
            connect.Store(id="t", name="m"),
        )

    def test_payment_methods(self) -> None:
        request = connect.payment_methods_request(self.BASE, "k", "s")
        assert request.url == f"{self.BASE}/api/v1/stores/s/payment-methods?onlyEnabled=true"
        body = [{"paymentMethodId": "BTC-CHAIN", "enabled": True}, {"paymentMethodId": "BTC-LN", "enabled": False}]
        assert connect.read_payment_methods(answer(body)) == (connect.StoreMethod(payment_method_id="BTC-CHAIN"),)

    def test_create_webhook(self) -> None:
        request = connect.create_webhook_request(self.BASE, "k", "s", "https://shop.example/hook", "hush")
        assert (request.method, request.url) == ("POST", f"{self.BASE}/api/v1/stores/s/webhooks")
        assert json.loads(request.body) == {
            "url": "https://shop.example/hook",
            "secret": "hush",
            "enabled": True,
            "automaticRedelivery": True,
            "authorizedEvents": {"everything": False, "specificEvents": list(connect.EVENTS)},
        }
        assert connect.read_webhook_created(answer({"id": "w1", "secret": "hush", "enabled": True})) == "w1"
        with pytest.raises(RailRefused, match="url: bad"):
            connect.read_webhook_created(answer([{"path": "url", "message": "bad"}], 400))
        with pytest.raises(RailUnavailable):
            connect.read_webhook_created(answer({}, 503))

    def test_delete_webhook(self) -> None:
        request = connect.delete_webhook_request(self.BASE, "k", "s", "w/1")
        assert (request.method, request.url) == ("DELETE", f"{self.BASE}/api/v1/stores/s/webhooks/w%2F1")
        connect.read_webhook_deleted(answer(b""))
        connect.read_webhook_deleted(answer({"code": "webhook-not-found"}, 404))
        with pytest.raises(RailRefused):
            connect.read_webhook_deleted(answer({}, 403))
        with pytest.raises(RailUnavailable):
            connect.read_webhook_deleted(answer({}, 502))
