"""Databases for the tests: migrated once, then copied or cleaned, which is quicker than migrating."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from counterfoil.db.migrate import migrate
from counterfoil.tables import metadata
from tests.support import connections, furnished
from tests.support.kept_file import KeptFile
from tests.support.postgres import URL_VARIABLE, PostgresAdmin, PostgresServer

Dialect = Literal["sqlite", "postgresql"]

# Whoever else is still connected, or at it, is a test's forgotten child; it must not hold a lock, nor write any more.
_ALONE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (state <> 'idle' OR pid <> ALL ('{}'))
"""  # {}: the kept connections
# All of them go, so nobody need look at what refers to what.
_CLEAN = ";".join(["SET session_replication_role = replica", *[f"DELETE FROM {name}" for name in metadata.tables]])

_VACUUM_AFTER = 25
"""What is deleted stays in its table, where every statement goes past it, until it is swept."""

# Once it has seen a table empty, PostgreSQL goes through it row by row, and keeps to that plan however it grows.
_NEVER_SEEN = """
UPDATE pg_class SET relpages = 0, reltuples = -1
WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace
"""

_IN_MEMORY = Path("/dev/shm")
_ROOM = 512 * 1024 * 1024


@contextmanager
def in_memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder that no disk is behind, where the system has one with room: SQLite waits for every commit."""
    if not _IN_MEMORY.is_dir() or not os.access(_IN_MEMORY, os.W_OK) or shutil.disk_usage(_IN_MEMORY).free < _ROOM:
        yield otherwise
        return
    with TemporaryDirectory(prefix="counterfoil-", dir=_IN_MEMORY) as folder:
        yield Path(folder)


def _migrate(url: str) -> None:
    # In a thread, because whoever asks for a database may have a loop running.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(migrate, url).result()


class Databases:
    """Fresh databases, of either kind. PostgreSQL is started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._cleaned = itertools.count(1)
        self._opened = ExitStack()
        self._kept_file: KeptFile | None = None

    def close(self) -> None:
        """Drop what was kept, and stop what was started."""
        self._forget_file()
        self._opened.close()

    @contextmanager
    def fresh(self, dialect: Dialect, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a new database of one's own, migrated or without tables, dropped at the end."""
        name = self._new_name()
        if dialect == "postgresql":
            with self.postgres.database(name, self._template if migrated else None) as url:
                yield url
            return
        path = self._folder / name / "counterfoil.db"
        path.parent.mkdir()
        if migrated:
            shutil.copyfile(self._template_file, path)
        try:
            yield f"sqlite:///{path}"
        finally:
            shutil.rmtree(path.parent)

    @contextmanager
    def clean(self, dialect: Dialect) -> Iterator[str]:
        """The URL of a migrated database without rows. It is the same one every time, cleaned: much quicker than a
        fresh one, but for one user at a time, who leaves the tables as they are.
        """
        if dialect == "postgresql":
            self.postgres.execute(_ALONE.replace("{}", connections.backends()) + ";" + _CLEAN, self._shared)
            if next(self._cleaned) % _VACUUM_AFTER == 0:
                self.postgres.execute("VACUUM", self._shared)
                self.postgres.execute(_NEVER_SEEN, self._shared)
            with furnished.clean(self.postgres.url_of(self._shared), self.postgres, self._shared) as url:
                yield url
        else:
            if self._kept_file is None or not self._kept_file.clean():
                self._forget_file()
                path = self._folder / self._new_name() / "counterfoil.db"
                path.parent.mkdir()
                shutil.copyfile(self._template_file, path)
                self._kept_file = KeptFile(path)
            yield f"sqlite:///{self._kept_file.path}"

    def _forget_file(self) -> None:
        if self._kept_file is not None:
            self._kept_file.close()
            shutil.rmtree(self._kept_file.path.parent)
            self._kept_file = None

    @cached_property
    def postgres(self) -> PostgresAdmin:
        """A real PostgreSQL server."""
        url = os.environ.get(URL_VARIABLE)
        if url is None:
            server = PostgresServer()
            self._opened.callback(server.stop)
            url = server.url
        admin = PostgresAdmin(url)
        self._opened.callback(admin.close)
        return admin

    def _new_name(self) -> str:
        return f"counterfoil_{os.getpid()}_{next(self._numbers)}"

    @cached_property
    def _shared(self) -> str:
        name = self._new_name()
        self._opened.enter_context(self.postgres.database(name, self._template))
        connections.keep_for(name)
        return name

    @cached_property
    def _template(self) -> str:
        name = self._new_name()
        _migrate(self._opened.enter_context(self.postgres.database(name)))
        return name

    @cached_property
    def _template_file(self) -> Path:
        path = self._folder / "template.db"
        _migrate(f"sqlite:///{path}")
        return path
