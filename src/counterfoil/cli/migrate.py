"""The command that brings the tables up to date."""

from __future__ import annotations

import typer

from counterfoil.cli.context import load_settings, shown_url
from counterfoil.cli.options import group
from counterfoil.db import migrate as migrations

app = group("Bring the database's tables up to date.")


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date. Safe to repeat, and beside servers of the version before."""
    settings = load_settings()
    where = shown_url(settings)
    applied = migrations.migrate(settings.database_url)
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo(f"{where} is up to date at {migrations.HEAD}")
