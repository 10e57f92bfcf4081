"""Commands on payments."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from counterfoil.catalog.products import check_text
from counterfoil.cli.context import read, start, within, write
from counterfoil.cli.options import After, Amount, AsJson, Asset, Limit, Sats, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.cli.values import parse_duration, parse_moment, parse_money
from counterfoil.db.base import Scope
from counterfoil.exchange.rails import TAKEN
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import payments, payments_archive
from counterfoil.sales.payments_archive import KnownPayment
from counterfoil.settlement import recording, settle
from counterfoil.settlement.recording import MANUAL, NewPayment

app = group("Payments: money that a rail has proved.")

Which = Annotated[str, typer.Argument(metavar="PAYMENT")]

PAYMENT_COLUMNS: list[Column[Any]] = [
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
    archived: Annotated[bool, typer.Option("--archived", help="Those in the archive instead.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List payments, oldest first."""
    if archived:
        if attention:
            raise typer.BadParameter("nothing is left to do about archived payments", param_hint="--attention")
        old = read(ctx, payments_archive.list_, after=start(after), limit=limit)
        print_page(old, PAYMENT_COLUMNS, lambda payment: payment, as_json=as_json)
        return
    page = read(ctx, payments.list_, attention=attention, after=start(after), limit=limit)
    print_page(page, PAYMENT_COLUMNS, lambda payment: payment, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, payment: Which, *, as_json: AsJson = False) -> None:
    """Show a payment, archived or not."""
    _print(read(ctx, payments_archive.get, payment), as_json=as_json)


@app.command("find")
def find(
    ctx: typer.Context,
    rail: Annotated[str, typer.Argument(metavar="RAIL")],
    reference: Annotated[str, typer.Argument(metavar="REFERENCE")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the payment by its rail's own name for it: whether this money was seen before, however long ago."""
    _print(read(ctx, payments_archive.find, rail, reference), as_json=as_json)


@app.command("record")
def record(
    ctx: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="REFERENCE")],
    *,
    typed: Amount = None,
    asset: Asset = None,
    sats: Sats = None,
    rail: Annotated[str, typer.Option("--rail", metavar="WORD", help="How it came, in a word of your own.")] = MANUAL,
    checkout: Annotated[str | None, typer.Option("--checkout", metavar="CHECKOUT", help="What it pays.")] = None,
    customer: Annotated[str | None, typer.Option("--customer", metavar="CUSTOMER", help="Who paid.")] = None,
    payer: Annotated[str | None, typer.Option("--payer", metavar="TEXT", help="Who paid, in words.")] = None,
    occurred: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it moved; now if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write down money that came outside of every rail: cash, a bank transfer. It fulfills what it pays."""
    money = parse_money(typed, asset, sats)
    new = NewPayment(
        rail=rail,
        reference=reference,
        amount=money.amount,
        asset=money.asset,
        payer=payer,
        occurred_at=parse_moment(occurred, "--at"),
        checkout_id=checkout,
        customer_id=customer,
    )
    _print(write(ctx, recording.record, new, TAKEN), as_json=as_json)


@app.command("archive")
def archive(
    ctx: typer.Context,
    *,
    older: Annotated[
        str | None, typer.Option("--older-than", metavar="DURATION", help="90d, say; else as the settings say.")
    ] = None,
) -> None:
    """Move old payments that nothing is left to do about to the archive. Their references stay taken for ever."""

    async def work(house: House, scope: Scope) -> int:
        age = house.settings.archived_after
        if older is not None:
            age = timedelta(seconds=parse_duration(older, "--older-than"))
        return await payments_archive.archive_all(scope, before=house.database.clock.now() - age)

    typer.echo(f"archived {within(ctx, work)}")


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
    done = write(ctx, settle.accept if accept else settle.dismiss, payment, note=note)
    _print(payments_archive.known(done), as_json=as_json)


def _print(payment: KnownPayment, *, as_json: bool) -> None:
    if as_json:
        print_json(payment)
        return
    shown = {"amount": amount(payment.amount, payment.asset)}
    print_fields((name, shown.get(name, getattr(payment, name))) for name in payment.__struct_fields__)
