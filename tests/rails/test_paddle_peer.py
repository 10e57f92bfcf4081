"""Paddle's rail against the stand-in for Paddle, straight and behind a proxy that holds both to its specification."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.peers import prism
from tests.peers.paddle_fixtures import PaddlePeer, running_paddle, webhook
from tests.peers.paddle_world import API_KEY
from tests.rails.paddle_subjects import (
    RAIL,
    SECRET,
    address,
    business,
    customer,
    discount,
    intent,
    line,
    new_id,
    price,
    product,
    refund,
)

from counterfoil.kernel.money import Money
from counterfoil.rails.base import HttpRequest, HttpResponse, Notice, OpenedCheckout, RailRefused, RefundUnderWay
from counterfoil.rails.facts import DisputeFact, InvoiceFact, RefundFact, SubscriptionFact
from counterfoil.rails.mirror import MoreToAsk, RailBusy, Subject, SubscriptionChange
from counterfoil.rails.paddle import PaddleSettings, connect


@pytest.fixture(scope="module")
def running() -> Iterator[PaddlePeer]:
    with running_paddle() as peer:
        yield peer


@pytest.fixture
def peer(running: PaddlePeer) -> PaddlePeer:
    running.control("reset")
    running.control("config", capture=True)
    return running


@pytest.fixture(scope="module")
def proxy(running: PaddlePeer) -> Iterator[str]:
    if reason := prism.available(prism.PADDLE):
        pytest.skip(reason)
    with prism.running(running.url, prism.PADDLE) as url:
        yield url


@pytest.fixture
def settings(peer: PaddlePeer, request: pytest.FixtureRequest) -> PaddleSettings:
    checked = getattr(request, "param", "straight") == "checked"
    url = request.getfixturevalue("proxy") if checked else peer.url
    return PaddleSettings(api_key=API_KEY, livemode=False, webhook_secrets=(SECRET,), base_url=url)


CHECKED_TOO = pytest.mark.parametrize("settings", ["straight", "checked"], indirect=True)
"""Once as it is, and once with Paddle's specification between: together these use every operation."""
CHECKED = pytest.mark.parametrize("settings", ["checked"], indirect=True)


def ask(peer: PaddlePeer, read: Callable[[HttpResponse], Any], request: HttpRequest | Any) -> Any:
    """What ``exchange`` does: send, read, and follow what there is more to ask."""
    for _ in range(50):
        assert isinstance(request, HttpRequest)
        said = peer.send(request)
        assert "sl-violations" not in said.headers, said
        try:
            return read(said)
        except MoreToAsk as more:
            request = more.request
    raise AssertionError("there is always more to ask")


def make(peer: PaddlePeer, settings: PaddleSettings, subject: Subject, kind: Any) -> str:
    """A copy at the stand-in, which is in step; its reference."""
    request = RAIL.create_request(settings, subject, "key")
    copy = ask(peer, lambda said: RAIL.read_copy(settings, kind, said), request)
    assert copy.our_id == subject.id
    assert copy.values == RAIL.expected(settings, subject)
    return str(copy.reference)


def open_checkout(peer: PaddlePeer, settings: PaddleSettings, wanted: Any) -> OpenedCheckout:
    found = ask(peer, lambda said: RAIL.read_opened(settings, said), RAIL.open_request(settings, wanted))
    assert isinstance(found, OpenedCheckout)
    return found


def hear(peer: PaddlePeer, settings: PaddleSettings, *types: str) -> list[Notice]:
    """What all webhooks say, questions answered."""
    heard = []
    for event in peer.events(*types):
        now = datetime.now(UTC)
        headers, body = webhook(event, SECRET, now)
        notice = RAIL.read_webhook(settings, headers, body, now)
        assert notice.is_known, event["event_type"]
        if notice.question is not None:
            notice = RAIL.read_answer(settings, body, peer.send(notice.question), now)
        heard.append(notice)
    return heard


def facts(heard: list[Notice], kind: type[Any]) -> list[Any]:
    return [fact for notice in heard for fact in notice.facts if isinstance(fact, kind)]


def now() -> datetime:
    return datetime.now(UTC)


class TestCopies:
    @CHECKED_TOO
    def test_every_kind_is_made_found_changed_archived_and_listed(
        self, peer: PaddlePeer, settings: PaddleSettings
    ) -> None:
        sold = product(id=new_id("pro", now()))
        of = make(peer, settings, sold, "product")
        buyer = customer(id=new_id("cus", now()))
        by = make(peer, settings, buyer, "customer")
        subjects: list[tuple[Any, Any, dict[str, Any]]] = [
            ("product", sold, {"name": "Éditeur 2", "description": ""}),
            ("price", price(id=new_id("pri", now()), product_reference=of), {"name": "Per month", "trial_days": 14}),
            ("discount", discount(code="SPRING", product_references=(of,)), {"amount": 1_250, "max_periods": 3}),
            ("customer", buyer, {"name": None, "locale": "de"}),
            ("address", address(customer_reference=by), {"city": "Thun", "country": "DE"}),
            ("business", business(customer_reference=by), {"name": "Ada GmbH", "contacts": ()}),
        ]
        references = {"product": of, "customer": by}
        references |= {kind: make(peer, settings, it, kind) for kind, it, _ in subjects if kind not in references}
        for kind, subject, changes in reversed(subjects):  # nothing new is sold of an archived product
            reference = references[kind]

            def read(said: HttpResponse, kind: Any = kind) -> Any:
                return RAIL.read_copy(settings, kind, said)

            def find(said: HttpResponse, subject: Any = subject) -> Any:
                return RAIL.read_found_copy(settings, subject, said)

            changed = msgspec.structs.replace(subject, active=False, **changes)
            before = ask(peer, read, RAIL.get_request(settings, kind, reference, subject))
            assert before.values == RAIL.expected(settings, subject) != RAIL.expected(settings, changed)
            after = ask(peer, read, RAIL.update_request(settings, changed, reference, "key"))
            assert after.values == RAIL.expected(settings, changed)
            assert (after.reference, after.active) == (reference, False)
            found = ask(peer, find, RAIL.find_copy_request(settings, subject))
            assert found.reference == reference
            if kind not in {"address", "business"}:
                listed, more = ask(
                    peer,
                    lambda said, kind=kind: RAIL.read_list(settings, kind, said),  # type: ignore[misc]
                    RAIL.list_request(settings, kind, None),
                )
                assert ([copy.our_id for copy in listed], more) == ([subject.id], None)
        heard = hear(peer, settings)
        assert len({fact.kind for notice in heard for fact in notice.facts}) == len(subjects)

    def test_what_was_not_made_is_not_found(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        of = make(peer, settings, product(), "product")
        by = make(peer, settings, customer(), "customer")
        for subject in (
            product(),
            price(product_reference=of),
            discount(),
            customer(email="else@example.com"),
            address(customer_reference=by),
            business(customer_reference=by),
        ):
            request = RAIL.find_copy_request(settings, subject)
            read = lambda said, subject=subject: RAIL.read_found_copy(settings, subject, said)  # noqa: E731
            assert ask(peer, read, request) is None

    def test_a_buyer_whom_paddle_knows_is_taken_over(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        known = peer.api("POST", "/customers", {"email": "ada@example.com"})["id"]
        wanted = customer()
        request = RAIL.create_request(settings, wanted, "key")
        copy = ask(peer, lambda said: RAIL.read_copy(settings, "customer", said), request)
        assert (copy.reference, copy.our_id) == (known, None)
        found = ask(peer, lambda said: RAIL.read_found_copy(settings, wanted, said),
                    RAIL.find_copy_request(settings, wanted))  # fmt: skip
        assert (found.reference, found.our_id) == (known, None)
        peer.send(RAIL.update_request(settings, wanted, known, "key"))  # type: ignore[arg-type]
        with pytest.raises(RailRefused, match=wanted.id):
            ask(peer, lambda said: RAIL.read_found_copy(settings, customer(), said),
                RAIL.find_copy_request(settings, customer()))  # fmt: skip

    def test_what_paddle_refuses_is_said_in_its_words(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        wanted = address(customer_reference=make(peer, settings, customer(), "customer"), country="RU")
        said = peer.send(RAIL.create_request(settings, wanted, "key"))
        with pytest.raises(RailRefused, match="RU"):
            RAIL.read_copy(settings, "address", said)

    def test_too_many_requests(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        peer.control("fail", match="GET /products", status=429, retry_after=7)
        with pytest.raises(RailBusy) as caught:
            RAIL.read_list(settings, "product", peer.send(RAIL.list_request(settings, "product", None)))
        assert caught.value.retry_after == 7


class TestPurchase:
    @pytest.mark.parametrize(("mode", "settings"), [("internal", "straight"), ("external", "checked")],
                             indirect=["settings"])  # fmt: skip
    def test_every_order_of_news_says_the_same(self, peer: PaddlePeer, settings: PaddleSettings, mode: Any) -> None:
        settings = msgspec.structs.replace(settings, tax_mode=mode)
        wanted = intent(line(quantity=3, unit_amount=500, total=1_400), line(quantity=2, total=2_400), now=now())
        opened = open_checkout(peer, settings, wanted)
        assert opened.url == f"https://shop.example/pay?_ptxn={opened.reference}"
        peer.transaction(opened.reference, "decline", email="ada@example.com", name="Ada", country_code="DE")
        peer.transaction(opened.reference, "pay")
        heard = [notice for notice in hear(peer, settings) if notice.report is not None]
        assert {"transaction.paid", "transaction.completed", "transaction.payment_failed"} <= {it.type for it in heard}
        for notice in heard:
            report = notice.report
            assert report is not None
            assert (report.reference, report.checkout_id, report.rail) == (
                opened.reference, wanted.checkout_id, "paddle-test",
            )  # fmt: skip
            money = {(fact.reference, fact.amount) for fact in report.payments}
            if report.state == "settled":
                assert money == {(opened.reference, Money(3_800, "USD"))}
            else:
                assert (report.state, money, report.final) == ("open", set(), False)
        settled = [notice.report for notice in heard if notice.report and notice.report.state == "settled"]
        assert len({fact.occurred_at for report in settled for fact in report.payments}) == 1
        asked = RAIL.read_report(
            settings, tuple(peer.send(one) for one in RAIL.report_requests(settings, opened.reference))
        )
        last = settled[-1]
        assert (asked.state, asked.final, asked.payments) == ("settled", True, last.payments)
        bills = facts(heard, InvoiceFact)
        final = max(bills, key=lambda bill: bill.occurred_at)
        taxes = {"internal": 3_800, "external": 4_560}
        assert (final.status, final.amount, final.payment.amount.amount) == ("paid", taxes[mode], 3_800)
        assert final.number
        assert final.details["totals"]["fee"] is not None
        assert sum(entry.amount for entry in final.lines) == 3_800
        assert all(bill.payment is None or bill.payment.reference == opened.reference for bill in bills)

    @CHECKED
    def test_a_lost_answer_is_looked_up(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        earlier = intent(line(), now=now())
        request = RAIL.open_request(settings, earlier)
        find = lambda said: RAIL.read_found(settings, said, earlier.checkout_id)  # noqa: E731
        assert ask(peer, find, RAIL.find_request(settings, earlier.checkout_id)) is None
        peer.send(request)  # and nobody read the answer
        for _ in range(35):
            open_checkout(peer, settings, intent(line(), now=now()))
        found = ask(peer, find, RAIL.find_request(settings, earlier.checkout_id))
        first = min(event["data"]["id"] for event in peer.events("transaction.created"))
        assert found == OpenedCheckout(reference=first, url=f"https://shop.example/pay?_ptxn={first}")
        last = intent(line(), now=earlier.now)
        peer.send(RAIL.open_request(settings, last))
        find_last = RAIL.find_request(settings, last.checkout_id)
        with pytest.raises(MoreToAsk):
            RAIL.read_found(settings, peer.send(find_last), last.checkout_id)
        assert ask(peer, lambda said: RAIL.read_found(settings, said, last.checkout_id), find_last) is not None

    @CHECKED
    def test_known_copies_are_named(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        of = make(peer, settings, product(), "product")
        once = make(peer, settings, price(product_reference=of, interval=None, interval_count=None), "price")
        by = make(peer, settings, customer(), "customer")
        at = make(peer, settings, address(customer_reference=by), "address")
        company = make(peer, settings, business(customer_reference=by), "business")
        wanted = intent(
            line(price_reference=once, product_reference=of, quantity=2, total=2_400),
            line(price_reference=once, product_reference=of, quantity=3, total=3_000),
            customer_reference=by, address_reference=at, business_reference=company, now=now(),
        )  # fmt: skip
        opened = open_checkout(peer, settings, wanted)
        made = peer.api("GET", f"/transactions/{opened.reference}")
        assert made["status"] == "ready"
        assert (made["customer_id"], made["address_id"], made["business_id"]) == (by, at, company)
        assert [item["price"]["id"] == once for item in made["items"]] == [True, False]
        assert {item["price"]["product_id"] for item in made["items"]} == {of}
        assert [int(item["totals"]["total"]) for item in made["details"]["line_items"]] == [2_400, 3_000]

    def test_a_checkout_that_is_called_off_fails(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        opened = open_checkout(peer, settings, intent(line(), now=now()))
        peer.transaction(opened.reference, "cancel")
        report = hear(peer, settings, "transaction.canceled")[0].report
        assert report is not None
        assert (report.state, report.final) == ("failed", True)

    def test_no_page_to_pay_on(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        peer.control("config", default_checkout_url=None)
        with pytest.raises(RailRefused, match="default checkout URL"):
            open_checkout(peer, settings, intent(line(), now=now()))


def subscribe(peer: PaddlePeer, settings: PaddleSettings, **changes: Any) -> tuple[str, str, Any]:
    """A subscription for 12 a month: its id, the price's reference, and the checkout's intent."""
    of = make(peer, settings, product(id=new_id("pro", now())), "product")
    monthly = price(id=new_id("pri", now()), product_reference=of, country_overrides=(), **changes)
    reference = make(peer, settings, monthly, "price")
    trial = monthly.trial_days
    wanted = intent(
        line(price_reference=reference, interval="month", interval_count=1, trial_days=trial, price_id=monthly.id),
        now=now(),
    )
    opened = open_checkout(peer, settings, wanted)
    row = peer.transaction(opened.reference, "pay", email="ada@example.com", name="Ada", country_code="DE")
    return row["subscription_id"], reference, wanted


class TestSubscription:
    def test_it_starts(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, price_reference, wanted = subscribe(peer, settings)
        heard = hear(peer, settings)
        told = facts(heard, SubscriptionFact)
        assert told
        for fact in told:
            assert (fact.reference, fact.checkout_id, fact.status) == (reference, wanted.checkout_id, "active")
            assert [(item.price_reference, item.price_id, item.quantity) for item in fact.items] == [
                (price_reference, wanted.lines[0].price_id, 1)
            ]
            assert fact.period_end == fact.next_billed_at
        asked = ask(peer, lambda said: RAIL.read_subscription(settings, said),
                    RAIL.subscription_request(settings, reference))  # fmt: skip
        last = told[-1]
        assert (asked.status, asked.period_end, asked.metadata) == (last.status, last.period_end, last.metadata)
        bill = max(facts(heard, InvoiceFact), key=lambda bill: bill.occurred_at)
        assert (bill.billing_reason, bill.is_first) == ("subscription_create", True)
        assert (bill.subscription_reference, bill.period_end) == (reference, last.period_end)

    def test_a_trial_starts_with_a_payment_of_nothing(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, _, wanted = subscribe(peer, settings, trial_days=14)
        heard = hear(peer, settings)
        report = next(it.report for it in heard if it.report is not None and it.report.state == "settled")
        assert [fact.amount for fact in report.payments] == [Money(0, "USD")]
        fact = facts(heard, SubscriptionFact)[-1]
        assert (fact.reference, fact.status, fact.checkout_id) == (reference, "trialing", wanted.checkout_id)
        assert fact.trial_end == fact.next_billed_at == fact.items[0].trial_ends_at

    def test_renewals_fail_and_recover(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, _, wanted = subscribe(peer, settings)
        before = len(peer.events())
        first = facts(hear(peer, settings), SubscriptionFact)[-1]
        peer.subscription(reference, "due")
        renewed = hear(peer, settings)[before:]
        assert not [notice for notice in renewed if notice.report is not None or notice.reference is not None]
        bill = max(facts(renewed, InvoiceFact), key=lambda bill: bill.occurred_at)
        assert (bill.billing_reason, bill.status, bill.is_first) == ("subscription_cycle", "paid", False)
        assert (bill.subscription_reference, bill.period_start) == (reference, first.period_end)
        assert bill.payment.amount == Money(1_200, "USD")
        peer.subscription(reference, "due", declined=True)
        late = facts(hear(peer, settings), SubscriptionFact)[-1]
        assert (late.status, late.checkout_id) == ("past_due", wanted.checkout_id)
        owed = max(facts(hear(peer, settings), InvoiceFact), key=lambda bill: bill.occurred_at)
        assert (owed.status, owed.payment) == ("open", None)
        peer.subscription(reference, "recover")
        assert facts(hear(peer, settings), SubscriptionFact)[-1].status == "active"
        paid = [bill for bill in facts(hear(peer, settings), InvoiceFact) if bill.reference == owed.reference][-1]
        assert (paid.status, paid.payment.reference) == ("paid", owed.reference)

    @CHECKED_TOO
    def test_it_is_paused_resumed_changed_kept_and_canceled(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, price_reference, _ = subscribe(peer, settings)
        read = lambda said: RAIL.read_subscription(settings, said)  # noqa: E731
        fact = ask(peer, read, RAIL.subscription_request(settings, reference))
        later = now() + timedelta(days=9)
        steps = [
            (SubscriptionChange(action="pause"), "active", "pause"),
            (SubscriptionChange(action="keep"), "active", None),
            (SubscriptionChange(action="pause", at_period_end=False, resume_at=later), "paused", "resume"),
            (SubscriptionChange(action="resume"), "active", None),
            (SubscriptionChange(action="change", items=((price_reference, 5),)), "active", None),
            (SubscriptionChange(action="change", items=((price_reference, 2),), proration="none"), "active", None),
            (SubscriptionChange(action="cancel"), "active", "cancel"),
            (SubscriptionChange(action="keep"), "active", None),
            (SubscriptionChange(action="cancel", at_period_end=False), "canceled", None),
        ]  # fmt: skip
        for change, status, scheduled in steps:
            if change.action != "resume":  # a running subscription is as resuming wants it
                assert not RAIL.is_changed(change, fact), change
            fact = ask(peer, read, RAIL.change_request(settings, reference, change, fact.items, "key"))
            assert RAIL.is_changed(change, fact), change
            now_scheduled = fact.scheduled_change.action if fact.scheduled_change is not None else None
            assert (fact.status, now_scheduled) == (status, scheduled), change
        assert fact.ends_at == fact.canceled_at is not None
        heard = facts(hear(peer, settings), SubscriptionFact)[-1]
        assert (heard.status, heard.items[0].quantity, heard.canceled_at) == ("canceled", 2, fact.canceled_at)
        reasons = {bill.billing_reason for bill in facts(hear(peer, settings), InvoiceFact)}
        assert {"subscription_create", "subscription_update"} <= reasons

    @CHECKED
    def test_a_margin_is_put_on_it(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, _, _ = subscribe(peer, settings)
        margin = make(peer, settings, discount(), "discount")
        change = SubscriptionChange(action="change", discount_reference=margin)
        fact = ask(peer, lambda said: RAIL.read_subscription(settings, said),
                   RAIL.change_request(settings, reference, change, (), "key"))  # fmt: skip
        assert fact.discount_reference == margin
        assert RAIL.is_changed(change, fact)
        peer.subscription(reference, "due")
        bill = max(facts(hear(peer, settings), InvoiceFact), key=lambda bill: bill.occurred_at)
        assert (bill.amount, bill.discount_reference) == (840, margin)

    def test_a_discount_from_the_start(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        of = make(peer, settings, product(), "product")
        monthly = make(peer, settings, price(product_reference=of, country_overrides=()), "price")
        margin = make(peer, settings, discount(), "discount")
        wanted = intent(
            line(price_reference=monthly, interval="month", interval_count=1, total=840), discount_reference=margin,
            now=now(),
        )  # fmt: skip
        opened = open_checkout(peer, settings, wanted)
        peer.transaction(opened.reference, "pay", email="ada@example.com", name="Ada", country_code="DE")
        report = hear(peer, settings, "transaction.completed")[0].report
        assert report is not None
        assert report.payments[0].amount == wanted.amount == Money(840, "USD")

    @CHECKED
    def test_its_portal(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        reference, _, _ = subscribe(peer, settings)
        buyer = facts(hear(peer, settings), SubscriptionFact)[-1].customer_reference
        portal = ask(peer, lambda said: RAIL.read_portal(settings, said),
                     RAIL.portal_request(settings, buyer, (reference,), "https://shop.example"))  # fmt: skip
        assert portal.url.startswith("https://")
        assert portal.update_payment_method is not None
        assert portal.cancel is not None
        plain = ask(peer, lambda said: RAIL.read_portal(settings, said),
                    RAIL.portal_request(settings, buyer, (), "https://shop.example"))  # fmt: skip
        assert plain.cancel is None


def bought(peer: PaddlePeer, settings: PaddleSettings, *totals: int) -> str:
    opened = open_checkout(peer, settings, intent(*(line(unit_amount=it, total=it) for it in totals), now=now()))
    peer.transaction(opened.reference, "pay", email="ada@example.com", name="Ada", country_code="DE")
    return opened.reference


class TestRefund:
    @pytest.mark.parametrize(("mode", "settings"), [("internal", "checked"), ("external", "straight")],
                             indirect=["settings"])  # fmt: skip
    def test_parts_and_the_rest(self, peer: PaddlePeer, settings: PaddleSettings, mode: Any) -> None:
        settings = msgspec.structs.replace(settings, tax_mode=mode)
        payment = bought(peer, settings, 1_000, 333)
        given = []
        for amount in (500, 100, 733):
            wanted = refund(payment, amount)
            ready = ask(peer, lambda said, wanted=wanted: RAIL.read_refund_question(settings, wanted, said),  # type: ignore[misc]
                        RAIL.refund_question(settings, wanted))  # fmt: skip
            find = lambda said, wanted=wanted: RAIL.read_found_refund(settings, wanted, said)  # noqa: E731
            assert ask(peer, find, RAIL.find_refund_request(settings, wanted)) is None
            done = ask(peer, lambda said: RAIL.read_refunded(settings, said), RAIL.refund_request(settings, ready))
            assert isinstance(done, RefundUnderWay)
            assert ask(peer, find, RAIL.find_refund_request(settings, wanted)) == done
            peer.adjustment(done.reference, "approve")
            given.append((wanted.refund_id, done.reference, amount))
        heard = facts(hear(peer, settings, "adjustment.created", "adjustment.updated"), RefundFact)
        assert {(it.refund_id, it.reference, it.amount, it.payment_reference) for it in heard} == {
            (refund_id, reference, amount, payment) for refund_id, reference, amount in given
        }
        assert [it.status for it in heard] == ["pending", "processed"] * 3
        assert heard[0].reason == "did not like it"
        again = refund(payment, 1)
        with pytest.raises(RailRefused, match="0 USD"):
            ask(peer, lambda said: RAIL.read_refund_question(settings, again, said),
                RAIL.refund_question(settings, again))  # fmt: skip

    @CHECKED
    def test_all_of_it_is_rejected(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        wanted = refund(bought(peer, settings, 1_200), 1_200)
        ready = ask(peer, lambda said: RAIL.read_refund_question(settings, wanted, said),
                    RAIL.refund_question(settings, wanted))  # fmt: skip
        assert ready.details["refund_plan"] == {"type": "full"}
        done = ask(peer, lambda said: RAIL.read_refunded(settings, said), RAIL.refund_request(settings, ready))
        peer.adjustment(done.reference, "reject")
        fact = facts(hear(peer, settings, "adjustment.updated"), RefundFact)[-1]
        assert (fact.status, fact.error) == ("failed", "Paddle has rejected it")
        with pytest.raises(RailRefused, match="rejected"):
            ask(peer, lambda said: RAIL.read_found_refund(settings, wanted, said),
                RAIL.find_refund_request(settings, wanted))  # fmt: skip

    def test_a_chargeback_and_its_reversal_are_one_dispute(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        payment = bought(peer, settings, 1_200)
        peer.transaction(payment, "chargeback", warning=True)
        adjustment = peer.transaction(payment, "chargeback")
        peer.adjustment(adjustment["id"], "reverse")
        heard = facts(hear(peer, settings, "adjustment.created", "adjustment.updated"), DisputeFact)
        assert {(it.reference, it.payment_reference, it.amount) for it in heard} == {(payment, payment, 1_200)}
        by_time = sorted(heard, key=lambda it: it.occurred_at)
        assert [status for status, _ in itertools.groupby(it.status for it in by_time)] == ["warning", "lost", "won"]


class TestComparing:
    @CHECKED
    def test_payments_and_events_are_those_of_the_webhooks(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        start = now()
        reference, _, _ = subscribe(peer, settings)
        payment = bought(peer, settings, 500)
        open_checkout(peer, settings, intent(line(), now=now()))
        listed, more = ask(peer, lambda said: RAIL.read_payments(settings, said),
                           RAIL.payments_request(settings, start, now() + timedelta(minutes=1), None))  # fmt: skip
        heard = hear(peer, settings)
        told = {bill.payment.reference: bill.payment for bill in facts(heard, InvoiceFact) if bill.payment is not None}
        assert {fact.reference: fact.amount for fact in listed} == {key: fact.amount for key, fact in told.items()}
        assert payment in told
        assert more is None
        bodies, more = ask(peer, lambda said: RAIL.read_events(settings, said),
                           RAIL.events_request(settings, None, start))  # fmt: skip
        again = [RAIL.read_event(settings, body) for body in bodies]
        assert [notice.event_id for notice in again] == [notice.event_id for notice in heard]
        assert more is None
        assert reference in {fact.reference for notice in again for fact in notice.facts}

    def test_events_are_followed_from_one_on(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        bought(peer, settings, 500)
        every = peer.events()
        request = RAIL.events_request(settings, every[1]["event_id"], now())
        bodies, _ = ask(peer, lambda said: RAIL.read_events(settings, said), request)
        ids = [RAIL.read_event(settings, body).event_id for body in bodies]
        assert ids == [event["event_id"] for event in every[2:]]


class TestConnect:
    def test_a_key_works_or_not(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        connect.read_connection(peer.send(connect.connection_request(settings)))
        wrong = msgspec.structs.replace(settings, api_key=API_KEY[:-1] + "x")
        with pytest.raises(RailRefused, match="does not take this key"):
            connect.read_connection(peer.send(connect.connection_request(wrong)))

    @CHECKED
    def test_a_destination_is_made_found_and_deleted(self, peer: PaddlePeer, settings: PaddleSettings) -> None:
        url = "https://shop.example/v1/webhooks/paddle-test"
        made = connect.read_destination(peer.send(connect.create_destination_request(settings, url, "Counterfoil")))
        assert made.secret.startswith(f"pdl_{made.id}_")
        assert made.secret not in repr(made)
        assert connect.read_destinations(peer.send(connect.destinations_request(settings)), url) == (made,)
        assert connect.read_destinations(peer.send(connect.destinations_request(settings)), url + "x") == ()
        for _ in range(2):
            connect.read_destination_deleted(peer.send(connect.delete_destination_request(settings, made.id)))
        assert connect.read_destinations(peer.send(connect.destinations_request(settings)), url) == ()
