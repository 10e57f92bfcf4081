"""Which ways an order and a parcel of it can go: the tables that docs/orders.md prints. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from counterfoil.kernel.errors import Conflict
from counterfoil.sales.types import FulfillmentStatus, OrderStatus

S = TypeVar("S", bound=str)

ORDER_STEPS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    "created": frozenset({"paid", "canceled"}),
    "paid": frozenset(
        {"processing", "partially_fulfilled", "fulfilled", "shipped", "delivered", "canceled", "refunded"}
    ),
    "processing": frozenset({"partially_fulfilled", "fulfilled", "shipped", "delivered", "canceled", "refunded"}),
    "partially_fulfilled": frozenset({"processing", "fulfilled", "shipped", "delivered", "refunded"}),
    "fulfilled": frozenset({"processing", "partially_fulfilled", "shipped", "delivered", "refunded"}),
    "shipped": frozenset({"delivered", "refunded"}),
    "delivered": frozenset({"refunded"}),
    "canceled": frozenset(),
    "refunded": frozenset(),
}
"""Where an order may go from each state. Back only where a parcel is canceled that had not left."""

BY_REFUND_ONLY: frozenset[OrderStatus] = frozenset({"refunded"})
"""What only money that went back brings about, and nobody's word."""

FULFILLMENT_STEPS: Mapping[FulfillmentStatus, frozenset[FulfillmentStatus]] = {
    "pending": frozenset({"shipped", "canceled"}),
    "shipped": frozenset({"delivered"}),
    "delivered": frozenset(),
    "canceled": frozenset(),
}
"""Where a parcel may go. One that has left cannot be canceled any more."""

OPEN_TO_FULFILLMENT: frozenset[OrderStatus] = frozenset(
    {"paid", "processing", "partially_fulfilled", "fulfilled", "shipped"}
)
"""The orders of which something may still be packed and sent."""


def check_step(what: str, steps: Mapping[S, frozenset[S]], before: S, after: S) -> None:
    """Raise Conflict (``illegal_transition``), naming both states, unless the table has this step."""
    if after not in steps[before]:
        raise illegal(what, before, after)


def illegal(what: str, before: str, after: str) -> Conflict:
    """The refusal of a step that the table does not have."""
    return Conflict(f"{what} cannot go from {before} to {after}.", code="illegal_transition")
