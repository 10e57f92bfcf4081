"""Which rails there are, and how to reach a tenant's.

Each rail's code is imported when a tenant first uses it, so that none costs a start its time.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, cast

from counterfoil.db.base import Database
from counterfoil.exchange import outbox, rail_settings
from counterfoil.kernel.errors import Invalid, NotFound
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import Rail
from counterfoil.rails.mirror import Mirror
from counterfoil.settlement.checkout import FREE

_REMEMBERED_SECONDS = 15.0


class _Kind(NamedTuple):
    module: str
    rail: str
    settings: str
    is_test: bool = False
    """Whether its money is play money."""


RAILS = {
    "sandbox": _Kind("counterfoil.rails.sandbox.rail", "SandboxRail", "SandboxSettings", is_test=True),
    "btcpay": _Kind("counterfoil.rails.btcpay", "BTCPayRail", "BTCPaySettings"),
    "stripe": _Kind("counterfoil.rails.stripe", "StripeRail", "StripeSettings"),
    "stripe-test": _Kind("counterfoil.rails.stripe", "StripeRail", "StripeSettings", is_test=True),
    "paddle": _Kind("counterfoil.rails.paddle", "PaddleRail", "PaddleSettings"),
    "paddle-test": _Kind("counterfoil.rails.paddle", "PaddleRail", "PaddleSettings", is_test=True),
}
"""Live and test accounts of one provider are two rails, so that nothing of the one is ever taken for the other."""
RENEWING = frozenset(outbox.MIRRORED)
"""The rails that take money again by themselves."""
HOSTED_LASTS = timedelta(hours=1)
"""How long a checkout holds at least on their hosted pages, where buyers fetch their cards; Stripe's least is half an
hour."""


TAKEN = frozenset({*RAILS, FREE, "solana"})
"""Names of rails that prove their own money, whether they are connected or not."""


class Connection(NamedTuple):
    """A tenant's rail, ready to translate."""

    rail: Rail
    settings: Any

    @property
    def mirror(self) -> Mirror:
        """The rail as a keeper of copies. Raises NotFound (``rail_keeps_no_copies``) for one that keeps none."""
        if self.rail.name not in outbox.MIRRORED:
            raise NotFound(f"{self.rail.name} keeps no copies.", code="rail_keeps_no_copies")
        return cast("Mirror", self.rail)


class Rails:
    """Every tenant's rails, opened and remembered for some seconds.

    Another process may change what is stored; whoever meets a refusal that a change could explain asks
    again with ``fresh``.
    """

    def __init__(self, database: Database, master: MasterKey, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._master = master
        self._monotonic = monotonic
        self._known: dict[tuple[str, str], tuple[float, Connection]] = {}

    def forget(self, tenant: str, rail: str) -> None:
        """What is stored has changed."""
        self._known.pop((tenant, rail), None)

    async def get(self, tenant: str, name: str, *, fresh: bool = False) -> Connection:
        """A connected rail. Raises NotFound (``rail_not_connected``)."""
        known = self._known.get((tenant, name))
        if known is not None and not fresh and self._monotonic() - known[0] < _REMEMBERED_SECONDS:
            return known[1]
        kind = RAILS.get(name)
        row = await self._database.scope(tenant).read(rail_settings.load, name) if kind else None
        if kind is None or row is None:
            self._known.pop((tenant, name), None)
            raise NotFound(f"The rail {name[:40]!r} is not connected.", code="rail_not_connected")
        module = importlib.import_module(kind.module)
        settings = rail_settings.unseal(row, tenant, self._master, getattr(module, kind.settings))
        made = getattr(module, kind.rail)
        connection = Connection(made(name) if name in outbox.MIRRORED else made(), settings)
        self._known[tenant, name] = (self._monotonic(), connection)
        return connection

    async def choose(self, tenant: str, wanted: str | None) -> str | None:
        """The rail to use: the one asked for, else the only connected one, real ones first; None where there is none.

        Raises NotFound (``rail_not_connected``) when the one asked for is not; Invalid (``rail_required``)
        when there are several and none was named.
        """
        if wanted is not None:
            await self.get(tenant, wanted)
            return wanted
        rows = await self._database.scope(tenant).read(rail_settings.list_)
        active = [row.rail for row in rows if row.status == "active"]
        real = [rail for rail in active if rail in RAILS and not RAILS[rail].is_test] or active
        if len(real) == 1:
            return real[0]
        if not real:
            return None
        raise Invalid.field("rail", f"one of {', '.join(real)}", code="rail_required")
