"""What a test makes happen at the Stripe peer: buyers, time, banks and issuers.

Part of the Stripe peer (stripe_world.py says how it runs). ``POST /_control/<path>``; every answer is JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import stripe_checkout
from seahaven_stripe_world.billing import dunning, ledger, subscription_lifecycle
from seahaven_stripe_world.resources import disputes, events
from stripe_store import Declined, call, emit, invalid_request, one, store

_TABLES = (
    "charges",
    "coupons",
    "customers",
    "disputes",
    "invoices",
    "payment_intents",
    "prices",
    "products",
    "promotion_codes",
    "refunds",
    "subscriptions",
)


def list_events(ctx: Any, body: dict[str, Any]) -> Any:
    """``{after}``: the events with a higher number, oldest first, as Stripe would send them."""
    rows = ctx.db.rows("SELECT * FROM events WHERE x_seq > ? ORDER BY x_seq", body.get("after", 0))
    return [{"number": row["x_seq"], "event": events.serialize(ctx, row)} for row in rows]


def list_webhooks(ctx: Any, body: dict[str, Any]) -> Any:
    """The endpoints, with their secrets."""
    kept = store(ctx)
    return [{**value, "secret": kept.secrets[name]} for name, value in kept.webhooks.items()]


def list_objects(ctx: Any, body: dict[str, Any]) -> Any:
    """The ids of all there is, by kind, oldest first."""
    found = {table: [row["id"] for row in ctx.db.rows(f"SELECT id FROM {table} ORDER BY x_seq")] for table in _TABLES}
    return {**found, "sessions": list(store(ctx).sessions), "webhooks": list(store(ctx).webhooks)}


def set_clock(ctx: Any, body: dict[str, Any]) -> Any:
    """``{now}``: the account's time, for an account that was made with one. Sessions whose time is over expire."""
    if ctx.clock.mode != "fixed":
        raise invalid_request("The account has the machine's time.")
    ctx.clock._start = datetime.fromisoformat(body["now"]).astimezone(UTC)
    late = [each for each in store(ctx).sessions.values() if each["expires_at"] <= ctx.clock.now().timestamp()]
    return [stripe_checkout.expire(ctx, each) for each in late if each["status"] == "open"]


def pay_session(ctx: Any, body: dict[str, Any], session_id: str) -> Any:
    return stripe_checkout.pay(ctx, one(store(ctx).sessions, "checkout.session", session_id), body)


def settle_session(ctx: Any, body: dict[str, Any], session_id: str) -> Any:
    """``{paid}``."""
    return stripe_checkout.settle(ctx, one(store(ctx).sessions, "checkout.session", session_id), paid=body["paid"])


def expire_session(ctx: Any, body: dict[str, Any], session_id: str) -> Any:
    return stripe_checkout.expire(ctx, one(store(ctx).sessions, "checkout.session", session_id))


def _subscription(ctx: Any, subscription_id: str) -> dict[str, Any]:
    return call(ctx, "GET", f"/v1/subscriptions/{subscription_id}")


def cycle(ctx: Any, body: dict[str, Any], subscription_id: str) -> Any:
    """The period ends: a renewal, the end of a trial, or the cancellation that was planned for it."""
    before = _subscription(ctx, subscription_id)
    if before["status"] not in subscription_lifecycle.RENEWING_STATUSES:
        raise invalid_request(f"The subscription is {before['status']}: nothing renews.")
    told = ctx.db.one("SELECT max(x_seq) AS last FROM events")["last"]
    subscription_lifecycle.advance_cycle(ctx, subscription_id)
    after = _subscription(ctx, subscription_id)
    rows = ctx.db.rows("SELECT data FROM events WHERE x_seq > ? AND type LIKE 'customer.subscription.%'", told)
    if after != before and not any(_says(row, after) for row in rows):
        # The world tells of a renewed period, and of one past due, in the invoices' events only; Stripe here, too.
        changed = {name: value for name, value in before.items() if after[name] != value}
        emit(ctx, "customer.subscription.updated", after, changed)
    return after


def _says(row: Any, value: dict[str, Any]) -> bool:
    return bool(events._json.loads(row["data"])["object"] == value)


def set_card(ctx: Any, body: dict[str, Any], subscription_id: str) -> Any:
    """``{card}``: the customer pays with another card from now on. 4000000000000341 is refused at each charge."""
    subscription = _subscription(ctx, subscription_id)
    method = stripe_checkout.payment_method(ctx, body["card"])
    call(ctx, "POST", f"/v1/payment_methods/{method}/attach", {"customer": subscription["customer"]})
    return call(ctx, "POST", f"/v1/subscriptions/{subscription_id}", {"default_payment_method": method})


def recover(ctx: Any, body: dict[str, Any], subscription_id: str) -> Any:
    """``{card}``: another card, and the open invoice paid with it."""
    subscription = set_card(ctx, {"card": "4242424242424242", **body}, subscription_id)
    try:
        call(ctx, "POST", f"/v1/invoices/{subscription['latest_invoice']}/pay")
    except Declined as declined:
        return {**_subscription(ctx, subscription_id), "error": declined.body["error"]}
    return _subscription(ctx, subscription_id)


def give_up(ctx: Any, body: dict[str, Any], subscription_id: str) -> Any:
    """The last attempt at an open invoice failed: the subscription ends."""
    dunning.apply_end_of_schedule(ctx, subscription_id)
    return _subscription(ctx, subscription_id)


def warn_of_trial_end(ctx: Any, body: dict[str, Any], subscription_id: str) -> Any:
    """Three days before a trial ends."""
    subscription = _subscription(ctx, subscription_id)
    emit(ctx, "customer.subscription.trial_will_end", subscription)
    return subscription


def open_dispute(ctx: Any, body: dict[str, Any], intent_id: str) -> Any:
    """``{reason, inquiry}``: the cardholder's bank disputes a payment."""
    intent = call(ctx, "GET", f"/v1/payment_intents/{intent_id}")
    charge = ctx.db.one("SELECT * FROM charges WHERE id = ?", intent["latest_charge"])
    if charge is None or charge["disputed"]:
        raise invalid_request("There is no charge, or it is disputed already.")
    track = "inquiry" if body.get("inquiry") else "chargeback"
    tags = f"dispute={body.get('reason', 'fraudulent')},dispute_track={track}"
    disputes.maybe_create_dispute(ctx, charge, {"x_behavior": tags})
    return call(ctx, "GET", f"/v1/charges/{charge['id']}/dispute")


def close_dispute(ctx: Any, body: dict[str, Any], dispute_id: str) -> Any:
    """``{won}``: the bank's decision."""
    evidence = "winning_evidence" if body["won"] else "losing_evidence"
    return call(ctx, "POST", f"/v1/disputes/{dispute_id}", {"evidence": {"uncategorized_text": evidence}})


def settle_refund(ctx: Any, body: dict[str, Any], refund_id: str) -> Any:
    """``{paid}``: the bank took a pending refund (card 4000000000007726), or sends one back."""
    refund = call(ctx, "GET", f"/v1/refunds/{refund_id}")
    was, status = refund["status"], "succeeded" if body["paid"] else "failed"
    if was not in {"pending", "succeeded"} or was == status:
        raise invalid_request(f"The refund is {was} already.")
    counted = refund["amount"] * ((status == "succeeded") - (was == "succeeded"))
    reason = None if body["paid"] else body.get("reason", "expired_or_canceled_card")
    ctx.db.execute("UPDATE refunds SET status = ?, failure_reason = ? WHERE id = ?", status, reason, refund_id)
    if counted:
        ctx.db.execute(
            "UPDATE charges SET amount_refunded = amount_refunded + ?,"
            " refunded = (amount_refunded + ? = amount_captured) WHERE id = ?",
            *(counted, counted, refund["charge"]),
        )
        kind, words = ("refund", "REFUND FOR CHARGE") if counted > 0 else ("refund_failure", "REFUND FAILURE")
        entry = {"type_": kind, "amount": -counted, "fee": 0, "currency": refund["currency"], "description": words}
        ledger.record(ctx, source_id=refund_id, reporting_category=kind, **entry)
    refund = call(ctx, "GET", f"/v1/refunds/{refund_id}")
    emit(ctx, "refund.updated", refund, {"status": was})
    emit(ctx, "charge.refund.updated", refund, {"status": was})
    if status == "failed":
        emit(ctx, "refund.failed", refund)
    elif counted:
        emit(ctx, "charge.refunded", call(ctx, "GET", f"/v1/charges/{refund['charge']}"))
    return refund


_ACTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("events", list_events),
    ("webhooks", list_webhooks),
    ("objects", list_objects),
    ("clock", set_clock),
    ("sessions/{id}/pay", pay_session),
    ("sessions/{id}/settle", settle_session),
    ("sessions/{id}/expire", expire_session),
    ("subscriptions/{id}/cycle", cycle),
    ("subscriptions/{id}/card", set_card),
    ("subscriptions/{id}/recover", recover),
    ("subscriptions/{id}/give-up", give_up),
    ("subscriptions/{id}/warn-of-trial-end", warn_of_trial_end),
    ("payments/{id}/dispute", open_dispute),
    ("disputes/{id}/close", close_dispute),
    ("refunds/{id}/settle", settle_refund),
]
_COMPILED = [(re.compile(path.replace("{id}", "([^/]+)")), action) for path, action in _ACTIONS]


def act(ctx: Any, path: str, body: dict[str, Any]) -> Any:
    """Do one of them. Raises StripeApiError."""
    for pattern, action in _COMPILED:
        match = pattern.fullmatch(path)
        if match is not None:
            return action(ctx, body, *match.groups())
    raise invalid_request(f"There is no control {path}.", status=404)
