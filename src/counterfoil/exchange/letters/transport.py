"""What there is to know of a way for letters to leave."""

from __future__ import annotations

from typing import Protocol

from counterfoil.exchange.letters.message import Message


class Refused(Exception):
    """The letter is refused for good. It was not sent."""


class Postponed(Exception):
    """The letter was surely not sent; it may be later. ``others``: other letters would meet the same now."""

    def __init__(self, why: str, *, others: bool = False) -> None:
        super().__init__(why)
        self.others = others


class Uncertain(Exception):
    """The letter may have been sent or not."""


class Transport(Protocol):
    """A way for letters to leave, used for one letter after the other."""

    begun: bool
    """Whether the letter in hand may be out of it already."""

    async def send(self, message: Message) -> None:
        """Return once the letter is out of our hands. Raises Refused, Postponed, Uncertain."""

    async def close(self) -> None:
        """Let go of what is held. Raises nothing."""
