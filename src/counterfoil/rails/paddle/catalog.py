"""Copies of our products, prices, discounts, customers, addresses and businesses in Paddle's terms, and back.

Source: Paddle's OpenAPI specification of 2025-05-27, schemas ``product``, ``price``, ``discount``, ``customer``,
``address``, ``business`` and their ``-create`` and ``-update`` forms. Each copy has our id in its ``custom_data``.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Address, Business, Customer, Discount, Kind, Price, Product, Subject
from counterfoil.rails.paddle.checkouts import (
    CURRENCIES,
    MOST_QUANTITY,
    cut,
    price_description,
    tax_category,
    tax_mode,
)
from counterfoil.rails.paddle.entities import Amount, Cycle
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.wire import OUR_ID, Json, custom, minor, moment, shape, write_moment

_CODE: Final = re.compile(r"[a-zA-Z0-9]{1,32}")
_ALL: Final = 10_000  # basis points
_DAYS: Final = {"day": 1, "week": 7}
_LONGEST_PRODUCT: Final = 200
_LONGEST_PRODUCT_DESCRIPTION: Final = 2048
_LONGEST_PRICE: Final = 150
_LONGEST_DISCOUNT: Final = 500
_LONGEST_LINE: Final = 1024
_LONGEST_PLACE: Final = 200
_LONGEST_EMAIL: Final = 320
_MOST_CONTACTS: Final = 100


class _Common(msgspec.Struct):
    id: str
    status: str = "active"
    custom_data: Any = None
    updated_at: str | None = None


class _Product(msgspec.Struct):
    name: str
    tax_category: str
    description: str | None = None
    image_url: str | None = None


class _Override(msgspec.Struct):
    country_codes: list[str]
    unit_price: Amount


class _Quantity(msgspec.Struct):
    minimum: int = 1
    maximum: int = 100


class _Price(msgspec.Struct):
    product_id: str
    unit_price: Amount
    description: str
    name: str | None = None
    billing_cycle: Cycle | None = None
    trial_period: Cycle | None = None
    tax_mode: str = "account_setting"
    unit_price_overrides: list[_Override] | None = None
    quantity: _Quantity = msgspec.field(default_factory=_Quantity)


class _Discount(msgspec.Struct):
    description: str
    type: str
    amount: str
    code: str | None = None
    currency_code: str | None = None
    recur: bool = False
    maximum_recurring_intervals: int | None = None
    usage_limit: int | None = None
    restrict_to: list[str] | None = None
    expires_at: str | None = None


class _Customer(msgspec.Struct):
    email: str
    name: str | None = None


class _Address(msgspec.Struct):
    country_code: str
    description: str | None = None
    first_line: str | None = None
    second_line: str | None = None
    city: str | None = None
    region: str | None = None
    postal_code: str | None = None


class _Contact(msgspec.Struct):
    email: str
    name: str | None = None


class _Business(msgspec.Struct):
    name: str
    company_number: str | None = None
    tax_identifier: str | None = None
    contacts: list[_Contact] | None = None


def write(settings: PaddleSettings, subject: Subject) -> Json:
    """An object of ours as Paddle's create and update operations take it, but for its status.

    Raises RailRefused for what Paddle cannot represent.
    """
    return _fields(settings, subject) | {"custom_data": {**subject.metadata, OUR_ID: subject.id}}


def expected(settings: PaddleSettings, subject: Subject) -> dict[str, Any]:
    """What :func:`read` says of a copy that is in step. Raises as :func:`write`."""
    body = write(settings, subject)
    if isinstance(subject, Price):
        body["product_id"] = subject.product_reference
    return _values(kind_of(subject), body) | {"active": subject.active, "metadata": subject.metadata}


def read(kind: Kind, data: Json, at: datetime | None = None) -> RailCopy:
    """An object of Paddle's; ``at``: when it was so, else when Paddle last changed it. Raises RailUnavailable."""
    common = shape(_Common, data)
    ours = common.custom_data if isinstance(common.custom_data, dict) else {}
    return RailCopy(
        kind=kind,
        reference=common.id,
        our_id=custom(data, OUR_ID),
        occurred_at=at or (None if common.updated_at is None else moment(common.updated_at)),
        active=common.status == "active",
        values=_values(kind, data)
        | {
            "active": common.status == "active",
            "metadata": {key: value for key, value in ours.items() if key != OUR_ID},
        },
        raw=data,
    )


def kind_of(subject: Subject) -> Kind:
    """What an object of ours is."""
    kinds: dict[type, Kind] = {
        Product: "product",
        Price: "price",
        Discount: "discount",
        Customer: "customer",
        Address: "address",
        Business: "business",
    }
    return kinds[type(subject)]


# -- ours to Paddle's -------------------------------------------------------------------------------------------------


def _fields(settings: PaddleSettings, subject: Subject) -> Json:
    match subject:
        case Product():
            return {
                "name": _short("a product's name", subject.name, _LONGEST_PRODUCT),
                "description": cut(subject.description, _LONGEST_PRODUCT_DESCRIPTION) or None,
                "tax_category": tax_category(subject.tax_category),
                "image_url": subject.image_url,
            }
        case Price():
            return _price(settings, subject)
        case Discount():
            return _discount(subject)
        case Customer():
            if not subject.email:
                raise RailRefused("Paddle needs a customer's e-mail address")
            body = {
                "name": _line("a customer's name", subject.name),
                "email": _short("an e-mail address", subject.email, _LONGEST_EMAIL),
            }
            return body if subject.locale is None else body | {"locale": subject.locale.replace("_", "-")}
        case Address():
            return {
                "description": _line("an address' description", subject.description),
                "first_line": _line("a line of an address", subject.first_line),
                "second_line": _line("a line of an address", subject.second_line),
                "city": _line("a city", subject.city, _LONGEST_PLACE),
                "region": _line("a region", subject.region, _LONGEST_PLACE),
                "postal_code": _line("a postal code", subject.postal_code, _LONGEST_PLACE),
                "country_code": subject.country,
            }
        case Business():
            return {
                "name": _short("a business' name", subject.name, _LONGEST_LINE),
                "company_number": _line("a company number", subject.company_number),
                "tax_identifier": _line("a tax number", subject.tax_identifier),
                "contacts": [{"name": name, "email": email} for name, email in subject.contacts[:_MOST_CONTACTS]],
            }


def _price(settings: PaddleSettings, price: Price) -> Json:
    """All but the product, which only the create operation takes."""
    if price.asset not in CURRENCIES:
        raise RailRefused(f"Paddle does not charge in {price.asset}")
    if price.trial_days and price.interval is None:
        raise RailRefused("Paddle gives trials of what is paid again and again only")
    cycle = None if price.interval is None else {"interval": price.interval, "frequency": price.interval_count or 1}
    return {
        "name": _line("a price's name", price.name, _LONGEST_PRICE),
        "description": price_description(price.description, price.name),
        "billing_cycle": cycle,
        "trial_period": {"interval": "day", "frequency": price.trial_days} if price.trial_days else None,
        "tax_mode": tax_mode(settings, price.tax_mode),
        "unit_price": {"amount": str(price.unit_amount), "currency_code": price.asset},
        "unit_price_overrides": [
            {
                "country_codes": list(countries),
                "unit_price": {"amount": str(amount), "currency_code": price.asset},
            }
            for countries, amount in price.country_overrides
        ],
        "quantity": {"minimum": price.quantity_min, "maximum": min(price.quantity_max, MOST_QUANTITY)},
    }


def _discount(discount: Discount) -> Json:
    """A discount that we give, never the buyer: codes are typed here, where limits and dates are kept, too.

    So its code is there for the seller to see, and left out where Paddle's alphabet does not have it.
    """
    kind, amount = discount.kind, discount.amount
    if kind == "free":
        kind, amount = "percentage", _ALL
    if kind == "set_price":
        raise RailRefused("Paddle knows no discount that sets a price; make a price instead")
    if not 0 < amount <= (_ALL if kind == "percentage" else 10**15):
        raise RailRefused("Paddle takes discounts above nothing, and up to 100 percent")
    if kind != "percentage" and discount.asset not in CURRENCIES:
        raise RailRefused(f"Paddle does not charge in {discount.asset}")
    references = sorted({*discount.product_references, *discount.price_references})
    code = discount.code if discount.code is not None and _CODE.fullmatch(discount.code) else None
    return {
        "description": cut(discount.description.strip() or discount.code or "Discount", _LONGEST_DISCOUNT),
        "enabled_for_checkout": False,
        "code": code,
        "type": kind,
        "amount": f"{(Decimal(amount) / 100).normalize():f}" if kind == "percentage" else str(amount),
        "currency_code": None if kind == "percentage" else discount.asset,
        "recur": discount.recurring,
        "maximum_recurring_intervals": discount.max_periods if discount.recurring else None,
        "usage_limit": discount.usage_limit,
        "restrict_to": references or None,
        "expires_at": None if discount.expires_at is None else write_moment(discount.expires_at),
    }


def _short(what: str, text: str, most: int) -> str:
    if not 0 < len(text) <= most:
        raise RailRefused(f"Paddle takes 1 to {most} characters for {what}")
    return text


def _line(what: str, text: str | None, most: int = _LONGEST_LINE) -> str | None:
    return _short(what, text, most) if text else None


# -- Paddle's to ours -------------------------------------------------------------------------------------------------


def _values(kind: Kind, data: Json) -> dict[str, Any]:
    match kind:
        case "product":
            product = shape(_Product, data)
            return {
                "name": product.name,
                "description": product.description or "",
                "image_url": product.image_url or None,
                "tax_category": product.tax_category,
            }
        case "price":
            return _price_values(shape(_Price, data))
        case "discount":
            return _discount_values(shape(_Discount, data))
        case "customer":
            customer = shape(_Customer, data)
            return {"name": customer.name or None, "email": customer.email.lower()}
        case "address":
            address = shape(_Address, data)
            return {
                "description": address.description or None,
                "first_line": address.first_line or None,
                "second_line": address.second_line or None,
                "city": address.city or None,
                "region": address.region or None,
                "postal_code": address.postal_code or None,
                "country": address.country_code,
            }
        case "business":
            business = shape(_Business, data)
            return {
                "name": business.name,
                "company_number": business.company_number or None,
                "tax_identifier": business.tax_identifier or None,
                "contacts": sorted([contact.name or "", contact.email] for contact in business.contacts or ()),
            }


def _price_values(price: _Price) -> dict[str, Any]:
    cycle, trial = price.billing_cycle, price.trial_period
    return {
        "product_reference": price.product_id,
        "name": price.name or "",
        "description": price.description,
        "asset": price.unit_price.currency_code,
        "unit_amount": minor(price.unit_price.amount),
        "interval": None if cycle is None else cycle.interval,
        "interval_count": None if cycle is None else cycle.frequency,
        "trial": None if trial is None else _trial(trial),
        "country_overrides": sorted(
            [sorted(entry.country_codes), minor(entry.unit_price.amount), entry.unit_price.currency_code]
            for entry in price.unit_price_overrides or ()
        ),
        "quantity_min": price.quantity.minimum,
        "quantity_max": price.quantity.maximum,
        "tax_mode": price.tax_mode,
    }


def _trial(trial: Cycle) -> str:
    """``14 days``; months and years have no length in days."""
    days = _DAYS.get(trial.interval)
    return f"{trial.frequency} {trial.interval}s" if days is None else f"{trial.frequency * days} days"


def _discount_values(discount: _Discount) -> dict[str, Any]:
    return {
        "description": discount.description,
        "code": discount.code,
        "kind": discount.type,
        "amount": _percentage(discount.amount) if discount.type == "percentage" else minor(discount.amount),
        "asset": discount.currency_code if discount.type != "percentage" else None,
        "recurring": discount.recur,
        "max_periods": discount.maximum_recurring_intervals,
        "usage_limit": discount.usage_limit,
        "restrict_to": sorted(discount.restrict_to or ()),
        "expires_at": None if discount.expires_at is None else write_moment(moment(discount.expires_at)),
    }


def _percentage(text: str) -> int:
    """Basis points. Raises RailUnavailable."""
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,8})?", text) is None:
        raise RailUnavailable(f"Paddle gives a percentage that makes no sense: {text[:40]!r}")
    return round(Decimal(text) * 100)
