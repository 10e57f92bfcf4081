"""Which credentials are in use, noted now and then: a request that only reads must not wait for a write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from counterfoil.accounts import api_keys, sessions
from counterfoil.db.base import Database
from counterfoil.kernel.errors import Unavailable
from counterfoil.logs import get_logger

_log = get_logger(__name__)

_FLUSH_SECONDS = 10.0


class Uses:
    """Gathers the ids of credentials that were used, and writes them down together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[tuple[str, Literal["key", "session"]], set[str]] = {}

    def note(self, tenant: str, kind: Literal["key", "session"], credential_id: str) -> None:
        """Remember that a credential was used just now."""
        self._noted.setdefault((tenant, kind), set()).add(credential_id)

    async def flush(self) -> None:
        """Write down what was noted. What cannot be written now is noted again by the next request."""
        noted, self._noted = self._noted, {}
        for (tenant, kind), ids in noted.items():
            touch = api_keys.touch if kind == "key" else sessions.touch
            await self._database.scope(tenant).run(touch, sorted(ids))

    @contextlib.asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """Flush every few seconds while the block lasts, and at its end."""
        task = asyncio.create_task(self._flush_for_ever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(Unavailable):
                await self.flush()

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                _log.warning("uses were not noted", why=error.detail)
