"""Commands on the record."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_page
from counterfoil.cli.values import parse_moment
from counterfoil.events import reading
from counterfoil.events.reading import Filter, Order
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
    type_: Annotated[str | None, typer.Option("--type", metavar="TEXT", help="Only of this kind.")] = None,
    of: Annotated[str | None, typer.Option("--object", metavar="ID", help="Only of this one.")] = None,
    customer: Annotated[str | None, typer.Option("--customer", metavar="ID", help="Only about this one.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", metavar="ID", help="Only by this user, key, rail or job.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Not before this moment.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this moment.")] = None,
    order: Annotated[Order, typer.Option("--order", help="Oldest first, or newest first.")] = "asc",
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List what happened: all of it, or what every option is true of."""
    only = Filter(
        type=type_,
        object_id=of,
        customer_id=customer,
        actor_id=actor,
        since=parse_moment(since, "--since"),
        until=parse_moment(until, "--until"),
    )
    page = read(ctx, reading.list_, only=only, order=order, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda event: event, as_json=as_json)
