"""Which database a URL names, and what both engines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.base import Database
from counterfoil.kernel.clock import Clock

_decode_json = msgspec.json.Decoder().decode


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def serializers() -> dict[str, Any]:
    """JSON columns are written and read by msgspec on both databases."""
    return {"json_serializer": _encode_json, "json_deserializer": _decode_json}


class BadDatabaseUrl(ValueError):
    """The configured URL names no database we can use."""


def sqlite_path(url: sa.URL) -> Path:
    """The file an SQLite URL names. Raises BadDatabaseUrl: a database in memory would lose sales."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise BadDatabaseUrl("an SQLite URL names a file: sqlite:///var/counterfoil.db")
    return Path(url.database)


def parse_url(text: str) -> sa.URL:
    """Read a database URL: ``sqlite:///path`` or ``postgresql://...``. Raises BadDatabaseUrl."""
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError as error:
        raise BadDatabaseUrl("not a database URL: use sqlite:///path or postgresql://user@host/name") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        sqlite_path(url)
        return url
    if backend in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+asyncpg")
    raise BadDatabaseUrl(f"{backend} is not supported: use sqlite:///path or postgresql://user@host/name")


def connect(text: str, clock: Clock) -> Database:
    """Open the database a URL names. Each is imported only when used. Raises BadDatabaseUrl."""
    url = parse_url(text)
    if url.get_backend_name() == "sqlite":
        from counterfoil.db.sqlite import SqliteDatabase  # noqa: PLC0415

        return SqliteDatabase(sqlite_path(url), clock)
    from counterfoil.db.postgres import PostgresDatabase  # noqa: PLC0415

    return PostgresDatabase(url, clock)
