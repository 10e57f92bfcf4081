"""The command that tells how we are."""

from __future__ import annotations

import http.client
from datetime import timedelta
from typing import Annotated

import typer

from counterfoil.cli.context import load_settings, read
from counterfoil.cli.options import AsJson, group
from counterfoil.cli.output import print_fields, print_json
from counterfoil.jobs import runner
from counterfoil.settings import Settings

_OVERDUE = timedelta(minutes=5)
_SECONDS = 5

app = group("Say whether the database, the jobs and the server are well.")


@app.command()
def health(
    ctx: typer.Context,
    *,
    of_server: Annotated[bool, typer.Option("--server", help="Also ask the server of these settings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the database, the jobs and the server are well. The exit code is 0 while sales can be made."""
    settings = load_settings()
    late = read(ctx, runner.overdue, by=_OVERDUE)
    checks = {"database": "ok", "jobs": f"late: {', '.join(late)}" if late else "ok"}
    failing = False
    if of_server:
        checks["server"], failing = _ask(settings)
    if as_json:
        print_json({"status": "failing" if failing else "degraded" if late else "ok", "checks": checks})
    else:
        print_fields(checks.items())
    if failing:
        raise typer.Exit(1)


def _ask(settings: Settings) -> tuple[str, bool]:
    """What the server says of itself, and whether that is bad."""
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer on {settings.host}:{settings.port} ({error})", True
    finally:
        connection.close()
    return ("ok", False) if status == 200 else (f"answers {status}", True)
