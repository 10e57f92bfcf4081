"""Commands on letters."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.cli.context import confirm, read, start, within, write
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import After, AsJson, Limit, Yes, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page, view
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT
from counterfoil.mail import outgoing
from counterfoil.mail.types import Email, EmailStatus

app = group("Mail: letters on their way out.")

Which = Annotated[str, typer.Argument(metavar="LETTER")]

EMAIL_COLUMNS: list[Column[Email]] = [
    Column("ID", lambda letter: letter.id),
    Column("STATUS", lambda letter: letter.status),
    Column("LETTER", lambda letter: letter.template),
    Column("TO", lambda letter: letter.recipient),
    Column("QUEUED", lambda letter: letter.created_at),
    Column("ERROR", lambda letter: letter.error),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    status: Annotated[EmailStatus | None, typer.Option("--status", help="Only those that stand so.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List letters, oldest first."""
    page = read(ctx, outgoing.list_, status=status, after=start(after), limit=limit)
    print_page(page, EMAIL_COLUMNS, _shape, as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, letter: Which, *, as_json: AsJson = False) -> None:
    """Show how far a letter has come. What it says is sealed."""
    _print(read(ctx, outgoing.get, letter), as_json=as_json)


@app.command("retry")
def retry(ctx: typer.Context, letter: Which, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Send a letter now that waits, or of which nobody knows whether it was sent."""
    if read(ctx, outgoing.get, letter).status == "unknown":
        confirm("It may have arrived, and would then arrive twice. Send it again?", yes=yes)
    _print(write(ctx, outgoing.retry, letter), as_json=as_json)


@app.command("cancel")
def cancel(ctx: typer.Context, letter: Which, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Do not send a letter that waits, or that nobody knows whether it was sent."""
    confirm("What it says is then forgotten. Cancel it?", yes=yes)
    _print(write(ctx, outgoing.cancel, letter), as_json=as_json)


@app.command("test")
def test(ctx: typer.Context, address: Annotated[str, typer.Argument(metavar="ADDRESS")]) -> None:
    """Send a test letter, and say what came of it."""

    async def work(house: House, scope: Scope) -> Email:
        letter_id = await scope.run(outgoing.queue, house.master, address, "test", {})
        await house.postman.sender.send_this(scope, letter_id)
        letter = await scope.read(outgoing.get, letter_id)
        if letter.status == "sent" and house.settings.mail_transport == outgoing.MAILBOX:
            typer.echo(f"written to {house.settings.mail_folder / letter.id}.html")
        return letter

    letter = within(ctx, work)
    if letter.error is not None:
        raise CliError(f"{letter.id} is {letter.status}: {letter.error}", "docs/mail.md tells what to set")
    typer.echo(f"{letter.id} is {letter.status}")


def _shape(letter: Email) -> dict[str, object]:
    return view(letter, "context_sealed")


def _print(letter: Email, *, as_json: bool) -> None:
    if as_json:
        print_json(_shape(letter))
        return
    print_fields(_shape(letter).items())
