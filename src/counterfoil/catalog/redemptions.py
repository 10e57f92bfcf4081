"""Uses of discounts: reserved before any rail is asked, redeemed by the order, released on every other way out.

Each limit is a condition of the one UPDATE that counts, so no number of buyers at once can pass it. A margin
has no limit, so its uses are not counted and do not wait for one another.

A discount with a limit per customer counts each buyer in a row of its own; the redemption remembers who was
counted, so that the same one is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import discount_buyers, discount_redemptions, discounts
from counterfoil.catalog.types import Discount, DiscountRedemption
from counterfoil.db.functions import insert_or_update
from counterfoil.db.schema import columns, mine, tenant
from counterfoil.db.tx import Tx

_USE = (
    sa.update(discounts)
    .where(
        mine(discounts),
        discounts.c.id == sa.bindparam("discount_id"),
        sa.or_(discounts.c.usage_limit.is_(None), discounts.c.times_used < discounts.c.usage_limit),
    )
    .values(times_used=discounts.c.times_used + 1, updated_at=sa.bindparam("now"))
)
_GIVE_BACK = (
    sa.update(discounts)
    .where(mine(discounts), discounts.c.id == sa.bindparam("discount_id"))
    .values(times_used=discounts.c.times_used - 1, updated_at=sa.bindparam("now"))
)
_GIVE_BUYER_BACK = (
    sa.update(discount_buyers)
    .where(
        mine(discount_buyers),
        discount_buyers.c.discount_id == sa.bindparam("of_discount"),
        discount_buyers.c.buyer == sa.bindparam("of_buyer"),
    )
    .values(times_used=discount_buyers.c.times_used - 1, updated_at=sa.bindparam("now"))
)
_REDEMPTIONS = (
    sa.select(*columns(discount_redemptions))
    .where(mine(discount_redemptions), discount_redemptions.c.checkout_id == sa.bindparam("checkout_id"))
    .order_by(discount_redemptions.c.discount_id)
)
_HELD = (
    sa.select(
        *columns(discount_redemptions),
        discounts.c.customer_id.label("margin_of"),
        discounts.c.per_customer_limit.label("per_customer_limit"),
    )
    .join(
        discounts,
        sa.and_(
            discounts.c.tenant_id == discount_redemptions.c.tenant_id,
            discounts.c.id == discount_redemptions.c.discount_id,
        ),
    )
    .where(mine(discount_redemptions), discount_redemptions.c.checkout_id == sa.bindparam("checkout_id"))
    .order_by(discount_redemptions.c.discount_id)
)
_MOVE_REDEMPTION = (
    sa.update(discount_redemptions)
    .where(
        mine(discount_redemptions),
        discount_redemptions.c.id == sa.bindparam("redemption_id"),
        discount_redemptions.c.status == sa.bindparam("from_status"),
    )
    .values(status=sa.bindparam("to_status"), updated_at=sa.bindparam("now"))
)
_other = discount_redemptions.alias("other")
_ANY_RELEASED = (
    sa.select(_other.c.id)
    .where(
        _other.c.tenant_id == discount_redemptions.c.tenant_id,
        _other.c.checkout_id == sa.bindparam("of_checkout"),
        _other.c.status == "released",
    )
    .exists()
)
_REDEEM_ALL = (
    sa.update(discount_redemptions)
    .where(
        mine(discount_redemptions),
        discount_redemptions.c.checkout_id == sa.bindparam("of_checkout"),
        discount_redemptions.c.status == "reserved",
        ~_ANY_RELEASED,
    )
    .values(status="redeemed", updated_at=sa.bindparam("now"))
)

_COUNT_BUYER = (
    insert_or_update(discount_buyers)
    .values(
        tenant_id=tenant(),
        discount_id=sa.bindparam("of_discount"),
        buyer=sa.bindparam("of_buyer"),
        times_used=1,
        created_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
    .on_conflict_do_update(
        index_elements=["tenant_id", "discount_id", "buyer"],
        set_={"times_used": discount_buyers.c.times_used + 1, "updated_at": sa.bindparam("now")},
        where=discount_buyers.c.times_used < sa.bindparam("most", type_=sa.BigInteger),
    )
)

_ANY_NUMBER = 2**62
_WIDTH = len(columns(discount_redemptions))


class Used(msgspec.Struct, frozen=True):
    """A use that a checkout holds or held."""

    redemption: DiscountRedemption
    counted: bool
    """A margin's uses are not."""
    per_customer_limit: int | None


def buyer_of(customer_id: str | None, email: str | None) -> str | None:
    """Who a limit per customer counts: the customer, else whoever reads this address (in lower case)."""
    return customer_id or (f"email:{email}" if email else None)


def count(tx: Tx, discount: Discount, buyer: str | None) -> bool:
    """Count one use, by this buyer where the discount has a limit per customer. False, and no change, if none is left.

    Such a discount needs to know its buyer.
    """
    if discount.customer_id is not None:
        return True
    counted = buyer if discount.per_customer_limit is not None else None
    return _count(tx, discount.id, counted, discount.per_customer_limit)


def _count(tx: Tx, discount_id: str, buyer: str | None, per_customer_limit: int | None) -> bool:
    if not tx.execute(_USE, {"discount_id": discount_id, "now": tx.now}):
        return False
    most = _ANY_NUMBER if per_customer_limit is None else per_customer_limit
    counting = {"of_discount": discount_id, "of_buyer": buyer, "most": most, "now": tx.now}
    if buyer is not None and not tx.execute(_COUNT_BUYER, counting):
        tx.execute(_GIVE_BACK, {"discount_id": discount_id, "now": tx.now})
        return False
    return True


def uncount(tx: Tx, discount: Discount, buyer: str | None) -> None:
    """Give back what :func:`count` counted."""
    if discount.customer_id is None:
        _uncount(tx, discount.id, buyer if discount.per_customer_limit is not None else None)


def _uncount(tx: Tx, discount_id: str, buyer: str | None) -> None:
    tx.execute(_GIVE_BACK, {"discount_id": discount_id, "now": tx.now})
    if buyer is not None:
        tx.execute(_GIVE_BUYER_BACK, {"of_discount": discount_id, "of_buyer": buyer, "now": tx.now})


def reserve(
    tx: Tx, checkout_id: str, uses: Sequence[tuple[Discount, int]], *, buyer: str | None, asset: str
) -> list[DiscountRedemption]:
    """Write down for a checkout the uses that :func:`count` counted, and how much each discount took off."""
    made = [
        DiscountRedemption(
            id=tx.new_id("red"),
            discount_id=discount.id,
            checkout_id=checkout_id,
            buyer=None if discount.per_customer_limit is None else buyer,
            status="reserved",
            amount=amount,
            asset=asset,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for discount, amount in uses
    ]
    tx.insert(discount_redemptions, *made)
    return made


def of_checkout(tx: Tx, checkout_id: str) -> list[DiscountRedemption]:
    """The uses a checkout holds or held."""
    return [DiscountRedemption(*row) for row in tx.all(_REDEMPTIONS, {"checkout_id": checkout_id})]


def release(tx: Tx, checkout_id: str) -> None:
    """Give a checkout's reserved uses back; those redeemed or released already stay as they are."""
    for used in _held(tx, checkout_id):
        redemption = used.redemption
        if _move(tx, redemption, "reserved", "released") and used.counted:
            _uncount(tx, redemption.discount_id, redemption.buyer)


def redeem(tx: Tx, checkout_id: str, *, expected: int) -> bool:
    """Make a checkout's uses final, of which there are so many. A use released meanwhile is taken again if one is left.

    False, with nothing changed, when none is left.
    """
    if tx.execute(_REDEEM_ALL, {"of_checkout": checkout_id, "now": tx.now}) == expected:
        return True
    held = _held(tx, checkout_id)
    lapsed = [used for used in held if used.counted and used.redemption.status == "released"]
    for place, used in enumerate(lapsed):
        if not _count(tx, used.redemption.discount_id, used.redemption.buyer, used.per_customer_limit):
            for earlier in lapsed[:place]:
                _uncount(tx, earlier.redemption.discount_id, earlier.redemption.buyer)
            return False
    for used in held:
        if used.redemption.status != "redeemed":
            _move(tx, used.redemption, used.redemption.status, "redeemed")
    return True


def _held(tx: Tx, checkout_id: str) -> list[Used]:
    return [
        Used(DiscountRedemption(*row[:_WIDTH]), row.margin_of is None, row.per_customer_limit)
        for row in tx.all(_HELD, {"checkout_id": checkout_id})
    ]


def _move(
    tx: Tx,
    redemption: DiscountRedemption,
    before: Literal["reserved", "redeemed", "released"],
    after: Literal["redeemed", "released"],
) -> bool:
    moved = tx.execute(
        _MOVE_REDEMPTION,
        {"redemption_id": redemption.id, "from_status": before, "to_status": after, "now": tx.now},
    )
    return moved == 1
