"""Commands on benefits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import typer

from counterfoil.catalog import benefits, products
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.types import DEFAULT_TIER, Benefit, GoodsSpec, LicenseSpec
from counterfoil.cli.context import read, write
from counterfoil.cli.options import AsJson, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page
from counterfoil.cli.values import parse_duration, show_duration
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import Page

app = group("Benefits: what a tier of a product promises.")

Which = Annotated[str, typer.Argument(metavar="PRODUCT", help="Its slug or id.")]
Tier = Annotated[str, typer.Option("--tier", metavar="TEXT")]
Duration = Annotated[
    str | None, typer.Option("--duration", metavar="TIME", help="How long the license lasts: 365d; 0 = for ever.")
]
Grace = Annotated[
    str | None, typer.Option("--grace", metavar="TIME", help="How long after that validation still says yes: 14d.")
]
Machines = Annotated[
    int | None, typer.Option("--machines", metavar="N", min=0, help="How many at once, else one; 0 = any number.")
]
Trial = Annotated[bool, typer.Option("--trial", help="Mark the license as a trial.")]
Entitlements = Annotated[
    list[str] | None, typer.Option("--entitlement", metavar="NAME", help="A feature; may be repeated.")
]


def _of_license(show: Callable[[LicenseSpec], Any]) -> Callable[[Benefit], Any]:
    """A column that only licenses have something in."""

    def shown(benefit: Benefit) -> Any:
        return show(msgspec.convert(benefit.spec, LicenseSpec)) if benefit.kind == "license" else None

    return shown


def _of_goods(show: Callable[[GoodsSpec], Any]) -> Callable[[Benefit], Any]:
    def shown(benefit: Benefit) -> Any:
        return show(msgspec.convert(benefit.spec, GoodsSpec)) if benefit.kind == "goods" else None

    return shown


_COLUMNS: list[Column[Benefit]] = [
    Column("TIER", lambda benefit: benefit.tier),
    Column("KIND", lambda benefit: benefit.kind),
    Column("LASTS", _of_license(lambda spec: show_duration(spec.duration_seconds, "for ever"))),
    Column("GRACE", _of_license(lambda spec: show_duration(spec.grace_seconds, "-"))),
    Column("MACHINES", _of_license(lambda spec: spec.max_machines or "any"), right=True),
    Column("ENTITLEMENTS", _of_license(lambda spec: spec.entitlements)),
    Column("ID", lambda benefit: benefit.id),
]
_GOODS_COLUMNS: list[Column[Benefit]] = [
    *_COLUMNS[:-1],
    Column("SKU", _of_goods(lambda spec: spec.sku)),
    Column("GRAMS", _of_goods(lambda spec: spec.weight_grams or None), right=True),
    _COLUMNS[-1],
]


def benefit_columns(benefits: Sequence[Benefit]) -> list[Column[Benefit]]:
    """What to show of benefits: what is about goods only where there are any."""
    return _GOODS_COLUMNS if any(benefit.kind == "goods" for benefit in benefits) else _COLUMNS


def parse_spec(
    duration: str | None, grace: str | None, machines: int | None, entitlements: list[str] | None, *, trial: bool
) -> LicenseSpec:
    """A license's terms as they are typed; what is left out is as in a new benefit."""
    return LicenseSpec(
        duration_seconds=parse_duration(duration or "0", "--duration"),
        grace_seconds=parse_duration(grace or "0", "--grace"),
        max_machines=1 if machines is None else machines,
        is_trial=trial,
        entitlements=entitlements or [],
    )


@app.command("list")
def list_(ctx: typer.Context, product: Which, *, as_json: AsJson = False) -> None:
    """List what each tier of a product promises."""
    found = read(ctx, _list, product)
    print_page(Page(found), benefit_columns(found), lambda benefit: benefit, as_json=as_json)


def _list(tx: Tx, product: str) -> list[Benefit]:
    return benefits.list_(tx, products.find(tx, product).id)


@app.command("set")
def set_(
    ctx: typer.Context,
    product: Which,
    *,
    tier: Tier = DEFAULT_TIER,
    duration: Duration = None,
    grace: Grace = None,
    machines: Machines = None,
    entitlements: Entitlements = None,
    trial: Trial = False,
    goods: Annotated[bool, typer.Option("--goods", help="Something that is shipped, instead of a license.")] = False,
    sku: Annotated[str, typer.Option("--sku", metavar="TEXT", help="Your own name for the goods.")] = "",
    grams: Annotated[int, typer.Option("--grams", metavar="N", min=0, help="What one weighs, packed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Set what a tier promises to later buyers. What was quoted before keeps its promise."""
    of_license = trial or any(given is not None for given in (duration, grace, machines, entitlements))
    if goods and of_license:
        raise typer.BadParameter("--goods goes without what is about licenses; say one after the other")
    if not goods and (sku or grams):
        raise typer.BadParameter("--sku and --grams need --goods")
    if goods:
        terms = BenefitTerms(goods=GoodsSpec(sku=sku, weight_grams=grams), tier=tier)
    else:
        spec = parse_spec(duration, grace, machines, entitlements, trial=trial)
        terms = BenefitTerms(license=spec, tier=tier)
    benefit = write(ctx, _put, product, terms)
    if as_json:
        print_json(benefit)
        return
    print_fields((column.title.lower(), column.of(benefit)) for column in benefit_columns([benefit]))


def _put(tx: Tx, product: str, terms: BenefitTerms) -> Benefit:
    return benefits.put(tx, products.find(tx, product).id, terms)
