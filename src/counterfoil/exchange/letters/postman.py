"""Sending in the background: neither a request nor the other jobs wait for a mail server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from counterfoil.db.base import Database, Scope
from counterfoil.events.types import Actor
from counterfoil.exchange.letters.sender import MOST, Sender
from counterfoil.logs import get_logger

GRACE_SECONDS = 10
"""How long letters in hand may take when the process stops."""
_ROUND_SECONDS = 1.0
"""How long the job that sends letters looks on."""

_log = get_logger(__name__)


class Postman:
    """Sends each tenant's letters, in one task a tenant."""

    def __init__(self, database: Database, sender: Sender) -> None:
        self.sender = sender
        self._database = database
        self._wanted: set[str] = set()
        self._rounds: dict[str, asyncio.Task[int]] = {}

    def send_soon(self, tenant: str) -> asyncio.Task[int]:
        """Send what is due of a tenant, beginning now; the task that does it, for who wants to wait."""
        self._wanted.add(tenant)
        running = self._rounds.get(tenant)
        if running is None:
            running = self._rounds[tenant] = asyncio.create_task(self._go_round(tenant))
            running.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait for it
        return running

    async def send(self, scope: Scope) -> int:
        """The job: send what is due, and look on for a moment; how many letters were dealt with in it."""
        task = self.send_soon(scope.tenant)
        done, _ = await asyncio.wait({task}, timeout=_ROUND_SECONDS)
        return task.result() if done else 0

    async def _go_round(self, tenant: str) -> int:
        scope = self._database.scope(tenant, Actor("job", "send_mail", source="job"))
        count = 0
        try:
            while tenant in self._wanted and not self.sender.stopping:
                self._wanted.discard(tenant)
                dealt_with = await self.sender.send_due(scope)
                count += dealt_with
                if dealt_with == MOST:
                    self._wanted.add(tenant)
        except Exception:
            _log.exception("letters could not be sent", tenant=tenant)
            raise
        finally:
            del self._rounds[tenant]
        return count

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Letters in hand when the block ends have ten seconds to leave."""
        try:
            yield
        finally:
            self.sender.stopping = True
            tasks = set(self._rounds.values())
            if tasks:
                await asyncio.wait(tasks, timeout=GRACE_SECONDS)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
