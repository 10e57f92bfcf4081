"""What the stand-in for Paddle keeps by itself: products, prices, discounts, customers and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.peers.paddle_fields import (
    AMOUNT,
    CURRENCY,
    CUSTOM_DATA,
    CYCLE,
    MONEY,
    OVERRIDES,
    QUANTITY_RANGE,
    STATUS,
    TAX_CATEGORIES,
    UNSUPPORTED_COUNTRIES,
    Check,
    anything,
    boolean,
    country,
    email,
    entity,
    integer,
    many,
    moment,
    nullable,
    object_of,
    one_of,
    read,
    text,
)
from tests.peers.paddle_world import KINDS, Answer, Listing, Problem, Request, Row, World, fine_stamp, invalid, stamp


@dataclass(frozen=True)
class Kind:
    """What may be said of an object, and what it is when nothing is said."""

    fields: Mapping[str, Check]
    required: tuple[str, ...]
    defaults: Row
    listing: Listing
    fixed: frozenset[str] = frozenset()
    """What can only be said when it is made."""
    ignored: frozenset[str] = frozenset({"id", "import_meta", "created_at", "updated_at", "times_used"})
    parent: str | None = None
    open_update: bool = field(default=False)


_COMMON: dict[str, Check] = {"custom_data": CUSTOM_DATA, "status": STATUS}
_ORDERS = ("id", "created_at", "updated_at", "status")

PRICE_FIELDS: dict[str, Check] = {
    "description": text(2, 500),
    "type": one_of("standard", "custom"),
    "name": nullable(text(1, 150)),
    "billing_cycle": nullable(CYCLE),
    "trial_period": nullable(CYCLE),
    "tax_mode": one_of("account_setting", "external", "internal"),
    "unit_price": MONEY,
    "unit_price_overrides": OVERRIDES,
    "quantity": QUANTITY_RANGE,
    "custom_data": CUSTOM_DATA,
}
PRICE_DEFAULTS: Row = {
    "type": "standard",
    "name": None,
    "billing_cycle": None,
    "trial_period": None,
    "tax_mode": "account_setting",
    "unit_price_overrides": [],
    "quantity": {"minimum": 1, "maximum": 100},
}
PRODUCT_FIELDS: dict[str, Check] = {
    "name": text(1, 200),
    "description": nullable(text(0, 2048)),
    "type": one_of("standard", "custom"),
    "tax_category": one_of(*TAX_CATEGORIES),
    "image_url": nullable(text(0, 2048, r"(https://.*)?")),
    "custom_data": CUSTOM_DATA,
}
PRODUCT_DEFAULTS: Row = {"description": None, "type": "standard", "image_url": None}
_LINE = nullable(text(0, 1024))

CATALOG: dict[str, Kind] = {
    "product": Kind(
        fields=PRODUCT_FIELDS | _COMMON,
        required=("name", "tax_category"),
        defaults=PRODUCT_DEFAULTS,
        listing=Listing(("id", "status", "tax_category", "type"), orders=(*_ORDERS, "name"), only_active=True),
    ),
    "price": Kind(
        fields=PRICE_FIELDS | _COMMON | {"product_id": entity("pro")},
        required=("description", "product_id", "unit_price"),
        defaults=PRICE_DEFAULTS,
        listing=Listing(("id", "status", "product_id", "type"), orders=_ORDERS, only_active=True),
        fixed=frozenset({"product_id"}),
    ),
    "discount": Kind(
        fields=_COMMON
        | {
            "description": text(1, 500),
            "enabled_for_checkout": boolean,
            "code": nullable(text(1, 32, "[a-zA-Z0-9]+")),
            "type": one_of("flat", "flat_per_seat", "percentage"),
            "mode": one_of("standard", "custom"),
            "amount": text(1, 18, r"\d+(\.\d+)?"),
            "currency_code": nullable(CURRENCY),
            "recur": boolean,
            "maximum_recurring_intervals": nullable(integer(1)),
            "usage_limit": nullable(integer(1)),
            "restrict_to": nullable(many(text(pattern=r"(pri|pro)_[a-z\d]{26}"))),
            "expires_at": nullable(moment),
        },
        required=("description", "type", "amount"),
        defaults={
            "enabled_for_checkout": True,
            "code": None,
            "mode": "standard",
            "currency_code": None,
            "recur": False,
            "maximum_recurring_intervals": None,
            "usage_limit": None,
            "restrict_to": None,
            "expires_at": None,
            "times_used": 0,
        },
        listing=Listing(("id", "status", "code", "mode"), orders=("id", "created_at"), only_active=True),
    ),
    "customer": Kind(
        fields=_COMMON
        | {
            "name": nullable(text(0, 1024)),
            "email": email,
            "marketing_consent": boolean,
            "locale": text(2, 10),
        },
        required=("email",),
        defaults={"name": None, "marketing_consent": False, "locale": "en"},
        listing=Listing(("id", "status", "email"), orders=("id",), only_active=True),
    ),
    "address": Kind(
        fields=_COMMON
        | dict.fromkeys(("description", "first_line", "second_line"), _LINE)
        | {name: nullable(text(0, 200)) for name in ("city", "postal_code", "region")}
        | {"country_code": country},
        required=("country_code",),
        defaults=dict.fromkeys(("description", "first_line", "second_line", "city", "postal_code", "region")),
        listing=Listing(("id", "status"), only_active=True),
        parent="customer",
    ),
    "business": Kind(
        fields=_COMMON
        | {
            "name": text(1, 1024),
            "company_number": _LINE,
            "tax_identifier": _LINE,
            "contacts": many(object_of({"name": text(0, 1024), "email": email}, ("email",))),
        },
        required=("name",),
        defaults={"company_number": None, "tax_identifier": None, "contacts": []},
        listing=Listing(("id", "status"), only_active=True),
        parent="customer",
    ),
}


class Catalog:
    """Making, changing, reading and listing objects that nothing happens to by itself."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create(self, kind: str, request: Request) -> Answer:
        what = CATALOG[kind]
        fields = {name: check for name, check in what.fields.items() if name != "status" or kind == "discount"}
        fields |= dict.fromkeys(what.ignored, anything)
        values = read(request.json(), fields, what.required)
        values = {name: value for name, value in values.items() if name not in what.ignored}
        parent = {}
        if what.parent is not None:
            parent = {f"{what.parent}_id": self.world.get(what.parent, request.params["parent"])["id"]}
        return Answer(self.add(kind, {**parent, **values}), 201)

    def add(self, kind: str, values: Row) -> Row:
        """Check what the fields alone do not say, keep it and tell."""
        now = (fine_stamp if kind == "price" else stamp)(self.world.now())
        row: Row = {
            "id": self.world.new_id(kind),
            "status": "active",
            "custom_data": None,
            "import_meta": None,
            **CATALOG[kind].defaults,
            **values,
            "created_at": now,
            "updated_at": now,
        }
        self.check(kind, row)
        self.world.add(kind, row)
        self.world.emit(f"{kind}.created", row)
        return row

    def update(self, kind: str, request: Request) -> Answer:
        row, what = self.find(kind, request), CATALOG[kind]
        fields = {name: check for name, check in what.fields.items() if name not in what.fixed}
        ignored = {"import_meta"} if kind == "customer" else what.ignored if kind == "discount" else frozenset()
        values = read(request.json(), fields | dict.fromkeys(ignored, anything))
        values = {name: value for name, value in values.items() if name not in ignored}
        if row["status"] == "archived" and values.get("status") != "active":
            raise Problem(400, "entity_archived", "cannot update archived entity")
        self.check(kind, {**row, **values})
        row |= values
        self.world.touch(row)
        self.world.emit(f"{kind}.updated", row)
        return Answer(row)

    def read(self, kind: str, request: Request) -> Answer:
        return Answer(self.with_others(kind, self.find(kind, request), request))

    def list_all(self, kind: str, request: Request) -> Answer:
        what, rows = CATALOG[kind], list(self.world.rows[kind].values())
        if what.parent is not None:
            owner = self.world.get(what.parent, request.params["parent"])["id"]
            rows = [row for row in rows if row[f"{what.parent}_id"] == owner]
        if (words := request.first("search")) is not None:
            rows = [row for row in rows if any(words.lower() in str(value).lower() for value in row.values())]
        if (recurring := request.first("recurring")) is not None:
            rows = [row for row in rows if (row["billing_cycle"] is not None) == (recurring == "true")]
        answer = self.world.page(request, rows, what.listing)
        answer.data = [self.with_others(kind, row, request) for row in answer.data]
        return answer

    def find(self, kind: str, request: Request) -> Row:
        row, parent = self.world.get(kind, request.params["id"]), CATALOG[kind].parent
        if parent is not None and row[f"{parent}_id"] != request.params["parent"]:
            raise Problem(404, "not_found", f"Entity {row['id']} not found")
        return row

    def with_others(self, kind: str, row: Row, request: Request) -> Row:
        wanted = request.values("include") or []
        if kind == "product" and "prices" in wanted:
            prices = self.world.rows["price"].values()
            return {**row, "prices": [price for price in prices if price["product_id"] == row["id"]]}
        if kind == "price" and "product" in wanted:
            return {**row, "product": self.world.get("product", row["product_id"])}
        return row

    # -- what the fields alone do not say --------------------------------------------------------------

    def check(self, kind: str, row: Row) -> None:
        if kind == "price":
            self.check_price(row)
        elif kind == "discount":
            self.check_discount(row)
        elif kind == "customer":
            self.check_customer(row)
        elif kind == "address" and row["country_code"] in UNSUPPORTED_COUNTRIES:
            words = f"address location {row['country_code']} not allowed"
            raise Problem(400, "address_location_not_allowed", words)

    def check_price(self, row: Row) -> None:
        self.world.get("product", row["product_id"])
        if row["trial_period"] is not None and row["billing_cycle"] is None:
            words = "trial period requires a billing cycle"
            raise Problem(400, "price_trial_period_requires_billing_cycle", words)
        if row["quantity"]["minimum"] > row["quantity"]["maximum"]:
            raise invalid("quantity", "minimum must not be above maximum")
        codes = [code for override in row["unit_price_overrides"] for code in override["country_codes"]]
        if len(codes) != len(set(codes)):
            words = "a country has more than one override"
            raise Problem(400, "price_duplicate_currency_override_for_country", words)

    def check_discount(self, row: Row) -> None:
        self.check_amount(row)
        for entity_id in row["restrict_to"] or ():
            kind, part = ("price", "product_price") if entity_id.startswith("pri_") else ("product", "product")
            if self.world.get(kind, entity_id)["status"] == "archived":
                raise Problem(400, f"discount_restricted_{part}_not_active", f"{kind} {entity_id} is not active")
        for other in self.world.rows["discount"].values():
            same = row["code"] is not None and (other["code"] or "").lower() == row["code"].lower()
            if same and other["id"] != row["id"] and other["status"] == row["status"] == "active":
                words = f"discount code conflicts with discount of id {other['id']}"
                raise Problem(409, "discount_code_conflict", words)

    def check_amount(self, row: Row) -> None:
        errors = []
        if row["type"] == "percentage":
            if not 0 < float(row["amount"]) <= 100:
                errors.append(("amount", "must be between 0.01 and 100 for a percentage"))
            if row["currency_code"] is not None:
                errors.append(("currency_code", "must be null for a percentage"))
        else:
            errors += AMOUNT(row["amount"], "amount")
            if row["currency_code"] is None:
                errors.append(("currency_code", "is required for flat discounts"))
        if row["maximum_recurring_intervals"] is not None and not row["recur"]:
            errors.append(("maximum_recurring_intervals", "requires recur"))
        if errors:
            raise Problem(400, "invalid_field", "Request does not pass validation.", errors)

    def check_customer(self, row: Row) -> None:
        for other in self.world.rows["customer"].values():
            if other["email"].lower() == row["email"].lower() and other["id"] != row["id"]:
                words = f"customer email conflicts with customer of id {other['id']}"
                raise Problem(409, "customer_already_exists", words)

    # -- portal ----------------------------------------------------------------------------------------

    def open_portal(self, request: Request) -> Answer:
        customer = self.world.get("customer", request.params["parent"])
        fields = {"subscription_ids": many(entity(KINDS["subscription"]), high=25)}
        wanted = read(request.json(), fields).get("subscription_ids", [])
        session = self.world.new_id("cpls")
        base, token = "https://customer-portal.paddle.com", f"pga_{session}"
        subscriptions = []
        for subscription_id in wanted:
            row = self.world.get("subscription", subscription_id)
            if row["customer_id"] != customer["id"]:
                raise Problem(404, "not_found", f"Entity {subscription_id} not found")
            link = f"{base}/subscriptions/{subscription_id}"
            entry = {
                "id": subscription_id,
                "cancel_subscription": f"{link}/cancel?token={token}",
                "update_subscription_payment_method": f"{link}/update-payment-method?token={token}",
            }
            subscriptions.append(entry)
        urls: dict[str, Any] = {"general": {"overview": f"{base}/{session}?token={token}"}}
        urls["subscriptions"] = subscriptions
        created = stamp(self.world.now())
        data = {"id": session, "customer_id": customer["id"], "urls": urls, "created_at": created}
        return Answer(data, 201)
