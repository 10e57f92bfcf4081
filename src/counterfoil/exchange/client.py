"""The one place that sends HTTP requests to rails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from counterfoil.rails.base import HttpRequest, HttpResponse, RailUnavailable
from counterfoil.rails.mirror import MoreToAsk

if TYPE_CHECKING:
    import httpcore

_SECONDS = 15.0
_TIMEOUTS = {"connect": 5.0, "read": _SECONDS, "write": _SECONDS, "pool": _SECONDS}
_CONNECTIONS, _KEPT_OPEN, _IDLE_SECONDS = 100, 20, 5.0
_LARGEST = 4 * 1024 * 1024


R = TypeVar("R")
_MOST_PAGES = 200


class Sends(Protocol):
    """Whatever sends requests to a rail."""

    def send(self, request: HttpRequest) -> Awaitable[HttpResponse]:
        """Send one request. Raises RailUnavailable."""
        ...


async def follow(client: Sends, request: HttpRequest, read: Callable[[HttpResponse], R]) -> R:
    """Ask, and read the answer; ask on where it does not tell yet. Raises what ``read`` raises; RailUnavailable."""
    for _ in range(_MOST_PAGES):
        response = await client.send(request)
        try:
            return read(response)
        except MoreToAsk as more:
            request = more.request
    raise RailUnavailable("the rail's answers have no end")


def _in_ascii(url: str) -> str:
    """A URL whose host has letters of its own, as it is asked for (RFC 3490). Raises UnicodeError."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode()
    return urlunsplit(parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}"))


class RailClient:
    """Sends requests; every failure to get an answer is RailUnavailable, whose outcome is unknown."""

    def __init__(self) -> None:
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send one request, following no redirects. Raises RailUnavailable."""
        from counterfoil.connections import NO_ANSWER, Connections, pool  # noqa: PLC0415 # a start does not need it

        if self._pool is None:
            self._pool = pool(Connections(), most=_CONNECTIONS, keep=_KEPT_OPEN, idle_seconds=_IDLE_SECONDS)
        try:
            async with self._pool.stream(
                request.method,
                request.url if request.url.isascii() else _in_ascii(request.url),
                headers=[("User-Agent", "Counterfoil"), *request.headers.items()],
                content=None if request.method == "GET" else request.body,
                extensions={"timeout": _TIMEOUTS},
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise RailUnavailable("the rail's answer is too long")
        except NO_ANSWER as error:
            raise RailUnavailable(f"no answer: {type(error).__name__}") from error
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return HttpResponse(status=response.status, headers=headers, body=bytes(body))

    async def close(self) -> None:
        """Let go of open connections."""
        if self._pool is not None:
            await self._pool.aclose()
