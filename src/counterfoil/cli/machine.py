"""Commands on machines."""

from __future__ import annotations

from typing import Annotated

import typer

from counterfoil.catalog.products import check_text
from counterfoil.cli.context import start, within, write
from counterfoil.cli.license import Which, license_id
from counterfoil.cli.options import After, AsJson, Limit, Reason, group
from counterfoil.cli.output import Column, print_fields, print_json, print_page
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.kernel.paging import DEFAULT_LIMIT, Page
from counterfoil.licensing import licenses, machines
from counterfoil.licensing.types import Machine

app = group("Machines that hold a license.")

COLUMNS: list[Column[Machine]] = [
    Column("ID", lambda machine: machine.id),
    Column("HOST", lambda machine: machine.hostname),
    Column("PLATFORM", lambda machine: machine.platform),
    Column("STATUS", lambda machine: "deactivated" if machine.deactivated_at else "active"),
    Column("LAST SEEN", lambda machine: machine.last_heartbeat_at),
    Column("FINGERPRINT", lambda machine: machine.fingerprint_hash[:12]),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    license_: Which,
    *,
    limit: Limit = DEFAULT_LIMIT,
    after: After = "",
    as_json: AsJson = False,
) -> None:
    """List a license's machines, past ones included, oldest first."""
    first = start(after)

    async def work(house: House, scope: Scope) -> Page[Machine]:
        return await scope.read(_list, await license_id(house, scope, license_), after=first, limit=limit)

    print_page(within(ctx, work), COLUMNS, lambda machine: machine, as_json=as_json)


def _list(tx: Tx, license_id: str, *, after: str, limit: int) -> Page[Machine]:
    return machines.list_(tx, licenses.get(tx, license_id).id, after=after, limit=limit)


@app.command("deactivate")
def deactivate(
    ctx: typer.Context,
    machine: Annotated[str, typer.Argument(metavar="MACHINE")],
    *,
    reason: Reason = "by staff",
    as_json: AsJson = False,
) -> None:
    """Free a machine's place, so that the license can be used on another."""
    check_text("reason", reason, most=2000)
    done = write(ctx, machines.deactivate, machine, reason=reason)
    if as_json:
        print_json(done)
    else:
        print_fields((name, getattr(done, name)) for name in done.__struct_fields__)
