"""The Stripe rail against a Stripe that remembers: everything it asks, and every event that comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import stripe
from tests.peers.stripe_peers import StripePeer, running_stripe, stripe_available
from tests.rails.stripe_values import (
    KINDS,
    RAIL,
    customer,
    discount,
    intent,
    line,
    monthly,
    price,
    product,
    refund_intent,
    subjects,
)

from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutReport, Notice, RailRefused, RailUnavailable, RefundDone
from counterfoil.rails.facts import DisputeFact, InvoiceFact, RailCopy, RefundFact, SubscriptionFact
from counterfoil.rails.mirror import Customer, Discount, Price, Product, RailBusy, SubscriptionChange
from counterfoil.rails.stripe import StripeSettings, connect
from counterfoil.rails.stripe.webhooks import TYPES

# One worker runs the module, so that each stand-in starts once.
pytestmark = pytest.mark.xdist_group("stripe-flows")

SECRET = "whsec_flow"
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[StripePeer]:
    if reason := stripe_available():
        pytest.skip(reason)
    with running_stripe() as peer:
        yield peer


@pytest.fixture
def peer(server: StripePeer) -> Iterator[StripePeer]:
    account = server.fresh()
    yield account
    account.close()


def settings(peer: StripePeer) -> StripeSettings:
    return StripeSettings(base_url=peer.url, api_key=peer.api_key, webhook_secrets=(SECRET,), livemode=peer.livemode)


def notices(peer: StripePeer, since: int = 0) -> list[Notice]:
    """What all events say, once all questions were asked."""
    config, read = settings(peer), []
    for event in peer.events(since):
        headers, body = peer.sign(event, SECRET)
        notice = RAIL.read_webhook(config, headers, body, datetime.now(UTC))
        if notice.question is not None:
            notice = RAIL.read_answer(config, body, peer.send(notice.question), datetime.now(UTC))
        assert notice.problem is None
        read.append(notice)
    return read


def facts(peer: StripePeer, kind: type[Any], since: int = 0) -> list[Any]:
    return [fact for notice in notices(peer, since) for fact in notice.facts if isinstance(fact, kind)]


def reports(peer: StripePeer) -> list[CheckoutReport]:
    return [notice.report for notice in notices(peer) if notice.report is not None]


def make(peer: StripePeer, subject: Product | Price | Discount | Customer) -> RailCopy:
    kinds: Any = {Product: "product", Price: "price", Discount: "discount", Customer: "customer"}
    config = settings(peer)
    request = RAIL.create_request(config, subject, f"key-{next(NUMBERS)}")
    return RAIL.read_copy(config, kinds[type(subject)], peer.send(request))


def subscribed(peer: StripePeer, *, card: str | None = None, trial_days: int = 0) -> SubscriptionFact:
    """A subscription, bought by a checkout, as Stripe has it."""
    make(peer, product())
    copy = make(peer, price())
    config = settings(peer)
    wanted = intent(
        monthly(price_reference=copy.reference, trial_days=trial_days, total=0 if trial_days else 900),
    )
    opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, wanted)))
    session = peer.pay(opened.reference, **({} if card is None else {"card": card}))
    return state(peer, session["subscription"])


def state(peer: StripePeer, name: str) -> SubscriptionFact:
    config = settings(peer)
    return RAIL.read_subscription(config, peer.send(RAIL.subscription_request(config, name)))


def change(peer: StripePeer, fact: SubscriptionFact, **wanted: Any) -> SubscriptionFact:
    config, asked = settings(peer), SubscriptionChange(**wanted)
    assert not RAIL.is_changed(asked, fact)
    request = RAIL.change_request(config, fact.reference, asked, fact.items, f"change-{next(NUMBERS)}")
    changed = RAIL.read_subscription(config, peer.send(request))
    assert RAIL.is_changed(asked, changed)
    assert RAIL.is_changed(asked, state(peer, fact.reference))
    return changed


class TestConnect:
    def test_an_account_is_looked_at_and_given_a_webhook_endpoint(self, peer: StripePeer) -> None:
        config = settings(peer)
        account = connect.read_account(peer.send(connect.account_request(config)))
        assert account is not None
        assert (account.charges_enabled, account.id[:5]) == (True, "acct_")
        assert connect.read_balance(peer.send(connect.balance_request(config))) is False
        request = connect.create_webhook_request(config, "https://shop.example/v1/webhooks/stripe-test", "hook-1")
        made = connect.read_webhook_created(peer.send(request))
        assert made.secret is not None
        assert connect.check_secret(made.secret) == made.secret
        assert (made.url, made.enabled) == ("https://shop.example/v1/webhooks/stripe-test", True)
        assert set(made.types) == TYPES
        assert connect.read_webhook_created(peer.send(request)) == made
        client = stripe.StripeClient(peer.api_key, base_addresses={"api": peer.url}).v1
        client.webhook_endpoints.create({"url": "https://other.example/", "enabled_events": ["*"]})
        listed = connect.read_webhooks(peer.send(connect.webhooks_request(config)))
        assert [each.id for each in listed] == [made.id]
        connect.read_webhook_deleted(peer.send(connect.delete_webhook_request(config, made.id)))
        connect.read_webhook_deleted(peer.send(connect.delete_webhook_request(config, made.id)))
        assert connect.read_webhooks(peer.send(connect.webhooks_request(config))) == ()


class TestCheckout:
    def test_a_purchase_is_reported_by_both_events_under_one_name(self, peer: StripePeer) -> None:
        config = settings(peer)
        make(peer, product())
        once = make(peer, price(id="pri_once", interval=None, interval_count=None, unit_amount=1500))
        wanted = intent(
            line(price_reference=once.reference, quantity=2, total=3000),
            line(name="Guide", quantity=3, unit_amount=400, total=1000),
        )
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, wanted)))
        assert opened.url.startswith("https://")
        (before,) = (peer.send(each) for each in RAIL.report_requests(config, opened.reference))
        report = RAIL.read_report(config, (before,))
        assert (report.state, report.payments, report.final) == ("open", (), False)
        session = peer.pay(opened.reference)
        told = reports(peer)
        assert {(each.reference, each.checkout_id, each.state) for each in told} == {
            (opened.reference, "chk_test", "settled"),
            ("", "chk_test", "settled"),
        }
        (after,) = (peer.send(each) for each in RAIL.report_requests(config, opened.reference))
        told.append(RAIL.read_report(config, (after,)))
        names = {(fact.reference, fact.amount, fact.payer) for each in told for fact in each.payments}
        assert names == {(session["payment_intent"], Money(4000, "EUR"), session["customer"])}
        items = peer.look(f"checkout/sessions/{opened.reference}/line_items")["data"]
        assert [(each["description"], each["quantity"], each["amount_total"]) for each in items] == [
            ("Editor", 2, 3000),
            ("Guide × 3", 1, 1000),  # noqa: RUF001
        ]

    def test_an_answer_that_was_lost_is_asked_for_with_the_same_request(self, peer: StripePeer) -> None:
        config = settings(peer)
        wanted = intent(line())
        peer.fail("POST /v1/checkout/sessions", status=500, after=True)
        with pytest.raises(RailUnavailable):
            RAIL.read_opened(config, peer.send(RAIL.open_request(config, wanted)))
        later = msgspec.structs.replace(wanted, now=wanted.now + timedelta(minutes=5))
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, later)))
        assert peer.objects()["sessions"] == [opened.reference]

    def test_other_words_under_the_same_key_leave_the_outcome_open(self, peer: StripePeer) -> None:
        config = settings(peer)
        peer.send(RAIL.open_request(config, intent(line())))
        with pytest.raises(RailUnavailable, match="idempoten"):
            RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line(quantity=2, total=3000)))))

    def test_too_many_requests_say_when_to_come_back(self, peer: StripePeer) -> None:
        config = settings(peer)
        peer.fail("POST /v1/checkout/sessions", status=429, retry_after=7)
        with pytest.raises(RailBusy) as caught:
            RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line()))))
        assert caught.value.retry_after == 7

    def test_a_refused_request_has_stripe_s_words(self, peer: StripePeer) -> None:
        config = settings(peer)
        with pytest.raises(RailRefused, match="price_none"):
            RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line(price_reference="price_none")))))

    def test_a_bank_that_takes_its_time(self, peer: StripePeer) -> None:
        config = settings(peer)
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line()))))
        peer.pay(opened.reference, later=True)
        assert [(each.state, each.final) for each in reports(peer)] == [("processing", False)]
        peer.control(f"sessions/{opened.reference}/settle", paid=False)
        assert [(each.state, each.final) for each in reports(peer)][-1] == ("failed", True)
        responses = tuple(peer.send(each) for each in RAIL.report_requests(config, opened.reference))
        assert RAIL.read_report(config, responses).state == "failed"

    def test_an_expired_session(self, peer: StripePeer) -> None:
        config = settings(peer)
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line()))))
        peer.control(f"sessions/{opened.reference}/expire")
        assert [(each.state, each.final) for each in reports(peer)] == [("expired", True)]

    def test_a_subscription_s_first_money_is_its_invoice_s(self, peer: StripePeer) -> None:
        fact = subscribed(peer)
        assert (fact.status, fact.checkout_id, fact.asset) == ("active", "chk_test", "EUR")
        paid = {each for report in reports(peer) for each in ((p.reference, p.amount) for p in report.payments)}
        bills = [bill for bill in facts(peer, InvoiceFact) if bill.payment is not None]
        assert bills
        assert {(bill.payment.reference, bill.payment.amount) for bill in bills} == paid
        assert paid == {(bills[0].reference, Money(900, "EUR"))}
        assert {bill.checkout_id for bill in bills} == {"chk_test"}
        assert {bill.subscription_reference for bill in bills} == {fact.reference}
        (item,) = fact.items
        assert (item.price_id, item.quantity, item.status) == ("pri_01j8zzzzzzzzzzzzzzzzzzzzz1", 1, "active")
        assert (bills[0].period_start, bills[0].period_end) == (fact.period_start, fact.period_end)
        assert (fact.billing_interval, fact.interval_count, fact.next_billed_at) == ("month", 1, fact.period_end)

    def test_a_trial_begins_with_a_payment_of_nothing_under_one_name(self, peer: StripePeer) -> None:
        fact = subscribed(peer, trial_days=14)
        assert (fact.status, fact.trial_end, fact.items[0].status) == ("trialing", fact.period_end, "trialing")
        told = {(p.reference, p.amount.amount) for report in reports(peer) for p in report.payments}
        bills = {
            (bill.payment.reference, bill.payment.amount.amount)
            for bill in facts(peer, InvoiceFact)
            if bill.payment is not None
        }
        assert told == bills
        assert {amount for _, amount in told} == {0}

    def test_a_coupon_on_a_subscription_is_no_shortfall(self, peer: StripePeer) -> None:
        config = settings(peer)
        make(peer, product())
        copy = make(peer, price())
        coupon = make(peer, discount(amount=2500))
        wanted = intent(monthly(price_reference=copy.reference), discount_reference=coupon.reference)
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, wanted)))
        session = peer.pay(opened.reference)
        (report,) = (each for each in reports(peer) if each.reference)
        assert (report.payments[0].amount, report.accepted_short) == (Money(675, "EUR"), 225)
        assert state(peer, session["subscription"]).discount_reference == coupon.reference
        assert {each.discount_reference for each in facts(peer, SubscriptionFact)} == {coupon.reference}
        (bill,) = {each.reference: each for each in facts(peer, InvoiceFact)}.values()
        assert [each.amount for each in bill.lines] == [675]


class TestSubscriptions:
    def test_renewal_failure_and_recovery(self, peer: StripePeer) -> None:
        fact = subscribed(peer)
        control, since = f"subscriptions/{fact.reference}", len(peer.events())
        peer.control(f"{control}/cycle")
        renewed = state(peer, fact.reference)
        assert renewed.period_start == fact.period_end
        (bill,) = (each for each in facts(peer, InvoiceFact, since) if each.status == "paid")
        assert (bill.billing_reason, bill.is_first, bill.amount) == ("subscription_cycle", False, 900)
        assert (bill.period_start, bill.period_end) == (renewed.period_start, renewed.period_end)
        peer.control(f"{control}/card", card="4000000000000341")
        peer.control(f"{control}/cycle")
        assert state(peer, fact.reference).status == "past_due"
        assert facts(peer, SubscriptionFact)[-1].status == "past_due"
        assert facts(peer, InvoiceFact)[-1].payment is None
        peer.control(f"{control}/recover")
        assert state(peer, fact.reference).status == "active"
        assert facts(peer, InvoiceFact)[-1].status == "paid"

    def test_of_two_facts_of_a_purchase_one_is_the_later(self, peer: StripePeer) -> None:
        fact = subscribed(peer)
        peer.control(f"subscriptions/{fact.reference}/cycle")
        told: dict[tuple[str, datetime], set[str]] = {}
        for each in facts(peer, InvoiceFact) + facts(peer, SubscriptionFact):
            told.setdefault((each.reference, each.occurred_at), set()).add(each.status)
        assert {len(statuses) for statuses in told.values()} == {1}
        seen = max(facts(peer, SubscriptionFact), key=lambda each: each.occurred_at)
        assert (seen.status, seen.period_end) == ("active", state(peer, fact.reference).period_end)

    def test_pause_resume_cancel_keep_change(self, peer: StripePeer) -> None:
        fact = subscribed(peer)
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
        paused = change(peer, fact, action="pause", at_period_end=False, resume_at=until)
        assert paused.status == "paused"
        assert paused.scheduled_change is not None
        assert (paused.scheduled_change.action, paused.scheduled_change.effective_at) == ("resume", until)
        assert facts(peer, SubscriptionFact)[-1].status == "paused"
        active = change(peer, paused, action="resume")
        assert (active.status, active.scheduled_change) == ("active", None)
        ending = change(peer, active, action="cancel")
        assert (ending.status, ending.ends_at, ending.next_billed_at) == ("active", fact.period_end, None)
        assert ending.scheduled_change is not None
        assert ending.scheduled_change.action == "cancel"
        kept = change(peer, ending, action="keep")
        assert (kept.ends_at, kept.scheduled_change) == (None, None)
        better = make(peer, price(id="pri_better", unit_amount=1900))
        moved = change(peer, kept, action="change", items=((better.reference, 2),), proration="now")
        (item,) = moved.items
        assert (item.reference, item.price_reference, item.quantity) == (
            fact.items[0].reference,
            better.reference,
            2,
        )
        bill = facts(peer, InvoiceFact)[-1]
        assert bill.billing_reason == "subscription_update"
        assert any(each.proration for each in bill.lines)
        seats = make(peer, price(id="pri_seats", unit_amount=100))
        wanted = ((better.reference, 1), (seats.reference, 4))
        wider = change(peer, moved, action="change", items=wanted, proration="next_period")
        assert sorted((each.price_reference, each.quantity) for each in wider.items) == sorted(wanted)
        fewer = change(peer, wider, action="change", items=wanted[:1], proration="none")
        assert len(fewer.items) == 1
        coupon = make(peer, discount())
        cheaper = change(peer, fewer, action="change", discount_reference=coupon.reference)
        gone = change(peer, cheaper, action="cancel", at_period_end=False)
        assert (gone.status, gone.items[0].status) == ("canceled", "inactive")
        assert facts(peer, SubscriptionFact)[-1].status == "canceled"

    def test_the_portal(self, peer: StripePeer) -> None:
        config, fact = settings(peer), subscribed(peer)
        assert fact.customer_reference is not None
        request = RAIL.portal_request(config, fact.customer_reference, (), "https://shop.example/account")
        assert RAIL.read_portal(config, peer.send(request)).url.startswith("https://")


class TestRefunds:
    def test_part_of_a_subscription_s_bill(self, peer: StripePeer) -> None:
        config, _ = settings(peer), subscribed(peer)
        (bill,) = peer.objects()["invoices"]
        wanted = refund_intent("rfd_1", bill, 300)
        question = RAIL.refund_question(config, wanted)
        assert question is not None
        known = RAIL.read_refund_question(config, wanted, peer.send(question))
        assert RAIL.refund_question(config, known) is None
        find = RAIL.find_refund_request(config, known)
        assert RAIL.read_found_refund(config, known, peer.send(find)) is None
        peer.fail("POST /v1/refunds", status=500, after=True)
        with pytest.raises(RailUnavailable):
            RAIL.read_refunded(config, peer.send(RAIL.refund_request(config, known)))
        done = RAIL.read_found_refund(config, known, peer.send(find))
        assert isinstance(done, RefundDone)
        assert RAIL.read_refunded(config, peer.send(RAIL.refund_request(config, known))) == done
        assert peer.objects()["refunds"] == [done.reference]
        told = facts(peer, RefundFact)
        assert {
            (each.reference, each.refund_id, each.payment_reference, each.amount, each.asset, each.status)
            for each in told
        } == {(done.reference, "rfd_1", bill, 300, "EUR", "processed")}

    def test_one_made_at_stripe_and_one_that_fails(self, peer: StripePeer) -> None:
        subscribed(peer)
        (bill,) = peer.objects()["invoices"]
        (payment,) = peer.objects()["payment_intents"]
        client = stripe.StripeClient(peer.api_key, base_addresses={"api": peer.url}).v1
        made = client.refunds.create({"payment_intent": payment, "amount": 200})
        told = facts(peer, RefundFact)
        assert {(each.refund_id, each.payment_reference, each.amount) for each in told} == {(None, bill, 200)}
        peer.control(f"refunds/{made.id}/settle", paid=False)
        last = max(facts(peer, RefundFact), key=lambda fact: fact.occurred_at)
        assert (last.status, last.error is not None) == ("failed", True)

    def test_more_than_there_was_is_refused(self, peer: StripePeer) -> None:
        config = settings(peer)
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line()))))
        session = peer.pay(opened.reference)
        wanted = refund_intent("rfd_2", session["payment_intent"], 1501)
        with pytest.raises(RailRefused, match="Stripe answered 400"):
            RAIL.read_refunded(config, peer.send(RAIL.refund_request(config, wanted)))

    @pytest.mark.parametrize(("won", "status"), [(True, "won"), (False, "lost")])
    def test_a_dispute(self, peer: StripePeer, won: bool, status: str) -> None:
        subscribed(peer)
        (bill,) = peer.objects()["invoices"]
        (payment,) = peer.objects()["payment_intents"]
        dispute = peer.control(f"payments/{payment}/dispute")["id"]
        peer.control(f"disputes/{dispute}/close", won=won)
        told = sorted(facts(peer, DisputeFact), key=lambda fact: fact.occurred_at)
        assert {(each.reference, each.payment_reference, each.amount) for each in told} == {(dispute, bill, 900)}
        assert (told[0].status, told[-1].status) == ("needs_response", status)
        assert told[0].evidence_due_at is not None


class TestCopies:
    def test_a_copy_says_what_ours_says_and_is_found_again(self, peer: StripePeer) -> None:
        config = settings(peer)
        for kind, subject in zip(KINDS, subjects(), strict=True):
            find = RAIL.find_copy_request(config, subject)
            assert RAIL.read_found_copy(config, subject, peer.send(find)) is None
            copy = make(peer, subject)
            assert (copy.kind, copy.our_id, copy.active, copy.gone) == (kind, subject.id, True, False)
            wanted = RAIL.expected(config, subject)
            assert {key: copy.values[key] for key in wanted} == wanted
            found = RAIL.read_found_copy(config, subject, peer.send(find))
            assert found is not None
            assert (found.reference, found.values) == (copy.reference, copy.values)
            got = RAIL.read_copy(config, kind, peer.send(RAIL.get_request(config, kind, copy.reference, subject)))
            assert got.values == copy.values
            listed, after = RAIL.read_list(config, kind, peer.send(RAIL.list_request(config, kind, None)))
            assert ([each.reference for each in listed], after) == ([copy.reference], None)
        told = {(fact.kind, fact.our_id) for fact in facts(peer, RailCopy)}
        assert told == {(kind, subject.id) for kind, subject in zip(KINDS, subjects(), strict=True)}

    def test_an_attempt_that_was_lost_makes_no_second_object(self, peer: StripePeer) -> None:
        config = settings(peer)
        for kind, subject in zip(KINDS, subjects(), strict=True):
            request = RAIL.create_request(config, subject, f"make-{kind}")
            peer.fail("POST /v1/", status=500, after=True)
            with pytest.raises(RailUnavailable):
                RAIL.read_copy(config, kind, peer.send(request))
            again = RAIL.read_copy(config, kind, peer.send(request))
            found = RAIL.read_found_copy(config, subject, peer.send(RAIL.find_copy_request(config, subject)))
            assert found is not None
            assert found.reference == again.reference
        made = peer.objects()
        assert [len(made[kind]) for kind in ("products", "prices", "coupons", "customers")] == [1, 1, 1, 1]

    def test_changes_and_ends(self, peer: StripePeer) -> None:
        config = settings(peer)
        names = {kind: make(peer, subject).reference for kind, subject in zip(KINDS, subjects(), strict=True)}
        changed: tuple[Any, ...] = (
            product(name="Editor 2", description="", image_url=None, active=False),
            price(name="By month", active=False),
            discount(description="Summer"),
            customer(name=None, email="new@shop.example", locale="fr"),
        )
        for kind, subject in zip(KINDS, changed, strict=True):
            request = RAIL.update_request(config, subject, names[kind], f"change-{kind}")
            assert request is not None
            copy = RAIL.read_copy(config, kind, peer.send(request))
            wanted = RAIL.expected(config, subject)
            assert {key: copy.values[key] for key in wanted} == wanted
            assert copy.active is subject.active
        request = RAIL.update_request(config, discount(active=False), names["discount"], "end")
        assert request is not None
        copy = RAIL.read_copy(config, "discount", peer.send(request))
        assert (copy.reference, copy.gone) == (names["discount"], False)  # nothing there gives it but its code
        last = max(
            (each for each in facts(peer, RailCopy) if each.kind == "discount"), key=lambda each: each.occurred_at
        )
        assert (last.gone, last.our_id) == (False, discount().id)

    def test_a_discount_s_code_follows_its_coupon(self, peer: StripePeer) -> None:
        config, subject = settings(peer), discount()
        copy = make(peer, subject)
        request = RAIL.follow_up_request(config, subject, copy, "key")
        assert request is not None
        made = RAIL.read_follow_up(config, peer.send(request))
        code = peer.look(f"promotion_codes/{made}")
        assert (code["code"], code["promotion"]["coupon"], code["active"]) == ("SPRING-1", copy.reference, True)
        with pytest.raises(RailRefused, match="already exists"):
            RAIL.read_follow_up(config, peer.send(RAIL.follow_up_request(config, subject, copy, "other") or request))


class TestCatchingUp:
    def test_the_payments_of_a_day_are_those_the_events_told(self, peer: StripePeer) -> None:
        config, fact = settings(peer), subscribed(peer)
        opened = RAIL.read_opened(config, peer.send(RAIL.open_request(config, intent(line(), checkout_id="chk_other"))))
        peer.pay(opened.reference)
        peer.control(f"subscriptions/{fact.reference}/cycle")
        told = {each.reference: each.amount for report in reports(peer) for each in report.payments}
        told |= {each.reference: each.payment.amount for each in facts(peer, InvoiceFact) if each.payment is not None}
        now = datetime.now(UTC)
        request = RAIL.payments_request(config, now - timedelta(days=1), now + timedelta(minutes=1), None)
        paid, after = RAIL.read_payments(config, peer.send(request))
        assert {each.reference: each.amount for each in paid} == told
        assert (len(paid), after) == (3, None)
        empty = RAIL.payments_request(config, now + timedelta(days=1), now + timedelta(days=2), None)
        assert RAIL.read_payments(config, peer.send(empty)) == ((), None)

    def test_events_that_were_missed_are_listed(self, peer: StripePeer) -> None:
        config = settings(peer)
        for number in range(120):
            peer.client.post(
                f"{peer.url}/v1/customers",
                headers={"authorization": f"Bearer {peer.api_key}"},
                data={"name": f"Customer {number}"},
            )
        bodies: list[bytes] = []
        after: str | None = "evt_known_from_before"
        while True:
            request = RAIL.events_request(config, after, datetime.now(UTC) - timedelta(days=1))
            page, after = RAIL.read_events(config, peer.send(request))
            bodies = [*page, *bodies]
            if after is None:
                break
        read = [RAIL.read_event(config, body) for body in bodies]
        assert [each.event_id for each in read] == [each["id"] for each in peer.events()]
        assert [each.facts for each in read] == [each.facts for each in notices(peer)]
        assert len(read) == 120
