"""Commands on checkouts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import typer

from counterfoil.cli.context import read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, view
from counterfoil.cli.values import parse_line
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.buying import NewCheckout, open_for
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.sales import checkouts
from counterfoil.sales.shipping import ShippingAddress
from counterfoil.sales.types import Checkout
from counterfoil.settlement import checkout as opening

app = group("Checkouts: attempts to pay.")

_PRIVATE = ("idempotency_key", "request_hash")

COLUMNS: list[Column[Checkout]] = [
    Column("ID", lambda checkout: checkout.id),
    Column("STATUS", lambda checkout: checkout.status),
    Column("AMOUNT", lambda checkout: amount(checkout.amount, checkout.asset), right=True),
    Column("RAIL", lambda checkout: checkout.rail),
    Column("E-MAIL", lambda checkout: checkout.email),
    Column("OPENED", lambda checkout: checkout.created_at),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[
        Literal["open", "processing", "settled", "expired", "canceled", "failed"] | None, typer.Option("--status")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List checkouts, oldest first."""
    page = read(ctx, checkouts.list_, status=status, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda checkout: view(checkout, *_PRIVATE), as_json=as_json)


@app.command("show")
def show(
    ctx: typer.Context, checkout: Annotated[str, typer.Argument(metavar="CHECKOUT")], *, as_json: AsJson = False
) -> None:
    """Show a checkout."""
    _print(read(ctx, checkouts.get, checkout), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    lines: Annotated[list[str] | None, typer.Argument(metavar="[PRICE[:QUANTITY]]...", help="What is bought.")] = None,
    *,
    cart: Annotated[
        str | None, typer.Option("--cart", metavar="CART", help="A saved quote, at its price, instead.")
    ] = None,
    rail: Annotated[
        str | None, typer.Option("--rail", metavar="NAME", help="May be left out where only one is connected.")
    ] = None,
    code: Annotated[str | None, typer.Option("--code", metavar="CODE", help="A discount's code.")] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="The buyer's.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT")] = None,
    country: Annotated[str | None, typer.Option("--country", metavar="DE", help="Where the buyer is.")] = None,
    shipping: Annotated[
        str | None,
        typer.Option("--shipping", metavar="JSON", help="Where goods go: name, line1, city, country; more in the API."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a checkout. Send the buyer to its address; the claim is theirs alone: it shows the license key."""
    if bool(lines) == (cart is not None):
        raise typer.BadParameter("say what is bought, or --cart")
    wanted = NewCheckout(
        lines=[parse_line(line) for line in lines or []],
        cart_id=cart,
        rail=rail,
        code=code,
        email=email,
        note=note,
        country=country,
        shipping=_shipping(shipping),
    )

    async def work(house: House, scope: Scope) -> tuple[Checkout, str]:
        opened = await open_for(house, scope, wanted, None)
        return opened, house.claims.make(scope.tenant, opened.id)

    checkout, claim = within(ctx, work)
    _print(checkout, as_json=as_json, claim=claim)


@app.command("cancel")
def cancel(
    ctx: typer.Context, checkout: Annotated[str, typer.Argument(metavar="CHECKOUT")], *, as_json: AsJson = False
) -> None:
    """Call off a checkout that nobody has paid; what it held is for others to buy."""
    _print(write(ctx, opening.cancel, checkout), as_json=as_json)


def _shipping(typed: str | None) -> ShippingAddress | None:
    if typed is None:
        return None
    try:
        return msgspec.json.decode(typed, type=ShippingAddress)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise typer.BadParameter(f"not an address: {error}", param_hint="--shipping") from error


def _print(checkout: Checkout, *, as_json: bool, **more: Any) -> None:
    fields = view(checkout, *_PRIVATE, **more)
    if as_json:
        print_json(fields)
        return
    fields["amount"] = amount(checkout.amount, checkout.asset)
    fields["paid"] = amount(checkout.paid, checkout.asset)
    print_fields(fields.items())
