"""Our money in Stripe's minor units, and back.

Stripe counts most currencies in the minor units of ISO 4217, as we do. The exceptions are its own: some it counts in
whole units (MGA), some in hundredths that nobody has (ISK, UGX), and of those with three decimals it takes whole
multiples of ten only. HUF and TWD are whole in payouts only, and ordinary here. Source: Stripe's page "Supported
currencies", sections "Zero-decimal currencies", "Special cases" and "Three-decimal currencies".
"""

from __future__ import annotations

from typing import Final

from counterfoil.kernel.money import MAX_AMOUNT, Money
from counterfoil.rails.base import RailRefused, RailUnavailable

ASSETS: Final = frozenset(
    (  # noqa: SIM905 # a list would be 130 lines
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF "
        "CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR "
        "ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR "
        "MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR "
        "SEK SGD SHP SLE SOS SRD SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XOF XPF "
        "YER ZAR ZMW"
    ).split()
)
"""The currencies that Stripe charges in. Which of them an account may use, Stripe decides when asked."""

_FINER: Final = {"ISK": 100, "UGX": 100}
"""What Stripe counts in more decimals than there are: how many of its units are one of ours."""

_COARSER: Final = {"MGA": 100}
"""What Stripe counts in whole units: how many of our units are one of its."""

_THOUSANDTHS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def to_stripe(money: Money) -> int:
    """The amount as Stripe counts it. Raises RailRefused for what Stripe does not take, or not to that digit."""
    if money.asset not in ASSETS:
        raise RailRefused(f"Stripe takes currencies only, and not {money.asset}")
    amount, rest = divmod(money.amount * _FINER.get(money.asset, 1), _COARSER.get(money.asset, 1))
    if rest:
        raise RailRefused(f"Stripe takes whole {money.asset} only, and not {money}")
    if money.asset in _THOUSANDTHS and amount % 10:
        raise RailRefused(f"Stripe takes {money.asset} to the hundredth only, and not {money}")
    return amount


def from_stripe(amount: int, currency: str) -> Money:
    """What Stripe's amount is in our minor units. Raises RailUnavailable for a currency we do not know."""
    asset = currency.upper()
    if asset not in ASSETS:
        raise RailUnavailable(f"Stripe counts in a currency that we do not know: {currency!r}")
    ours, rest = divmod(amount * _COARSER.get(asset, 1), _FINER.get(asset, 1))
    if rest or abs(ours) > MAX_AMOUNT:
        raise RailUnavailable(f"Stripe gives an amount that makes no sense: {amount} {asset}")
    return Money(ours, asset)
