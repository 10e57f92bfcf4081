"""Reports."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from counterfoil.cli.context import within
from counterfoil.cli.options import AsJson, group
from counterfoil.cli.output import Column, amount, print_json, print_table
from counterfoil.cli.values import parse_moment
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.settlement import reports
from counterfoil.settlement.reports import DiscountRevenue

app = group("Reports: what was earned.")


@app.callback()
def _reports() -> None:
    """A group, however few commands are in it."""


def _rate(row: DiscountRevenue) -> str:
    if row.kind == "percentage":
        return f"{row.rate / 100:g} %"
    return row.kind.replace("_", " ")


def _money(name: str) -> Column[DiscountRevenue]:
    title = name.replace("_", " ").upper()
    return Column(title, lambda row: amount(getattr(row, name), row.asset), right=True)


COLUMNS: list[Column[DiscountRevenue]] = [
    Column("DISCOUNT", lambda row: row.discount_id),
    Column("CODE", lambda row: row.code),
    Column("MARGIN OF", lambda row: row.customer_name),
    Column("TAKES", _rate),
    Column("ORDERS", lambda row: row.orders, right=True),
    Column("CUSTOMERS", lambda row: row.customers, right=True),
    *[_money(name) for name in ("gross", "taken_off", "net", "tax", "refunded")],
]


@app.command("margins")
def margins(
    ctx: typer.Context,
    *,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Orders made then or later.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Orders made before.")] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print lines of CSV, amounts in major units.")] = False,
) -> None:
    """Revenue by discount: codes, what applies by itself, and the margins of customers who sell on."""
    if as_json and as_csv:
        raise typer.BadParameter("say --json or --csv")
    start, end = parse_moment(since, "--from"), parse_moment(until, "--to")

    async def work(_: House, scope: Scope) -> list[DiscountRevenue]:
        found: list[DiscountRevenue] = []
        async for page in reports.all_margins(scope, since=start, until=end):
            found += page
        return found

    rows = within(ctx, work)
    if as_json:
        print_json({"data": rows})
    elif as_csv:
        sys.stdout.buffer.write(reports.csv_lines(rows, header=True))
        sys.stdout.buffer.flush()
    elif rows:
        print_table(COLUMNS, rows)
    else:
        typer.echo("nothing found", err=True)
