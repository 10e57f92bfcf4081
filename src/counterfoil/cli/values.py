"""Reading what a person types: money in major units, durations, moments. Raises typer.BadParameter."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer

from counterfoil.catalog.types import CountryOverride
from counterfoil.kernel import money
from counterfoil.kernel.money import Money
from counterfoil.sales.quotes import WantedLine

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_NAMES = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}


def parse_amount(typed: str, asset: str, option: str = "--amount") -> Money:
    """Major units of a known asset."""
    try:
        return money.parse(typed, asset)
    except money.UnknownAsset as error:
        raise typer.BadParameter(f"{asset!r} is not a currency or token we know", param_hint="--asset") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def parse_money(amount: str | None, asset: str | None, sats: str | None) -> Money:
    """Either ``--amount`` with ``--asset``, or ``--sats``."""
    if sats is not None:
        if amount is not None or asset is not None:
            raise typer.BadParameter("--sats goes without --amount and --asset")
        return parse_amount(sats, "SAT", "--sats")
    if amount is None or asset is None:
        raise typer.BadParameter("say --amount 19.90 --asset USD, or --sats 21000")
    return parse_amount(amount, asset)


def parse_duration(typed: str, option: str) -> int:
    """Seconds in ``365d``, ``12h``, ``1d12h``; ``0`` is none, or for ever."""
    if typed == "0":
        return 0
    if not re.fullmatch(r"([0-9]{1,10}[wdhms])+", typed):
        raise typer.BadParameter(f"{typed!r} is not a duration: say 365d, 12h or 0", param_hint=option)
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([wdhms])", typed))


def show_duration(seconds: int, zero: str) -> str:
    """The inverse, in words: ``365 days``; ``zero`` for 0."""
    if not seconds:
        return zero
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    count = seconds // _SECONDS[unit]
    return f"{count} {_NAMES[unit]}{'' if count == 1 else 's'}"


def parse_moment(typed: str | None, option: str) -> datetime | None:
    """A date or a time in ISO 8601, in UTC where no zone is said."""
    if typed is None:
        return None
    try:
        moment = datetime.fromisoformat(typed)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{typed!r} is not a time: say 2026-12-31 or 2026-12-31T18:00Z", param_hint=option
        ) from error


def parse_metadata(typed: str | None) -> dict[str, Any]:
    """A JSON object."""
    if typed is None:
        return {}
    try:
        return msgspec.json.decode(typed, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise typer.BadParameter("must be a JSON object", param_hint="--metadata") from error


def parse_line(typed: str) -> WantedLine:
    """What is bought, and how many: ``pri_...:2``."""
    match = re.fullmatch(r"([^:]*)(?::([0-9]{1,9}))?", typed)
    if match is None:
        raise typer.BadParameter(f"{typed!r}: say PRICE or PRICE:2")
    return WantedLine(price_id=match[1], quantity=int(match[2] or 1))


def parse_overrides(typed: list[str], asset: str) -> list[CountryOverride]:
    """``DE,AT=17.90``, each in the price's own asset."""
    overrides = []
    for one in typed:
        countries, equals, amount = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"{one!r}: say DE,AT=17.90", param_hint="--country")
        overrides.append(CountryOverride(countries.split(","), parse_amount(amount, asset, "--country").amount))
    return overrides
