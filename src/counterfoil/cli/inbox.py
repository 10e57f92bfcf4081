"""Commands on the inbox: news from rails that has not taken effect."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start, within
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.db.base import Scope
from counterfoil.exchange import inbox, questions
from counterfoil.exchange.inbox import InboxStatus
from counterfoil.exchange.types import InboxEntry
from counterfoil.house import House
from counterfoil.kernel.errors import RailFailed, Unavailable
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.settlement.settle import Settlement

app = group("Inbox: news from rails that has not taken effect.")
Which = Annotated[str, typer.Argument(metavar="NEWS")]

COLUMNS: list[Column[InboxEntry]] = [
    Column("ID", lambda row: row.id),
    Column("RAIL", lambda row: row.rail),
    Column("STATUS", lambda row: row.status),
    Column("TYPE", lambda row: row.type),
    Column("HAPPENED", lambda row: row.occurred_at),
    Column("WHY", lambda row: row.error),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[InboxStatus | None, typer.Option("--status", help="Only of this status.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List news that waits, that we do not know, or that was set aside."""
    page = read(ctx, inbox.list_, status=status, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda row: view(row, "body"), as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, which: Which, *, as_json: AsJson = False) -> None:
    """Show one piece of news, and what the rail sent."""
    entry = read(ctx, inbox.get, which)
    if as_json:
        print_json(entry)
    else:
        print_fields(view(entry).items())


@app.command("replay")
def replay(ctx: typer.Context, which: Which, *, as_json: AsJson = False) -> None:
    """Apply news that was kept, now."""

    async def work(house: House, scope: Scope) -> Settlement | None:
        try:
            return await questions.replay(scope, house.rails, house.client, which)
        except RailUnavailable as error:
            raise Unavailable(f"the rail cannot be asked about it now: {error}", code="rail_unavailable") from error
        except RailRefused as error:
            raise RailFailed(str(error)) from error

    done = within(ctx, work)
    if as_json:
        print_json({"id": which, "new": done is not None})
    else:
        typer.echo("it took effect" if done is not None else "it took effect before")
