"""Commands on priced carts."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Metadata, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, print_section, view
from counterfoil.cli.values import parse_line, parse_metadata
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.quoting import NewCart, quote_for
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.kernel.text import check_line
from counterfoil.sales import carts
from counterfoil.sales.quotes import CartWithLines
from counterfoil.sales.types import CartLine

app = group("Carts: quotes that hold for a while.")

Which = Annotated[str, typer.Argument(metavar="CART")]

COLUMNS: list[Column[CartWithLines]] = [
    Column("ID", lambda found: found.cart.id),
    Column("STATUS", lambda found: found.cart.status),
    Column("TOTAL", lambda found: amount(found.cart.total, found.cart.asset), right=True),
    Column("LINES", lambda found: len(found.lines), right=True),
    Column("PAID BY", lambda found: found.cart.paid_by),
    Column("EXPIRES", lambda found: found.cart.expires_at),
]


@app.command("list")
def list_(ctx: typer.Context, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False) -> None:
    """List carts, oldest first."""
    page = read(ctx, carts.list_, after=start(after), limit=limit)
    print_page(page, COLUMNS, _document, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, cart: Which, *, as_json: AsJson = False) -> None:
    """Show a cart and what is taken off each line."""
    _print(read(ctx, carts.get, cart), as_json=as_json)


@app.command("quote")
def quote(
    ctx: typer.Context,
    lines: Annotated[list[str], typer.Argument(metavar="PRICE[:QUANTITY]...", help="What is wanted.")],
    *,
    customer: Annotated[str | None, typer.Option("--customer", metavar="CUSTOMER", help="Who buys; its id.")] = None,
    rail: Annotated[str | None, typer.Option("--rail", metavar="NAME", help="What it will be paid on.")] = None,
    code: Annotated[str | None, typer.Option("--code", metavar="CODE", help="A discount's code.")] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="The buyer's.")] = None,
    country: Annotated[str | None, typer.Option("--country", metavar="DE", help="Where the buyer is.")] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Price a cart, and hold the price for a while."""
    wanted = NewCart(
        lines=[parse_line(line) for line in lines],
        rail=rail,
        code=code,
        email=email,
        country=country,
        metadata=parse_metadata(metadata),
    )

    async def work(house: House, scope: Scope) -> CartWithLines:
        return await quote_for(house, scope, wanted, lambda found: found, customer_id=customer)

    _print(within(ctx, work), as_json=as_json)


@app.command("paid")
def paid(
    ctx: typer.Context,
    cart: Which,
    paid_by: Annotated[str, typer.Argument(metavar="PAYER", help="Who paid: a customer's id, or any name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say that a cart was paid elsewhere. It makes no order."""
    payer = check_line("paid_by", paid_by, least=1, most=500)
    _print(write(ctx, carts.mark_paid, cart, payer), as_json=as_json)


@app.command("access")
def access(
    ctx: typer.Context,
    cart: Which,
    paid_by: Annotated[str, typer.Argument(metavar="PAYER")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say whether somebody paid for a cart; exit code 1 if not."""
    has_access = read(ctx, carts.has_access, cart, paid_by)
    if as_json:
        print_json({"has_access": has_access})
    elif not has_access:
        raise Invalid(f"{paid_by} has not paid for this cart.", code="no_access")
    else:
        typer.echo("yes")


LINES: list[Column[CartLine]] = [
    Column("ITEM", lambda line: line.name),
    Column("QUANTITY", lambda line: line.quantity, right=True),
    Column("EACH", lambda line: line.unit_amount, right=True),
    Column("OFF", lambda line: line.discount_total, right=True),
    Column("TOTAL", lambda line: line.total, right=True),
    Column("BY", lambda line: [note["code"] or note["discount_id"] for note in line.discounts]),
]


def _document(found: CartWithLines) -> dict[str, object]:
    return view(found.cart, lines=found.lines)


def _print(found: CartWithLines, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(found))
        return
    fields = view(found.cart)
    for name in ("subtotal", "discount_total", "tax_total", "total"):
        fields[name] = amount(fields[name], found.cart.asset)
    print_fields(fields.items())
    print_section("lines", LINES, found.lines)
