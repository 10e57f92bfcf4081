"""Commands on discounts."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from counterfoil.accounts import customers
from counterfoil.catalog import discounts, products
from counterfoil.catalog.discount_rules import DiscountChanges, NewDiscount
from counterfoil.catalog.types import CatalogStatus, Discount, DiscountKind, DiscountStage
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Asset, Limit, Metadata, group
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_page, view
from counterfoil.cli.values import parse_amount, parse_line, parse_metadata, parse_moment
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.settlement import quoting
from counterfoil.settlement.quoting import CodeQuestion

Uses = Annotated[int | None, typer.Option("--uses", metavar="N", min=1, help="How often it can be used.")]
UsesEach = Annotated[int | None, typer.Option("--uses-each", metavar="N", min=1, help="How often by each customer.")]

_OPTIONS = {"flat": "--flat", "flat_per_seat": "--per-seat", "set_price": "--price"}
_LIMITS = {"uses": "usage_limit", "uses-each": "per_customer_limit", "expires": "expires_at"}

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


def _name(discount: Discount) -> str:
    return discount.code or (f"margin of {discount.customer_id}" if discount.customer_id else "by itself")


COLUMNS: list[Column[Discount]] = [
    Column("CODE", _name),
    Column("WORTH", _worth),
    Column("USED", _uses),
    Column("EXPIRES", lambda discount: discount.expires_at),
    Column("STATUS", lambda discount: discount.status),
    Column("ID", lambda discount: discount.id),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    code: Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only the one with this code.")] = None,
    group_id: Annotated[str | None, typer.Option("--group", metavar="NAME", help="Only those of this group.")] = None,
    status: Annotated[CatalogStatus | None, typer.Option("--status")] = None,
    auto: Annotated[
        bool | None, typer.Option("--auto/--typed", help="Only those that apply by themselves, or only the others.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List discounts, oldest first."""
    page = read(
        ctx,
        discounts.list_,
        code=code,
        group_id=group_id,
        status=status,
        auto_apply=auto,
        after=start(after),
        limit=limit,
    )
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
    per_seat: Annotated[
        str | None, typer.Option("--per-seat", metavar="DECIMAL", help="So much off each unit, in --asset.")
    ] = None,
    price: Annotated[str | None, typer.Option("--price", metavar="DECIMAL", help="Each unit for so much.")] = None,
    free: Annotated[bool, typer.Option("--free", help="For nothing.")] = False,
    asset: Asset = None,
    product: Annotated[
        list[str] | None, typer.Option("--product", metavar="PRODUCT", help="Only for this one; may be repeated.")
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", metavar="TEXT", help="Only for this tier; may be repeated.")
    ] = None,
    price_id: Annotated[
        list[str] | None, typer.Option("--only-price", metavar="PRICE", help="Only for this one; may be repeated.")
    ] = None,
    rail: Annotated[
        list[str] | None, typer.Option("--rail", metavar="NAME", help="Only on this one; may be repeated.")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="It applies by itself.")] = False,
    stage: Annotated[
        DiscountStage, typer.Option("--stage", help="Whether it changes what a unit costs, or what the cart does.")
    ] = "checkout",
    group_id: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help="Of one group, a cart gets one.")
    ] = None,
    uses: Uses = None,
    uses_each: UsesEach = None,
    periods: Annotated[
        int | None,
        typer.Option("--periods", metavar="N", min=0, help="Off so many periods of a subscription; 0 = all."),
    ] = None,
    starts: Annotated[str | None, typer.Option("--starts", metavar="TIME", help="2026-12-01")] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="2026-12-31T18:00Z")] = None,
    description: Annotated[str, typer.Option("--description", metavar="TEXT")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a discount."""
    if [code is not None or auto, margin_of is not None].count(True) != 1:
        raise typer.BadParameter("say a code, --auto, or --margin-of a customer")
    kind, worth = _parse_worth(percent, {"flat": flat, "flat_per_seat": per_seat, "set_price": price}, asset, free=free)
    new = NewDiscount(
        kind=kind,
        code=code,
        amount=worth,
        asset=asset,
        description=description,
        price_ids=price_id or [],
        tiers=tier or [],
        rails=rail or [],
        auto_apply=auto,
        stage=stage,
        group_id=group_id,
        usage_limit=uses,
        per_customer_limit=uses_each,
        recurring=periods is not None,
        max_periods=periods or None,
        starts_at=parse_moment(starts, "--starts"),
        expires_at=parse_moment(expires, "--expires"),
    )
    _print(write(ctx, _create, new, product or [], margin_of), as_json=as_json)


def _parse_worth(
    percent: str | None, money: dict[DiscountKind, str | None], asset: str | None, *, free: bool
) -> tuple[DiscountKind, int]:
    """The kind, and basis points or minor units."""
    given = {kind: typed for kind, typed in money.items() if typed is not None}
    if len(given) + (percent is not None) + free != 1:
        raise typer.BadParameter("say one of --percent, --flat, --per-seat, --price and --free")
    if percent is not None:
        # Two decimals of a percent are a basis point, as two decimals of a dollar are a cent.
        return "percentage", parse_amount(percent, "USD", "--percent").amount
    if free:
        return "free", 0
    if asset is None:
        raise typer.BadParameter("--flat, --per-seat and --price need --asset")
    ((kind, typed),) = given.items()
    return kind, parse_amount(typed, asset, _OPTIONS[kind]).amount


def _create(tx: Tx, new: NewDiscount, wanted: list[str], margin_of: str | None) -> Discount:
    ids = [products.find(tx, product).id for product in wanted]
    customer_id = None if margin_of is None else customers.find(tx, margin_of).id
    return discounts.create(tx, msgspec.structs.replace(new, product_ids=ids, customer_id=customer_id))


@app.command("update")
def update(
    ctx: typer.Context,
    discount: Annotated[str, typer.Argument(metavar="DISCOUNT", help="Its id.")],
    *,
    uses: Uses = None,
    uses_each: UsesEach = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="2026-12-31T18:00Z")] = None,
    lift: Annotated[
        list[str] | None,
        typer.Option("--lift", metavar="NAME", help="Without it: uses, uses-each, expires; may be repeated."),
    ] = None,
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT")] = None,
    status: Annotated[CatalogStatus | None, typer.Option("--status")] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Change a discount; what is left out stays. Who was quoted it keeps it."""
    given: dict[str, Any] = {
        "description": description,
        "usage_limit": uses,
        "per_customer_limit": uses_each,
        "expires_at": parse_moment(expires, "--expires"),
        "status": status,
        "metadata": None if metadata is None else parse_metadata(metadata),
    }
    unknown = [name for name in lift or [] if name not in _LIMITS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}: say {', '.join(_LIMITS)}", param_hint="--lift")
    lifted = dict.fromkeys(_LIMITS[name] for name in lift or [])
    changes = DiscountChanges(**{name: value for name, value in given.items() if value is not None} | lifted)
    _print(write(ctx, discounts.update, discount, changes), as_json=as_json)


@app.command("validate")
def validate(
    ctx: typer.Context,
    code: Annotated[str, typer.Argument(metavar="CODE")],
    lines: Annotated[list[str] | None, typer.Argument(metavar="[PRICE[:QUANTITY]]...", help="What it is for.")] = None,
    *,
    rail: Annotated[str | None, typer.Option("--rail", metavar="NAME", help="What it will be paid on.")] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="The buyer's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a code would take off, or why it cannot be used."""
    asked = CodeQuestion(code=code, lines=[parse_line(line) for line in lines or []], rail=rail, email=email)
    verdict = read(ctx, quoting.judge, asked)
    if as_json:
        print_json(verdict)
        return
    fields = view(verdict, "discount")
    for name in ("takes_off", "total"):
        if fields[name] is not None:
            fields[name] = amount(fields[name], fields["asset"])
    print_fields(fields.items())


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
