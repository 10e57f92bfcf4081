"""Writes ``docs/data-model.md``: every table, its columns, keys, indexes and checks, and what they mean.

``python -m counterfoil.describe`` prints the page; with ``--check FILE`` it prints nothing, and its exit
status is 1 when the file says something else. The words come from the structs' docstrings.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.db.schema import JSON, TENANT, Timestamp, own_name
from counterfoil.tables import STRUCTS

_INTRODUCTION = """\
# The data model

Made from the code by `python -m counterfoil.describe`; a test holds the two together. Edit the code.

Every table has `tenant_id` first, and its primary key begins with it. Foreign keys are composite and carry
`tenant_id` along, so a row cannot refer to another tenant's. Indexes begin with `tenant_id` too, but for those
that say so. Below, references and indexes leave it out, and so does every table its own reference to `tenants`.

| type | PostgreSQL | SQLite |
|---|---|---|
| text | `text` | `TEXT` |
| integer | `bigint` | `BIGINT` |
| boolean | `boolean` | `BOOLEAN` (0 or 1) |
| moment | `timestamptz` | `BIGINT`: microseconds since 1970-01-01T00:00:00Z |
| json | `jsonb` | `JSON` (text) |
| bytes | `bytea` | `BLOB` |

Amounts of money are integers in the minor unit of the row's `asset` (cents, satoshis).
"""


def describe() -> str:
    """The page, as Markdown."""
    parts = [_INTRODUCTION]
    for room, tables in groupby(STRUCTS.items(), lambda entry: _room(entry[1])):
        parts.append(f"## {room}\n")
        parts += ["\n".join(_table(table, struct)) + "\n" for table, struct in tables]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Print the page, or check a file against it; the exit status."""
    match arguments:
        case []:
            sys.stdout.write(describe())
            return 0
        case ["--check", path]:
            if Path(path).read_text(encoding="utf-8") == describe():
                return 0
            sys.stderr.write(f"{path} is stale: python -m counterfoil.describe > {path}\n")
            return 1
        case _:
            sys.stderr.write("usage: python -m counterfoil.describe [--check FILE]\n")
            return 2


def _room(struct: type[msgspec.Struct]) -> str:
    return struct.__module__.split(".")[1]


def _table(table: sa.Table, struct: type[msgspec.Struct]) -> Iterator[str]:
    yield f"### {own_name(table)}\n"
    yield f"{_paragraph(struct.__doc__)}\n"
    yield "| column | type | null | |"
    yield "|---|---|---|---|"
    meanings = _meanings(struct)
    for column in table.columns:
        null = "null" if column.nullable else ""
        yield f"| `{column.name}` | {_type(column.type)} | {null} | {meanings.get(column.name, '')} |"
    yield ""
    yield f"- primary key: {_names(table.primary_key.columns)}"
    for own, target in sorted(_references(table)):
        yield f"- `{own}` refers to [{target}](#{target})"
    for index in sorted(table.indexes, key=lambda index: (not index.unique, str(index.name))):
        yield f"- {_index(index)}"
    for check in sorted(_checks(table), key=lambda check: str(check.name)):
        yield f"- check `{check.name}`: `{check.sqltext}`"


def _references(table: sa.Table) -> Iterator[tuple[str, str]]:
    for key in table.foreign_key_constraints:
        own = [name for name in key.column_keys if name != TENANT]
        if own:
            yield ", ".join(own), own_name(key.referred_table)


def _index(index: sa.Index) -> str:
    names = [column.name for column in index.columns]
    across = "" if names[0] == TENANT else ", across tenants"
    own = [name for name in names if name != TENANT]
    what = ", ".join(f"`{name}`" for name in own) or "one row a tenant"
    where = index.dialect_options["postgresql"]["where"]
    only = "" if where is None else f", where `{where}`"
    return f"{'unique' if index.unique else 'index'} `{index.name}`: {what}{only}{across}"


def _checks(table: sa.Table) -> list[sa.CheckConstraint]:
    return [constraint for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)]


def _names(columns: Any) -> str:
    return ", ".join(f"`{column.name}`" for column in columns)


def _type(kind: sa.types.TypeEngine[Any]) -> str:
    if isinstance(kind, Timestamp):
        return "moment"
    if kind is JSON:
        return "json"
    names = {sa.Text: "text", sa.BigInteger: "integer", sa.Boolean: "boolean", sa.LargeBinary: "bytes"}
    return names[type(kind)]


def _meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What the strings under a struct's fields say; Python itself throws them away."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    field: str | None = None
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                field = name
            case ast.Expr(value=ast.Constant(value=str(words))) if field:
                found[field] = _paragraph(words).replace("|", "\\|")
                field = None
            case _:
                field = None
    return found


def _paragraph(words: str | None) -> str:
    """The first paragraph, on one line, with Markdown's way of writing code."""
    return " ".join((words or "").strip().partition("\n\n")[0].split()).replace("``", "`")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
