"""Migrations lead exactly to the tables, on both databases, whoever runs them at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from tests.support.databases import Databases, Dialect
from tests.support.direct import on

from counterfoil.db import migrate as migrating
from counterfoil.db.base import DatabaseUnavailable
from counterfoil.db.engines import BadDatabaseUrl
from counterfoil.db.migrate import HEAD, SCRIPTS, BrokenReferences, NewerDatabase, current, migrate
from counterfoil.tables import metadata

R = TypeVar("R")
ALL = sorted(path.stem for path in (SCRIPTS / "versions").glob("0*.py"))


def tables(url: str) -> list[str]:
    return sorted(on(url, lambda connection: sa.inspect(connection).get_table_names()))


def scripts(folder: Path) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(folder))
    return ScriptDirectory.from_config(config)


@pytest.fixture
def more_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Adds a migration after the last, given its name and what it runs."""
    folder = shutil.copytree(SCRIPTS, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrating, "SCRIPTS", folder)

    def add(name: str, *statements: str) -> None:
        body = "".join(f"    op.execute({statement!r})\n" for statement in statements)
        (folder / "versions" / f"{name}.py").write_text(
            f"from alembic import op\nrevision = {name!r}\ndown_revision = {migrating.HEAD!r}\ndef upgrade():\n{body}"
        )
        monkeypatch.setattr(migrating, "HEAD", name)

    return add


def test_the_constant_is_the_newest_migration() -> None:
    found = scripts(SCRIPTS)
    assert found.get_heads() == [HEAD]
    names = [script.revision for script in found.walk_revisions()]
    assert names == sorted(names, reverse=True)
    assert sorted(names) == sorted(path.stem for path in (SCRIPTS / "versions").glob("*.py"))
    assert all(len(name) <= 32 for name in names)  # what alembic_version holds


def test_migrations_import_no_tables() -> None:
    # They are frozen: a table that changes later must not change what an old migration does.
    for path in (SCRIPTS / "versions").glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if "import" in line and "counterfoil" in line]
        assert set(imports) <= {
            "from counterfoil.db import revising as op",
            "from counterfoil.db.schema import JSON, Timestamp",
        }


def test_migrating_a_fresh_database(empty_database_url: str) -> None:
    assert current(empty_database_url) is None
    assert migrate(empty_database_url) == ALL
    assert current(empty_database_url) == HEAD
    assert tables(empty_database_url) == sorted([*metadata.tables, "alembic_version"])
    for name in metadata.tables:
        assert on(empty_database_url, lambda connection, name=name: count(connection, name)) == 0
    assert migrate(empty_database_url) == []
    assert current(empty_database_url) == HEAD


def count(connection: sa.Connection, table: str) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one()


def test_alembic_finds_no_difference_to_the_tables(database_url: str) -> None:
    def compare(connection: sa.Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    assert on(database_url, compare) == []


def test_alembic_would_find_a_difference(database_url: str) -> None:
    changed = sa.MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(changed)
    products = changed.tables["products"]
    products.append_column(sa.Column("color", sa.Text))
    products.c.name.nullable = True
    sa.Index("ix_products_name", products.c.tenant_id, products.c.name)

    def compare(connection: sa.Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), changed)

    found = {entry[0][0] if isinstance(entry, list) else entry[0] for entry in on(database_url, compare)}
    assert found == {"add_column", "modify_nullable", "add_index"}


def test_migrations_and_tables_make_the_same_database(database_url: str, empty_database_url: str) -> None:
    on(empty_database_url, metadata.create_all)
    made, migrated = on(empty_database_url, everything), on(database_url, everything)
    del migrated["alembic_version"]
    assert migrated == made
    assert sum(len(table["checks"]) for table in made.values()) >= 30
    assert sum(len(table["indexes"]) for table in made.values()) >= 35


def everything(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """All that a database knows of its tables, in its own words."""
    look = sa.inspect(connection)
    found: dict[str, dict[str, Any]] = {}
    for name in look.get_table_names():
        found[name] = {
            "columns": by_name([with_words(column) for column in look.get_columns(name)]),
            "primary key": look.get_pk_constraint(name),
            "references": by_name(look.get_foreign_keys(name)),
            "checks": by_name(look.get_check_constraints(name)),
            "uniques": by_name(look.get_unique_constraints(name)),
            "indexes": by_name([with_words(index) for index in look.get_indexes(name)]),
        }
    return found


def with_words(item: Any) -> dict[str, Any]:
    """A column or an index, without objects that are equal only to themselves."""
    options = {name: str(option) for name, option in item.get("dialect_options", {}).items()}
    return {**item, "type": repr(item.get("type")), "dialect_options": options}


def by_name(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: item["name"])


def test_every_check_of_the_tables_is_there_by_name(database_url: str) -> None:
    found = on(database_url, everything)
    for table in metadata.tables.values():
        names = {item.name for item in table.constraints if isinstance(item, sa.CheckConstraint)}
        assert {check["name"] for check in found[table.name]["checks"]} == names


@pytest.mark.parametrize(("dialect", "kind"), [("sqlite", "BIGINT"), ("postgresql", "TIMESTAMP")])
def test_moments_are_what_the_types_say(databases: Databases, dialect: Dialect, kind: str) -> None:
    with databases.clean(dialect) as url:
        columns = on(url, everything)["orders"]["columns"]
    (created_at,) = [column for column in columns if column["name"] == "created_at"]
    assert created_at["type"].startswith(kind)
    assert ("timezone=True" in created_at["type"]) == (dialect == "postgresql")


def test_reading_the_version_makes_nothing(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path / 'a' / 'new.db'}") is None
    assert list(tmp_path.iterdir()) == []


def test_migrating_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c%d" / "new.db"
    assert migrate(f"sqlite:///{path}") == ALL
    assert path.exists()


def test_alembic_is_imported_only_to_migrate(databases: Databases, dialect: Dialect) -> None:
    program = """if True:
        import sys
        from counterfoil.db.migrate import HEAD, current, migrate
        url = sys.argv[1]
        found = [current(url), migrate(url), "alembic" in sys.modules, HEAD]
        import json
        print(json.dumps(found))
    """
    with databases.clean(dialect) as url:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, url], stdout=subprocess.PIPE, check=True, timeout=60
        )
    assert json.loads(done.stdout) == [HEAD, [], False, HEAD]


def test_processes_take_turns(empty_database_url: str) -> None:
    program = """if True:
        import sys, alembic.command, json
        from counterfoil.db.migrate import migrate
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps(migrate(sys.argv[1])))
    """
    command = [sys.executable, "-W", "error", "-c", program, empty_database_url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    answers = []
    for process in processes:
        with process:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.read()))
    assert sorted(answers) == [[], [], [], ALL]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert current(empty_database_url) == HEAD
    assert tables(empty_database_url) == sorted([*metadata.tables, "alembic_version"])


def test_missing_migrations_are_applied_in_order(empty_database_url: str, more_scripts: Callable[..., None]) -> None:
    assert migrate(empty_database_url) == ALL
    more_scripts("0998_one", "CREATE TABLE one (id INTEGER)")
    more_scripts("0999_two", "ALTER TABLE one ADD COLUMN name TEXT")
    assert migrate(empty_database_url) == ["0998_one", "0999_two"]
    assert current(empty_database_url) == "0999_two"
    assert "one" in tables(empty_database_url)
    assert migrate(empty_database_url) == []


def test_a_migration_that_fails_is_undone(empty_database_url: str, more_scripts: Callable[..., None]) -> None:
    migrate(empty_database_url)
    more_scripts("0999_bad", "CREATE TABLE one (id INTEGER)", "DROP TABLE jobs", "INSERT INTO none VALUES (1)")
    with pytest.raises(DBAPIError, match="none"):
        migrate(empty_database_url)
    assert current(empty_database_url) == HEAD
    assert tables(empty_database_url) == sorted([*metadata.tables, "alembic_version"])


def test_a_first_migration_that_fails_leaves_no_tables(empty_database_url: str) -> None:
    on(empty_database_url, lambda connection: connection.exec_driver_sql("CREATE TABLE licenses (id INTEGER)"))
    with pytest.raises(DBAPIError, match="licenses"):
        migrate(empty_database_url)
    assert current(empty_database_url) is None
    assert set(tables(empty_database_url)) <= {"licenses", "alembic_version"}


def test_a_newer_database_is_left_alone(database_url: str, databases: Databases, dialect: Dialect) -> None:
    with databases.fresh(dialect) as url:
        set_to = sa.text("UPDATE alembic_version SET version_num = '9999_future'")
        on(url, lambda connection: connection.execute(set_to))
        with pytest.raises(NewerDatabase, match=f"9999_future, which is newer than this program's {HEAD}"):
            migrate(url)
        assert current(url) == "9999_future"


def test_sqlite_refuses_a_migration_that_orphans_rows(tmp_path: Path, more_scripts: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    migrate(url)
    raw = sqlite3.connect(tmp_path / "new.db")
    raw.execute("INSERT INTO tenants VALUES ('ten_1', 'T', 't', '[]', '{}', 'active', 0, 0)")
    raw.execute("INSERT INTO jobs VALUES ('ten_1', 'job_1', 0, NULL, NULL, NULL, NULL, 0, 0)")
    raw.commit()
    more_scripts("0999_orphans", "DELETE FROM tenants")
    with pytest.raises(BrokenReferences, match="1 rows refer to nothing, the first in jobs"):
        migrate(url)
    assert current(url) == HEAD
    assert raw.execute("SELECT tenant_id FROM tenants").fetchall() == [("ten_1",)]
    raw.close()


def test_sqlite_that_is_locked_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.db"
    monkeypatch.setattr("counterfoil.db.sqlite._BUSY_MS", 10)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable):
        migrate(f"sqlite:///{path}")
    raw.execute("ROLLBACK")
    assert raw.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    raw.close()
    assert migrate(f"sqlite:///{path}") == ALL


def test_a_file_that_is_no_database_is_unavailable_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"not a database\n" * 100)
    for call in (current, migrate):
        with pytest.raises(DatabaseUnavailable):
            call(f"sqlite:///{path}")
    assert path.read_bytes() == b"not a database\n" * 100


def test_postgres_does_not_wait_long_for_a_table_in_use(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, more_scripts: Callable[..., None]
) -> None:
    monkeypatch.setattr(migrating, "_LOCK_TIMEOUT", "20ms")
    more_scripts("0999_more", "ALTER TABLE products ADD COLUMN color TEXT")
    with databases.fresh("postgresql") as url:

        def hold(connection: sa.Connection) -> None:
            connection.exec_driver_sql("LOCK TABLE products IN ACCESS SHARE MODE")
            with pytest.raises(DatabaseUnavailable):
                run_in_thread(lambda: migrate(url))

        on(url, hold)
        assert current(url) == HEAD
        assert migrate(url) == ["0999_more"]


def run_in_thread(call: Callable[[], R]) -> R:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_the_usual_wait_is_four_seconds() -> None:
    assert migrating._LOCK_TIMEOUT == "4s"


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "postgresql://nobody@/none?host=/nonexistent"])
def test_a_server_that_is_away_is_unavailable(url: str) -> None:
    for call in (current, migrate):
        with pytest.raises(DatabaseUnavailable):
            call(url)


def test_a_database_that_does_not_exist_is_unavailable(databases: Databases) -> None:
    for call in (current, migrate):
        with pytest.raises(DatabaseUnavailable) as caught:
            call(databases.postgres.url_of("counterfoil_nowhere"))
        assert 'database "counterfoil_nowhere" does not exist' in str(caught.value.__cause__)


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_other_urls_are_refused(url: str) -> None:
    for call in (current, migrate):
        with pytest.raises(BadDatabaseUrl):
            call(url)


async def test_asynchronous_code_calls_them_in_a_thread(empty_database_url: str) -> None:
    assert await asyncio.to_thread(migrate, empty_database_url) == ALL
    assert await asyncio.to_thread(current, empty_database_url) == HEAD
