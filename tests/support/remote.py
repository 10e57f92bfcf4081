"""A server in another process, as its staff and its sandbox reach it.

with serving(url, folder, master=master) as server, connected(server.url, url, master) as remote:
    product = remote.staff("POST", "/v1/products", slug="editor", name="Editor")
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import msgspec
import sqlalchemy as sa

from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.engines import connect
from counterfoil.db.tx import Tx
from counterfoil.exchange import rail_settings
from counterfoil.kernel.clock import SystemClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.sandbox.rail import SandboxSettings, sign
from counterfoil.rails.sandbox.session import Action, SandboxEvent, act, unseal
from counterfoil.tables import metadata

R = TypeVar("R")


class Remote:
    """A running server, and a look into its database."""

    def __init__(self, url: str, database_url: str, key: str, sandbox: SandboxSettings | None) -> None:
        self.url = url
        self.database_url = database_url
        self.key = key
        self.sandbox = sandbox
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def staff(self, method: str, path: str, /, **body: Any) -> Any:
        """Ask with a key that may do everything; the body of the answer, which must be a success."""
        content = {} if method == "GET" else {"json": body}
        answer = self.http.request(method, path, headers={"Authorization": f"Bearer {self.key}"}, **content)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def news_of(self, checkout_url: str, action: Action = "pay", attempt: str = "first") -> list[SandboxEvent]:
        """What follows from acting on the sandbox's page."""
        assert self.sandbox is not None
        session = unseal(checkout_url.rsplit("/", 1)[1], self.sandbox.secret)
        return act(session, action, attempt, datetime.now(UTC))[1]

    def signed(self, event: SandboxEvent) -> tuple[bytes, dict[str, str]]:
        """A webhook's body and headers."""
        assert self.sandbox is not None
        body = msgspec.json.encode(event)
        return body, {"Sandbox-Signature": sign(body, self.sandbox.secret, datetime.now(UTC))}

    def pay(self, checkout_url: str, action: Action = "pay") -> None:
        """Act on the sandbox's page, and deliver the news."""
        for event in self.news_of(checkout_url, action):
            body, headers = self.signed(event)
            answer = self.http.post("/v1/webhooks/sandbox", content=body, headers=headers)
            assert answer.is_success, answer.text

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Every row of a table, past the server."""
        return look(self.database_url, lambda tx: [dict(row._mapping) for row in tx.all(sa.select(_table(table)))])

    def books(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table, to show that nothing changed."""

        def every(tx: Tx) -> dict[str, list[dict[str, Any]]]:
            return {
                name: [dict(row._mapping) for row in tx.all(sa.select(table).order_by(*table.primary_key.columns))]
                for name, table in metadata.tables.items()
            }

        return look(self.database_url, every)


def _table(name: str) -> sa.Table:
    return metadata.tables[name]


def _apart(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Run it in a loop of its own, in a thread of its own: whoever asks may be in a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def look(database_url: str, read: Callable[[Tx], R]) -> R:
    """Read a database that a server in another process has open."""

    async def reading() -> R:
        database = connect(database_url, SystemClock())
        try:
            return await database.scope(DEFAULT_TENANT).read(read)
        finally:
            await database.close()

    return _apart(reading)


async def _prepare(database_url: str, master: MasterKey, secret: str) -> SandboxSettings | None:
    database = connect(database_url, SystemClock())
    scope = database.scope(DEFAULT_TENANT)
    try:
        await scope.run(api_keys.create, "tests", ["*"], secret=secret)
        row = await scope.read(rail_settings.load, "sandbox")
        return rail_settings.unseal(row, DEFAULT_TENANT, master, SandboxSettings) if row else None
    finally:
        await database.close()


@contextlib.contextmanager
def connected(url: str, database_url: str, master: MasterKey) -> Iterator[Remote]:
    """Make a key that may do everything, and read the sandbox's secret."""
    secret = api_keys.new_secret()
    remote = Remote(url, database_url, secret, _apart(lambda: _prepare(database_url, master, secret)))
    with remote.http:
        yield remote
