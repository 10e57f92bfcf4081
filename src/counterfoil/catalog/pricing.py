"""What discounts take off a cart: pure arithmetic on whole minor units and exact fractions.

A cart is reduced in two stages: ``catalog`` changes what a unit costs and is rounded once per unit; ``checkout``
then changes what a line costs and is rounded once per line. Rounding is half up, of what is taken off. Within
a stage, whatever the order in which the discounts came:

1. ``set_price``: a unit costs no more than that;
2. every ``percentage``, each off what the one before left;
3. the fixed amounts together, once: ``flat_per_seat`` times the quantity, ``flat`` once for the whole cart,
   spread over the lines it covers in proportion to what is left of them (largest remainder, so the sum is exact);
4. ``free`` takes what is left.

Nothing ever costs less than 0, and one discount counts once, however it got in. So $10 with 10 %, 20 %, $1 and
$0.50 costs $5.70. docs/pricing.md says the same to people who sell.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import msgspec

from counterfoil.catalog.types import Discount, DiscountKind, DiscountStage

_BY_THEMSELVES: tuple[DiscountKind, ...] = ("set_price", "percentage", "flat_per_seat")
"""The kinds that need to know no other line, in the order in which they apply."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a cart before discounts."""

    product_id: str
    price_id: str
    tier: str
    asset: str
    unit_amount: int
    quantity: int


class Cut(msgspec.Struct, frozen=True):
    """What one discount takes off one line, in minor units."""

    discount_id: str
    code: str | None
    amount: int


def covers(discount: Discount, item: Item) -> bool:
    """Whether the discount applies to a line: its product, price, tier, and its asset where money is named."""
    return (
        (not discount.product_ids or item.product_id in discount.product_ids)
        and (not discount.price_ids or item.price_id in discount.price_ids)
        and (not discount.tiers or item.tier in discount.tiers)
        and (discount.asset is None or discount.asset == item.asset)
    )


def reduce(items: Sequence[Item], discounts: Sequence[Discount]) -> list[list[Cut]]:
    """For each line, what each discount that covers it takes off; 0 where others left it nothing to take.

    Percentages apply in the order of ``discounts``; what each took is what it added to the rounded whole, so the
    cuts of a line add up exactly.
    """
    known = {discount.id: discount for discount in discounts}
    cuts: list[dict[str, int]] = [
        {discount.id: 0 for discount in known.values() if covers(discount, item)} for item in items
    ]
    lines = [_Line(item.unit_amount, 1, own) for item, own in zip(items, cuts, strict=True)]
    _take(lines, items, _of_stage(known, "catalog"))
    for line, item in zip(lines, items, strict=True):
        for discount_id in line.cuts:
            line.cuts[discount_id] *= item.quantity
        line.whole *= item.quantity
        line.quantity = item.quantity
    _take(lines, items, _of_stage(known, "checkout"))
    return [[Cut(id_, known[id_].code, amount) for id_, amount in own.items()] for own in cuts]


def taken(cuts: Sequence[Sequence[Cut]], discount_id: str) -> int:
    """What one discount took off all lines together."""
    return sum(cut.amount for line in cuts for cut in line if cut.discount_id == discount_id)


def _of_stage(known: dict[str, Discount], stage: DiscountStage) -> list[Discount]:
    return [discount for discount in known.values() if discount.stage == stage]


class _Line:
    """A line on its way down: one unit of it in the first stage, all of it in the second."""

    def __init__(self, whole: int, quantity: int, cuts: dict[str, int]) -> None:
        self.whole = whole
        """What is left, in whole minor units."""
        self.quantity = quantity
        self.cuts = cuts
        """What each discount that covers the line took; in the order in which they were given."""
        self._exact = Fraction(whole)
        self._start = whole

    def begin(self) -> None:
        """Start a stage at what is left in whole units."""
        self._start = self.whole
        self._exact = Fraction(self.whole)

    def lower(self, discount: Discount, to: Fraction) -> None:
        """Let no more than ``to`` be left; what that adds to the rounded sum of what was taken is the discount's."""
        self._exact = max(Fraction(0), min(self._exact, to))
        left = self._start - _half_up(self._start - self._exact)
        self.cuts[discount.id] += self.whole - left
        self.whole = left

    @property
    def exact(self) -> Fraction:
        """What is left, not rounded."""
        return self._exact


def _half_up(value: Fraction) -> int:
    """To the nearest whole number, up on a tie, for values at or above 0."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _take(lines: list[_Line], items: Sequence[Item], discounts: list[Discount]) -> None:
    """One stage."""
    if not discounts:
        return
    for line in lines:
        line.begin()
    for kind in _BY_THEMSELVES:
        _take_each(kind, lines, discounts)
    for line in lines:
        line.begin()  # from here on everything is whole, so nothing is rounded again
    for discount in discounts:
        if discount.kind == "flat":
            _spread(discount, lines, items)
    _take_each("free", lines, discounts)


def _take_each(kind: DiscountKind, lines: list[_Line], discounts: list[Discount]) -> None:
    """What the discounts of one kind take off each line, whatever the others."""
    for discount in discounts:
        for line in lines:
            if discount.kind == kind and discount.id in line.cuts:
                line.lower(discount, _after(discount, line))


def _after(discount: Discount, line: _Line) -> Fraction:
    """What a discount that needs no other line leaves of one."""
    if discount.kind == "percentage":
        return line.exact * (10_000 - discount.amount) / 10_000
    if discount.kind == "free":
        return Fraction(0)
    worth = discount.amount * line.quantity
    return Fraction(worth) if discount.kind == "set_price" else line.exact - worth


def _spread(discount: Discount, lines: list[_Line], items: Sequence[Item]) -> None:
    """Take a flat amount off the lines together, each its share by what is left of it, to the last unit."""
    covered = [place for place, line in enumerate(lines) if discount.id in line.cuts and line.whole]
    left = sum(lines[place].whole for place in covered)
    amount = min(discount.amount, left)
    if not amount:
        return
    shares = {place: divmod(amount * lines[place].whole, left) for place in covered}
    spare = amount - sum(share for share, _ in shares.values())

    def turn(place: int) -> tuple[int, str, int, int]:
        # Among equal remainders by what is bought, never by where it stands: the total must not depend on that.
        item = items[place]
        return (-shares[place][1], item.price_id, item.quantity, item.unit_amount)

    for rank, place in enumerate(sorted(covered, key=turn)):
        share = shares[place][0] + (rank < spare)
        lines[place].lower(discount, lines[place].whole - Fraction(share))
