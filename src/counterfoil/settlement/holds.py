"""What a checkout holds for its buyer until it is paid or over: stock, and a use of each discount.

Stock always comes first, here as when a checkout is opened, so that nobody waits for each other in a circle.
"""

from __future__ import annotations

import sqlalchemy as sa

from counterfoil.catalog import redemptions, stock_reservations
from counterfoil.catalog import tables as catalog
from counterfoil.catalog.stock_reservations import OutOfStock
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.sales.checkouts import CheckoutWithLines
from counterfoil.sales.tables import checkouts

OVER = ("expired", "canceled", "failed")
"""How a checkout ends that holds nothing any more."""

_STOCK = sa.select(catalog.stock_reservations.c.checkout_id).where(
    mine(catalog.stock_reservations),
    catalog.stock_reservations.c.status == "active",
    catalog.stock_reservations.c.expires_at <= sa.bindparam("now"),
)
_USES = sa.select(catalog.discount_redemptions.c.checkout_id).where(
    mine(catalog.discount_redemptions), catalog.discount_redemptions.c.status == "reserved"
)
_LEFT_BEHIND = (
    sa.select(checkouts.c.id)
    .where(mine(checkouts), checkouts.c.id.in_(sa.union(_STOCK, _USES)), checkouts.c.status.in_(OVER))
    .order_by(checkouts.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)


def release(tx: Tx, *checkout_ids: str) -> None:
    """Give back all that checkouts still hold. Every way out of a checkout but settling it ends here."""
    stock_reservations.release(tx, checkout_ids)
    for checkout_id in checkout_ids:
        redemptions.release(tx, checkout_id)


def keep(tx: Tx, found: CheckoutWithLines, *, insist: bool) -> bool:
    """Make final what a locked checkout holds, and take again what it had to give back meanwhile.

    False, with nothing changed, when some of that is gone. Where a person may ``insist``, a discount's last use
    that is gone does not matter; stock that is gone raises OutOfStock. No statement where nothing is held.
    """
    checkout_id = found.checkout.id
    taken = stock_reservations.take(tx, checkout_id) if found.holds_stock else []
    gave_back = found.holds_stock and not taken
    if gave_back:
        try:
            stock_reservations.check_held(tx, checkout_id)
        except OutOfStock:
            if insist:
                raise
            return False
    uses = {note["discount_id"] for line in found.lines for note in line.discounts}
    if uses and not redemptions.redeem(tx, checkout_id, expected=len(uses)) and not insist:
        if taken:
            stock_reservations.undo(tx, checkout_id)
        return False
    if gave_back:
        stock_reservations.convert(tx, checkout_id)
    stock_reservations.ship(tx, taken)
    return True


def reap(tx: Tx, *, limit: int = 200) -> int:
    """Give back what checkouts hold that are over and should hold nothing; how many there were."""
    left_behind = [row[0] for row in tx.all(_LEFT_BEHIND, {"now": tx.now, "limit": limit})]
    if left_behind:
        release(tx, *left_behind)
    return len(left_behind)
