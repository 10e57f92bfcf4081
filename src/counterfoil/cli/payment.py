"""Commands on payments."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.catalog.products import check_text
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import payments
from counterfoil.sales.types import Payment
from counterfoil.settlement import settle

app = group("Payments: money that a rail has proved.")

Which = Annotated[str, typer.Argument(metavar="PAYMENT")]

PAYMENT_COLUMNS: list[Column[Payment]] = [
    Column("ID", lambda payment: payment.id),
    Column("STATUS", lambda payment: payment.resolution or payment.status),
    Column("AMOUNT", lambda payment: amount(payment.amount, payment.asset), right=True),
    Column("RAIL", lambda payment: payment.rail),
    Column("CHECKOUT", lambda payment: payment.checkout_id),
    Column("PAID", lambda payment: payment.occurred_at),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    attention: Annotated[bool, typer.Option("--attention", help="Only those a person has yet to resolve.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List payments, oldest first."""
    page = read(ctx, payments.list_, attention=attention, after=start(after), limit=limit)
    print_page(page, PAYMENT_COLUMNS, lambda payment: payment, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, payment: Which, *, as_json: AsJson = False) -> None:
    """Show a payment."""
    _print(read(ctx, payments.get, payment), as_json=as_json)


@app.command("resolve")
def resolve(
    ctx: typer.Context,
    payment: Which,
    *,
    accept: Annotated[bool, typer.Option("--accept", help="It is good: give what was bought all the same.")] = False,
    dismiss: Annotated[bool, typer.Option("--dismiss", help="It was seen to elsewhere: sent back, say.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it enters the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Resolve a payment that was short, over, late or unmatched."""
    if accept == dismiss:
        raise typer.BadParameter("say --accept or --dismiss")
    check_text("note", note, most=2000)
    _print(write(ctx, settle.accept if accept else settle.dismiss, payment, note=note), as_json=as_json)


def _print(payment: Payment, *, as_json: bool) -> None:
    if as_json:
        print_json(payment)
        return
    shown = {"amount": amount(payment.amount, payment.asset)}
    print_fields((name, shown.get(name, getattr(payment, name))) for name in payment.__struct_fields__)
