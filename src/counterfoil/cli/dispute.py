"""Commands on disputes."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import disputes
from counterfoil.sales.types import Dispute, DisputeStatus

app = group("Disputes: buyers who ask their banks for the money back.")

COLUMNS: list[Column[Dispute]] = [
    Column("ID", lambda row: row.id),
    Column("STATUS", lambda row: row.status),
    Column("AMOUNT", lambda row: amount(row.amount, row.asset), right=True),
    Column("REASON", lambda row: row.reason),
    Column("EVIDENCE UNTIL", lambda row: row.evidence_due_at),
    Column("PAYMENT", lambda row: row.payment_id),
    Column("ORDER", lambda row: row.order_id),
    Column("OPENED", lambda row: row.opened_at),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[DisputeStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List disputes, oldest first."""
    page = read(ctx, disputes.list_, status=status, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda row: row, as_json=as_json)


@app.command("show")
def show(
    ctx: typer.Context, dispute: Annotated[str, typer.Argument(metavar="DISPUTE")], *, as_json: AsJson = False
) -> None:
    """Show a dispute: what it is about, and how it stands."""
    found = read(ctx, disputes.get, dispute)
    if as_json:
        print_json(found)
        return
    shown = {"amount": amount(found.amount, found.asset)}
    print_fields((name, shown.get(name, getattr(found, name))) for name in found.__struct_fields__)
