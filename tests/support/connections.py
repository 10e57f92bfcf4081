"""Connections to PostgreSQL that outlive a test: each new one costs the server more than most tests do.

Every test opens engines of its own; those for the database that all tests of a process share draw on one pool, as
long as they run in the one event loop that the tests have. Servers have an engine of their own, and are not affected.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from counterfoil.db import postgres

_USUAL_SIZE = 10
_MORE = 50
"""For tests with several engines, each of which takes no more than the usual; closed when they are given back."""
_STATEMENTS = 1_000
"""All that the tests say; a server's hundred would be prepared again and again."""

_shared: set[str] = set()
_kept: dict[str, sa.Engine] = {}
_loop: list[asyncio.AbstractEventLoop] = []
_own: set[int] = set()
"""The server's process of each connection."""


def keep_for(database: str) -> None:
    """Keep the connections to this database."""
    _shared.add(database)


def backends() -> str:
    """The server's processes that serve kept connections, as PostgreSQL writes an array."""
    return "{" + ",".join(map(str, sorted(_own))) + "}"


@contextlib.asynccontextmanager
async def kept() -> AsyncIterator[None]:
    """Keep connections as long as this event loop runs."""
    _loop.append(asyncio.get_running_loop())
    yield
    _loop.clear()
    for engine in _kept.values():
        await greenlet_spawn(engine.dispose)
    _kept.clear()


def share() -> None:
    """Have engines keep their connections, those that are made from now on in the loop of :func:`kept`."""
    make: Callable[..., sa.Engine] = postgres.create_engine

    def create_engine(url: sa.URL, **options: Any) -> sa.Engine:
        if url.database not in _shared or options["pool_size"] != _USUAL_SIZE or not _in_the_loop():
            return make(url, **options)
        first = _kept.get(url.database)
        if first is None:
            arguments = {"prepared_statement_cache_size": _STATEMENTS, **options["connect_args"]}
            first = _kept[url.database] = make(url, **{**options, "max_overflow": _MORE, "connect_args": arguments})
            sa.event.listen(first.pool, "connect", _note)
        engine = make(url, **options)
        engine.pool = first.pool
        engine.dispose = _keep  # type: ignore[method-assign]
        return engine

    postgres.create_engine = create_engine  # type: ignore[assignment]


def _in_the_loop() -> bool:
    """A command that a test runs has a loop of its own, which ends with it."""
    try:
        return asyncio.get_running_loop() in _loop
    except RuntimeError:
        return False


def _keep() -> None:
    """Instead of closing the pool: others go on with it."""


def _note(connection: Any, _record: Any) -> None:
    _own.add(connection.driver_connection.get_server_pid())
