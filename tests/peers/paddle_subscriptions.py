"""The subscriptions of the stand-in for Paddle: started by a purchase, changed, renewed, paused, ended."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.peers.paddle_fields import (
    CUSTOM_DATA,
    anything,
    entity,
    free_object,
    integer,
    many,
    moment,
    nullable,
    object_of,
    one_of,
    read,
)
from tests.peers.paddle_money import Line, whole
from tests.peers.paddle_sales import Sales, period, unit_amount
from tests.peers.paddle_world import Answer, Listing, Problem, Request, Row, World, invalid, later, parse, stamp

_LISTING = Listing(("id", "status", "customer_id", "address_id", "collection_mode"))
_ITEM = {"price_id": entity("pri"), "price": free_object, "quantity": integer(1)}
_MODES = (
    "prorated_immediately",
    "prorated_next_billing_period",
    "full_immediately",
    "full_next_billing_period",
    "do_not_bill",
)
_EFFECTIVE = one_of("next_billing_period", "immediately")
_ON_RESUME = one_of("continue_existing_billing_period", "start_new_billing_period")
_UPDATE = {
    "customer_id": entity("ctm"),
    "address_id": entity("add"),
    "business_id": nullable(entity("biz")),
    "next_billed_at": moment,
    "discount": nullable(object_of({"id": entity("dsc"), "effective_from": _EFFECTIVE}, ("id", "effective_from"))),
    "collection_mode": one_of("automatic", "manual"),
    "billing_details": nullable(free_object),
    "scheduled_change": anything,
    "items": many(object_of(_ITEM), 1, 100),
    "custom_data": CUSTOM_DATA,
    "proration_billing_mode": one_of(*_MODES),
    "on_payment_failure": one_of("prevent_change", "apply_change"),
}


class Subscriptions:
    """What is paid again and again."""

    def __init__(self, world: World, sales: Sales) -> None:
        self.world = world
        self.sales = sales
        sales.subscriptions = self
        self.reset()

    def reset(self) -> None:
        self.pending: dict[str, list[tuple[list[Row], list[Line]]]] = {}
        """Charges and credits that wait for the next bill."""
        self.balances: dict[str, int] = {}
        """Customers' credit, in minor units."""
        self.decline = False
        """Whether charges that an API call causes are declined."""

    # -- the API: reading ------------------------------------------------------------------------------

    def view(self, row: Row) -> Row:
        """With the links that only the API gives, and only for a while."""
        base, token = f"https://buyer-portal.paddle.com/subscriptions/{row['id']}", f"pga_{self.world.token()}"
        urls = {"update_payment_method": f"{base}/update-payment-method?token={token}"}
        return {**row, "management_urls": {**urls, "cancel": f"{base}/cancel?token={token}"}}

    def read(self, request: Request) -> Answer:
        return Answer(self.view(self.world.get("subscription", request.params["id"])))

    def list_all(self, request: Request) -> Answer:
        rows = list(self.world.rows["subscription"].values())
        if (prices := request.values("price_id")) is not None:
            rows = [row for row in rows if any(item["price"]["id"] in prices for item in row["items"])]
        if (actions := request.values("scheduled_change_action")) is not None:
            rows = [row for row in rows if (row["scheduled_change"] or {}).get("action") in actions]
        answer = self.world.page(request, rows, _LISTING)
        answer.data = [self.view(row) for row in answer.data]
        return answer

    # -- the API: changing -----------------------------------------------------------------------------

    def changeable(self, request: Request) -> Row:
        row = self.world.get("subscription", request.params["id"])
        if row["status"] == "canceled":
            code = (
                "subscription_update_when_canceled"
                if request.method == "PATCH"
                else ("subscription_is_canceled_action_invalid")
            )
            raise Problem(400, code, "cannot update subscription, as the subscription status is 'canceled'")
        return row

    def update(self, request: Request) -> Answer:
        row = self.changeable(request)
        values = read(request.json(), _UPDATE, closed=False)
        mode = values.pop("proration_billing_mode", None)
        failure = values.pop("on_payment_failure", "prevent_change")
        if "scheduled_change" in values and values["scheduled_change"] is not None:
            words = "scheduled change can only be removed"
            raise Problem(400, "subscription_scheduled_change_invalid_update", words)
        if row["scheduled_change"] is not None and values and set(values) != {"scheduled_change"}:
            words = "cannot update subscription, pending scheduled changes"
            raise Problem(400, "subscription_locked_pending_changes", words)
        if row["status"] == "past_due" and {"items", "next_billed_at"} & set(values):
            words = "cannot update subscription, as the subscription status is 'past_due'"
            raise Problem(400, "subscription_update_when_past_due", words)
        if {"items", "next_billed_at"} & set(values) and mode is None:
            words = "proration_billing_mode is required when items are updated"
            raise Problem(400, "subscription_items_update_missing_proration_billing_mode", words)
        items, discount = values.pop("items", None), values.pop("discount", ...)
        if discount is not ...:
            values["discount"] = self.discount(row, discount)
        if (next_billed_at := values.pop("next_billed_at", None)) is not None:
            values |= self.rescheduled(row, parse(next_billed_at))
        if items is not None:
            self.change_items(row, items, str(mode), prevent=failure == "prevent_change")
        row |= values
        self.updated(row)
        return Answer(self.view(row))

    def discount(self, row: Row, asked: Row | None) -> Row | None:
        if asked is None:
            return None
        found = self.world.get("discount", asked["id"])
        if not found["recur"]:
            raise Problem(400, "subscription_one_off_discount_not_valid", "discount does not recur")
        if found["currency_code"] not in {None, row["currency_code"]}:
            raise Problem(400, "subscription_invalid_discount_currency", "discount is for another currency")
        now = self.world.now()
        starts = now if asked["effective_from"] == "immediately" else parse(row["next_billed_at"] or stamp(now))
        return self.running(found, starts, row["billing_cycle"])

    def running(self, discount: Row, starts: datetime, cycle: Row) -> Row:
        """A recurring discount on a subscription, and until when."""
        ends = None
        if (times := discount["maximum_recurring_intervals"]) is not None:
            ends = stamp(later(starts, {**cycle, "frequency": cycle["frequency"] * times}))
        return {"id": discount["id"], "type": "recurring", "starts_at": stamp(starts), "ends_at": ends}

    def rescheduled(self, row: Row, next_billed_at: datetime) -> Row:
        if next_billed_at < self.world.now() + timedelta(minutes=30):
            words = "next_billed_at must be at least 30 minutes from now"
            raise Problem(400, "subscription_next_billed_at_too_soon", words)
        for item in row["items"]:
            item["next_billed_at"] = stamp(next_billed_at)
        current = {**row["current_billing_period"], "ends_at": stamp(next_billed_at)}
        return {"next_billed_at": stamp(next_billed_at), "current_billing_period": current}

    def change_items(self, row: Row, asked: list[Row], mode: str, *, prevent: bool) -> None:
        """Replace the items, and charge or credit what the mode says."""
        old = {item["price"]["id"]: item["quantity"] for item in row["items"]}
        wanted = []
        for item in asked:
            if "quantity" not in item and item.get("price_id") not in old:
                words = "quantity is required for new items"
                raise Problem(400, "subscription_quantity_missing_for_new_items", words)
            wanted.append(self.sales.item({"quantity": old.get(item.get("price_id", ""), 1), **item}))
        new = {item["price_id"]: item["quantity"] for item in wanted}
        if len(new) != len(wanted):
            raise Problem(400, "subscription_duplicate_price_ids", "a price is in the list twice")
        cycles = [item["price"]["billing_cycle"] for item in wanted]
        if None in cycles or any(cycle != cycles[0] for cycle in cycles):
            words = "items must be recurring, with the same billing cycle"
            raise Problem(400, "subscription_new_items_not_valid", words)
        if mode != "do_not_bill" and row["status"] == "active":
            charges, returns = self.differences(row, wanted, old, mode)
            if mode.endswith("_immediately"):
                self.charge(row, charges, returns, "subscription_update", prevent=prevent)
            else:
                self.pending.setdefault(row["id"], []).append((charges, returns))
        now, kept = self.world.now(), {item["price"]["id"]: item for item in row["items"]}
        row["items"] = [
            {**(kept.get(item["price_id"]) or self.new_item(row, item, now)), "quantity": item["quantity"]}
            for item in wanted
        ]
        if cycles[0] != row["billing_cycle"]:
            row["billing_cycle"] = cycles[0]
            self.begin(row, now)

    def differences(self, row: Row, wanted: list[Row], old: dict[str, int], mode: str) -> tuple[list[Row], list[Line]]:
        """What comes on top, and what is given back, for the rest of the period."""
        current, now = row["current_billing_period"], self.world.now()
        starts, ends = parse(current["starts_at"]), parse(current["ends_at"])
        rest = Decimal(str(round(max((ends - now) / (ends - starts), 0), 5)))
        share = {"rate": f"{rest if mode.startswith('prorated') else Decimal(1):f}", "billing_period": current}
        charges = [
            {**item, "quantity": item["quantity"] - old.get(item["price_id"], 0), "proration": share}
            for item in wanted
            if item["quantity"] > old.get(item["price_id"], 0)
        ]
        returns: list[Line] = []
        new = {item["price_id"]: item["quantity"] for item in wanted}
        country = self.world.get("address", row["address_id"])["country_code"]
        for item in row["items"] if mode.startswith("prorated") else ():
            price = item["price"]
            less = item["quantity"] - new.get(price["id"], 0)
            if less > 0:
                gross = -whole(unit_amount(price, country) * less * rest)
                product = deepcopy(item["product"])
                mode_of_tax, rate = self.sales.tax_mode(price), self.world.tax_rate
                returns.append(Line(price, product, less, gross, mode_of_tax, rate, proration=share))
        return charges, returns

    def charge(self, row: Row, items: list[Row], returns: list[Line], origin: str, *, prevent: bool) -> None:
        """Bill now. Credits alone go to the customer's balance."""
        owed = -sum(line.totals()["total"] for line in returns)
        if not items:
            self.balances[row["customer_id"]] = self.balances.get(row["customer_id"], 0) + owed
            return
        bill = self.bill(row, items, returns, origin)
        if not self.decline:
            self.sales.pay(bill)
            self.sales.finish(bill)
            return
        self.sales.fail(bill)
        if prevent:
            self.sales.cancel(bill)
            raise Problem(400, "subscription_payment_declined", "payment declined")
        self.fall_behind(row, bill)

    def cancel(self, request: Request) -> Answer:
        row = self.changeable(request)
        values = read(request.json(), {"effective_from": nullable(_EFFECTIVE)})
        default = "immediately" if row["status"] == "paused" else "next_billing_period"
        if (values.get("effective_from") or default) == "immediately":
            self.end(row)
        else:
            self.schedule(row, "cancel")
        return Answer(self.view(row))

    def pause(self, request: Request) -> Answer:
        row = self.changeable(request)
        if row["status"] == "paused":
            raise Problem(400, "subscription_cannot_be_paused", "subscription is paused already")
        if row["status"] == "trialing":
            raise Problem(400, "subscription_update_when_trialing", "cannot pause a trialing subscription")
        fields = {"effective_from": nullable(_EFFECTIVE), "resume_at": nullable(moment), "on_resume": _ON_RESUME}
        values = read(request.json(), fields)
        resume_at = values.get("resume_at")
        if resume_at is not None and parse(resume_at) <= self.world.now():
            raise invalid("resume_at", "must be in the future")
        if (values.get("effective_from") or "next_billing_period") == "immediately":
            self.stop(row, resume_at)
        else:
            self.schedule(row, "pause", resume_at)
        return Answer(self.view(row))

    def resume(self, request: Request) -> Answer:
        row = self.changeable(request)
        fields = {"effective_from": nullable(lambda _value, _path: []), "on_resume": _ON_RESUME}
        values = read(request.json(), fields)
        effective_from = values.get("effective_from") or "immediately"
        change = row["scheduled_change"]
        if row["status"] != "paused" and (change or {}).get("action") != "pause":
            raise Problem(400, "subscription_must_be_paused", "subscription is not paused")
        if row["status"] == "paused" and effective_from == "immediately":
            self.restart(row, fresh=values.get("on_resume") != "continue_existing_billing_period")
            return Answer(self.view(row))
        if errors := moment(effective_from, "effective_from"):
            raise invalid(*errors[0])
        if row["status"] == "paused":
            row["scheduled_change"] = {"action": "resume", "effective_at": effective_from, "resume_at": None}
        else:
            row["scheduled_change"] = {**change, "resume_at": effective_from}
        self.updated(row)
        return Answer(self.view(row))

    def activate(self, request: Request) -> Answer:
        row = self.changeable(request)
        if row["status"] != "trialing":
            raise Problem(400, "subscription_cannot_activate", "subscription is not trialing")
        self.renew(row, self.world.now())
        return Answer(self.view(row))

    def charge_once(self, request: Request) -> Answer:
        row = self.changeable(request)
        fields = {"effective_from": _EFFECTIVE, "items": many(object_of(_ITEM, ("quantity",)), 1)}
        fields["on_payment_failure"] = one_of("prevent_change", "apply_change")
        values = read(request.json(), fields, ("effective_from", "items"))
        items = [self.sales.item(item) for item in values["items"]]
        if any(item["price"]["billing_cycle"] is not None for item in items):
            raise Problem(400, "subscription_new_items_not_valid", "items to charge for must not recur")
        if values["effective_from"] == "immediately":
            prevent = values.get("on_payment_failure") != "apply_change"
            self.charge(row, items, [], "subscription_charge", prevent=prevent)
        else:
            self.pending.setdefault(row["id"], []).append((items, []))
        self.updated(row)
        return Answer(self.view(row), 201)

    # -- a subscription's life -------------------------------------------------------------------------

    def start(self, sale: Row, items: list[Row]) -> Row:
        """The subscription that a paid transaction begins."""
        now, cycle = self.world.now(), items[0]["price"]["billing_cycle"]
        starts = parse(sale["payments"][0]["captured_at"])
        trial = items[0]["price"]["trial_period"]
        current = period(starts, trial or cycle)
        row: Row = {
            "id": self.world.new_id("subscription"),
            "status": "trialing" if trial else "active",
            **{name: sale[name] for name in ("customer_id", "address_id", "business_id", "currency_code")},
            "created_at": stamp(now),
            "updated_at": stamp(now),
            "started_at": stamp(starts),
            "first_billed_at": None if trial else stamp(starts),
            "next_billed_at": current["ends_at"],
            "paused_at": None,
            "canceled_at": None,
            "discount": None,
            "collection_mode": sale["collection_mode"],
            "billing_details": sale["billing_details"],
            "current_billing_period": current,
            "billing_cycle": cycle,
            "scheduled_change": None,
            "items": [],
            "custom_data": deepcopy(sale["custom_data"]),
            "import_meta": None,
        }
        row["items"] = [self.new_item(row, item, starts) for item in items]
        discount = self.world.rows["discount"].get(sale["discount_id"] or "")
        if discount is not None and discount["recur"]:
            row["discount"] = self.running(discount, starts, cycle)
        self.world.add("subscription", row)
        self.world.emit("subscription.created", row, transaction_id=sale["id"])
        self.world.emit("subscription.trialing" if trial else "subscription.activated", row)
        return row

    def new_item(self, row: Row, item: Row, starts: datetime) -> Row:
        trialing = row["status"] == "trialing"
        return {
            "status": "trialing" if trialing else "active",
            "quantity": item["quantity"],
            "recurring": True,
            "created_at": stamp(starts),
            "updated_at": stamp(starts),
            "previously_billed_at": None if trialing else stamp(starts),
            "next_billed_at": row["next_billed_at"],
            "trial_dates": row["current_billing_period"] if trialing else None,
            "price": deepcopy(item["price"]),
            "product": deepcopy(self.world.get("product", item["price"]["product_id"])),
        }

    def updated(self, row: Row, *more: str) -> None:
        self.world.touch(row)
        for name in (*more, "updated"):
            self.world.emit(f"subscription.{name}", row)

    def schedule(self, row: Row, action: str, resume_at: str | None = None) -> None:
        if row["scheduled_change"] is not None:
            words = "cannot update subscription, pending scheduled changes"
            raise Problem(400, "subscription_locked_pending_changes", words)
        at = row["next_billed_at"] or stamp(self.world.now())
        row["scheduled_change"] = {"action": action, "effective_at": at, "resume_at": resume_at}
        self.updated(row)

    def stand_still(self, row: Row, status: str, at: str) -> None:
        row |= {"status": status, "scheduled_change": None, "next_billed_at": None, "current_billing_period": None}
        row[f"{status}_at"] = at
        for item in row["items"]:
            item["next_billed_at"] = None

    def end(self, row: Row) -> None:
        self.stand_still(row, "canceled", stamp(self.world.now()))
        self.updated(row, "canceled")

    def stop(self, row: Row, resume_at: str | None) -> None:
        self.stand_still(row, "paused", stamp(self.world.now()))
        if resume_at is not None:
            row["scheduled_change"] = {"action": "resume", "effective_at": resume_at, "resume_at": None}
        self.updated(row, "paused")

    def restart(self, row: Row, *, fresh: bool = True) -> None:
        """Resume; by default a new period begins now and is billed."""
        row |= {"status": "active", "paused_at": None, "scheduled_change": None}
        previously = parse(row["items"][0]["previously_billed_at"] or row["started_at"])
        if not fresh and later(previously, row["billing_cycle"]) > self.world.now():
            self.begin(row, previously)
        else:
            self.renew(row, self.world.now(), quiet=True)
        self.updated(row, "resumed")

    def begin(self, row: Row, starts: datetime) -> None:
        """A new period."""
        current = period(starts, row["billing_cycle"])
        row |= {"current_billing_period": current, "next_billed_at": current["ends_at"]}
        row["first_billed_at"] = row["first_billed_at"] or stamp(starts)
        for item in row["items"]:
            item |= {"status": "active", "next_billed_at": current["ends_at"], "previously_billed_at": stamp(starts)}
            item["updated_at"] = stamp(self.world.now())

    def due(self, row: Row, *, declined: bool = False) -> None:
        """The end of the period: what was scheduled happens, or the next period is billed."""
        change = row["scheduled_change"]
        if row["status"] == "canceled" or (row["status"] == "paused" and change is None):
            raise Problem(400, "subscription_is_inactive_action_invalid", f"subscription is {row['status']}")
        at = parse(change["effective_at"] if change else row["next_billed_at"])
        self.world.at_least(at)
        if change is None:
            self.renew(row, at, declined=declined)
        elif change["action"] == "cancel":
            self.end(row)
        elif change["action"] == "pause":
            self.stop(row, change["resume_at"])
        else:
            self.restart(row)

    def renew(self, row: Row, at: datetime, *, declined: bool = False, quiet: bool = False) -> None:
        """Bill the period that starts now."""
        was = row["status"]
        row["status"] = "active"
        self.begin(row, at)
        if not quiet:
            self.updated(row, *(("activated",) if was == "trialing" and not declined else ()))
        share = {"rate": "1", "billing_period": row["current_billing_period"]}
        items = [
            {"price_id": i["price"]["id"], "price": i["price"], "quantity": i["quantity"], "proration": share}
            for i in deepcopy(row["items"])
        ]
        returns: list[Line] = []
        for more_items, more_returns in self.pending.pop(row["id"], []):
            items += more_items
            returns += more_returns
        bill = self.bill(row, items, returns, "subscription_recurring")
        if declined:
            self.sales.fail(bill)
            self.fall_behind(row, bill)
            return
        self.sales.pay(bill)
        self.sales.finish(bill)

    def bill(self, row: Row, items: list[Row], returns: list[Line], origin: str) -> Row:
        """A transaction for a subscription, ready to be paid."""
        discount = row["discount"]
        runs = discount and (discount["ends_at"] is None or parse(discount["ends_at"]) > self.world.now())
        balance = self.balances.get(row["customer_id"], 0)
        kept = ("customer_id", "address_id", "business_id", "currency_code", "collection_mode", "billing_details")
        values: dict[str, Any] = {name: row[name] for name in kept}
        values |= {
            "custom_data": deepcopy(row["custom_data"]),
            "discount_id": discount["id"] if discount and runs else None,
            "billing_period": row["current_billing_period"],
            "origin": origin,
            "subscription_id": row["id"],
            "items": items,
        }
        bill = self.sales.open(values, returns, credit=balance)
        totals = bill["details"]["totals"]
        self.balances[row["customer_id"]] = balance - int(totals["credit"]) + int(totals["credit_to_balance"])
        self.sales.bill(bill)
        return bill

    def fall_behind(self, row: Row, bill: Row) -> None:
        """A charge failed: both wait for another try."""
        bill["status"] = "past_due"
        self.world.touch(bill)
        self.world.emit("transaction.past_due", bill)
        row["status"] = "past_due"
        self.updated(row, "past_due")

    def owed(self, row: Row) -> Row:
        """The bill that a subscription is behind with."""
        for bill in reversed(self.world.rows["transaction"].values()):
            if bill["subscription_id"] == row["id"] and bill["status"] == "past_due":
                return bill
        raise Problem(400, "subscription_not_active", "subscription is behind with nothing")

    def recover(self, row: Row) -> None:
        """Another try to take the money went through."""
        bill = self.owed(row)
        self.sales.pay(bill)
        row["status"] = "active"
        self.updated(row, "activated")
        self.sales.finish(bill)
