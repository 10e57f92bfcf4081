"""Work in the background, tenant by tenant: neither a request nor other jobs wait for a rail or a mail server."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from counterfoil.logs import get_logger

GRACE_SECONDS = 10
"""How long what is in hand may take when the process stops."""

_log = get_logger(__name__)


class Rounds(ABC):
    """Something that is seen to in rounds, in one task a tenant, for as long as somebody wants one more."""

    what: str
    """What it is, for the log."""

    def __init__(self) -> None:
        self.stopping = False
        """Whether the process is about to end: what is in hand is finished, and nothing more is begun."""
        self._wanted: set[str] = set()
        self._rounds: dict[str, asyncio.Task[int]] = {}

    @abstractmethod
    async def go_round(self, tenant: str) -> int:
        """See to what is due of a tenant now; how many."""

    def soon(self, tenant: str) -> asyncio.Task[int]:
        """See to what is due of a tenant, beginning now; the task that does it, for who wants to wait."""
        self._wanted.add(tenant)
        running = self._rounds.get(tenant)
        if running is None:
            running = self._rounds[tenant] = asyncio.create_task(self._go_on(tenant))
            running.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait for it
        return running

    async def look_on(self, tenant: str, seconds: float) -> int:
        """See to what is due of a tenant, and wait for it so long; how many, if it was done by then."""
        task = self.soon(tenant)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        return task.result() if done else 0

    async def _go_on(self, tenant: str) -> int:
        count = 0
        try:
            while tenant in self._wanted and not self.stopping:
                self._wanted.discard(tenant)
                count += await self.go_round(tenant)
        except Exception:
            _log.exception(f"{self.what} could not be seen to", tenant=tenant)
            raise
        finally:
            del self._rounds[tenant]
        return count

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """What is in hand when the block ends has ten seconds."""
        try:
            yield
        finally:
            self.stopping = True
            tasks = set(self._rounds.values())
            if tasks:
                await asyncio.wait(tasks, timeout=GRACE_SECONDS)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
