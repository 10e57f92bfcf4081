"""Commands on rails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from counterfoil.cli.context import confirm, read, within
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import AsJson, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.db.base import Scope
from counterfoil.exchange import connect, rail_settings
from counterfoil.exchange.connect import Connected
from counterfoil.exchange.types import RailSettings
from counterfoil.house import House
from counterfoil.kernel.paging import Page

app = group("Rails: ways for money to arrive.")

COLUMNS: list[Column[RailSettings]] = [
    Column("RAIL", lambda row: row.rail),
    Column("STATUS", lambda row: "connected" if row.status == "active" else row.status),
    Column("ADDRESS", lambda row: row.public.get("base_url")),
    Column("STORE", lambda row: row.public.get("store_name")),
    Column("CHANGED", lambda row: row.updated_at),
]


@app.command("list")
def list_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List the rails that are or were connected."""
    page = Page(read(ctx, rail_settings.list_))
    print_page(page, COLUMNS, lambda row: view(row, "id", "sealed", "public", details=row.public), as_json=as_json)


@app.command("connect-btcpay")
def connect_btcpay(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="URL", help="The BTCPay server's address.")],
    *,
    api_key_file: Annotated[
        str | None,
        typer.Option(
            "--api-key-file", metavar="FILE", help="Read the key from here, - for standard input; else asked."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="ID", help="Which store; else the key's first.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Connect a BTCPay store with an API key made there. Its webhook is set up by us."""
    api_key = _read_key(api_key_file)

    async def work(house: House, scope: Scope) -> Connected:
        return await connect.connect_btcpay(
            scope,
            house.rails,
            house.client,
            house.master,
            base_url=address,
            api_key=api_key,
            store_id=store,
            webhook_url=f"{await house.base_url(scope.tenant)}/v1/webhooks/btcpay",
        )

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_fields((name, getattr(done, name)) for name in done.__struct_fields__)


def _read_key(path: str | None) -> str:
    """A key is never an argument: those are in the shell's history and in every process list."""
    if path is None:
        return str(typer.prompt("API key", hide_input=True, err=True)).strip()
    try:
        return (sys.stdin.read() if path == "-" else Path(path).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise CliError(f"the API key cannot be read from {path}: {reason}") from error


@app.command("disconnect")
def disconnect(
    ctx: typer.Context,
    rail: Annotated[str, typer.Argument(metavar="RAIL")],
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget a rail and its secrets. What it still owes us will not be heard."""
    confirm(f"Payments under way on {rail} will not be heard of. Disconnect it?", yes=yes)

    async def work(house: House, scope: Scope) -> list[str]:
        return await connect.disconnect(scope, house.rails, house.client, rail)

    left = within(ctx, work)
    if as_json:
        print_json({"rail": rail, "left": left})
        return
    typer.echo(f"{rail} is disconnected")
    for one in left:
        typer.echo(f"left to do: {one}")
