"""Reading rows exactly as they are stored, so that no damage goes unseen and none makes the reading fail.

What is read for an audit must not be what a driver makes of it: several texts may decode to one value, and a
damaged one to none. So SQLite is asked for bytes and for the type each value is stored under, and PostgreSQL,
whose columns have one type each, for texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from counterfoil.db.schema import Timestamp
from counterfoil.kernel.clock import from_micros

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
# A number with a fraction is kept as it is written: as a float, several texts would be the same.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode())).decode
_MOMENT = re.compile(r"-?[0-9]+\.[0-9]{6}")


class Unreadable(Exception):
    """The stored row is none that we wrote."""


class _Exact(FunctionElement[Any]):
    """A column as it is stored."""

    name = "exact"
    inherit_cache = True
    type = sa.types.NullType()


@compiles(_Exact, "sqlite")
def _exact_sqlite(element: _Exact, compiler: Any, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS BLOB)"


@compiles(_Exact, "postgresql")
def _exact_postgresql(element: _Exact, compiler: Any, **kw: Any) -> str:
    (column,) = element.clauses
    text: str = compiler.process(column, **kw)
    if isinstance(column.type, Timestamp):  # not the driver's: there are moments that Python has no word for
        return f"CAST(extract(epoch FROM {text}) AS TEXT)"
    return f"CAST({text} AS TEXT)" if isinstance(column.type, sa.JSON) else text


class _Kinds(FunctionElement[str]):
    """The first letters of the types that SQLite stores columns under; NULL on PostgreSQL."""

    name = "kinds"
    inherit_cache = True
    type = sa.Text()


@compiles(_Kinds, "sqlite")
def _kinds_sqlite(element: _Kinds, compiler: Any, **kw: Any) -> str:
    return " || ".join(f"substr(typeof({compiler.process(column, **kw)}), 1, 1)" for column in element.clauses)


@compiles(_Kinds, "postgresql")
def _kinds_postgresql(_element: _Kinds, _compiler: Any, **_kw: Any) -> str:
    return "CAST(NULL AS TEXT)"


class Reader:
    """Reads one table's rows exactly, the tenant's id included."""

    def __init__(self, source: sa.FromClause) -> None:
        self.columns: list[sa.ColumnElement[Any]] = [*[_Exact(column) for column in source.c], _Kinds(*source.c)]
        """To be selected, in this order."""
        self._fields = [(column.name, _kind(column.type), bool(column.nullable)) for column in source.c]
        letters = {"integer": "i", "moment": "i"}
        patterns = [f"[{letters.get(kind, 't')}{'n' if null else ''}]" for _, kind, null in self._fields]
        self._kinds = re.compile("".join(patterns))

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """A row's fields by name: texts, integers, moments in RFC 3339, decoded JSON. Raises Unreadable."""
        kinds = values[-1]
        is_sqlite = kinds is not None
        if is_sqlite and not self._kinds.fullmatch(kinds):
            raise Unreadable
        fields: dict[str, Any] = {}
        try:
            for (name, kind, _), value in zip(self._fields, values[:-1], strict=True):
                if value is not None:
                    fields[name] = _READ[kind](value, is_sqlite)
        except (ValueError, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise Unreadable from error
        return fields


def canonical(fields: dict[str, Any]) -> bytes:
    """An event in the form its digest is made of."""
    return _encode_sorted(fields)


def _kind(type_: sa.types.TypeEngine[Any]) -> str:
    match type_:
        case Timestamp():
            return "moment"
        case sa.BigInteger():
            return "integer"
        case sa.Text():
            return "text"
        case sa.JSON():
            return "json"
    raise TypeError(type_)


def _text(value: Any, is_sqlite: bool) -> str:  # noqa: FBT001 # called through a table
    text: str = value.decode() if is_sqlite else value
    return text


def _integer(value: Any, _is_sqlite: bool) -> int:  # noqa: FBT001
    return int(value)


def _moment(value: Any, is_sqlite: bool) -> str:  # noqa: FBT001
    if is_sqlite:
        micros = int(value)
    elif _MOMENT.fullmatch(value):
        micros = int(value.replace(".", ""))
    else:
        raise Unreadable  # infinity
    return from_micros(micros).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _json(value: Any, is_sqlite: bool) -> Any:  # noqa: FBT001
    decoded = _decode(value)
    if not isinstance(decoded, dict) or (is_sqlite and _encode(decoded) != value):  # a different text, though it
        raise Unreadable  # decodes to the same value
    return decoded


_READ = {"text": _text, "integer": _integer, "moment": _moment, "json": _json}
