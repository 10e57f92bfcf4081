"""Products and prices that somebody made at Stripe, as ours.

Source: specification 2026-08-26.dahlia, schemas ``product``, ``price`` and ``recurring``.
"""

from __future__ import annotations

from typing import Any, Final

from counterfoil.rails.base import RailRefused
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Price, Product
from counterfoil.rails.stripe.wire import OURS, Object, child, metadata, number, text

_TAX_CATEGORIES: Final = {"txcd_10000000": "digital-goods", "txcd_10103001": "saas"}
"""Codes that have one category of ours; those of services have several, and become ``standard``."""
_TAX_MODES: Final = {"inclusive": "internal", "exclusive": "external"}
_INTERVALS: Final = frozenset({"day", "week", "month", "year"})
_MOST_QUANTITY: Final = 10_000


def product(copy: RailCopy) -> Product:
    """A product. Raises RailRefused for one without a name."""
    data = copy.raw
    name = text(data, "name")
    if copy.gone or name is None:
        raise RailRefused("a product without a name")
    return Product(
        id="",
        name=name,
        description=copy.values["description"],
        image_url=copy.values["image_url"],
        tax_category=_TAX_CATEGORIES.get(copy.values["tax_code"] or "", "standard"),
        active=copy.active,
        metadata=_metadata(data),
    )


def price(copy: RailCopy) -> Price:
    """A price of so much a unit. Raises RailRefused for any other."""
    data, values = copy.raw, copy.values
    if copy.gone or data.get("billing_scheme", "per_unit") != "per_unit":
        raise RailRefused("a price in tiers")
    recurring = child(data, "recurring")
    if recurring and recurring.get("usage_type", "licensed") != "licensed":
        raise RailRefused("a price of metered usage")
    if data.get("custom_unit_amount"):
        raise RailRefused("a price that the buyer chooses")
    if data.get("transform_quantity"):
        raise RailRefused("a price of packages")
    if number(data, "unit_amount") is None:
        raise RailRefused("an amount with parts of the smallest unit")
    if values["unit_amount"] is None:
        raise RailRefused(f"a price in {values['asset'] or 'no currency'}")
    interval: Any = values["interval"]
    if recurring and interval not in _INTERVALS:
        raise RailRefused("a price with an interval that we do not know")
    return Price(
        id="",
        product_id="",
        product_reference=values["product"] or "",
        name=values["name"],
        description="",
        asset=values["asset"],
        unit_amount=values["unit_amount"],
        interval=interval,
        interval_count=values["interval_count"] or (1 if recurring else None),
        trial_days=number(recurring, "trial_period_days") or 0,
        country_overrides=(),
        quantity_min=1,
        quantity_max=_MOST_QUANTITY,
        tax_mode=_TAX_MODES.get(values["tax_behavior"] or "", "account_setting"),
        active=copy.active,
        metadata=_metadata(data),
    )


def _metadata(data: Object) -> dict[str, Any]:
    return {key: value for key, value in metadata(data).items() if key != OURS}
