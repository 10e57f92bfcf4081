"""Commands on members and invitations."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from counterfoil.accounts import customers, invitations, members
from counterfoil.accounts.invitations import NO_LIMIT, Letter, NewInvitation, SentInvitation
from counterfoil.accounts.members import Member
from counterfoil.accounts.permissions import MEMBER
from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.cli.role import find as find_role
from counterfoil.cli.staff import Role, Who, find_user
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.http.inviting import new_letter_from
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.kernel.secrets import MasterKey

app = group("Members: users with a role at a customer.")

Where = Annotated[str, typer.Argument(metavar="CUSTOMER", help="Its slug or id.")]

COLUMNS: list[Column[Member]] = [
    Column("E-MAIL", lambda one: one.email),
    Column("NAME", lambda one: f"{one.first_name} {one.last_name}".strip()),
    Column("ROLES", lambda one: one.roles),
    Column("CREDITS", lambda one: "no limit" if one.credit_limit == NO_LIMIT else one.credit_limit, right=True),
    Column("SINCE", lambda one: one.joined_at),
    Column("USER", lambda one: one.user_id),
]
INVITATION_COLUMNS: list[Column[SentInvitation]] = [
    Column("E-MAIL", lambda one: one.email),
    Column("ROLE", lambda one: one.role),
    Column("STATUS", lambda one: one.status),
    Column("EXPIRES", lambda one: one.expires_at),
    Column("ID", lambda one: one.id),
]


@app.command("list")
def list_(
    ctx: typer.Context, customer: Where, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False
) -> None:
    """List a customer's members."""
    page = read(ctx, _list, customer, start(after), limit)
    print_page(page, COLUMNS, lambda one: one, as_json=as_json)


def _list(tx: Tx, customer: str, after: str, limit: int) -> Page[Member]:
    return members.list_(tx, customers.find(tx, customer).id, after=after, limit=limit)


@app.command("add")
def add(ctx: typer.Context, customer: Where, user: Who, *, role: Role = MEMBER, as_json: AsJson = False) -> None:
    """Make somebody who has an account a member."""
    _print(write(ctx, _add, customer, user, role), as_json=as_json)


def _add(tx: Tx, customer: str, user: str, role: str) -> Member:
    name = find_role(tx, role).name
    return members.add(tx, None, customers.find(tx, customer).id, find_user(tx, user), name)


@app.command("set-role")
def set_role(ctx: typer.Context, customer: Where, user: Who, *, role: Role, as_json: AsJson = False) -> None:
    """Give a member this role instead of those they have. The last owner stays one."""
    _print(write(ctx, _set_role, customer, user, role), as_json=as_json)


def _set_role(tx: Tx, customer: str, user: str, role: str) -> Member:
    name = find_role(tx, role).name
    return members.set_role(tx, None, customers.find(tx, customer).id, find_user(tx, user), name)


@app.command("remove")
def remove(ctx: typer.Context, customer: Where, user: Who, *, yes: Yes = False) -> None:
    """Remove a member. The last owner stays."""
    confirm(f"Remove {user} from {customer}?", yes=yes)
    write(ctx, _remove, customer, user)
    typer.echo(f"{user} is a member no longer")


def _remove(tx: Tx, customer: str, user: str) -> None:
    members.remove(tx, None, customers.find(tx, customer).id, find_user(tx, user))


@app.command("invite")
def invite(
    ctx: typer.Context,
    customer: Where,
    email: Annotated[str, typer.Argument(metavar="E-MAIL")],
    *,
    role: Role = MEMBER,
    credit_limit: Annotated[
        int, typer.Option("--credit-limit", metavar="N", help="Of the customer's credits; -1 = no limit.")
    ] = NO_LIMIT,
    as_json: AsJson = False,
) -> None:
    """Invite somebody by letter."""

    async def work(house: House, scope: Scope) -> SentInvitation:
        tenant = (await house.tenants())[scope.tenant]
        letter = await new_letter_from(house, scope.tenant, tenant.name)
        sent = await scope.run(_invite, house.master, customer, NewInvitation(email, role, credit_limit), letter)
        house.send_mail(scope.tenant)
        return sent

    sent = within(ctx, work)
    if as_json:
        print_json(sent)
        return
    print_fields(view(sent).items())


def _invite(tx: Tx, master: MasterKey, customer: str, new: NewInvitation, letter: Letter) -> SentInvitation:
    named = msgspec.structs.replace(new, role=find_role(tx, new.role).name)
    return invitations.create(tx, master, None, customers.find(tx, customer).id, named, letter)


@app.command("invitations")
def list_invitations(
    ctx: typer.Context, customer: Where, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False
) -> None:
    """List a customer's invitations, oldest first."""
    page = read(ctx, _invitations, customer, start(after), limit)
    print_page(page, INVITATION_COLUMNS, lambda one: one, as_json=as_json)


def _invitations(tx: Tx, customer: str, after: str, limit: int) -> Page[SentInvitation]:
    return invitations.list_(tx, customers.find(tx, customer).id, after=after, limit=limit)


def _print(member: Member, *, as_json: bool) -> None:
    if as_json:
        print_json(member)
        return
    print_fields(view(member).items())
