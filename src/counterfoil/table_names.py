"""What each table is called in the database: ``storage.schema_mapping.<table>.table_name``.

Statements are built when the program is loaded, so the names must be known before that: they are read here,
from the environment and ``counterfoil.toml``, with nothing but the standard library. What cannot be read or
is wrong leaves every table its own name; :class:`counterfoil.settings.Settings` refuses it with clear words
before any database is opened, and so it does with settings that say something else than what was read here.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "counterfoil.toml"
ALEMBIC = "alembic_version"
"""Where migrations note how far a database is; always called so."""

_BY_MIGRATION = {
    "0001": (
        "tenants", "api_keys", "carts", "discounts", "events", "inbox", "jobs", "one_time_tokens", "products",
        "rail_settings", "signing_keys", "validation_log", "benefits", "checkouts", "discount_redemptions",
        "prices", "cart_lines", "orders", "payments", "grants", "licenses", "machines",
    ),
    "0002": (
        "emails", "nonces", "roles", "users", "customers", "email_preferences", "event_seals", "identities",
        "passkeys", "sessions", "user_emails", "addresses", "businesses", "invitations", "role_assignments",
    ),
    "0003": (
        "idempotency_keys", "payment_references", "payments_archive", "webhook_endpoints", "webhook_sequences",
        "webhook_deliveries", "stock_items", "discount_buyers", "stock_reservations", "fulfillments",
        "order_history", "refunds", "fulfillment_items",
    ),
    "0004": (
        "outbox", "rail_links", "subscriptions", "order_discounts", "subscription_items", "invoices", "disputes",
        "subscription_periods",
    ),
}  # fmt: skip

TABLES = tuple(name for made in _BY_MIGRATION.values() for name in made)
"""Every table by its own name."""

OTHER_NAMES = {
    "sessions": "checkouts",
    "coupons": "discounts",
    "cart_quotes": "carts",
    "refund_quotes": "refunds",
    "admin_nonces": "nonces",
    "webhook_queue": "webhook_deliveries",
    "sign_in_sessions": "sessions",
}
"""What settings may call a table instead of its own name. ``sessions`` are sessions of paying: checkouts."""

_PREFIX = "counterfoil_storage__"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_NOT_OURS = ("ix_", "uq_", "pk_", "fk_", "ck_", "sqlite_", "pg_", "_alembic_")
"""How names begin that belong to indexes (which share the tables' names on PostgreSQL) or to the database."""


def resolve(storage: object) -> dict[str, str]:
    """Each table's name in the database, by its own name, from the settings under ``storage``.

    Raises ValueError in words for whoever wrote them.
    """
    found: dict[str, str] = {}
    said: dict[str, str] = {}
    for word, fields in _table(_only(storage, "storage", "schema_mapping"), "schema_mapping").items():
        where = f"schema_mapping.{word}"
        ours = OTHER_NAMES.get(word, word)
        if ours not in TABLES:
            raise ValueError(f"{where}: there is no such table")
        if ours in found:
            raise ValueError(f"{where}: {said[ours]} names this table, too")
        name = _only(fields, where, "table_name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith((*_NOT_OURS, ALEMBIC)):
            raise ValueError(
                f"{where}.table_name must be up to 63 lower-case letters, digits and underscores, not begin with a "
                f"digit, and not begin as names of indexes or of the database do ({', '.join(_NOT_OURS)})"
            )
        if name in TABLES and name != ours:
            raise ValueError(f"{where}.table_name: {name} is another table")
        if name in found.values():
            raise ValueError(f"{where}.table_name: two tables cannot both be called {name}")
        found[ours], said[ours] = name, word
    return {ours: found.get(ours, ours) for ours in TABLES}


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a table of settings")
    return value


def _only(value: object, where: str, field: str) -> Any:
    """The only field that a table of settings may have; nothing when it has none."""
    table = _table(value, where)
    if set(table) - {field}:
        raise ValueError(f"{where} has nothing but {field}")
    return table.get(field, {})


def read(environment: Mapping[str, str], file: Path) -> dict[str, str]:
    """Each table's name in the database as the environment says, else the file. Raises ValueError, OSError."""
    storage: dict[str, Any] = {}
    if file.is_file():
        with file.open("rb") as opened:
            storage = _table(tomllib.load(opened).get("storage", {}), "storage")
    for name, value in environment.items():
        if name.lower().startswith(_PREFIX):
            *path, last = name.lower()[len(_PREFIX) :].split("__")
            inner = storage
            for step in path:
                inner = _table(inner.setdefault(step, {}), step)
            inner[last] = value
    return resolve(storage)


def _read() -> dict[str, str]:
    try:
        return read(os.environ, Path(FILE))
    except (ValueError, OSError):
        return resolve({})


NAMES = _read()
"""What every statement of this process calls each table, by the table's own name."""


def name_of(table: str) -> str:
    """What a table is called in the database. Raises KeyError for a table that is not in ``TABLES``."""
    return NAMES[table]


def wanted_at(version: str) -> set[str]:
    """The tables, as they are called here, that a database has once this migration was applied."""
    return {NAMES[table] for number, made in _BY_MIGRATION.items() if number <= version[:4] for table in made}
