"""Money becomes rights, here only.

``settle`` takes everything a rail says about one checkout and makes payments, an order, its licenses
and grants of it, in one transaction. It is idempotent: each payment is unique by its reference, and a
checkout becomes an order once. It is total: money that is short, late, over, in the wrong asset or for
nothing we know is written down with a status that says so, and waits for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from counterfoil.catalog.types import LicenseSpec
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.licensing import licenses
from counterfoil.licensing.licenses import Issue
from counterfoil.rails.base import CheckoutReport
from counterfoil.sales import carts, checkouts, orders, payments
from counterfoil.sales.checkouts import CheckoutWithLines
from counterfoil.sales.tables import order_discounts
from counterfoil.sales.types import CartLine, Checkout, Order, OrderDiscount, Payment
from counterfoil.settlement import entitling, goods, holds, subscribing
from counterfoil.settlement.tables import grants


class Settlement(msgspec.Struct, frozen=True):
    """What came of a report."""

    outcome: Literal["settled", "waiting", "unmatched"]
    checkout_id: str | None
    order: Order | None = None
    """The order, when this report made it."""
    fresh: tuple[str, ...] = ()
    """The payments that this report added."""


def settle(tx: Tx, report: CheckoutReport, locked: CheckoutWithLines | None = None) -> Settlement:
    """Take a rail's report on a checkout into the books. ``locked``: the one of its reference, where it was read."""
    found = locked
    if found is None and report.reference:
        found = checkouts.lock_by_reference(tx, report.rail, report.reference)
    if found is None and report.checkout_id is not None:
        # The rail answered before we could note its reference: a crash, or a webhook that was faster.
        found = checkouts.lock(tx, report.checkout_id)
        # (Or noted it since we looked a statement ago.) Another rail's word, or another reference, is not about it.
        if found is not None and not _is_about(report, found.checkout):
            found = None
        if found is not None and report.reference:
            checkouts.attach(tx, report.checkout_id, reference=report.reference, url=found.checkout.url)
    if found is None:
        for fact in report.payments:
            payments.add_if_new(
                tx,
                rail=report.rail,
                reference=fact.reference,
                checkout_id=None,
                customer_id=None,
                payer=fact.payer,
                money=fact.amount,
                status="unmatched",
                details={**fact.details, "reported_reference": report.reference},
                occurred_at=fact.occurred_at,
            )
        return Settlement("unmatched", None)
    return _settle_known(tx, report, found)


def settle_by_id(tx: Tx, report: CheckoutReport, checkout_id: str) -> Settlement:
    """Take money into the books that somebody vouches for, whatever rail the checkout is on. Raises NotFound."""
    found = checkouts.lock(tx, checkout_id)
    if found is None:
        raise NotFound("There is no such checkout.", code="checkout_not_found")
    return _settle_known(tx, report, found)


def _is_about(report: CheckoutReport, checkout: Checkout) -> bool:
    if checkout.rail != report.rail:
        return False
    return not report.reference or checkout.rail_reference in {None, report.reference}


def _settle_known(tx: Tx, report: CheckoutReport, found: CheckoutWithLines) -> Settlement:
    checkout = found.checkout
    fresh = _add_payments(tx, report, checkout)
    paid = checkout.paid + sum(payment.amount for payment in fresh if payment.asset == checkout.asset)
    complete = report.state == "settled" and paid + report.accepted_short >= checkout.amount
    order = None
    fulfilled = checkout.status == "settled"
    if complete and not fulfilled:
        order = fulfill(tx, found, payer=next((fact.payer for fact in report.payments if fact.payer), None))
        fulfilled = order is not None
    if fulfilled:
        status = checkouts.move(tx, checkout, "settled", paid=paid, rail_final=report.final)
    elif report.state == "settled":  # not enough money, or what it held is gone: a person decides
        status = checkouts.move(tx, checkout, "processing", paid=paid, rail_final=report.final)
    else:
        status = checkouts.move(tx, checkout, report.state, paid=paid, rail_final=report.final)
    if status in {"expired", "failed"} and checkout.status not in {"expired", "failed"}:
        holds.release(tx, checkout.id)
    if fresh or order is not None:  # becoming an order changes the verdict on money that came before
        _judge(tx, checkout, fresh, fulfilled=fulfilled)
    outcome: Literal["settled", "waiting"] = "settled" if fulfilled else "waiting"
    return Settlement(outcome, checkout.id, order, tuple(payment.id for payment in fresh))


def _add_payments(tx: Tx, report: CheckoutReport, checkout: Checkout) -> list[Payment]:
    """Write down the payments that are news. Each gets the status it has if it is the only one."""
    fresh = []
    for fact in report.payments:
        provisional = Payment(
            id="", rail="", reference="", checkout_id=None, customer_id=None, payer=None, amount=fact.amount.amount,
            refund_reserved=0, refunded=0, asset=fact.amount.asset, status="unmatched", details={},
            occurred_at=fact.occurred_at, resolved_at=None, resolution=None, resolution_note=None,
            created_at=tx.now, updated_at=tx.now,
        )  # fmt: skip
        alone = payments.judge(
            [provisional],
            amount=checkout.amount,
            asset=checkout.asset,
            due=checkout.expires_at,
            fulfilled=report.state == "settled" and fact.amount.amount + report.accepted_short >= checkout.amount,
        )
        payment = payments.add_if_new(
            tx,
            rail=report.rail,
            reference=fact.reference,
            checkout_id=checkout.id,
            customer_id=checkout.customer_id,
            payer=fact.payer,
            money=fact.amount,
            status=alone[""],
            details=fact.details,
            occurred_at=fact.occurred_at,
        )
        if payment is not None:
            fresh.append(payment)
    return fresh


def _judge(tx: Tx, checkout: Checkout, fresh: list[Payment], *, fulfilled: bool) -> None:
    """Say of every payment of the checkout what it is now that these have come."""
    alone = len(fresh) == 1 and checkout.paid == 0
    known = fresh if alone else payments.of_checkout(tx, checkout.id)
    verdicts = payments.judge(
        known, amount=checkout.amount, asset=checkout.asset, due=checkout.expires_at, fulfilled=fulfilled
    )
    for payment in known:
        if payment.status != verdicts[payment.id]:
            payments.set_status(tx, payment, verdicts[payment.id])


def fulfill(tx: Tx, found: CheckoutWithLines, *, payer: str | None = None, insist: bool = False) -> Order | None:
    """Make the order of a paid checkout and give what it promised.

    None when something it held was given back meanwhile and none is left: a use of the discount that made the
    price, which a person may insist on honoring; or stock, which nobody can, so that a person who insists is told
    Conflict (``out_of_stock``) and first counts more or allows backorders. None, too, when its cart was paid for
    otherwise, unless a person insists.
    """
    checkout, lines = found.checkout, found.lines
    first = carts.settle(tx, checkout.cart_id, checkout.customer_id or payer or checkout.email)
    if not first and not insist:
        return None
    if not holds.keep(tx, found, insist=insist):
        if first:
            carts.reopen(tx, checkout.cart_id)
        return None
    subscription = subscribing.begin(tx, checkout, lines, paid=True)
    subscription_id = subscription.id if subscription else None
    order = orders.create(tx, checkout, lines, subscription_id=subscription_id)
    if order is None:
        raise Conflict("This checkout already has an order.", code="order_exists")
    until = entitling.end_of(subscription) if subscription else None
    wanted = [issue for line in lines for issue in _issues(order, line, until if line.recurring else None)]
    made = licenses.issue(tx, wanted) if wanted else []
    lasting = {line.position for line in lines if line.recurring}
    given = [
        entitling.of_license(tx, one, subscription_id=subscription_id if one.line in lasting else None) for one in made
    ]
    tx.insert_later(grants, *given, *goods.grants(tx, order, lines))
    tx.insert_later(order_discounts, *_discounts(tx, order, lines))
    return order


def _discounts(tx: Tx, order: Order, lines: Sequence[CartLine]) -> list[OrderDiscount]:
    """What each discount took off an order."""
    taken: Counter[str] = Counter()
    for line in lines:
        for note in line.discounts:
            taken[note["discount_id"]] += note["amount"]
    return [OrderDiscount(order.id, one, amount, order.asset, tx.now) for one, amount in sorted(taken.items())]


def _issues(order: Order, line: CartLine, until: datetime | None) -> list[Issue]:
    return [
        Issue(
            product_id=line.product_id,
            spec=msgspec.convert(benefit["spec"], LicenseSpec),
            until=until,
            tier=line.tier,
            order_id=order.id,
            line=line.position,
            unit=unit,
            email=order.email,
            customer_id=order.customer_id,
        )
        for benefit in line.benefits
        if benefit["kind"] == "license"
        for unit in range(line.quantity)
    ]


def accept(tx: Tx, payment_id: str, *, note: str) -> Payment:
    """A person says a payment is good: its checkout is fulfilled, whatever it lacked.

    Raises NotFound; Conflict when nothing is left to resolve, it belongs to no checkout, it was given back, or what
    it bought is out of stock (``out_of_stock``).
    """
    payment = payments.get(tx, payment_id)
    if payment.checkout_id is None:
        raise Conflict("This payment belongs to no checkout; dismiss it instead.", code="payment_unmatched")
    found = checkouts.lock(tx, payment.checkout_id)
    assert found is not None
    resolved = payments.resolve(tx, payment_id, "accepted", note=note)
    if resolved.amount and resolved.refunded == resolved.amount:
        raise Conflict("This payment was given back; dismiss it instead.", code="payment_refunded")
    if found.checkout.status != "settled":
        fulfill(tx, found, payer=payment.payer, insist=True)
        checkouts.move(tx, found.checkout, "settled", paid=found.checkout.paid, rail_final=False)
    return resolved


def dismiss(tx: Tx, payment_id: str, *, note: str) -> Payment:
    """A person has seen to a payment outside of this program (sent it back, say). Raises NotFound, Conflict."""
    return payments.resolve(tx, payment_id, "dismissed", note=note)
