"""What Stripe's events, answers and older shapes are in our terms: values in, values out."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rails.stripe_values import (
    AT,
    DAY,
    NOW,
    OURS,
    RAIL,
    SETTINGS,
    answer,
    event,
    fact,
    invoice,
    read,
    refund,
    session,
    subscription,
)

from counterfoil.kernel.money import Money
from counterfoil.rails.base import PaymentFact, RailRefused, RailUnavailable
from counterfoil.rails.facts import InvoiceFact, ItemFact, SubscriptionFact
from counterfoil.rails.mirror import SubscriptionChange
from counterfoil.rails.stripe.webhooks import TYPES

FIXTURES = Path(__file__).parents[3] / "shared" / "specs" / "stripe-fixtures3.json"


class TestSessions:
    def test_paid(self) -> None:
        notice = read("checkout.session.completed", session(customer="cus_1"))
        report = notice.report
        assert report is not None
        assert (notice.reference, report.rail, report.reference, report.checkout_id) == (
            "cs_1",
            "stripe-test",
            "cs_1",
            "chk_1",
        )
        assert (report.state, report.final, report.accepted_short) == ("settled", True, 0)
        assert report.payments == (
            PaymentFact(reference="pi_1", amount=Money(1500, "EUR"), occurred_at=NOW, payer="cus_1"),
        )

    def test_both_events_of_a_purchase_say_the_same_of_its_money(self) -> None:
        intent = {"id": "pi_1", "status": "succeeded", "amount_received": 1500, "currency": "eur", "customer": None}
        intent["metadata"] = {"checkout_id": "chk_1"}
        one = read("checkout.session.completed", session()).report
        two = read("payment_intent.succeeded", intent)
        assert one is not None
        assert two.report is not None
        assert two.report.payments == one.payments
        assert (two.report.reference, two.report.checkout_id, two.reference) == ("", "chk_1", None)

    @pytest.mark.parametrize(
        ("kind", "changes", "state", "final"),
        [
            ("completed", {"payment_status": "unpaid"}, "processing", False),
            ("async_payment_succeeded", {}, "settled", True),
            ("async_payment_failed", {"payment_status": "unpaid"}, "failed", True),
            ("expired", {"status": "expired", "payment_status": "unpaid"}, "expired", True),
            ("completed", {"payment_status": "no_payment_required", "amount_total": 0}, "settled", True),
            ("completed", {"payment_status": "something_new"}, "processing", False),
        ],
    )
    def test_states(self, kind: str, changes: dict[str, Any], state: str, final: bool) -> None:
        report = read(f"checkout.session.{kind}", session(**changes)).report
        assert report is not None
        assert (report.state, report.final, len(report.payments)) == (state, final, int(state == "settled"))

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({}, "pi_1"),
            ({"payment_intent": {"id": "pi_2", "created": AT}}, "pi_2"),
            ({"payment_intent": None, "payment_status": "no_payment_required", "amount_total": 0}, "cs_1"),
            ({"mode": "subscription", "invoice": "in_1", "payment_intent": None}, "in_1"),
            ({"mode": "subscription", "invoice": {"id": "in_2"}}, "in_2"),
        ],
    )
    def test_the_name_of_the_money(self, changes: dict[str, Any], name: str) -> None:
        report = read("checkout.session.completed", session(**changes)).report
        assert report is not None
        assert [payment.reference for payment in report.payments] == [name]

    def test_a_discount_of_stripe_is_accepted(self) -> None:
        changes = {"amount_total": 1200, "total_details": {"amount_discount": 300}}
        report = read("checkout.session.completed", session(**changes)).report
        assert report is not None
        assert (report.payments[0].amount.amount, report.accepted_short) == (1200, 300)

    def test_what_is_not_ours(self) -> None:
        notice = read("checkout.session.completed", session(metadata={}, client_reference_id="x"))
        assert (notice.reference, notice.report, notice.is_known) == (None, None, True)
        with pytest.raises(RailRefused):
            RAIL.read_report(SETTINGS, (answer(session(metadata=None)),))
        intent = {"id": "pi_1", "status": "succeeded", "amount_received": 900, "currency": "eur", "metadata": {}}
        assert read("payment_intent.succeeded", intent).report is None

    def test_asked_for_it_is_dated_by_what_paid(self) -> None:
        expanded = session(payment_intent={"id": "pi_1", "created": AT - 30, "status": "succeeded"})
        (payment,) = RAIL.read_report(SETTINGS, (answer(expanded),)).payments
        assert payment.occurred_at == NOW - timedelta(seconds=30)
        bill = {"id": "in_1", "status": "paid", "status_transitions": {"paid_at": AT - 20}}
        expanded = session(mode="subscription", payment_intent=None, invoice=bill)
        (payment,) = RAIL.read_report(SETTINGS, (answer(expanded),)).payments
        assert (payment.reference, payment.occurred_at) == ("in_1", NOW - timedelta(seconds=20))

    @pytest.mark.parametrize(
        "changes",
        [
            {"payment_intent": {"id": "pi_1", "status": "requires_payment_method"}},
            {"mode": "subscription", "invoice": {"id": "in_1", "status": "void"}},
        ],
    )
    def test_asked_for_it_has_failed(self, changes: dict[str, Any]) -> None:
        report = RAIL.read_report(SETTINGS, (answer(session(payment_status="unpaid", **changes)),))
        assert (report.state, report.final) == ("failed", True)

    def test_the_event_that_cannot_be_read_is_kept(self) -> None:
        notice = read("checkout.session.completed", session(currency="zzz"))
        assert (notice.is_known, notice.report) == (False, None)
        assert notice.problem is not None
        assert "zzz" in notice.problem


class TestTypes:
    def test_a_type_that_is_new_to_us(self) -> None:
        notice = read("quote.accepted", {"id": "qt_1"})
        assert (notice.is_known, notice.facts, notice.reference, notice.problem) == (False, (), None, None)

    def test_the_other_mode_proves_nothing(self) -> None:
        notice = read("checkout.session.completed", session(), livemode=True)
        assert (notice.is_known, notice.report, notice.reference) == (False, None, None)

    def test_every_type_we_ask_for_is_read_from_stripe_s_examples(self) -> None:
        if not FIXTURES.exists():
            pytest.skip("Stripe's fixtures are not at hand")
        examples = json.loads(FIXTURES.read_text())["resources"]
        kinds = {"customer.subscription": "subscription", "charge.dispute": "dispute", "charge.refund": "refund"}
        for name in sorted(TYPES):
            stem = name.rpartition(".")[0]
            value = examples[kinds.get(stem, stem)]
            notice = read(name, value)
            assert notice.problem is None, name
            assert notice.is_known, name


END = NOW + timedelta(days=30)


class TestSubscriptions:
    def test_active(self) -> None:
        told = fact("customer.subscription.updated", subscription())
        assert isinstance(told, SubscriptionFact)
        assert (told.reference, told.checkout_id, told.status, told.asset) == ("sub_1", "chk_1", "active", "EUR")
        assert (told.period_start, told.period_end, told.next_billed_at) == (NOW, END, END)
        assert (told.billing_interval, told.interval_count, told.started_at) == ("month", 1, NOW)
        assert (told.customer_reference, told.collection_mode, told.ends_at) == ("cus_1", "automatic", None)
        (item,) = told.items
        assert (item.reference, item.price_reference, item.price_id, item.quantity) == ("si_1", "price_1", "pri_1", 2)

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("incomplete", "incomplete"),
            ("incomplete_expired", "canceled"),
            ("trialing", "trialing"),
            ("past_due", "past_due"),
            ("unpaid", "unpaid"),
            ("paused", "paused"),
            ("canceled", "canceled"),
            ("something_new", "incomplete"),
        ],
    )
    def test_statuses(self, theirs: str, ours: str) -> None:
        assert fact("customer.subscription.updated", subscription(status=theirs)).status == ours

    def test_the_shape_before_2025(self) -> None:
        old = subscription(current_period_start=AT, current_period_end=AT + DAY)
        old["items"] = {"data": [{"id": "si_1", "plan": {"id": "plan_1", "interval": "week", "interval_count": 2}}]}
        told = fact("customer.subscription.updated", old)
        assert (told.period_start, told.period_end) == (NOW, NOW + timedelta(days=1))
        assert (told.billing_interval, told.interval_count) == ("week", 2)
        assert (told.items[0].price_reference, told.items[0].quantity) == ("plan_1", 1)

    def test_what_will_happen(self) -> None:
        ending = fact("customer.subscription.updated", subscription(cancel_at_period_end=True))
        assert (ending.scheduled_change.action, ending.scheduled_change.effective_at) == ("cancel", END)
        assert (ending.status, ending.ends_at, ending.next_billed_at) == ("active", END, None)
        dated = fact("customer.subscription.updated", subscription(cancel_at=AT + DAY))
        assert dated.ends_at == NOW + timedelta(days=1)
        pause = {"behavior": "void", "resumes_at": AT + DAY}
        paused = fact("customer.subscription.updated", subscription(pause_collection=pause))
        assert (paused.status, paused.scheduled_change.action) == ("paused", "resume")
        assert paused.scheduled_change.effective_at == NOW + timedelta(days=1)
        gone = subscription(status="canceled", ended_at=AT + 5, canceled_at=AT)
        told = fact("customer.subscription.deleted", gone)
        assert (told.status, told.scheduled_change, told.canceled_at) == ("canceled", None, NOW)
        assert told.ends_at == NOW + timedelta(seconds=5)

    def test_the_later_of_two_facts_in_one_second(self) -> None:
        kinds = ("created", "updated", "deleted")
        times = [fact(f"customer.subscription.{kind}", subscription()).occurred_at for kind in kinds]
        assert times == sorted(set(times))
        assert times[-1] < NOW + timedelta(seconds=1)

    def test_a_coupon_has_to_be_asked_for(self) -> None:
        data = subscription(discounts=["di_1"])
        notice = read("customer.subscription.updated", data)
        assert (notice.facts, notice.is_known) == ((), True)
        assert notice.question is not None
        assert notice.question.url.endswith("/v1/subscriptions/sub_1?expand%5B%5D=discounts")
        later = subscription(
            status="past_due", discounts=[{"id": "di_1", "source": {"type": "coupon", "coupon": "dsc_1"}}]
        )
        body = event("customer.subscription.updated", data)
        (told,) = RAIL.read_answer(SETTINGS, body, answer(later), NOW).facts
        assert (told.discount_reference, told.status) == ("dsc_1", "active")
        (told,) = RAIL.read_answer(SETTINGS, body, answer({}, 404), NOW).facts
        assert told.discount_reference is msgspec.UNSET  # nobody can say any more, which is not the same as none
        for known in ({"discounts": []}, {"discounts": None, "discount": None}):
            (told,) = read("customer.subscription.updated", subscription(**known)).facts
            assert told.discount_reference is None
        bare = {name: value for name, value in subscription().items() if name != "discounts"}
        assert read("customer.subscription.updated", bare).facts[0].discount_reference is msgspec.UNSET
        with pytest.raises(RailUnavailable):
            RAIL.read_answer(SETTINGS, body, answer({}, 500), NOW)

    @pytest.mark.parametrize("proration", ["full_now", "full_next_period"])
    def test_what_stripe_cannot_change(self, proration: Any) -> None:
        item = ItemFact(reference="si_1", price_reference="price_1", quantity=1)
        for change in (
            SubscriptionChange(action="change", items=(("price_2", 1),), proration=proration),
            SubscriptionChange(action="change"),
        ):
            with pytest.raises(RailRefused):
                RAIL.change_request(SETTINGS, "sub_1", change, (item,), "key")


class TestInvoices:
    def test_paid(self) -> None:
        told = fact("invoice.paid", invoice())
        assert isinstance(told, InvoiceFact)
        paid_at = NOW - timedelta(seconds=1)
        assert told.payment == PaymentFact(
            reference="in_1", amount=Money(1071, "EUR"), occurred_at=paid_at, payer="cus_1"
        )
        assert (told.status, told.amount, told.tax, told.number, told.paid_at) == ("paid", 1071, 171, "A-1", paid_at)
        assert (told.checkout_id, told.is_first, told.subscription_reference, told.customer_reference) == (
            "chk_1",
            True,
            "sub_1",
            "cus_1",
        )
        assert (told.period_start, told.period_end) == (NOW + timedelta(days=1), NOW + timedelta(days=2))
        assert [(each.amount, each.price_reference, each.proration) for each in told.lines] == [
            (-500, None, True),
            (900, "price_1", False),
            (900, "price_1", False),
        ]
        assert (told.hosted_url, told.pdf_url) == ("https://invoice.example/1", "https://invoice.example/1.pdf")
        assert told.details["total"] == 1071

    def test_a_renewal_is_no_checkout_s(self) -> None:
        told = fact("invoice.paid", invoice(billing_reason="subscription_cycle"))
        assert (told.is_first, told.subscription_reference) == (False, "sub_1")

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("draft", "draft"), ("open", "open"), ("uncollectible", "uncollectible"), ("void", "void"), ("new", "open")],
    )
    def test_not_paid(self, theirs: str, ours: str) -> None:
        told = fact("invoice.updated", invoice(status=theirs, status_transitions={}))
        assert (told.status, told.payment, told.paid_at) == (ours, None, None)

    def test_the_later_of_two_facts_in_one_second(self) -> None:
        statuses = ("draft", "open", "uncollectible", "paid")
        times = [fact("invoice.updated", invoice(status=status)).occurred_at for status in statuses]
        assert times == sorted(set(times))

    def test_the_shape_before_2025(self) -> None:
        old = invoice(subscription="sub_2", tax=50, total_taxes=None)
        del old["parent"], old["total_taxes"]
        old["subscription_details"] = {"metadata": {"checkout_id": "chk_2"}}
        old["lines"] = {
            "data": [
                {
                    "type": "subscription",
                    "amount": 900,
                    "period": {"start": AT, "end": AT + DAY},
                    "price": {"id": "price_2", "metadata": {"counterfoil_id": "pri_2"}},
                },
                {"type": "invoiceitem", "amount": 1, "proration": True, "period": {"start": AT, "end": AT + 9 * DAY}},
            ]
        }
        told = fact("invoice.paid", old)
        assert (told.subscription_reference, told.checkout_id, told.tax) == ("sub_2", "chk_2", 50)
        assert (told.period_start, told.period_end) == (NOW, NOW + timedelta(days=1))
        assert (told.lines[0].price_reference, told.lines[0].price_id) == ("price_2", "pri_2")
        assert [each.proration for each in told.lines] == [False, True]


NAMES = (
    "id", "status", "currency", "amount", "amount_due", "amount_paid", "amount_total", "items", "metadata", "lines",
    "discounts", "refunds", "payment_intent", "percent_off", "created", "cancel_at", "pause_collection", "parent",
    "status_transitions", "customer", "unit_amount", "evidence_details", "total_taxes", "invoice", "total_details",
)  # fmt: skip
WHOLE = {
    "checkout.session.completed": session(),
    "payment_intent.succeeded": {
        "id": "pi_1", "status": "succeeded", "amount_received": 1, "currency": "eur",
        "metadata": {"checkout_id": "chk_1"},
    },
    "invoice.paid": invoice(),
    "customer.subscription.updated": subscription(),
    "refund.updated": refund(metadata=OURS),
    "charge.refunded": {"id": "ch_1", "payment_intent": "pi_1", "refunds": [refund()]},
    "charge.dispute.closed": {"id": "dp_1", "amount": 9, "currency": "eur", "status": "won", "charge": "ch_1"},
    "price.updated": {"id": "price_1", "unit_amount": 9, "currency": "eur"},
    "coupon.deleted": {"id": "dsc_1", "percent_off": 12.5},
    "customer.updated": {"id": "cus_1"},
    "product.created": {"id": "prod_1"},
}  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "data", "amount"]), inner),
    max_leaves=4,
)


@given(kind=st.sampled_from(sorted(WHOLE)), odd=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3))
def test_an_object_that_makes_no_sense_is_kept_with_why(kind: str, odd: dict[str, Any]) -> None:
    notice = RAIL.read_event(SETTINGS, event(kind, {**WHOLE[kind], **odd}))
    assert (notice.problem is None) == notice.is_known


def test_whole_objects_make_sense() -> None:
    for kind, value in WHOLE.items():
        assert RAIL.read_event(SETTINGS, event(kind, value)).problem is None
