"""What both databases offer: transactions, and a scope to run operations in."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from counterfoil.db.tx import OnEvents, Tx
from counterfoil.events.types import SYSTEM, Actor
from counterfoil.kernel.clock import Clock
from counterfoil.kernel.errors import CounterfoilError, Unavailable

P = ParamSpec("P")
R = TypeVar("R")
Q = TypeVar("Q")

Op = Callable[Concatenate[Tx, P], R]
"""An operation: a synchronous function of a transaction."""

ManyOp = Callable[[Tx, list[Q]], list[R | CounterfoilError]]
"""An operation on many requests at once: one answer each, in order; an error is that request's answer."""


_SINGLE = "_counterfoil_single_statement"


def single_statement(op: Callable[P, R]) -> Callable[P, R]:
    """Say of a reading operation that it runs one statement at most, and a quick one, which makes it cheaper to run.

    ``Tx`` holds it to one. SQLite runs it in the event loop, where nothing that takes a millisecond has a place.
    """
    setattr(op, _SINGLE, True)
    return op


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or is too busy. What was asked may or may not have happened."""

    default_code = "database_unavailable"


class Database(ABC):
    """Runs operations in transactions."""

    dialect: str

    def __init__(self, clock: Clock, *, batches_at_once: int, batch_size: int = 200) -> None:
        self.clock = clock
        self.on_events: OnEvents | None = None
        """Called in every transaction that recorded events, once they are written and before it commits."""
        self.on_wake: Callable[[str, AbstractSet[str]], None] | None = None
        """Called once a transaction is durable whose ``on_events`` named somebody: with the tenant, and with whom."""
        self._coalescer = Coalescer(self, at_once=batches_at_once, most=batch_size)

    def scope(self, tenant: str, actor: Actor = SYSTEM) -> Scope:
        """Everything that follows happens for this tenant, by this actor."""
        return Scope(self, tenant, actor)

    async def write(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """Run ``work`` in a read-write transaction; return once it is durable."""
        last: Tx | None = None

        def noted(tx: Tx) -> R:
            nonlocal last
            last = tx  # of several tries, the one that counts
            return work(tx)

        answer = await self._write(noted, tenant, actor)
        if last is not None and last.wakes and self.on_wake is not None:
            self.on_wake(tenant, last.wakes)
        return answer

    @abstractmethod
    async def _write(self, work: Callable[[Tx], R], tenant: str, actor: Actor) -> R:
        """What :meth:`write` does, on this database."""

    @abstractmethod
    async def read(self, work: Callable[[Tx], R], tenant: str, actor: Actor, *, single: bool = False) -> R:
        """Run ``work`` on a consistent snapshot; it cannot write. ``single``: it runs one statement at most."""

    async def coalesce(self, op: ManyOp[Q, R], request: Q, tenant: str, actor: Actor) -> R:
        """Run one request together with others of its kind that wait at the same moment."""
        return await self._coalescer.submit(op, request, tenant, actor)

    @abstractmethod
    async def learn(self, *tables: str) -> None:
        """Have the planner look at tables that have just grown. Raises DatabaseUnavailable."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of every connection."""


class Once(Protocol):
    """Sees to it that what a request changes is changed once, however often the request is sent."""

    async def write(self, scope: Scope, work: Callable[[Tx], R]) -> R:
        """Run ``work`` in a read-write transaction of the scope, unless it was done before."""


class Scope:
    """A database as one actor of one tenant sees it."""

    __slots__ = ("actor", "database", "once", "tenant")

    def __init__(self, database: Database, tenant: str, actor: Actor, once: Once | None = None) -> None:
        self.database = database
        self.tenant = tenant
        self.actor = actor
        self.once = once

    async def run(self, op: Op[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an operation in a read-write transaction, and return once it is durable.

        It is retried when the database asks for it (serialization failure, deadlock), so an operation
        may do nothing but use its ``tx``. Raises DatabaseUnavailable.
        """
        if self.once is not None:
            return await self.once.write(self, lambda tx: op(tx, *args, **kwargs))
        return await self.database.write(lambda tx: op(tx, *args, **kwargs), self.tenant, self.actor)

    async def read(self, op: Op[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an operation that only reads, on one consistent snapshot. Raises DatabaseUnavailable."""
        single = getattr(op, _SINGLE, False)
        return await self.database.read(lambda tx: op(tx, *args, **kwargs), self.tenant, self.actor, single=single)

    async def coalesce(self, op: ManyOp[Q, R], request: Q) -> R:
        """Run one request of a hot path: concurrent ones share a transaction and its statements.

        The actor of the shared transaction is the scope's; what differs by request belongs in the request.
        """
        return await self.database.coalesce(op, request, self.tenant, self.actor)


class _Group(Generic[Q, R]):
    """Requests that may share a transaction: same operation, tenant and actor."""

    __slots__ = ("actor", "op", "running", "tenant", "waiting")

    def __init__(self, op: ManyOp[Q, R], tenant: str, actor: Actor) -> None:
        self.op = op
        self.tenant = tenant
        self.actor = actor
        self.running = 0
        self.waiting: list[tuple[Q, asyncio.Future[R]]] = []


class Coalescer:
    """Gathers concurrent requests of one kind into shared transactions.

    The first request starts at once; those that arrive while it runs go together in the next. So it
    adds no wait when idle, and the busier it is the fewer statements each request costs.
    """

    def __init__(self, database: Database, *, at_once: int, most: int) -> None:
        self._database = database
        self._at_once = at_once
        self._most = most
        self._groups: dict[tuple[Any, str, Actor], _Group[Any, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, op: ManyOp[Q, R], request: Q, tenant: str, actor: Actor) -> R:
        """Queue a request and wait for its own answer."""
        key = (op, tenant, actor)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(op, tenant, actor)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        group.waiting.append((request, future))
        if group.running < self._at_once:
            group.running += 1
            task = loop.create_task(self._work(key, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self, key: tuple[Any, str, Actor], group: _Group[Any, Any]) -> None:
        while group.waiting:
            batch, group.waiting = group.waiting[: self._most], group.waiting[self._most :]
            await self._run(group, batch)
        group.running -= 1
        if not group.running and self._groups.get(key) is group:
            del self._groups[key]

    async def _run(self, group: _Group[Q, R], batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        requests = [request for request, _ in batch]

        def work(tx: Tx) -> list[R | CounterfoilError]:
            answers = group.op(tx, requests)
            if len(answers) != len(requests):  # else somebody would wait for ever
                raise RuntimeError(f"{group.op} gave {len(answers)} answers to {len(requests)} requests")
            return answers

        try:
            answers = await self._database.write(work, group.tenant, group.actor)
        except Exception as error:  # noqa: BLE001 # whatever it is, it belongs to whoever asked
            if len(batch) == 1 or isinstance(error, DatabaseUnavailable):
                for _, future in batch:
                    _answer(future, error)
                return
            # One bad request must not spoil its neighbours': give each a transaction of its own.
            for entry in batch:
                await self._run(group, [entry])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            _answer(future, answer)


def _answer(future: asyncio.Future[R], answer: R | Exception) -> None:
    if future.done():  # whoever asked has gone away
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
