"""What a checkout holds for its buyer until it is paid or over: a use of each discount."""

from __future__ import annotations

from counterfoil.catalog import discounts
from counterfoil.db.tx import Tx


def release(tx: Tx, checkout_id: str) -> None:
    """Give back all that a checkout still holds. Every way out of a checkout but settling it ends here."""
    discounts.release(tx, checkout_id)


def keep(tx: Tx, checkout_id: str) -> bool:
    """Make final what a checkout holds, and take again what it had to give back meanwhile.

    False, with nothing changed, when some of that is gone.
    """
    return discounts.redeem(tx, checkout_id)
