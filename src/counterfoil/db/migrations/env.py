"""What Alembic runs. ``counterfoil.db.migrate`` hands it a connection whose lock is already held."""

from alembic import context

_attributes = context.config.attributes

context.configure(
    connection=_attributes["connection"],
    # On SQLite the caller's one transaction is around everything. On PostgreSQL each migration has its own.
    transaction_per_migration=True,
    on_version_apply=_attributes["on_version_apply"],
)
with context.begin_transaction():
    context.run_migrations()
