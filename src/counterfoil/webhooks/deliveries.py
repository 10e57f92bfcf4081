"""Operations on deliveries: claimed, sent or not, and sent again.

A delivery is claimed before anybody speaks to its receiver, by one worker at a time. A worker that is not heard of
any more loses its claims, and what it had claimed is sent by another: at least once, with the same id.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from counterfoil.accounts import staff
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Row, Tx
from counterfoil.kernel.errors import CounterfoilError, Invalid, NotFound
from counterfoil.kernel.ids import first_id, made_at
from counterfoil.kernel.paging import Page, page_of
from counterfoil.kernel.secrets import MasterKey
from counterfoil.mail import outgoing
from counterfoil.webhooks import endpoints, fan_out
from counterfoil.webhooks.tables import webhook_deliveries, webhook_endpoints
from counterfoil.webhooks.types import Delivery, DeliveryStatus, StoredEndpoint

COURIER = frozenset({"courier"})
"""Whom a transaction wakes that leaves something to send."""
CLAIM_LASTS = timedelta(seconds=60)
GIVE_UP_AFTER = timedelta(days=5)
"""After so long of nothing but failure an endpoint is disabled."""
KEEP_FAILED = timedelta(days=90)

_WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
CHUNK = 5000
"""How many rows one transaction tidies or queues again."""
_LONGEST = 200
_EARLIEST, _LATEST = datetime.fromisoformat("2000-01-01T00:00Z"), datetime.fromisoformat("9999-01-01T00:00Z")

_D = webhook_deliveries.c
_GET = sa.select(*columns(webhook_deliveries)).where(mine(webhook_deliveries), _D.id == sa.bindparam("id"))
_FILTERS = {
    "endpoint_id": _D.endpoint_id == sa.bindparam("endpoint_id"),
    "status": _D.status == sa.bindparam("status"),
    "event_type": _D.event_type == sa.bindparam("event_type"),
}

# -- statements of the queue --------------------------------------------------------------------------

_PENDING = sa.and_(mine(webhook_deliveries), _D.status == "pending")
_LOST = sa.and_(mine(webhook_deliveries), _D.status == "processing", _D.claimed_until <= sa.bindparam("now"))
_ANY_LOST = sa.select(_D.id).where(_LOST).limit(1)
_DUE = (
    sa.select(webhook_endpoints.c.id)
    .where(
        mine(webhook_endpoints),
        webhook_endpoints.c.status == "enabled",
        sa.exists()
        .where(_PENDING, _D.endpoint_id == webhook_endpoints.c.id, _D.next_attempt_at <= sa.bindparam("now"))
        .correlate(webhook_endpoints),
    )
    .order_by(webhook_endpoints.c.id)
)
_RECLAIM = (
    sa.update(webhook_deliveries)
    .where(_LOST)
    .values(
        status="pending",
        next_attempt_at=sa.bindparam("now"),
        claimed_by=None,
        claimed_until=None,
        last_error="whoever was sending it was cut off",
        updated_at=sa.bindparam("now"),
    )
)
_ENDPOINT = sa.select(*columns(webhook_endpoints)).where(
    mine(webhook_endpoints),
    webhook_endpoints.c.id == sa.bindparam("endpoint_id"),
    webhook_endpoints.c.status == "enabled",
)
_FREE = (
    sa.select(_D.id)
    .where(_PENDING, _D.endpoint_id == sa.bindparam("of_endpoint"), _D.next_attempt_at <= sa.bindparam("now"))
    .order_by(_D.next_attempt_at, _D.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
    .cte("free")
)
_CLAIM = (
    sa.update(webhook_deliveries)
    .where(_PENDING, _D.id.in_(sa.select(_FREE.c.id)))
    .values(
        status="processing",
        attempts=_D.attempts + 1,
        claimed_by=sa.bindparam("worker"),
        claimed_until=sa.bindparam("until"),
        last_attempt_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(webhook_deliveries))
)
_HELD = sa.and_(
    mine(webhook_deliveries),
    any_of(_D.id, "ids"),
    _D.status == "processing",
    _D.claimed_by == sa.bindparam("worker"),
)
_SUCCEED = (
    sa.update(webhook_deliveries)
    .where(_HELD)
    .values(
        status="success",
        last_status=sa.bindparam("new_status"),
        last_error=None,
        claimed_by=None,
        claimed_until=None,
        completed_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
)
_FAIL = (
    sa.update(webhook_deliveries)
    .where(_HELD)
    .values(
        status=sa.bindparam("next_status"),
        next_attempt_at=sa.bindparam("next"),
        last_status=sa.bindparam("new_status"),
        last_error=sa.bindparam("new_error"),
        claimed_by=None,
        claimed_until=None,
        completed_at=sa.bindparam("completed"),
        updated_at=sa.bindparam("now"),
    )
)
_RELEASE = (
    sa.update(webhook_deliveries)
    .where(_HELD)
    .values(
        status="pending",
        attempts=_D.attempts - 1,
        claimed_by=None,
        claimed_until=None,
        updated_at=sa.bindparam("now"),
    )
)
_E = webhook_endpoints.c
_WORKS = (
    sa.update(webhook_endpoints)
    .where(mine(webhook_endpoints), any_of(_E.id, "ids"), _E.first_failed_at.is_not(None))
    .values(first_failed_at=None, updated_at=sa.bindparam("now"))
)
_FAILS = (
    sa.update(webhook_endpoints)
    .where(mine(webhook_endpoints), _E.id == sa.bindparam("endpoint_id"), _E.first_failed_at.is_(None))
    .values(first_failed_at=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
_FAILED_SINCE = sa.select(_E.first_failed_at).where(mine(webhook_endpoints), _E.id == sa.bindparam("endpoint_id"))

# -- statements of whom it concerns -------------------------------------------------------------------

_AGAIN = {
    # What is on its way at this moment stays with whoever sends it.
    "status": sa.case((_D.status == "processing", "processing"), else_="pending"),
    "attempts": sa.case((_D.status == "processing", 1), else_=0),
    "next_attempt_at": sa.bindparam("now", type_=_D.next_attempt_at.type),
    "completed_at": None,
    "updated_at": sa.bindparam("now", type_=_D.updated_at.type),
}
_RETRY = (
    sa.update(webhook_deliveries)
    .where(mine(webhook_deliveries), _D.id == sa.bindparam("delivery_id"))
    .values(**_AGAIN)
    .returning(*columns(webhook_deliveries))
)
_SINCE = (
    sa.select(_D.event_id)
    .where(
        mine(webhook_deliveries),
        _D.endpoint_id == sa.bindparam("of_endpoint"),
        _D.event_id >= sa.bindparam("low"),
        _D.event_id < sa.bindparam("high"),
    )
    .order_by(_D.event_id)
    .limit(1)
    .offset(sa.bindparam("most", type_=sa.Integer))
)
_REPLAY = (
    sa.update(webhook_deliveries)
    .where(
        mine(webhook_deliveries),
        _D.endpoint_id == sa.bindparam("of_endpoint"),
        _D.event_id >= sa.bindparam("low"),
        _D.event_id < sa.bindparam("high"),
        _D.created_at >= sa.bindparam("since"),
    )
    .values(**_AGAIN)
)
_DELETE = sa.delete(webhook_deliveries).where(mine(webhook_deliveries), _D.id == sa.bindparam("delivery_id"))
_TIDY = sa.delete(webhook_deliveries).where(
    mine(webhook_deliveries),
    _D.id.in_(
        sa.select(_D.id)
        .where(
            mine(webhook_deliveries),
            _D.completed_at.is_not(None),
            _D.completed_at <= sa.bindparam("before"),
            _D.status == sa.bindparam("over"),
        )
        .order_by(_D.completed_at)
        .limit(CHUNK)
        .correlate(None)
    ),
)
_DEPTH = (
    sa.select(_D.status, sa.func.count(), sa.func.min(_D.id))
    .where(mine(webhook_deliveries), _D.status.in_(["pending", "processing", "failed"]))
    .group_by(_D.status)
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt."""

    delivery_id: str
    endpoint_id: str
    worker: str
    """Whose claim it was."""
    attempts: int
    status: int | None
    """What the receiver answered; None when it did not."""
    error: str | None
    """Why it failed; None: it was taken."""
    wait: timedelta = timedelta(0)
    """After a failure: how long until the next attempt."""
    gone: bool = False
    """Whether the receiver says that it wants no more news."""


class Claim(NamedTuple):
    """Deliveries in the hands of one worker, and where they go."""

    endpoint: StoredEndpoint
    deliveries: list[Delivery]
    worker: str


class Due(NamedTuple):
    """What there is to do."""

    endpoint_ids: list[str]
    any_lost: bool
    """Whether somebody claimed a delivery and is not heard of any more."""


class Depth(NamedTuple):
    """How much waits or has failed."""

    counts: dict[str, int]
    oldest: datetime | None
    """When the oldest of those that are not over was queued, to the millisecond."""


def wait_after(attempts: int) -> timedelta | None:
    """How long to wait after so many failed attempts; None: it was the last."""
    return _WAITS[attempts - 1] if attempts <= len(_WAITS) else None


def _found(row: Row | None) -> Delivery:
    if row is None:
        raise NotFound("There is no such delivery.", code="webhook_delivery_not_found")
    return Delivery(*row)


def get(tx: Tx, delivery_id: str) -> Delivery:
    """Raise NotFound (``webhook_delivery_not_found``) when there is none."""
    return _found(tx.one(_GET, {"id": delivery_id}))


def list_(
    tx: Tx,
    *,
    status: DeliveryStatus | None = None,
    endpoint_id: str | None = None,
    event_type: str | None = None,
    after: str = "",
    limit: int = 20,
) -> Page[Delivery]:
    """A page of deliveries, oldest first: all, or those that every filter is true of. Raises Invalid."""
    given = {"status": status, "endpoint_id": endpoint_id, "event_type": event_type}
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in params.items():
        if len(value) > _LONGEST:
            raise Invalid.field(name, f"has more than {_LONGEST} characters")
    statement = (
        sa.select(*columns(webhook_deliveries))
        .where(mine(webhook_deliveries), _D.id > sa.bindparam("after"), *[_FILTERS[name] for name in params])
        .order_by(_D.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
    rows = tx.all(statement, {**params, "after": after, "limit": limit + 1})
    return page_of([Delivery(*row) for row in rows], limit)


# -- the queue ----------------------------------------------------------------------------------------


def due(tx: Tx) -> Due:
    """Which endpoints have something to be sent now."""
    return Due([row.id for row in tx.all(_DUE, {"now": tx.now})], tx.one(_ANY_LOST, {"now": tx.now}) is not None)


def reclaim(tx: Tx) -> int:
    """Have sent again what was claimed by whoever is not heard of any more; how many."""
    return tx.execute(_RECLAIM, {"now": tx.now})


def claim(tx: Tx, endpoint_id: str, worker: str, *, most: int) -> Claim | None:
    """Take what has been due longest for an endpoint and nobody else has. None: nothing, or it is disabled.

    ``worker`` names this claim and no other.
    """
    row = tx.one(_ENDPOINT, {"endpoint_id": endpoint_id})
    if row is None:
        return None
    params = {
        "of_endpoint": endpoint_id,
        "worker": worker,
        "most": most,
        "now": tx.now,
        "until": tx.now + CLAIM_LASTS,
    }
    found = [Delivery(*taken) for taken in tx.all(_CLAIM, params)]
    return Claim(StoredEndpoint(*row), sorted(found, key=lambda one: one.id), worker) if found else None


def release(tx: Tx, worker: str, ids: list[str]) -> None:
    """Give back what was claimed and not sent."""
    tx.execute(_RELEASE, {"worker": worker, "ids": ids, "now": tx.now})


def finish(tx: Tx, master: MasterKey, outcomes: list[Outcome]) -> list[CounterfoilError | None]:
    """Write down what came of attempts; disable the endpoints that have failed for too long, and tell the owner."""
    taken: defaultdict[tuple[str, int | None], list[str]] = defaultdict(list)
    failing: dict[str, bool] = {}
    for one in outcomes:
        if one.error is None:
            taken[one.worker, one.status].append(one.delivery_id)
        elif _fail(tx, one):
            failing[one.endpoint_id] = failing.get(one.endpoint_id, False) or one.gone
    for (worker, status), ids in taken.items():
        tx.execute(_SUCCEED, {"worker": worker, "ids": ids, "new_status": status, "now": tx.now})
    working = {one.endpoint_id for one in outcomes if one.error is None}
    if working:
        tx.execute(_WORKS, {"ids": sorted(working), "now": tx.now})
    for endpoint_id, gone in sorted(failing.items()):
        _note_failure(tx, master, endpoint_id, works=endpoint_id in working, gone=gone)
    return [None] * len(outcomes)


def _fail(tx: Tx, one: Outcome) -> bool:
    over = one.gone or wait_after(one.attempts) is None
    params = {
        "ids": [one.delivery_id],
        "worker": one.worker,
        "next_status": "failed" if over else "pending",
        "next": tx.now if over else tx.now + one.wait,
        "new_status": one.status,
        "new_error": one.error,
        "completed": tx.now if over else None,
        "now": tx.now,
    }
    return tx.execute(_FAIL, params) == 1


def _note_failure(tx: Tx, master: MasterKey, endpoint_id: str, *, works: bool, gone: bool) -> None:
    reason = endpoints.GONE if gone else None
    if reason is None and not works and not tx.execute(_FAILS, {"endpoint_id": endpoint_id, "now": tx.now}):
        row = tx.one(_FAILED_SINCE, {"endpoint_id": endpoint_id})
        if row is not None and row.first_failed_at is not None and row.first_failed_at <= tx.now - GIVE_UP_AFTER:
            reason = endpoints.FAILING
    if reason is None:
        return
    disabled = endpoints.disable_if_enabled(tx, endpoint_id, reason)
    if disabled is not None:
        # Not the whole address: what follows the host may be the receiver's secret.
        context = {"host": urlsplit(disabled.url).netloc, "endpoint_id": disabled.id, "reason": reason}
        for address in _owners(tx):
            outgoing.queue(tx, master, address, "webhook_disabled", context)


def _owners(tx: Tx) -> list[str]:
    everyone = staff.list_(tx, limit=1000).data
    return sorted({row.email for row in everyone if row.role == SUPER_ADMIN and row.email is not None})


# -- what a person decides ----------------------------------------------------------------------------


def test(tx: Tx, endpoint_id: str) -> Delivery:
    """Queue a ``webhook.test`` for an endpoint, whatever it wants to hear of.

    Raises NotFound; Conflict (``webhook_endpoint_disabled``).
    """
    endpoints.hold_enabled(tx, endpoint_id)
    event: dict[str, Any] = {
        "id": tx.new_id("evt"),
        "type": "webhook.test",
        "object_kind": "webhook_endpoint",
        "object_id": endpoint_id,
        "amount": None,
        "asset": None,
        "details": {},
        "created_at": tx.now,
    }
    (queued,) = fan_out.queue(tx, [(event, [endpoint_id])])
    tx.wakes |= COURIER
    tx.record("webhook_endpoint.tested", "webhook_endpoint", endpoint_id)
    return queued


def retry(tx: Tx, delivery_id: str) -> Delivery:
    """Send a delivery now, whatever became of it, with all its attempts before it. Raises NotFound."""
    delivery = _found(tx.one(_RETRY, {"delivery_id": delivery_id, "now": tx.now}))
    tx.wakes |= COURIER
    tx.record("webhook_delivery.retried", "webhook_delivery", delivery_id, endpoint_id=delivery.endpoint_id)
    return delivery


def delete(tx: Tx, delivery_id: str) -> None:
    """Forget a delivery; if it waits, it is not sent. Raises NotFound."""
    if not tx.execute(_DELETE, {"delivery_id": delivery_id}):
        _found(None)
    tx.record("webhook_delivery.deleted", "webhook_delivery", delivery_id)


class Replayed(msgspec.Struct, frozen=True):
    """How far a replay has come."""

    count: int
    next: str | None
    """The event id to go on with; None: it is done."""


def replay(tx: Tx, endpoint_id: str, since: datetime, *, start: str = "", most: int = CHUNK) -> Replayed:
    """Queue again what was queued for an endpoint since a moment, also what it has taken; so many at a time.

    The messages keep their ids. Raises NotFound; Invalid.
    """
    endpoints.get(tx, endpoint_id)
    if since.tzinfo is None:
        raise Invalid.field("since", "needs a time zone: 2026-12-31T18:00:00Z")
    since = min(max(since, _EARLIEST), _LATEST)
    low = max(first_id("evt", since), start)
    params: dict[str, Any] = {"of_endpoint": endpoint_id, "low": low, "high": first_id("evt", _LATEST), "most": most}
    further = tx.one(_SINCE, params)
    params |= {"high": further.event_id if further else params["high"], "since": since, "now": tx.now}
    count = tx.execute(_REPLAY, params)
    if count:
        tx.wakes |= COURIER
    if further is None:
        tx.record("webhook_endpoint.replayed", "webhook_endpoint", endpoint_id, since=since.isoformat())
    return Replayed(count, further.event_id if further else None)


# -- housekeeping -------------------------------------------------------------------------------------


def tidy(tx: Tx, *, keep: timedelta) -> int:
    """Forget what was taken longer ago than ``keep`` and what failed 90 days ago, some of it at a time; how many."""
    done = tx.execute(_TIDY, {"over": "success", "before": tx.now - keep})
    return done + tx.execute(_TIDY, {"over": "failed", "before": tx.now - max(keep, KEEP_FAILED)})


def depth(tx: Tx) -> Depth:
    """How much waits, is being sent, or has failed."""
    rows = tx.all(_DEPTH)
    counts = {status: count for status, count, _ in rows}
    oldest = min((first for status, _, first in rows if status != "failed"), default=None)
    return Depth(counts, made_at(oldest) if oldest is not None else None)
