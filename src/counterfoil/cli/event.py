"""Commands on the record."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_page
from counterfoil.events import reading
from counterfoil.events.types import Event
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Events: the record of what happened.")


@app.callback()
def _group() -> None:
    """Keep `event list` two words, although there is no other command yet."""


def _money(event: Event) -> str | None:
    return None if event.amount is None or event.asset is None else amount(event.amount, event.asset)


def _actor(event: Event) -> str:
    return f"{event.actor_kind}/{event.actor_id}" if event.actor_id else event.actor_kind


COLUMNS: list[Column[Event]] = [
    Column("AT", lambda event: event.created_at),
    Column("EVENT", lambda event: event.type),
    Column("OBJECT", lambda event: event.object_id),
    Column("BY", _actor),
    Column("AMOUNT", _money, right=True),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    of: Annotated[str | None, typer.Option("--object", metavar="ID", help="Only of this one.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List what happened, oldest first."""
    page = read(ctx, reading.list_, object_id=of, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda event: event, as_json=as_json)
