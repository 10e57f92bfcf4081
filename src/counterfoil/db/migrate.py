"""Bring a database's tables up to date, and tell how far they are.

Both are plain synchronous functions for the program's start and its command line; asynchronous code
calls them in a thread. Alembic is imported only when there is something to do.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

from counterfoil.db.base import DatabaseUnavailable
from counterfoil.db.engines import parse_url, sqlite_path
from counterfoil.table_names import ALEMBIC, wanted_at

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

HEAD = "0004_rails"
"""The newest migration: what this version of the program needs."""

SCRIPTS = Path(__file__).parent / "migrations"
_LOCK_TIMEOUT = "4s"
"""How long a table in use is waited for on PostgreSQL: whoever wants it after us waits as long."""
_GET = f"SELECT version_num FROM {ALEMBIC}"  # noqa: S608 # a constant
_LOCK = 0x636F756E746572
"""The advisory lock of migrations on PostgreSQL ("counter" in ASCII)."""


class NewerDatabase(RuntimeError):
    """A newer version of the program has migrated this database; this version does not know how far."""


class MissingTables(RuntimeError):
    """A migrated database lacks tables under the names that the settings give them."""


class BrokenReferences(RuntimeError):
    """After a migration of SQLite some rows would refer to nothing; it was undone."""


def current(url: str) -> str | None:
    """The last migration that was applied, or None for a database without tables (or without a file).

    Changes nothing. Raises BadDatabaseUrl, DatabaseUnavailable, MissingTables.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _current_sqlite(sqlite_path(parsed))
    return asyncio.run(_on_postgres(parsed, _current))


def migrate(url: str) -> list[str]:
    """Apply the migrations that are missing, oldest first; the names of those applied, none when up to date.

    Processes that do it at once take turns, and the later ones find nothing to do. A migration that fails
    is undone (on SQLite with those before it). Makes SQLite's file and its folder.
    Raises BadDatabaseUrl, DatabaseUnavailable, NewerDatabase, MissingTables, BrokenReferences.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _migrate_sqlite(sqlite_path(parsed))
    return asyncio.run(_on_postgres(parsed, _migrate_postgres))


def _current_sqlite(path: Path) -> str | None:
    if not path.exists():  # connecting would make it
        return None
    from counterfoil.db.sqlite import is_away  # noqa: PLC0415

    try:
        with closing(sqlite3.connect(path)) as connection:
            found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            row = connection.execute(_GET).fetchone() if ALEMBIC in found else None
    except sqlite3.Error as error:
        if not is_away(error):
            raise
        raise DatabaseUnavailable("The database could not be read.") from error
    return _checked(str(row[0]) if row else None, found)


def _migrate_sqlite(path: Path) -> list[str]:
    from counterfoil.db.sqlite import engine_for, is_away  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    engine = engine_for(str(path))
    try:
        with engine.begin() as connection:
            # SQLite changes a table by copying it and dropping the old one, which would take its rows'
            # children along. So references are checked at the end instead.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            applied = _upgrade(connection, _current(connection))
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise BrokenReferences(f"{len(broken)} rows refer to nothing, the first in {broken[0][0]}")
    except DBAPIError as error:
        if not is_away(error):
            raise
        raise DatabaseUnavailable("The database could not be migrated; nothing was changed.") from error
    finally:
        engine.dispose()
    return applied


async def _on_postgres(url: sa.URL, work: Callable[[sa.Connection], R]) -> R:
    from counterfoil.db.postgres import is_away, wants_another_try  # noqa: PLC0415

    engine = sa.create_engine(
        url,
        poolclass=sa.pool.NullPool,
        connect_args={"timeout": 5, "server_settings": {"application_name": "counterfoil-migrate", "timezone": "UTC"}},
    )

    def whole() -> R:
        with engine.connect() as connection:
            return work(connection)

    try:
        return await greenlet_spawn(whole)
    except (DBAPIError, OSError) as error:
        if isinstance(error, DBAPIError) and not is_away(error) and not wants_another_try(error):
            raise
        raise DatabaseUnavailable("The database cannot be reached, or is in use; try again.") from error
    finally:
        await greenlet_spawn(engine.dispose)


def _current(connection: sa.Connection) -> str | None:
    found = set(sa.inspect(connection).get_table_names())
    if ALEMBIC not in found:
        return None
    return _checked(connection.exec_driver_sql(_GET).scalar_one_or_none(), found)


def _checked(version: str | None, found: set[str]) -> str | None:
    """The version, if the database has the tables it should."""
    missing = sorted(wanted_at(version) - found) if version else []
    if missing:
        raise MissingTables(
            f"the database is at {version} but has no table {', '.join(missing)}: storage.schema_mapping must give "
            "tables the names they were migrated with; to rename one, rename it in the database, too"
        )
    return version


def _migrate_postgres(connection: sa.Connection) -> list[str]:
    # The lock belongs to the session: it lasts over the migrations' own transactions, until we disconnect.
    connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
    connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.commit()
    version = _current(connection)
    connection.rollback()  # reading began a transaction, and each migration has its own
    return _upgrade(connection, version)


def _upgrade(connection: sa.Connection, version: str | None) -> list[str]:
    if version == HEAD:  # another process was quicker
        return []
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if version is not None and version not in known:
        raise NewerDatabase(f"the database is at {version}, which is newer than this program's {HEAD}")
    applied: list[str] = []

    def note(*, step: Any, **_: Any) -> None:
        applied.append(step.up_revision_id)

    config.attributes.update(connection=connection, on_version_apply=note)
    command.upgrade(config, "head")
    return applied
