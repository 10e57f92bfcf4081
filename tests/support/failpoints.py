"""A process that dies on purpose: right after its n-th step that lasts.

What lasts is a transaction of ours that is durable, and a request that a rail has taken in. To die before the next
step is the same as to die after this one, so dying once after each of them is dying everywhere.

    steps = Failpoints(shop.house, at=3)
    died = await steps.run(flow(shop))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from counterfoil.house import House


class Killed(BaseException):
    """The process is gone: nobody catches this, and nothing lasts that is tried afterwards."""


class Failpoints:
    """Counts the lasting steps of a house, and lets it die after one of them.

    ``at``: after which one, from 1; None only counts. ``before``: whether that one step comes to nothing, so that
    what the dead process had under way is lost with it.
    """

    def __init__(self, house: House, at: int | None = None, *, before: bool = False) -> None:
        self.at = at
        self.count = 0
        self.steps: list[str] = []
        """What each step was, in order."""
        self._before = before
        self._dead = asyncio.Event()
        self._house = house
        self._write = house.database._write
        self._send = house.client.send

    @property
    def died(self) -> bool:
        """Whether it came to that."""
        return self._dead.is_set()

    async def run(self, flow: Coroutine[Any, Any, Any]) -> bool:
        """Run a flow to its end or to the death of its house; whether it died.

        Raises what the flow raises while the house lives. Afterwards the house works again, so that it can be closed.
        """
        database: Any = self._house.database
        client: Any = self._house.client
        database._write = self._wrap(self._write, "transaction")
        client.send = self._wrap(self._send, "request")
        task = asyncio.create_task(flow)
        dead = asyncio.create_task(self._dead.wait())
        try:
            await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED)
            if self.died:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return True
            await task
            return False
        finally:
            dead.cancel()
            await asyncio.gather(dead, return_exceptions=True)
            del database._write, client.send

    def _wrap(self, original: Callable[..., Coroutine[Any, Any, Any]], what: str) -> Callable[..., Any]:
        async def step(*args: Any, **kwargs: Any) -> Any:
            if self.died:
                raise Killed
            self.count += 1
            number = self.count
            self.steps.append(f"{what} {getattr(args[0], 'url', '')}".strip())
            if number == self.at and self._before:
                self._die()
            answer = await original(*args, **kwargs)
            if number == self.at:
                self._die()
            if self.died:  # it was under way when another step was the last
                raise Killed
            return answer

        return step

    def _die(self) -> None:
        self._dead.set()
        raise Killed
