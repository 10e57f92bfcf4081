"""Commands on staff."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.accounts import staff, users
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.accounts.staff import StaffRole
from counterfoil.cli.context import confirm, read, start, write
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, print_page
from counterfoil.cli.role import find as find_role
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.ids import is_id
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.kernel.text import normalize_email

app = group("Staff: users with a role in the tenant itself.")

Who = Annotated[str, typer.Argument(metavar="USER", help="An e-mail address or an id.")]
Role = Annotated[str, typer.Option("--role", metavar="ROLE", help="Its name or id.")]

COLUMNS: list[Column[StaffRole]] = [
    Column("E-MAIL", lambda one: one.email),
    Column("NAME", lambda one: f"{one.first_name} {one.last_name}".strip()),
    Column("ROLE", lambda one: one.role),
    Column("SINCE", lambda one: one.created_at),
    Column("USER", lambda one: one.user_id),
]


def find_user(tx: Tx, email_or_id: str) -> str:
    """The id of a user. Raises Invalid, NotFound."""
    if is_id("usr", email_or_id):
        return users.get(tx, email_or_id).id
    user = users.by_email(tx, normalize_email("user", email_or_id))
    if user is None:
        raise NotFound("Nobody has an account with this address.", code="user_not_found")
    return user.id


@app.command("list")
def list_(ctx: typer.Context, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False) -> None:
    """List who is staff, a row for each role, oldest first."""
    page = read(ctx, staff.list_, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda one: one, as_json=as_json)


@app.command("grant")
def grant(ctx: typer.Context, user: Who, *, role: Role = SUPER_ADMIN) -> None:
    """Give somebody who has an account a role in the tenant. They sign in with a passkey to use it."""
    new = write(ctx, _grant, user, role)
    typer.echo(f"{user} is {role} now" if new else f"{user} was {role} already")


def _grant(tx: Tx, user: str, role: str) -> bool:
    return staff.grant(tx, None, find_user(tx, user), find_role(tx, role).name)


@app.command("revoke")
def revoke(ctx: typer.Context, user: Who, *, role: Role, yes: Yes = False) -> None:
    """Take a role in the tenant away. The last SuperAdmin stays."""
    confirm(f"Take the role {role} from {user}?", yes=yes)
    write(ctx, _revoke, user, role)
    typer.echo(f"{user} is {role} no longer")


def _revoke(tx: Tx, user: str, role: str) -> None:
    staff.revoke(tx, None, find_user(tx, user), find_role(tx, role).id)
