"""Commands on rails' copies of our objects: what is owed, what differs, what is there and not here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from counterfoil.cli.context import read, start, within
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, print_section, print_table, view
from counterfoil.cli.streams import bar, counting
from counterfoil.cli.values import parse_moment
from counterfoil.db.base import Scope
from counterfoil.exchange import comparing, importing, outbox, syncing
from counterfoil.exchange.catching_up import catch_up as catch_up_with
from counterfoil.exchange.comparing import Comparison, Difference, KindCompared
from counterfoil.exchange.importing import Imported, Skipped
from counterfoil.exchange.outbox import RailSync
from counterfoil.exchange.syncing import OwedView
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Sync: rails' copies of what is sold, and who buys.")
pull_app = group("Import what is at a rail already.")
app.add_typer(pull_app, name="pull")

RailOption = Annotated[str | None, typer.Option("--rail", metavar="RAIL", help="Only this one.")]
OneRail = Annotated[str, typer.Option("--rail", metavar="RAIL", help="Which one.")]

COLUMNS: list[Column[RailSync]] = [
    Column("RAIL", lambda row: row.rail),
    Column("OWED", lambda row: row.owed, right=True),
    Column("IN DOUBT", lambda row: row.in_doubt, right=True),
    Column("REFUSED", lambda row: row.refused, right=True),
    Column("OLDEST", lambda row: row.oldest_pending_since),
    Column("COPIES", lambda row: row.copies, right=True),
    Column("DIFFERENT", lambda row: row.different, right=True),
    Column("STALE", lambda row: row.stale, right=True),
]
_OWED: list[Column[OwedView]] = [
    Column("ID", lambda row: row.id),
    Column("RAIL", lambda row: row.rail),
    Column("OBJECT", lambda row: row.object_id),
    Column("STATUS", lambda row: row.status),
    Column("SINCE", lambda row: row.pending_since),
    Column("TRIES", lambda row: row.attempts, right=True),
    Column("NEXT", lambda row: row.next_attempt_at),
    Column("WHY", lambda row: row.error),
]
_KINDS: list[Column[KindCompared]] = [
    Column("KIND", lambda row: row.kind),
    Column("IN STEP", lambda row: row.in_step, right=True),
    Column("DIFFERENT", lambda row: row.different, right=True),
    Column("MISSING THERE", lambda row: row.missing, right=True),
    Column("OWED", lambda row: row.owed, right=True),
    Column("NOT OURS", lambda row: row.not_ours, right=True),
]
_DIFFERENCES: list[Column[Difference]] = [
    Column("OBJECT", lambda row: row.object_id),
    Column("THERE", lambda row: row.reference),
    Column("WHAT", lambda row: row.fields or "is missing there"),
]
_SKIPPED: list[Column[Skipped]] = [
    Column("KIND", lambda row: row.kind),
    Column("COUNT", lambda row: row.count, right=True),
    Column("WHY", lambda row: row.reason),
    Column("SUCH AS", lambda row: row.examples),
]


@app.command("status")
def status(ctx: typer.Context, *, rail: RailOption = None, as_json: AsJson = False) -> None:
    """Show how far each rail is in step. Stale: not heard of for an hour."""
    rows = [row for row in read(ctx, outbox.status) if rail in {None, row.rail}]
    if as_json:
        print_json({"data": rows})
    elif rows:
        print_table(COLUMNS, rows)
    else:
        typer.echo("no rail keeps copies", err=True)


@app.command("owed")
def owed(
    ctx: typer.Context,
    *,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List what is owed, in doubt or refused, with the rails' words."""
    page = read(ctx, syncing.list_owed, after=start(after), limit=limit)
    print_page(page, _OWED, lambda row: row, as_json=as_json)


@app.command("retry")
def retry(ctx: typer.Context, *, rail: RailOption = None, as_json: AsJson = False) -> None:
    """Try all that is owed again now, what was refused and what differs, too."""

    async def work(house: House, scope: Scope) -> dict[str, Any]:
        rails = [rail] if rail is not None else [row.rail for row in await scope.read(outbox.status)]
        count = 0
        for one in rails:
            count += await scope.run(syncing.retry, one)
        pushing = house.pusher.soon(scope.tenant)
        with bar("Sending", count) as show:
            while not (await asyncio.wait({pushing}, timeout=0.5))[0]:
                show(count - sum(row.owed + row.in_doubt for row in await scope.read(outbox.status)))
        await pushing
        left = [row for row in await scope.read(outbox.status) if row.rail in rails]
        return {"retried": count, "left": sum(row.owed + row.in_doubt for row in left), "refused": _refused(left)}

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_fields(done.items())


def _refused(rows: list[RailSync]) -> int:
    return sum(row.refused for row in rows)


@app.command("diff")
def diff(ctx: typer.Context, *, rail: OneRail, as_json: AsJson = False) -> None:
    """Compare all of a rail's copies with what they are copies of; exit with 1 when they differ."""

    async def work(house: House, scope: Scope) -> Comparison:
        with counting("Comparing") as show:
            return await comparing.compare(scope, house.rails, house.pusher, rail, show)

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_table(_KINDS, done.kinds)
        print_section("different", _DIFFERENCES, done.differences)
        if done.truncated:
            typer.echo(f"these are the first {comparing.MOST_SHOWN}", err=True)
    if done.differences:
        raise typer.Exit(1)


@app.command("catch-up")
def catch_up(
    ctx: typer.Context,
    *,
    rail: OneRail,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on; otherwise since the last time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take in the news that a rail has and its webhooks did not bring."""
    moment = parse_moment(since, "--since")

    async def work(house: House, scope: Scope) -> int:
        with counting("Reading events") as show:
            return await catch_up_with(scope, house.rails, house.pusher, rail, since=moment, show=show)

    count = within(ctx, work)
    if as_json:
        print_json({"rail": rail, "new": count})
    else:
        typer.echo(f"{count} new")


@pull_app.command("products")
def pull_products(ctx: typer.Context, *, rail: OneRail, as_json: AsJson = False) -> None:
    """Make a rail's products ours, those that are not yet."""
    _pull(ctx, rail, "product", as_json=as_json)


@pull_app.command("prices")
def pull_prices(ctx: typer.Context, *, rail: OneRail, as_json: AsJson = False) -> None:
    """Make a rail's prices ours, with the products that they are of."""
    _pull(ctx, rail, "price", as_json=as_json)


def _pull(ctx: typer.Context, rail: str, what: importing.What, *, as_json: bool) -> None:
    async def work(house: House, scope: Scope) -> Imported:
        with counting("Importing") as show:
            return await importing.pull(scope, house.rails, house.pusher, rail, what, show)

    done = within(ctx, work)
    if as_json:
        print_json(done)
        return
    print_fields(view(done, "skipped").items())
    print_section("not imported", _SKIPPED, done.skipped)
