"""Tables as a house leaves them when it opens for the first time, kept and copied.

Giving the default tenant its roles, its keys and its sandbox takes some 30 statements: on PostgreSQL as long as many a
test. On SQLite it would be no quicker.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from counterfoil.tables import metadata
from tests.support.postgres import PostgresAdmin

_NAMES = [table.name for table in metadata.sorted_tables]
_WITH_ROWS = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in _NAMES)

_clean: dict[str, tuple[PostgresAdmin, str]] = {}
"""By URL, databases that nobody has opened yet."""
_kept: dict[tuple[Any, ...], tuple[str, str]] = {}
_numbers = itertools.count(1)


@contextlib.contextmanager
def clean(url: str, admin: PostgresAdmin, database: str) -> Iterator[str]:
    """Have a migrated database without rows furnished for whoever opens it first."""
    _clean[url] = (admin, database)
    yield url
    _clean.pop(url, None)


class Furnished:
    """A database about to be opened: with what was kept under a key if it is clean, else as it was."""

    def __init__(self, url: str, *key: Any) -> None:
        self._key = (url, *key)
        self._at = _clean.pop(url, None)
        if self._at is not None and self._at[0].fetch("SELECT FROM tenants", self._at[1]):
            self._at = None
        self.said: str | None = None
        """What whoever kept it said of it; None: it is as it was."""
        if self._at is not None and self._key in _kept:
            restore, self.said = _kept[self._key]
            self._at[0].execute(restore, self._at[1])

    def keep(self, said: str) -> None:
        """Keep it as it is now, if it was clean."""
        if self._at is None:
            return
        admin, database = self._at
        schema = f"furnished_{next(_numbers)}"
        filled = {row[0] for row in admin.fetch(_WITH_ROWS, database)}
        names = [name for name in _NAMES if name in filled]
        copied = [f"CREATE TABLE {schema}.{name} AS TABLE {name}" for name in names]
        admin.execute(";".join([f"CREATE SCHEMA {schema}", *copied]), database)
        _kept[self._key] = (";".join(f"INSERT INTO {name} TABLE {schema}.{name}" for name in names), said)
