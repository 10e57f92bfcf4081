"""Refunds, disputes and copies at Stripe: values in, values out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.rails.stripe_values import (
    AT,
    DAY,
    NOW,
    OURS,
    RAIL,
    SETTINGS,
    address,
    answer,
    customer,
    discount,
    event,
    fact,
    invoice,
    listed,
    price,
    read,
    refund,
    refund_intent,
)

from counterfoil.rails.base import HttpRequest, RailRefused, RailUnavailable, RefundIntent, RefundUnderWay
from counterfoil.rails.facts import DisputeFact, RailCopy, RefundFact
from counterfoil.rails.mirror import MoreToAsk
from counterfoil.rails.stripe import StripeSettings


class TestRefunds:
    def test_ours_needs_no_question(self) -> None:
        told = fact("refund.created", refund(metadata=OURS))
        assert isinstance(told, RefundFact)
        assert (told.reference, told.refund_id, told.payment_reference) == ("re_1", "rfd_1", "in_1")
        assert (told.amount, told.asset, told.status, told.kind) == (300, "EUR", "processed", "refund")

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("pending", "pending"), ("requires_action", "pending"), ("failed", "failed"), ("canceled", "failed")],
    )
    def test_statuses(self, theirs: str, ours: str) -> None:
        told = fact("refund.updated", refund(metadata=OURS, status=theirs, failure_reason="lost_or_stolen_card"))
        assert (told.status, told.error) == (ours, "lost_or_stolen_card")

    @pytest.mark.parametrize(("found", "name"), [([{"invoice": "in_9"}], "in_9"), ([], "pi_1")])
    def test_one_made_there_asks_for_its_invoice(self, found: list[dict[str, Any]], name: str) -> None:
        notice = read("refund.created", refund())
        assert notice.question is not None
        assert "payment%5Bpayment_intent%5D=pi_1" in notice.question.url
        told = RAIL.read_answer(SETTINGS, event("refund.created", refund()), listed(*found), NOW)
        assert [each.payment_reference for each in told.facts] == [name]

    def test_a_charge_s_refunds(self) -> None:
        assert read("charge.refunded", {"id": "ch_1"}).facts == ()
        old = {"id": "ch_1", "payment_intent": "pi_1", "refunds": {"data": [refund(), refund(id="re_2")]}}
        assert read("charge.refunded", old).question is not None
        told = read("charge.refunded", {**old, "metadata": {"checkout_id": "chk_1"}})
        assert [(each.reference, each.payment_reference) for each in told.facts] == [("re_1", "pi_1"), ("re_2", "pi_1")]

    def wanted(self, name: str = "in_1", **details: Any) -> RefundIntent:
        return msgspec.structs.replace(refund_intent("rfd_1", name, 300), details=details)

    def test_an_invoice_s_payment_is_asked_for(self) -> None:
        def paid(name: str, amount: int, status: str = "paid") -> dict[str, Any]:
            payment = {"type": "payment_intent", "payment_intent": name}
            return {"id": f"inpay_{name}", "status": status, "amount_paid": amount, "payment": payment}

        question = RAIL.refund_question(SETTINGS, self.wanted())
        assert question is not None
        assert question.url == "https://api.stripe.com/v1/invoice_payments?invoice=in_1&limit=100"
        response = listed(paid("pi_a", 0, "canceled"), paid("pi_b", 200), paid("pi_c", 700))
        known = RAIL.read_refund_question(SETTINGS, self.wanted(), response)
        assert known.details == {"payment_intent": "pi_c"}
        assert b"payment_intent=pi_c&amount=300" in RAIL.refund_request(SETTINGS, known).body
        with pytest.raises(RailRefused):
            RAIL.read_refund_question(SETTINGS, self.wanted(), listed())
        with pytest.raises(RailUnavailable):
            RAIL.refund_request(SETTINGS, self.wanted())
        assert RAIL.refund_question(SETTINGS, self.wanted("pi_1")) is None
        with pytest.raises(RailRefused):
            RAIL.refund_request(SETTINGS, self.wanted("cs_1"))

    def test_what_became_of_one(self) -> None:
        known = self.wanted("pi_1")
        assert RAIL.read_refunded(SETTINGS, answer(refund(status="pending"))) == RefundUnderWay(reference="re_1")
        with pytest.raises(RailRefused, match="expired or canceled card"):
            RAIL.read_refunded(SETTINGS, answer(refund(status="failed", failure_reason="expired_or_canceled_card")))
        assert RAIL.read_found_refund(SETTINGS, known, listed(refund(metadata={"refund_id": "other"}))) is None
        with pytest.raises(MoreToAsk) as caught:
            RAIL.read_found_refund(SETTINGS, known, listed(refund(), has_more=True))
        assert caught.value.request.url.endswith("payment_intent=pi_1&limit=100&starting_after=re_1")


class TestDisputes:
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("warning_needs_response", "warning"),
            ("warning_closed", "won"),
            ("prevented", "won"),
            ("needs_response", "needs_response"),
            ("under_review", "under_review"),
            ("won", "won"),
            ("lost", "lost"),
            ("something_new", "needs_response"),
        ],
    )
    def test_statuses(self, theirs: str, ours: str) -> None:
        dispute = {"id": "dp_1", "amount": 900, "currency": "eur", "status": theirs, "charge": "ch_1"}
        dispute |= {"reason": "fraudulent", "evidence_details": {"due_by": AT + DAY}, "payment_intent": None}
        told = fact("charge.dispute.updated", dispute)
        assert isinstance(told, DisputeFact)
        assert (told.status, told.payment_reference, told.amount, told.reason) == (ours, "ch_1", 900, "fraudulent")
        assert told.evidence_due_at == NOW + timedelta(days=1)


class TestCopies:
    @pytest.mark.parametrize(
        ("subject", "why"),
        [
            (price(asset="SAT"), "currencies"),
            (discount(kind="set_price"), "set price"),
            (discount(kind="free"), "free"),
            (discount(kind="flat_per_seat"), "flat per seat"),
            (discount(price_references=("price_1",)), "single prices"),
            (discount(active=False), "archived"),
            (discount(kind="flat", asset=None), "currency"),
        ],
    )
    def test_what_stripe_cannot_represent(self, subject: Any, why: str) -> None:
        with pytest.raises(RailRefused, match=why):
            RAIL.create_request(SETTINGS, subject, "key")

    def test_addresses_are_their_customer_s(self) -> None:
        with pytest.raises(RailRefused):
            RAIL.create_request(SETTINGS, address(), "key")

    @pytest.mark.parametrize(
        ("recurring", "periods", "duration"),
        [
            (False, None, "duration=once"),
            (True, 1, "duration=once"),
            (True, None, "duration=forever"),
            (True, 6, "duration=repeating&duration_in_months=6"),
        ],
    )
    def test_how_long_a_coupon_lasts(self, recurring: bool, periods: int | None, duration: str) -> None:
        request = RAIL.create_request(SETTINGS, discount(recurring=recurring, max_periods=periods), "key")
        assert duration.encode() in request.body

    def test_a_code_that_stripe_does_not_take(self) -> None:
        copy = RailCopy(kind="discount", reference="dsc_1", our_id=None, occurred_at=None, active=True, values={})
        assert RAIL.follow_up_request(SETTINGS, discount(code=None), copy, "key") is None
        assert RAIL.follow_up_request(SETTINGS, price(), copy, "key") is None
        with pytest.raises(RailRefused, match="letters"):
            RAIL.follow_up_request(SETTINGS, discount(code="50 %"), copy, "key")

    def test_events(self) -> None:
        told = fact("price.updated", {"id": "price_1", "lookup_key": "pri_1", "active": False, "metadata": {}})
        assert isinstance(told, RailCopy)
        assert (told.kind, told.reference, told.our_id, told.active, told.gone) == (
            "price",
            "price_1",
            "pri_1",
            False,
            False,
        )
        gone = fact("product.deleted", {"id": "prod_1", "active": True, "metadata": {"counterfoil_id": "pro_1"}})
        assert (gone.our_id, gone.active, gone.gone) == ("pro_1", False, True)
        assert read("product.created", {"id": "prod_1", "metadata": {"counterfoil_line": "chk_1"}}).facts == ()

    def test_a_customer_that_was_made_twice(self) -> None:
        ours = customer(id="cus_1")
        mark = {"metadata": {"counterfoil_id": "cus_1"}}
        found = listed({"id": "b", "created": 2, **mark}, {"id": "a", "created": 1, **mark}, {"id": "c", "created": 0})
        copy = RAIL.read_found_copy(SETTINGS, ours, found)
        assert copy is not None
        assert copy.reference == "a"
        assert RAIL.read_found_copy(SETTINGS, ours, listed()) is None
        with pytest.raises(RailUnavailable):
            RAIL.read_found_copy(SETTINGS, ours, answer({}, 401))

    def test_what_we_cannot_count_is_listed_all_the_same(self) -> None:
        odd = {"id": "price_9", "currency": "usdc", "unit_amount": 5, "metadata": {}}
        copies, after = RAIL.read_list(SETTINGS, "price", listed(odd, {"id": "price_8"}, has_more=True))
        assert [each.values["unit_amount"] for each in copies] == [None, None]
        assert after == "price_8"


def test_rates() -> None:
    live = StripeSettings(api_key="sk_live_x", livemode=True)
    assert (RAIL.rate(SETTINGS), RAIL.rate(live)) == ((20, 1, 8, False), (80, 1, 8, False))


def test_every_question_is_a_get() -> None:
    asked: list[HttpRequest | None] = [
        read("refund.created", refund()).question,
        read("invoice.paid", invoice(discounts=["di_1"])).question,
    ]
    assert [each is not None and each.method for each in asked] == ["GET", "GET"]
