"""What a page says: prices, promises and times in a buyer's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from counterfoil.catalog.shelf import ShelfPrice
from counterfoil.catalog.types import Benefit, LicenseSpec, Price
from counterfoil.kernel.errors import CounterfoilError, RailFailed
from counterfoil.kernel.money import Money, show

_DAY = 86_400
_UNITS = ((365 * _DAY, "year"), (_DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second"))

_FIELD_ERRORS = {
    "recurring_not_supported": "This is paid again and again: choose another way to pay.",
    "discount_not_found": "We do not know this code.",
    "discount_inactive": "This code is not in use right now.",
    "discount_expired": "This code has expired.",
    "discount_exhausted": "This code has been used up.",
    "discount_not_applicable": "This code is not for what you chose.",
    "price_not_found": "This is no longer for sale at that price. Please choose again.",
    "price_archived": "This is no longer for sale at that price. Please choose again.",
    "rail_required": "Choose how to pay.",
    "rail_not_connected": "This way to pay is not available. Please choose another.",
    "asset_not_supported": "This way to pay does not take this currency. Please choose another.",
    "shipping_required": "Say where to send it.",
    "unknown_country": "Choose a country.",
    "cart_too_large": "That is more than can be bought at once.",
}


def counted(number: int, noun: str) -> str:
    """``1 machine``, ``3 machines``, ``1,000 machines``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: int) -> str:
    """A length of time in the largest unit that says it exactly: ``1 year``, ``14 days``."""
    for size, noun in _UNITS:
        if seconds % size == 0:
            return counted(seconds // size, noun)
    raise AssertionError("a second divides everything")


def day(moment: datetime) -> str:
    """``2 January 2026`` (UTC)."""
    return f"{moment.day} {moment:%B %Y}"


def minute(moment: datetime) -> str:
    """``2 January 2026, 03:04 UTC``."""
    return f"{day(moment)}, {moment:%H:%M} UTC"


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a plain text: what blank lines separate."""
    return [part.strip() for part in re.split(r"\r?\n[ \t]*(?:\r?\n)+", text) if part.strip()]


def period(price: Price) -> str:
    """How often a recurring price is paid: ``per month``, ``every 3 months, after 14 days free``; empty for others."""
    if price.interval is None:
        return ""
    count = price.interval_count or 1
    often = f"per {price.interval}" if count == 1 else f"every {counted(count, price.interval)}"
    return f"{often}, after {counted(price.trial_days, 'day')} free" if price.trial_days else often


def amount(money: Money) -> str:
    """A price to read; ``Free`` for nothing."""
    return show(money) if money.amount else "Free"


def from_prices(prices: Sequence[Price | ShelfPrice]) -> str:
    """The least a product costs, in each asset it is sold for: ``from $29.00 or 60,000 sats``."""
    by_asset: dict[str, list[int]] = {}
    for price in prices:
        by_asset.setdefault(price.asset, []).append(price.unit_amount)
    least = " or ".join(amount(Money(min(amounts), asset)) for asset, amounts in by_asset.items())
    return f"from {least}" if any(len(set(amounts)) > 1 for amounts in by_asset.values()) else least


def tier_name(price: Price) -> str:
    """What a choice is called."""
    return price.name or ("" if price.tier == "default" else price.tier.replace("-", " ").capitalize())


def promises(benefits: Iterable[Benefit], price: Price) -> list[str]:
    """What a price promises, one line each."""
    lines: list[str] = []
    for benefit in benefits:
        if benefit.tier == price.tier and benefit.kind == "license":
            lines += license_promises(msgspec.convert(benefit.spec, LicenseSpec), lasting=price.type == "recurring")
        elif benefit.tier == price.tier:
            lines.append("Shipped to you")
    return lines


def license_promises(spec: LicenseSpec, *, lasting: bool = False) -> list[str]:
    """What a license promises, one line each; ``lasting``: it lasts with its subscription."""
    lines = ["Trial license"] if spec.is_trial else []
    lines.append(machines(spec.max_machines))
    if lasting:
        lines.append("Good for as long as it is paid")
    elif not spec.duration_seconds:
        lines.append("Never expires")
    elif spec.grace_seconds:
        lines.append(f"{duration(spec.duration_seconds)}, then {duration(spec.grace_seconds)} of grace")
    else:
        lines.append(duration(spec.duration_seconds))
    return lines + list(spec.entitlements)


def machines(most: int) -> str:
    """On how many machines a license runs at once."""
    return counted(most, "machine") if most else "Any number of machines"


def field_error(code: str, detail: str) -> str:
    """What a buyer reads beside a field."""
    return _FIELD_ERRORS.get(code) or detail[:1].upper() + detail[1:] + ("" if detail.endswith(".") else ".")


def form_error(error: CounterfoilError) -> str:
    """What a buyer reads when no field is to blame."""
    if isinstance(error, RailFailed):
        return "The payment service refused this purchase. Nothing was charged."
    if error.retryable:
        return "The payment service did not answer. Nothing was charged. Please try again."
    return error.detail
