"""Products and prices that somebody made at Paddle, as ours.

Source: Paddle's OpenAPI specification of 2025-05-27, schemas ``product`` and ``price``.
"""

from __future__ import annotations

from typing import Any, Final

from counterfoil.kernel.money import is_known
from counterfoil.rails.base import RailRefused
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Price, Product
from counterfoil.rails.paddle.wire import Json

_INTERVALS: Final = frozenset({"day", "week", "month", "year"})
_DAYS: Final = {"day": 1, "week": 7}
_MOST_QUANTITY: Final = 10_000


def product(copy: RailCopy) -> Product:
    """A product of the catalog. Raises RailRefused for one that was made for a single sale."""
    _check_catalog(copy.raw)
    values = copy.values
    return Product(
        id="",
        name=values["name"],
        description=values["description"],
        image_url=values["image_url"],
        tax_category=values["tax_category"],
        active=copy.active,
        metadata=values["metadata"],
    )


def price(copy: RailCopy) -> Price:
    """A price of the catalog. Raises RailRefused for what we cannot represent."""
    _check_catalog(copy.raw)
    values = copy.values
    if not is_known(values["asset"]):
        raise RailRefused(f"a price in {values['asset']}")
    if values["interval"] is not None and values["interval"] not in _INTERVALS:
        raise RailRefused("a price with an interval that we do not know")
    if any(asset != values["asset"] for _, _, asset in values["country_overrides"]):
        raise RailRefused("a price with another currency in some countries")
    return Price(
        id="",
        product_id="",
        product_reference=values["product_reference"],
        name=values["name"],
        description=values["description"],
        asset=values["asset"],
        unit_amount=values["unit_amount"],
        interval=values["interval"],
        interval_count=values["interval_count"],
        trial_days=_trial_days(copy.raw),
        country_overrides=tuple((tuple(countries), amount) for countries, amount, _ in values["country_overrides"]),
        quantity_min=values["quantity_min"],
        quantity_max=min(values["quantity_max"], _MOST_QUANTITY),
        tax_mode=values["tax_mode"] if values["tax_mode"] in {"internal", "external"} else "account_setting",
        active=copy.active,
        metadata=values["metadata"],
    )


def _check_catalog(data: Json) -> None:
    if data.get("type", "standard") != "standard":
        raise RailRefused("made for a single sale")


def _trial_days(data: Json) -> int:
    trial: Any = data.get("trial_period")
    if not isinstance(trial, dict):
        return 0
    days = _DAYS.get(trial.get("interval", ""))
    if days is None:
        raise RailRefused("a trial that is not of days or weeks")
    return days * int(trial.get("frequency", 1))
