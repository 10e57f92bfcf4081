"""Commands on benefits."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.catalog import benefits, products
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.types import DEFAULT_TIER, Benefit, LicenseSpec
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


def _spec(benefit: Benefit) -> LicenseSpec:
    return msgspec.convert(benefit.spec, LicenseSpec)


BENEFIT_COLUMNS: list[Column[Benefit]] = [
    Column("TIER", lambda benefit: benefit.tier),
    Column("KIND", lambda benefit: benefit.kind),
    Column("LASTS", lambda benefit: show_duration(_spec(benefit).duration_seconds, "for ever")),
    Column("GRACE", lambda benefit: show_duration(_spec(benefit).grace_seconds, "-")),
    Column("MACHINES", lambda benefit: _spec(benefit).max_machines or "any", right=True),
    Column("ENTITLEMENTS", lambda benefit: _spec(benefit).entitlements),
    Column("ID", lambda benefit: benefit.id),
]


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
    print_page(Page(read(ctx, _list, product)), BENEFIT_COLUMNS, lambda benefit: benefit, as_json=as_json)


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
    as_json: AsJson = False,
) -> None:
    """Set what a tier promises to later buyers. What was quoted before keeps its promise."""
    spec = parse_spec(duration, grace, machines, entitlements, trial=trial)
    benefit = write(ctx, _put, product, BenefitTerms(license=spec, tier=tier))
    if as_json:
        print_json(benefit)
        return
    print_fields((column.title.lower(), column.of(benefit)) for column in BENEFIT_COLUMNS)


def _put(tx: Tx, product: str, terms: BenefitTerms) -> Benefit:
    return benefits.put(tx, products.find(tx, product).id, terms)
