"""Runs jobs on time, in as many processes as there are, each job in one of them at a time.

A job is claimed by one conditional UPDATE, for as long as it may take; a process that dies loses its
claim when that time is over. Whatever a job does is safe to do twice all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import Database, DatabaseUnavailable, Scope
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.jobs.tables import jobs
from counterfoil.jobs.types import Job
from counterfoil.logs import get_logger

_log = get_logger(__name__)

_LONGEST = timedelta(minutes=5)
_TICK_SECONDS = 1.0
GRACE_SECONDS = 10
"""How long a job under way may take to finish after the signal to stop."""

_CLAIM = (
    sa.update(jobs)
    .where(
        mine(jobs),
        jobs.c.id == sa.bindparam("job_id"),
        jobs.c.due_at <= sa.bindparam("now"),
        sa.or_(jobs.c.claimed_until.is_(None), jobs.c.claimed_until <= sa.bindparam("now")),
    )
    .values(claimed_by=sa.bindparam("worker"), claimed_until=sa.bindparam("until"), updated_at=sa.bindparam("now"))
)
_FINISH = (
    sa.update(jobs)
    .where(mine(jobs), jobs.c.id == sa.bindparam("job_id"), jobs.c.claimed_by == sa.bindparam("worker"))
    .values(
        due_at=sa.bindparam("next"),
        claimed_by=None,
        claimed_until=None,
        finished_at=sa.bindparam("now"),
        error=sa.bindparam("new_error"),
        updated_at=sa.bindparam("now"),
    )
)
_LIST = sa.select(jobs.c.id, jobs.c.due_at, jobs.c.error).where(mine(jobs)).order_by(jobs.c.id)


class JobKind(msgspec.Struct, frozen=True):
    """Something done for every tenant, over and over."""

    name: str
    every: timedelta
    work: Callable[[Scope], Awaitable[int]]
    """Does it once; how many things it dealt with."""


def register(tx: Tx, name: str) -> None:
    """Make the job's row, due at once, unless it exists."""
    row = Job(
        id=name,
        due_at=tx.now,
        claimed_by=None,
        claimed_until=None,
        finished_at=None,
        error=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.insert_if_new(jobs, row)


def due(tx: Tx) -> dict[str, str | None]:
    """The jobs that are due, and the last error of each."""
    return {row.id: row.error for row in tx.all(_LIST) if row.due_at <= tx.now}


def overdue(tx: Tx, *, by: timedelta) -> list[str] | None:
    """Jobs that nobody has run for too long; None where no job ever was."""
    rows = tx.all(_LIST)
    return [row.id for row in rows if row.due_at <= tx.now - by] if rows else None


def failing(tx: Tx) -> list[str]:
    """Jobs whose last run failed."""
    return [row.id for row in tx.all(_LIST) if row.error is not None]


def claim(tx: Tx, name: str, worker: str) -> bool:
    """Take a due job, if nobody else has it."""
    return tx.execute(_CLAIM, {"job_id": name, "worker": worker, "now": tx.now, "until": tx.now + _LONGEST}) == 1


def finish(tx: Tx, name: str, worker: str, *, every: timedelta, error: str | None) -> None:
    """Give a job back, due again after ``every``."""
    tx.execute(_FINISH, {"job_id": name, "worker": worker, "now": tx.now, "next": tx.now + every, "new_error": error})


def _words_of(failure: Exception) -> str:
    """What went wrong, in text that every database can hold: the words may be a rail's."""
    words = f"{type(failure).__name__}: {failure}"[:500]
    return words.replace("\x00", "?").encode(errors="replace").decode()


class Runner:
    """One process's share of the jobs."""

    def __init__(self, database: Database, kinds: list[JobKind], tenants: Callable[[], Awaitable[list[str]]]) -> None:
        self._database = database
        self._kinds = {kind.name: kind for kind in kinds}
        self._tenants = tenants
        self._registered: set[str] = set()
        self.worker = f"{os.getpid()}-{secrets.token_hex(4)}"

    @property
    def names(self) -> list[str]:
        """The jobs that it runs."""
        return list(self._kinds)

    async def run_due(self, stop: asyncio.Event | None = None) -> int:
        """Run every job that is due and free, for every tenant, until told to stop; how many ran."""
        ran = 0
        for tenant in await self._tenants():
            if tenant not in self._registered:
                for name in self._kinds:
                    await self._database.scope(tenant).run(register, name)
                self._registered.add(tenant)
            for name in await self._database.scope(tenant).read(due):
                if name in self._kinds and not (stop and stop.is_set()):
                    ran += await self._run(tenant, self._kinds[name])
        return ran

    async def _run(self, tenant: str, kind: JobKind) -> bool:
        scope = self._database.scope(tenant, Actor("job", kind.name, source="job"))
        if not await scope.run(claim, kind.name, self.worker):
            return False
        error = None
        try:
            async with asyncio.timeout(_LONGEST.total_seconds() * 0.9):
                done = await kind.work(scope)
            if done:
                _log.info("job done", job=kind.name, tenant=tenant, count=done)
        except Exception as failure:  # noqa: BLE001 # a job's failure is noted and must not end the others
            error = _words_of(failure)
            _log.exception("job failed", job=kind.name, tenant=tenant)
        await scope.run(finish, kind.name, self.worker, every=kind.every, error=error)
        return True

    async def run_until(self, stop: asyncio.Event) -> None:
        """Look for due jobs every second until told to stop; a job under way is finished first."""
        while not stop.is_set():
            try:
                await self.run_due(stop)
            except DatabaseUnavailable as error:
                _log.warning("jobs wait for the database", why=str(error))
            except Exception:  # noqa: BLE001 # whatever it is, there will be jobs tomorrow
                _log.exception("jobs could not be looked for")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TICK_SECONDS)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Runner]:
        """Run in the background while the block lasts. A job under way then has ten seconds to finish."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.run_until(stop))
        try:
            yield self
        finally:
            stop.set()
            # One that is cut off stays claimed until its claim runs out.
            await asyncio.wait({task}, timeout=GRACE_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
