"""The one place that sends news over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpcore

from counterfoil.connections import NO_ANSWER, Connections, pool
from counterfoil.webhooks.targets import Resolve, Resolver, TargetRefused, addresses_of

_KEPT = 1024
"""How much of an answer is kept, in bytes."""
_READ = 16 * 1024
"""How much of one is read so that its connection can be used again."""
_CONNECTIONS = 64
_IDLE_SECONDS = 10.0
_LONGEST_WAIT = timedelta(hours=24)


class Answer(NamedTuple):
    """What came of one attempt."""

    status: int | None
    """The receiver's status; None when there was no answer."""
    error: str | None
    """What went wrong; None: it was taken."""
    retry_after: timedelta | None = None
    """How long the receiver asks to be left alone."""


class CheckedConnections(Connections):
    """Connects to addresses that were checked; the certificate is still checked against the name."""

    def __init__(self, resolve: Resolve, *, allow_loopback: bool) -> None:
        super().__init__()
        self._resolve = resolve
        self._allow_loopback = allow_loopback

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the signature is the library's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host. Raises TargetRefused, httpcore.ConnectError."""
        try:
            found = await addresses_of(self._resolve, host, port, allow_loopback=self._allow_loopback)
        except OSError as error:
            raise httpcore.ConnectError("its name cannot be resolved") from error
        for address in found[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
        return await super().connect_tcp(found[-1], port, timeout, local_address, socket_options)


class Sender:
    """Posts messages to receivers. Follows no redirects: they would lead past the checks."""

    def __init__(self, *, allow_loopback: bool, seconds: float, resolve: Resolve | None = None) -> None:
        self._seconds = seconds
        self._resolver = Resolver()
        checked = CheckedConnections(resolve or self._resolver, allow_loopback=allow_loopback)
        self._pool = pool(checked, most=_CONNECTIONS, keep=_CONNECTIONS // 2, idle_seconds=_IDLE_SECONDS)

    async def post(self, url: str, headers: dict[str, str], body: bytes, *, at: datetime) -> Answer:
        """Send one message at this moment. Whatever goes wrong is in the answer."""
        try:
            async with asyncio.timeout(self._seconds):
                async with self._pool.stream("POST", url, headers=list(headers.items()), content=body) as response:
                    taken = await _read(response)
                    return _answer(response, taken, at)
        except TimeoutError:
            return Answer(None, f"no answer within {self._seconds:g} seconds")
        except TargetRefused as error:
            return Answer(None, str(error))
        except NO_ANSWER as error:
            return Answer(None, _readable(f"{type(error).__name__}: {error}"))

    async def close(self) -> None:
        """Let go of open connections."""
        await self._pool.aclose()
        self._resolver.close()


async def _read(response: httpcore.Response) -> bytes:
    taken = bytearray()
    async for chunk in response.aiter_stream():
        taken += chunk
        if len(taken) > _READ:
            break
    return bytes(taken[:_KEPT])


def _answer(response: httpcore.Response, taken: bytes, at: datetime) -> Answer:
    status = response.status
    if 200 <= status <= 299:
        return Answer(status, None)
    words = _readable(taken.decode(errors="replace"))
    named = {name.lower(): value for name, value in response.headers}
    return Answer(status, f"answered {status}: {words}" if words else f"answered {status}", _wait(named, at))


def _wait(headers: dict[bytes, bytes], at: datetime) -> timedelta | None:
    """What ``Retry-After`` asks for (RFC 9110, section 10.2.3), a day at most."""
    value = headers.get(b"retry-after", b"").decode("latin-1").strip()
    try:
        asked = timedelta(seconds=int(value[:12])) if value.isdecimal() else parsedate_to_datetime(value) - at
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(asked, timedelta(0)), _LONGEST_WAIT)


def _readable(words: str) -> str:
    """A receiver's words on one line of text that every database can hold."""
    printable = "".join(char if char.isprintable() else " " for char in words)
    return " ".join(printable.split())[:_KEPT]
