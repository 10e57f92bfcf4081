"""The rules every table follows, now and later. Whoever must break one says why here."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import sqlalchemy as sa

import counterfoil
from counterfoil.db.schema import JSON, TENANT, Timestamp, columns
from counterfoil.tables import STRUCTS, metadata

# A tenant has no id beside its own.
PRIMARY_KEYS = {
    "tenants": [TENANT],
    "discount_buyers": [TENANT, "discount_id", "buyer"],
    "fulfillment_items": [TENANT, "fulfillment_id", "line"],
    "order_discounts": [TENANT, "order_id", "discount_id"],
    "payment_references": [TENANT, "rail", "reference"],
    "subscription_periods": [TENANT, "subscription_id", "period_start"],
    "webhook_sequences": [TENANT, "object_id"],
}

UNIQUE_ACROSS_TENANTS = {
    "uq_tenants_slug",  # the slug finds the tenant: /t/{slug}
}
INDEXES_ACROSS_TENANTS = UNIQUE_ACROSS_TENANTS | {
    "ix_api_keys_secret_hash",  # a key arrives before its tenant is known
}

TYPES = (sa.Text, sa.BigInteger, sa.Boolean, sa.LargeBinary, Timestamp)
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

TABLES = sorted(metadata.tables.values(), key=lambda table: table.name)
each_table = pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(counterfoil.__path__, "counterfoil."):
        if found.name.endswith((".types", ".tables")) or ".kernel." in found.name:
            yield importlib.import_module(found.name)


def structs() -> list[type[msgspec.Struct]]:
    found = {
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__.startswith("counterfoil.")
    }
    return sorted(found, key=lambda struct: (struct.__module__, struct.__name__))


def parts_of(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it."""
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def kinds_of(annotation: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return annotation.types if isinstance(annotation, msgspec.inspect.UnionType) else (annotation,)


def test_every_table_is_registered() -> None:
    list(modules())  # whatever declares a table has been imported
    assert set(metadata.tables.values()) == set(STRUCTS)
    assert len(set(STRUCTS.values())) == len(STRUCTS)
    assert len(TABLES) >= 22


@each_table
def test_the_tenant_comes_first(table: sa.Table) -> None:
    assert next(iter(table.columns)).name == TENANT
    assert table.c.tenant_id.type.__class__ is sa.Text
    assert not table.c.tenant_id.nullable


@each_table
def test_the_primary_key_is_the_tenant_and_the_id(table: sa.Table) -> None:
    # Lists page by (tenant_id, id), so this is also the index of every list.
    assert [column.name for column in table.primary_key.columns] == PRIMARY_KEYS.get(table.name, [TENANT, "id"])


@each_table
def test_foreign_keys_carry_the_tenant(table: sa.Table) -> None:
    keys = [(list(key.column_keys), [e.target_fullname for e in key.elements]) for key in table.foreign_key_constraints]
    if table.name != "tenants":
        assert ([TENANT], ["tenants.tenant_id"]) in keys
        keys.remove(([TENANT], ["tenants.tenant_id"]))
    for own, targets in keys:
        assert len(own) == 2
        assert own[0] == TENANT
        target = targets[0].partition(".")[0]
        assert targets == [f"{target}.{TENANT}", f"{target}.id"]


@each_table
def test_foreign_keys_never_cascade(table: sa.Table) -> None:
    for key in table.foreign_key_constraints:
        assert (key.ondelete, key.onupdate, key.deferrable, key.match) == (None, None, None, None)


@each_table
def test_indexes_begin_with_the_tenant(table: sa.Table) -> None:
    for index in table.indexes:
        first = next(iter(index.columns)).name
        assert first == TENANT or index.name in INDEXES_ACROSS_TENANTS, index.name
        assert first == TENANT or not index.unique or index.name in UNIQUE_ACROSS_TENANTS, index.name


@each_table
def test_uniqueness_is_said_by_indexes_only(table: sa.Table) -> None:
    # A unique index may have a condition, a unique constraint may not: one way to say it.
    assert not [item for item in table.constraints if isinstance(item, sa.UniqueConstraint)]
    assert not [column.name for column in table.columns if column.unique or column.index]


def test_the_exceptions_are_still_needed() -> None:
    across = {
        str(index.name)
        for table in TABLES
        for index in table.indexes
        if next(iter(index.columns)).name != TENANT
    }  # fmt: skip
    assert across == INDEXES_ACROSS_TENANTS
    assert set(PRIMARY_KEYS) <= set(metadata.tables)


@each_table
def test_column_types_are_the_few_that_are_exact(table: sa.Table) -> None:
    for column in table.columns:
        assert column.type is JSON or isinstance(column.type, TYPES), column
        assert not isinstance(column.type, sa.Float | sa.Numeric | sa.DateTime | sa.Date | sa.Time), column
        assert not column.autoincrement or column.autoincrement == "auto"
        # A constant, for the rows that a server of the version before adds.
        default = column.server_default
        assert default is None or re.fullmatch(r"0|false|'[^']*'", str(default.arg)), column
        assert column.default is None


@each_table
def test_moments_are_named_at_and_nothing_else_is(table: sa.Table) -> None:
    for column in table.columns:
        is_moment = isinstance(column.type, Timestamp)
        is_flag = isinstance(column.type, sa.Boolean)
        named_so = column.name.endswith(("_at", "_until", "_since", "_start", "_end"))
        assert is_moment == (named_so and not is_flag), column


@each_table
def test_rows_say_when_they_were_made(table: sa.Table) -> None:
    names = [column.name for column in table.columns]
    assert names[-1:] == ["created_at"] or names[-2:] == ["created_at", "updated_at"]
    assert not table.c.created_at.nullable


@each_table
def test_amounts_have_an_asset_beside_them(table: sa.Table) -> None:
    if {"amount", "unit_amount", "total"} & set(table.columns.keys()) and table.name != "cart_lines":
        # A cart's lines are in the cart's asset.
        assert isinstance(table.c.asset.type, sa.Text)


@each_table
def test_names_are_in_snake_case_and_short_enough(table: sa.Table) -> None:
    constraints = [item.name for item in [*table.constraints, *table.indexes]]
    assert None not in constraints
    names = [table.name, *table.columns.keys(), *map(str, constraints)]
    assert [name for name in names if not SNAKE_CASE.fullmatch(name)] == []
    assert [name for name in names if len(name) > 63] == []  # PostgreSQL cuts longer ones


@each_table
def test_structs_and_tables_agree(table: sa.Table) -> None:
    struct = STRUCTS[table]
    assert list(struct.__struct_fields__) == [column.name for column in columns(table)]
    assert struct.__struct_config__.frozen
    assert struct.__doc__


@each_table
def test_structs_and_tables_agree_on_what_may_be_missing_and_on_types(table: sa.Table) -> None:
    info = msgspec.inspect.type_info(STRUCTS[table])
    assert isinstance(info, msgspec.inspect.StructType)
    for field, column in zip(info.fields, columns(table), strict=True):
        kinds = kinds_of(field.type)
        null = [kind for kind in kinds if isinstance(kind, msgspec.inspect.NoneType)]
        assert bool(null) == column.nullable, column
        (kind,) = [kind for kind in kinds if kind not in null]
        if column.type is JSON:
            expected: tuple[type, ...] = (msgspec.inspect.DictType, msgspec.inspect.ListType)
        elif isinstance(column.type, Timestamp):
            expected = (msgspec.inspect.DateTimeType,)
        elif isinstance(column.type, sa.Text):
            expected = (msgspec.inspect.StrType, msgspec.inspect.LiteralType)
        else:
            expected = {
                sa.BigInteger: (msgspec.inspect.IntType,),
                sa.Boolean: (msgspec.inspect.BoolType,),
                sa.LargeBinary: (msgspec.inspect.BytesType,),
            }[type(column.type)]
        assert isinstance(kind, expected), column


@each_table
def test_words_a_struct_allows_are_those_a_check_allows(table: sa.Table) -> None:
    info = msgspec.inspect.type_info(STRUCTS[table])
    assert isinstance(info, msgspec.inspect.StructType)
    literals: dict[str, set[Any]] = {}
    for field in info.fields:
        for kind in kinds_of(field.type):
            if isinstance(kind, msgspec.inspect.LiteralType):
                literals[field.name] = set(kind.values)
    checked: dict[str, set[Any]] = {}
    for check in table.constraints:
        if isinstance(check, sa.CheckConstraint):
            listed = re.fullmatch(r"(\w+) IN \(([^()]*)\)", str(check.sqltext))
            if listed:
                checked[listed[1]] = {word.strip(" '") for word in listed[2].split(",")}
    for name, words in checked.items():
        assert literals[name] == words, name


@pytest.mark.parametrize("struct", structs(), ids=lambda struct: struct.__name__)
def test_no_field_is_a_float(struct: type[msgspec.Struct]) -> None:
    for name, annotation in get_type_hints(struct).items():
        assert float not in list(parts_of(annotation)), name


def test_the_search_for_structs_finds_them() -> None:
    found = structs()
    assert set(STRUCTS.values()) <= set(found)
    assert {"Money", "LicenseSpec", "Actor", "FieldError"} <= {struct.__name__ for struct in found}
    assert float in list(parts_of(dict[str, list[float | None]]))
