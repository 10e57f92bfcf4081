"""What we owe the rails: written with the change that owes it, worked off by :mod:`counterfoil.exchange.pusher`.

One row for each rail and object says that the rail's copy has to be brought in step, however often the object
changes meanwhile; and one for each change of a subscription, worked off in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from counterfoil.db.functions import any_of
from counterfoil.db.schema import TENANT, columns, mine, row_of
from counterfoil.db.tx import Recorded, Tx
from counterfoil.exchange.tables import outbox, rail_settings
from counterfoil.exchange.types import Owed
from counterfoil.kernel.paging import Page, page_of
from counterfoil.settlement import links
from counterfoil.settlement.tables import rail_links

PUSH = "push"
_STRIPE: Final = ("product", "price", "discount", "customer")
_PADDLE: Final = (*_STRIPE, "address", "business")
MIRRORED: Final[Mapping[str, tuple[str, ...]]] = {
    "stripe": _STRIPE,
    "stripe-test": _STRIPE,
    "paddle": _PADDLE,
    "paddle-test": _PADDLE,
}
"""The rails that keep copies, and of what."""
RANKS: Final[Mapping[str, int]] = {
    "product": 0,
    "customer": 0,
    "price": 1,
    "address": 1,
    "business": 1,
    "discount": 2,
    "subscription": 3,
}
"""What others refer to goes first."""
LAST: Final = 4
"""The rank of what follows by itself for many at once."""
_UNTOLD: Final = frozenset({"customer.notes_changed", "customer.moved", "sync.refused"})
"""What no rail has a copy of."""

CLAIM_LASTS = timedelta(minutes=2)
"""Longer than one attempt can take."""
_PAUSES: Final = (
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(hours=12),
)
"""Between attempts. The last one goes on for ever: what is owed stays owed."""
DEPENDS_PAUSE = timedelta(seconds=30)
CHANGE_REQUESTED: Final = "subscription.change_requested"
"""The event of a change of a subscription that is owed to its rail."""

_ACTIVE = sa.select(rail_settings.c.rail).where(
    mine(rail_settings), rail_settings.c.status == "active", rail_settings.c.rail.in_(list(MIRRORED))
)
_new = insert(outbox)
_is_over = outbox.c.status.in_(["done", "refused"])
_OWE = _new.on_conflict_do_update(
    index_elements=[TENANT, "rail", "kind", "object_id"],
    index_where=sa.text("action = 'push'"),
    set_={
        "revision": outbox.c.revision + 1,
        "status": sa.case((_is_over, "owed"), else_=outbox.c.status),
        "attempts": sa.case((_is_over, 0), else_=outbox.c.attempts),
        "pending_since": sa.case((_is_over, _new.excluded.pending_since), else_=outbox.c.pending_since),
        "next_attempt_at": sa.case(
            (_is_over, _new.excluded.next_attempt_at),
            # What is being sent, or waits for a rail that did not answer, keeps its time.
            else_=outbox.c.next_attempt_at,
        ),
        "error": sa.case((_is_over, None), else_=outbox.c.error),
        "done_at": None,
        "updated_at": _new.excluded.updated_at,
    },
)
_LINK_PENDING = (
    sa.update(rail_links)
    .where(
        mine(rail_links),
        rail_links.c.rail == sa.bindparam("of_rail"),
        rail_links.c.kind == sa.bindparam("of_kind"),
        rail_links.c.object_id == sa.bindparam("of_object"),
        rail_links.c.pending_since.is_(None),
    )
    .values(sync_status="pending", pending_since=sa.bindparam("now"), updated_at=sa.bindparam("now"))
)
_earlier = outbox.alias("earlier")
_DUE = (
    sa.select(outbox.c.id)
    .where(
        mine(outbox),
        outbox.c.rail == sa.bindparam("rail"),
        outbox.c.next_attempt_at <= sa.bindparam("now"),
        # Changes of one object are made in their order.
        ~sa.select(_earlier.c.id)
        .where(
            _earlier.c.tenant_id == outbox.c.tenant_id,
            _earlier.c.kind == outbox.c.kind,
            _earlier.c.object_id == outbox.c.object_id,
            _earlier.c.rail == outbox.c.rail,
            _earlier.c.id < outbox.c.id,
            _earlier.c.next_attempt_at.is_not(None),
        )
        .exists(),
    )
    .order_by(outbox.c.rank, outbox.c.next_attempt_at, outbox.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
    .with_for_update(skip_locked=True, of=outbox)
)
_DUE_OBJECT = _DUE.where(outbox.c.kind == sa.bindparam("kind"), outbox.c.object_id == sa.bindparam("object_id"))
_ONE = sa.update(outbox).where(mine(outbox), outbox.c.id == sa.bindparam("owed_id"))
_CLAIM = (
    _ONE.where(outbox.c.next_attempt_at <= sa.bindparam("now"))
    .values(
        attempts=outbox.c.attempts + 1,
        claimed_by=sa.bindparam("worker"),
        claimed_until=sa.bindparam("until"),
        next_attempt_at=sa.bindparam("until"),
        updated_at=sa.bindparam("now"),
    )
    .returning(*columns(outbox))
)
_MINE = _ONE.where(outbox.c.claimed_by == sa.bindparam("worker"))
_SENDING = _MINE.values(status="in_doubt", updated_at=sa.bindparam("now"))
# What changed while it was sent is owed again, at once.
_same = outbox.c.revision == sa.bindparam("at_revision")
_DONE = _MINE.values(
    status=sa.case((_same, "done"), else_="owed"),
    attempts=0,
    next_attempt_at=sa.case((_same, sa.null()), else_=sa.bindparam("now", type_=outbox.c.updated_at.type)),
    done_at=sa.bindparam("now", type_=outbox.c.updated_at.type),
    claimed_by=None,
    claimed_until=None,
    error=None,
    updated_at=sa.bindparam("now", type_=outbox.c.updated_at.type),
).returning(outbox.c.status)
_REFUSED = _MINE.values(
    status=sa.case((_same, "refused"), else_="owed"),
    next_attempt_at=sa.case((_same, sa.null()), else_=sa.bindparam("now", type_=outbox.c.updated_at.type)),
    claimed_by=None,
    claimed_until=None,
    error=sa.bindparam("why"),
    updated_at=sa.bindparam("now", type_=outbox.c.updated_at.type),
)
_POSTPONE = _MINE.values(
    status=sa.bindparam("new_status"),
    attempts=outbox.c.attempts - sa.bindparam("uncounted", type_=sa.BigInteger),
    next_attempt_at=sa.bindparam("next"),
    claimed_by=None,
    claimed_until=None,
    error=sa.bindparam("why"),
    updated_at=sa.bindparam("now"),
)
_RAILS_DUE = (
    sa.select(outbox.c.rail)
    .where(mine(outbox), outbox.c.next_attempt_at <= sa.bindparam("now"))
    .distinct()
    .order_by(outbox.c.rail)
)
_LIST = (
    sa.select(*columns(outbox))
    .where(mine(outbox), outbox.c.id > sa.bindparam("after"), outbox.c.status != "done")
    .order_by(outbox.c.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_COUNTS = (
    sa.select(
        outbox.c.rail,
        outbox.c.status,
        sa.func.count().label("number"),
        sa.func.min(outbox.c.pending_since).label("oldest"),
    )
    .where(mine(outbox))
    .group_by(outbox.c.rail, outbox.c.status)
    .order_by(outbox.c.rail, outbox.c.status)
)
_STALE = (
    sa.select(rail_links.c.rail, sa.func.count().label("number"))
    .where(
        mine(rail_links),
        sa.or_(rail_links.c.last_synced_at.is_(None), rail_links.c.last_synced_at <= sa.bindparam("before")),
    )
    .group_by(rail_links.c.rail)
)
_LINKS = (
    sa.select(rail_links.c.rail, rail_links.c.sync_status, sa.func.count().label("number"))
    .where(mine(rail_links))
    .group_by(rail_links.c.rail, rail_links.c.sync_status)
)
_OF_OBJECT = sa.select(*columns(outbox)).where(
    mine(outbox),
    outbox.c.rail == sa.bindparam("rail"),
    outbox.c.kind == sa.bindparam("kind"),
    outbox.c.object_id == sa.bindparam("object_id"),
    outbox.c.action == PUSH,
)
_CHANGES = sa.select(*columns(outbox)).where(
    mine(outbox), outbox.c.kind == "subscription", outbox.c.object_id == sa.bindparam("object_id")
)
_LATEST_CHANGES = _CHANGES.order_by(outbox.c.id.desc()).limit(sa.bindparam("limit", type_=sa.Integer))
_OPEN_CHANGE = _CHANGES.where(outbox.c.next_attempt_at.is_not(None)).order_by(outbox.c.id).limit(1)
# Of every status: without a condition on it, no other index than the one by object looks good to any planner.
_CHANGES_OF_MANY = (
    sa.select(*columns(outbox))
    .where(mine(outbox), outbox.c.kind == "subscription", any_of(outbox.c.object_id, "object_ids"))
    .order_by(outbox.c.updated_at, outbox.c.id)
)
_WITHDRAW = sa.delete(outbox).where(
    mine(outbox),
    outbox.c.id == sa.bindparam("owed_id"),
    outbox.c.rank == LAST,
    outbox.c.status == "owed",
    outbox.c.claimed_by.is_(None),
)
_HURRY = _ONE.where(outbox.c.claimed_by.is_(None), outbox.c.next_attempt_at > sa.bindparam("now")).values(
    next_attempt_at=sa.bindparam("now")
)
_RETRY = (
    sa.update(outbox)
    .where(
        mine(outbox),
        outbox.c.status.in_(["owed", "in_doubt", "refused"]),
        sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= sa.bindparam("now")),
        outbox.c.rail == sa.bindparam("of_rail"),
    )
    .values(
        status=sa.case((outbox.c.status == "refused", "owed"), else_=outbox.c.status),
        next_attempt_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
    )
)


def owe_events(tx: Tx, recorded: Sequence[Recorded]) -> bool:
    """Owe the tenant's rails what these events changed; whether they are owed anything since."""
    is_asked = any(event["type"] == CHANGE_REQUESTED for event in recorded)
    changed = {
        (event["object_kind"], event["object_id"]): event["details"].get("source")
        for event in recorded
        if event["object_kind"] in RANKS and event["object_kind"] != "subscription" and event["type"] not in _UNTOLD
    }
    if not changed:
        return is_asked
    rails = [row.rail for row in tx.all(_ACTIVE)]
    if not rails:
        return is_asked
    of_customers = {
        (event["details"].get("customer_id") or event["customer_id"]): None
        for event in recorded
        if event["object_kind"] == "address"
    }
    any_owed = is_asked
    for rail in rails:
        # What was imported from a rail is in step with it.
        wanted = {one for one, source in changed.items() if one[0] in MIRRORED[rail] and source != rail}
        if "address" not in MIRRORED[rail]:  # it keeps the address with the customer
            wanted |= {("customer", customer_id) for customer_id in of_customers if customer_id}
        owe(tx, rail, sorted(wanted))
        any_owed = any_owed or bool(wanted)
    return any_owed


def owe(tx: Tx, rail: str, objects: Iterable[tuple[str, str]]) -> None:
    """Owe a rail that its copies of these objects (kinds and ids) are brought in step with ours."""
    for kind, object_id in objects:
        _add(tx, rail, kind, object_id, PUSH, None, statement=_OWE)
        tx.execute(_LINK_PENDING, {"of_rail": rail, "of_kind": kind, "of_object": object_id, "now": tx.now})


def owe_change(
    tx: Tx, rail: str, subscription_id: str, action: str, payload: dict[str, Any], *, waits: bool = False
) -> Owed:
    """Owe a rail a change of a subscription. ``waits``: nobody waits for it, so what anybody asks for goes first."""
    rank = LAST if waits else RANKS["subscription"]
    return _add(tx, rail, "subscription", subscription_id, action, payload, statement=sa.insert(outbox), rank=rank)


def _add(
    tx: Tx,
    rail: str,
    kind: str,
    object_id: str,
    action: str,
    payload: dict[str, Any] | None,
    *,
    statement: sa.Executable,
    rank: int | None = None,
) -> Owed:
    row = Owed(
        id=tx.new_id("obx"),
        rail=rail,
        kind=kind,
        object_id=object_id,
        action=action,
        payload=payload,
        rank=RANKS[kind] if rank is None else rank,
        revision=1,
        status="owed",
        attempts=0,
        pending_since=tx.now,
        next_attempt_at=tx.now,
        claimed_by=None,
        claimed_until=None,
        error=None,
        done_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.execute(statement, {**row_of(row), TENANT: tx.tenant})
    return row


def rails_due(tx: Tx) -> list[str]:
    """The rails to which something is due."""
    return [row.rail for row in tx.all(_RAILS_DUE, {"now": tx.now})]


def claim(tx: Tx, rail: str, worker: str, *, most: int, only: tuple[str, str] | None = None) -> list[Owed]:
    """Take some of what is due to a rail; ``only``: of this kind and object."""
    params: dict[str, Any] = {"rail": rail, "now": tx.now, "most": most}
    if only is None:
        ids = [row.id for row in tx.all(_DUE, params)]
    else:
        ids = [row.id for row in tx.all(_DUE_OBJECT, {**params, "kind": only[0], "object_id": only[1]})]
    taken = []
    for owed_id in ids:
        until = tx.now + CLAIM_LASTS
        row = tx.one(_CLAIM, {"owed_id": owed_id, "worker": worker, "until": until, "now": tx.now})
        if row is not None:
            taken.append(Owed(*row))
    return sorted(taken, key=lambda one: (one.rank, one.id))


def sending(tx: Tx, owed: Owed) -> bool:
    """Note that it is about to be sent: should we die now, its outcome is in doubt. Whether it is still ours."""
    return tx.execute(_SENDING, {"owed_id": owed.id, "worker": owed.claimed_by, "now": tx.now}) == 1


def done(tx: Tx, owed: Owed) -> bool:
    """It is done; whether nothing more is owed of the object."""
    params = {"owed_id": owed.id, "worker": owed.claimed_by, "at_revision": owed.revision, "now": tx.now}
    row = tx.one(_DONE, params)
    return row is not None and row.status == "done"


def refused(tx: Tx, owed: Owed, why: str) -> None:
    """The rail refused it for good: a person has to look."""
    params = {"owed_id": owed.id, "worker": owed.claimed_by, "at_revision": owed.revision, "now": tx.now}
    if tx.execute(_REFUSED, {**params, "why": why}):
        known = links.get(tx, owed.rail, owed.kind, owed.object_id)  # type: ignore[arg-type]
        if known is not None:
            links.sync(tx, known, "refused", pending_since=known.pending_since)
        tx.record("sync.refused", owed.kind, owed.object_id, rail=owed.rail, why=why)


def postpone(
    tx: Tx,
    owed: Owed,
    why: str,
    *,
    status: Literal["owed", "in_doubt"],
    pause: timedelta | None = None,
    counts: bool = True,
) -> None:
    """Try again after a pause, which grows with the attempts unless it is given."""
    if pause is None:
        pause = _PAUSES[min(max(owed.attempts, 1), len(_PAUSES)) - 1]
    tx.execute(
        _POSTPONE,
        {
            "owed_id": owed.id,
            "worker": owed.claimed_by,
            "new_status": status,
            "uncounted": 0 if counts else 1,
            "next": tx.now + pause,
            "why": why,
            "now": tx.now,
        },
    )


class RailSync(msgspec.Struct, frozen=True):
    """How far one rail is in step with us."""

    rail: str
    owed: int
    in_doubt: int
    refused: int
    oldest_pending_since: Any
    """When the oldest of what is owed became so; None when nothing is."""
    copies: int
    different: int
    stale: int
    """Copies that nobody has heard of for an hour."""


_STALE_AFTER = timedelta(hours=1)


def status(tx: Tx) -> list[RailSync]:
    """How far every connected rail that keeps copies is in step with us, and every rail to which something is owed."""
    counts = {(row.rail, row.status): row for row in tx.all(_COUNTS)}
    stale = {row.rail: row.number for row in tx.all(_STALE, {"before": tx.now - _STALE_AFTER})}
    linked = {(row.rail, row.sync_status): row.number for row in tx.all(_LINKS)}
    rails = {row.rail for row in tx.all(_ACTIVE)} | {rail for rail, _ in counts}
    found = []
    for rail in sorted(rails):
        waiting = [
            row.oldest for one in ("owed", "in_doubt") if (row := counts.get((rail, one))) is not None and row.oldest
        ]
        number = {
            one: counts[rail, one].number if (rail, one) in counts else 0 for one in ("owed", "in_doubt", "refused")
        }
        found.append(
            RailSync(
                rail,
                number["owed"],
                number["in_doubt"],
                number["refused"],
                min(waiting) if waiting else None,
                sum(count for (name, _), count in linked.items() if name == rail),
                linked.get((rail, "different"), 0),
                stale.get(rail, 0),
            )
        )
    return found


def list_open(tx: Tx, *, after: str = "", limit: int = 20) -> Page[Owed]:
    """A page of what is owed, in doubt or refused, oldest first."""
    rows = tx.all(_LIST, {"after": after, "limit": limit + 1})
    return page_of([Owed(*row) for row in rows], limit)


def of_object(tx: Tx, rail: str, kind: str, object_id: str) -> Owed | None:
    """What is or was owed to a rail so that its copy of an object is in step."""
    row = tx.one(_OF_OBJECT, {"rail": rail, "kind": kind, "object_id": object_id})
    return Owed(*row) if row else None


def changes_of(tx: Tx, subscription_id: str, *, limit: int = 10) -> list[Owed]:
    """The latest changes of a subscription that its rail was to make, newest first."""
    rows = tx.all(_LATEST_CHANGES, {"object_id": subscription_id, "limit": limit})
    return [Owed(*row) for row in rows]


def open_change(tx: Tx, subscription_id: str) -> Owed | None:
    """The oldest change of a subscription that its rail has yet to make."""
    row = tx.one(_OPEN_CHANGE, {"object_id": subscription_id})
    return Owed(*row) if row else None


def give_way(tx: Tx, waiting: Owed) -> bool:
    """Take back an open change that follows by itself and that nobody is at; whether it was one."""
    return tx.execute(_WITHDRAW, {"owed_id": waiting.id}) == 1


def changes_of_many(tx: Tx, subscription_ids: Iterable[str]) -> dict[str, list[Owed]]:
    """All changes of these subscriptions that their rails were to make, by the subscription's id, the latest last."""
    found: dict[str, list[Owed]] = {}
    for row in tx.all(_CHANGES_OF_MANY, {"object_ids": sorted(subscription_ids)}):
        found.setdefault(row.object_id, []).append(Owed(*row))
    return found


def hurry(tx: Tx, owed_id: str) -> None:
    """Have it tried now, unless somebody is at it."""
    tx.execute(_HURRY, {"owed_id": owed_id, "now": tx.now})


def retry(tx: Tx, rail: str) -> int:
    """Have everything that is owed to a rail tried again now, also what was refused; how many."""
    return tx.execute(_RETRY, {"of_rail": rail, "now": tx.now})
