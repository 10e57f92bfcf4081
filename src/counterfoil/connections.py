"""HTTP connections to other servers: to rails, to identity providers, to receivers of webhooks."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

NO_ANSWER = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,  # a broken certificate chain
    ValueError,  # a URL that only looked like one
)
"""What a request that gets no answer raises."""


class _Stream(httpcore.AsyncNetworkStream):
    """One connection, which may be cut at any moment. Whoever drops it closes it."""

    def __init__(self, plain: httpcore.AsyncNetworkStream) -> None:
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._is_ours = True

    def __del__(self) -> None:
        # The pool forgets connections when it is cancelled while it closes several.
        if self._is_ours and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_close_soon, self._plain)  # the collector runs in any thread

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._plain.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._plain.write(buffer, timeout)

    async def aclose(self) -> None:
        self._is_ours = False
        await self._plain.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        encrypted = _Stream(await self._plain.start_tls(ssl_context, server_hostname, timeout))
        self._is_ours = False
        return encrypted

    def get_extra_info(self, info: str) -> Any:
        # anyio asks the socket for its other end, whatever is asked; uvloop has no socket once the connection is reset.
        try:
            return self._plain.get_extra_info(info)
        except AttributeError:
            return True if info == "is_readable" else None  # readable: the pool sees that it is over


_closing: set[asyncio.Task[None]] = set()


def _close_soon(stream: httpcore.AsyncNetworkStream) -> None:
    task = asyncio.ensure_future(_close(stream))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close(stream: httpcore.AsyncNetworkStream) -> None:
    await stream.aclose()


class Connections(httpcore.AsyncNetworkBackend):
    """Connects to servers."""

    def __init__(self) -> None:
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the signature is the library's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host. Raises httpcore.ConnectError, httpcore.ConnectTimeout."""
        return _Stream(await self._plain.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def pool(connections: Connections, *, most: int, keep: int, idle_seconds: float) -> httpcore.AsyncConnectionPool:
    """So many connections at a time, of which some stay open between requests. It follows no redirects."""
    return httpcore.AsyncConnectionPool(
        ssl_context=_trust(),
        max_connections=most,
        max_keepalive_connections=keep,
        keepalive_expiry=idle_seconds,
        network_backend=connections,
    )


@functools.cache
def _trust() -> ssl.SSLContext:
    """The authorities of this system, which takes some 25 ms to read."""
    return ssl.create_default_context()
