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
from counterfoil.db.base import Database
from counterfoil.db.engines import connect
from counterfoil.db.tx import Tx
from counterfoil.exchange import rail_settings
from counterfoil.kernel.clock import SystemClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.sandbox.rail import SandboxSettings, sign
from counterfoil.rails.sandbox.session import Action, SandboxEvent, act, unseal
from counterfoil.tables import metadata

R = TypeVar("R")
Read = Callable[[Tx], R]


class Remote:
    """A running server, and a look into its database."""

    def __init__(
        self, url: str, database_url: str, key: str, sandbox: SandboxSettings | None, look: Callable[[Read[Any]], Any]
    ) -> None:
        self.url = url
        self.database_url = database_url
        self.key = key
        self.sandbox = sandbox
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._look = look

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
        found: list[dict[str, Any]] = self._look(lambda tx: _rows(tx, sa.select(metadata.tables[table])))
        return found

    def books(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table, to show that nothing changed; but not when keys were last used."""

        def every(tx: Tx) -> dict[str, list[dict[str, Any]]]:
            filled = {name for (name,) in tx.all(_WITH_ROWS)}
            return {
                name: _rows(tx, sa.select(*_kept(table)).order_by(*table.primary_key.columns)) if name in filled else []
                for name, table in metadata.tables.items()
            }

        found: dict[str, list[dict[str, Any]]] = self._look(every)
        return found


_WITH_ROWS = sa.text(
    " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in metadata.tables)
).columns(sa.Column("name", sa.Text))


def _kept(table: sa.Table) -> list[sa.Column[Any]]:
    # Servers note every ten seconds which keys were used.
    return [column for column in table.columns if (table.name, column.name) != ("api_keys", "last_used_at")]


def _rows(tx: Tx, statement: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in tx.all(statement)]


class Apart:
    """A loop and a thread of our own: whoever asks may be in a loop already."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()

    def __call__(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return self._thread.submit(lambda: self._runner.run(work())).result()

    def close(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()


async def _prepare(database: Database, master: MasterKey, secret: str) -> SandboxSettings | None:
    scope = database.scope(DEFAULT_TENANT)
    await scope.run(api_keys.create, "tests", ["*"], secret=secret)
    row = await scope.read(rail_settings.load, "sandbox")
    return rail_settings.unseal(row, DEFAULT_TENANT, master, SandboxSettings) if row else None


@contextlib.contextmanager
def connected(url: str, database_url: str, master: MasterKey) -> Iterator[Remote]:
    """Make a key that may do everything, and read the sandbox's secret."""
    secret = api_keys.new_secret()
    with contextlib.closing(Apart()) as apart:
        database = connect(database_url, SystemClock())
        try:
            sandbox = apart(lambda: _prepare(database, master, secret))
            scope = database.scope(DEFAULT_TENANT)
            remote = Remote(url, database_url, secret, sandbox, lambda read: apart(lambda: scope.read(read)))
            with remote.http:
                yield remote
        finally:
            apart(database.close)
