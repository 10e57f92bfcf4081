"""What a cart costs: where the catalog's prices, what discounts take off, and who buys meet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from counterfoil.accounts import customers
from counterfoil.catalog import discounts, prices, pricing, redemptions
from counterfoil.catalog.discounts import Candidates
from counterfoil.catalog.pricing import Item
from counterfoil.catalog.types import Discount, Price
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid
from counterfoil.sales import quotes
from counterfoil.sales.quotes import Offer, PricedLine, WantedLine
from counterfoil.sales.types import CartLine


class Priced(msgspec.Struct, frozen=True):
    """The lines of a cart with what is taken off each, and the discounts that did it."""

    lines: list[PricedLine]
    applied: list[Discount]
    """The customer's margin first, then what applies by itself, oldest first, then what was typed."""

    @property
    def total(self) -> int:
        """What is left to pay, in minor units."""
        return sum(line.subtotal - line.discount_total for line in self.lines)

    @property
    def asset(self) -> str:
        """What every line is in."""
        return self.lines[0].price.asset

    def taken(self, discount: Discount) -> int:
        """What a discount takes off the lines together."""
        return taken_off(self.lines, discount.id)


def taken_off(lines: Sequence[PricedLine | CartLine], discount_id: str) -> int:
    """What a discount takes off these lines together."""
    return sum(note["amount"] for line in lines for note in line.discounts if note["discount_id"] == discount_id)


class Shelf:
    """What carts that are priced in one transaction look up, each thing once."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._offers: dict[str, Offer] = {}
        self._looked_for: set[str] = set()
        self._candidates: dict[tuple[str | None, ...], Candidates] = {}

    def offers(self, lines: Iterable[WantedLine]) -> Mapping[str, Offer]:
        """At least what these lines are offered at, by the price's id."""
        missing = {line.price_id for line in lines} - self._looked_for
        if missing:
            self._offers |= quotes.offers_of(self._tx, missing)
            self._looked_for |= missing
        return self._offers

    @property
    def unfixed(self) -> set[str]:
        """The prices found whose terms may still change."""
        return {id_ for id_, offer in self._offers.items() if offer.price.locked_at is None}

    def fix(self, price_ids: Collection[str]) -> None:
        """Fix the terms of prices that are quoted for the first time.

        They may have changed between our look and the lock: what is fixed now is what is quoted.
        """
        prices.lock_terms(self._tx, list(price_ids))
        self._looked_for -= set(price_ids)

    def candidates(self, code: str | None, path: str | None, rail: str | None, buyer: str | None) -> Candidates:
        """What :func:`counterfoil.catalog.discounts.candidates` finds."""
        key = (code, path, rail, buyer)
        found = self._candidates.get(key)
        if found is None:
            found = discounts.candidates(self._tx, code=code, customer_path=path, rail=rail, buyer=buyer)
            self._candidates[key] = found
        return found


def price(
    tx: Tx,
    wanted: list[WantedLine],
    *,
    customer_id: str | None = None,
    country: str | None = None,
    rail: str | None = None,
    code: str | None = None,
    email: str | None = None,
    fix_terms: bool = True,
    shelf: Shelf | None = None,
) -> Priced:
    """Price lines as of now, with every discount that applies; no use is reserved.

    ``rail`` None: without discounts that are for some rails only. ``email`` as it is stored; with ``customer_id``
    it says whom limits per customer count. ``fix_terms`` False: only look, as if nobody had been quoted. ``shelf``:
    of the carts that are priced together.
    Raises Invalid, NotFound; Conflict (``customer_not_active``).
    """
    return ask(
        tx,
        wanted,
        customer_id=customer_id,
        country=country,
        rail=rail,
        code=code,
        email=email,
        fix_terms=fix_terms,
        shelf=shelf,
    ).price()


def ask(
    tx: Tx,
    wanted: list[WantedLine],
    *,
    customer_id: str | None,
    country: str | None,
    rail: str | None,
    code: str | None,
    email: str | None,
    fix_terms: bool = True,
    shelf: Shelf | None = None,
) -> Pricing:
    """All that is needed to price lines; arguments and errors as of :func:`price`."""
    shelf = shelf or Shelf(tx)
    path = None
    if customer_id is not None:
        customer = customers.get(tx, customer_id)
        if customer.status != "active":
            raise Conflict("This customer is archived.", code="customer_not_active")
        path = customer.path
    buyer = redemptions.buyer_of(customer_id, email)
    lines = full_price(shelf, wanted, country, fix_terms=fix_terms)
    found = shelf.candidates(code, path, rail, buyer)
    asked = Pricing(lines, found, buyer)
    if found.typed is not None and not asked.covers_any(found.typed):
        raise Invalid.field("code", "this code is not for anything in the cart", code="discount_not_applicable")
    return asked


class Pricing:
    """One cart being priced: what it gets can be found again without some automatic discounts."""

    def __init__(self, lines: list[PricedLine], found: Candidates, buyer: str | None) -> None:
        self.lines = lines
        """The lines before discounts."""
        self.buyer = buyer
        """Whom limits per customer count."""
        self._candidates = found
        self._items = [
            Item(
                product_id=line.price.product_id,
                price_id=line.price.id,
                tier=line.price.tier,
                asset=line.price.asset,
                unit_amount=line.unit_amount,
                quantity=line.quantity,
            )
            for line in lines
        ]
        # What is tried first costs nothing now: what a discount is worth shows in what follows.
        self._after_trials = [
            item if line.recurring is None else msgspec.structs.replace(item, unit_amount=line.recurring["unit_amount"])
            for item, line in zip(self._items, lines, strict=True)
        ]
        self._renews = any(line.recurring is not None for line in lines)

    @property
    def typed(self) -> Discount | None:
        """The discount whose code was typed."""
        return self._candidates.typed

    def price(self, without: Collection[str] = ()) -> Priced:
        """The lines with what applies, but for automatic discounts with these ids."""
        applied = self._choose(self._candidates, without)
        while True:
            cuts = pricing.reduce(self._items, applied)
            # What applies by itself and takes nothing, now or later, would use itself up for nothing.
            idle = [
                one
                for one in applied
                if self._is_automatic(one) and not pricing.taken(cuts, one.id) and not self._takes_later(one)
            ]
            if not idle:
                break
            applied = [one for one in applied if one not in idle]
        lines = [
            msgspec.structs.replace(
                line,
                discount_total=sum(cut.amount for cut in own),
                discounts=[msgspec.structs.asdict(cut) for cut in own],
            )
            for line, own in zip(self.lines, cuts, strict=True)
        ]
        return Priced(lines, applied)

    def _choose(self, found: Candidates, without: Collection[str]) -> list[Discount]:
        alone: list[Discount] = [] if found.margin is None else [found.margin]
        alone += [one for one in found.automatic if one.id not in without]
        alone = [one for one in alone if self.covers_any(one)]
        if found.typed is not None:
            alone.append(found.typed)
        best: dict[str, Discount] = {}
        for one in alone:
            if one.group_id is not None and self._beats(one, best.get(one.group_id)):
                best[one.group_id] = one
        left = [one for one in alone if one.group_id is None or best[one.group_id] is one]
        return self._without_company(left) if self._renews else left

    def _without_company(self, left: list[Discount]) -> list[Discount]:
        """A rail takes one discount off a subscription: what applies by itself gives way, or the best of it stays."""
        meant = [one for one in left if not self._is_automatic(one)]
        return meant or sorted(left, key=lambda one: (-self._worth(one), one.id))[:1]

    def _beats(self, one: Discount, other: Discount | None) -> bool:
        """Of one group: what was typed, else what takes off most by itself, else the older one."""
        if other is None or one is self.typed:
            return True
        return other is not self.typed and (-self._worth(one), one.id) < (-self._worth(other), other.id)

    def _worth(self, discount: Discount) -> int:
        lasts = discount.recurring or discount.customer_id is not None
        items = self._after_trials if lasts else self._items
        return pricing.taken(pricing.reduce(items, [discount]), discount.id)

    def _takes_later(self, discount: Discount) -> bool:
        """Whether a discount that stays with a subscription takes something off once the trial is over."""
        return discount.recurring and self._after_trials != self._items and self._worth(discount) > 0

    def _is_automatic(self, discount: Discount) -> bool:
        return discount is not self.typed and discount.customer_id is None

    def covers_any(self, discount: Discount) -> bool:
        """Whether a discount is for any of the lines."""
        return any(pricing.covers(discount, item) for item in self._items)


def reduced(tx: Tx, offered: Sequence[Price], *, rail: str | None) -> dict[str, int]:
    """What one unit of each price costs anybody now with what applies by itself; only those that it makes cheaper."""
    found = discounts.candidates(tx, rail=rail, buyer=None).automatic
    costs: dict[str, int] = {}
    for one in offered if found else ():
        line = PricedLine(price=one, name="", quantity=1, unit_amount=one.unit_amount, benefits=[])
        left = Pricing([line], Candidates(None, found, None), None).price().total
        if left < one.unit_amount:
            costs[one.id] = left
    return costs


def full_price(
    shelf: Shelf, wanted: list[WantedLine], country: str | None, *, fix_terms: bool = True
) -> list[PricedLine]:
    """Lines before discounts. The terms of prices that are quoted for the first time are fixed. As :func:`price`."""
    quotes.check_lines(wanted, country)
    lines = quotes.price_lines(wanted, shelf.offers(wanted), country=country)
    fresh = {line.price.id for line in lines if line.price.locked_at is None}
    if not fresh or not fix_terms:
        return lines
    shelf.fix(fresh)
    return quotes.price_lines(wanted, shelf.offers(wanted), country=country)


def reserve(tx: Tx, asked: Pricing) -> Priced:
    """Price a cart and count a use of every discount it gets, for the checkout that follows.

    What applies by itself and ran out meanwhile is left out, and the cart priced again. Raises Invalid
    (``discount_exhausted``) when what was typed ran out.
    """
    gone: set[str] = set()
    while True:
        priced = asked.price(gone)
        missing = count(tx, priced.applied, asked.buyer)
        if missing is None:
            return priced
        if missing is asked.typed:
            raise discounts.used_up("code")
        gone.add(missing.id)  # each turn has one automatic discount less, so this ends


def count(tx: Tx, applied: list[Discount], buyer: str | None) -> Discount | None:
    """Count one use of each; the one of which none was left, with nothing counted, else None."""
    counted: list[Discount] = []
    for discount in sorted(applied, key=lambda one: one.id):
        if not redemptions.count(tx, discount, buyer):
            for earlier in counted:
                redemptions.uncount(tx, earlier, buyer)
            return discount
        counted.append(discount)
    return None
