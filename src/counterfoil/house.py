"""The house put together: settings, database, keys, rails and jobs, for whichever face opens the door."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from counterfoil.accounts import enrollment, nonces, one_time_tokens, sessions, tenants
from counterfoil.accounts.sessions import Lasts
from counterfoil.accounts.tenants import KnownTenant, NewTenant, TenantChanges
from counterfoil.accounts.types import DEFAULT_TENANT, Tenant
from counterfoil.db.base import Database, Once, Scope
from counterfoil.db.engines import connect
from counterfoil.db.tx import Recorded, Tx
from counterfoil.events import sealing
from counterfoil.events.types import SYSTEM, Actor
from counterfoil.exchange import outbox
from counterfoil.exchange.checkouts import Turns
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.comparing_payments import compare_due
from counterfoil.exchange.letters.postman import Postman
from counterfoil.exchange.letters.sender import Sender
from counterfoil.exchange.margins import MARGINS, Margins, changes_margins
from counterfoil.exchange.oidc import Providers
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.questions import ask_due
from counterfoil.exchange.rails import Rails
from counterfoil.exchange.reconcile import reconcile
from counterfoil.exchange.reconcile_mirrors import reconcile_mirrors
from counterfoil.exchange.refunds import Refunder
from counterfoil.furnishing import Fresh, address_of, create_tenant, furnish, tend_sandbox, update_tenant
from counterfoil.idempotency import keys as idempotency_keys
from counterfoil.jobs.runner import JobKind, Runner
from counterfoil.kernel.clock import Clock, SystemClock
from counterfoil.kernel.ids import IdMaker
from counterfoil.kernel.secrets import MasterKey, SealBroken, new_secret
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import signing_keys, validation
from counterfoil.licensing.keyring import Keyring
from counterfoil.mail import outgoing
from counterfoil.sales import payments_archive
from counterfoil.sales.claims import Claims
from counterfoil.settings import Settings
from counterfoil.settlement import holds
from counterfoil.settlement.checkout import expire_due
from counterfoil.uses import Uses
from counterfoil.webhooks import worker
from counterfoil.webhooks.deliveries import COURIER
from counterfoil.webhooks.fan_out import fan_out
from counterfoil.webhooks.worker import Courier

_TENANTS_REMEMBERED_SECONDS = 5.0
_KEYRING_REMEMBERED_SECONDS = 10.0
_SEAL_BACK = timedelta(minutes=15)
_SEAL_BACK_ROWS = 100_000


class BadMasterKey(Exception):
    """The master key cannot be read."""


def load_master_key(settings: Settings) -> MasterKey:
    """From the environment, else from its file, which is made on the first start. Raises BadMasterKey."""
    try:
        if settings.master_key is not None:
            return MasterKey.from_text(settings.master_key.reveal())
        path = settings.master_key_file
        if not path.exists():
            _write_new_key(path)
        return MasterKey.from_text(path.read_text())
    except (ValueError, OSError) as error:
        raise BadMasterKey(f"the master key cannot be read: {error}") from error


def _write_new_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another process was first: use its key
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(MasterKey.generate().to_text() + "\n")


@dataclass
class House:
    """Everything a request may need."""

    settings: Settings
    database: Database
    master: MasterKey
    rails: Rails
    client: RailClient
    claims: Claims

    def __post_init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._tenants_read = float("-inf")
        self._tenants_changes = 0
        self._keyrings: dict[str, tuple[float, Keyring]] = {}
        self.uses = Uses(self.database)
        self.turns = Turns()
        self.oidc = Providers(self.settings.oidc_providers, self.client, self.database.clock)
        self.postman = Postman(self.database, Sender(self.settings, self.master, self.base_url))
        self.refunder = Refunder(self.database, self.rails, self.client)
        self.courier = Courier(self.database, self.settings, self.master)
        self.pusher = Pusher(self.database, self.rails, self.client)
        self.margins = Margins(self.database)
        self.database.on_events = _what_follows
        self.session_lasts = Lasts(
            idle=timedelta(hours=self.settings.session_idle_hours),
            longest=timedelta(days=self.settings.session_days),
            passkey=timedelta(hours=self.settings.passkey_hours),
        )

    def scope(self, tenant: str, actor: Actor = SYSTEM) -> Scope:
        """A database as one actor of one tenant sees it."""
        return self.database.scope(tenant, actor)

    async def tenants(self) -> dict[str, Tenant]:
        """Every tenant by id, as of a few seconds ago."""
        if time.monotonic() - self._tenants_read > _TENANTS_REMEMBERED_SECONDS:
            changes = self._tenants_changes
            found = await self.database.scope(DEFAULT_TENANT).read(tenants.everyone)
            if changes != self._tenants_changes:  # what we read may be from before
                return found
            self._tenants, self._tenants_read = found, time.monotonic()
        return self._tenants

    def forget_tenants(self) -> None:
        """A tenant was made or changed in this process."""
        self._tenants_read = float("-inf")
        self._tenants_changes += 1

    async def create_tenant(self, new: NewTenant, actor: Actor = SYSTEM, once: Once | None = None) -> KnownTenant:
        """Make a tenant with all it needs. Raises Invalid; Conflict (``slug_taken``, ``host_taken``)."""
        fresh = Fresh(PrivateKey.generate(), new_secret(40), enrollment.new_token())
        scope = Scope(self.database, IdMaker(self.database.clock.now())("ten"), actor, once)
        made = await scope.run(create_tenant, self.settings, self.master, new, fresh)
        self.forget_tenants()
        self.send_mail(made.id)
        return made

    async def update_tenant(self, tenant: str, changes: TenantChanges, actor: Actor = SYSTEM) -> KnownTenant:
        """Change a tenant. Raises Invalid; NotFound; Conflict (``host_taken``)."""
        scope = self.scope(tenant, actor)
        changed = await scope.run(update_tenant, self.settings, self.master, changes, new_secret(40))
        self.forget_tenants()
        self.rails.forget(tenant, "sandbox")
        return changed

    async def tend_everyone(self) -> None:
        """Bring every tenant's built-in roles up to this version, and its sandbox to what the settings say."""
        for tenant in await self.database.scope(DEFAULT_TENANT).read(tenants.everyone):
            scope = self.scope(tenant)
            if tenant != DEFAULT_TENANT:
                await scope.run(furnish, self.master, PrivateKey.generate())
            await scope.run(tend_sandbox, self.settings, self.master, new_secret(40))

    async def keyring(self, tenant: str, *, doubt: bool = False) -> Keyring:
        """A tenant's signing keys; read again, at most every ten seconds, when there is ``doubt``."""
        known = self._keyrings.get(tenant)
        if known is not None and not (doubt and time.monotonic() - known[0] > _KEYRING_REMEMBERED_SECONDS):
            return known[1]
        ring = Keyring(tenant, await self.database.scope(tenant).read(signing_keys.everyone), self.master)
        self._keyrings[tenant] = (time.monotonic(), ring)
        return ring

    async def fresh_keyring(self, tenant: str) -> Keyring:
        """A tenant's signing keys as they are at this moment; the one that requests share is left alone."""
        return Keyring(tenant, await self.database.scope(tenant).read(signing_keys.everyone), self.master)

    async def seal(self, scope: Scope, *, back: timedelta = _SEAL_BACK, rows: int = _SEAL_BACK_ROWS) -> int:
        """Seal the scope's events that have no seal, looking back as ``sealing.start`` says; how many."""
        signer = (await self.fresh_keyring(scope.tenant)).signer()
        if signer is None:
            return 0
        key_id, key = signer
        return await sealing.seal_all(scope, key.sign, key_id, back=back, rows=rows)

    async def base_url(self, tenant: str) -> str:
        """Where a tenant's pages and webhooks are reached, without a slash at the end."""
        if tenant == DEFAULT_TENANT:
            return self.settings.base_url
        row = (await self.tenants()).get(tenant)
        if row is None:  # made a moment ago, by another process
            self.forget_tenants()
            row = (await self.tenants())[tenant]
        return address_of(self.settings, tenant, row)

    async def webhook_url(self, tenant: str, rail: str) -> str:
        """Where a rail sends a tenant's webhooks."""
        return f"{await self.base_url(tenant)}/v1/webhooks/{rail}"

    def send_mail(self, tenant: str) -> None:
        """Have letters that were just queued leave now, if this process runs jobs. Nobody waits for it."""
        if self.settings.jobs:
            self.postman.soon(tenant)

    def give_back(self, tenant: str) -> None:
        """Have the rails of refunds that were just approved asked now, if this process runs jobs."""
        if self.settings.jobs:
            self.refunder.soon(tenant)

    def send_webhooks(self, tenant: str) -> None:
        """Have news that was just queued leave now, if this process runs jobs. Nobody waits for it."""
        if self.settings.jobs:
            self.courier.send_soon(tenant)

    def push(self, tenant: str) -> None:
        """Have what was just owed to rails sent now, if this process runs jobs. Nobody waits for it."""
        if self.settings.jobs:
            self.pusher.soon(tenant)

    def follow_margins(self, tenant: str) -> None:
        """Have subscriptions follow margins that just changed, if this process runs jobs. Nobody waits for it."""
        if self.settings.jobs:
            self.margins.soon(tenant)

    def wake(self, tenant: str, who: AbstractSet[str]) -> None:
        """Have those begin who have something to do since a transaction."""
        if who & COURIER:
            self.send_webhooks(tenant)
        if who & _PUSHER:
            self.push(tenant)
        if who & MARGINS:
            self.follow_margins(tenant)

    def runner(self) -> Runner:
        """This process's share of the jobs."""

        async def active() -> list[str]:
            return [tenant for tenant, row in (await self.tenants()).items() if row.status == "active"]

        return Runner(self.database, self._jobs(), active)

    def _jobs(self) -> list[JobKind]:
        async def expire(scope: Scope) -> int:
            return await scope.run(expire_due) + await scope.run(holds.reap)

        async def ask_rails(scope: Scope) -> int:
            return await reconcile(scope, self.rails, self.client)

        async def ask_mirrors(scope: Scope) -> int:
            return await reconcile_mirrors(scope, self.rails, self.pusher)

        async def compare_payments(scope: Scope) -> int:
            return await compare_due(scope, self.rails, self.pusher)

        async def ask_about_news(scope: Scope) -> int:
            return await ask_due(scope, self.rails, self.client)

        async def seal_late(scope: Scope) -> int:
            return await self.seal(scope, back=timedelta(days=3), rows=10_000_000)

        async def tidy(scope: Scope) -> int:
            keep = timedelta(days=self.settings.validation_log_days)
            done = await scope.run(one_time_tokens.tidy) + await scope.run(nonces.tidy)
            done += await scope.run(sessions.tidy, keep=timedelta(days=90))
            done += await scope.run(outgoing.tidy, keep=timedelta(days=90))
            done += await worker.tidy(scope, keep=timedelta(days=self.settings.webhook_log_days))
            done += await scope.run(idempotency_keys.tidy)
            return done + await scope.run(validation.tidy, keep=keep)

        async def archive(scope: Scope) -> int:
            before = self.database.clock.now() - self.settings.archived_after
            return await payments_archive.archive_all(scope, before=before)

        archiving = JobKind("archive_payments", self.settings.archived_every, archive)

        return [
            JobKind("expire_checkouts", timedelta(seconds=15), expire),
            JobKind("send_mail", timedelta(seconds=5), self.postman.work),
            JobKind("send_webhooks", timedelta(seconds=5), self.courier.send),
            JobKind("reconcile", timedelta(minutes=1), ask_rails),
            JobKind("reconcile_subscriptions", timedelta(minutes=5), ask_mirrors),
            JobKind("compare_payments", timedelta(hours=1), compare_payments),
            JobKind("execute_refunds", timedelta(seconds=30), self.refunder.work),
            JobKind("follow_margins", timedelta(minutes=10), self.margins.work),
            JobKind("push_to_rails", timedelta(seconds=30), self.pusher.work),
            JobKind("ask_about_news", timedelta(seconds=10), ask_about_news),
            JobKind("seal_events", timedelta(seconds=5), self.seal),
            JobKind("seal_late_events", timedelta(hours=1), seal_late),
            JobKind("tidy", timedelta(hours=6), tidy),
            *([archiving] if self.settings.archival_enabled else []),
        ]


_PUSHER = frozenset({"pusher"})


def _what_follows(tx: Tx, recorded: Sequence[Recorded]) -> AbstractSet[str]:
    """What becomes of events in their transaction: news for endpoints, and what rails are owed."""
    told = COURIER if fan_out(tx, recorded) else frozenset()
    told |= MARGINS if changes_margins(recorded) else frozenset()
    return told | _PUSHER if outbox.owe_events(tx, recorded) else told


@contextlib.asynccontextmanager
async def open_house(
    settings: Settings, clock: Clock | None = None, *, beside_servers: bool = False
) -> AsyncIterator[House]:
    """Open the house on an up-to-date database, and close it behind us.

    ``beside_servers``: for a command while servers may run; what they set up by their own settings (the
    sandbox) stays as it is. Raises BadMasterKey, BadDatabaseUrl, DatabaseUnavailable.
    """
    master = load_master_key(settings)
    database = connect(settings.database_url, clock or SystemClock())
    client = RailClient()
    try:
        house = House(
            settings=settings,
            database=database,
            master=master,
            rails=Rails(database, master),
            client=client,
            claims=Claims(master.derive("claims")),
        )
        try:
            await database.scope(DEFAULT_TENANT).run(furnish, master, PrivateKey.generate())
            if not beside_servers:
                database.on_wake = house.wake
                await house.tend_everyone()
        except SealBroken as error:
            raise BadMasterKey("the master key is not the one this database was made with") from error
        at_work = (house.postman, house.courier, house.refunder, house.margins, house.pusher)
        async with contextlib.AsyncExitStack() as stack:
            for one in at_work:
                await stack.enter_async_context(one.at_work())
            yield house
    finally:
        await client.close()
        await database.close()
