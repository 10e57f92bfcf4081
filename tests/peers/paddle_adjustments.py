"""The adjustments of the stand-in for Paddle: refunds and credits that are asked for, chargebacks that befall."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal

from tests.peers.paddle_fields import AMOUNT, anything, entity, many, nullable, object_of, one_of, read, text
from tests.peers.paddle_money import CHARGEBACK_FEE, adjust, exchanged, texts, whole
from tests.peers.paddle_world import Answer, Listing, Problem, Request, Row, World, invalid, stamp

_ACTIONS = (
    "credit",
    "refund",
    "chargeback",
    "chargeback_reverse",
    "chargeback_warning",
    "chargeback_warning_reverse",
    "credit_reverse",
)
_LISTING = Listing(("id", "status", "action", "customer_id", "subscription_id", "transaction_id"), per_page=10, most=50)
_FIELDS = {
    "action": one_of(*_ACTIONS),
    "type": one_of("full", "partial"),
    "tax_mode": one_of("internal", "external"),
    "transaction_id": entity("txn"),
    "reason": text(1),
    "items": nullable(
        many(
            object_of(
                {
                    "item_id": entity("txnitm"),
                    "type": one_of("full", "partial", "tax", "proration"),
                    "amount": nullable(AMOUNT),
                    "proration": anything,
                },
                ("item_id", "type"),
            ),
            1,
            100,
        )
    ),
}
_REVERSES = {
    "chargeback": "chargeback_reverse",
    "chargeback_warning": "chargeback_warning_reverse",
    "credit": "credit_reverse",
}
_SUMS = ("subtotal", "tax", "total")


class Adjustments:
    """What changes about money that was billed or paid."""

    def __init__(self, world: World) -> None:
        self.world = world

    def list_all(self, request: Request) -> Answer:
        return self.world.page(request, self.world.rows["adjustment"].values(), _LISTING)

    def create(self, request: Request) -> Answer:
        values = read(request.json(), _FIELDS, ("action", "transaction_id", "reason"), closed=False)
        if values["action"] not in {"credit", "refund"}:
            raise invalid("action", "must be one of credit, refund")
        sale = self.world.get("transaction", values["transaction_id"])
        full, asked = values.get("type", "partial") == "full", values.get("items")
        if full and asked:
            raise invalid("items", "must be omitted when type is full")
        if not full and not asked:
            raise invalid("items", "is required when type is partial")
        self._check(sale, values["action"])
        if full:
            asked = [{"item_id": line["id"], "type": "full"} for line in sale["details"]["line_items"]]
        internal = values.get("tax_mode", "internal") == "internal"
        items = [self._item(sale, item, internal=internal) for item in asked or ()]
        if len({item["item_id"] for item in items}) != len(items):
            raise Problem(400, "adjustment_invalid_combination_of_types", "an item is adjusted twice")
        pending = values["action"] == "refund" and not self.world.auto_approve
        status = "pending_approval" if pending else "approved"
        row = self._add(sale, values["action"], status, values["reason"], items, full=full)
        return Answer(row, 201)

    def _check(self, sale: Row, action: str) -> None:
        if action == "refund":
            if sale["status"] != "completed":
                words = f"transaction must be completed to be refunded, it is {sale['status']}"
                raise Problem(400, "adjustment_transaction_invalid_status_for_refund", words)
            if any(row["status"] == "pending_approval" for row in self._of(sale)):
                words = f"transaction {sale['id']} has a pending refund"
                raise Problem(400, "adjustment_pending_refund_request", words)
        elif sale["status"] not in {"billed", "past_due"} or sale["collection_mode"] != "manual":
            words = f"transaction must be billed and manually collected to be credited, it is {sale['status']}"
            raise Problem(400, "adjustment_transaction_invalid_status_for_credit", words)

    def _of(self, sale: Row) -> list[Row]:
        return [row for row in self.world.rows["adjustment"].values() if row["transaction_id"] == sale["id"]]

    def left(self, sale: Row, item_id: str) -> dict[str, int]:
        """What may still be taken off a line."""
        line = next((line for line in sale["details"]["line_items"] if line["id"] == item_id), None)
        if line is None:
            words = f"transaction item {item_id} is not of transaction {sale['id']}"
            raise Problem(400, "adjustment_transaction_item_invalid", words)
        amounts = {name: int(line["totals"][name]) for name in ("tax", "total")}
        for row in self._of(sale):
            if row["status"] in {"rejected", "reversed"} or row["action"] not in {"refund", "credit", "chargeback"}:
                continue
            for item in row["items"]:
                if item["item_id"] == item_id:
                    for name in amounts:
                        amounts[name] -= int(item["totals"][name])
        return {"subtotal": amounts["total"] - amounts["tax"], **amounts}

    def _item(self, sale: Row, asked: Row, *, internal: bool) -> Row:
        left, kind = self.left(sale, asked["item_id"]), asked["type"]
        line = next(line for line in sale["details"]["line_items"] if line["id"] == asked["item_id"])
        rate = Decimal(line["tax_rate"])
        if left["total"] <= 0:
            words = f"transaction item {asked['item_id']} has been adjusted in full"
            raise Problem(400, "adjustment_transaction_item_has_already_been_fully_adjusted", words)
        if kind == "full":
            found = left
        elif kind == "partial":
            if asked.get("amount") is None:
                raise invalid("items.amount", "is required when type is partial")
            found = _part(int(asked["amount"]), rate, internal=internal)
        elif kind == "tax":
            if left["tax"] <= 0:
                raise Problem(400, "adjustment_no_tax_available_to_adjust", "no tax available to adjust")
            found = {"subtotal": 0, "tax": left["tax"], "total": left["tax"]}
        else:
            raise invalid("items.type", "proration is set by Paddle")
        if found["total"] == 0:
            raise Problem(400, "adjustment_amount_cannot_be_zero", "adjustment amount cannot be zero")
        if found["total"] > left["total"]:
            words = f"adjustment of {found['total']} is above the remaining {left['total']}"
            raise Problem(400, "adjustment_amount_above_remaining_allowed", words)
        if found["total"] == left["total"]:
            found = left
        return {
            "id": self.world.new_id("adjitm"),
            "item_id": asked["item_id"],
            "type": kind,
            "amount": asked.get("amount") or str(found["total"]),
            "proration": None,
            "totals": texts(found),
            "tax_rate": f"{rate:f}",
        }

    def _add(self, sale: Row, action: str, status: str, reason: str, items: list[Row], *, full: bool) -> Row:
        totals = {name: sum(int(item["totals"][name]) for item in items) for name in _SUMS}
        paid = sale["details"]["totals"]
        fee = 0
        if action.startswith("refund") and int(paid["total"]):  # Paddle gives back its share of what is refunded
            fee = whole(Decimal(paid["fee"] or 0) * totals["total"] / int(paid["total"]))
        sums = texts({**totals, "fee": fee, "earnings": totals["total"] - totals["tax"] - fee, "retained_fee": 0})
        now = stamp(self.world.now())
        by_rate: dict[str, dict[str, int]] = {}
        for item in items:
            found = by_rate.setdefault(item["tax_rate"], dict.fromkeys(_SUMS, 0))
            for name in _SUMS:
                found[name] += int(item["totals"][name])
        row: Row = {
            "id": self.world.new_id("adjustment"),
            "action": action,
            "type": "full" if full else "partial",
            "transaction_id": sale["id"],
            "subscription_id": sale["subscription_id"],
            "customer_id": sale["customer_id"],
            "reason": reason,
            "credit_applied_to_balance": False if action == "credit" else None,
            "currency_code": sale["currency_code"],
            "status": status,
            "items": [{name: value for name, value in item.items() if name != "tax_rate"} for item in items],
            "totals": {**sums, "currency_code": sale["currency_code"]},
            "payout_totals": self._payout(sale, action, sums),
            "tax_rates_used": [{"tax_rate": rate, "totals": texts(found)} for rate, found in by_rate.items()],
            "created_at": now,
            "updated_at": now,
        }
        self.world.add("adjustment", row)
        self.world.emit("adjustment.created", row)
        if status == "approved":
            self._apply(sale)
        return row

    def _payout(self, sale: Row, action: str, sums: dict[str, str]) -> Row | None:
        payout = sale["details"]["payout_totals"]
        if payout is None:
            return None
        rate = Decimal(payout["exchange_rate"])
        found: Row = {name: exchanged(value, rate) for name, value in sums.items()}
        if action in {"chargeback", "chargeback_warning"}:
            fee = CHARGEBACK_FEE if action == "chargeback" else 0
            found["chargeback_fee"] = {"amount": str(fee), "original": None}
        return {**found, "exchange_rate": payout["exchange_rate"], "currency_code": payout["currency_code"]}

    def _apply(self, sale: Row) -> None:
        """What adjustments change of their transaction."""
        adjust(sale["details"], self._of(sale))
        self.world.touch(sale)
        self.world.emit("transaction.updated", sale)

    # -- what Paddle and banks decide ------------------------------------------------------------------

    def decide(self, row: Row, status: str) -> None:
        """Approve or reject a refund."""
        if row["status"] != "pending_approval":
            raise Problem(400, "conflict", f"adjustment is {row['status']}")
        row["status"] = status
        self.world.touch(row)
        self.world.emit("adjustment.updated", row)
        if status == "approved":
            self._apply(self.world.get("transaction", row["transaction_id"]))

    def befall(self, sale: Row, action: str, reason: str) -> Row:
        """A chargeback, or the warning of one: of all that is left."""
        if sale["status"] != "completed":
            raise Problem(400, "conflict", f"transaction is {sale['status']}")
        lines = [line["id"] for line in sale["details"]["line_items"] if self.left(sale, line["id"])["total"] > 0]
        items = [self._item(sale, {"item_id": item_id, "type": "full"}, internal=True) for item_id in lines]
        return self._add(sale, action, "approved", reason, items, full=True)

    def reverse(self, row: Row) -> Row:
        """The buyer's bank gave in: an adjustment the other way, and the first one is marked."""
        action = _REVERSES.get(row["action"])
        if action is None or row["status"] == "reversed":
            raise Problem(400, "conflict", f"adjustment {row['id']} cannot be reversed")
        sale = self.world.get("transaction", row["transaction_id"])
        rates = {line["id"]: line["tax_rate"] for line in sale["details"]["line_items"]}
        items = [
            {**item, "id": self.world.new_id("adjitm"), "tax_rate": rates[item["item_id"]]}
            for item in deepcopy(row["items"])
        ]
        row["status"] = "reversed"
        self.world.touch(row)
        self.world.emit("adjustment.updated", row)
        return self._add(sale, action, "approved", row["reason"], items, full=row["type"] == "full")


def _part(amount: int, rate: Decimal, *, internal: bool) -> dict[str, int]:
    if internal:
        subtotal = whole(amount / (1 + rate))
        return {"subtotal": subtotal, "tax": amount - subtotal, "total": amount}
    tax = whole(amount * rate)
    return {"subtotal": amount, "tax": tax, "total": amount + tax}
