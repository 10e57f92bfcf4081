"""Passwords hashed in threads, a few at a time: each takes 19 MiB and tens of milliseconds of a processor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from counterfoil.accounts import passwords
from counterfoil.http.access import Asker
from counterfoil.kernel.errors import TooManyRequests

AT_ONCE = 2
MOST_WAITING = 40
"""So many wait for about a second; more are sent away."""
_COME_BACK_SECONDS = 2

R = TypeVar("R")


class Hashing:
    """The threads, and the line before them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hashing")
        self._under_way = 0

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one behind a hash; as slow where there is none. Raises TooManyRequests."""
        return await self._in_turn(lambda: passwords.verify(stored, password))

    async def hash(self, password: str) -> str:
        """The hash of a checked password. Raises TooManyRequests."""
        return await self._in_turn(lambda: passwords.hash_(password))

    async def _in_turn(self, work: Callable[[], R]) -> R:
        if self._under_way >= AT_ONCE + MOST_WAITING:
            raise TooManyRequests("Too many people sign in at the moment. Try again.", retry_after=_COME_BACK_SECONDS)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1


def hashing_of(request: Asker) -> Hashing:
    """The hashing of this process."""
    hashing: Hashing = request.app.state.hashing
    return hashing
