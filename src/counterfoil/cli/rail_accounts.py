"""``counterfoil rail connect-stripe|connect-paddle|check|rotate``: accounts that take cards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from counterfoil.cli.context import within
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import AsJson
from counterfoil.cli.output import print_fields, print_json
from counterfoil.cli.streams import counting
from counterfoil.db.base import Scope
from counterfoil.exchange import connect, connect_mirrors
from counterfoil.exchange.connect_mirrors import Checked, ConnectedMirror, NewConnection
from counterfoil.house import House
from counterfoil.sales.types import GrantsPolicy

KeyFile = Annotated[
    str | None,
    typer.Option("--api-key-file", metavar="FILE", help="Read the key from here, - for standard input; else asked."),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--webhook-secret-file",
        metavar="FILE",
        help="The signing secret of a webhook endpoint that you made; otherwise we make one.",
    ),
]
OnDispute = Annotated[
    GrantsPolicy, typer.Option("--on-dispute", help="What becomes of what was bought while a dispute is open.")
]
Force = Annotated[bool, typer.Option("--force", help="Even if it is another account: make new copies there.")]
Test = Annotated[bool, typer.Option("--test", help="A test account, as a rail of its own.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Another address of the API.")]
Rail = Annotated[str, typer.Argument(metavar="RAIL")]


def read_key(path: str | None) -> str:
    """A key is never an argument: those are in the shell's history and in every process list."""
    if path is None:
        return str(typer.prompt("API key", hide_input=True, err=True)).strip()
    if path == "-":
        return _text("the API key", path, sys.stdin.read)
    return _text("the API key", path, Path(path).read_text)


def _text(what: str, path: Any, read: Callable[[], str]) -> str:
    try:
        return read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise CliError(f"{what} cannot be read from {path}: {reason}") from error


def _secret(path: Path | None) -> str | None:
    return None if path is None else _text("the webhook secret", path, path.read_text)


def connect_stripe(
    ctx: typer.Context,
    *,
    test: Test = False,
    api_key_file: KeyFile = None,
    webhook_secret_file: SecretFile = None,
    on_dispute: OnDispute = "suspend",
    automatic_tax: Annotated[bool, typer.Option("--automatic-tax", help="Have Stripe work the tax out.")] = False,
    base_url: BaseUrl = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Connect a Stripe account with a secret or restricted key; what is sold is copied there."""
    _connect(
        ctx,
        NewConnection(
            rail="stripe-test" if test else "stripe",
            api_key=read_key(api_key_file),
            webhook_secret=_secret(webhook_secret_file),
            on_dispute=on_dispute,
            automatic_tax=automatic_tax,
            base_url=base_url,
            force=force,
        ),
        as_json=as_json,
    )


def connect_paddle(
    ctx: typer.Context,
    *,
    test: Test = False,
    api_key_file: KeyFile = None,
    webhook_secret_file: SecretFile = None,
    on_dispute: OnDispute = "suspend",
    tax_mode: Annotated[
        Literal["internal", "external"],
        typer.Option("--tax-mode", help="Whether prices have their tax in them (internal), or it comes on top."),
    ] = "internal",
    checkout_url: Annotated[
        str | None, typer.Option("--checkout-url", metavar="URL", help="Your own page that opens Paddle's checkout.")
    ] = None,
    base_url: BaseUrl = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Connect a Paddle account with an API key; what is sold is copied there."""
    _connect(
        ctx,
        NewConnection(
            rail="paddle-test" if test else "paddle",
            api_key=read_key(api_key_file),
            webhook_secret=_secret(webhook_secret_file),
            on_dispute=on_dispute,
            tax_mode=tax_mode,
            checkout_url=checkout_url,
            base_url=base_url,
            force=force,
        ),
        as_json=as_json,
    )


def _connect(ctx: typer.Context, new: NewConnection, *, as_json: bool) -> None:
    async def work(house: House, scope: Scope) -> ConnectedMirror:
        with counting("Owing copies") as show:
            return await connect_mirrors.connect(
                scope,
                house.rails,
                house.client,
                house.master,
                new,
                webhook_url=await house.webhook_url(scope.tenant, new.rail),
                on_owed=show,
            )

    _print(within(ctx, work), as_json=as_json)


def check(ctx: typer.Context, rail: Rail, *, as_json: AsJson = False) -> None:
    """Ask a connected rail whether all is well; exit with 1 when it is not."""

    async def work(house: House, scope: Scope) -> Checked:
        url = await house.webhook_url(scope.tenant, rail)
        return await connect.check(house.rails, house.client, scope.tenant, rail, url)

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_fields([("rail", done.rail), ("result", "well" if done.ok else "not well"), ("account", done.account)])
        for problem in done.problems:
            typer.echo(f"problem: {problem}")
    if not done.ok:
        raise typer.Exit(1)


def rotate(
    ctx: typer.Context,
    rail: Rail,
    *,
    webhook_secret_file: SecretFile = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Believe only the newest secret from now on; make no new one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Have webhooks signed with a new secret. The old ones count, too, until --drop-old is said."""
    secret = _secret(webhook_secret_file)
    if drop_old and secret is not None:
        raise typer.BadParameter("--drop-old takes no new secret")

    async def work(house: House, scope: Scope) -> dict[str, Any]:
        if drop_old:
            dropped = await connect_mirrors.drop_old_secrets(scope, house.rails, house.master, rail)
            return {"rail": rail, "dropped": dropped, "webhook_secrets": 1}
        count = await connect_mirrors.rotate(
            scope,
            house.rails,
            house.client,
            house.master,
            rail,
            webhook_url=await house.webhook_url(scope.tenant, rail),
            webhook_secret=secret,
        )
        return {"rail": rail, "dropped": 0, "webhook_secrets": count}

    done = within(ctx, work)
    if as_json:
        print_json(done)
    else:
        print_fields(done.items())


def _print(done: ConnectedMirror, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        print_fields((name, getattr(done, name)) for name in done.__struct_fields__)
