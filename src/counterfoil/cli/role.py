"""Commands on roles."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.accounts import roles
from counterfoil.accounts.roles import NewRole, RoleChanges
from counterfoil.accounts.types import Role
from counterfoil.cli.context import confirm, read, write
from counterfoil.cli.options import AsJson, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_table, view
from counterfoil.db.tx import Tx
from counterfoil.kernel.ids import is_id

app = group("Roles: named sets of permissions.")

Which = Annotated[str, typer.Argument(metavar="ROLE", help="Its name or id.")]
Permissions = Annotated[
    list[str] | None,
    typer.Option("--permission", metavar="NAME", help="orders:read, or a bundle: billing_view; repeat it."),
]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT")]

COLUMNS: list[Column[Role]] = [
    Column("NAME", lambda role: role.name),
    Column("PERMISSIONS", lambda role: role.permissions),
    Column("BUILT IN", lambda role: role.built_in),
    Column("ID", lambda role: role.id),
]


def find(tx: Tx, name_or_id: str) -> Role:
    """Raise NotFound when there is none."""
    return roles.get(tx, name_or_id) if is_id("rol", name_or_id) else roles.by_name(tx, name_or_id)


@app.command("list")
def list_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List roles, the built-in ones first."""
    found = sorted(read(ctx, roles.everyone), key=lambda role: not role.built_in)
    if as_json:
        print_json({"data": found, "next": None})
        return
    print_table(COLUMNS, found)


@app.command("show")
def show(ctx: typer.Context, role: Which, *, as_json: AsJson = False) -> None:
    """Show a role."""
    _print(read(ctx, find, role), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    *,
    permissions: Permissions = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Make a role."""
    new = NewRole(name, permissions or [], description or "")
    _print(write(ctx, roles.create, None, new), as_json=as_json)


@app.command("update")
def update(
    ctx: typer.Context,
    role: Which,
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT")] = None,
    permissions: Permissions = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Change a role for everybody who has it; what is left out stays. Permissions replace those it had."""
    changes = RoleChanges(
        msgspec.UNSET if name is None else name,
        permissions or msgspec.UNSET,
        msgspec.UNSET if description is None else description,
    )
    _print(write(ctx, _update, role, changes), as_json=as_json)


def _update(tx: Tx, role: str, changes: RoleChanges) -> Role:
    return roles.update(tx, None, find(tx, role).id, changes)


@app.command("delete")
def delete(ctx: typer.Context, role: Which, *, yes: Yes = False) -> None:
    """Delete a role that nobody has and no invitation names."""
    confirm(f"Delete the role {role}?", yes=yes)
    write(ctx, _delete, role)
    typer.echo(f"{role} is deleted")


def _delete(tx: Tx, role: str) -> None:
    roles.delete(tx, None, find(tx, role).id)


def _print(role: Role, *, as_json: bool) -> None:
    if as_json:
        print_json(role)
        return
    print_fields(view(role).items())
