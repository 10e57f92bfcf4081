"""Operations on subscriptions, the prices they are for and the periods that were paid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import columns, mine, row_of
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.paging import Page, page_of
from counterfoil.subscriptions.tables import subscription_items, subscription_periods, subscriptions
from counterfoil.subscriptions.types import (
    Subscription,
    SubscriptionItem,
    SubscriptionPeriod,
    SubscriptionStatus,
)

_GET = sa.select(*columns(subscriptions)).where(mine(subscriptions), subscriptions.c.id == sa.bindparam("id"))
_LOCK = _GET.with_for_update()
_OF_CHECKOUT = sa.select(*columns(subscriptions)).where(
    mine(subscriptions), subscriptions.c.checkout_id == sa.bindparam("checkout_id")
)
_LIST = (
    sa.select(*columns(subscriptions))
    .where(mine(subscriptions), subscriptions.c.id > sa.bindparam("after"))
    .order_by(subscriptions.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_QUIET = (
    sa.select(*columns(subscriptions))
    .where(
        mine(subscriptions),
        subscriptions.c.rail == sa.bindparam("rail"),
        subscriptions.c.status != "canceled",
        sa.or_(
            subscriptions.c.checked_at <= sa.bindparam("before"),
            sa.and_(
                subscriptions.c.checked_at <= sa.bindparam("due_before"),
                sa.func.coalesce(subscriptions.c.next_billed_at, subscriptions.c.current_period_end)
                <= sa.bindparam("due_before", type_=subscriptions.c.next_billed_at.type),
                subscriptions.c.status.in_(["trialing", "active", "past_due"]),
            ),
        ),
    )
    .order_by(subscriptions.c.checked_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_CHECKED = (
    sa.update(subscriptions)
    .where(mine(subscriptions), subscriptions.c.id == sa.bindparam("subscription_id"))
    .values(checked_at=sa.bindparam("now"))
)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_ITEMS = (
    sa.select(*columns(subscription_items))
    .where(mine(subscription_items), subscription_items.c.subscription_id == sa.bindparam("subscription_id"))
    .order_by(subscription_items.c.id)
)
_WRITE_ITEM = sa.update(subscription_items).where(
    mine(subscription_items), subscription_items.c.id == sa.bindparam("item_id")
)
_DROP_ITEM = sa.delete(subscription_items).where(
    mine(subscription_items), subscription_items.c.id == sa.bindparam("item_id")
)
_PERIODS = (
    sa.select(*columns(subscription_periods))
    .where(mine(subscription_periods), subscription_periods.c.subscription_id == sa.bindparam("subscription_id"))
    .order_by(subscription_periods.c.period_start)
)
_GIVEN_BACK = (
    sa.update(subscription_periods)
    .where(
        mine(subscription_periods),
        subscription_periods.c.order_id == sa.bindparam("of_order"),
        subscription_periods.c.status == "paid",
    )
    .values(status="refunded", updated_at=sa.bindparam("now"))
    .returning(subscription_periods.c.subscription_id)
)


def get(tx: Tx, subscription_id: str) -> Subscription:
    """Raise NotFound (``subscription_not_found``) when there is none."""
    row = tx.one(_GET, {"id": subscription_id})
    if row is None:
        raise NotFound("There is no such subscription.", code="subscription_not_found")
    return Subscription(*row)


def lock(tx: Tx, subscription_id: str) -> Subscription:
    """The subscription, its row locked until the transaction ends. Raises NotFound."""
    row = tx.one(_LOCK, {"id": subscription_id})
    if row is None:
        raise NotFound("There is no such subscription.", code="subscription_not_found")
    return Subscription(*row)


def of_checkout(tx: Tx, checkout_id: str) -> Subscription | None:
    """The subscription that a checkout began."""
    row = tx.one(_OF_CHECKOUT, {"checkout_id": checkout_id})
    return Subscription(*row) if row else None


class SubscriptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which subscriptions; all that is given must hold."""

    status: SubscriptionStatus | None = None
    customer_id: str | None = None
    email: str | None = None
    """However its letters are written."""
    vault_l0: str | None = None


def list_(tx: Tx, only: SubscriptionFilter, *, after: str = "", limit: int = 20) -> Page[Subscription]:
    """A page of subscriptions, oldest first."""
    given = {name: value for name, value in msgspec.structs.asdict(only).items() if value is not None}
    if only.email is not None:
        given["email"] = only.email.lower()  # as it is kept
    rows = tx.all(_list(tuple(given)), {**given, "after": after, "limit": limit + 1})
    return page_of([Subscription(*row) for row in rows], limit)


@cache
def _list(names: tuple[str, ...]) -> sa.Select[Any]:
    return _LIST.where(*[subscriptions.c[name] == sa.bindparam(name) for name in names])


def quiet(tx: Tx, rail: str, *, checked_before: datetime, due_before: datetime, limit: int = 100) -> list[Subscription]:
    """Subscriptions of a rail of which nothing was heard since ``checked_before``, longest first; those that go on.

    Those that should have been billed before ``due_before`` are among them when nothing was heard since then.
    """
    rows = tx.all(_QUIET, {"rail": rail, "before": checked_before, "due_before": due_before, "limit": limit})
    return [Subscription(*row) for row in rows]


def mark_checked(tx: Tx, subscription_id: str) -> None:
    """Note that the rail was asked."""
    tx.execute(_CHECKED, {"subscription_id": subscription_id, "now": tx.now})


def mark_in_doubt(tx: Tx, subscription_id: str) -> None:
    """Note that what the rail said can be read two ways: it is asked next."""
    tx.execute(_CHECKED, {"subscription_id": subscription_id, "now": _LONG_AGO})


def create(tx: Tx, new: Subscription, items: Sequence[SubscriptionItem]) -> None:
    """Write a subscription down."""
    tx.insert(subscriptions, new)
    tx.insert(subscription_items, *items)
    tx.record(
        "subscription.created",
        "subscription",
        new.id,
        customer_id=new.customer_id,
        rail=new.rail,
        checkout_id=new.checkout_id,
    )


@cache
def _update(names: tuple[str, ...]) -> sa.Update:
    """Built once for each set of columns: that costs more than running it."""
    statement = sa.update(subscriptions).where(
        mine(subscriptions), subscriptions.c.id == sa.bindparam("subscription_id")
    )
    return statement.values({name: sa.bindparam(f"new_{name}", type_=subscriptions.c[name].type) for name in names})


def write(tx: Tx, old: Subscription, **values: Any) -> Subscription:
    """Change a locked subscription; what becomes of its status enters the record."""
    changed = {name: value for name, value in values.items() if getattr(old, name) != value}
    if not changed:
        return old
    params = {f"new_{name}": value for name, value in {**changed, "updated_at": tx.now}.items()}
    tx.execute(_update((*sorted(changed), "updated_at")), {"subscription_id": old.id, **params})
    new = msgspec.structs.replace(old, **changed, updated_at=tx.now)
    shown = sorted(changed.keys() - {"heard_at", "heard", "checked_at"})
    if new.status != old.status:
        verb = _VERBS.get((old.status, new.status), new.status)
        tx.record(
            f"subscription.{verb}",
            "subscription",
            new.id,
            customer_id=new.customer_id,
            from_status=old.status,
            changed=shown,
        )
    elif shown:
        tx.record("subscription.updated", "subscription", new.id, customer_id=new.customer_id, changed=shown)
    return new


_VERBS: dict[tuple[SubscriptionStatus, SubscriptionStatus], str] = {
    ("incomplete", "active"): "activated",
    ("incomplete", "trialing"): "trialing",
    ("trialing", "active"): "activated",
    ("past_due", "active"): "recovered",
    ("unpaid", "active"): "recovered",
    ("paused", "active"): "resumed",
}


def items_of(tx: Tx, subscription_id: str) -> list[SubscriptionItem]:
    """What a subscription is for, in the order in which it came."""
    return [SubscriptionItem(*row) for row in tx.all(_ITEMS, {"subscription_id": subscription_id})]


def set_items(tx: Tx, subscription: Subscription, wanted: Sequence[SubscriptionItem]) -> bool:
    """Make these the items of a locked subscription, each price once; whether prices or quantities changed.

    ``id`` and ``created_at`` of those that are there already stay.
    """
    known = {item.price_id: item for item in items_of(tx, subscription.id)}
    before = {item.price_id: item.quantity for item in known.values()}
    for item in wanted:
        old = known.pop(item.price_id, None)
        if old is None:
            tx.insert(subscription_items, item)
            continue
        values = {
            name: value
            for name, value in row_of(item).items()
            if name not in {"id", "created_at", "updated_at"} and value != getattr(old, name)
        }
        if values:
            tx.execute(_WRITE_ITEM.values(**values, updated_at=tx.now), {"item_id": old.id})
    for old in known.values():
        tx.execute(_DROP_ITEM, {"item_id": old.id})
    after = {item.price_id: item.quantity for item in wanted}
    if before != after:
        tx.record(
            "subscription.items_changed",
            "subscription",
            subscription.id,
            customer_id=subscription.customer_id,
            items=[{"price_id": price, "quantity": quantity} for price, quantity in sorted(after.items())],
        )
    return before != after


def periods_of(tx: Tx, subscription_id: str) -> list[SubscriptionPeriod]:
    """The periods that were paid, oldest first."""
    rows = tx.all(_PERIODS, {"subscription_id": subscription_id})
    return [SubscriptionPeriod(*row) for row in rows]


def add_period(tx: Tx, period: SubscriptionPeriod) -> bool:
    """Write down that a period was paid, once by its start; whether it was new."""
    return tx.insert_if_new(subscription_periods, period)


def give_back(tx: Tx, order_id: str) -> str | None:
    """The money of the period that an order paid is back; the subscription's id, where there is one."""
    row = tx.one(_GIVEN_BACK, {"of_order": order_id, "now": tx.now})
    return None if row is None else str(row[0])
