"""What things cost at the stand-in for Paddle, and what becomes of subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.peers.paddle_fixtures import PaddlePeer, running_paddle
from tests.peers.paddle_route import MONTH, Route
from tests.peers.paddle_world import later, parse


@pytest.fixture(scope="module")
def server() -> Iterator[PaddlePeer]:
    with running_paddle() as peer:
        yield peer


@pytest.fixture
def route(server: PaddlePeer) -> Route:
    server.control("reset")
    return Route(server.url, server)


class TestMoney:
    """Every sum holds: subtotal - discount + tax = total, and what is refunded is what is missing."""

    def totals(self, sale: Any) -> dict[str, Any]:
        names = ("subtotal", "discount", "tax", "total", "grand_total", "balance", "fee", "earnings")
        return {name: sale["details"]["totals"][name] for name in names}

    def test_tax_on_top_and_within(self, route: Route) -> None:
        customer, address = route.buyer()
        route.peer.control("config", tax_rate="0.19")
        outside = route.price(1000, tax_mode="external")
        inside = route.price(1190, tax_mode="internal")
        sale = route.sale((outside["id"], 3), (inside["id"], 1), customer_id=customer, address_id=address)
        lines = [line["totals"] for line in sale["details"]["line_items"]]
        assert lines == [
            {"subtotal": "3000", "discount": "0", "tax": "570", "total": "3570"},
            {"subtotal": "1000", "discount": "0", "tax": "190", "total": "1190"},
        ]
        assert sale["details"]["line_items"][0]["unit_totals"]["total"] == "1190"
        assert self.totals(sale) == {
            "subtotal": "4000",
            "discount": "0",
            "tax": "760",
            "total": "4760",
            "grand_total": "4760",
            "balance": "4760",
            "fee": None,
            "earnings": None,
        }
        paid = route.peer.transaction(sale["id"], until="paid")
        assert (paid["status"], paid["invoice_number"], paid["details"]["payout_totals"]) == ("paid", None, None)
        assert (self.totals(paid)["balance"], self.totals(paid)["fee"]) == ("0", None)
        done = route.peer.transaction(sale["id"], "finish")
        # 5 % and 50: 238 + 50; of 4760, without 760 of tax.
        assert (self.totals(done)["fee"], self.totals(done)["earnings"]) == ("288", "3712")
        assert done["details"]["payout_totals"]["earnings"] == "3712"
        assert done["invoice_number"] == "325-10001"

    def test_no_place_no_tax(self, route: Route) -> None:
        price = route.price(1000, tax_mode="external")
        draft = route.sale((price["id"], 1))
        assert (draft["status"], self.totals(draft)["total"]) == ("draft", "1000")
        ready = route.peer.transaction(draft["id"], until="ready", email="grace@example.com", country_code="FR")
        assert (ready["status"], self.totals(ready)["total"]) == ("ready", "1200")
        assert [event["event_type"] for event in route.peer.events()][-4:] == [
            "customer.created",
            "address.created",
            "transaction.updated",
            "transaction.ready",
        ]

    @pytest.mark.parametrize(
        ("discount", "expected"),
        [
            ({"type": "percentage", "amount": "12.5"}, ["250", "63"]),
            ({"type": "flat", "amount": "700", "currency_code": "USD"}, ["560", "140"]),
            ({"type": "flat_per_seat", "amount": "300", "currency_code": "USD"}, ["600", "300"]),
        ],
    )
    def test_discounts(self, route: Route, discount: dict[str, str], expected: list[str]) -> None:
        made = route.ask("POST", "/discounts", {"description": "Off", **discount})
        one, other = route.price(1000), route.price(500)
        sale = route.sale((one["id"], 2), (other["id"], 1), discount_id=made["id"])
        assert [line["totals"]["discount"] for line in sale["details"]["line_items"]] == expected
        only = route.ask("POST", "/discounts", {"description": "Off", **discount, "restrict_to": [one["product_id"]]})
        sale = route.sale((one["id"], 2), (other["id"], 1), discount_id=only["id"])
        assert sale["details"]["line_items"][1]["totals"]["discount"] == "0"
        expected_error = (400, "transaction_discount_not_eligible")
        body = {"items": [{"price_id": other["id"], "quantity": 1}], "discount_id": only["id"]}
        assert route.refused("POST", "/transactions", body) == expected_error

    def test_refunds_leave_the_rest(self, route: Route) -> None:
        customer, address = route.buyer()
        price = route.price(1000, tax_mode="external")
        sale = route.sale((price["id"], 3), customer_id=customer, address_id=address)
        route.peer.transaction(sale["id"])
        item = {"item_id": sale["details"]["line_items"][0]["id"], "type": "partial"}
        refund = {"action": "refund", "transaction_id": sale["id"], "reason": "Sorry"}
        first = route.ask("POST", "/adjustments", {**refund, "items": [{**item, "amount": "1200"}]})
        assert (first["status"], first["totals"]["tax"], first["totals"]["total"]) == (
            "pending_approval",
            "200",
            "1200",
        )
        more = {**refund, "items": [{**item, "amount": "2401"}]}
        assert route.refused("POST", "/adjustments", more) == (400, "adjustment_pending_refund_request")
        assert route.ask("GET", f"/transactions/{sale['id']}")["details"]["adjusted_totals"]["total"] == "3600"
        route.peer.adjustment(first["id"])
        adjusted = route.ask("GET", f"/transactions/{sale['id']}")["details"]["adjusted_totals"]
        assert (adjusted["subtotal"], adjusted["tax"], adjusted["total"]) == ("2000", "400", "2400")
        assert route.refused("POST", "/adjustments", more) == (400, "adjustment_amount_above_remaining_allowed")
        route.peer.control("config", auto_approve=True)
        rest = route.ask("POST", "/adjustments", {**refund, "type": "full"})
        assert (rest["status"], rest["totals"]["total"]) == ("approved", "2400")
        adjusted = route.ask("GET", f"/transactions/{sale['id']}")["details"]["adjusted_payout_totals"]
        names = ("subtotal", "tax", "total", "fee", "earnings")
        assert {name: adjusted[name] for name in names} == dict.fromkeys(names, "0")

    def test_a_chargeback_and_back(self, route: Route) -> None:
        sale = route.sale((route.price(1000)["id"], 1))
        route.peer.transaction(sale["id"])
        chargeback = route.peer.transaction(sale["id"], "chargeback", reason="unrecognized")
        assert (chargeback["action"], chargeback["totals"]["total"]) == ("chargeback", "1200")
        assert chargeback["payout_totals"]["chargeback_fee"] == {"amount": "1500", "original": None}
        reverse = route.peer.adjustment(chargeback["id"], "reverse")
        assert reverse["action"] == "chargeback_reverse"
        assert route.ask("GET", f"/adjustments?id={chargeback['id']}")[0]["status"] == "reversed"
        assert route.ask("GET", f"/transactions/{sale['id']}")["details"]["adjusted_totals"]["total"] == "1200"


class TestSubscriptions:
    def recent(self, route: Route, count: int) -> list[str]:
        return [event["event_type"] for event in route.peer.events()][-count:]

    def test_our_words_come_along(self, route: Route) -> None:
        _, subscription = route.subscribed()
        (created,) = route.peer.events("subscription.created")
        sale = route.ask("GET", f"/transactions/{created['data']['transaction_id']}")
        assert sale["subscription_id"] == subscription["id"]
        assert "management_urls" not in created["data"]
        assert subscription["management_urls"]["cancel"].startswith("https://")
        route.peer.subscription(subscription["id"])
        renewal = route.ask("GET", "/transactions?origin=subscription_recurring")[0]
        data = {"checkout_id": "chk_1"}
        assert sale["custom_data"] == subscription["custom_data"] == renewal["custom_data"] == data
        assert renewal["billing_period"]["starts_at"] == subscription["next_billed_at"]

    def test_renewal_fails_and_recovers(self, route: Route) -> None:
        _, subscription = route.subscribed()
        starts = subscription["next_billed_at"]
        row = route.peer.subscription(subscription["id"], declined=True)
        assert (row["status"], row["current_billing_period"]["starts_at"]) == ("past_due", starts)
        assert row["next_billed_at"] == row["current_billing_period"]["ends_at"]
        assert parse(row["next_billed_at"]) == later(parse(starts), MONTH)
        assert self.recent(route, 8) == [
            *("subscription.updated", "transaction.created", "transaction.ready", "transaction.billed"),
            *("transaction.payment_failed", "transaction.past_due", "subscription.past_due", "subscription.updated"),
        ]
        items = {"items": [{"price_id": row["items"][0]["price"]["id"], "quantity": 2}]}
        path, change = f"/subscriptions/{row['id']}", {**items, "proration_billing_mode": "do_not_bill"}
        assert route.refused("PATCH", path, change) == (400, "subscription_update_when_past_due")
        assert route.peer.subscription(row["id"], "recover")["status"] == "active"
        assert self.recent(route, 4) == [
            *("transaction.paid", "subscription.activated", "subscription.updated", "transaction.completed"),
        ]

    def test_pause_resume_cancel(self, route: Route) -> None:
        _, subscription = route.subscribed()
        path = f"/subscriptions/{subscription['id']}"
        scheduled = route.ask("POST", f"{path}/pause", {})["scheduled_change"]
        at = subscription["next_billed_at"]
        assert scheduled == {"action": "pause", "effective_at": at, "resume_at": None}
        assert route.refused("POST", f"{path}/cancel") == (400, "subscription_locked_pending_changes")
        assert route.ask("PATCH", path, {"scheduled_change": None})["scheduled_change"] is None
        paused = route.ask("POST", f"{path}/pause", {"effective_from": "immediately"})
        assert (paused["status"], paused["next_billed_at"], paused["current_billing_period"]) == ("paused", None, None)
        assert route.refused("POST", f"{path}/pause") == (400, "subscription_cannot_be_paused")
        assert route.ask("POST", f"{path}/resume", {"effective_from": "immediately"})["status"] == "active"
        assert route.refused("POST", f"{path}/resume") == (400, "subscription_must_be_paused")
        at = route.ask("POST", f"{path}/cancel")["scheduled_change"]["effective_at"]
        ended = route.peer.subscription(subscription["id"])
        assert (ended["status"], ended["canceled_at"] >= at) == ("canceled", True)
        assert route.refused("PATCH", path, {"custom_data": None}) == (400, "subscription_update_when_canceled")
        assert route.refused("POST", f"{path}/cancel") == (400, "subscription_is_canceled_action_invalid")

    @pytest.mark.parametrize(
        ("mode", "now", "later"),
        [
            ("prorated_immediately", 1000, 4000),
            ("full_immediately", 2000, 4000),
            ("prorated_next_billing_period", None, 5000),
            ("full_next_billing_period", None, 6000),
            ("do_not_bill", None, 4000),
        ],
    )
    def test_changes_cost_what_the_mode_says(self, route: Route, mode: str, now: int | None, later: int) -> None:
        route.peer.control("config", tax_rate="0")
        price, subscription = route.subscribed(1000, 2)
        period = subscription["current_billing_period"]
        starts, ends = parse(period["starts_at"]), parse(period["ends_at"])
        route.peer.control("clock", set=(starts + (ends - starts) / 2).isoformat(), freeze=True)
        change = {"items": [{"price_id": price["id"], "quantity": 4}], "proration_billing_mode": mode}
        assert route.ask("PATCH", f"/subscriptions/{subscription['id']}", change)["items"][0]["quantity"] == 4
        found = route.ask("GET", "/transactions?origin=subscription_update")
        assert [int(row["details"]["totals"]["total"]) for row in found] == ([] if now is None else [now])
        assert route.refused("PATCH", f"/subscriptions/{subscription['id']}", {"items": change["items"]}) == (
            400,
            "subscription_items_update_missing_proration_billing_mode",
        )
        route.peer.subscription(subscription["id"])
        (renewal,) = route.ask("GET", "/transactions?origin=subscription_recurring")
        assert int(renewal["details"]["totals"]["total"]) == later

    def test_less_gives_credit_for_the_next_bill(self, route: Route) -> None:
        route.peer.control("config", tax_rate="0")
        price, subscription = route.subscribed(1000, 4)
        path = f"/subscriptions/{subscription['id']}"
        period = subscription["current_billing_period"]
        starts, ends = parse(period["starts_at"]), parse(period["ends_at"])
        route.peer.control("clock", set=(starts + (ends - starts) / 2).isoformat(), freeze=True)
        items = [{"price_id": price["id"], "quantity": 3}]
        route.ask("PATCH", path, {"items": items, "proration_billing_mode": "prorated_immediately"})
        assert route.ask("GET", "/transactions?origin=subscription_update") == []
        route.peer.subscription(subscription["id"])
        totals = route.ask("GET", "/transactions")[0]["details"]["totals"]
        assert (totals["total"], totals["credit"], totals["grand_total"]) == ("3000", "500", "2500")

    def test_a_declined_change_changes_nothing(self, route: Route) -> None:
        price, subscription = route.subscribed()
        route.peer.control("config", decline=True)
        path = f"/subscriptions/{subscription['id']}"
        items = [{"price_id": price["id"], "quantity": 2}]
        change = {"items": items, "proration_billing_mode": "full_immediately"}
        assert route.refused("PATCH", path, change) == (400, "subscription_payment_declined")
        assert route.ask("GET", path)["items"][0]["quantity"] == 1
        after = route.ask("PATCH", path, {**change, "on_payment_failure": "apply_change"})
        assert (after["status"], after["items"][0]["quantity"]) == ("past_due", 2)

    def test_a_trial_ends(self, route: Route) -> None:
        price = route.price(1000, billing_cycle=MONTH, trial_period={"interval": "week", "frequency": 2})
        sale = route.peer.transaction(route.sale((price["id"], 1))["id"])
        assert (sale["details"]["totals"]["total"], sale["status"]) == ("0", "completed")
        path = f"/subscriptions/{sale['subscription_id']}"
        trial = route.ask("GET", path)
        assert (trial["status"], trial["first_billed_at"]) == ("trialing", None)
        assert parse(trial["next_billed_at"]) == parse(trial["started_at"]) + timedelta(days=14)
        active = route.peer.subscription(sale["subscription_id"])
        assert (active["status"], active["first_billed_at"]) == ("active", trial["next_billed_at"])
        assert route.ask("GET", "/transactions")[0]["details"]["totals"]["total"] == "1200"

    def test_a_recurring_discount_runs_out(self, route: Route) -> None:
        half = {"description": "Half", "type": "percentage", "amount": "50", "recur": True}
        discount = route.ask("POST", "/discounts", {**half, "maximum_recurring_intervals": 2})
        price = route.price(1000, billing_cycle=MONTH)
        sale = route.peer.transaction(route.sale((price["id"], 1), discount_id=discount["id"])["id"])
        for _ in range(2):
            route.peer.subscription(sale["subscription_id"])
        subtotals = [row["details"]["totals"]["discount"] for row in route.ask("GET", "/transactions")]
        assert subtotals == ["0", "500", "500"]
        assert route.ask("GET", f"/discounts/{discount['id']}")["times_used"] == 1
