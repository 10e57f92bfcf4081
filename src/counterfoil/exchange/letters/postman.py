"""Sending in the background: neither a request nor the other jobs wait for a mail server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from counterfoil.db.base import Database, Scope
from counterfoil.events.types import Actor
from counterfoil.exchange.letters.sender import MOST, Sender
from counterfoil.exchange.rounds import Rounds

_ROUND_SECONDS = 1.0
"""How long the job that sends letters looks on."""


class Postman(Rounds):
    """Sends each tenant's letters."""

    what = "letters"

    def __init__(self, database: Database, sender: Sender) -> None:
        super().__init__()
        self.sender = sender
        self._database = database

    async def work(self, scope: Scope) -> int:
        """The job: send what is due, and look on for a moment; how many letters were dealt with in it."""
        return await self.look_on(scope.tenant, _ROUND_SECONDS)

    async def go_round(self, tenant: str) -> int:
        """Send what is due of a tenant; how many letters were dealt with."""
        scope = self._database.scope(tenant, Actor("job", "send_mail", source="job"))
        dealt_with = await self.sender.send_due(scope)
        if dealt_with == MOST:
            self.soon(tenant)
        return dealt_with

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Letters in hand when the block ends have ten seconds to leave."""
        async with super().at_work():
            try:
                yield
            finally:
                self.sender.stopping = True
