"""A subscription with what hangs on it: read across the domains, and never written."""

from __future__ import annotations

from typing import Final

import msgspec

from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox
from counterfoil.exchange.types import Owed
from counterfoil.kernel.errors import NotFound
from counterfoil.settlement import entitling, links
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.types import Subscription, SubscriptionItem, SubscriptionPeriod

_MOST_PERIODS: Final = 100


class Details(msgspec.Struct, frozen=True):
    """A subscription, and what hangs on it."""

    subscription: Subscription
    reference: str | None
    """The rail's own name for it; None while the rail has not told it."""
    items: list[SubscriptionItem]
    periods: list[SubscriptionPeriod]
    """The last hundred that were paid, oldest first."""
    changes: list[Owed]
    """The last ten that its rail was to make, newest first."""
    license_ids: list[str]


def of(tx: Tx, subscription_id: str, *, customer_id: str | None = None) -> Details:
    """Raise NotFound (``subscription_not_found``) when there is none, or not of this customer."""
    found = subscriptions.get(tx, subscription_id)
    if customer_id is not None and found.customer_id != customer_id:
        raise NotFound("There is no such subscription.", code="subscription_not_found")
    link = links.get(tx, found.rail, "subscription", found.id)
    return Details(
        found,
        link.reference if link else None,
        subscriptions.items_of(tx, found.id),
        subscriptions.periods_of(tx, found.id)[-_MOST_PERIODS:],
        outbox.changes_of(tx, found.id),
        entitling.license_ids(tx, found.id),
    )
