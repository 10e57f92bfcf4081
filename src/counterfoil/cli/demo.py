"""The command to try things out: a demo catalog, the sandbox rail, a key, and a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec
import typer

from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.cli import demo_catalog
from counterfoil.cli.context import CLI, load_settings, shown_url
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import group
from counterfoil.cli.serve import check_port, run_server
from counterfoil.db.base import Scope
from counterfoil.db.migrate import HEAD, current, migrate
from counterfoil.house import open_house
from counterfoil.settings import Settings

app = group("Serve with a demo catalog and the sandbox rail, to try things out.")


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """What a demo keeps between starts, in a file that only its owner may read."""

    api_keys: dict[str, str]
    """The demo key of each database, by the database's URL without its password."""


@app.command()
def demo() -> None:
    """Bring the tables up to date, sell a demo catalog on the sandbox rail, and serve. Repeat it as you like."""
    settings = load_settings({"log_level": "warning"}, sandbox=True, mail_transport="mailbox")
    check_port(settings)
    if current(settings.database_url) != HEAD:
        migrate(settings.database_url)
    secret = asyncio.run(_prepare(settings))
    run_server(settings, lambda address: typer.echo(_welcome(settings, address, secret)))


async def _prepare(settings: Settings) -> str:
    """Seed what is missing; the demo key's secret."""
    async with open_house(settings) as house:
        scope = house.scope(DEFAULT_TENANT, CLI)
        if not await scope.read(demo_catalog.exists):
            await scope.run(demo_catalog.seed)
        return await _demo_key(scope, settings)


async def _demo_key(scope: Scope, settings: Settings) -> str:
    path = settings.master_key_file.parent / "demo.json"
    kept, where = _load(path), shown_url(settings)
    secret = kept.api_keys.get(where)
    if secret is not None and await scope.read(api_keys.identify, secret, None) is not None:
        return secret
    secret = api_keys.new_secret()
    await scope.run(api_keys.create, "demo", ["*"], secret=secret)
    kept.api_keys[where] = secret
    _save(path, kept)
    return secret


def _load(path: Path) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept({})
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CliError(f"{path} cannot be read: {error}", "remove it, and a new demo key is made") from error


def _save(path: Path, kept: Kept) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise CliError(f"{path} cannot be written: {error.strerror}") from error


def _welcome(settings: Settings, address: str, secret: str) -> str:
    base = settings.base_url if settings.port else address
    return f"""\
Counterfoil serves {base} with demo data. No money moves: checkouts are paid on the sandbox rail.

  shop       {base}/
  product    {base}/p/{demo_catalog.PRODUCTS[0].slug}
  API        {base}/v1/openapi.json
  demo key   {secret}
  staff      counterfoil enroll you@example.com
  letters    {settings.mail_folder}/

  curl -H "Authorization: Bearer {secret}" {base}/v1/orders

Ctrl-C stops it."""
