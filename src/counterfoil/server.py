"""One server process: the house, its faces and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Iterator
from socket import socket

import uvicorn
from litestar.types import ASGIApp

from counterfoil import logs
from counterfoil.api.app import create_app
from counterfoil.house import open_house
from counterfoil.settings import Settings
from counterfoil.web.site import PAGES

GRACE_SECONDS = 10
"""How long requests under way may take to finish after the signal to stop."""


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until told to stop (SIGINT, SIGTERM). ``ready`` is called with the address once we listen.

    The database must be up to date. Raises what :func:`open_house` raises.
    """
    logs.set_up(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, ready))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes a server's event loop: uvloop where there is one; None means Python's own."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415

        return uvloop.new_event_loop
    return None


async def _serve(settings: Settings, ready: Callable[[str], None] | None) -> None:
    async with open_house(settings) as house:
        server = _Server(create_app(house, PAGES), settings, ready)
        # What start-up made lives as long as the process: keep the collector from walking it again and again.
        gc.freeze()
        await server.serve()


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, settings: Settings, ready: Callable[[str], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM, the second time at once.

        uvicorn's own way is to send itself the signal again afterwards, which would end the process before
        the database is closed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self._ready is not None and self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{host}:{port}")
