"""Stripe as a rail and as a mirror: the door to what the other files hold.

Two rails are made of it, ``stripe`` with live keys and ``stripe-test`` with test keys, so that test and live money
never meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from counterfoil.kernel.clock import to_seconds
from counterfoil.rails.base import (
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    Notice,
    OpenedCheckout,
    PaymentFact,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundIntent,
    RefundUnderWay,
)
from counterfoil.rails.facts import ItemFact, RailCopy, SubscriptionFact
from counterfoil.rails.mirror import Discount, Kind, Portal, Price, Product, Rate, Rhythm, Subject, SubscriptionChange
from counterfoil.rails.stripe import catalog, checkout, imports, invoices, refunds, subscriptions, variants, webhooks
from counterfoil.rails.stripe.amounts import ASSETS
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    PAGE,
    answered_at,
    call,
    child,
    error_of,
    need,
    need_moment,
    read,
    read_page,
    text,
)

_LIVE: Final = Rate(requests=80, seconds=1, at_once=8)
_TEST: Final = Rate(requests=20, seconds=1, at_once=8)
_NOT_THERE: Final = 404
_OLDER_THAN: Final = "before:"
_MONEY: Final = ("invoice.paid", "payment_intent.succeeded")
_EXISTS: Final = "resource_already_exists"


class StripeRail:
    """The translations for Stripe's API, version 2026-08-26.dahlia."""

    mirrors: tuple[Kind, ...] = ("product", "price", "discount", "customer")
    payments_kept: timedelta | None = timedelta(days=30)

    def __init__(self, name: str = "stripe") -> None:
        self.name = name

    # -- checkouts -----------------------------------------------------------------------------------------------------

    def assets(self, settings: StripeSettings) -> frozenset[str] | None:
        """The currencies that Stripe charges in."""
        return ASSETS

    def open_request(self, settings: StripeSettings, intent: CheckoutIntent) -> HttpRequest:
        """``POST /v1/checkout/sessions``, with the checkout's id as Idempotency-Key.

        Asked again within 24 hours it gives the same session, whatever became of the first answer: see
        :func:`~counterfoil.rails.stripe.checkout.open_parameters`, which tells what is refused, too.
        """
        form = checkout.open_parameters(settings, intent)
        return call(settings, "POST", "checkout", "sessions", form=form, key=intent.checkout_id)

    def read_opened(self, settings: StripeSettings, response: HttpResponse) -> OpenedCheckout:
        """The session. Raises RailRefused in Stripe's words, RailBusy, RailUnavailable."""
        session = read(response)
        return OpenedCheckout(reference=need(session, "id"), url=need(session, "url"))

    def find_request(self, settings: StripeSettings, checkout_id: str) -> HttpRequest | None:
        """Asking :meth:`open_request` again finds it: for 24 hours, longer than a session can be paid."""
        return None

    def read_found(self, settings: StripeSettings, response: HttpResponse, checkout_id: str) -> OpenedCheckout | None:
        """Never asked."""
        return None

    def report_requests(self, settings: StripeSettings, reference: str) -> tuple[HttpRequest, ...]:
        """The session, with its payment intent and its invoice."""
        query = {"expand": ["payment_intent", "invoice"]}
        return (call(settings, "GET", "checkout", "sessions", reference, query=query),)

    def read_report(self, settings: StripeSettings, responses: tuple[HttpResponse, ...]) -> CheckoutReport:
        """What the session says. Raises RailRefused for one not there or not ours; RailBusy, RailUnavailable."""
        report = checkout.read_session(self.name, read(responses[0]))
        if report is None:
            raise RailRefused("this session belongs to no checkout of ours")
        return report

    # -- webhooks ------------------------------------------------------------------------------------------------------

    def read_webhook(self, settings: StripeSettings, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
        """See :func:`~counterfoil.rails.stripe.webhooks.read_webhook`. Raises BadSignature."""
        return webhooks.read_webhook(self.name, settings, headers, body, now)

    def read_event(self, settings: StripeSettings, body: bytes) -> Notice:
        """A body that needs no signature, being verified or from :meth:`read_events`. Raises BadSignature."""
        return webhooks.read_event(self.name, settings, body)

    def read_answer(self, settings: StripeSettings, body: bytes, response: HttpResponse, now: datetime) -> Notice:
        """The notice, completed by the answer. Raises BadSignature, RailBusy, RailUnavailable, RailRefused."""
        return webhooks.read_answer(self.name, settings, body, response)

    # -- refunds -------------------------------------------------------------------------------------------------------

    def refund_question(self, settings: StripeSettings, intent: RefundIntent) -> HttpRequest | None:
        """An invoice's payment intent, which also :meth:`find_refund_request` needs."""
        return refunds.question(settings, intent)

    def read_refund_question(
        self, settings: StripeSettings, intent: RefundIntent, response: HttpResponse
    ) -> RefundIntent:
        """The intent with it. Raises RailRefused, RailBusy, RailUnavailable."""
        return refunds.read_question(intent, response)

    def refund_request(self, settings: StripeSettings, intent: RefundIntent) -> HttpRequest:
        """``POST /v1/refunds``. Raises RailRefused, RailUnavailable."""
        return refunds.request(settings, intent)

    def read_refunded(self, settings: StripeSettings, response: HttpResponse) -> RefundDone | RefundUnderWay:
        """The answer. Raises RailRefused, RailBusy, RailUnavailable."""
        return refunds.read_refunded(response)

    def find_refund_request(self, settings: StripeSettings, intent: RefundIntent) -> HttpRequest:
        """The payment's refunds. Raises RailRefused, RailUnavailable."""
        return refunds.find_request(settings, intent)

    def read_found_refund(
        self, settings: StripeSettings, intent: RefundIntent, response: HttpResponse
    ) -> RefundDone | RefundUnderWay | None:
        """Ours among them, or None. Raises RailRefused when it has failed; MoreToAsk, RailBusy, RailUnavailable."""
        return refunds.read_found(settings, intent, response)

    # -- copies --------------------------------------------------------------------------------------------------------

    def rate(self, settings: StripeSettings) -> Rate:
        """Below Stripe's 100 requests a second in live mode, and its 25 in test mode."""
        return _LIVE if settings.livemode else _TEST

    def create_request(self, settings: StripeSettings, subject: Subject, key: str) -> HttpRequest:
        """How to make the copy. Raises RailRefused for what Stripe cannot represent."""
        kind, form = catalog.create_form(settings, subject)
        return call(settings, "POST", catalog.PATHS[kind], form=form, key=key)

    def update_request(
        self, settings: StripeSettings, subject: Subject, reference: str, key: str
    ) -> HttpRequest | None:
        """See :func:`~counterfoil.rails.stripe.catalog.update_request`."""
        return catalog.update_request(settings, subject, reference, key)

    def read_copy(self, settings: StripeSettings, kind: Kind, response: HttpResponse) -> RailCopy:
        """The answer to both.

        Raises RailUnavailable when an object with our id is there already: an earlier attempt made it, and
        :meth:`find_copy_request` finds it. Raises RailRefused, RailBusy, RailUnavailable otherwise.
        """
        if text(error_of(response), "code") == _EXISTS:
            raise RailUnavailable("Stripe has an object with this id already")
        return catalog.read_copy(kind, read(response), answered_at(response))

    def follow_up_request(
        self, settings: StripeSettings, subject: Subject, copy: RailCopy, key: str
    ) -> HttpRequest | None:
        """What belongs to the copy and takes a request of its own: a coupon's promotion code. Raises RailRefused."""
        if not isinstance(subject, Discount):
            return None
        return catalog.code_request(settings, subject, copy.reference, key)

    def switch_follow_up_request(
        self, settings: StripeSettings, subject: Subject, reference: str, key: str
    ) -> HttpRequest | None:
        """The promotion code, active as its discount is."""
        return catalog.switch_code_request(settings, subject, reference, key)

    def read_follow_up(self, settings: StripeSettings, response: HttpResponse) -> str:
        """The promotion code's id. Raises RailRefused (also for a code in use), RailBusy, RailUnavailable."""
        return need(read(response), "id")

    def find_follow_up_request(self, settings: StripeSettings, subject: Subject) -> HttpRequest:
        """The promotion codes of this text. Raises RailRefused."""
        return catalog.find_code_request(settings, subject)

    def read_found_follow_up(self, settings: StripeSettings, subject: Subject, response: HttpResponse) -> str | None:
        """The one of ours. Raises RailRefused, RailBusy, RailUnavailable."""
        return catalog.read_found_code(subject, read(response))

    def price_variant(self, settings: StripeSettings, price: Price, unit_amount: int) -> Price | None:
        """A price of this amount, where it is not the copy's."""
        return variants.of_price(price, unit_amount)

    def discount_variant(self, settings: StripeSettings, discount: Discount, rhythm: Rhythm) -> Discount | None:
        """A coupon that lasts for its periods, where the copy does not. Raises RailRefused."""
        return variants.of_discount(discount, rhythm)

    def imported(self, settings: StripeSettings, copy: RailCopy) -> Product | Price:
        """A product or price of Stripe's as one of ours. Raises RailRefused for what we cannot represent."""
        return imports.product(copy) if copy.kind == "product" else imports.price(copy)

    def find_copy_request(self, settings: StripeSettings, subject: Subject) -> HttpRequest:
        """See :func:`~counterfoil.rails.stripe.catalog.find_request`. Raises RailRefused."""
        return catalog.find_request(settings, subject)

    def read_found_copy(self, settings: StripeSettings, subject: Subject, response: HttpResponse) -> RailCopy | None:
        """The copy, or None: of several, which only customers can be, the oldest. Raises RailBusy, RailUnavailable."""
        if response.status == _NOT_THERE:
            return None
        return catalog.read_found(subject, read(response), answered_at(response))

    def get_request(self, settings: StripeSettings, kind: Kind, reference: str, subject: Subject | None) -> HttpRequest:
        """The copy."""
        return call(settings, "GET", catalog.PATHS[kind], reference)

    def list_request(self, settings: StripeSettings, kind: Kind, after: str | None) -> HttpRequest:
        """A hundred at a time, newest first, archived ones among them."""
        return call(settings, "GET", catalog.PATHS[kind], query={"limit": PAGE, "starting_after": after})

    def read_list(
        self, settings: StripeSettings, kind: Kind, response: HttpResponse
    ) -> tuple[tuple[RailCopy, ...], str | None]:
        """The page, without variants: those are no copies, and never to be imported. As :meth:`read_copy`."""
        found, after = read_page(response)
        at = answered_at(response)
        return tuple(catalog.read_copy(kind, data, at) for data in found if not variants.is_variant(data)), after

    def expected(self, settings: StripeSettings, subject: Subject) -> dict[str, Any]:
        """What a copy that is in step says; what Stripe does not hold is not in it."""
        return catalog.expected(settings, subject)

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def subscription_request(self, settings: StripeSettings, reference: str) -> HttpRequest:
        """The subscription, with its discounts."""
        return call(settings, "GET", "subscriptions", reference, query=subscriptions.WITH_DISCOUNTS)

    def read_subscription(self, settings: StripeSettings, response: HttpResponse) -> SubscriptionFact:
        """The answer, dated by its ``Date``. Raises RailRefused, RailBusy, RailUnavailable."""
        data = read(response)
        return subscriptions.read_subscription(data, answered_at(response) or need_moment(data, "created"))

    def change_request(
        self,
        settings: StripeSettings,
        reference: str,
        change: SubscriptionChange,
        items: tuple[ItemFact, ...],
        key: str,
    ) -> HttpRequest:
        """See :func:`~counterfoil.rails.stripe.subscriptions.change_request`. Raises RailRefused."""
        return subscriptions.change_request(settings, reference, change, items, key)

    def is_changed(self, change: SubscriptionChange, fact: SubscriptionFact) -> bool:
        """Whether it is as the change wants it."""
        return subscriptions.is_changed(change, fact)

    def portal_request(
        self, settings: StripeSettings, customer_reference: str, subscriptions: tuple[str, ...], return_url: str
    ) -> HttpRequest:
        """A portal session for the customer, with all its subscriptions: Stripe's cannot be limited to some."""
        form = {"customer": customer_reference, "return_url": return_url}
        return call(settings, "POST", "billing_portal", "sessions", form=form)

    def read_portal(self, settings: StripeSettings, response: HttpResponse) -> Portal:
        """Its address. Raises RailRefused, RailBusy, RailUnavailable."""
        return Portal(url=need(read(response), "url"))

    # -- comparing and catching up -------------------------------------------------------------------------------------

    def payments_request(
        self, settings: StripeSettings, since: datetime, until: datetime, after: str | None
    ) -> HttpRequest:
        """The events by which money came in, of those 30 days that Stripe keeps them.

        Charges and balance transactions know no invoice, and lists of invoices know not when they were paid: events
        alone have the money under the names that we know, dated by when it came.
        """
        created = {"gte": to_seconds(since), "lt": to_seconds(until)}
        query = {"types": list(_MONEY), "created": created, "limit": PAGE, "starting_after": after}
        return call(settings, "GET", "events", query=query)

    def read_payments(
        self, settings: StripeSettings, response: HttpResponse
    ) -> tuple[tuple[PaymentFact, ...], str | None]:
        """What was paid for checkouts and invoices, newest first. Raises RailRefused, RailBusy, RailUnavailable."""
        found, after = read_page(response)
        paid: list[PaymentFact] = []
        for event in found:
            data, at = child(event, "data", "object"), need_moment(event, "created")
            if text(event, "type") == "invoice.paid":
                fact = invoices.read_invoice(data, at).payment
                paid += [fact] if fact is not None else []
            elif report := checkout.read_intent(self.name, data, at):
                paid += report.payments
        return tuple(paid), after

    def events_request(self, settings: StripeSettings, after: str | None, since: datetime) -> HttpRequest:
        """A page of the events since a moment, of those 30 days that Stripe keeps them.

        Stripe lists the newest first and cannot start anywhere else, so pages go back in time and only within a page
        the oldest is first: facts find their order by their own times. ``after`` is what :meth:`read_events` gave;
        anything else, such as the id of an event known from before, starts with the newest.
        """
        older = after.removeprefix(_OLDER_THAN) if after is not None and after.startswith(_OLDER_THAN) else None
        query = {"created": {"gte": to_seconds(since)}, "limit": PAGE, "starting_after": older}
        return call(settings, "GET", "events", query=query)

    def read_events(self, settings: StripeSettings, response: HttpResponse) -> tuple[tuple[bytes, ...], str | None]:
        """Their bodies, for :meth:`read_event`. Raises RailRefused, RailBusy, RailUnavailable."""
        found, after = read_page(response)
        bodies = tuple(msgspec.json.encode(event) for event in reversed(found))
        return bodies, None if after is None else _OLDER_THAN + after
