"""Commands on discounts."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.accounts import customers
from counterfoil.catalog import discounts, products
from counterfoil.catalog.discount_rules import NewDiscount
from counterfoil.catalog.types import Discount, DiscountKind
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Asset, Limit, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page
from counterfoil.cli.values import parse_amount, parse_moment
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("Discounts: codes and customers' margins that make it cheaper.")


def _worth(discount: Discount) -> str:
    match discount.kind:
        case "percentage":
            return f"{discount.amount / 100:g} % off"
        case "flat":
            return f"{amount(discount.amount, discount.asset or '')} off"
        case "flat_per_seat":
            return f"{amount(discount.amount, discount.asset or '')} off each"
        case "set_price":
            return f"for {amount(discount.amount, discount.asset or '')}"
        case "free":
            return "free"


def _uses(discount: Discount) -> str:
    return f"{discount.times_used} of {discount.usage_limit}" if discount.usage_limit else str(discount.times_used)


COLUMNS: list[Column[Discount]] = [
    Column("CODE", lambda discount: discount.code or f"margin of {discount.customer_id}"),
    Column("WORTH", _worth),
    Column("USED", _uses),
    Column("EXPIRES", lambda discount: discount.expires_at),
    Column("STATUS", lambda discount: discount.status),
    Column("ID", lambda discount: discount.id),
]


@app.command("list")
def list_(ctx: typer.Context, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False) -> None:
    """List discounts, oldest first."""
    page = read(ctx, discounts.list_, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda discount: discount, as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="What the buyer types; the same in either case.")
    ] = None,
    *,
    margin_of: Annotated[
        str | None,
        typer.Option("--margin-of", metavar="CUSTOMER", help="No code: for this customer and all below it."),
    ] = None,
    percent: Annotated[
        str | None, typer.Option("--percent", metavar="N", help="So much of each line: 10, 12.5")
    ] = None,
    flat: Annotated[str | None, typer.Option("--flat", metavar="DECIMAL", help="So much once, in --asset.")] = None,
    price: Annotated[str | None, typer.Option("--price", metavar="DECIMAL", help="Each unit for so much.")] = None,
    free: Annotated[bool, typer.Option("--free", help="For nothing.")] = False,
    asset: Asset = None,
    product: Annotated[
        list[str] | None, typer.Option("--product", metavar="PRODUCT", help="Only for this one; may be repeated.")
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", metavar="TEXT", help="Only for this tier; may be repeated.")
    ] = None,
    uses: Annotated[int | None, typer.Option("--uses", metavar="N", min=1, help="How often it can be used.")] = None,
    starts: Annotated[str | None, typer.Option("--starts", metavar="TIME", help="2026-12-01")] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="2026-12-31T18:00Z")] = None,
    description: Annotated[str, typer.Option("--description", metavar="TEXT")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a discount."""
    if (code is None) == (margin_of is None):
        raise typer.BadParameter("say a code, or --margin-of a customer")
    kind, worth = _parse_worth(percent, flat, price, asset, free=free)
    new = NewDiscount(
        kind=kind,
        code=code,
        amount=worth,
        asset=asset,
        description=description,
        tiers=tier or [],
        usage_limit=uses,
        starts_at=parse_moment(starts, "--starts"),
        expires_at=parse_moment(expires, "--expires"),
    )
    _print(write(ctx, _create, new, product or [], margin_of), as_json=as_json)


def _parse_worth(
    percent: str | None, flat: str | None, price: str | None, asset: str | None, *, free: bool
) -> tuple[DiscountKind, int]:
    """The kind, and basis points or minor units."""
    if [percent is not None, flat is not None, price is not None, free].count(True) != 1:
        raise typer.BadParameter("say one of --percent, --flat, --price and --free")
    if percent is not None:
        # Two decimals of a percent are a basis point, as two decimals of a dollar are a cent.
        return "percentage", parse_amount(percent, "USD", "--percent").amount
    if free:
        return "free", 0
    if asset is None:
        raise typer.BadParameter("--flat and --price need --asset")
    if flat is not None:
        return "flat", parse_amount(flat, asset, "--flat").amount
    assert price is not None
    return "set_price", parse_amount(price, asset, "--price").amount


def _create(tx: Tx, new: NewDiscount, wanted: list[str], margin_of: str | None) -> Discount:
    ids = [products.find(tx, product).id for product in wanted]
    customer_id = None if margin_of is None else customers.find(tx, margin_of).id
    return discounts.create(tx, msgspec.structs.replace(new, product_ids=ids, customer_id=customer_id))


@app.command("archive")
def archive(
    ctx: typer.Context,
    discount: Annotated[str, typer.Argument(metavar="DISCOUNT", help="Its id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Take a discount out of use."""
    _print(write(ctx, discounts.set_status, discount, "archived"), as_json=as_json)


def _print(discount: Discount, *, as_json: bool) -> None:
    if as_json:
        print_json(discount)
        return
    shown = {"amount": _worth(discount)}
    print_fields((name, shown.get(name, getattr(discount, name))) for name in discount.__struct_fields__)
