"""Taking in what was sold elsewhere."""

from __future__ import annotations

from collections.abc import Collection

from counterfoil.accounts import customers, users
from counterfoil.db.tx import Tx
from counterfoil.sales import order_imports
from counterfoil.sales.order_imports import Imported, NewOrder


def import_order(tx: Tx, new: NewOrder, *, rails: Collection[str]) -> Imported:
    """Write down an order made elsewhere, for a customer and a user of ours if it names them.

    Raises NotFound (``customer_not_found``, ``user_not_found``), and what ``order_imports.import_`` raises.
    """
    if new.customer_id is not None:
        customers.get(tx, new.customer_id)
    if new.user_id is not None:
        users.get(tx, new.user_id)
    return order_imports.import_(tx, new, rails=rails)
