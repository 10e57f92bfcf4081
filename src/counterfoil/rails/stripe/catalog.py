"""Copies of our products, prices, discounts and customers: as Stripe's parameters, and its objects in our terms.

A product's and a coupon's id at Stripe is ours, which Stripe lets the caller choose. A price's ``lookup_key`` is our
id, and everything has our id in its metadata, where a customer is found by it.
So a product, coupon or price cannot exist twice, and a customer is found again.

What of ours Stripe does not hold is not sent, and is kept to by our own checkout: a price's least and most quantity,
trial and amounts by country, a discount's beginning and its limit for each customer. A discount's ``max_periods``
becomes months, which it is for prices that are paid monthly; :mod:`counterfoil.rails.stripe.variants` says what other
sales take. Names, e-mail addresses and parts of an address cannot be emptied there.

Source: specification 2026-08-26.dahlia, ``PostProducts``, ``PostPrices``, ``PostCoupons``, ``PostCustomers``,
``PostPromotionCodes`` and their objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from counterfoil.kernel.clock import to_seconds
from counterfoil.kernel.money import Money
from counterfoil.rails.base import HttpRequest, RailRefused, RailUnavailable
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Address, Customer, Discount, Kind, Price, Product, Subject
from counterfoil.rails.stripe.amounts import ASSETS, from_stripe, to_stripe
from counterfoil.rails.stripe.checkout import tax_behavior
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.wire import (
    OURS,
    VARIANT,
    Object,
    call,
    child,
    first,
    metadata,
    moment,
    need,
    number,
    objects,
    reference,
    text,
)

PATHS: Final[dict[Kind, str]] = {
    "product": "products",
    "price": "prices",
    "discount": "coupons",
    "customer": "customers",
}
"""What Stripe keeps copies of, and where."""

_KINDS: Final[dict[type[Subject], Kind]] = {
    Product: "product",
    Price: "price",
    Discount: "discount",
    Customer: "customer",
}

_MOST_COUPON_NAME: Final = 40
_CODE: Final = re.compile(r"[A-Za-z0-9-]{1,500}")
_BASIS: Final = 100

_TAX_CODES: Final = {
    "digital-goods": "txcd_10000000",
    "saas": "txcd_10103001",
    "implementation-services": "txcd_20030000",
    "professional-services": "txcd_20030000",
    "software-programming-services": "txcd_20030000",
    "training-services": "txcd_20030000",
}
"""Stripe's codes for our categories of tax; for others the account's own default holds."""

_ADDRESS: Final = (
    ("line1", "first_line"),
    ("line2", "second_line"),
    ("city", "city"),
    ("state", "region"),
    ("postal_code", "postal_code"),
    ("country", "country"),
)


# -- requests ----------------------------------------------------------------------------------------------------------


def create_form(settings: StripeSettings, subject: Subject) -> tuple[Kind, dict[str, Any]]:
    """What to create, and with which parameters. Raises RailRefused for what Stripe cannot represent, saying why."""
    match subject:
        case Product():
            return "product", {"id": subject.id, **_product(settings, subject, clear=None)}
        case Price():
            return "price", _price(subject)
        case Discount():
            return "discount", _coupon(subject)
        case Customer():
            return "customer", _customer(subject)
        case _:
            raise RailRefused("Stripe keeps addresses and businesses with their customer")


def update_request(settings: StripeSettings, subject: Subject, name: str, key: str) -> HttpRequest | None:
    """How to bring the copy ``name`` in step.

    A price's amount and a coupon's terms never change at Stripe. Coupons cannot be archived, only deleted, and then
    nobody can say whether their name will be taken again: one of a discount that is not active any more stays. Nothing
    there gives it to anybody but its promotion code, which is switched off.
    """
    marks = _marks(subject)
    match subject:
        case Product():
            return call(settings, "POST", "products", name, form=_product(settings, subject, clear=""), key=key)
        case Price():
            form = {"active": subject.active, "nickname": subject.name, "metadata": marks}
            return call(settings, "POST", "prices", name, form=form, key=key)
        case Discount():
            form = {"name": subject.description[:_MOST_COUPON_NAME], "metadata": marks}
            return call(settings, "POST", "coupons", name, form=form, key=key)
        case Customer():
            return call(settings, "POST", "customers", name, form=_customer(subject), key=key)
        case _:
            raise RailRefused("Stripe keeps addresses and businesses with their customer")


def find_request(settings: StripeSettings, subject: Subject) -> HttpRequest:
    """How to look for the copy by our id.

    Stripe's search of customers lags behind by up to a minute or so: within 24 hours of an attempt it is surer to
    repeat it with the same key.
    """
    match subject:
        case Product():
            return call(settings, "GET", "products", subject.id)
        case Price():
            return call(settings, "GET", "prices", query={"lookup_keys": [subject.id], "limit": 1})
        case Discount():
            return call(settings, "GET", "coupons", subject.id)
        case Customer():
            query = {"query": f'metadata["{OURS}"]:"{subject.id}"', "limit": 100}
            return call(settings, "GET", "customers", "search", query=query)
        case _:
            raise RailRefused("Stripe keeps addresses and businesses with their customer")


def code_request(settings: StripeSettings, discount: Discount, coupon: str, key: str) -> HttpRequest | None:
    """``POST /v1/promotion_codes``: the code that buyers type on Stripe's own pages; None for a discount without.

    Our own checkout needs none: it applies the coupon. Raises RailRefused for a code that Stripe does not take.
    """
    if discount.code is None:
        return None
    if not _CODE.fullmatch(discount.code):
        raise RailRefused("a code at Stripe has letters, digits and dashes only")
    form = {
        "promotion": {"type": "coupon", "coupon": coupon},
        "code": discount.code,
        "expires_at": None if discount.expires_at is None else to_seconds(discount.expires_at),
        "max_redemptions": discount.usage_limit,
        "metadata": {OURS: discount.id},
    }
    return call(settings, "POST", "promotion_codes", form=form, key=f"{key}-code")


def switch_code_request(settings: StripeSettings, subject: Subject, name: str, key: str) -> HttpRequest | None:
    """``POST /v1/promotion_codes/{name}``: active as its discount is; None for what has no code."""
    if not isinstance(subject, Discount) or subject.code is None:
        return None
    return call(settings, "POST", "promotion_codes", name, form={"active": subject.active}, key=key)


def find_code_request(settings: StripeSettings, subject: Subject) -> HttpRequest:
    """``GET /v1/promotion_codes`` of this text: of several, one at most is active."""
    if not isinstance(subject, Discount) or subject.code is None:
        raise RailRefused("only a discount with a code has a promotion code")
    return call(settings, "GET", "promotion_codes", query={"code": subject.code, "active": True, "limit": 1})


def read_found_code(subject: Subject, answer: Object) -> str | None:
    """The promotion code that we made for the discount; None when there is none, or somebody else's."""
    ours = (data for data in objects(answer, "data") if metadata(data).get(OURS) == subject.id)
    return next((need(data, "id") for data in ours), None)


def _product(settings: StripeSettings, product: Product, clear: str | None) -> dict[str, Any]:
    """``clear``: what says "none", which an update has to and a creation must not."""
    return {
        "name": product.name,
        "description": product.description or clear,
        "images": clear if product.image_url is None else [product.image_url],
        "active": product.active,
        "tax_code": _TAX_CODES.get(product.tax_category) if settings.automatic_tax else None,
        "metadata": {OURS: product.id},
    }


def _price(price: Price) -> dict[str, Any]:
    return {
        "product": price.product_reference,
        "currency": price.asset.lower(),
        "unit_amount": to_stripe(Money(price.unit_amount, price.asset)),
        "nickname": price.name or None,
        "recurring": None
        if price.interval is None
        else {"interval": price.interval, "interval_count": price.interval_count or 1},
        "lookup_key": price.id,
        "tax_behavior": tax_behavior(price.tax_mode),
        "active": price.active,
        "metadata": _marks(price),
    }


def _coupon(discount: Discount) -> dict[str, Any]:
    if not discount.active:
        raise RailRefused("Stripe has no archived coupons, so a discount that is not active has no copy there")
    if discount.kind not in {"percentage", "flat"}:
        kind = discount.kind.replace("_", " ")
        raise RailRefused(f"Stripe takes a percentage or an amount off a whole bill; a {kind} discount it cannot do")
    if discount.price_references:
        raise RailRefused("Stripe limits a coupon to products, and not to single prices")
    form: dict[str, Any] = {
        "id": discount.id,
        "name": discount.description[:_MOST_COUPON_NAME] or None,
        **_duration(discount),
        "max_redemptions": discount.usage_limit,
        "redeem_by": None if discount.expires_at is None else to_seconds(discount.expires_at),
        "applies_to": {"products": list(discount.product_references)} if discount.product_references else None,
        "metadata": _marks(discount),
    }
    if discount.kind == "percentage":
        form["percent_off"] = f"{Decimal(discount.amount) / _BASIS:f}"
    elif discount.asset is None:
        raise RailRefused("a coupon of an amount needs its currency")
    else:
        form["amount_off"] = to_stripe(Money(discount.amount, discount.asset))
        form["currency"] = discount.asset.lower()
    return form


def _marks(subject: Subject) -> dict[str, str]:
    """The metadata by which an object is known as the copy of one of ours, or as a variant of that."""
    if isinstance(subject, (Price, Discount)) and subject.variant_of is not None:
        return {OURS: subject.variant_of, VARIANT: subject.id}
    return {OURS: subject.id}


def _duration(discount: Discount) -> dict[str, Any]:
    if not discount.recurring or discount.max_periods == 1:
        return {"duration": "once", "duration_in_months": None}
    if discount.max_periods is None:
        return {"duration": "forever", "duration_in_months": None}
    return {"duration": "repeating", "duration_in_months": discount.max_periods}


def _customer(customer: Customer) -> dict[str, Any]:
    """Stripe cannot be told that a customer has no name, e-mail address or locale any more: it keeps the last."""
    return {
        "name": customer.name or None,
        "email": customer.email or None,
        "preferred_locales": [customer.locale] if customer.locale else None,
        "address": None if customer.address is None else _address(customer.address),
        "metadata": {OURS: customer.id},
    }


def _address(address: Address) -> dict[str, Any]:
    """Single parts cannot be emptied at Stripe either."""
    return {theirs: getattr(address, ours) or None for theirs, ours in _ADDRESS}


# -- what a copy says --------------------------------------------------------------------------------------------------


def expected(settings: StripeSettings, subject: Subject) -> dict[str, Any]:
    """What :func:`read_copy` has in ``values`` for a copy that is in step."""
    match subject:
        case Product():
            said = {
                "name": subject.name,
                "description": subject.description,
                "image_url": subject.image_url,
                "active": subject.active,
            }
            code = _TAX_CODES.get(subject.tax_category)
            return {**said, "tax_code": code} if settings.automatic_tax and code else said
        case Price():
            return {
                "product": subject.product_reference,
                "name": subject.name,
                "asset": subject.asset,
                "unit_amount": subject.unit_amount,
                "interval": subject.interval,
                "interval_count": None if subject.interval is None else subject.interval_count or 1,
                "active": subject.active,
            }
        case Discount():
            return {
                "description": subject.description[:_MOST_COUPON_NAME],
                "kind": subject.kind,
                "amount": subject.amount,
                "asset": subject.asset if subject.kind == "flat" else None,
                **_duration(subject),
                "usage_limit": subject.usage_limit,
                "expires_at": None if subject.expires_at is None else subject.expires_at.replace(microsecond=0),
            }
        case Customer():
            held = {"name": subject.name, "email": subject.email, "locale": subject.locale}
            said = {key: value for key, value in held.items() if value}
            return said if subject.address is None else {**said, "address": _address(subject.address)}
        case _:
            return {}


def read_copy(kind: Kind, data: Object, at: datetime | None) -> RailCopy:
    """An object in our terms. Raises RailUnavailable for one without an id."""
    gone = data.get("deleted") is True
    return RailCopy(
        kind=kind,
        reference=need(data, "id"),
        our_id=first((metadata(data).get(OURS), text(data, "lookup_key"))),
        occurred_at=at,
        active=not gone and data.get("active") is not False and data.get("valid") is not False,
        values={} if gone else _VALUES[kind](data),
        raw=data,
        gone=gone,
    )


def read_found(subject: Subject, answer: Object, at: datetime | None) -> RailCopy | None:
    """The copy in the answer to :func:`find_request`: an object, or a list or search in which it is the oldest."""
    kind = _KINDS[type(subject)]
    found = objects(answer, "data") if "data" in answer else [answer]
    copies = [read_copy(kind, data, at) for data in found]
    ours = [copy for copy in copies if not copy.gone and copy.our_id == _marks(subject)[OURS]]
    return min(ours, key=lambda copy: (number(copy.raw, "created") or 0, copy.reference), default=None)


def _product_values(data: Object) -> dict[str, Any]:
    images = data.get("images")
    return {
        "name": text(data, "name"),
        "description": text(data, "description") or "",
        "image_url": images[0] if isinstance(images, list) and images else None,
        "active": data.get("active") is True,
        "tax_code": reference(data, "tax_code"),
    }


def _price_values(data: Object) -> dict[str, Any]:
    recurring = child(data, "recurring")
    return {
        "product": reference(data, "product"),
        "name": text(data, "nickname") or "",
        "asset": (text(data, "currency") or "").upper(),
        "unit_amount": _amount(number(data, "unit_amount"), data),
        "interval": text(recurring, "interval"),
        "interval_count": number(recurring, "interval_count"),
        "active": data.get("active") is True,
        "tax_behavior": text(data, "tax_behavior"),
    }


def _coupon_values(data: Object) -> dict[str, Any]:
    percent = data.get("percent_off")
    by_percent = isinstance(percent, int | float) and not isinstance(percent, bool)
    asset = (text(data, "currency") or "").upper() or None
    return {
        "description": text(data, "name") or "",
        "kind": "percentage" if by_percent else "flat",
        # A percentage has two decimals at most, which the shortest text of the number shows exactly.
        "amount": int(Decimal(str(percent)) * _BASIS) if by_percent else _amount(number(data, "amount_off"), data),
        "asset": None if by_percent else asset,
        "duration": text(data, "duration"),
        "duration_in_months": number(data, "duration_in_months"),
        "usage_limit": number(data, "max_redemptions"),
        "expires_at": moment(data, "redeem_by"),
    }


def _customer_values(data: Object) -> dict[str, Any]:
    locales = data.get("preferred_locales")
    address = child(data, "address")
    return {
        "name": text(data, "name"),
        "email": text(data, "email"),
        "locale": locales[0] if isinstance(locales, list) and locales else None,
        "address": {theirs: text(address, theirs) for theirs, _ in _ADDRESS} if address else None,
    }


def _amount(amount: int | None, data: Object) -> int | None:
    """Minor units of ours; None for what we cannot count, which somebody may well have made there."""
    currency = (text(data, "currency") or "").upper()
    if amount is None or currency not in ASSETS:
        return None
    try:
        return from_stripe(amount, currency).amount
    except RailUnavailable:
        return None


_VALUES: Final[dict[Kind, Callable[[Object], dict[str, Any]]]] = {
    "product": _product_values,
    "price": _price_values,
    "discount": _coupon_values,
    "customer": _customer_values,
}
