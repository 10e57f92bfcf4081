"""What migrations change tables with: Alembic's operations, for tables by their own names.

A migration says ``orders``, whatever that table is called in this database (``counterfoil.table_names``).
Names of indexes and constraints stay as they are written.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

from counterfoil.table_names import name_of

__all__ = [
    "add_column",
    "batch_alter_table",
    "create_index",
    "create_table",
    "drop_index",
    "execute",
    "f",
    "name_of",
]

execute, f = op.execute, op.f


def create_table(table: str, *items: sa.schema.SchemaItem) -> None:
    """Create a table; its foreign keys name other tables by their own names, too."""
    op.create_table(name_of(table), *[_translated(item) for item in items])


def create_index(index: str, table: str, columns: list[str], *, unique: bool = False, **options: Any) -> None:
    """Create an index."""
    op.create_index(index, name_of(table), columns, unique=unique, **options)


def drop_index(index: str, table: str) -> None:
    """Drop an index."""
    op.drop_index(index, name_of(table))


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column that needs no copy of the table."""
    op.add_column(name_of(table), column)


def batch_alter_table(table: str) -> AbstractContextManager[BatchOperations]:
    """Change a table, which SQLite copies for it. What it hands out wants other tables' names from ``name_of``."""
    return op.batch_alter_table(name_of(table))


def _translated(item: sa.schema.SchemaItem) -> sa.schema.SchemaItem:
    if not isinstance(item, sa.ForeignKeyConstraint):
        return item
    targets = [element.target_fullname.split(".") for element in item.elements]
    return sa.ForeignKeyConstraint(
        item.column_keys, [f"{name_of(table)}.{column}" for table, column in targets], name=item.name
    )
