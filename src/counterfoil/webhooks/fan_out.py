"""Fan-out: in the transaction of an event, a delivery for each endpoint that wants to hear of it.

So news exists exactly when what it tells is true, and says what was true then, whatever happens later.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_or_update

from counterfoil.db.schema import TENANT, mine, tenant
from counterfoil.db.tx import Recorded, Tx
from counterfoil.webhooks import objects
from counterfoil.webhooks.tables import webhook_deliveries, webhook_endpoints, webhook_sequences
from counterfoil.webhooks.types import Delivery

VERSION = "1"
"""Of the payload's form."""

_UNTOLD = {"webhook_delivery"}
"""What became of news is no news."""
_AT_ONCE = 100

# An endpoint that is being deleted is waited for here, and gone then; without the lock, the delivery's reference to
# it would fail, and the sale with it.
_LISTENING = (
    sa.select(webhook_endpoints.c.id, webhook_endpoints.c.event_types)
    .where(mine(webhook_endpoints), webhook_endpoints.c.status == "enabled")
    .order_by(webhook_endpoints.c.id)
    .with_for_update(read=True, key_share=True)
)


class Payload(msgspec.Struct, frozen=True):
    """The body of a message (Standard Webhooks), in this order."""

    id: str
    type: str
    timestamp: datetime
    """When it happened."""
    version: str
    sequence: int
    """1, 2, 3, ... for each object: of two messages about it, the one with the higher number is newer."""
    data: dict[str, Any]
    """The object as it was then."""
    details: dict[str, Any]
    """What the event says besides."""


def fan_out(tx: Tx, recorded: Sequence[Recorded]) -> bool:
    """Queue what the endpoints want to hear of these events; whether there was anything."""
    endpoints = tx.all(_LISTENING)
    if not endpoints:
        return False
    wanted = []
    for event in recorded:
        ids = [one.id for one in endpoints if matches(one.event_types, event["type"])]
        if ids and event["object_kind"] not in _UNTOLD:
            wanted.append((event, ids))
    if wanted:
        queue(tx, wanted)
    return bool(wanted)


def matches(patterns: Iterable[str], event_type: str) -> bool:
    """Whether one of the patterns (``*``, ``order.*``, ``order.paid``) covers a type."""
    return any(
        pattern in {"*", event_type} or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
        for pattern in patterns
    )


def queue(tx: Tx, wanted: Sequence[tuple[Recorded, list[str]]]) -> list[Delivery]:
    """Queue each event for its endpoints."""
    by_kind: defaultdict[str, set[str]] = defaultdict(set)
    for event, _ in wanted:
        by_kind[event["object_kind"]].add(event["object_id"])
    data = {kind: objects.read(tx, kind, ids) for kind, ids in by_kind.items()}
    told = _take_numbers(tx, Counter(event["object_id"] for event, _ in wanted))
    rows = []
    for event, endpoint_ids in wanted:
        told[event["object_id"]] += 1
        sequence = told[event["object_id"]]
        payload = _payload(event, sequence, data[event["object_kind"]].get(event["object_id"]))
        rows += [_row(tx, endpoint_id, event, sequence, payload) for endpoint_id in endpoint_ids]
    tx.insert(webhook_deliveries, *rows)
    return rows


def _payload(event: Recorded, sequence: int, shown: dict[str, Any] | None) -> str:
    details = dict(event["details"])
    if event["asset"] is not None:
        details = {"amount": event["amount"], "asset": event["asset"], **details}
    payload = Payload(
        id=event["id"],
        type=event["type"],
        timestamp=event["created_at"],
        version=VERSION,
        sequence=sequence,
        data=shown if shown is not None else {"id": event["object_id"]},
        details=details,
    )
    return msgspec.json.encode(payload).decode()


def _row(tx: Tx, endpoint_id: str, event: Recorded, sequence: int, payload: str) -> Delivery:
    return Delivery(
        id=tx.new_id("whd"),
        endpoint_id=endpoint_id,
        event_id=event["id"],
        event_type=event["type"],
        object_kind=event["object_kind"],
        object_id=event["object_id"],
        sequence=sequence,
        payload=payload,
        status="pending",
        attempts=0,
        next_attempt_at=tx.now,
        claimed_by=None,
        claimed_until=None,
        last_attempt_at=None,
        last_status=None,
        last_error=None,
        completed_at=None,
        created_at=tx.now,
        updated_at=tx.now,
    )


def _take_numbers(tx: Tx, counts: Counter[str]) -> dict[str, int]:
    """Take so many fresh numbers for each object; how many it had before. Rows are locked in the order of ids."""
    told: dict[str, int] = {}
    ids = sorted(counts)
    for place in range(0, len(ids), _AT_ONCE):
        chunk = ids[place : place + _AT_ONCE]
        params: dict[str, Any] = {"now": tx.now}
        for number, object_id in enumerate(chunk):
            params |= {f"id_{number}": object_id, f"count_{number}": counts[object_id]}
        rows = tx.all(_take(len(chunk)), params)
        told |= {row.object_id: row.last - counts[row.object_id] for row in rows}
    return told


@cache
def _take(size: int) -> sa.Executable:
    rows = [
        {
            TENANT: tenant(),
            "object_id": sa.bindparam(f"id_{number}", type_=sa.Text),
            "last": sa.bindparam(f"count_{number}", type_=sa.BigInteger),
            "created_at": sa.bindparam("now", type_=webhook_sequences.c.created_at.type),
        }
        for number in range(size)
    ]
    statement = insert_or_update(webhook_sequences).values(rows)
    return statement.on_conflict_do_update(
        index_elements=[TENANT, "object_id"], set_={"last": webhook_sequences.c.last + statement.excluded.last}
    ).returning(webhook_sequences.c.object_id, webhook_sequences.c.last)
