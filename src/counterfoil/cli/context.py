"""How a command reaches the database: its settings, the house without its servers, and one seller's scope."""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import typer

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.cli.errors import CliError
from counterfoil.cli.options import Globals
from counterfoil.config import BadSetting
from counterfoil.db import migrate
from counterfoil.db.base import Scope
from counterfoil.db.engines import parse_url
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.house import House, open_house
from counterfoil.kernel.paging import decode_cursor
from counterfoil.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

CLI = Actor("system", "cli", source="cli")


def load_settings(otherwise: Mapping[str, Any] | None = None, **given: Any) -> Settings:
    """The settings; ``given`` ones win, and ``otherwise`` are for what nobody says.

    Raises CliError naming the one that is wrong.
    """
    try:
        return Settings.load(otherwise, **given)
    except BadSetting as error:
        raise CliError(str(error), "docs/settings.md lists every setting") from error
    except tomllib.TOMLDecodeError as error:
        raise CliError(f"counterfoil.toml cannot be read: {error}") from error


def shown_url(settings: Settings) -> str:
    """The database's URL without its password. Raises BadDatabaseUrl."""
    url = parse_url(settings.database_url)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def check_migrated(settings: Settings) -> None:
    """Raise CliError unless the database's tables are the ones this version needs."""
    version = migrate.current(settings.database_url)
    if version == migrate.HEAD:
        return
    where = shown_url(settings)
    if version is None:
        raise CliError(f"{where} has no tables yet", "run: counterfoil migrate")
    raise CliError(
        f"the tables of {where} are at {version}, and this version needs {migrate.HEAD}", "run: counterfoil migrate"
    )


@contextlib.asynccontextmanager
async def open_for_commands(settings: Settings) -> AsyncIterator[House]:
    """Open the house beside the servers that may be running: their rails stay as they set them up."""
    await asyncio.to_thread(check_migrated, settings)
    async with open_house(settings, beside_servers=True) as house:
        yield house


def within(ctx: typer.Context, work: Callable[[House, Scope], Awaitable[R]]) -> R:
    """Do ``work`` in the open house, for the seller the command names."""

    async def do() -> R:
        async with open_for_commands(load_settings()) as house:
            return await work(house, await _scope(house, ctx.obj))

    return asyncio.run(do())


async def _scope(house: House, options: Globals) -> Scope:
    if options.tenant == "default":  # which may have been made a moment ago
        return house.scope(DEFAULT_TENANT, CLI)
    for tenant, row in (await house.tenants()).items():
        if row.slug == options.tenant:
            return house.scope(tenant, CLI)
    raise CliError(f"there is no tenant {options.tenant!r}")


def read(ctx: typer.Context, op: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run one operation that only reads."""

    async def work(_: House, scope: Scope) -> R:
        return await scope.read(op, *args, **kwargs)

    return within(ctx, work)


def write(ctx: typer.Context, op: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run one operation."""

    async def work(_: House, scope: Scope) -> R:
        return await scope.run(op, *args, **kwargs)

    return within(ctx, work)


def start(after: str) -> str:
    """The id after which a list goes on. Raises Invalid for a cursor that is not ours."""
    return str(decode_cursor(after, (str,))[0]) if after else ""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone, when there is somebody to ask. Raises typer.Abort."""
    if not yes and typer.get_text_stream("stdin").isatty():
        typer.confirm(question, abort=True, err=True)
