"""The command that serves, and what every server command needs."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from counterfoil import __version__, server
from counterfoil.cli.context import check_migrated, load_settings
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import group
from counterfoil.db.migrate import migrate
from counterfoil.settings import Settings

app = group("Serve the API and the pages.")


@app.command()
def serve(
    *, up_to_date: Annotated[bool, typer.Option("--migrate", help="First bring the tables up to date.")] = False
) -> None:
    """Serve the API and the pages, and run the jobs, until told to stop (Ctrl-C, SIGTERM)."""
    settings = load_settings()
    check_port(settings)
    if up_to_date:
        migrate(settings.database_url)
    check_migrated(settings)
    run_server(settings, lambda address: typer.echo(f"Counterfoil {__version__} serves {address}"))


def check_port(settings: Settings) -> None:
    """Raise CliError when we cannot listen where we should."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise CliError(f"port {settings.port} of {settings.host} is in use", "set COUNTERFOIL_PORT") from error
        raise CliError(
            f"cannot listen on {where}: {error.strerror}", "set COUNTERFOIL_HOST, COUNTERFOIL_PORT"
        ) from error


def run_server(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until told to stop, and close the database behind us. Told twice, stop at once."""
    serving, told = False, 0

    def listening(address: str) -> None:
        nonlocal serving
        serving = True
        ready(address)

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        told += 1
        if not serving or told > 1:
            raise KeyboardInterrupt

    # uvicorn finishes its requests and then sends itself the signal again. With the usual handlers that would
    # end the process, or cancel its task, before the database is closed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve(settings, listening)
