"""How tables are declared, so that each one follows the rules of docs/architecture.md without trying.

Every table has ``tenant_id`` first and a primary key that begins with it; foreign keys are composite
and carry it along. A row therefore cannot refer across tenants, whatever a program does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect

from counterfoil.kernel.clock import from_micros, to_micros
from counterfoil.table_names import name_of

TENANT = "tenant_id"

metadata = sa.MetaData(
    naming_convention={
        "own_name": lambda _, table: own_name(table),
        "ix": "ix_%(own_name)s_%(column_0_N_name)s",
        "uq": "uq_%(own_name)s_%(column_0_N_name)s",
        "ck": "ck_%(own_name)s_%(constraint_name)s",
        "fk": "fk_%(own_name)s_%(column_0_N_name)s",
        "pk": "pk_%(own_name)s",
    }
)

_OWN_NAME = "own_name"


def own_name(table: sa.Table) -> str:
    """What we call a table, whatever it is called in this database."""
    name: str = table.info.get(_OWN_NAME, table.name)
    return name


class Timestamp(sa.types.TypeDecorator[datetime]):
    """A moment in UTC: timestamptz on PostgreSQL, whole microseconds since the epoch on SQLite."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the column type of this database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Convert on the way in. Naive datetimes are refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a timestamp needs its time zone")
        return to_micros(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Convert on the way out."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return from_micros(value)
        moment: datetime = value
        # The driver sends the last microsecond of year 9999 as "infinity", and gives that back without a zone.
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""Structured data we never search by: entitlements, metadata, a rail's own words."""


def table(name: str, *items: sa.schema.SchemaItem, updated: bool = True, key: Sequence[str] = ("id",)) -> sa.Table:
    """Declare a table: ``tenant_id`` first, ``created_at`` (and ``updated_at`` where rows change) last.

    ``key`` names the primary key after ``tenant_id``. Settings may give the table another name in the database.
    """
    columns: list[sa.schema.SchemaItem] = [sa.Column(TENANT, sa.Text, nullable=False)]
    if name != "tenants":
        columns.append(sa.ForeignKeyConstraint([TENANT], [f"{name_of('tenants')}.{TENANT}"]))
    columns += items
    columns.append(sa.Column("created_at", Timestamp, nullable=False))
    if updated:
        columns.append(sa.Column("updated_at", Timestamp, nullable=False))
    columns.append(sa.PrimaryKeyConstraint(TENANT, *key))
    return sa.Table(name_of(name), metadata, *columns, info={_OWN_NAME: name})


def text(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[str]:
    """A text column. ``default``: what stands there when a server of an earlier version adds a row, as SQL."""
    return sa.Column(name, sa.Text, nullable=null, server_default=_default(default))


def _default(sql: str | None) -> sa.TextClause | None:
    return None if sql is None else sa.text(sql)


def path(name: str, *, null: bool = False) -> sa.Column[str]:
    """A text column that is compared byte by byte on every database, so that what begins alike is a range of it."""
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=null)


def integer(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[int]:
    """A 64-bit integer column: amounts, counts, seconds. ``default`` as in :func:`text`."""
    return sa.Column(name, sa.BigInteger, nullable=null, server_default=_default(default))


def boolean(name: str, *, default: str | None = None) -> sa.Column[bool]:
    """A yes or no. ``default`` as in :func:`text`."""
    return sa.Column(name, sa.Boolean, nullable=False, server_default=_default(default))


def moment(name: str, *, null: bool = False) -> sa.Column[datetime]:
    """A point in time."""
    return sa.Column(name, Timestamp, nullable=null)


def json(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[Any]:
    """Structured data. ``default`` as in :func:`text`."""
    return sa.Column(name, JSON, nullable=null, server_default=_default(default))


def binary(name: str) -> sa.Column[bytes]:
    """Bytes: sealed secrets."""
    return sa.Column(name, sa.LargeBinary, nullable=False)


def optional_binary(name: str) -> sa.Column[bytes | None]:
    """Bytes that may be missing."""
    return sa.Column(name, sa.LargeBinary, nullable=True)


def reference(column: str, target: str) -> sa.ForeignKeyConstraint:
    """A foreign key to another table's ``id`` within the same tenant."""
    return sa.ForeignKeyConstraint([TENANT, column], [f"{name_of(target)}.{TENANT}", f"{name_of(target)}.id"])


def unique(name: str, *columns: str, where: str | None = None) -> sa.Index:
    """A unique index within the tenant, over all rows or those that ``where`` selects."""
    condition = sa.text(where) if where else None
    return sa.Index(name, TENANT, *columns, unique=True, sqlite_where=condition, postgresql_where=condition)


def index(name: str, *columns: str, where: str | None = None) -> sa.Index:
    """An index within the tenant, over all rows or those that ``where`` selects."""
    condition = sa.text(where) if where else None
    return sa.Index(name, TENANT, *columns, sqlite_where=condition, postgresql_where=condition)


def one_of(column: str, *values: str) -> sa.CheckConstraint:
    """A check that a text column holds one of these words."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def check(name: str, condition: str) -> sa.CheckConstraint:
    """A check over a row."""
    return sa.CheckConstraint(condition, name=name)


def columns(source: sa.Table) -> list[sa.Column[Any]]:
    """A table's columns in the order of its struct: all but the tenant's."""
    return [column for column in source.columns if column.name != TENANT]


def tenant() -> sa.BindParameter[str]:
    """The transaction's tenant; ``Tx`` supplies it to every statement."""
    return sa.bindparam("tenant", type_=sa.Text)


def mine(*sources: sa.Table) -> sa.ColumnElement[bool]:
    """Only this tenant's rows, of each of these tables."""
    return sa.and_(*[source.c.tenant_id == tenant() for source in sources])


def row_of(struct: msgspec.Struct) -> dict[str, Any]:
    """A struct's fields by name, nested values untouched."""
    return {name: getattr(struct, name) for name in _field_names(type(struct))}


@cache
def _field_names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__
