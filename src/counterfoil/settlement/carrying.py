"""The discount that a subscription carries from one bill to the next, and the one that it should.

An MSP's margin is for all that the customers below it pay, whenever they began to. What a sale or a person gave beside
it stays as long as it takes off more; then the margin takes its place. See docs/pricing.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from counterfoil.accounts.tables import customers
from counterfoil.catalog import discounts, pricing
from counterfoil.catalog.pricing import Item
from counterfoil.catalog.tables import prices
from counterfoil.catalog.types import Discount
from counterfoil.db.functions import any_of
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.subscriptions.tables import subscription_items
from counterfoil.subscriptions.types import Subscription

# Of deleted customers, too: what they have goes on.
_PATHS = sa.select(customers.c.id, customers.c.path).where(mine(customers), any_of(customers.c.id, "ids"))
_ITEMS = (
    sa.select(
        subscription_items.c.subscription_id,
        prices.c.product_id,
        prices.c.id,
        prices.c.tier,
        prices.c.asset,
        prices.c.unit_amount,
        subscription_items.c.quantity,
    )
    .join(
        prices,
        sa.and_(prices.c.tenant_id == subscription_items.c.tenant_id, prices.c.id == subscription_items.c.price_id),
    )
    .where(
        mine(subscription_items),
        any_of(subscription_items.c.subscription_id, "ids"),
        subscription_items.c.recurring,
        subscription_items.c.status != "inactive",
    )
    .order_by(subscription_items.c.id)
)


class Carried:
    """What subscriptions are for and whose they are: all that decides which discount each should carry.

    Amounts are of the prices themselves: where a country has its own, a discount of money may be worth a little more
    or less beside a percentage than is said here.
    """

    def __init__(self, tx: Tx, found: Sequence[Subscription]) -> None:
        rows = tx.all(_ITEMS, {"ids": [one.id for one in found]})
        self._items: dict[str, list[Item]] = {one.id: [] for one in found}
        for subscription_id, product_id, price_id, tier, asset, unit_amount, quantity in rows:
            self._items[subscription_id].append(
                Item(
                    product_id=product_id,
                    price_id=price_id,
                    tier=tier,
                    asset=asset,
                    unit_amount=unit_amount,
                    quantity=quantity,
                )
            )
        whose = sorted({one.customer_id for one in found if one.customer_id is not None})
        paths = {row.id: row.path for row in tx.all(_PATHS, {"ids": whose})} if whose else {}
        keys = {one.id: (paths[one.customer_id], one.rail) for one in found if one.customer_id in paths}
        due = discounts.margins(tx, keys.values())
        self._margins = {id_: due[key] for id_, key in keys.items() if key in due}
        ids = sorted({one.discount_id for one in found if one.discount_id is not None})
        self._known = {one.id: one for one in discounts.get_many(tx, ids)} if ids else {}

    def wanted(self, subscription: Subscription) -> str | None:
        """The discount that one of them should carry; None = none."""
        return self.kept(subscription, self._known.get(subscription.discount_id or ""))

    def kept(self, subscription: Subscription, given: Discount | None) -> str | None:
        """What would stay of this discount if it were given to one of them: itself, the margin instead, or nothing."""
        margin = self._margins.get(subscription.id)
        if margin is not None and not (margin.amount and self.covers_any(subscription, margin)):
            margin = None  # the nearest one counts, also where it takes off nothing
        if given is None or given.customer_id is not None:  # a margin is nobody's but those below its customer
            return None if margin is None else margin.id
        if margin is None or self._worth(subscription, given) > self._worth(subscription, margin):
            return given.id
        return margin.id

    def covers_any(self, subscription: Subscription, discount: Discount) -> bool:
        """Whether a discount is for anything that one of them is for."""
        return any(pricing.covers(discount, item) for item in self._items[subscription.id])

    def _worth(self, subscription: Subscription, discount: Discount) -> int:
        """What a discount takes off every bill to come; nothing, where it is for one bill only."""
        if not discount.recurring and discount.customer_id is None:
            return 0
        return pricing.taken(pricing.reduce(self._items[subscription.id], [discount]), discount.id)
