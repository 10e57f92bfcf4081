"""Commands on stock."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from counterfoil.catalog import stock
from counterfoil.catalog.stock import Drift
from counterfoil.catalog.types import StockItem
from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, print_table, view
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.stock_taking import reconcile_stock
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Stock: how much there is to sell.")

Which = Annotated[str, typer.Argument(metavar="PRODUCT", help="Its slug or id.")]
OfPrice = Annotated[
    str | None, typer.Option("--price", metavar="PRICE", help="Of this price alone: a variant with its own shelf.")
]

COLUMNS: list[Column[StockItem]] = [
    Column("PRODUCT", lambda item: item.product_id),
    Column("PRICE", lambda item: item.price_id or "any"),
    Column("ON HAND", lambda item: item.on_hand, right=True),
    Column("RESERVED", lambda item: item.reserved, right=True),
    Column("AVAILABLE", lambda item: item.on_hand - item.reserved, right=True),
    Column("POLICY", lambda item: item.policy),
    Column("ID", lambda item: item.id),
]
_DRIFT_COLUMNS: list[Column[Drift]] = [
    Column("PRODUCT", lambda drift: drift.item.product_id),
    Column("PRICE", lambda drift: drift.item.price_id or "any"),
    Column("ON HAND", lambda drift: drift.item.on_hand, right=True),
    Column("RESERVED", lambda drift: drift.item.reserved, right=True),
    Column("HELD", lambda drift: drift.held, right=True),
    Column("FIXED", lambda drift: drift.fixed),
    Column("ID", lambda drift: drift.item.id),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    product: Annotated[
        str | None, typer.Option("--product", metavar="PRODUCT", help="Of this one and its prices.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List what is counted, oldest first."""
    page = read(ctx, stock.list_, product=product, after=start(after), limit=limit)
    print_page(page, COLUMNS, _fields, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, product: Which, *, price: OfPrice = None, as_json: AsJson = False) -> None:
    """Show how much there is of a product."""
    _print(read(ctx, stock.find, product, price), as_json=as_json)


@app.command("set")
def set_(
    ctx: typer.Context,
    product: Which,
    on_hand: Annotated[
        int | None, typer.Argument(metavar="[N]", min=0, help="How many lie on the shelf; left out, it stays.")
    ] = None,
    *,
    price: OfPrice = None,
    policy: Annotated[
        Literal["deny", "allow_backorder"] | None,
        typer.Option("--policy", help="What happens when none is left; deny unless said."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how much there is. The first time, it begins to be counted."""
    if on_hand is None and policy is None:
        raise typer.BadParameter("say how many there are, or a --policy")
    _print(write(ctx, stock.set_, product, price_id=price, on_hand=on_hand, policy=policy), as_json=as_json)


@app.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust(
    ctx: typer.Context,
    product: Which,
    by: Annotated[int, typer.Argument(metavar="N", help="How many came (10), or went (-3).")],
    *,
    price: OfPrice = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it enters the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add to what there is, or take from it."""
    _print(write(ctx, stock.adjust, product, by=by, reason=reason, price_id=price), as_json=as_json)


@app.command("untrack")
def untrack(
    ctx: typer.Context, product: Which, *, price: OfPrice = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Count it no longer: it never runs out, and what checkouts held of it is forgotten."""
    confirm(f"Stop counting {product}?", yes=yes)
    _print(write(ctx, stock.untrack, product, price_id=price), as_json=as_json)


@app.command("reconcile")
def reconcile(
    ctx: typer.Context,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Correct what is wrong.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what is reserved with what open checkouts hold. Exit code 1 while something is wrong."""

    async def work(_: House, scope: Scope) -> list[Drift]:
        return await reconcile_stock(scope, fix=fix)

    found = within(ctx, work)
    if as_json:
        print_json([_fields(drift.item) | {"held": drift.held, "fixed": drift.fixed} for drift in found])
    elif found:
        print_table(_DRIFT_COLUMNS, found)
    else:
        typer.echo("nothing is wrong")
    if not all(drift.fixed for drift in found):
        raise typer.Exit(1)


def _fields(item: StockItem) -> dict[str, object]:
    return view(item, available=item.on_hand - item.reserved)


def _print(item: StockItem, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(item))
        return
    print_fields(_fields(item).items())
