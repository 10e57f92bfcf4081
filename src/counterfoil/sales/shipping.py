"""Where goods go."""

from __future__ import annotations

from typing import Any

import msgspec

from counterfoil.kernel.countries import check_country
from counterfoil.kernel.text import check_line

# At least and at most so many characters.
_LENGTHS = {
    "name": (1, 200),
    "line1": (1, 200),
    "line2": (0, 200),
    "city": (1, 100),
    "region": (0, 100),
    "postal_code": (0, 20),
    "phone": (0, 40),
}


class ShippingAddress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address as it is written on a parcel; ``country`` is an ISO 3166-1 alpha-2 code."""

    name: str
    line1: str
    city: str
    country: str
    line2: str = ""
    region: str = ""
    postal_code: str = ""
    phone: str = ""


def check_shipping(address: ShippingAddress) -> dict[str, Any]:
    """The address as it is kept: each part on one line, without blanks around it. Raises Invalid."""
    kept: dict[str, Any] = {
        name: check_line(f"shipping/{name}", getattr(address, name), least=least, most=most)
        for name, (least, most) in _LENGTHS.items()
    }
    return kept | {"country": check_country("shipping/country", address.country)}
