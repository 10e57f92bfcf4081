"""What the books hold of one purchase on Stripe, so that two purchases can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tests.support.app import named
from tests.support.stripe_shop import StripeShop

_WHEN = {"created_at", "updated_at", "processed_at", "issued_at", "starts_at", "checked_at", "status_updated_at"}
_WHEN |= {"settled_at", "revoked_at", "last_synced_at"}
"""When we wrote something down, which does depend on the order; what it is about must not."""
_LAST_WORD = {"raw", "last_event_id", "heard"}
"""Which of the events of one second we noted as the last."""
_OF = {
    "checkouts": "id",
    "payments": "checkout_id",
    "orders": "checkout_id",
    "invoices": "checkout_id",
    "subscriptions": "checkout_id",
}
_THEN = {
    "licenses": ("orders", "order_id"),
    "grants": ("orders", "order_id"),
    "refunds": ("payments", "payment_id"),
    "subscription_items": ("subscriptions", "subscription_id"),
    "subscription_periods": ("subscriptions", "subscription_id"),
    "rail_links": ("subscriptions", "object_id"),
}


async def story(stripe: StripeShop, opened: dict[str, Any], events: Sequence[dict[str, Any]]) -> Any:
    """What the books hold of one checkout, its ids and Stripe's replaced by their places in the story."""
    shop = stripe.shop
    found = {table: await shop.rows(table, **{column: opened["id"]}) for table, column in _OF.items()}
    for subscription in found["subscriptions"]:
        later = await shop.rows("orders", subscription_id=subscription["id"], checkout_id=None)
        found["orders"] += later
        found["payments"] += [
            row for order in later for row in await shop.rows("payments", reference=order["purchase_reference"])
        ]
        found["invoices"] += await shop.rows("invoices", subscription_id=subscription["id"], checkout_id=None)
    for table, (owner, column) in _THEN.items():
        ids = [row["id"] for row in found[owner]]
        found[table] = [row for one in ids for row in await shop.rows(table, **{column: one})]
    for rows in found.values():
        for row in rows:
            for name in (_WHEN | _LAST_WORD) & row.keys():
                row[name] = row[name] is not None
    theirs: dict[str, str] = {}
    for event in events:
        note = event["data"]["object"]
        for value in (note, *note.get("items", {}).get("data", ()), *note.get("lines", {}).get("data", ())):
            for name in ("id", "number", "payment_intent", "subscription", "invoice", "customer", "latest_charge",
                         "charge", "receipt_number", "url", "hosted_invoice_url", "invoice_pdf"):  # fmt: skip
                if isinstance(value.get(name), str):
                    theirs.setdefault(value[name], f"{note['object']}.{name}")
    theirs[opened["id"]] = "checkout"
    theirs[opened["url"]] = "url"
    return named({table: sorted(rows, key=_place) for table, rows in found.items()}, theirs)


def _place(row: dict[str, Any]) -> list[str]:
    """Where a row stands among its like: names and ids are random."""
    told = [value for name, value in row.items() if isinstance(value, datetime | int) or name in {"kind", "status"}]
    return [value.isoformat() if isinstance(value, datetime) else f"{value!s:>20}" for value in told]


def assert_same(ended: Any, first: Any, where: object) -> None:
    """Two stories are one; ``where`` says which ended otherwise."""
    for table, rows in first.items():
        assert len(ended[table]) == len(rows), f"{where}: {table}: {len(ended[table])} rows, not {len(rows)}"
        for ours, theirs in zip(ended[table], rows, strict=True):
            apart = {name: (ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]}
            assert not apart, f"{where}: {table}: {apart}"


def shift(story: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Times as distances from the checkout's own: each purchase happens at another time."""
    (checkout,) = story["checkouts"]
    zero: datetime = checkout["expires_at"]

    def walk(value: Any) -> Any:
        match value:
            case datetime():
                return value - zero
            case dict():  # Stripe's own words hold a time, too
                return {name: walk(inner) for name, inner in value.items() if name != "next_payment_attempt"}
            case list():
                return [walk(inner) for inner in value]
            case _:
                return value

    return {name: walk(rows) for name, rows in story.items()}
