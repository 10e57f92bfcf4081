"""The payment intents of invoices, which the world charges without: one for each invoice that is tried.

Part of the Stripe peer (stripe_world.py says how it runs). At Stripe a subscription's money is a payment
intent's like all other, refunds and disputes name it, and ``invoice_payments`` tells whose it is.
"""

from __future__ import annotations

import json
from typing import Any

from seahaven_stripe_world import _time
from seahaven_stripe_world.billing import invoicing
from seahaven_stripe_world.resources import charges, payment_intents
from stripe_store import call, emit, livemode, store

_PAYING = "counterfoil_paying"
_pay_invoice = invoicing.pay_invoice
_insert_charge = charges.insert_charge


def pay_invoice(ctx: Any, invoice_id: str, **options: Any) -> dict[str, Any]:
    """The world's attempt to collect, whose charge gets a payment intent."""
    ctx.state[_PAYING] = invoice_id
    try:
        outcome = _pay_invoice(ctx, invoice_id, **options)
    finally:
        ctx.state[_PAYING] = None
    if outcome.get("charge") is not None:
        emit(ctx, "invoice_payment.paid", next(each for each in all_of(ctx) if each["invoice"] == invoice_id))
    return outcome  # type: ignore[no-any-return]


def insert_charge(ctx: Any, **columns: Any) -> dict[str, Any]:
    """The world's one place where a charge is written."""
    invoice_id = ctx.state.get(_PAYING)
    if invoice_id is None or columns["payment_intent"] is not None:
        return _insert_charge(ctx, **columns)  # type: ignore[no-any-return]
    intent_id = _intent(ctx, invoice_id, columns)
    charge = _insert_charge(ctx, **{**columns, "payment_intent": intent_id})
    method = columns["pm_row"]
    if columns.get("failure_code") is None:
        kind, error, received = "payment_intent.succeeded", None, charge["amount"]
        status, method_id = "succeeded", method["id"]
    else:
        kind, received, status, method_id = "payment_intent.payment_failed", 0, "requires_payment_method", None
        error = json.dumps(
            payment_intents._last_payment_error(
                code=columns["failure_code"],
                decline_code=(columns.get("outcome") or {}).get("reason"),
                message=columns["failure_message"],
                charge=charge["id"],
                pm_body=payment_intents._payment_method_body(ctx, method),
            )
        )
    ctx.db.execute(
        "UPDATE payment_intents SET status = ?, amount_received = ?, payment_method = ?, latest_charge = ?,"
        " last_payment_error = ? WHERE id = ?",
        *(status, received, method_id, charge["id"], error, intent_id),
    )
    emit(ctx, kind, call(ctx, "GET", f"/v1/payment_intents/{intent_id}"))
    return charge  # type: ignore[no-any-return]


def _intent(ctx: Any, invoice_id: str, columns: dict[str, Any]) -> str:
    kept = store(ctx)
    known = kept.intents.get(invoice_id)
    if known is not None and ctx.db.one("SELECT id FROM payment_intents WHERE id = ?", known) is not None:
        return known
    wanted = {name: columns[name] for name in ("amount", "currency", "customer")}
    wanted["description"] = columns["description"] or "Subscription update"
    kept.intents[invoice_id] = str(call(ctx, "POST", "/v1/payment_intents", wanted)["id"])
    return kept.intents[invoice_id]


def all_of(ctx: Any) -> list[dict[str, Any]]:
    """Every invoice payment, oldest first."""
    found = []
    for invoice_id, intent_id in store(ctx).intents.items():
        intent = ctx.db.one("SELECT * FROM payment_intents WHERE id = ?", intent_id)
        if intent is not None:
            invoice = call(ctx, "GET", f"/v1/invoices/{invoice_id}")
            found.append(_payment(ctx, intent, invoice))
    return found


def _payment(ctx: Any, intent: dict[str, Any], invoice: dict[str, Any]) -> dict[str, Any]:
    paid = intent["status"] == "succeeded"
    voided = invoice["status_transitions"]["voided_at"]
    return {
        "id": f"inpay_{intent['id'].removeprefix('pi_')}",
        "object": "invoice_payment",
        "amount_paid": intent["amount_received"] if paid else None,
        "amount_requested": intent["amount"],
        "created": _time.to_unix(intent["created"]),
        "currency": intent["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": livemode(ctx),
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "paid" if paid else "canceled" if voided else "open",
        "status_transitions": {
            "canceled_at": None if paid else voided,
            "paid_at": invoice["status_transitions"]["paid_at"] if paid else None,
        },
    }


invoicing.pay_invoice = pay_invoice
charges.insert_charge = insert_charge
