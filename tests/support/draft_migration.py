"""Draft the next migration: ``python -m tests.support.draft_migration 0002_add_refunds``.

Compares a migrated database with the tables, and writes what is missing to
``src/counterfoil/db/migrations/versions``. Read it, mend it, and set ``migrate.HEAD`` to its name.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from counterfoil.db.migrate import SCRIPTS, migrate
from counterfoil.db.schema import JSON, Timestamp
from counterfoil.tables import metadata


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, Timestamp):
        return "Timestamp()"
    if kind == "type" and item is JSON:
        return "JSON"
    return False


def missing() -> str:
    """The operations that bring a migrated database to what the tables say."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'draft.db'}"
        migrate(url)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            script = produce_migrations(MigrationContext.configure(connection), metadata)
            assert script.upgrade_ops is not None
            code = render_python_code(script.upgrade_ops, render_item=_render)
        engine.dispose()
    lines = [line for line in code.splitlines() if not line.strip().startswith("#")]
    code = "\n".join(lines).strip()
    return code.replace(", sqlite_where=None, postgresql_where=None", "").replace(", unique=False", "")


def main(name: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("file_template", "%%(rev)s")
    made = ScriptDirectory.from_config(config).generate_revision(
        name,
        name.partition("_")[2].replace("_", " ").capitalize() + ".",
        imports="from counterfoil.db import revising as op\nfrom counterfoil.db.schema import JSON, Timestamp\n",
        upgrades=missing(),
    )
    assert made is not None
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--fix", made.path], check=False)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", made.path], check=True)
    sys.stdout.write(f"{made.path}\n")


if __name__ == "__main__":
    main(sys.argv[1])
