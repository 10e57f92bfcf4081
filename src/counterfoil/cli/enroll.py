"""The command that lets the first owner in, and anybody back in who has lost everything else."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
import typer

from counterfoil.accounts import enrollment
from counterfoil.accounts.permissions import SUPER_ADMIN
from counterfoil.cli.context import within
from counterfoil.cli.options import AsJson, group
from counterfoil.cli.output import print_fields, print_json
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.http.webauthn import relying_party

app = group("Enroll: a one-time link that makes somebody staff.")


class Link(msgspec.Struct, frozen=True):
    """A link just made."""

    email: str
    role: str
    expires_at: datetime
    link: str


@app.command()
def enroll(
    ctx: typer.Context,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Their address.")],
    *,
    role: Annotated[str, typer.Option("--role", metavar="NAME", help="What they will be.")] = SUPER_ADMIN,
    first_name: Annotated[str, typer.Option("--first-name", metavar="TEXT", help="Theirs; they may change it.")] = "",
    last_name: Annotated[str, typer.Option("--last-name", metavar="TEXT", help="Theirs; they may change it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print a link that makes somebody staff, once, within a day. Who opens it makes a passkey there.

    The first SuperAdmin owns the shop. Who is staff already gets in again, with a new passkey.
    """

    async def work(house: House, scope: Scope) -> Link:
        base = relying_party(await house.base_url(scope.tenant)).base_url
        token = enrollment.new_token()
        made = await scope.run(
            enrollment.invite, token, email=email, role=role, first_name=first_name, last_name=last_name
        )
        return Link(made.email, made.role, made.expires_at, f"{base}/enroll/{token}")

    made = within(ctx, work)
    if as_json:
        print_json(made)
        return
    print_fields([("e-mail", made.email), ("role", made.role), ("until", made.expires_at), ("link", made.link)])
