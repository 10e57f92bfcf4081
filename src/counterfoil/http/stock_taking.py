"""Taking stock, as the API and the command line share it."""

from __future__ import annotations

from counterfoil.catalog import stock
from counterfoil.catalog.stock import Drift
from counterfoil.db.base import Scope


async def reconcile_stock(scope: Scope, *, fix: bool) -> list[Drift]:
    """Every item whose ``reserved`` is not what checkouts hold of it, corrected where ``fix`` says so.

    Each is looked at again in a transaction of its own, so nobody who buys meanwhile waits for more than one item.
    """
    found = [
        await scope.run(stock.reconcile, item_id, fix=fix)  # one at a time: this is no hurry
        for item_id in await scope.read(stock.drifted)
    ]
    return [drift for drift in found if drift is not None]
