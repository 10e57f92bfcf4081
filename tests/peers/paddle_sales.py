"""The transactions of the stand-in for Paddle: made, changed, paid, failed, completed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.peers.paddle_catalog import (
    PRICE_DEFAULTS,
    PRICE_FIELDS,
    PRODUCT_DEFAULTS,
    PRODUCT_FIELDS,
    Catalog,
)
from tests.peers.paddle_fields import (
    CURRENCY,
    CUSTOM_DATA,
    PERIOD,
    entity,
    free_object,
    integer,
    many,
    nullable,
    object_of,
    one_of,
    read,
    text,
)
from tests.peers.paddle_money import Line, complete, details, discounts, whole
from tests.peers.paddle_world import (
    Answer,
    Listing,
    Problem,
    Request,
    Row,
    World,
    fine_stamp,
    invalid,
    later,
    parse,
    stamp,
)

if TYPE_CHECKING:
    from tests.peers.paddle_subscriptions import Subscriptions

_LISTING = Listing(
    ("id", "status", "customer_id", "subscription_id", "invoice_number", "origin", "collection_mode"),
    ("created_at", "updated_at", "billed_at"),
    ("id", "created_at", "updated_at", "billed_at"),
    per_page=30,
    most=30,
)
_ITEM = {"quantity": integer(1), "price_id": entity("pri"), "price": free_object}
_FIELDS = {
    "status": one_of("draft", "ready", "billed", "canceled", "paid", "completed", "past_due"),
    "customer_id": nullable(entity("ctm")),
    "address_id": nullable(entity("add")),
    "business_id": nullable(entity("biz")),
    "custom_data": CUSTOM_DATA,
    "currency_code": nullable(CURRENCY),
    "collection_mode": one_of("automatic", "manual"),
    "discount_id": nullable(entity("dsc")),
    "billing_details": nullable(free_object),
    "billing_period": nullable(PERIOD),
    "items": many(object_of(_ITEM, ("quantity",)), 1, 100),
    "checkout": nullable(object_of({"url": nullable(text(1, 2048))})),
}
_BILLING = {"enable_checkout": False, "purchase_order_number": "", "additional_information": None}
_CARD = {"type": "visa", "last4": "4242", "expiry_month": 1, "expiry_year": 2099, "cardholder_name": "Ada Lovelace"}


class Sales:
    """What is bought, and how it is paid."""

    subscriptions: Subscriptions

    def __init__(self, world: World, catalog: Catalog) -> None:
        self.world = world
        self.catalog = catalog

    # -- the API ---------------------------------------------------------------------------------------

    def create(self, request: Request) -> Answer:
        values = read(request.json(), _FIELDS, ("items",), closed=False)
        row: Row = {
            "customer_id": None,
            "address_id": None,
            "business_id": None,
            "custom_data": None,
            "currency_code": None,
            "collection_mode": "automatic",
            "discount_id": None,
            "billing_details": None,
            "billing_period": None,
            "checkout": None,
            **values,
            "origin": "api",
            "subscription_id": None,
        }
        if values.get("status") not in {None, "draft", "ready", "billed"}:
            raise Problem(400, "transaction_invalid_status_change", "invalid status change")
        row["items"] = [self.item(item) for item in row["items"]]
        self.check(row)
        if row["billing_details"] is not None:
            row["billing_details"] = {**_BILLING, **row["billing_details"]}
        row = self.open(row)
        if values.get("status") == "billed":
            self.bill(row)
        return Answer(self.with_others(row, request), 201)

    def update(self, request: Request) -> Answer:
        row = self.world.get("transaction", request.params["id"])
        values = read(request.json(), _FIELDS, closed=False)
        status = values.pop("status", None)
        if row["status"] not in {"draft", "ready"} and not (row["status"] == "billed" and status == "canceled"):
            raise Problem(400, "transaction_immutable", f"cannot update transaction in state {row['status']}")
        if status == "canceled":
            if values:
                words = "transaction cannot be modified and canceled"
                raise Problem(400, "transaction_cannot_be_modified_and_canceled", words)
            self.cancel(row)
        elif status not in {None, row["status"], "billed"}:
            raise Problem(400, "transaction_invalid_status_change", "invalid status change")
        else:
            self.change(row, values)
            if status == "billed":
                self.bill(row)
        return Answer(self.with_others(row, request))

    def read(self, request: Request) -> Answer:
        return Answer(self.with_others(self.world.get("transaction", request.params["id"]), request))

    def list_all(self, request: Request) -> Answer:
        answer = self.world.page(request, self.world.rows["transaction"].values(), _LISTING)
        answer.data = [self.with_others(row, request) for row in answer.data]
        return answer

    def with_others(self, row: Row, request: Request) -> Row:
        """The transaction with what ``include`` asks for."""
        wanted, found = request.values("include") or [], dict(row)
        for kind in ("customer", "address", "business", "discount"):
            if kind in wanted and row[f"{kind}_id"] is not None:
                found[kind] = self.world.rows[kind][row[f"{kind}_id"]]
        if "adjustments" in wanted:
            every = self.world.rows["adjustment"].values()
            found["adjustments"] = [other for other in every if other["transaction_id"] == row["id"]]
        return found

    # -- what is asked for -----------------------------------------------------------------------------

    def item(self, asked: Row) -> Row:
        """A line as a transaction has it, of a line as it is asked for."""
        if ("price_id" in asked) == ("price" in asked):
            if "price" in asked:
                words = "cannot send both price ID and price object"
                raise Problem(400, "transaction_both_price_id_and_object_found", words)
            raise invalid("items", "price_id or price is required")
        price = self.find_price(asked["price_id"]) if "price_id" in asked else self.made_price(asked["price"])
        quantity, limits = int(asked["quantity"]), price["quantity"]
        if not limits["minimum"] <= quantity <= limits["maximum"]:
            words = f"quantity must be between {limits['minimum']} and {limits['maximum']} for price {price['id']}"
            raise Problem(400, "transaction_item_quantity_out_of_range", words)
        return {"price_id": price["id"], "price": deepcopy(price), "quantity": quantity, "proration": None}

    def find_price(self, price_id: str) -> Row:
        price = self.world.rows["price"].get(price_id)
        if price is None or price["status"] != "active":
            raise Problem(400, "transaction_price_not_found", f"price {price_id} not found")
        return price

    def made_price(self, asked: Row) -> Row:
        """A price for this transaction alone, and its product where that is made here, too."""
        if ("product_id" in asked) == ("product" in asked):
            raise invalid("items.0.price", "product_id or product is required")
        fields = {name: check for name, check in PRICE_FIELDS.items() if name != "type"}
        more = {"product_id": entity("pro"), "product": free_object}
        values = read(asked, fields | more, ("description", "unit_price"), closed=False)
        now = fine_stamp(self.world.now())
        made = {"type": "custom", "status": "active", "import_meta": None, "created_at": now, "updated_at": now}
        if "product" in values:
            fields = {name: check for name, check in PRODUCT_FIELDS.items() if name != "type"}
            product = read(values.pop("product"), fields, ("name", "tax_category"), closed=False)
            row = {"id": self.world.new_id("product"), "custom_data": None, **PRODUCT_DEFAULTS, **product, **made}
            values["product_id"] = self.world.add("product", row)["id"]
        elif values["product_id"] not in self.world.rows["product"]:
            raise Problem(400, "transaction_product_not_found", f"product {values['product_id']} not found")
        price = {"id": self.world.new_id("price"), "custom_data": None, **PRICE_DEFAULTS, **values, **made}
        self.catalog.check_price(price)
        return self.world.add("price", price)

    def check(self, row: Row) -> None:
        """Whether a transaction's parts fit together."""
        self.check_buyer(row)
        for name in ("billing_cycle", "trial_period"):
            periods = [item["price"][name] for item in row["items"] if item["price"]["billing_cycle"] is not None]
            if any(period != periods[0] for period in periods):
                raise Problem(400, f"transaction_price_different_{name}", f"prices have different {name}s")
        if row["currency_code"] is None:
            row["currency_code"] = row["items"][0]["price"]["unit_price"]["currency_code"]
        self.check_discount(row)
        if row["collection_mode"] == "automatic" and row["billing_details"] is not None:
            words = "billing details must be null if the collection mode is automatic"
            raise Problem(400, "transaction_billing_details_must_be_null", words)
        if row["collection_mode"] == "manual" and row["billing_details"] is None:
            words = "billing details must not be null if the collection mode is manual"
            raise Problem(400, "transaction_billing_details_object_required", words)

    def check_buyer(self, row: Row) -> None:
        for kind, code in (
            ("address", "transaction_customer_is_required_with_address"),
            ("business", "transaction_customer_is_required_for_business_validation"),
        ):
            if row[f"{kind}_id"] is None:
                continue
            if row["customer_id"] is None:
                raise Problem(400, code, f"customer ID is required for validating {kind}")
            if self.world.get(kind, row[f"{kind}_id"])["customer_id"] != row["customer_id"]:
                raise Problem(404, "not_found", f"Entity {row[f'{kind}_id']} not found")
        if row["customer_id"] is not None:
            self.world.get("customer", row["customer_id"])

    def check_discount(self, row: Row) -> None:
        if row["discount_id"] is None:
            return
        found = self.world.rows["discount"].get(row["discount_id"])
        if found is None or found["status"] != "active":
            raise Problem(400, "transaction_discount_not_found", f"discount {row['discount_id']} not found")
        if found["expires_at"] is not None and parse(found["expires_at"]) <= self.world.now():
            raise Problem(400, "discount_expired", f"discount {found['id']} has expired")
        if found["usage_limit"] is not None and found["times_used"] >= found["usage_limit"]:
            raise Problem(400, "discount_usage_limit_exceeded", f"discount {found['id']} has no uses left")
        limits = set(found["restrict_to"] or ())
        prices = [item["price"] for item in row["items"]]
        fits = not limits or any({price["id"], price["product_id"]} & limits for price in prices)
        if not fits or found["currency_code"] not in {None, row["currency_code"]}:
            words = f"discount {found['id']} does not apply to any item"
            raise Problem(400, "transaction_discount_not_eligible", words)

    # -- a transaction's life --------------------------------------------------------------------------

    def open(self, values: Row, extra: Sequence[Line] = (), *, credit: int = 0) -> Row:
        """A new transaction, which is ready once it says who buys and where. ``extra``: lines beside the items."""
        now = fine_stamp(self.world.now())
        checkout = values.get("checkout") or {}
        row: Row = {
            "id": self.world.new_id("transaction"),
            "status": "draft",
            **values,
            "invoice_id": None,
            "invoice_number": None,
            "payments": [],
            "checkout": {"url": None},
            "created_at": now,
            "updated_at": now,
            "billed_at": None,
            "revised_at": None,
        }
        if row["collection_mode"] == "automatic":
            row["checkout"]["url"] = self.checkout(row["id"], checkout.get("url"))
        self.count(row, extra, credit=credit)
        is_ready = row["customer_id"] is not None and row["address_id"] is not None
        row["status"] = "ready" if is_ready else "draft"
        self.world.add("transaction", row)
        self.world.emit("transaction.created", row)
        if is_ready:
            self.world.emit("transaction.ready", row)
        return row

    def checkout(self, transaction_id: str, url: str | None) -> str:
        """Where a transaction can be paid."""
        base = url or self.world.default_checkout_url
        if base is None:
            words = "default checkout URL has not been defined"
            raise Problem(400, "transaction_default_checkout_url_not_set", words)
        return f"{base}{'&' if '?' in base else '?'}_ptxn={transaction_id}"

    def change(self, row: Row, values: Row) -> None:
        """Change a transaction that nobody has paid."""
        changed = {**row, **values}
        if "items" in values:
            changed["items"] = [self.item(item) for item in values["items"]]
        url = (values.get("checkout") or {}).get("url")
        changed["checkout"] = row["checkout"] if url is None else {"url": self.checkout(row["id"], url)}
        self.check(changed)
        row |= changed
        self.count(row)
        was = row["status"]
        row["status"] = "ready" if row["customer_id"] is not None and row["address_id"] is not None else "draft"
        self.world.touch(row)
        self.world.emit("transaction.updated", row)
        if (was, row["status"]) == ("draft", "ready"):
            self.world.emit("transaction.ready", row)

    def count(self, row: Row, extra: Sequence[Line] = (), *, credit: int = 0) -> None:
        """Work out what it comes to; lines keep their ids while their prices stay."""
        known = {line["price_id"]: line["id"] for line in row.get("details", {}).get("line_items", ())}
        lines = [*self.lines(row), *extra]
        ids = [known.get(line.price["id"]) or self.world.new_id("txnitm") for line in lines]
        row["details"] = details(list(zip(ids, lines, strict=True)), row["currency_code"], credit=credit)

    def lines(self, row: Row) -> list[Line]:
        country, rate = None, Decimal(0)
        if row["address_id"] is not None:  # without a place nobody knows the tax
            country, rate = self.world.get("address", row["address_id"])["country_code"], self.world.tax_rate
        grosses = []
        for item in row["items"]:
            share = Decimal(item["proration"]["rate"]) if item["proration"] else Decimal(1)
            free = item["price"]["trial_period"] is not None and row["subscription_id"] is None
            unit = 0 if free else unit_amount(item["price"], country)
            grosses.append((item["price"], item["quantity"], whole(unit * item["quantity"] * share)))
        discount = self.world.rows["discount"].get(row["discount_id"] or "")
        found = []
        for item, (price, quantity, gross), off in zip(
            row["items"], grosses, discounts(discount, grosses), strict=True
        ):
            product = deepcopy(self.world.get("product", price["product_id"]))
            mode = self.tax_mode(price)
            found.append(Line(price, product, quantity, gross, mode, rate, off, item["proration"]))
        return found

    def tax_mode(self, price: Row) -> Any:
        own = price["tax_mode"]
        return self.world.account_tax_mode if own == "account_setting" else own

    def bill(self, row: Row) -> None:
        """Issue the invoice."""
        if row["status"] != "ready":
            raise Problem(400, "transaction_invalid_status_change", "transaction is not ready")
        self.number(row)
        row |= {"status": "billed", "billed_at": fine_stamp(self.world.now())}
        self.world.touch(row)
        self.world.emit("transaction.billed", row)

    def number(self, row: Row) -> None:
        if row["invoice_id"] is None:
            row |= {
                "invoice_id": self.world.new_id("inv"),
                "invoice_number": f"325-{10_000 + next(self.world.invoices)}",
            }

    def cancel(self, row: Row) -> None:
        row["status"] = "canceled"
        self.world.touch(row)
        self.world.emit("transaction.canceled", row)

    def fail(self, row: Row, error_code: str = "declined") -> None:
        """A payment that did not go through."""
        self.attempt(row, "error", error_code)
        self.world.touch(row)
        self.world.emit("transaction.payment_failed", row)

    def attempt(self, row: Row, status: str, error_code: str | None = None) -> None:
        now = stamp(self.world.now())
        payment = {
            "payment_attempt_id": str(uuid.uuid4()),
            "stored_payment_method_id": str(uuid.uuid4()),
            "payment_method_id": self.world.new_id("paymtd"),
            "amount": row["details"]["totals"]["grand_total"],
            "status": status,
            "error_code": error_code,
            "method_details": {"type": "card", "underlying_details": None, "card": dict(_CARD)},
            "created_at": now,
            "captured_at": now if status == "captured" else None,
        }
        row["payments"] = [payment, *row["payments"]]

    def pay(self, row: Row) -> None:
        """The money is there. Raises Problem when it cannot be taken."""
        if row["status"] not in {"ready", "billed", "past_due"}:
            words = f"cannot process payment for a transaction in state {row['status']}"
            raise Problem(400, "transaction_not_ready_cannot_process_payment", words)
        self.attempt(row, "captured")
        row["details"]["totals"]["balance"] = "0"
        row["status"] = "paid"
        row["billed_at"] = row["billed_at"] or fine_stamp(self.world.now())
        self.world.touch(row)
        self.world.emit("transaction.paid", row)

    def finish(self, row: Row) -> None:
        """Process what was paid: its subscription, its invoice, the fees."""
        if row["status"] != "paid":
            raise Problem(400, "transaction_invalid_status_change", f"transaction is {row['status']}")
        recurring = [item for item in row["items"] if item["price"]["billing_cycle"] is not None]
        if recurring and row["subscription_id"] is None:
            subscription = self.subscriptions.start(row, recurring)
            row |= {"subscription_id": subscription["id"], "billing_period": subscription["current_billing_period"]}
        self.number(row)
        complete(row["details"], self.world.payout_currency, self.world.exchange_rate)
        row["status"] = "completed"
        discount = self.world.rows["discount"].get(row["discount_id"] or "")
        if discount is not None and row["origin"] in {"api", "web"}:
            discount["times_used"] += 1
        self.world.touch(row)
        self.world.emit("transaction.completed", row)

    # -- the buyer -------------------------------------------------------------------------------------

    def introduce(self, row: Row, buyer: Row) -> None:
        """What the checkout asks the buyer for when the transaction does not say it."""
        if row["status"] != "draft":
            return
        values: Row = {}
        if row["customer_id"] is None:
            email = buyer.get("email", "ada@example.com")
            every = self.world.rows["customer"].values()
            found = next((other for other in every if other["email"].lower() == email.lower()), None)
            made = found or self.catalog.add("customer", {"email": email, "name": buyer.get("name")})
            values["customer_id"] = made["id"]
        if row["address_id"] is None:
            parts = ("postal_code", "city", "region", "first_line")
            place = {name: buyer[name] for name in parts if name in buyer}
            owner = values.get("customer_id") or row["customer_id"]
            address: Row = {"customer_id": owner, "country_code": buyer.get("country_code", "DE"), **place}
            values["address_id"] = self.catalog.add("address", address)["id"]
        self.change(row, values)


def unit_amount(price: Row, country: str | None) -> int:
    """What one unit costs there."""
    for override in price["unit_price_overrides"]:
        if country in override["country_codes"]:
            return int(override["unit_price"]["amount"])
    return int(price["unit_price"]["amount"])


def period(start: datetime, cycle: Row) -> Row:
    return {"starts_at": stamp(start), "ends_at": stamp(later(start, cycle))}
