"""Paddle's webhooks: signatures, and what each says."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.peers.paddle_examples import SIGNED, webhook, webhooks
from tests.rails.paddle_subjects import (
    EXTERNAL,
    NOW,
    RAIL,
    SECRET,
    SETTINGS,
    adjustment,
    answer,
    refusal,
    subscription,
    transaction,
)

from counterfoil.kernel.clock import from_seconds, to_seconds
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import hmac_sha256
from counterfoil.rails.base import BadSignature, HttpRequest, Notice, RailRefused, RailUnavailable
from counterfoil.rails.facts import DisputeFact, InvoiceFact, RailCopy, RefundFact, SubscriptionFact
from counterfoil.rails.paddle.webhooks import EVENTS, check_signature


def signed(body: bytes, *secrets: str, at: datetime = NOW) -> dict[str, str]:
    ts = to_seconds(at)
    parts = [f"h1={hmac_sha256(secret.encode(), f'{ts}:'.encode() + body)}" for secret in secrets or (SECRET,)]
    return {"paddle-signature": ";".join([f"ts={ts}", *parts])}


def event(kind: str, data: Any, **changes: Any) -> bytes:
    base = {
        "event_id": "evt_1", "event_type": kind, "occurred_at": "2026-03-01T12:05:03.123456Z",
        "notification_id": "ntf_1", "data": data,
    }  # fmt: skip
    return json.dumps(base | changes).encode()


def hear(body: bytes, settings: Any = SETTINGS) -> Notice:
    return RAIL.read_webhook(settings, signed(body), body, NOW)


def told(kind: str, data: Any, settings: Any = SETTINGS) -> Any:
    """The one fact of an event."""
    (fact,) = hear(event(kind, data), settings).facts
    return fact


class TestSignature:
    def test_the_known_answer_of_paddles_own_library(self) -> None:
        at = from_seconds(SIGNED.ts)
        check_signature((*SIGNED.strangers, SIGNED.secret), SIGNED.header, SIGNED.body, at)
        with pytest.raises(BadSignature):
            check_signature(SIGNED.strangers, SIGNED.header, SIGNED.body, at)
        with pytest.raises(BadSignature):
            check_signature((SIGNED.secret,), SIGNED.header, SIGNED.body + b"!", at)

    @pytest.mark.parametrize(("seconds", "fits"), [(-6, False), (-5, True), (0, True), (5, True), (6, False)])
    def test_the_time_is_now(self, seconds: int, fits: bool) -> None:
        header = signed(b"{}", at=NOW + timedelta(seconds=seconds))["paddle-signature"]
        if fits:
            check_signature((SECRET,), header, b"{}", NOW)
        else:
            with pytest.raises(BadSignature, match="time"):
                check_signature((SECRET,), header, b"{}", NOW)

    def test_any_secret_and_any_signature_will_do(self) -> None:
        header = signed(b"{}", "old", "new")["paddle-signature"]
        for secrets in (("old",), ("new",), ("other", "new"), ("", "old")):
            check_signature(secrets, header, b"{}", NOW)
        for secrets in ((), ("",), ("other",)):
            with pytest.raises(BadSignature):
                check_signature(secrets, header, b"{}", NOW)

    @pytest.mark.parametrize(
        "change",
        [
            lambda _text: "",
            lambda text: text.partition(";")[0],
            lambda text: text.partition(";")[2],
            lambda text: f"ts=1;{text}",
            lambda text: text.replace("ts=", "ts=+"),
            lambda text: text.replace("h1=", "h2="),
            lambda text: text[:-1],
            lambda text: text.replace(";", ","),
            lambda text: text.replace("ts=", "ts=" + "9" * 20),
            lambda text: text.replace("h1=", "h1=é"),
        ],
    )
    def test_other_headers_are_refused(self, change: Any) -> None:
        with pytest.raises(BadSignature):
            check_signature((SECRET,), change(signed(b"{}")["paddle-signature"]), b"{}", NOW)

    def test_a_webhook_without_one(self) -> None:
        with pytest.raises(BadSignature):
            RAIL.read_webhook(SETTINGS, {}, event("transaction.paid", transaction()), NOW)

    @given(st.text(max_size=200))
    def test_no_header_raises_anything_else(self, header: str) -> None:
        with pytest.raises(BadSignature):
            check_signature((SECRET,), header, b"{}", NOW)


class TestBodies:
    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"event_id": 1}'])
    def test_what_is_no_event_is_refused(self, body: bytes) -> None:
        with pytest.raises(BadSignature):
            hear(body)
        with pytest.raises(BadSignature):
            RAIL.read_answer(SETTINGS, body, answer(transaction()), NOW)

    @pytest.mark.parametrize(
        "changes",
        [
            {"occurred_at": "yesterday"},
            {"event_id": ""},
            {"event_type": ""},
            {"event_id": "e" * 201},
            {"event_id": "evt\0"},
        ],
    )
    def test_what_has_no_name_or_time_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(BadSignature):
            hear(event("transaction.paid", transaction(), **changes))

    @pytest.mark.parametrize("kind", ["client_token.created", "transaction.teleported", "x", "discount_group.created"])
    def test_new_types_are_kept(self, kind: str) -> None:
        notice = hear(event(kind, {"id": "any"}))
        assert (notice.is_known, notice.type, notice.event_id, notice.facts) == (False, kind, "evt_1", ())
        assert notice.occurred_at == datetime(2026, 3, 1, 12, 5, 3, 123456, tzinfo=UTC)

    @pytest.mark.parametrize("kind", ["payout.paid", "report.updated", "api_key.expiring", "payment_method.saved"])
    def test_types_that_say_nothing_of_ours(self, kind: str) -> None:
        notice = hear(event(kind, {"id": "any"}))
        assert (notice.is_known, notice.reference, notice.report, notice.facts) == (True, None, None, ())

    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            ("transaction.paid", None),
            ("transaction.paid", {"id": "txn_1"}),
            ("transaction.paid", transaction(currency_code="XXX1")),
            ("transaction.paid", transaction((10**18, 0))),
            ("transaction.paid", transaction(billing_period={"starts_at": "x", "ends_at": "y"})),
            ("subscription.updated", subscription(status="hibernating")),
            ("adjustment.created", adjustment(5, totals={"total": "1e3", "tax": "0"})),
            ("price.created", {"id": "pri_1"}),
        ],
    )
    def test_objects_that_make_no_sense_are_kept_with_their_problem(self, kind: str, data: Any) -> None:
        notice = hear(event(kind, data))
        assert (notice.is_known, notice.facts, notice.report) == (False, (), None)
        assert notice.problem

    @given(st.data())
    def test_mangled_events_raise_nothing_else(self, data: st.DataObject) -> None:
        kind, entity = data.draw(
            st.sampled_from(
                [
                    ("transaction.completed", transaction()),
                    ("subscription.updated", subscription()),
                    ("adjustment.updated", adjustment(10, 2)),
                ]
            )
        )
        junk = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
        mangled = json.loads(json.dumps(entity))
        where = mangled
        while True:  # go down some way, and put junk there
            key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else list(range(len(where)))))
            if not where[key] or not isinstance(where[key], dict | list) or data.draw(st.booleans()):
                where[key] = data.draw(junk)
                break
            where = where[key]
        notice = hear(event(kind, mangled))
        assert notice.event_id == "evt_1"

    @given(st.binary(max_size=60))
    def test_mangled_bytes_raise_nothing_else(self, junk: bytes) -> None:
        whole = event("transaction.completed", transaction())
        body = whole[: len(junk) * 7] + junk + whole[len(junk) * 8 :]
        with suppress(BadSignature):
            assert isinstance(hear(body), Notice)


class TestExamples:
    def test_all_of_paddles_own_examples_are_read(self) -> None:
        every = webhooks()
        assert len(every) == 50
        for name, body in every.items():
            notice = hear(body)
            assert (notice.type, notice.is_known, notice.problem) == (name, True, None)
            entity = name.partition(".")[0]
            if name in EVENTS and entity != "adjustment" and notice.facts:
                expected = {"transaction": InvoiceFact, "subscription": SubscriptionFact}.get(entity, RailCopy)
                assert isinstance(notice.facts[0], expected)
                assert notice.facts[0].reference == json.loads(body)["data"]["id"]
            if entity == "adjustment":
                assert notice.question is not None  # they have tax in them

    def test_the_sale_in_them(self) -> None:
        body = webhook("transaction.completed")
        body["data"]["custom_data"] = {"checkout_id": "chk_1"}
        notice = hear(json.dumps(body).encode())
        assert notice.report is not None
        (payment,) = notice.report.payments
        assert (payment.reference, payment.amount) == ("txn_01hv8wptq8987qeep44cyrewp9", Money(65_215, "USD"))
        assert payment.occurred_at == datetime(2024, 4, 12, 10, 18, 47, 635628, tzinfo=UTC)
        assert payment.payer == "ctm_01hv6y1jedq4p1n0yqn5ba3ky4"
        assert (payment.details["tax"], payment.details["totals"]["grand_total"]) == ("5315", "65215")
        assert [line["id"] for line in payment.details["line_items"]] == [
            "txnitm_01hv8wt98jahpbm1t1tzr06z6n", "txnitm_01hv8wt98jahpbm1t1v1sd067y",
            "txnitm_01hv8wt98jahpbm1t1v67vqnb6",
        ]  # fmt: skip
        (bill,) = notice.facts
        assert (bill.amount, bill.tax, bill.billing_reason) == (65_215, 5_315, "subscription_create")
        assert (bill.number, bill.details["fee"], bill.details["earnings"]) == ("325-10566", "3311", "56589")
        assert bill.period_end == datetime(2024, 5, 12, 10, 18, 47, 635628, tzinfo=UTC)
        assert [(line.quantity, line.amount, line.subtotal) for line in bill.lines] == [
            (10, 32_662, 32_662),
            (1, 10_887, 10_887),
            (1, 21_666, 21_666),
        ]


class TestTransactions:
    @pytest.mark.parametrize(
        ("status", "state", "final"),
        [
            ("draft", "open", False),
            ("ready", "open", False),
            ("billed", "open", False),
            ("past_due", "open", False),
            ("paid", "settled", True),
            ("completed", "settled", True),
            ("canceled", "failed", True),
            ("something_new", "open", False),
        ],
    )
    def test_states(self, status: str, state: str, final: bool) -> None:
        notice = hear(event("transaction.updated", transaction(status=status)))
        report = notice.report
        assert report is not None
        assert (report.rail, report.reference, report.checkout_id) == ("paddle-test", "txn_1", "chk_1")
        assert (report.state, report.final, len(report.payments)) == (state, final, int(state == "settled"))
        assert notice.reference == "txn_1"

    def test_nobody_is_asked_for_ever_about_what_nobody_pays(self) -> None:
        later = "2026-03-08T12:00:02Z"
        report = hear(event("transaction.updated", transaction(status="draft"), occurred_at=later)).report
        assert report is not None
        assert (report.state, report.final) == ("open", True)

    @pytest.mark.parametrize(
        "origin", ["subscription_recurring", "subscription_charge", "subscription_update", "something_new"]
    )
    def test_what_a_subscription_bills_is_no_checkout(self, origin: str) -> None:
        notice = hear(event("transaction.completed", transaction(origin=origin, subscription_id="sub_1")))
        assert (notice.report, notice.reference) == (None, None)
        (bill,) = notice.facts
        assert (bill.is_first, bill.subscription_reference, bill.payment.reference) == (False, "sub_1", "txn_1")

    @pytest.mark.parametrize("data", [None, {}, {"checkout_id": 5}, {"checkout_id": ""}, [], "x"])
    def test_what_somebody_sold_otherwise_is_no_checkout_of_ours(self, data: Any) -> None:
        notice = hear(event("transaction.completed", transaction(custom_data=data)))
        assert (notice.report, notice.reference) == (None, None)
        assert notice.facts[0].payment.amount == Money(1_200, "USD")

    def test_an_unpaid_checkout_is_no_bill(self) -> None:
        for status in ("draft", "ready", "canceled"):
            assert hear(event("transaction.updated", transaction(status=status, billed_at=None))).facts == ()

    @pytest.mark.parametrize(
        ("status", "expected"),
        [("ready", "open"), ("billed", "open"), ("past_due", "open"), ("completed", "paid"), ("canceled", "void")],
    )
    def test_bills(self, status: str, expected: str) -> None:
        fact = told("transaction.updated", transaction(status=status, subscription_id="sub_1"))
        assert (fact.status, fact.number, fact.paid_at is not None) == (expected, "325-10566", expected == "paid")
        assert fact.details["payout_totals"] == {"total": "1200", "earnings": "890", "currency_code": "USD"}
        assert fact.details["status"] == status

    @pytest.mark.parametrize(
        ("mode", "settings", "lines", "counted"),
        [
            ("account_setting", SETTINGS, ((1_200, 200),), 1_200),
            ("account_setting", EXTERNAL, ((1_200, 200),), 1_000),
            ("internal", EXTERNAL, ((1_200, 200),), 1_200),
            ("external", SETTINGS, ((1_200, 200), (240, 40)), 1_200),
            ("location", SETTINGS, ((1_200, 200),), 1_200),
        ],
    )
    def test_what_counts_is_our_price(self, mode: str, settings: Any, lines: Any, counted: int) -> None:
        fact = told("transaction.completed", transaction(*lines, mode=mode), settings)
        assert fact.payment.amount == Money(counted, "USD")
        assert sum(line.amount for line in fact.lines) == counted

    def test_prices_of_both_kinds(self) -> None:
        data = transaction((1_200, 200), (600, 100))
        data["items"][1]["price"]["tax_mode"] = "external"
        assert told("transaction.completed", data).payment.amount == Money(1_700, "USD")

    def test_the_order_of_news_does_not_matter(self) -> None:
        """The last report by state, and the bill by time, are the same whatever comes first."""
        draft = transaction(status="draft", payments=[], billed_at=None, invoice_number=None)
        paid = transaction(status="paid", invoice_number=None, billed_at="2026-03-01T12:05:01.500000999Z")
        bodies = [
            event("transaction.created", draft, occurred_at="2026-03-01T12:00:02Z"),
            event("transaction.ready", draft | {"status": "ready"}, occurred_at="2026-03-01T12:04:00Z"),
            event("transaction.paid", paid, occurred_at="2026-03-01T12:05:02Z"),
            event("transaction.completed", transaction(), occurred_at="2026-03-01T12:05:04Z"),
            event("subscription.created", subscription(transaction_id="txn_1"), occurred_at="2026-03-01T12:05:03Z"),
        ]
        ends = set()
        for order in permutations(hear(body) for body in bodies):
            reports = [notice.report for notice in order if notice.report is not None]
            money = {(fact.reference, fact.amount, fact.occurred_at) for at in reports for fact in at.payments}
            bills = [fact for notice in order for fact in notice.facts if isinstance(fact, InvoiceFact)]
            last = max(bills, key=lambda bill: bill.occurred_at)
            ends.add((frozenset(money), max(at.state for at in reports), last.number))
        assert ends == {
            (
                frozenset({("txn_1", Money(1_200, "USD"), datetime(2026, 3, 1, 12, 5, 0, 123456, tzinfo=UTC))}),
                "settled",
                "325-10566",
            )
        }


class TestSubscriptions:
    def test_all_of_it(self) -> None:
        fact = told("subscription.created", subscription(transaction_id="txn_1"))
        assert isinstance(fact, SubscriptionFact)
        assert (fact.reference, fact.checkout_id, fact.status, fact.asset) == ("sub_1", "chk_1", "active", "USD")
        assert fact.occurred_at == datetime(2026, 3, 1, 12, 5, 3, 123456, tzinfo=UTC)
        assert (fact.period_start, fact.period_end) == (
            datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 4, 1, 12, tzinfo=UTC),
        )  # fmt: skip
        assert (fact.billing_interval, fact.interval_count, fact.trial_end) == ("month", 1, None)
        (item,) = fact.items
        assert (item.reference, item.price_reference, item.price_id, item.quantity) == (None, "pri_1", "pri_ours", 2)
        assert item.price_snapshot == subscription()["items"][0]["price"]
        assert item.product_snapshot == {"id": "pro_1", "name": "Éditeur"}
        assert fact.raw["transaction_id"] == "txn_1"

    def test_scheduled_changes(self) -> None:
        change = {"action": "cancel", "effective_at": "2026-04-01T12:00:00Z", "resume_at": None}
        fact = told("subscription.updated", subscription(scheduled_change=change))
        assert (fact.scheduled_change.action, fact.canceled_at) == ("cancel", None)
        assert fact.ends_at == fact.scheduled_change.effective_at == fact.period_end
        change |= {"action": "pause", "resume_at": "2026-06-01T00:00:00Z"}
        fact = told("subscription.updated", subscription(scheduled_change=change))
        assert (fact.ends_at, fact.scheduled_change.resume_at) == (None, datetime(2026, 6, 1, tzinfo=UTC))
        fact = told("subscription.updated", subscription(scheduled_change=change | {"action": "upgrade"}))
        assert fact.scheduled_change is None

    def test_ends(self) -> None:
        ended = "2026-03-05T00:00:00Z"
        data = subscription(status="canceled", canceled_at=ended, current_billing_period=None, next_billed_at=None)
        fact = told("subscription.canceled", data)
        assert fact.ends_at == fact.canceled_at == datetime(2026, 3, 5, tzinfo=UTC)
        assert (fact.period_end, fact.next_billed_at) == (None, None)

    def test_what_is_new_in_it_is_passed_over(self) -> None:
        data = subscription(consent_requirements=[], management_urls={}, collection_mode="barter")
        data["items"][0]["status"] = "asleep"
        fact = told("subscription.updated", data)
        assert (fact.collection_mode, fact.items[0].status) == ("automatic", "active")


class TestAdjustments:
    @pytest.mark.parametrize(
        ("action", "status", "expected"),
        [
            ("refund", "pending_approval", "pending"),
            ("refund", "approved", "processed"),
            ("refund", "rejected", "failed"),
            ("credit", "approved", "processed"),
            ("credit", "reversed", "failed"),
        ],
    )
    def test_refunds(self, action: str, status: str, expected: str) -> None:
        reason = "did not like it [rfd_01kjmma2g0mrwp8qjj7cfew8c7]"
        fact = told("adjustment.updated", adjustment(100, action=action, status=status, reason=reason))
        assert isinstance(fact, RefundFact)
        assert (fact.reference, fact.refund_id, fact.payment_reference) == (
            "adj_1", "rfd_01kjmma2g0mrwp8qjj7cfew8c7", "txn_1",
        )  # fmt: skip
        assert (fact.kind, fact.status, fact.amount, fact.reason) == (action, expected, 100, "did not like it")
        assert (fact.error is None) == (expected != "failed")
        assert fact.details["type"] == "partial"

    def test_those_made_in_paddles_dashboard(self) -> None:
        fact = told("adjustment.created", adjustment(100, reason="fraud [sic]"))
        assert (fact.refund_id, fact.reason) == (None, "fraud [sic]")

    @pytest.mark.parametrize(
        ("action", "status", "expected"),
        [
            ("chargeback_warning", "approved", "warning"),
            ("chargeback_warning", "reversed", "won"),
            ("chargeback_warning_reverse", "approved", "won"),
            ("chargeback", "approved", "lost"),
            ("chargeback", "reversed", "won"),
            ("chargeback_reverse", "approved", "won"),
        ],
    )
    def test_disputes(self, action: str, status: str, expected: str) -> None:
        fact = told("adjustment.created", adjustment(1_200, action=action, status=status))
        assert isinstance(fact, DisputeFact)
        assert (fact.reference, fact.payment_reference, fact.status) == ("txn_1", "txn_1", expected)
        assert (fact.amount, fact.asset, fact.details["id"]) == (1_200, "USD", "adj_1")

    @pytest.mark.parametrize("action", ["credit_reverse", "something_new"])
    def test_actions_without_facts(self, action: str) -> None:
        notice = hear(event("adjustment.created", adjustment(100, action=action)))
        assert (notice.facts, notice.is_known) == ((), True)

    def test_tax_in_them_raises_a_question(self) -> None:
        body = event("adjustment.created", adjustment(120, 20))
        notice = hear(body, EXTERNAL)
        assert (notice.facts, notice.is_known) == ((), True)
        assert isinstance(notice.question, HttpRequest)
        assert (notice.question.method, notice.question.url) == (
            "GET", "https://sandbox-api.paddle.com/transactions/txn_1",
        )  # fmt: skip
        both = transaction((1_200, 200), (600, 100))
        both["items"][1]["price"]["tax_mode"] = "external"
        for data, settings, counted in (
            (transaction(), SETTINGS, 120),
            (transaction(), EXTERNAL, 100),
            (both, SETTINGS, 120),  # the item that it is of has its tax in it
        ):
            (fact,) = RAIL.read_answer(settings, body, answer(data), NOW).facts
            assert (fact.amount, fact.reference) == (counted, "adj_1")

    def test_its_answer_may_be_none(self) -> None:
        body = event("adjustment.created", adjustment(120, 20))
        with pytest.raises(RailRefused):
            RAIL.read_answer(SETTINGS, body, refusal(404, "not_found"), NOW)
        with pytest.raises(RailUnavailable):
            RAIL.read_answer(SETTINGS, body, refusal(500, "internal_error"), NOW)


class TestCopies:
    def test_a_customer_that_paddle_made(self) -> None:
        data = {"id": "ctm_1", "status": "active", "custom_data": None, "name": None, "email": "Ada@Example.com"}
        fact = told("customer.created", data)
        assert isinstance(fact, RailCopy)
        assert (fact.kind, fact.reference, fact.our_id, fact.active) == ("customer", "ctm_1", None, True)
        assert fact.values == {"name": None, "email": "ada@example.com", "active": True, "metadata": {}}
        assert fact.raw == data

    def test_ours_that_somebody_archived_there(self) -> None:
        data = {
            "id": "pro_1", "status": "archived", "custom_data": {"counterfoil_id": "pro_ours", "line": 5}, "name": "A",
            "tax_category": "saas", "description": None, "image_url": "",
        }  # fmt: skip
        fact = told("product.updated", data)
        assert (fact.our_id, fact.active) == ("pro_ours", False)
        assert fact.values == {
            "name": "A", "description": "", "image_url": None, "tax_category": "saas", "active": False,
            "metadata": {"line": 5},
        }  # fmt: skip


def test_facts_can_be_kept_as_json() -> None:
    for kind, data in (("transaction.completed", transaction()), ("subscription.created", subscription())):
        fact = told(kind, data)
        assert msgspec.json.decode(msgspec.json.encode(fact), type=type(fact)) == fact
