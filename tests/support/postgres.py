"""A PostgreSQL server for the tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import sqlalchemy as sa

URL_VARIABLE = "COUNTERFOIL_TEST_POSTGRES_URL"
"""Names a server to use instead of starting one. Its user must be allowed to make databases."""

_SERVER = Path(__file__).with_name("postgres_server.py")

T = TypeVar("T")


class PostgresServer:
    """A server of our own, in a process that ends with us however we end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests; the server stops after them
        )
        assert self._process.stdout is not None
        # Its first line is its address, printed when it is ready; no line means that it failed, and said why.
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self._process.wait()
            raise RuntimeError("PostgreSQL did not start")

    def stop(self) -> None:
        self._process.communicate()  # closes its input and waits


class PostgresAdmin:
    """Makes, cleans and drops databases, over connections that are kept. Plain functions for any code to call."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        # A loop in a thread of its own, so that a test's own loop may run meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres-admin")
        self._runner = asyncio.Runner()
        self._connections: dict[str, asyncpg.Connection] = {}

    def url_of(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    @contextmanager
    def database(self, name: str, template: str | None = None) -> Iterator[str]:
        """The URL of a new database, empty or a copy of ``template``, dropped at the end."""
        copied = f'TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
        self.execute(f'CREATE DATABASE "{name}" {copied}')
        try:
            yield self.url_of(name)
        finally:
            self._disconnect(name)
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, sql: str, database: str | None = None) -> None:
        """Run statements, by default in the server's own database."""
        self._run(self._execute(database or str(self._url.database), sql))

    def fetch(self, sql: str, database: str) -> list[Any]:
        """The rows that a statement finds."""
        return self._run(self._fetch(database, sql))

    def close(self) -> None:
        for database in list(self._connections):
            self._disconnect(database)
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _disconnect(self, database: str) -> None:
        connection = self._connections.pop(database, None)
        if connection is not None:
            self._run(connection.close())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._runner.run, work).result()

    async def _execute(self, database: str, sql: str) -> None:
        await (await self._connect(database)).execute(sql)

    async def _fetch(self, database: str, sql: str) -> list[Any]:
        return list(await (await self._connect(database)).fetch(sql))

    async def _connect(self, database: str) -> asyncpg.Connection:
        connection = self._connections.get(database)
        if connection is None:
            connection = self._connections[database] = await asyncpg.connect(self.url_of(database))
        return connection
