"""Money is exact, in ISO 4217's minor units, and never a float."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.kernel.money import (
    MAX_AMOUNT,
    Money,
    UnknownAsset,
    assets,
    decimals,
    is_known,
    parse,
    portion,
    show,
    to_decimal,
)

# ISO 4217, list one: the active currencies, by the number of decimal places of their minor unit.
ISO_4217 = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF "
    "CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR "
    "MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD "
    "SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG "
    "YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
CODES = [(code, places) for places, codes in ISO_4217.items() for code in codes.split()]

assets_ = st.sampled_from(["JPY", "USD", "KWD", "CLF", "SAT", "USDC", "SOL"])
amounts = st.integers(-MAX_AMOUNT, MAX_AMOUNT)


@pytest.mark.parametrize(("asset", "places"), CODES)
def test_minor_units_are_those_of_iso_4217(asset: str, places: int) -> None:
    assert decimals(asset) == places
    assert is_known(asset)
    assert asset in assets()


@pytest.mark.parametrize(("asset", "places"), [("SAT", 0), ("USDC", 6), ("USDT", 6), ("PYUSD", 6), ("SOL", 9)])
def test_minor_units_of_tokens(asset: str, places: int) -> None:
    assert decimals(asset) == places
    assert asset in assets()


@pytest.mark.parametrize("asset", ["", "usd", "US", "USDX", "BTC ", "€", "AAA"])
def test_unknown_assets_are_refused(asset: str) -> None:
    assert not is_known(asset)
    with pytest.raises(UnknownAsset):
        decimals(asset)
    with pytest.raises(UnknownAsset):
        parse("1", asset)


def test_assets_are_sorted_and_each_is_known() -> None:
    codes = assets()
    assert codes == sorted(set(codes))
    assert all(decimals(code) in range(10) for code in codes)


@pytest.mark.parametrize(
    ("text", "asset", "amount"),
    [
        ("12.30", "USD", 1230),
        ("12.3", "USD", 1230),
        ("12", "USD", 1200),
        ("0.01", "USD", 1),
        ("007", "USD", 700),
        ("1.500000", "USD", 150),
        ("-0.05", "USD", -5),
        ("-0", "USD", 0),
        ("12", "JPY", 12),
        ("12.000", "JPY", 12),
        ("1.234", "KWD", 1234),
        ("1.234", "IQD", 1234),
        ("1.2345", "CLF", 12345),
        ("500", "UGX", 500),
        ("21000", "SAT", 21000),
        ("0.000001", "USDC", 1),
        ("1.5", "SOL", 1_500_000_000),
        ("90000000000000", "USD", MAX_AMOUNT),
        ("-90000000000000.00", "USD", -MAX_AMOUNT),
    ],
)
def test_parse(text: str, asset: str, amount: int) -> None:
    assert parse(text, asset) == Money(amount, asset)


@pytest.mark.parametrize(
    ("text", "asset"),
    [
        ("", "USD"),
        (".5", "USD"),
        ("5.", "USD"),
        ("+5", "USD"),
        ("--5", "USD"),
        ("- 5", "USD"),
        (" 5", "USD"),
        ("5\n", "USD"),
        ("1,000", "USD"),
        ("1_000", "USD"),
        ("1e3", "USD"),
        ("0x10", "USD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        ("$5", "USD"),
        ("1.2.3", "USD"),
        ("1.234", "USD"),
        ("1.5", "JPY"),
        ("0.1", "UGX"),
        ("0.5", "SAT"),
        ("1.2345", "KWD"),
        ("0.0000001", "USDC"),
        ("٣", "USD"),  # a digit, but not one of ours
        ("90000000000000.01", "USD"),
        ("-90000000000000.01", "USD"),
        ("9" * 19, "JPY"),
    ],
)
def test_parse_refuses(text: str, asset: str) -> None:
    with pytest.raises(ValueError, match=r"decimal|more than we count"):
        parse(text, asset)


@given(amounts, assets_)
def test_parse_reads_what_to_decimal_writes(amount: int, asset: str) -> None:
    money = Money(amount, asset)
    assert parse(f"{to_decimal(money):f}", asset) == money


@given(amounts, assets_)
def test_to_decimal_is_exact(amount: int, asset: str) -> None:
    exact = to_decimal(Money(amount, asset))
    assert Fraction(exact) == Fraction(amount, 10 ** decimals(asset))
    assert exact.as_tuple().exponent == -decimals(asset)


@pytest.mark.parametrize(
    ("amount", "asset", "text"),
    [(1230, "USD", "12.30 USD"), (5, "JPY", "5 JPY"), (-5, "KWD", "-0.005 KWD"), (1, "SAT", "1 SAT")],
)
def test_str(amount: int, asset: str, text: str) -> None:
    assert str(Money(amount, asset)) == text


@pytest.mark.parametrize(
    ("amount", "asset", "locale", "text"),
    [
        (1230, "USD", "en_US", "$12.30"),
        (123456, "USD", "en_US", "$1,234.56"),
        (0, "USD", "en_US", "$0.00"),
        (-5, "USD", "en_US", "-$0.05"),
        (123456, "EUR", "de_DE", "1.234,56\xa0€"),
        (500, "JPY", "en_US", "¥500"),
        (123456, "KWD", "en_US", "KWD123.456"),
        (123456, "IQD", "en_US", "IQD123.456"),  # CLDR's own digits for it are none
        (212, "AFN", "en_US", "AFN2.12"),
        (123456, "CLF", "en_US", "CLF12.3456"),
        (123456, "UGX", "en_US", "UGX123,456"),
        (21000, "SAT", "en_US", "21,000 sats"),
        (1, "SAT", "en_US", "1 sat"),
        (0, "SAT", "en_US", "0 sats"),
        (1_500_000_000, "SOL", "en_US", "1.5 SOL"),
        (100_000_000_000, "SOL", "en_US", "100 SOL"),
        (1, "SOL", "en_US", "0.000000001 SOL"),
        (1_234_560_000, "USDC", "de_DE", "1.234,56 USDC"),
    ],
)
def test_show(amount: int, asset: str, locale: str, text: str) -> None:
    assert show(Money(amount, asset), locale) == text


@given(st.integers(0, MAX_AMOUNT), assets_)
def test_show_loses_nothing(amount: int, asset: str) -> None:
    shown = "".join(char for char in show(Money(amount, asset)) if char.isascii() and (char.isdigit() or char == "."))
    assert Decimal(shown) == to_decimal(Money(amount, asset))


def test_arithmetic() -> None:
    assert Money(150, "USD") + Money(50, "USD") == Money(200, "USD")
    assert Money(150, "USD") - Money(200, "USD") == Money(-50, "USD")
    assert Money(150, "USD") * 3 == Money(450, "USD")


def test_assets_do_not_mix() -> None:
    with pytest.raises(ValueError, match="cannot mix USD and EUR"):
        Money(1, "USD") + Money(1, "EUR")
    with pytest.raises(ValueError, match="cannot mix USD and EUR"):
        Money(1, "USD") - Money(1, "EUR")


@pytest.mark.parametrize(
    ("amount", "basis_points", "expected"),
    [
        (1000, 1000, 100),
        (999, 5000, 500),  # 499.5
        (1, 5000, 1),  # 0.5
        (1, 4999, 0),
        (3, 5000, 2),  # 1.5
        (5, 5000, 3),  # 2.5: half up, not half even
        (1999, 1500, 300),  # 299.85
        (10, 3333, 3),
        (0, 10000, 0),
        (1234, 0, 0),
        (1234, 10000, 1234),
        (MAX_AMOUNT, 10000, MAX_AMOUNT),
        (MAX_AMOUNT - 1, 5000, MAX_AMOUNT // 2),  # ...99.5: a float would not know
    ],
)
def test_portion(amount: int, basis_points: int, expected: int) -> None:
    assert portion(amount, basis_points) == expected


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 10_000))
def test_portion_is_the_nearest_whole_unit_and_ties_go_up(amount: int, basis_points: int) -> None:
    answer = portion(amount, basis_points)
    exact = Fraction(amount * basis_points, 10_000)
    assert Fraction(-1, 2) <= exact - answer < Fraction(1, 2)


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 10_000))
def test_a_portion_and_the_rest_differ_from_the_whole_by_one_at_most(amount: int, basis_points: int) -> None:
    assert portion(amount, basis_points) + portion(amount, 10_000 - basis_points) - amount in (0, 1)


def test_no_float_is_accepted() -> None:
    with pytest.raises(TypeError):
        Money(1.0, "USD")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Money(10, "USD") * 1.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        portion(10.0, 500)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        portion(10, 0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        parse(1.5, "USD")  # type: ignore[arg-type]
    for body in (b'{"amount":1.5,"asset":"USD"}', b'{"amount":1e2,"asset":"USD"}', b'{"amount":"1","asset":"USD"}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=Money)


@pytest.mark.parametrize("amount", [Decimal(1), "1", True, None])
def test_nothing_but_an_integer_is_an_amount(amount: object) -> None:
    with pytest.raises(TypeError):
        Money(amount, "USD")  # type: ignore[arg-type]
