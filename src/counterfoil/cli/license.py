"""Commands on licenses."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated

import typer

from counterfoil.catalog import products
from counterfoil.catalog.products import check_text
from counterfoil.catalog.types import DEFAULT_TIER
from counterfoil.cli.benefit import Duration, Entitlements, Grace, Machines, Trial, parse_spec
from counterfoil.cli.context import confirm, read, start, within
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import After, AsJson, Limit, Reason, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.cli.values import show_duration
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.kernel.ids import from_uuid
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.licensing import keys, licenses
from counterfoil.licensing.keyring import BadLicenseSignature
from counterfoil.licensing.types import License
from counterfoil.settlement.by_hand import NewLicense, issue_by_hand

app = group("Licenses: the right to run.")

Which = Annotated[str, typer.Argument(metavar="LICENSE", help="Its id, or the license key.")]


def _machines(license_: License) -> str:
    return f"{license_.machine_count} of {license_.max_machines or 'any'}"


LICENSE_COLUMNS: list[Column[License]] = [
    Column("ID", lambda license_: license_.id),
    Column("TIER", lambda license_: license_.tier),
    Column("STATUS", lambda license_: license_.status),
    Column("EXPIRES", lambda license_: license_.expires_at or "never"),
    Column("MACHINES", _machines),
    Column("E-MAIL", lambda license_: license_.email),
    Column("ISSUED", lambda license_: license_.issued_at),
]


async def license_id(house: House, scope: Scope, typed: str) -> str:
    """The license behind an id, a UUID or a license key. Raises CliError for a key that is not ours."""
    if typed.upper().startswith("LIC1-"):
        try:
            ring = await house.keyring(scope.tenant)
            return from_uuid("lic", ring.license_id(typed))
        except (keys.BadKey, BadLicenseSignature) as error:
            raise CliError(f"this license key is not good: {error}") from error
    try:
        return from_uuid("lic", uuid.UUID(typed))
    except ValueError:
        return typed


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    product: Annotated[
        str | None, typer.Option("--product", metavar="PRODUCT", help="Only of this one, by slug or id.")
    ] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="Only this buyer's.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List licenses, oldest first, without their keys."""
    if product and email:
        raise typer.BadParameter("--product and --email do not go together")
    page = read(ctx, _list, product, email=email, after=start(after), limit=limit)
    print_page(page, LICENSE_COLUMNS, lambda license_: license_, as_json=as_json)


def _list(tx: Tx, product: str | None, *, email: str | None, after: str, limit: int) -> Page[License]:
    product_id = products.find(tx, product).id if product else None
    return licenses.list_(tx, product_id=product_id, email=email, after=after, limit=limit)


@app.command("show")
def show(ctx: typer.Context, license_: Which, *, as_json: AsJson = False) -> None:
    """Show a license and its key."""

    async def work(house: House, scope: Scope) -> tuple[License, str]:
        found = await scope.read(licenses.get, await license_id(house, scope, license_))
        return found, (await house.keyring(scope.tenant)).key_of(found)

    _print(*within(ctx, work), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="Its slug or id.")],
    *,
    tier: Annotated[
        str, typer.Option("--tier", metavar="TEXT", help="Whose promise it gets, unless you make another.")
    ] = DEFAULT_TIER,
    duration: Duration = None,
    grace: Grace = None,
    machines: Machines = None,
    entitlements: Entitlements = None,
    trial: Trial = False,
    email: Annotated[str | None, typer.Option("--email", metavar="TEXT", help="Whose it is.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT")] = None,
    as_json: AsJson = False,
) -> None:
    """Issue a license by hand, as its tier promises or with terms of its own."""
    own = trial or any(given is not None for given in (duration, grace, machines, entitlements))
    spec = parse_spec(duration, grace, machines, entitlements, trial=trial) if own else None
    new = NewLicense(product=product, tier=tier, license=spec, email=email, note=note)

    async def work(house: House, scope: Scope) -> tuple[License, str]:
        made = await scope.run(issue_by_hand, new)
        return made, (await house.keyring(scope.tenant)).key_of(made)

    _print(*within(ctx, work), as_json=as_json)


@app.command("suspend")
def suspend(ctx: typer.Context, license_: Which, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Stop an active license for a while."""
    check_text("reason", reason, most=2000)
    _done(ctx, license_, lambda tx, found: licenses.suspend(tx, found, reason=reason), as_json=as_json)


@app.command("reinstate")
def reinstate(ctx: typer.Context, license_: Which, *, as_json: AsJson = False) -> None:
    """Let a suspended license run again."""
    _done(ctx, license_, licenses.reinstate, as_json=as_json)


@app.command("revoke")
def revoke(
    ctx: typer.Context, license_: Which, *, reason: Reason = "", yes: Yes = False, as_json: AsJson = False
) -> None:
    """End a license for good."""
    check_text("reason", reason, most=2000)
    confirm("A revoked license never runs again. Revoke it?", yes=yes)
    _done(ctx, license_, lambda tx, found: licenses.revoke(tx, found, reason=reason), as_json=as_json)


def _done(ctx: typer.Context, typed: str, op: Callable[[Tx, str], License], *, as_json: bool) -> None:
    async def work(house: House, scope: Scope) -> tuple[License, str]:
        done = await scope.run(op, await license_id(house, scope, typed))
        return done, (await house.keyring(scope.tenant)).key_of(done)

    _print(*within(ctx, work), as_json=as_json)


def _print(license_: License, key: str, *, as_json: bool) -> None:
    if as_json:
        print_json(view(license_, key=key))
        return
    fields = view(license_)
    fields["expires_at"] = license_.expires_at or "never"
    fields["grace_seconds"] = show_duration(license_.grace_seconds, "none")
    fields["max_machines"] = license_.max_machines or "any number"
    print_fields([*fields.items(), ("key", key)])
