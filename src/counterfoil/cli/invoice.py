"""Commands on invoices."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import invoices
from counterfoil.sales.invoices import InvoiceFilter
from counterfoil.sales.types import Invoice, InvoiceStatus

app = group("Invoices: the bills of rails.")

COLUMNS: list[Column[Invoice]] = [
    Column("ID", lambda row: row.id),
    Column("STATUS", lambda row: row.status),
    Column("NUMBER", lambda row: row.number),
    Column("AMOUNT", lambda row: amount(row.amount, row.asset), right=True),
    Column("RAIL", lambda row: row.rail),
    Column("SUBSCRIPTION", lambda row: row.subscription_id),
    Column("PAID", lambda row: row.paid_at),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[InvoiceStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    subscription: Annotated[
        str | None, typer.Option("--subscription", metavar="SUBSCRIPTION", help="Only this subscription's.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="CUSTOMER", help="Only this customer's.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List invoices, oldest first."""
    only = InvoiceFilter(status=status, subscription_id=subscription, customer_id=customer)
    page = read(ctx, invoices.list_, only, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda row: row, as_json=as_json)


@app.command("show")
def show(
    ctx: typer.Context, invoice: Annotated[str, typer.Argument(metavar="INVOICE")], *, as_json: AsJson = False
) -> None:
    """Show an invoice, and what its rail says of the money."""
    found = read(ctx, invoices.get, invoice)
    if as_json:
        print_json(found)
        return
    shown = {"amount": amount(found.amount, found.asset), "tax": amount(found.tax, found.asset)}
    print_fields((name, shown.get(name, getattr(found, name))) for name in found.__struct_fields__)
