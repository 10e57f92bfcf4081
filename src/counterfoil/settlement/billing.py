"""Bills of rails become payments, orders and paid periods."""

from __future__ import annotations

from typing import Any

import msgspec

from counterfoil.db.tx import Tx
from counterfoil.rails.base import CheckoutReport
from counterfoil.rails.facts import InvoiceFact
from counterfoil.sales import invoices, orders, payments, quotes
from counterfoil.sales.tables import order_discounts
from counterfoil.sales.types import Invoice, Order, OrderDiscount, Payment
from counterfoil.settlement import entitling, goods, links, subscribing
from counterfoil.settlement.settle import settle
from counterfoil.settlement.tables import grants
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.types import Subscription, SubscriptionPeriod


def bill(tx: Tx, rail: str, fact: InvoiceFact) -> subscribing.Outcome:
    """Take what a rail says of a bill into the books; what it paid for follows.

    The first bill of a checkout settles it. A later one becomes a payment and an order of its own, once by the
    payment's reference, and the period that it pays for keeps the subscription's licenses running.
    """
    first = None
    if fact.is_first and fact.checkout_id is not None and fact.payment is not None:
        report = CheckoutReport(
            rail=rail,
            reference="",
            checkout_id=fact.checkout_id,
            state="settled",
            payments=(fact.payment,),
            final=False,
        )
        first = settle(tx, report)
    subscription = None
    if fact.subscription_reference is not None:
        subscription = subscribing.find(tx, rail, fact.subscription_reference, fact.checkout_id)
    elif first is not None and first.checkout_id is not None:  # its rail has not named the subscription yet
        begun = subscriptions.of_checkout(tx, first.checkout_id)
        subscription = None if begun is None else subscriptions.lock(tx, begun.id)
    if subscription is None and (first is None or first.checkout_id is None):
        return "unmatched"
    invoice = invoices.put(tx, _invoice(tx, rail, fact, subscription))
    if fact.payment is None or fact.status != "paid":
        return "applied"
    payment, order = _paid(tx, rail, fact, subscription, invoice)
    invoice = invoices.attach(
        tx,
        invoice,
        payment_id=payment.id if payment else None,
        order_id=order.id if order else None,
        checkout_id=first.checkout_id if first else None,
    )
    if subscription is not None and order is not None and fact.period_start and fact.period_end:
        _pay_period(tx, subscription, fact, invoice, order)
    return "applied"


def _invoice(tx: Tx, rail: str, fact: InvoiceFact, subscription: Subscription | None) -> Invoice:
    customer_id = subscription.customer_id if subscription else None
    if customer_id is None and fact.customer_reference is not None:
        known = links.find(tx, rail, "customer", fact.customer_reference)
        customer_id = known.object_id if known else None
    return Invoice(
        id=tx.new_id("inv"),
        number=fact.number,
        customer_id=customer_id,
        order_id=None,
        subscription_id=subscription.id if subscription else None,
        checkout_id=None,
        payment_id=None,
        rail=rail,
        reference=fact.reference,
        amount=fact.amount,
        tax=fact.tax,
        asset=fact.asset,
        billing_reason=fact.billing_reason,
        status=fact.status,
        period_start=fact.period_start,
        period_end=fact.period_end,
        pdf_url=fact.pdf_url,
        receipt_url=fact.receipt_url,
        hosted_url=fact.hosted_url,
        paid_at=fact.paid_at,
        occurred_at=fact.occurred_at,
        details=fact.details,
        created_at=tx.now,
        updated_at=tx.now,
    )


def _paid(
    tx: Tx, rail: str, fact: InvoiceFact, subscription: Subscription | None, invoice: Invoice
) -> tuple[Payment | None, Order | None]:
    """The money of a bill that is paid, and its order; made when they are news."""
    assert fact.payment is not None
    if fact.is_first:
        known = payments.by_reference(tx, rail, fact.payment.reference)
        order = orders.of_checkout(tx, known.checkout_id) if known and known.checkout_id else None
        return known, order
    if subscription is None:
        return None, None
    added = payments.add_if_new(
        tx,
        rail=rail,
        reference=fact.payment.reference,
        checkout_id=None,
        customer_id=subscription.customer_id,
        payer=fact.payment.payer,
        money=fact.payment.amount,
        status="settled",
        details=fact.payment.details,
        occurred_at=fact.payment.occurred_at,
    )
    if added is None:
        return payments.by_reference(tx, rail, fact.payment.reference), orders.get_optional(tx, invoice.order_id)
    discount_id = _discount(tx, rail, fact, subscription)
    order = _order(tx, rail, fact, subscription, added, discount_id)
    if not orders.add(tx, order, read_again=False, subscription_id=subscription.id):
        return added, None
    tx.insert_later(grants, *goods.of_renewal(tx, order))
    if discount_id is not None and order.discount_total:
        taken = OrderDiscount(order.id, discount_id, order.discount_total, order.asset, tx.now)
        tx.insert_later(order_discounts, taken)
    return added, order


def _discount(tx: Tx, rail: str, fact: InvoiceFact, subscription: Subscription) -> str | None:
    """The discount that a bill had: as it says, for by now the subscription may carry another."""
    if fact.discount_reference is None:
        return subscription.discount_id
    return subscribing.discount_named(tx, rail, fact.discount_reference)


def _order(
    tx: Tx, rail: str, fact: InvoiceFact, subscription: Subscription, payment: Payment, discount_id: str | None
) -> Order:
    items = _order_items(tx, rail, fact, subscription)
    # Of the lines, whose amounts have the tax that is in their prices and not what comes on top.
    taken = sum(item["discount_total"] for item in items)
    return Order(
        id=tx.new_id("ord"),
        source=rail,
        purchase_reference=payment.reference,
        checkout_id=None,
        subscription_id=subscription.id,
        customer_id=subscription.customer_id,
        user_id=subscription.user_id,
        status="paid",
        items=items,
        amount=payment.amount,
        refunded=0,
        asset=payment.asset,
        discount_total=taken if discount_id else 0,
        tax_total=fact.tax if fact.amount == payment.amount else 0,
        email=subscription.email,
        shipping=None,
        metadata={},
        status_updated_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )


def _order_items(tx: Tx, rail: str, fact: InvoiceFact, subscription: Subscription) -> list[dict[str, Any]]:
    """What a later bill was for: its lines where we know their prices, else what the subscription is for."""
    ours = links.objects(tx, rail, "price", [line.price_reference for line in fact.lines if line.price_reference])
    lines = [
        (ours.get(line.price_reference or "") or line.price_id, line.quantity, line.amount, line.subtotal)
        for line in fact.lines
        if not line.proration and line.amount >= 0
    ]
    if not lines and fact.lines:
        return _rest_of_period(tx, fact, ours)
    if not lines or any(price_id is None for price_id, *_ in lines):
        held = subscriptions.items_of(tx, subscription.id)
        lines = [(item.price_id, item.quantity, None, None) for item in held]  # type: ignore[misc]
    offers = quotes.offers_of(tx, [price_id for price_id, *_ in lines if price_id is not None])
    items = []
    for price_id, quantity, total, subtotal in lines:
        offer = offers.get(price_id or "")
        if offer is None:
            continue
        # The price's own amount is not everybody's: some countries have theirs.
        full = offer.price.unit_amount * quantity if subtotal is None else subtotal
        paid = full if total is None else total
        items.append(
            {
                "product_id": offer.price.product_id,
                "price_id": offer.price.id,
                "tier": offer.price.tier,
                "name": f"{offer.product_name} {offer.price.name}".strip(),
                "quantity": quantity,
                "unit_amount": offer.price.unit_amount if subtotal is None else subtotal // max(quantity, 1),
                "discount_total": max(0, full - paid),
                "total": paid,
                "ships": any(benefit["kind"] == "goods" for benefit in offer.benefits),
            }
        )
    return items


def _rest_of_period(tx: Tx, fact: InvoiceFact, ours: dict[str, str]) -> list[dict[str, Any]]:
    """What a bill charges for the rest of a period after a change, as its rail worked it out; nothing of it ships."""
    charged = [(ours.get(line.price_reference or "") or line.price_id, line) for line in fact.lines if line.amount > 0]
    offers = quotes.offers_of(tx, [price_id for price_id, _ in charged if price_id is not None])
    return [
        {
            "product_id": offer.price.product_id,
            "price_id": offer.price.id,
            "tier": offer.price.tier,
            "name": line.description or offer.product_name,
            "quantity": 1,
            "unit_amount": line.amount,
            "discount_total": 0,
            "total": line.amount,
            "ships": False,
        }
        for price_id, line in charged
        if (offer := offers.get(price_id or "")) is not None
    ]


def _pay_period(tx: Tx, subscription: Subscription, fact: InvoiceFact, invoice: Invoice, order: Order) -> None:
    assert fact.period_start is not None
    assert fact.period_end is not None
    if fact.period_end <= fact.period_start:
        return
    period = SubscriptionPeriod(
        subscription_id=subscription.id,
        period_start=fact.period_start,
        period_end=fact.period_end,
        order_id=order.id,
        invoice_id=invoice.id,
        status="paid",
        amount=order.amount,
        asset=order.asset,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if subscriptions.add_period(tx, period):
        tx.record(
            "subscription.period_paid",
            "subscription",
            subscription.id,
            customer_id=subscription.customer_id,
            order_id=order.id,
            until=msgspec.to_builtins(fact.period_end),
        )
    entitling.entitle(tx, entitling.subscription_of(tx, subscription.id))
