"""Commands on prices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from counterfoil.catalog import prices, products
from counterfoil.catalog.prices import MAX_QUANTITY, NewPrice, PriceChanges
from counterfoil.catalog.types import DEFAULT_TIER, Price
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, Amount, AsJson, Asset, Limit, Metadata, Sats, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.cli.values import parse_amount, parse_metadata, parse_money, parse_overrides
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page

app = group("Prices: for how much.")

Which = Annotated[str, typer.Argument(metavar="PRICE", help="Its id.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT")]
Countries = Annotated[
    list[str] | None,
    typer.Option("--country", metavar="DE,AT=17.90", help="Another amount for buyers there; may be repeated."),
]
TrialDays = Annotated[int | None, typer.Option("--trial-days", metavar="N")]
QuantityMin = Annotated[int | None, typer.Option("--quantity-min", metavar="N")]
QuantityMax = Annotated[int | None, typer.Option("--quantity-max", metavar="N")]


def period(price: Price) -> str:
    """How often it is paid: ``once``, ``every month``, ``every 3 months``."""
    if price.interval is None:
        return "once"
    return f"every {price.interval}" if price.interval_count == 1 else f"every {price.interval_count} {price.interval}s"


PRICE_COLUMNS: list[Column[Price]] = [
    Column("TIER", lambda price: price.tier),
    Column("AMOUNT", lambda price: amount(price.unit_amount, price.asset), right=True),
    Column("PAID", period),
    Column("STATUS", lambda price: price.status),
    Column("ID", lambda price: price.id),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    product: Annotated[
        str | None, typer.Option("--product", metavar="PRODUCT", help="Only this product's, by slug or id.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List prices of any status, oldest first."""
    page = read(ctx, _list, product, after=start(after), limit=limit)
    print_page(page, PRICE_COLUMNS, lambda price: price, as_json=as_json)


def _list(tx: Tx, product: str | None, *, after: str, limit: int) -> Page[Price]:
    product_id = products.find(tx, product).id if product else None
    return prices.list_(tx, product=product_id, after=after, limit=limit)


@app.command("show")
def show(ctx: typer.Context, price: Which, *, as_json: AsJson = False) -> None:
    """Show a price."""
    _print(read(ctx, prices.get, price), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="Its slug or id.")],
    *,
    typed: Amount = None,
    asset: Asset = None,
    sats: Sats = None,
    tier: Annotated[str, typer.Option("--tier", metavar="TEXT", help="Whose benefits it buys.")] = DEFAULT_TIER,
    name: Name = None,
    description: Description = None,
    every: Annotated[
        Literal["day", "week", "month", "year"] | None, typer.Option("--every", help="Recurring: paid every ...")
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="... so many of them.")] = 1,
    trial_days: TrialDays = None,
    countries: Countries = None,
    quantity_min: QuantityMin = None,
    quantity_max: QuantityMax = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Make a price for a product."""
    money = parse_money(typed, asset, sats)
    new = NewPrice(
        asset=money.asset,
        unit_amount=money.amount,
        tier=tier,
        name=name or "",
        description=description or "",
        type="recurring" if every else "one_time",
        interval=every,
        interval_count=count if every else None,
        trial_days=trial_days or 0,
        country_overrides=parse_overrides(countries or [], money.asset),
        quantity_min=1 if quantity_min is None else quantity_min,
        quantity_max=MAX_QUANTITY if quantity_max is None else quantity_max,
        metadata=parse_metadata(metadata),
    )
    _print(write(ctx, _create, product, new), as_json=as_json)


def _create(tx: Tx, product: str, new: NewPrice) -> Price:
    return prices.create(tx, products.find(tx, product).id, new)


@app.command("update")
def update(
    ctx: typer.Context,
    price: Which,
    *,
    typed: Annotated[
        str | None, typer.Option("--amount", metavar="DECIMAL", help="Major units of the price's own asset.")
    ] = None,
    name: Name = None,
    description: Description = None,
    trial_days: TrialDays = None,
    countries: Countries = None,
    quantity_min: QuantityMin = None,
    quantity_max: QuantityMax = None,
    status: Annotated[Literal["active", "archived"] | None, typer.Option("--status")] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Change a price; what is left out stays. Once quoted, new terms make a new price."""
    given: dict[str, Any] = {
        "name": name,
        "description": description,
        "trial_days": trial_days,
        "quantity_min": quantity_min,
        "quantity_max": quantity_max,
        "status": status,
        "metadata": None if metadata is None else parse_metadata(metadata),
    }
    kept = {field: value for field, value in given.items() if value is not None}
    done = write(ctx, _update, price, typed, countries, kept)
    if done.id != price:
        typer.echo(f"{price} was quoted before, so its terms are fixed: {done.id} replaces it", err=True)
    _print(done, as_json=as_json)


def _update(tx: Tx, price_id: str, typed: str | None, countries: list[str] | None, given: dict[str, Any]) -> Price:
    asset = prices.get(tx, price_id).asset
    if typed is not None:
        given = {**given, "unit_amount": parse_amount(typed, asset).amount}
    if countries is not None:
        given = {**given, "country_overrides": parse_overrides(countries, asset)}
    return prices.update(tx, price_id, PriceChanges(**given))


def _print(price: Price, *, as_json: bool) -> None:
    if as_json:
        print_json(price)
        return
    shown = {"unit_amount": amount(price.unit_amount, price.asset)}
    print_fields((name, shown.get(name, getattr(price, name))) for name in price.__struct_fields__)
