"""Letters into a folder, for a developer to open."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from counterfoil.exchange.letters.message import Message
from counterfoil.exchange.letters.transport import Postponed


class Mailbox:
    """A folder with two files a letter: ``.eml``, and ``.html`` for a browser.

    They are named after the letter, so writing one again changes nothing.
    """

    begun = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: Message) -> None:
        """Write a letter's files. Raises Postponed."""
        try:
            await asyncio.to_thread(self._write, message)
        except OSError as error:
            raise Postponed(f"{self._folder} cannot be written: {error.strerror}", others=True) from error

    def _write(self, message: Message) -> None:
        # Letters hold links that sign people in: they are for the owner's eyes.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._put(f"{message.letter_id}.html", message.html.encode())
        self._put(f"{message.letter_id}.eml", message.content)

    def _put(self, name: str, content: bytes) -> None:
        descriptor, fresh = tempfile.mkstemp(prefix=".", dir=self._folder)  # which only its owner may read
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(fresh).replace(self._folder / name)
        except OSError:
            Path(fresh).unlink(missing_ok=True)
            raise

    async def close(self) -> None:
        """Nothing is held."""
