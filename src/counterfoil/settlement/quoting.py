"""Quotes that are saved before anybody pays, and what a code would take off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from counterfoil.catalog import discounts, redemptions
from counterfoil.catalog.discount_rules import normalize_code
from counterfoil.catalog.types import Discount
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import CounterfoilError, FieldError, Invalid
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.text import normalize_email
from counterfoil.sales import quotes
from counterfoil.sales.carts import MOST_AT_ONCE
from counterfoil.sales.quotes import CartWithLines, WantedLine
from counterfoil.settlement.pricing import Shelf, price

_WHY_NOT = {
    "buyer_required",
    "discount_exhausted",
    "discount_expired",
    "discount_inactive",
    "discount_not_applicable",
    "discount_not_found",
    "discount_wrong_rail",
}


class WantedQuote(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to price a cart and save it."""

    lines: list[WantedLine]
    rail: str | None = None
    """What it will be paid on; None = not known yet, so nothing that is for some rails only comes off."""
    rail_assets: frozenset[str] | None = None
    """The assets the rail takes; None = any."""
    code: str | None = None
    email: str | None = None
    country: str | None = None
    customer_id: str | None = None
    metadata: dict[str, Any] = {}
    holds_for: timedelta


def quote(tx: Tx, wanted: WantedQuote) -> CartWithLines:
    """Price a cart and save it. Its price holds until it expires; nothing is reserved.

    Raises Invalid, NotFound; Conflict (``customer_not_active``).
    """
    made = _draw_up(tx, wanted, _shelf(tx, [wanted]))
    quotes.save(tx, [made])
    return made


def quote_each(tx: Tx, wanted: Sequence[WantedQuote]) -> list[CartWithLines | CounterfoilError]:
    """Price and save the carts of several buyers, each for itself: its cart, or what :func:`quote` would raise."""
    shelf = _shelf(tx, wanted)
    answers = [_try(tx, one, shelf) for one in wanted]
    fresh = {line.price_id for one in answers if isinstance(one, CartWithLines) for line in one.lines} & shelf.unfixed
    if fresh:  # only now, because a cart that is refused fixes nothing
        shelf.fix(fresh)
        answers = [_try(tx, one, shelf) for one in wanted]
    quotes.save(tx, [one for one in answers if isinstance(one, CartWithLines)])
    return answers


def _try(tx: Tx, wanted: WantedQuote, shelf: Shelf) -> CartWithLines | CounterfoilError:
    """A cart drawn up, or why not; writes nothing."""
    try:
        return _draw_up(tx, wanted, shelf, fix_terms=False)
    except CounterfoilError as error:
        return error


def _shelf(tx: Tx, wanted: Sequence[WantedQuote]) -> Shelf:
    """Everything that these carts are offered, in one look."""
    shelf = Shelf(tx)
    shelf.offers(line for one in wanted for line in one.lines[: quotes.MAX_LINES])
    return shelf


def _draw_up(tx: Tx, wanted: WantedQuote, shelf: Shelf, *, fix_terms: bool = True) -> CartWithLines:
    check_metadata("metadata", wanted.metadata)
    email = None if wanted.email is None else normalize_email("email", wanted.email)
    priced = price(
        tx,
        wanted.lines,
        customer_id=wanted.customer_id,
        country=wanted.country,
        rail=wanted.rail,
        code=wanted.code,
        email=email,
        fix_terms=fix_terms,
        shelf=shelf,
    )
    if priced.total and wanted.rail_assets is not None and priced.asset not in wanted.rail_assets:
        raise Invalid.field("rail", f"{wanted.rail} does not take {priced.asset}", code="asset_not_supported")
    return quotes.draw_up(
        tx,
        priced.lines,
        customer_id=wanted.customer_id,
        country=wanted.country,
        rail=wanted.rail,
        code=None if wanted.code is None else normalize_code(wanted.code),
        email=email,
        holds_for=wanted.holds_for,
        metadata=wanted.metadata,
    )


def quote_many(tx: Tx, wanted: Sequence[WantedQuote]) -> list[CartWithLines]:
    """Price and save carts, all or none. Raises what :func:`quote` raises, and where: ``carts/3/lines/0/...``."""
    if not 1 <= len(wanted) <= MOST_AT_ONCE:
        raise Invalid.field("carts", f"from 1 to {MOST_AT_ONCE}", code="too_many_carts" if wanted else None)
    shelf = _shelf(tx, wanted)
    made = []
    for place, one in enumerate(wanted):
        try:
            made.append(_draw_up(tx, one, shelf))
        except CounterfoilError as error:
            raise _within(f"carts/{place}", error) from error
    quotes.save(tx, made)
    return made


def _within(where: str, error: CounterfoilError) -> CounterfoilError:
    """The same error about a part of a greater whole."""
    errors = tuple(FieldError(f"/{where}{one.pointer}", one.detail) for one in error.errors)
    joint = "/" if error.errors else ": "
    return type(error)(f"{where}{joint}{error.detail}", code=error.code, errors=errors)


class CodeQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A code, and what it is for: lines, or one of each of these prices, or nothing yet."""

    code: str
    lines: list[WantedLine] = []
    price_ids: list[str] = []
    rail: str | None = None
    country: str | None = None
    customer_id: str | None = None
    email: str | None = None


class CodeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a code can be used, and what it would take off."""

    valid: bool
    code: str
    reason: str | None = None
    """Why not: the code of the error that a checkout would end with."""
    detail: str | None = None
    discount: Discount | None = None
    takes_off: int | None = None
    """Off these lines, beside whatever else applies to them; None without lines."""
    total: int | None = None
    """What is left to pay of these lines."""
    asset: str | None = None
    remaining_uses: int | None = None
    """None = any number."""
    expires_at: datetime | None = None


def judge(tx: Tx, asked: CodeQuestion) -> CodeVerdict:
    """Say what a code would take off, or why it would not; nothing is reserved.

    Raises Invalid, NotFound for lines that cannot be bought; Conflict (``customer_not_active``).
    """
    code = normalize_code(asked.code)
    wanted = [*asked.lines, *[WantedLine(price_id=price_id) for price_id in asked.price_ids]]
    email = None if asked.email is None else normalize_email("email", asked.email)
    try:
        if not wanted:
            buyer = redemptions.buyer_of(asked.customer_id, email)
            found = discounts.candidates(tx, code=code, rail=asked.rail, buyer=buyer).typed
            assert found is not None
            return _valid(found)
        priced = price(
            tx,
            wanted,
            customer_id=asked.customer_id,
            country=asked.country,
            rail=asked.rail,
            code=code,
            email=email,
            fix_terms=False,
        )
    except Invalid as error:
        if error.code not in _WHY_NOT:
            raise
        return CodeVerdict(valid=False, code=code, reason=error.code, detail=error.detail)
    typed = next(one for one in priced.applied if one.code == code)
    return msgspec.structs.replace(_valid(typed), takes_off=priced.taken(typed), total=priced.total, asset=priced.asset)


def _valid(discount: Discount) -> CodeVerdict:
    left = None if discount.usage_limit is None else discount.usage_limit - discount.times_used
    return CodeVerdict(
        valid=True,
        code=discount.code or "",
        discount=discount,
        remaining_uses=left,
        expires_at=discount.expires_at,
    )
