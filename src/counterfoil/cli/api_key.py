"""Commands on API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from counterfoil.accounts import api_keys, customers
from counterfoil.accounts.api_keys import NewApiKey
from counterfoil.accounts.permissions import KEY_ROLES, PERMISSIONS
from counterfoil.accounts.types import ApiKey
from counterfoil.cli.context import read, start, write
from counterfoil.cli.options import After, AsJson, Limit, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.cli.values import parse_moment
from counterfoil.db.tx import Tx
from counterfoil.kernel.paging import DEFAULT_LIMIT

app = group("API keys: credentials of programs.")

COLUMNS: list[Column[ApiKey]] = [
    Column("ID", lambda key: key.id),
    Column("NAME", lambda key: key.name),
    Column("SCOPES", lambda key: key.scopes),
    Column("CUSTOMER", lambda key: key.customer_id),
    Column("EXPIRES", lambda key: key.expires_at or "never"),
    Column("REVOKED", lambda key: key.revoked_at),
]


@app.command("list")
def list_(ctx: typer.Context, *, limit: Limit = DEFAULT_LIMIT, after: After = "", as_json: AsJson = False) -> None:
    """List API keys, oldest first, without their secrets."""
    page = read(ctx, api_keys.list_, after=start(after), limit=limit)
    print_page(page, COLUMNS, lambda key: view(key, "secret_hash"), as_json=as_json)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    *,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What it may do, products:read say, or * for all; repeat it."),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="NAME", help=f"A set of scopes: {', '.join(KEY_ROLES)}.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="CUSTOMER", help="Only for this one and all below; slug or id.")
    ] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="2026-12-31")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. Its secret is printed this once, and cannot be read again."""
    if not scopes and role is None:
        raise typer.BadParameter(f"say --role: {', '.join(KEY_ROLES)}; or --scope: {', '.join(PERMISSIONS)}, or '*'")
    moment = parse_moment(expires, "--expires")
    made = write(ctx, _create, name, scopes or [], api_keys.new_secret(), moment, role, customer)
    if as_json:
        print_json(view(made.key, "secret_hash", secret=made.secret))
        return
    print_fields([*((column.title.lower(), column.of(made.key)) for column in COLUMNS[:5]), ("secret", made.secret)])


def _create(
    tx: Tx,
    name: str,
    scopes: list[str],
    secret: str,
    expires_at: datetime | None,
    role: str | None,
    customer: str | None,
) -> NewApiKey:
    limit = None if customer is None else customers.hold(tx, customers.find(tx, customer).id).id
    return api_keys.create(
        tx, name, scopes, secret=secret, expires_at=expires_at, role=role, customer_id=limit
    )  # fmt: skip


@app.command("revoke")
def revoke(ctx: typer.Context, key: Annotated[str, typer.Argument(metavar="KEY", help="Its id.")]) -> None:
    """End an API key, for good."""
    write(ctx, api_keys.revoke, key)
    typer.echo(f"{key} is revoked")
