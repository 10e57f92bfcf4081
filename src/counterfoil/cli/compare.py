"""``counterfoil rail compare``: our books beside the rail's own list."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

import typer

from counterfoil.cli.context import within
from counterfoil.cli.options import AsJson
from counterfoil.cli.output import Column, amount, print_fields, print_json, print_section, view
from counterfoil.cli.streams import counting
from counterfoil.db.base import Scope
from counterfoil.exchange.comparing_payments import Comparison, Difference
from counterfoil.exchange.comparing_payments import compare as compare_payments
from counterfoil.house import House

_COLUMNS: list[Column[Difference]] = [
    Column("WHAT", lambda one: one.kind.replace("_", " ")),
    Column("REFERENCE", lambda one: one.reference),
    Column("WHEN", lambda one: one.occurred_at),
    Column("OURS", lambda one: _money(one.amount, one.asset), right=True),
    Column("THEIRS", lambda one: _money(one.their_amount, one.their_asset), right=True),
    Column("PAYMENT", lambda one: one.payment_id),
]


def _money(value: int | None, asset: str | None) -> str | None:
    return None if value is None or asset is None else amount(value, asset)


def compare(
    ctx: typer.Context,
    rail: Annotated[str, typer.Argument(metavar="RAIL")],
    *,
    day: Annotated[
        str | None, typer.Option("--day", metavar="DATE", help="2026-12-31, in UTC; yesterday unless said.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a day's payments with the rail's own list; exit with 1 when they differ.

    Payments that are missing here are first looked for among the rail's events.
    """
    wanted = _day(day)

    async def work(house: House, scope: Scope) -> Comparison:
        on = wanted or house.database.clock.now().date() - timedelta(days=1)
        with counting("Comparing payments") as show:
            return await compare_payments(scope, house.rails, house.pusher, rail, on, show=show)

    done = within(ctx, work)
    if as_json:
        print_json(view(done, same=not done.differences))
    else:
        print_fields(
            [
                ("rail", done.rail),
                ("day", done.day),
                ("result", f"{len(done.differences)} differences" if done.differences else "the same"),
                ("payments here", done.ours),
                ("payments there", done.theirs),
                ("news caught up with", done.found),
            ]
        )
        print_section("differences", _COLUMNS, done.differences)
    if done.differences:
        raise typer.Exit(1)


def _day(typed: str | None) -> date | None:
    if typed is None:
        return None
    try:
        return date.fromisoformat(typed)
    except ValueError as error:
        raise typer.BadParameter(f"{typed!r} is not a day: say 2026-12-31", param_hint="--day") from error
