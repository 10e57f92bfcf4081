"""What commands share: how groups are made, and the options that mean the same everywhere."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import typer

HELP = "Counterfoil: a self-hosted back office for people who sell software."

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100, help="How many rows at most.")]
After = Annotated[str, typer.Option("--after", metavar="CURSOR", help="Go on where the list before stopped.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it enters the record.")]
Amount = Annotated[str | None, typer.Option("--amount", metavar="DECIMAL", help="Major units: 19.90")]
Asset = Annotated[str | None, typer.Option("--asset", metavar="CODE", help="ISO 4217 code, SAT, USDC, ...")]
Sats = Annotated[str | None, typer.Option("--sats", metavar="N", help="The same as --amount N --asset SAT.")]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="An object of your own.")]


class Globals(NamedTuple):
    """The options in front of the command."""

    tenant: str = "default"


def group(text: str, **more: Any) -> typer.Typer:
    """A command with commands in it. Its help is plain text, which needs no Rich."""
    return typer.Typer(
        help=text,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        **more,
    )
