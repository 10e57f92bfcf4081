"""SQL that the two databases spell differently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, Insert
from sqlalchemy.dialects.postgresql import insert as _insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles


class _TextList(sa.types.TypeDecorator[list[str]]):
    """A list of texts as one parameter: an array on PostgreSQL, JSON on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(ARRAY(sa.Text))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return list(value) if dialect.name == "postgresql" else msgspec.json.encode(list(value)).decode()


class _AnyOf(sa.ColumnElement[bool]):
    inherit_cache = True
    __visit_name__ = "any_of"
    type = sa.Boolean()
    _is_implicitly_boolean = True
    _traverse_internals = [
        ("column", sa.sql.visitors.InternalTraversal.dp_clauseelement),
        ("values", sa.sql.visitors.InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, column: sa.ColumnElement[Any], values: sa.BindParameter[Any]) -> None:
        self.column = column
        self.values = values


@compiles(_AnyOf, "postgresql")
def _any_of_postgresql(element: _AnyOf, compiler: Any, **kw: Any) -> str:
    return f"{compiler.process(element.column, **kw)} = ANY ({compiler.process(element.values, **kw)})"


@compiles(_AnyOf, "sqlite")
def _any_of_sqlite(element: _AnyOf, compiler: Any, **kw: Any) -> str:
    left, right = compiler.process(element.column, **kw), compiler.process(element.values, **kw)
    return f"{left} IN (SELECT value FROM json_each({right}))"  # noqa: S608 # both sides are compiled SQL


def any_of(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    """Whether a text column is among the list bound as ``name``: one parameter, whatever its length.

    Unlike ``IN`` with a list, the statement's text stays the same, so it stays prepared.
    """
    return _AnyOf(column, sa.bindparam(name, type_=_TextList()))


def insert_new(table: sa.Table) -> Insert:
    """An INSERT that leaves an existing row alone (ON CONFLICT DO NOTHING); both databases read it."""
    return _insert(table).on_conflict_do_nothing()


def insert_or_update(table: sa.Table) -> Insert:
    """An INSERT to be given its ``on_conflict_do_update``, which both databases read."""
    return _insert(table)


class _KeepWritersOut(sa.sql.expression.Executable, sa.ClauseElement):
    inherit_cache = False
    __visit_name__ = "keep_writers_out"

    def __init__(self, table: sa.Table) -> None:
        self.table = table


@compiles(_KeepWritersOut, "postgresql")
def _keep_writers_out_postgresql(element: _KeepWritersOut, compiler: Any, **kw: Any) -> str:
    return f"LOCK TABLE {compiler.process(element.table, asfrom=True, **kw)} IN SHARE ROW EXCLUSIVE MODE"


@compiles(_KeepWritersOut, "sqlite")
def _keep_writers_out_sqlite(element: _KeepWritersOut, compiler: Any, **kw: Any) -> str:
    return f"DELETE FROM {compiler.process(element.table, asfrom=True, **kw)} WHERE 0"  # noqa: S608 # a table of ours


def keep_writers_out(table: sa.Table) -> sa.Executable:
    """A statement that lets nobody else write to a table until the transaction ends; readers go on.

    It waits for whoever has written and not committed, so that what comes after sees everything. SQLite has one
    writer anyway, and does nothing.
    """
    return _KeepWritersOut(table)
