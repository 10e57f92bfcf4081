"""The command that runs jobs beside servers."""

from __future__ import annotations

import asyncio
import signal

import structlog
import typer

from counterfoil import logs
from counterfoil.cli.context import check_migrated, load_settings
from counterfoil.cli.options import group
from counterfoil.db.base import DatabaseUnavailable
from counterfoil.house import open_house
from counterfoil.jobs.runner import Runner
from counterfoil.settings import Settings

GRACE_SECONDS = 10
"""How long a job under way may take to finish after the signal to stop."""
_TICK_SECONDS = 1.0

_log = structlog.get_logger(__name__)

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
    async with open_house(settings) as house:
        task = asyncio.create_task(_run(house.runner(), stop))
        typer.echo("jobs run here")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        # A job that is cut off would stay claimed for minutes, so it gets the time to finish.
        await asyncio.wait({task}, timeout=GRACE_SECONDS)
        for one in (task, stopped):
            one.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure


async def _run(runner: Runner, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await runner.run_due()
        except DatabaseUnavailable as error:
            _log.warning("jobs wait for the database", why=str(error))
        try:
            await asyncio.wait_for(stop.wait(), _TICK_SECONDS)
        except TimeoutError:
            continue
