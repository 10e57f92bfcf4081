"""Having margins reach the subscriptions that run already: whoever carries another discount than it should is owed one.

The state decides, and not what happened to it: a margin made, archived, or over, a customer put below another MSP, a
coupon that ran out. So it does not matter how often this looks, or that it missed something.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from counterfoil.accounts.customers import DEPARTMENT
from counterfoil.accounts.tables import customers
from counterfoil.catalog.discounts import in_use
from counterfoil.catalog.tables import discounts
from counterfoil.db.base import Database, Scope
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Recorded, Tx
from counterfoil.events.types import Actor
from counterfoil.exchange import outbox, subscription_changes
from counterfoil.exchange.rounds import Rounds
from counterfoil.exchange.types import Owed
from counterfoil.settlement.carrying import Carried
from counterfoil.subscriptions.tables import subscriptions
from counterfoil.subscriptions.types import Subscription

MARGINS: Final = frozenset({"margins"})
"""Who is woken by what changes margins, or whose they are."""
_CHANGING: Final = frozenset({"discount.updated", "discount.archived", "customer.moved"})
_READ: Final = 1000
"""How many subscriptions are looked at together, which blocks nobody."""
_BATCH: Final = 100
"""How many are owed a change in one transaction."""
_AGAIN: Final = timedelta(days=1)
"""After which a rail that refused a discount, or took it and does not show it, is asked once more."""


def _above() -> tuple[sa.FromClause, sa.ColumnElement[Any]]:
    """Subscriptions beside the customers whose margins may count for them, and the id of the nearest margin in use."""
    joined: sa.FromClause = subscriptions
    below: sa.ColumnElement[Any] = subscriptions.c.customer_id
    nearest = []
    for level in range(DEPARTMENT):
        whose, margin = customers.alias(f"customer_{level}"), discounts.alias(f"margin_{level}")
        is_whose = sa.and_(whose.c.tenant_id == subscriptions.c.tenant_id, whose.c.id == below)
        joined = joined.join(whose, is_whose, isouter=level > 0)
        is_its = sa.and_(margin.c.tenant_id == whose.c.tenant_id, margin.c.customer_id == whose.c.id, in_use(margin))
        joined = joined.outerjoin(margin, is_its)
        nearest.append(margin.c.id)
        below = whose.c.parent_id
    return joined, sa.func.coalesce(*nearest)


_JOINED, _NEAREST = _above()
_carried = discounts.alias("carried")
_IS_LIVE = sa.and_(
    subscriptions.c.status.not_in(["incomplete", "canceled"]),
    subscriptions.c.rail.in_(list(outbox.MIRRORED)),
    # Paddle lets nothing change that waits to end, to pause or to go on; and it may never be billed again.
    subscriptions.c.scheduled_change.is_(None),
)
_PAGE = (
    sa.select(subscriptions.c.id)
    .where(mine(subscriptions), subscriptions.c.id > sa.bindparam("after"))
    .order_by(subscriptions.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
# More than need a change: whether a margin is for what they are for, and takes off more than what they carry, is worked
# out one by one.
_SUSPECTS = (
    sa.select(*columns(subscriptions))
    .select_from(
        _JOINED.outerjoin(
            _carried,
            sa.and_(_carried.c.tenant_id == subscriptions.c.tenant_id, _carried.c.id == subscriptions.c.discount_id),
        )
    )
    .where(
        mine(subscriptions),
        any_of(subscriptions.c.id, "ids"),
        _IS_LIVE,
        sa.or_(
            sa.and_(_NEAREST.is_not(None), _NEAREST.is_distinct_from(subscriptions.c.discount_id)),
            sa.and_(_NEAREST.is_(None), _carried.c.customer_id.is_not(None)),
        ),
    )
    .order_by(subscriptions.c.id)
)
# Whoever is at one of them may change what it carries: it is looked at again later. So nobody waits in a circle for
# rows that are locked in another order.
_LOCK = (
    sa.select(*columns(subscriptions))
    .where(mine(subscriptions), any_of(subscriptions.c.id, "ids"), _IS_LIVE)
    .order_by(subscriptions.c.id)
    .with_for_update(skip_locked=True)
)


def changes_margins(recorded: Sequence[Recorded]) -> bool:
    """Whether these events say that a margin may count for other subscriptions than before."""
    return any(
        event["type"] in _CHANGING or (event["type"] == "discount.created" and event["details"].get("margin_of"))
        for event in recorded
    )


def look(tx: Tx, *, after: str = "", limit: int = _READ) -> tuple[list[str], str | None]:
    """Of a page of subscriptions those that carry another discount than they should, and where the next page begins.

    None of them has a change open. Nothing is changed.
    """
    ids = [row.id for row in tx.all(_PAGE, {"after": after, "limit": limit})]
    rows = tx.all(_SUSPECTS, {"ids": ids, "now": tx.now})
    astray = _astray(tx, [Subscription(*row) for row in rows])
    return [one.id for one, _ in astray], ids[-1] if len(ids) == limit else None


def owe(tx: Tx, subscription_ids: Sequence[str]) -> int:
    """Owe each of these the discount that it should carry, if it still carries another; how many are owed it.

    Whatever has a change open waits for that. All is decided under the lock of the subscription's row, which asking for
    any other change takes, too.
    """
    found = [Subscription(*row) for row in tx.all(_LOCK, {"ids": list(subscription_ids)})]
    astray = _astray(tx, found)
    for one, wanted in astray:
        subscription_changes.follow_margin(tx, one, wanted)
    return len(astray)


def _astray(tx: Tx, found: Sequence[Subscription]) -> list[tuple[Subscription, str | None]]:
    """Those that carry another discount than they should, and which.

    Not those with a change open, nor those whose rail was asked for the same lately.
    """
    changes = outbox.changes_of_many(tx, [one.id for one in found]) if found else {}
    free = [one for one in found if not any(change.next_attempt_at for change in changes.get(one.id, ()))]
    if not free:
        return []
    carried = Carried(tx, free)
    astray = [(one, wanted) for one in free if (wanted := carried.wanted(one)) != one.discount_id]
    since = tx.now - _AGAIN
    return [(one, wanted) for one, wanted in astray if not _asked_lately(changes.get(one.id, ()), wanted, since)]


def _asked_lately(changes: Sequence[Owed], wanted: str | None, since: datetime) -> bool:
    """Whether the last discount that a rail was asked to give is this one, and that was not long ago."""
    last = next((change for change in reversed(changes) if change.action == "discount"), None)
    return last is not None and last.updated_at > since and (last.payload or {}).get("discount_id") == (wanted or "")


async def follow(scope: Scope) -> int:
    """Have every subscription of the scope's tenant follow the margins; how many are owed a change.

    A hundred at a time, each hundred in a transaction of its own: nobody else waits for long.
    """
    count, after = 0, ""
    while True:
        astray, later = await scope.read(look, after=after)
        for start in range(0, len(astray), _BATCH):
            count += await scope.run(owe, astray[start : start + _BATCH])
        if later is None:
            return count
        after = later


class Margins(Rounds):
    """Follows margins in the background."""

    what = "margins"

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    async def work(self, scope: Scope) -> int:
        """The job: what time has changed, and what nobody was woken for; how many are owed a change."""
        return await self.soon(scope.tenant)

    async def go_round(self, tenant: str) -> int:
        """Have a tenant's subscriptions follow its margins; how many are owed a change."""
        return await follow(self._database.scope(tenant, Actor("job", "follow_margins", source="job")))
