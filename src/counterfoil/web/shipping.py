"""Asking a buyer where to ship goods."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from babel import Locale

from counterfoil.catalog.types import Benefit
from counterfoil.kernel.countries import COUNTRIES
from counterfoil.sales.shipping import ShippingAddress

PARTS = ("name", "line1", "line2", "city", "region", "postal_code", "country", "phone")
"""The parts of an address; the form's fields are named ``ship_`` and one of these."""

FIELDS = {f"shipping/{part}": f"ship_{part}" for part in PARTS} | {"shipping": "ship_name"}
"""The field that each part of the request is typed in."""


@cache
def countries() -> list[tuple[str, str]]:
    """Every country's code and English name, in the order of names."""
    names = Locale("en").territories
    return sorted(((code, names[code]) for code in COUNTRIES), key=lambda country: country[1])


def ships(benefits: Iterable[Benefit], tier: str) -> bool:
    """Whether a tier is shipped."""
    return any(benefit.kind == "goods" and benefit.tier == tier for benefit in benefits)


def address_of(form: dict[str, str]) -> ShippingAddress | None:
    """The address in a form; None when nothing of it is filled in but the country."""
    given = {part: form.get(f"ship_{part}", "") for part in PARTS}
    if not any(value for part, value in given.items() if part != "country"):
        return None
    return ShippingAddress(**given)
