"""The command that serves, and what every server command needs."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
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
    """Serve until told to stop; Ctrl-C before that is no error either."""
    with contextlib.suppress(KeyboardInterrupt):
        server.serve(settings, ready)
