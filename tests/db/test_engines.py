"""Which database a URL names."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterfoil.db.engines import BadDatabaseUrl, connect, parse_url, sqlite_path
from counterfoil.kernel.clock import ManualClock


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///var/counterfoil.db", "var/counterfoil.db"),
        ("sqlite:////srv/counterfoil.db", "/srv/counterfoil.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("sqlite:///with blank.db", "with blank.db"),
    ],
)
def test_sqlite(text: str, path: str) -> None:
    url = parse_url(text)
    assert url.get_backend_name() == "sqlite"
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:secret@host:5433/name?host=/run",
        "postgres://user:secret@host:5433/name?host=/run",
        "postgresql+asyncpg://user:secret@host:5433/name?host=/run",
        "postgresql+psycopg://user:secret@host:5433/name?host=/run",
    ],
)
def test_postgresql_is_always_reached_by_the_same_driver(text: str) -> None:
    url = parse_url(text)
    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.host, url.port, url.database) == ("user", "secret", "host", 5433, "name")
    assert dict(url.query) == {"host": "/run"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "/srv/counterfoil.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "mysql://user@host/name",
        "postgresqlx://host/name",
        "://",
    ],
)
def test_other_urls_are_refused(text: str, clock: ManualClock) -> None:
    with pytest.raises(BadDatabaseUrl, match="sqlite:///"):
        parse_url(text)
    with pytest.raises(BadDatabaseUrl):
        connect(text, clock)


def test_a_refusal_does_not_repeat_a_password() -> None:
    for text in ("mysql://user:secret@host/name", "sqlite//user:secret@x"):
        with pytest.raises(BadDatabaseUrl) as refused:
            parse_url(text)
        assert "secret" not in str(refused.value)
