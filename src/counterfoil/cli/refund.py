"""Commands on refunds."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Metadata, Yes, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.cli.values import parse_amount, parse_metadata, parse_moment
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import orders, payments, refunds
from counterfoil.sales.refunds import NewRefund, RefundFilter, Restock
from counterfoil.sales.types import GrantsPolicy, Refund, RefundKind, RefundStatus
from counterfoil.settlement import reverse

app = group("Refunds: money given back.")

Which = Annotated[str, typer.Argument(metavar="REFUND")]
OrderOption = Annotated[str | None, typer.Option("--order", metavar="ORDER", help="Of this order's payment.")]
PaymentOption = Annotated[str | None, typer.Option("--payment", metavar="PAYMENT", help="Of this payment.")]
Grants = Annotated[
    GrantsPolicy | None, typer.Option("--grants", help="What becomes of what was bought, once the money is back.")
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it enters the record.")]

COLUMNS: list[Column[Refund]] = [
    Column("ID", lambda refund: refund.id),
    Column("STATUS", lambda refund: refund.status),
    Column("AMOUNT", lambda refund: amount(refund.amount, refund.asset), right=True),
    Column("RAIL", lambda refund: refund.rail),
    Column("PAYMENT", lambda refund: refund.payment_id),
    Column("ORDER", lambda refund: refund.order_id),
    Column("ASKED", lambda refund: refund.created_at),
    Column("ERROR", lambda refund: refund.error),
]


@app.command("request")
def request(
    ctx: typer.Context,
    *,
    order: OrderOption = None,
    payment: PaymentOption = None,
    major: Annotated[
        str | None, typer.Option("--amount", metavar="DECIMAL", help="Major units: 19.90; all that is left otherwise.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; its customer sees it.")] = "",
    recipient: Annotated[
        str | None, typer.Option("--recipient", metavar="TEXT", help="Where it goes, if the rail cannot know.")
    ] = None,
    kind: Annotated[RefundKind, typer.Option("--kind", help="What it is.")] = "refund",
    grants: Grants = None,
    restock: Annotated[
        list[str] | None,
        typer.Option("--restock", metavar="LINE=N", help="Put N of the order's line back; lines count from 0."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="Denied then unless approved before.")
    ] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Ask for money back, of an order or of a payment."""
    if order is None and payment is None:
        raise typer.BadParameter("say --order or --payment")
    new = NewRefund(
        order_id=order,
        payment_id=payment,
        reason=reason,
        recipient=recipient,
        kind=kind,
        grants_policy=grants,
        restock=[_restock(typed) for typed in restock or []],
        expires_at=parse_moment(expires, "--expires"),
        metadata=parse_metadata(metadata),
    )
    _print(write(ctx, _request, new, major), as_json=as_json)


def _request(tx: Tx, new: NewRefund, major: str | None) -> Refund:
    if major is not None:
        asset = payments.get(tx, new.payment_id).asset if new.payment_id else orders.get(tx, new.order_id or "").asset
        fields = {name: getattr(new, name) for name in new.__struct_fields__}
        new = NewRefund(**{**fields, "amount": parse_amount(major, asset).amount})
    return refunds.request(tx, new)


def _restock(typed: str) -> Restock:
    line, _, quantity = typed.partition("=")
    if not (line.isdecimal() and quantity.isdecimal() and len(typed) < 20):
        raise typer.BadParameter(f"{typed!r}: say 0=1", param_hint="--restock")
    return Restock(int(line), int(quantity))


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[RefundStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    order: OrderOption = None,
    payment: PaymentOption = None,
    purchase: Annotated[
        str | None, typer.Option("--purchase", metavar="TEXT", help="Of the order with this purchase reference.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List refunds, oldest first."""
    wanted = RefundFilter(status=status, order_id=order, payment_id=payment, purchase_reference=purchase)
    page = read(ctx, refunds.list_, wanted, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda refund: refund, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, refund: Which, *, as_json: AsJson = False) -> None:
    """Show a refund."""
    _print(read(ctx, refunds.get, refund), as_json=as_json)


@app.command("approve")
def approve(
    ctx: typer.Context, refund: Which, *, grants: Grants = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Approve a refund, have its rail give the money back, and say what came of it."""
    asked = read(ctx, refunds.get, refund)
    confirm(f"Give {amount(asked.amount, asked.asset)} back?", yes=yes)

    async def work(house: House, scope: Scope) -> Refund:
        await scope.run(refunds.approve, refund, grants_policy=grants)
        await house.refunder.execute(house.refunder.scope(scope.tenant), refund)
        return await scope.read(refunds.get, refund)

    _print(within(ctx, work), as_json=as_json)


@app.command("deny")
def deny(ctx: typer.Context, refund: Which, *, note: Note = "", as_json: AsJson = False) -> None:
    """Deny a refund: the money stays."""
    _print(write(ctx, refunds.deny, refund, note=note), as_json=as_json)


@app.command("withdraw")
def withdraw(ctx: typer.Context, refund: Which, *, as_json: AsJson = False) -> None:
    """Take back a request that nobody has decided about."""
    _print(write(ctx, refunds.withdraw, refund), as_json=as_json)


@app.command("settle")
def settle(
    ctx: typer.Context,
    refund: Which,
    *,
    reference: Annotated[
        str, typer.Option("--reference", metavar="TEXT", help="Where the money can be found: a bank's, a wallet's.")
    ],
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Say that the money of an approved refund was given back by hand."""
    _print(write(ctx, reverse.settle_by_hand, refund, reference=reference, note=note), as_json=as_json)


def _print(refund: Refund, *, as_json: bool) -> None:
    if as_json:
        print_json(refund)
        return
    shown = {"amount": amount(refund.amount, refund.asset)}
    print_fields((name, shown.get(name, getattr(refund, name))) for name in refund.__struct_fields__)
