"""Sending news in the background: neither a request nor one receiver's news waits for another receiver.

Each endpoint that has something due gets a lane of its own, which claims a few deliveries, sends them two at a time
and goes on until there are no more. All lanes share the process's connections; those whose receivers fail share
half of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from counterfoil.db.base import Database, Scope
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.kernel.errors import CounterfoilError
from counterfoil.kernel.secrets import MasterKey, SealBroken
from counterfoil.logs import get_logger
from counterfoil.settings import Settings
from counterfoil.webhooks import deliveries, endpoints, signing
from counterfoil.webhooks.deliveries import Claim, Outcome, Replayed
from counterfoil.webhooks.signing import Keys
from counterfoil.webhooks.types import Delivery

if TYPE_CHECKING:
    from counterfoil.webhooks.sender import Answer, Sender

AT_ONCE = 20
"""Requests under way of this process, to all receivers together."""
GRACE_SECONDS = 10
"""How long requests under way may take when the process stops."""
_ROUND_SECONDS = 1.0
"""How long the job that sends news looks on."""
_SMALLEST, _LARGEST = 4, 128
"""How much a lane claims at a time: more and more while its receiver keeps up."""
_JITTER = 0.1
_GONE = 410

_log = get_logger(__name__)


class Courier:
    """Sends each tenant's news."""

    def __init__(self, database: Database, settings: Settings, master: MasterKey) -> None:
        self.worker = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.stopping = False
        """Begin no other request."""
        self._database = database
        self._settings = settings
        self._master = master
        self._sender: Sender | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._doubtful = asyncio.Semaphore(AT_ONCE // 2)
        self._claims = 0
        self._wanted: set[str] = set()
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._again: set[tuple[str, str]] = set()
        self._sent = 0
        # Spread, not secret: so that what failed together is not tried again together.
        self._dice = random.Random()  # noqa: S311
        # A claim is given back rather than begun so late that it could run out under way.
        self._begin_within = deliveries.CLAIM_LASTS.total_seconds() - settings.webhook_timeout_seconds - 5

    def send_soon(self, tenant: str) -> asyncio.Task[None]:
        """Look for what is due of a tenant, and have it sent, beginning now."""
        self._wanted.add(tenant)
        running = self._rounds.get(tenant)
        if running is None:
            running = self._rounds[tenant] = asyncio.create_task(self._go_round(tenant))
            running.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait for it
        return running

    async def send(self, scope: Scope) -> int:
        """The job: have sent what is due, and look on for a moment; how much was sent in it."""
        before = self._sent
        await self.send_soon(scope.tenant)
        lanes = {lane for (tenant, _), lane in self._lanes.items() if tenant == scope.tenant}
        if lanes:
            await asyncio.wait(lanes, timeout=_ROUND_SECONDS)
        return self._sent - before

    async def send_due(self, tenant: str) -> int:
        """Send all that is due of a tenant, and wait for it; how many attempts it took."""
        before = self._sent
        await self.send_soon(tenant)
        while lanes := {lane for (owner, _), lane in self._lanes.items() if owner == tenant}:
            await asyncio.wait(lanes)
        return self._sent - before

    async def _go_round(self, tenant: str) -> None:
        scope = self._scope(tenant)
        try:
            while tenant in self._wanted and not self.stopping:
                self._wanted.discard(tenant)
                due = await scope.read(deliveries.due)
                if due.any_lost:
                    await scope.run(deliveries.reclaim)
                    due = await scope.read(deliveries.due)
                for endpoint_id in due.endpoint_ids:
                    self._open_lane(tenant, endpoint_id)
        except Exception:
            _log.exception("webhooks could not be looked for", tenant=tenant)
            raise
        finally:
            del self._rounds[tenant]

    def _scope(self, tenant: str) -> Scope:
        return self._database.scope(tenant, Actor("job", "send_webhooks", source="job"))

    def _open_lane(self, tenant: str, endpoint_id: str) -> None:
        key = (tenant, endpoint_id)
        if key in self._lanes:
            self._again.add(key)
        else:
            self._lanes[key] = asyncio.create_task(self._run_lane(tenant, endpoint_id))

    async def _run_lane(self, tenant: str, endpoint_id: str) -> None:
        key = (tenant, endpoint_id)
        scope = self._scope(tenant)
        size = _SMALLEST
        try:
            while not self.stopping:
                self._again.discard(key)
                self._claims += 1
                name = f"{self.worker}/{self._claims}"
                claim = await scope.run(deliveries.claim, endpoint_id, name, most=size)
                if claim is not None:
                    size = min(size * 2, _LARGEST) if await self._send_all(scope, claim) else _SMALLEST
                elif key not in self._again:  # or something came in while we looked
                    break
        except Exception:  # noqa: BLE001 # what is claimed is sent when the claim has run out
            _log.exception("webhooks could not be sent", tenant=tenant, endpoint=endpoint_id)
        finally:
            del self._lanes[key]

    async def _send_all(self, scope: Scope, claim: Claim) -> bool:
        """Send what is claimed, and write down what came of it; whether the receiver took it all."""
        try:
            keys = endpoints.keys_of(claim.endpoint, scope.tenant, self._master, self._database.clock.now())
        except SealBroken:
            _log.error("a webhook secret cannot be opened", tenant=scope.tenant, endpoint=claim.endpoint.id)
            error = "its secret cannot be opened: the master key is another"
            outcomes = [self._outcome(claim, one, None, error) for one in claim.deliveries]
            await asyncio.gather(*[scope.coalesce(self._finish, one) for one in outcomes])
            return False
        round_ = _Round(claim, time.monotonic() + self._begin_within)
        at_once = self._settings.webhooks_per_endpoint
        turns = iter(claim.deliveries)
        async with asyncio.TaskGroup() as workers:  # none goes on alone when one fails
            for _ in range(min(at_once, len(claim.deliveries))):
                workers.create_task(self._work(scope, round_, keys, turns))
        if round_.unsent:
            await scope.run(deliveries.release, claim.worker, round_.unsent)
        if round_.notes:
            await asyncio.gather(*round_.notes)
        return round_.all_taken

    async def _work(self, scope: Scope, round_: _Round, keys: Keys, turns: Iterator[Delivery]) -> None:
        for delivery in turns:
            async with contextlib.AsyncExitStack() as held:
                if round_.is_doubtful:
                    await held.enter_async_context(self._doubtful)
                await held.enter_async_context(self._slots)
                if self.stopping or time.monotonic() > round_.begin_until:
                    round_.unsent.append(delivery.id)
                    continue
                outcome = await self._attempt(round_.claim, keys, delivery)
            self._sent += 1
            round_.all_taken = round_.all_taken and outcome.error is None
            round_.is_doubtful = outcome.error is not None
            # The next request does not wait for this one's being written down; many are written together.
            round_.notes.append(asyncio.create_task(scope.coalesce(self._finish, outcome)))

    async def _attempt(self, claim: Claim, keys: Keys, delivery: Delivery) -> Outcome:
        now = self._database.clock.now()
        body = delivery.payload.encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "Counterfoil",
            **signing.headers(delivery.event_id, now, body, keys),
        }
        answer = await self._post(claim.endpoint.url, headers, body, now)
        if answer.error is None:
            return self._outcome(claim, delivery, answer.status, None)
        return self._outcome(claim, delivery, answer.status, answer.error, answer.retry_after)

    async def _post(self, url: str, headers: dict[str, str], body: bytes, now: datetime) -> Answer:
        if self._sender is None:
            from counterfoil.webhooks.sender import Sender  # noqa: PLC0415 # a start does not need it

            self._sender = Sender(
                allow_loopback=self._settings.webhooks_allow_loopback,
                seconds=self._settings.webhook_timeout_seconds,
            )
        return await self._sender.post(url, headers, body, at=now)

    def _outcome(
        self,
        claim: Claim,
        delivery: Delivery,
        status: int | None,
        error: str | None,
        retry_after: timedelta | None = None,
    ) -> Outcome:
        wait = deliveries.wait_after(delivery.attempts) or timedelta(0)
        wait += wait * _JITTER * self._dice.random()
        return Outcome(
            delivery_id=delivery.id,
            endpoint_id=claim.endpoint.id,
            worker=claim.worker,
            attempts=delivery.attempts,
            status=status,
            error=error,
            wait=max(wait, retry_after or wait),
            gone=status == _GONE,
        )

    def _finish(self, tx: Tx, outcomes: list[Outcome]) -> list[CounterfoilError | None]:
        return deliveries.finish(tx, self._master, outcomes)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Requests under way when the block ends have ten seconds to be answered."""
        try:
            yield
        finally:
            self.stopping = True
            tasks = {*self._rounds.values(), *self._lanes.values()}
            if tasks:
                await asyncio.wait(tasks, timeout=GRACE_SECONDS)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if self._sender is not None:
                await self._sender.close()


class _Round:
    """What becomes of one claim."""

    def __init__(self, claim: Claim, begin_until: float) -> None:
        self.claim = claim
        self.begin_until = begin_until
        self.is_doubtful = claim.endpoint.first_failed_at is not None
        self.all_taken = True
        self.unsent: list[str] = []
        self.notes: list[asyncio.Task[CounterfoilError | None]] = []


async def replay(scope: Scope, endpoint_id: str, since: datetime) -> int:
    """Queue again all that was queued for an endpoint since a moment; how much. Raises NotFound; Invalid."""
    count, start = 0, ""
    while True:
        done: Replayed = await scope.run(deliveries.replay, endpoint_id, since, start=start)
        count += done.count
        if done.next is None:
            return count
        start = done.next


async def tidy(scope: Scope, *, keep: timedelta) -> int:
    """Forget what is over for long enough; how much."""
    count = await scope.run(endpoints.forget_old_secrets)
    while done := await scope.run(deliveries.tidy, keep=keep):
        count += done
        if done < deliveries.CHUNK:
            break
    return count
