"""One SQLite file for many tests, and connections to it that outlive a test.

A new connection reads the whole schema and prepares every statement again: that takes longer than many a test. Tests
that do anything to the file itself, or that want more than one, take a fresh one; should one of the others have done
so, the next begins with a new file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from counterfoil.db import sqlite
from counterfoil.tables import metadata

_IDLE, _MORE = 8, 100
_PATIENCE_SECONDS = 1.0
"""How long to wait for whoever still holds a lock: a test's forgotten child."""
_WITH_ROWS = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in metadata.tables)

_pools: dict[tuple[str, bool], sa.Pool | None] = {}
"""By path and whether they only read; None: to be made."""


class KeptFile:
    """A migrated file, to be cleaned between its users. Raises sqlite3.Error, OSError where it is no longer right."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hand = sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None)
        self._hand.execute("PRAGMA journal_mode = WAL")
        self._hand.execute("PRAGMA synchronous = OFF")
        self._was = self._state()
        for read_only in (False, True):
            _pools[str(path), read_only] = None

    def clean(self) -> bool:
        """Leave no row in it; whether it is still what it was."""
        try:
            if self._state() != self._was:
                return False
            self._hand.execute("BEGIN IMMEDIATE")
            for (name,) in self._hand.execute(_WITH_ROWS).fetchall():
                self._hand.execute(f"DELETE FROM {name}")
            self._hand.execute("COMMIT")
        except (sqlite3.Error, OSError):
            return False
        return True

    def _state(self) -> tuple[Any, ...]:
        about = self.path.stat()
        schema = self._hand.execute("PRAGMA schema_version").fetchone()
        return about.st_ino, about.st_mode, self._hand.execute("PRAGMA user_version").fetchone(), schema

    def close(self) -> None:
        """Close its connections."""
        with contextlib.suppress(sqlite3.Error):
            self._hand.close()
        for read_only in (False, True):
            pool = _pools.pop((str(self.path), read_only))
            if pool is not None:
                pool.dispose()


def share() -> None:
    """Have engines for kept files draw on the connections to them, from now on."""
    make: Callable[..., sa.Engine] = sqlite.engine_for

    def engine_for(path: str, *, read_only: bool = False) -> sa.Engine:
        engine = make(path, read_only=read_only)
        if (path, read_only) in _pools:
            engine.pool = _pools[path, read_only] = _pools[path, read_only] or _keeping(engine.pool)
            engine.dispose = _keep  # type: ignore[method-assign]
        return engine

    sqlite.engine_for = engine_for


def _keeping(pool: Any) -> sa.Pool:
    keeping = sa.pool.QueuePool(
        pool._creator,
        pool_size=_IDLE,
        max_overflow=_MORE,
        use_lifo=True,
        dialect=pool._dialect,
        _dispatch=pool.dispatch,
    )
    sa.event.listen(keeping, "checkout", _be_patient)
    return keeping


def _be_patient(connection: Any, _record: Any, _proxy: Any) -> None:
    """Its last user may have told it to wait for nobody."""
    connection.execute(f"PRAGMA busy_timeout = {sqlite._BUSY_MS}")


def _keep() -> None:
    """Instead of closing the pool: others go on with it."""
