"""One log line a request, under an id that the answer carries too."""

from __future__ import annotations

import re
import secrets
import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from counterfoil.logs import bind_contextvars, get_logger, unbind_contextvars

_log = get_logger("counterfoil.http")
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{8,64}")


class Logged:
    """Gives each request an id (the caller's ``X-Request-ID`` where it is a plain one) and logs its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _GIVEN.fullmatch(given) else secrets.token_hex(8).encode()
        bind_contextvars(request_id=request_id.decode())
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round((time.perf_counter() - started) * 1000, 1),
            )
            unbind_contextvars("request_id")
