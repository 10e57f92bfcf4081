"""Checkout sessions: our cart as Stripe's parameters, and a session as a report.

The one name of a piece of money, whoever tells of it first:

- of a session in payment mode, its payment intent's id: ``checkout.session.*`` and ``payment_intent.*`` have it;
- of a session in subscription mode, the id of its invoice: ``checkout.session.*`` and ``invoice.*`` have it, also for
  the invoice over 0 that Stripe makes and marks paid when a trial starts.

Where nothing was to be paid and there is no such object, it is the session's id, which no other event speaks of.

Source: specification 2026-08-26.dahlia, ``PostCheckoutSessions`` and ``checkout.session``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from counterfoil.kernel.clock import from_micros, to_seconds
from counterfoil.kernel.ids import ulid_value
from counterfoil.kernel.money import Money
from counterfoil.rails.base import (
    CheckoutIntent,
    CheckoutReport,
    CheckoutState,
    LineIntent,
    PaymentFact,
    RailRefused,
)
from counterfoil.rails.stripe.amounts import from_stripe, to_stripe
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    Form,
    Object,
    child,
    metadata,
    moment,
    need,
    need_moment,
    need_number,
    number,
    reference,
    text,
)

CHECKOUT: Final = "checkout_id"
"""The metadata key that holds our checkout's id: on sessions, payment intents and subscriptions."""

AD_HOC: Final = "counterfoil_line"
"""The metadata key of products that exist for one line of one session only: they are copies of nothing."""

_SHORTEST: Final = timedelta(minutes=30)
_LONGEST: Final = timedelta(hours=24)
_SLACK: Final = timedelta(minutes=10)
_MOST_NAME: Final = 250
_MOST_DESCRIPTION: Final = 500
_TIME_BITS: Final = 80


def open_parameters(settings: StripeSettings, intent: CheckoutIntent) -> Form:
    """The parameters of a new session: a function of the intent without its ``now``.

    Stripe compares the parameters of requests with the same Idempotency-Key, for 24 hours: the same again gives the
    session that was made the first time, others are an error.

    ``expires_at`` is half an hour after the checkout's own end, the least that Stripe allows being half an hour from
    now: who pays in that time pays late, and settlement sees to late money. Checkouts of more than a day end there
    after a day, the most that Stripe allows.

    Prices contain their tax, so that what is paid is what the quote said, unless a line's ``tax_mode`` says external.

    Raises RailRefused for what Stripe cannot represent: tokens; an amount that is not the lines' sum; recurring lines
    with different trials, or with a discount that Stripe does not know; tax on top that Stripe would work out.
    """
    subscribes = intent.is_subscription
    if intent.lines and sum(line.total for line in intent.lines) != intent.amount.amount:
        raise RailRefused("the amount is not the sum of its lines, and Stripe adds them up itself")
    if to_stripe(intent.amount) <= 0 and not subscribes:
        raise RailRefused("Stripe takes amounts above zero only")
    if settings.automatic_tax and any(line.tax_mode == "external" for line in intent.lines):
        raise RailRefused("tax on top of a price, worked out by Stripe, is not supported: let the price contain it")
    marks = {CHECKOUT: intent.checkout_id}
    form: dict[str, object] = {
        "mode": "subscription" if subscribes else "payment",
        "client_reference_id": intent.checkout_id,
        "metadata": marks,
        "success_url": intent.return_url,
        "cancel_url": intent.return_url,
        "expires_at": to_seconds(_ends(intent)),
        "customer": intent.customer_reference,
        "customer_email": None if intent.customer_reference else intent.email,
        "line_items": [_line_item(intent, line) for line in intent.lines] or [_whole(intent)],
    }
    description = intent.description[:_MOST_DESCRIPTION] or None
    if subscribes:
        form["subscription_data"] = {
            "description": description,
            "metadata": {**marks, **variants_held(intent)},
            "trial_period_days": _trial(intent) or None,
        }
    else:
        form["payment_intent_data"] = {"description": description, "metadata": marks}
    if intent.discount_reference is not None:
        form["discounts"] = [{"coupon": intent.discount_reference}]
    if settings.automatic_tax:
        form["automatic_tax"] = {"enabled": True}
        if intent.customer_reference is not None:
            form["customer_update"] = {"address": "auto"}
    return form


def variants_held(intent: CheckoutIntent) -> dict[str, str]:
    """Metadata of a subscription by which its bills tell whose variants they are for: our prices, and the variants.

    A bill's lines name a price by its id alone, with none of its metadata, but the bill has its subscription's.
    """
    return {line.price_id: line.price_reference for line in intent.lines if line.is_variant and line.price_reference}


def tax_behavior(tax_mode: str) -> str:
    """Stripe's word for whether a price contains its tax: it does, unless it says that it does not."""
    return "exclusive" if tax_mode == "external" else "inclusive"


def read_session(
    rail: str, session: Object, at: datetime | None = None, *, failed: bool = False
) -> CheckoutReport | None:
    """What a session says; None for one that is not ours.

    ``at``: when the news happened, which dates the money. Without it the session's own objects do, where it was read
    with ``expand[]=payment_intent`` and ``expand[]=invoice``. ``failed``: a payment that took its time was refused in
    the end, which the session itself does not say.

    ``state``: paid, or nothing to pay = settled; complete but unpaid = processing, until the bank has decided.
    Raises RailUnavailable for a session that makes no sense.
    """
    checkout_id = metadata(session).get(CHECKOUT)
    if not checkout_id:
        return None
    state = _state(session, failed=failed)
    payments: tuple[PaymentFact, ...] = ()
    short = 0
    if state == "settled":
        total = need_number(session, "amount_total")
        currency = need(session, "currency")
        money = from_stripe(total, currency)
        subtotal = number(session, "amount_subtotal")
        if number(child(session, "total_details"), "amount_discount"):
            short = max(0, from_stripe(subtotal or 0, currency).amount - money.amount)
        payments = (_payment(session, money, at),)
    return CheckoutReport(
        rail=rail,
        reference=need(session, "id"),
        checkout_id=checkout_id,
        state=state,
        payments=payments,
        accepted_short=short,
        final=state in {"settled", "expired", "failed"},
    )


def read_intent(rail: str, intent: Object, at: datetime) -> CheckoutReport | None:
    """What a payment intent that succeeded says; None for one that is no checkout's, such as a renewal's.

    It does not name its session, so the report's ``reference`` is empty: it is about ``checkout_id``.
    """
    checkout_id = metadata(intent).get(CHECKOUT)
    if not checkout_id or text(intent, "status") != "succeeded":
        return None
    return CheckoutReport(
        rail=rail,
        reference="",
        checkout_id=checkout_id,
        state="settled",
        payments=(
            money_of(
                need(intent, "id"),
                from_stripe(need_number(intent, "amount_received"), need(intent, "currency")),
                at,
                payer=reference(intent, "customer"),
            ),
        ),
        final=True,
    )


def money_of(name: str, amount: Money, at: datetime, *, payer: str | None) -> PaymentFact:
    """A payment, the same from every event that tells of it. ``payer``: Stripe's customer, where there is one."""
    return PaymentFact(reference=name, amount=amount, occurred_at=at, payer=payer)


def _payment(session: Object, money: Money, at: datetime | None) -> PaymentFact:
    subscribes = text(session, "mode") == "subscription"
    name = reference(session, "invoice" if subscribes else "payment_intent") or need(session, "id")
    own = (
        moment(child(session, "invoice", "status_transitions"), "paid_at")
        if subscribes
        else moment(child(session, "payment_intent"), "created")
    )
    occurred_at = at or own or need_moment(session, "created")
    return money_of(name, money, occurred_at, payer=reference(session, "customer"))


def _state(session: Object, *, failed: bool) -> CheckoutState:
    status = text(session, "status")
    if status == "complete" or status is None:
        if text(session, "payment_status") in {"paid", "no_payment_required"}:
            return "settled"
        return "failed" if failed or _gave_up(session) else "processing"
    return "expired" if status == "expired" else "open"


def _gave_up(session: Object) -> bool:
    """Whether a payment that was under way has failed for good, seen from the expanded objects."""
    payment, invoice = child(session, "payment_intent"), child(session, "invoice")
    return text(payment, "status") in {"requires_payment_method", "canceled"} or text(invoice, "status") in {
        "void",
        "uncollectible",
    }


def _ends(intent: CheckoutIntent) -> datetime:
    wanted = intent.expires_at + _SHORTEST
    try:  # our ids carry the time at which they were made
        made = from_micros((ulid_value(intent.checkout_id.partition("_")[2]) >> _TIME_BITS) * 1000)
    except ValueError:
        return wanted
    return min(wanted, made + _LONGEST - _SLACK)


def _trial(intent: CheckoutIntent) -> int:
    """The trial of the whole subscription, in days: Stripe has one for all its items."""
    trials = {line.trial_days for line in intent.lines if line.interval is not None}
    if len(trials) > 1:
        raise RailRefused("Stripe gives one trial to a whole subscription, and these prices have different ones")
    return trials.pop()


def _line_item(intent: CheckoutIntent, line: LineIntent) -> Form:
    full = line.unit_amount * line.quantity
    # What Stripe discounts by itself is sent at its full price.
    total = full if intent.discount_reference is not None else line.total
    if line.interval is not None:
        if total != full and not (line.trial_days and total == 0):
            raise RailRefused(f"Stripe does not know the discount on {line.name}, which is paid again and again")
        if line.price_reference is not None:
            return {"price": line.price_reference, "quantity": line.quantity}
        return _inline(intent, line, line.unit_amount, line.quantity, line.name)
    if total == full and line.price_reference is not None:
        return {"price": line.price_reference, "quantity": line.quantity}
    each, rest = divmod(total, line.quantity)
    if rest:
        return _inline(intent, line, total, 1, f"{line.name} × {line.quantity}")  # noqa: RUF001
    return _inline(intent, line, each, line.quantity, line.name)


def _inline(intent: CheckoutIntent, line: LineIntent, unit_amount: int, quantity: int, name: str) -> Form:
    """A price for this session only. A line that was drawn together gets a product of its own, for its name."""
    asset = intent.amount.asset
    own = line.product_reference is None or name != line.name
    return {
        "price_data": {
            "currency": asset.lower(),
            "product": None if own else line.product_reference,
            "product_data": _product(intent, name) if own else None,
            "unit_amount": to_stripe(Money(unit_amount, asset)),
            "tax_behavior": tax_behavior(line.tax_mode),
            "recurring": None
            if line.interval is None
            else {"interval": line.interval, "interval_count": line.interval_count or 1},
        },
        "quantity": quantity,
    }


def _whole(intent: CheckoutIntent) -> Form:
    """All of a checkout without lines."""
    return {
        "price_data": {
            "currency": intent.amount.asset.lower(),
            "product_data": _product(intent, intent.description),
            "unit_amount": to_stripe(intent.amount),
            "tax_behavior": tax_behavior("account_setting"),
        },
        "quantity": 1,
    }


def _product(intent: CheckoutIntent, name: str) -> Form:
    return {"name": name[:_MOST_NAME] or intent.checkout_id, "metadata": {AD_HOC: intent.checkout_id}}
