"""Variants: what Stripe needs beside a copy where one copy cannot serve every sale.

A price at Stripe has one amount. One of ours that costs something else in some countries has a copy for its own amount,
and a variant for each other amount that it is ever sold at: a price of the same product, ``lookup_key`` our id with
the amount. A coupon at Stripe lasts for months. A discount for some periods has a copy that is right for what is paid
every month, and a variant for each other number of months that it is ever to last: a coupon, its id ours with the
months.

Variants carry the id of what they are variants of, as copies do, and a word that tells them from copies. They are made
when a sale first needs them, and stay: nothing at Stripe sells them by itself, and what is sold is decided here.

Source: specification 2026-08-26.dahlia, ``PostPrices`` (``unit_amount``, ``lookup_key``), ``PostCoupons``
(``duration_in_months``).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from counterfoil.rails.base import RailRefused
from counterfoil.rails.mirror import Discount, Price, Rhythm
from counterfoil.rails.stripe.wire import VARIANT, Object, metadata

_MONTHS: Final = {"month": 1, "year": 12}


def of_price(price: Price, unit_amount: int) -> Price | None:
    """The variant that costs this; None where the copy does."""
    if unit_amount == price.unit_amount:
        return None
    return msgspec.structs.replace(
        price,
        id=f"{price.id}-{unit_amount}",
        variant_of=price.id,
        unit_amount=unit_amount,
        country_overrides=(),
        active=True,  # whoever holds a price that is not sold any more keeps it
    )


def of_discount(discount: Discount, rhythm: Rhythm) -> Discount | None:
    """The variant that lasts for the discount's periods; None where the copy does.

    A coupon's months begin when it is given, and so in a trial: whole months of trial are added. Raises RailRefused
    for some periods of what is not paid by the month or year.
    """
    periods = discount.max_periods
    if not discount.recurring or periods is None or periods == 1:
        return None
    if rhythm.interval not in _MONTHS:
        every = rhythm.interval if rhythm.interval_count == 1 else f"{rhythm.interval_count} {rhythm.interval}s"
        raise RailRefused(
            f"Stripe counts in months how long a discount lasts, so what is paid every {every} cannot have one for "
            f"{periods} periods there, but only for the first or for all"
        )
    months = periods * rhythm.interval_count * _MONTHS[rhythm.interval]
    months += _whole_months(rhythm.begins, rhythm.begins + timedelta(days=rhythm.trial_days))
    if months == periods:
        return None
    return msgspec.structs.replace(
        discount, id=f"{discount.id}-{months}m", variant_of=discount.id, max_periods=months, code=None, active=True
    )


def is_variant(data: Object) -> bool:
    """Whether one of Stripe's objects is a variant of a copy of ours."""
    return VARIANT in metadata(data)


def _whole_months(start: datetime, end: datetime) -> int:
    months = (end.year - start.year) * 12 + end.month - start.month
    return months - (end.day < start.day)
