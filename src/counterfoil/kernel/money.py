"""Money: whole minor units and the code of an asset. Never a float.

Currencies follow ISO 4217. Bitcoin is counted in satoshis (``SAT``); tokens in their atomic units.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

import msgspec
from babel.numbers import (
    UnknownCurrencyError,
    format_currency,
    format_decimal,
    get_currency_precision,
    list_currencies,
    validate_currency,
)

MAX_AMOUNT = 9_000_000_000_000_000
"""Far above any sale, and exact in a JSON number, a BIGINT and an IEEE double alike (below 2**53)."""

_TOKENS = {"SAT": 0, "SOL": 9, "USDC": 6, "USDT": 6, "PYUSD": 6}

# Babel's data is CLDR's, which gives the digits people write today; for these currencies ISO 4217
# defines more minor units than are in use, and ISO's are what payment rails count in.
_ISO_DIGITS = {
    "AFN": 2, "ALL": 2, "IQD": 3, "IRR": 2, "KPW": 2, "LAK": 2, "LBP": 2, "MGA": 2,
    "MMK": 2, "RSD": 2, "SLL": 2, "SOS": 2, "SYP": 2, "YER": 2,
}  # fmt: skip

_PLAIN_DECIMAL = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,18}))?")


class UnknownAsset(ValueError):
    """No currency or token has this code."""


@cache
def decimals(asset: str) -> int:
    """How many digits of the major unit make its minor unit: USD 2, JPY 0, SAT 0, USDC 6.

    Raises UnknownAsset.
    """
    if asset in _TOKENS:
        return _TOKENS[asset]
    try:
        validate_currency(asset)
    except UnknownCurrencyError as error:
        raise UnknownAsset(asset) from error
    return _ISO_DIGITS.get(asset, get_currency_precision(asset))


def is_known(asset: str) -> bool:
    """Whether there is such a currency or token."""
    try:
        decimals(asset)
    except UnknownAsset:
        return False
    return True


def assets() -> list[str]:
    """Every code we know, sorted."""
    return sorted({*_TOKENS, *list_currencies()})


class Money(msgspec.Struct, frozen=True, order=False):
    """An amount of one asset in its minor units (cents, satoshis, atomic units)."""

    amount: int
    asset: str

    def __post_init__(self) -> None:
        if type(self.amount) is not int:
            raise TypeError(f"money is counted in whole minor units, not {self.amount!r}")

    def __add__(self, other: Money) -> Money:
        return Money(self.amount + self._like(other), self.asset)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._like(other), self.asset)

    def __mul__(self, quantity: int) -> Money:
        return Money(self.amount * quantity, self.asset)

    def _like(self, other: Money) -> int:
        if other.asset != self.asset:
            raise ValueError(f"cannot mix {self.asset} and {other.asset}")
        return other.amount

    def __str__(self) -> str:
        return f"{to_decimal(self)} {self.asset}"


def to_decimal(money: Money) -> Decimal:
    """The amount in major units, exactly, with all its minor digits: 1230 USD cents -> 12.30."""
    return Decimal(money.amount).scaleb(-decimals(money.asset))


def parse(text: str, asset: str) -> Money:
    """Read major units written as a plain decimal (``12.30``).

    Raises ValueError for anything else: exponents, separators, or more digits than the asset has
    (trailing zeros are fine). Raises UnknownAsset.
    """
    places = decimals(asset)
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a plain decimal number")
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > places:
        raise ValueError(f"{asset} has {places} decimal places, {text!r} has more")
    amount = int(whole) * 10**places + int(fraction.ljust(places, "0") or 0)
    if amount > MAX_AMOUNT:
        raise ValueError(f"{text!r} is more than we count")
    return Money(-amount if sign else amount, asset)


def show(money: Money, locale: str = "en_US") -> str:
    """For a person to read: ``$12.30``, ``21,000 sats``, ``1.5 SOL``."""
    if money.asset == "SAT":
        return f"{format_decimal(money.amount, locale=locale)} {'sat' if money.amount == 1 else 'sats'}"
    if money.asset in _TOKENS:
        exact = format_decimal(to_decimal(money).normalize(), locale=locale, decimal_quantization=False)
        return f"{exact} {money.asset}"
    digits = decimals(money.asset)
    pattern_digits = get_currency_precision(money.asset) == digits
    return format_currency(
        to_decimal(money), money.asset, locale=locale, currency_digits=pattern_digits, decimal_quantization=False
    )


def portion(amount: int, basis_points: int) -> int:
    """``basis_points`` / 10,000 of an amount of minor units, half up: the one rounding rule.

    Half up means away from zero on a tie, for the amounts at or above zero that this is used on.
    Raises TypeError for anything but integers.
    """
    if type(amount) is not int or type(basis_points) is not int:
        raise TypeError(f"a portion is of whole minor units, not {amount!r} or {basis_points!r}")
    exact = Decimal(amount) * basis_points / 10_000
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
