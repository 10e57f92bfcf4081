"""What rails say of their copies of our objects: how far they are in step."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Mirror, Subject
from counterfoil.settlement import links
from counterfoil.settlement.types import RailLink

_FOLLOW_UP: Final = "counterfoil_follow_up"
"""Where a link's raw words hold the name of what belongs to the copy; no rail uses the word."""


def differences(mirror: Mirror, settings: Any, subject: Subject, copy: RailCopy) -> list[str]:
    """The fields in which a copy is not as ours; what the rail does not hold cannot differ. Raises RailRefused."""
    if copy.gone:
        return ["deleted"] if subject.active else []
    expected = mirror.expected(settings, subject)
    return sorted(name for name, value in expected.items() if copy.values.get(name) != value)


def is_in_step(mirror: Mirror, settings: Any, subject: Subject, copy: RailCopy) -> bool:
    """Whether it is as ours. Raises RailRefused."""
    return not differences(mirror, settings, subject, copy)


def is_gone(known: RailLink) -> bool:
    """Whether the copy was deleted there, by us: it can be made anew under its name."""
    return known.raw is not None and known.raw.get("deleted") is True


def follow_up_of(known: RailLink) -> str | None:
    """The rail's name for what belongs to a copy, as far as we know."""
    reference = (known.raw or {}).get(_FOLLOW_UP)
    return reference if isinstance(reference, str) else None


def with_follow_up(copy: RailCopy, reference: str) -> RailCopy:
    """A copy, with the name of what belongs to it kept in its raw words."""
    return msgspec.structs.replace(copy, raw={**copy.raw, _FOLLOW_UP: reference})


def hear(tx: Tx, rail: str, copy: RailCopy, *, event_id: str, at: datetime) -> bool:
    """Note a rail's news of a copy; whether it counts.

    News never changes our object: we lead. An object that carries our id and that we did not know of is linked: we
    had asked for it, and its answer was lost. Others are the rail's own until they are imported.
    """
    kind: Any = copy.kind
    known = links.find(tx, rail, kind, copy.reference)
    if known is None and copy.our_id is not None:
        owed = outbox.of_object(tx, rail, copy.kind, copy.our_id)
        if owed is None or links.get(tx, rail, kind, copy.our_id) is not None:
            return False  # not something that we asked for: somebody copied our words
        known = links.link(tx, rail, kind, copy.our_id, copy.reference, sync_status="pending", raw=copy.raw)
    if known is None:
        return False
    return links.hear(tx, known, at=copy.occurred_at or at, event_id=event_id, raw=copy.raw)
