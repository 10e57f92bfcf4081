"""Commands on tenants."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.accounts import tenants
from counterfoil.accounts.tenants import KnownTenant, NewTenant, SettingsChanges, TenantChanges
from counterfoil.cli.context import CLI, confirm, read, within, write
from counterfoil.cli.options import AsJson, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_table, view
from counterfoil.db.base import Scope
from counterfoil.house import House

app = group("Tenants: the sellers on this installation.")

Which = Annotated[str, typer.Argument(metavar="TENANT", help="Its slug or id.")]
Hosts = Annotated[
    list[str] | None, typer.Option("--host", metavar="NAME", help="A host name of its own; may be repeated.")
]

COLUMNS: list[Column[KnownTenant]] = [
    Column("SLUG", lambda tenant: tenant.slug),
    Column("NAME", lambda tenant: tenant.name),
    Column("HOSTS", lambda tenant: tenant.hosts),
    Column("STATUS", lambda tenant: tenant.status),
    Column("ID", lambda tenant: tenant.id),
]


@app.command("list")
def list_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List tenants, oldest first."""
    found = read(ctx, tenants.list_)
    if as_json:
        print_json({"data": found, "next": None})
        return
    print_table(COLUMNS, found)


@app.command("show")
def show(ctx: typer.Context, tenant: Which, *, as_json: AsJson = False) -> None:
    """Show a tenant."""
    _print(read(ctx, tenants.find, tenant), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Its address here: /t/SLUG.")],
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="The slug, when left out.")] = None,
    hosts: Hosts = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="E-MAIL", help="Who runs it: gets a letter that lets them in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant, ready to sell."""
    new = NewTenant(slug, name if name is not None else slug.capitalize(), hosts or [], owner)

    async def work(house: House, _: Scope) -> KnownTenant:
        return await house.create_tenant(new, CLI)

    _print(within(ctx, work), as_json=as_json)


@app.command("update")
def update(
    ctx: typer.Context,
    tenant: Which,
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT")] = None,
    hosts: Hosts = None,
    no_hosts: Annotated[bool, typer.Option("--no-hosts", help="It has none of its own any more.")] = False,
    support_email: Annotated[str | None, typer.Option("--support-email", metavar="E-MAIL", help="'' for none.")] = None,
    support_url: Annotated[str | None, typer.Option("--support-url", metavar="URL", help="'' for none.")] = None,
    brand_color: Annotated[
        str | None, typer.Option("--brand-color", metavar="COLOR", help="#1f6f54; '' for none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant; what is left out stays. Host names replace those it had."""
    if hosts and no_hosts:
        raise typer.BadParameter("--no-hosts goes without --host")
    changes = TenantChanges(
        name=msgspec.UNSET if name is None else name,
        hosts=[] if no_hosts else hosts or msgspec.UNSET,
        settings=SettingsChanges(_setting(support_email), _setting(support_url), _setting(brand_color)),
    )

    async def work(house: House, scope: Scope) -> KnownTenant:
        known = await scope.read(tenants.find, tenant)
        return await house.update_tenant(known.id, changes, CLI)

    _print(within(ctx, work), as_json=as_json)


def _setting(typed: str | None) -> str | msgspec.UnsetType | None:
    return msgspec.UNSET if typed is None else typed or None


@app.command("suspend")
def suspend(ctx: typer.Context, tenant: Which, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Close a tenant's doors until it is resumed. It loses nothing."""
    confirm(f"Close the doors of {tenant}?", yes=yes)
    _print(write(ctx, tenants.suspend, tenant), as_json=as_json)


@app.command("resume")
def resume(ctx: typer.Context, tenant: Which, *, as_json: AsJson = False) -> None:
    """Open a suspended tenant's doors again."""
    _print(write(ctx, tenants.resume, tenant), as_json=as_json)


def _print(tenant: KnownTenant, *, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
        return
    print_fields(view(tenant).items())
