"""What a subscription entitles to follows what was paid of it: here only.

A paid period keeps the licenses of a subscription running to its end (and their grace after it). While the
subscription is paused or unpaid they are suspended; when it ends, so do they. Which licenses there are follows its
items: a changed plan changes a license of the same product, and revokes or issues what is no longer or newly for.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.types import LicenseSpec
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict
from counterfoil.licensing import licenses
from counterfoil.licensing.licenses import Issue
from counterfoil.licensing.types import License
from counterfoil.sales import quotes
from counterfoil.settlement.tables import grants
from counterfoil.settlement.types import Grant
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.types import Subscription, SubscriptionItem

_GRANTS = (
    sa.select(*columns(grants))
    .where(mine(grants), grants.c.subscription_id == sa.bindparam("subscription_id"), grants.c.kind == "license")
    .order_by(grants.c.order_id, grants.c.line, grants.c.unit)
)
_SET = (
    sa.update(grants)
    .where(
        mine(grants),
        any_of(grants.c.id, "ids"),
        sa.or_(
            grants.c.status != sa.bindparam("new_status", type_=sa.Text),
            grants.c.ends_at.is_(None),
            grants.c.ends_at != sa.bindparam("new_end", type_=grants.c.ends_at.type),
        ),
    )
    .values(
        status=sa.bindparam("new_status", type_=sa.Text),
        ends_at=sa.bindparam("new_end", type_=grants.c.ends_at.type),
        updated_at=sa.bindparam("now"),
    )
)
_REVOKE = (
    sa.update(grants)
    .where(mine(grants), any_of(grants.c.id, "ids"))
    .values(status="revoked", updated_at=sa.bindparam("now"))
)

_LICENSE_IDS = (
    sa.select(grants.c.object_id)
    .where(mine(grants), grants.c.subscription_id == sa.bindparam("subscription_id"), grants.c.kind == "license")
    .order_by(grants.c.object_id)
)

_LAST_LINE = sa.select(sa.func.max(grants.c.line).label("line")).where(
    mine(grants), grants.c.order_id == sa.bindparam("order_id")
)

_HALTED = {"paused", "unpaid"}


def _why(subscription: Subscription) -> str:
    return f"subscription {subscription.status}: {subscription.id}"


def end_of(subscription: Subscription) -> datetime | None:
    """Until when it entitles to anything: the end of what is paid, or of the subscription where that comes first.

    In whole seconds, as licenses last.
    """
    end = subscription.paid_until
    if end is not None and subscription.status == "canceled" and subscription.ends_at is not None:
        end = min(end, subscription.ends_at)
    return None if end is None else end.replace(microsecond=0)


def entitle(tx: Tx, subscription: Subscription) -> None:
    """Bring what a locked subscription gave in step with what it is now."""
    given = [grant for grant in _given(tx, subscription) if grant.status != "revoked"]
    end = end_of(subscription)
    if not given or end is None:
        return
    halted = subscription.status in _HALTED
    over = subscription.status == "canceled" and end <= tx.now
    status = "expired" if over else "suspended" if halted else "active"
    # What a refund or a dispute has suspended stays so: only what a halt of the subscription did is undone here.
    known = _licenses(tx, given)
    held = {one.id for one in known if one.status == "suspended" and not is_halted(one)}
    moving = [grant for grant in given if grant.object_id not in held]
    if not moving:
        return
    tx.execute(_SET, {"ids": [grant.id for grant in moving], "new_status": status, "new_end": end, "now": tx.now})
    ids = [grant.object_id for grant in moving]
    licenses.end_at(tx, ids, end)
    so_already = "suspended" if halted else "active"
    for license_id in sorted(set(ids) - {one.id for one in known if one.status == so_already}):
        with contextlib.suppress(Conflict):  # it is so by now
            if halted:
                licenses.suspend(tx, license_id, reason=_why(subscription))
            else:
                licenses.reinstate(tx, license_id)


def license_ids(tx: Tx, subscription_id: str) -> list[str]:
    """The licenses that a subscription gave, revoked ones included."""
    return [row.object_id for row in tx.all(_LICENSE_IDS, {"subscription_id": subscription_id})]


def is_halted(license_: License) -> bool:
    """Whether a license is suspended because its subscription stands still."""
    return license_.status == "suspended" and (license_.suspension_reason or "").startswith("subscription ")


def _given(tx: Tx, subscription: Subscription) -> list[Grant]:
    tx.write_rows()  # they may have been given in this transaction
    return [Grant(*row) for row in tx.all(_GRANTS, {"subscription_id": subscription.id})]


def _last_line(tx: Tx, order_id: str) -> int:
    """The last line of an order that anything was given for, what is revoked by now included."""
    row = tx.one(_LAST_LINE, {"order_id": order_id})
    return 0 if row is None or row.line is None else int(row.line)


def _licenses(tx: Tx, given: Iterable[Grant]) -> list[License]:
    orders = sorted({grant.order_id for grant in given})
    return [one for order_id in orders for one in licenses.of_order(tx, order_id)]


class _Wanted(msgspec.Struct, frozen=True):
    product_id: str
    tier: str
    spec: LicenseSpec
    units: int


def replan(tx: Tx, subscription: Subscription, items: Iterable[SubscriptionItem]) -> None:
    """Bring the licenses of a locked subscription in step with items that have changed."""
    given = [grant for grant in _given(tx, subscription) if grant.status != "revoked"]
    if not given:
        return  # nothing was paid yet: what is paid for gives its licenses
    grant_of = {grant.object_id: grant for grant in given}
    free: defaultdict[str, list[License]] = defaultdict(list)
    for one in _licenses(tx, given):
        if one.id in grant_of:
            free[one.product_id].append(one)
    issues: list[Issue] = []
    end = end_of(subscription)
    first = given[0]
    line = _last_line(tx, first.order_id)
    every = _wanted(tx, items)
    # Who has what is wanted already keeps it; only then do others change.
    same = [_pick(free[wanted.product_id], wanted.units, tier=wanted.tier) for wanted in every]
    for wanted, had in zip(every, same, strict=True):
        kept = had + _pick(free[wanted.product_id], wanted.units - len(had))
        for one in kept:
            licenses.respecify(tx, one, wanted.spec, wanted.tier)
        if len(kept) < wanted.units:
            line += 1
            issues += [
                Issue(
                    product_id=wanted.product_id,
                    spec=wanted.spec,
                    until=end,
                    tier=wanted.tier,
                    order_id=first.order_id,
                    line=line,
                    unit=unit,
                    email=subscription.email,
                    customer_id=subscription.customer_id,
                )
                for unit in range(wanted.units - len(kept))
            ]
    superfluous = [one.id for rest in free.values() for one in rest]
    for license_id in superfluous:
        with contextlib.suppress(Conflict):  # somebody has revoked it already
            licenses.revoke(tx, license_id, reason=f"no longer part of subscription {subscription.id}")
    if superfluous:
        tx.execute(_REVOKE, {"ids": [grant_of[one].id for one in superfluous], "now": tx.now})
    if issues:
        made = licenses.issue(tx, issues)
        tx.insert(grants, *[of_license(tx, one, subscription_id=subscription.id) for one in made])


def _pick(free: list[License], most: int, *, tier: str | None = None) -> list[License]:
    """Take some out of those that are free, of a tier where it is given; the oldest first."""
    taken = [one for one in free if tier in {None, one.tier}][:most]
    for one in taken:
        free.remove(one)
    return taken


def _wanted(tx: Tx, items: Iterable[SubscriptionItem]) -> list[_Wanted]:
    known = [item for item in items if item.recurring and item.status != "inactive"]
    offers = quotes.offers_of(tx, [item.price_id for item in known])
    return [
        _Wanted(
            item.product_id,
            offers[item.price_id].price.tier,
            msgspec.convert(benefit["spec"], LicenseSpec),
            item.quantity,
        )
        for item in known
        for benefit in offers[item.price_id].benefits
        if benefit["kind"] == "license"
    ]


def of_license(tx: Tx, license_: License, *, subscription_id: str | None) -> Grant:
    """The grant of a license that an order gave."""
    assert license_.order_id is not None
    return Grant(
        id=tx.new_id("grt"),
        kind="license",
        customer_id=license_.customer_id,
        product_id=license_.product_id,
        order_id=license_.order_id,
        subscription_id=subscription_id,
        line=license_.line or 0,
        unit=license_.unit or 0,
        object_id=license_.id,
        status="active",
        starts_at=tx.now,
        ends_at=license_.expires_at,
        created_at=tx.now,
        updated_at=tx.now,
    )


def subscription_of(tx: Tx, subscription_id: str) -> Subscription:
    """The subscription, locked, with what it has paid for counted anew."""
    known = subscriptions.lock(tx, subscription_id)
    periods = subscriptions.periods_of(tx, known.id)
    paid = [one.period_end for one in periods if one.status == "paid"]
    if not paid:
        return known if not periods else subscriptions.write(tx, known, paid_until=periods[0].period_start)
    return subscriptions.write(tx, known, paid_until=max(paid))
