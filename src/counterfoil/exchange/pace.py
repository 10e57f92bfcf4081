"""How fast a rail is asked: no more than it allows, and nothing while it has said to wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from counterfoil.exchange.client import RailClient, follow
from counterfoil.exchange.rails import Connection
from counterfoil.rails.base import HttpRequest, HttpResponse
from counterfoil.rails.mirror import RailBusy, Rate

PATIENCE_SECONDS = 20.0
"""How long somebody waits for a turn. Whoever would have to wait longer is told so, and comes again."""

R = TypeVar("R")


class NoTurn(RailBusy):
    """So much waits to be asked that nothing more can be."""


class Pace:
    """Gives turns to ask, evenly spread over the time that the rail's limit is for."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._slots = asyncio.Semaphore(rate.at_once)
        self._gap = rate.seconds / rate.requests
        self._next = 0.0
        self._held_until = 0.0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the block lasts. Raises NoTurn when there is none soon."""
        while True:
            wait = self.seconds_to_wait()
            if wait > PATIENCE_SECONDS:
                raise NoTurn("the rail's limit is reached", retry_after=wait)
            now = time.monotonic()
            self._next = max(now, self._next, self._held_until) + self._gap
            if wait > 0:
                await asyncio.sleep(wait)
            if self._held_until <= time.monotonic():
                break  # else the rail said to wait meanwhile
        async with self._slots:
            yield

    def seconds_to_wait(self) -> float:
        """How long the next one waits for a turn."""
        return max(0.0, max(self._next, self._held_until) - time.monotonic())

    @property
    def soon(self) -> int:
        """How many can be asked about well before anybody loses patience, though some take two requests."""
        return max(1, int(self.rate.requests / self.rate.seconds * PATIENCE_SECONDS / 2))

    def hold(self, seconds: float) -> None:
        """The rail said to wait."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)


class Paces:
    """The pace of each rail of each tenant; one for all tenants where the rail counts addresses, not accounts."""

    def __init__(self, client: RailClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Pace] = {}

    def of(self, tenant: str, connection: Connection) -> Pace:
        """How fast a tenant's rail is asked."""
        rate: Rate = connection.mirror.rate(connection.settings)
        key = ("" if rate.by_address else tenant, connection.rail.name)
        known = self._known.get(key)
        if known is None or known.rate != rate:
            known = self._known[key] = Pace(rate)
        return known

    async def ask(
        self, tenant: str, connection: Connection, request: HttpRequest, read: Callable[[HttpResponse], R]
    ) -> R:
        """Ask a rail something within its limits, and read the answer; further pages, too, where it has some.

        Raises RailBusy, RailUnavailable and what reading does.
        """
        return await follow(_Paced(self._client, self.of(tenant, connection)), request, read)


class _Paced:
    def __init__(self, client: RailClient, pace: Pace) -> None:
        self._client = client
        self._pace = pace

    async def send(self, request: HttpRequest) -> HttpResponse:
        async with self._pace.turn():
            return await self._client.send(request)
