"""Sending: a letter is claimed, handed over outside any transaction, and then marked with what came of it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from counterfoil.accounts import tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.base import Scope
from counterfoil.exchange.letters.mailbox import Mailbox
from counterfoil.exchange.letters.message import Message, build
from counterfoil.exchange.letters.rendering import render
from counterfoil.exchange.letters.transport import Postponed, Refused, Transport, Uncertain
from counterfoil.kernel.secrets import MasterKey
from counterfoil.logs import get_logger
from counterfoil.mail import outgoing
from counterfoil.mail.types import Email
from counterfoil.settings import Settings

_log = get_logger(__name__)

AT_ONCE = 4
"""Connections of this process to the mail server, for all tenants together."""
MOST = 200
"""Letters of one tenant in one round: the others have their turn too."""

_ADDRESS = re.compile(r"https?://[^\s<>\"']+")


class _Shop(NamedTuple):
    name: str
    base_url: str


class _Ended(NamedTuple):
    why: str | None
    """Why it was not sent."""
    go_on: bool
    """Whether it makes sense to go on with other letters."""


class Sender:
    """Sends letters: what is due of one tenant, or one letter."""

    def __init__(self, settings: Settings, master: MasterKey, base_url: Callable[[str], Awaitable[str]]) -> None:
        self._settings = settings
        self._master = master
        self._base_url = base_url
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.stopping = False
        """Begin no other letter."""
        # The claims of who only writes files begin with MAILBOX.
        self.worker = f"{settings.mail_transport}/{os.getpid()}-{secrets.token_hex(4)}"

    async def send_due(self, scope: Scope) -> int:
        """Send what is due of the scope's tenant; how many letters were dealt with."""
        if await scope.read(outgoing.any_lost):
            await scope.run(outgoing.give_up_lost)
        count = await scope.read(outgoing.due, most=MOST)
        if not count:
            return 0
        shop = await self._shop(scope)
        turns = iter(range(count))
        return sum(await asyncio.gather(*[self._send_many(scope, shop, turns) for _ in range(min(count, AT_ONCE))]))

    async def send_this(self, scope: Scope, letter_id: str) -> bool:
        """Send one letter now; whether it was ours to send."""
        shop = await self._shop(scope)
        letter = await scope.run(outgoing.claim, self.worker, letter_id=letter_id)
        if letter is not None:
            transport = self._open()
            try:
                await self._send(scope, shop, transport, letter)
            finally:
                await transport.close()
        return letter is not None

    async def _send_many(self, scope: Scope, shop: _Shop, turns: Iterator[int]) -> int:
        done = 0
        async with self._slots:
            transport = self._open()
            try:
                for _ in turns:
                    # One at a time: whoever is cut off leaves few letters in doubt.
                    letter = None if self.stopping else await scope.run(outgoing.claim, self.worker)
                    if letter is None:
                        break
                    done += 1
                    ended = await self._send(scope, shop, transport, letter)
                    if ended.why is not None:
                        _log.warning("letter not sent", letter=letter.id, tenant=scope.tenant, why=ended.why)
                    if not ended.go_on:
                        break
            finally:
                await transport.close()
        return done

    def _open(self) -> Transport:
        if self._settings.mail_transport == outgoing.MAILBOX:
            return Mailbox(self._settings.mail_folder)
        from counterfoil.exchange.letters.smtp import MailServer  # noqa: PLC0415 # a start does not need it

        return MailServer(self._settings)

    async def _shop(self, scope: Scope) -> _Shop:
        row = await scope.read(tenants.get)
        named = row is not None and (scope.tenant, row.name) != (DEFAULT_TENANT, "Default")
        return _Shop(row.name if row is not None and named else "Shop", await self._base_url(scope.tenant))

    async def _send(self, scope: Scope, shop: _Shop, transport: Transport, letter: Email) -> _Ended:
        """Send a claimed letter and mark it."""
        context: dict[str, str] = {}
        failure: Exception
        go_on = True
        try:
            context = outgoing.unseal(letter, scope.tenant, self._master)
            message = self._compose(shop, letter, context)
        except Exception as error:  # noqa: BLE001 # whatever it is, no other attempt would end otherwise
            _log.exception("a letter cannot be written", letter=letter.id, template=letter.template)
            words = _readable(f"it cannot be written: {error!r}", context)
            await scope.run(outgoing.mark_failed, letter, words)
            return _Ended(words, go_on=True)
        try:
            await transport.send(message)
        except asyncio.CancelledError:
            if not transport.begun:
                await scope.run(outgoing.release, letter)
            raise
        except Refused as error:
            mark, failure = outgoing.mark_failed, error
        except Postponed as error:
            mark, failure, go_on = outgoing.mark_postponed, error, not error.others
        except Exception as error:  # noqa: BLE001 # what we do not understand may have sent it
            if not isinstance(error, Uncertain):
                _log.exception("sending a letter failed", letter=letter.id)
            mark, failure, go_on = outgoing.mark_unknown, error, False
        else:
            await scope.run(outgoing.mark_sent, letter)
            return _Ended(None, go_on=True)
        words = _readable(str(failure) or type(failure).__name__, context)
        await scope.run(mark, letter, words)
        return _Ended(words, go_on=go_on)

    def _compose(self, shop: _Shop, letter: Email, context: dict[str, str]) -> Message:
        return build(
            letter.id,
            render(letter.template, context, shop.name),
            sender=self._settings.mail_from,
            recipient=letter.recipient,
            base_url=shop.base_url,
            at=letter.created_at,
            unsubscribe_url=context.get("unsubscribe_url", ""),
        )


def _readable(words: str, context: dict[str, str]) -> str:
    """A server's words on one line of text that every database can hold, without the links of the letter.

    A server may repeat what it dislikes, and a link of ours is a secret.
    """
    hosts = {urlsplit(value).netloc for value in context.values() if _ADDRESS.fullmatch(value)}

    def hide(found: re.Match[str]) -> str:
        return "[link]" if urlsplit(found[0]).netloc in hosts else found[0]

    printable = "".join(char if char.isprintable() else " " for char in words)
    return _ADDRESS.sub(hide, " ".join(printable.split()))[:500]
