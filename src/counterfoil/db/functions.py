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
