"""Commands on the keys that sign licenses."""

from __future__ import annotations

import typer

from counterfoil.cli.context import confirm, read, within
from counterfoil.cli.options import AsJson, Yes, group
from counterfoil.cli.output import Column, print_json, print_table, view
from counterfoil.db.base import Scope
from counterfoil.house import House
from counterfoil.kernel.signing import PrivateKey, PublicKey
from counterfoil.licensing import signing_keys
from counterfoil.licensing.types import SigningKey

app = group("The keys that sign licenses.")

COLUMNS: list[Column[SigningKey]] = [
    Column("ID", lambda key: key.id),
    Column("ALGORITHM", lambda key: key.algorithm),
    Column("STATUS", lambda key: key.status),
    Column("MADE", lambda key: key.created_at),
]


@app.command("show")
def show(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the signing keys, and the public one that new licenses verify with."""
    _print(read(ctx, signing_keys.everyone), as_json=as_json)


@app.command("rotate")
def rotate(ctx: typer.Context, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Sign with a new key from now on. What was signed before still verifies here.

    Programs that check licenses offline need the new public key before they meet a new license.
    """
    confirm("Programs that check licenses offline need the new public key. Rotate?", yes=yes)

    async def work(house: House, scope: Scope) -> list[SigningKey]:
        await scope.run(signing_keys.rotate, house.master, PrivateKey.generate())
        return await scope.read(signing_keys.everyone)

    _print(within(ctx, work), as_json=as_json)


def _pem(key: SigningKey) -> str:
    return PublicKey(key.public_key).to_pem()


def _print(keys: list[SigningKey], *, as_json: bool) -> None:
    if as_json:
        rows = [view(key, "private_key_sealed", "public_key", public_key_pem=_pem(key)) for key in keys]
        print_json({"data": rows, "next": None})
        return
    print_table(COLUMNS, keys)
    for key in keys:
        if key.status == "active":
            typer.echo(f"\n{_pem(key)}", nl=False)
