"""Tables with rows in them come through every migration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.direct import on

from counterfoil.db import migrate as migrating
from counterfoil.db.migrate import SCRIPTS, migrate
from counterfoil.db.schema import JSON, Timestamp
from counterfoil.kernel.clock import from_seconds

T = "ten_00000000000000000000000000"
NOW = from_seconds(1_700_000_000)
FIRST = {
    "tenants": {"name": "n", "slug": "default", "hosts": [], "settings": {}, "status": "active"},
    "api_keys": {"id": "key_1", "name": "k", "secret_hash": "h", "scopes": ["*"], "last_used_at": NOW},
    "one_time_tokens": {"id": "ott_1", "purpose": "p", "token_hash": "h", "details": {"a": 1}, "expires_at": NOW},
    "products": {"id": "pro_1", "slug": "s", "name": "n", "description": "", "tax_category": "standard",
                 "status": "active", "metadata": {}},
    "discounts": {"id": "dsc_1", "code": "X", "description": "", "kind": "percentage", "amount": 100,
                  "product_ids": [], "tiers": [], "times_used": 3, "usage_limit": 3, "status": "active",
                  "metadata": {}},
    "carts": {"id": "crt_1", "asset": "SAT", "subtotal": 5, "discount_total": 1, "tax_total": 0, "total": 4,
              "expires_at": NOW, "metadata": {}},
    "checkouts": {"id": "chk_1", "cart_id": "crt_1", "rail": "sandbox", "status": "settled", "amount": 4,
                  "asset": "SAT", "paid": 4, "rail_final": True, "checked_at": NOW, "expires_at": NOW,
                  "settled_at": NOW},
    "payments": {"id": "pay_1", "rail": "sandbox", "reference": "r", "checkout_id": "chk_1", "amount": 4,
                 "asset": "SAT", "status": "settled", "details": {}, "occurred_at": NOW},
    "orders": {"id": "ord_1", "source": "sandbox", "purchase_reference": "chk_1", "checkout_id": "chk_1",
               "status": "paid", "items": [{"name": "é"}], "amount": 4, "asset": "SAT", "discount_total": 1,
               "tax_total": 0, "metadata": {}},
    "signing_keys": {"id": "sgk_1", "algorithm": "ed25519", "public_key": b"\x00\xff", "private_key_sealed": b"",
                     "status": "active"},
    "licenses": {"id": "lic_1", "product_id": "pro_1", "order_id": "ord_1", "line": 0, "unit": 0, "tier": "default",
                 "status": "active", "issued_at": NOW, "grace_seconds": 0, "max_machines": 1, "machine_count": 1,
                 "is_trial": False, "entitlements": ["pro"], "signing_key_id": "sgk_1", "metadata": {}},
    "machines": {"id": "mac_1", "license_id": "lic_1", "fingerprint_hash": "f", "last_heartbeat_at": NOW},
    "grants": {"id": "grt_1", "kind": "license", "product_id": "pro_1", "order_id": "ord_1", "line": 0, "unit": 0,
               "object_id": "lic_1", "status": "active", "starts_at": NOW},
    "events": {"id": "evt_1", "type": "order.created", "object_kind": "order", "object_id": "ord_1",
               "actor_kind": "system", "amount": 4, "asset": "SAT", "details": {"source": "sandbox"}},
}  # fmt: skip
"""A sale as the first version wrote it, parents first."""


def _table(name: str, row: dict[str, Any]) -> sa.TableClause:
    kinds = {str: sa.Text(), int: sa.BigInteger(), bool: sa.Boolean(), bytes: sa.LargeBinary()}
    return sa.table(
        name,
        *[sa.column(key, Timestamp() if value == NOW else kinds.get(type(value), JSON)) for key, value in row.items()],
    )


def _rows() -> dict[str, dict[str, Any]]:
    unchanged = {"one_time_tokens", "carts", "events"}
    times = {name: {"created_at": NOW} | ({} if name in unchanged else {"updated_at": NOW}) for name in FIRST}
    return {name: {"tenant_id": T, **row, **times[name]} for name, row in FIRST.items()}


def test_a_sale_of_the_first_version_comes_through(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(SCRIPTS, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "versions").glob("0*.py"):
        if not path.name.startswith("0001_"):
            path.unlink()
    rows = _rows()

    def write(connection: sa.Connection) -> None:
        for name, row in rows.items():
            connection.execute(sa.insert(_table(name, row)), row)

    def read(connection: sa.Connection) -> dict[str, dict[str, Any]]:
        found = {}
        for name, row in rows.items():
            source = _table(name, row)
            found[name] = dict(connection.execute(sa.select(*source.c)).one()._mapping)
        return found

    def news(connection: sa.Connection) -> list[Any]:
        names = ["carts", "checkouts", "discounts", "grants", "licenses", "orders", "payments", "api_keys", "events"]
        return [
            connection.execute(sa.select(sa.column("customer_id")).select_from(sa.table(one))).scalar_one()
            for one in names
        ]

    with monkeypatch.context() as earlier:
        earlier.setattr(migrating, "SCRIPTS", folder)
        earlier.setattr(migrating, "HEAD", "0001_first_tables")
        assert migrate(empty_database_url) == ["0001_first_tables"]
    on(empty_database_url, write)
    assert on(empty_database_url, read) == rows
    assert migrate(empty_database_url)[0] == "0002_accounts"
    assert on(empty_database_url, read) == rows
    assert on(empty_database_url, news) == [None] * 9
    # The rules of the tables came through as well.
    with pytest.raises(sa.exc.IntegrityError):
        on(empty_database_url, lambda connection: connection.execute(sa.text("UPDATE licenses SET machine_count = 2")))
    with pytest.raises(sa.exc.IntegrityError):
        on(empty_database_url, lambda connection: connection.execute(sa.text("UPDATE discounts SET times_used = 4")))
