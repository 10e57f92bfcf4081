"""The command that runs jobs beside servers."""

from __future__ import annotations

import asyncio
import signal

import typer

from counterfoil import logs
from counterfoil.cli.context import check_migrated, load_settings
from counterfoil.cli.options import group
from counterfoil.house import open_house
from counterfoil.settings import Settings

app = group("Run the jobs beside servers that do not.")


@app.command()
def worker() -> None:
    """Run the jobs until told to stop (Ctrl-C, SIGTERM), beside servers with COUNTERFOIL_JOBS=false."""
    settings = load_settings()
    check_migrated(settings)
    logs.set_up(settings)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_house(settings) as house, house.runner().running():
        typer.echo("jobs run here")
        await stop.wait()
