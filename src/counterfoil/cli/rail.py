"""Commands on rails."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli import compare, rail_accounts
from counterfoil.cli.context import confirm, read, within
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
    api_key = rail_accounts.read_key(api_key_file)

    async def work(house: House, scope: Scope) -> Connected:
        return await connect.connect_btcpay(
            scope,
            house.rails,
            house.client,
            house.master,
            base_url=address,
            api_key=api_key,
            store_id=store,
            webhook_url=await house.webhook_url(scope.tenant, "btcpay"),
        )

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_fields((name, getattr(done, name)) for name in done.__struct_fields__)


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


app.command("connect-stripe")(rail_accounts.connect_stripe)
app.command("connect-paddle")(rail_accounts.connect_paddle)
app.command("check")(rail_accounts.check)
app.command("rotate")(rail_accounts.rotate)
app.command("compare")(compare.compare)
