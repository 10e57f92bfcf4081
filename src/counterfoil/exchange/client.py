"""The one place that sends HTTP requests to rails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from counterfoil.rails.base import HttpRequest, HttpResponse, RailUnavailable
from counterfoil.rails.mirror import MoreToAsk

if TYPE_CHECKING:
    import httpx

_SECONDS, _CONNECT_SECONDS = 15, 5
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


class RailClient:
    """Sends requests; every failure to get an answer is RailUnavailable, whose outcome is unknown."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send one request, following no redirects. Raises RailUnavailable."""
        import httpx  # noqa: PLC0415 # on first use: a start does not need it

        if self._client is None:
            timeout = httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
            self._client = httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False)
        try:
            async with self._client.stream(
                request.method, request.url, headers=request.headers, content=request.body
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise RailUnavailable("the rail's answer is too long")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RailUnavailable(f"no answer: {type(error).__name__}") from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(status=response.status_code, headers=headers, body=bytes(body))

    async def close(self) -> None:
        """Let go of open connections."""
        if self._client is not None:
            await self._client.aclose()
