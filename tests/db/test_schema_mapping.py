"""Tables under other names: what settings may say, and a sale in a database whose tables go by them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.direct import on
from tests.support.server import ROOT

from counterfoil import table_names
from counterfoil.config import BadSetting
from counterfoil.db.migrate import HEAD, migrate
from counterfoil.db.schema import metadata, own_name
from counterfoil.settings import Settings
from counterfoil.tables import STRUCTS

USUAL = {
    "payments": "payment_transactions",
    "sessions": "stripe_sessions",
    "products": "products",
    "coupons": "coupons",
    "cart_quotes": "cart_quotes",
    "refund_quotes": "refund_quotes",
    "admin_nonces": "admin_nonces",
    "webhook_queue": "webhook_queue",
}
RENAMED = {"payments", "checkouts", "discounts", "carts", "refunds", "nonces", "webhook_deliveries"}
EVERY = {{"sessions": "sign_in_sessions"}.get(name, name): f"x_{name}" for name in table_names.TABLES}

A_SALE = """if True:
    import asyncio, json, sys
    from tests.support.app import good, opening
    from counterfoil.cli.main import run
    from counterfoil.db.migrate import migrate
    from counterfoil.kernel.clock import ManualClock, from_seconds
    from counterfoil.kernel.secrets import MasterKey

    async def main(url):
        async with opening(url, ManualClock(from_seconds(1_800_000_000)), MasterKey(bytes(range(32)))) as shop:
            sold = await shop.tier("editor", amount=21_000, license={"max_machines": 2})
            await shop.discount("TEN", amount=1000)
            (key,) = await shop.buy(sold, code="TEN")
            answer = good(await shop.http.post("/v1/validate", json={"key": key, "product_slug": "editor"}))
            orders = good(await shop.staff.get("/v1/orders"))["data"]
            payments = good(await shop.staff.get("/v1/payments"))["data"]
            assert await shop.house.seal(shop.scope) > 5
            return answer["ok"], [one["amount"] for one in orders], [one["amount"] for one in payments]

    applied = migrate(sys.argv[1])
    told = asyncio.run(main(sys.argv[1]))
    print(json.dumps([applied[-1], *told, run(["health", "--json"]), run(["audit", "verify"])]))
"""


def with_names(names: dict[str, str], url: str) -> dict[str, str]:
    """The environment of a process for which tables go by these names."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    ours = {f"COUNTERFOIL_STORAGE__SCHEMA_MAPPING__{word.upper()}__TABLE_NAME": name for word, name in names.items()}
    return {
        **inherited,
        **ours,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "COUNTERFOIL_DATABASE_URL": url,
        "COUNTERFOIL_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    }


def tables(url: str) -> set[str]:
    return set(on(url, lambda connection: sa.inspect(connection).get_table_names()))


@pytest.mark.parametrize("names", [USUAL, EVERY], ids=["usual", "every"])
def test_a_sale_in_tables_of_other_names(empty_database_url: str, names: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", A_SALE, empty_database_url],
        cwd=tmp_path,
        env=with_names(names, empty_database_url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [HEAD, True, [18_900], [18_900], 0, 0]
    assert '"database": "ok"' in done.stdout
    found = tables(empty_database_url)
    ours = set(table_names.TABLES) - (RENAMED if names is USUAL else set(table_names.TABLES))
    assert found == {*names.values(), *ours, "alembic_version"}
    # The same database under its own names, which this process uses, is refused and left alone.
    with pytest.raises(RuntimeError, match=f"is at {HEAD} but has no table .*carts, checkouts, "):
        migrate(empty_database_url)
    assert tables(empty_database_url) == found


def test_a_database_whose_tables_go_by_other_names_is_refused(database_url: str, tmp_path: Path) -> None:
    for command in ("serve", "migrate"):
        done = subprocess.run(
            [sys.executable, "-m", "counterfoil.cli.main", command],
            cwd=tmp_path,
            env=with_names({"payments": "payment_transactions"}, database_url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: the database is at {HEAD} but has no table payment_transactions: storage.schema_mapping must "
            "give tables the names they were migrated with; to rename one, rename it in the database, too\n"
            "hint:  docs/schema-mapping.md tells how names are given\n"
        )


def test_every_table_is_listed_with_its_migration() -> None:
    assert sorted(table_names.TABLES) == sorted(own_name(table) for table in STRUCTS)
    assert sorted(table_names.TABLES) == sorted(metadata.tables)
    assert table_names.wanted_at(HEAD) == set(metadata.tables)
    assert "orders" in table_names.wanted_at("0001_first_tables")
    assert "nonces" not in table_names.wanted_at("0001_first_tables")


def test_own_names_unless_said_otherwise() -> None:
    assert table_names.resolve({}) == {name: name for name in table_names.TABLES}
    assert table_names.resolve({"schema_mapping": {}}) == table_names.resolve({})
    assert table_names.resolve({}) == table_names.NAMES


def mapped(word: str, name: Any) -> dict[str, Any]:
    return {"schema_mapping": {word: {"table_name": name}}}


def test_other_words_for_a_table() -> None:
    found = table_names.resolve({"schema_mapping": {word: {"table_name": name} for word, name in USUAL.items()}})
    assert {ours: name for ours, name in found.items() if name != ours} == {
        "payments": "payment_transactions",
        "checkouts": "stripe_sessions",
        "discounts": "coupons",
        "carts": "cart_quotes",
        "refunds": "refund_quotes",
        "nonces": "admin_nonces",
        "webhook_deliveries": "webhook_queue",
    }
    assert table_names.resolve(mapped("sign_in_sessions", "web_sessions"))["sessions"] == "web_sessions"
    assert table_names.resolve(mapped("orders", "a" * 63))["orders"] == "a" * 63


@pytest.mark.parametrize(
    ("storage", "complaint"),
    [
        (mapped("shelves", "s"), "schema_mapping.shelves: there is no such table"),
        (mapped("orders", "carts"), "schema_mapping.orders.table_name: carts is another table"),
        (mapped("checkouts", "sessions"), "schema_mapping.checkouts.table_name: sessions is another table"),
        *[
            (mapped("orders", name), "schema_mapping.orders.table_name must be up to 63 lower-case letters")
            for name in ("", "1st", "Orders", "a-b", 'a"b', "a b", "é", "a" * 64, "a\n", 5, None, {}, "alembic_version",
                         "ix_orders", "pk_orders", "sqlite_orders", "pg_orders", "_alembic_tmp_orders")
        ],
        (
            {"schema_mapping": {"orders": {"table_name": "a"}, "carts": {"table_name": "a"}}},
            "schema_mapping.carts.table_name: two tables cannot both be called a",
        ),
        (
            {"schema_mapping": {"sessions": {"table_name": "a"}, "checkouts": {"table_name": "b"}}},
            "schema_mapping.checkouts: sessions names this table, too",
        ),
        ({"schema_mapping": {"orders": {"tablename": "a"}}}, "schema_mapping.orders has nothing but table_name"),
        ({"schema_mapping": {"orders": {}}}, "schema_mapping.orders.table_name must be"),
        ({"schema_mapping": {"orders": "a"}}, "schema_mapping.orders must be a table of settings"),
        ({"schema_mapping": "a"}, "schema_mapping must be a table of settings"),
        ({"schemas": {}}, "storage has nothing but schema_mapping"),
        ("a", "storage must be a table of settings"),
    ],
)  # fmt: skip
def test_names_that_are_refused(storage: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}"):
        table_names.resolve(storage)
    if isinstance(storage, dict):
        with pytest.raises(BadSetting) as refused:
            Settings.load(storage=storage)
        assert complaint in str(refused.value)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "counterfoil.toml"
    file.write_text(
        'port = 80\n[storage.schema_mapping.orders]\ntable_name = "a"\n[storage.schema_mapping.carts]\n'
        'table_name = "b"\n'
    )
    environment = {"counterfoil_Storage__Schema_Mapping__ORDERS__TABLE_NAME": "c", "COUNTERFOIL_PORT": "1"}
    found = table_names.read(environment, file)
    assert (found["orders"], found["carts"], found["payments"]) == ("c", "b", "payments")
    assert table_names.read({}, tmp_path / "missing.toml") == table_names.resolve({})
    for wrong in ("storage = 1\n", "storage =\n", "[storage]\nschema_mapping = 1\n"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"table of settings|Invalid value"):
            table_names.read({}, file)
    with pytest.raises(ValueError, match="storage has nothing but schema_mapping"):
        table_names.read({"COUNTERFOIL_STORAGE__X": "1"}, tmp_path / "missing.toml")


def test_names_that_came_too_late_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_STORAGE__SCHEMA_MAPPING__ORDERS__TABLE_NAME", "sales_orders")
    with pytest.raises(BadSetting, match="names of tables are read when the program starts: from counterfoil"):
        Settings.load()
    monkeypatch.setenv("COUNTERFOIL_STORAGE__SCHEMA_MAPPING__SHELVES__TABLE_NAME", "s")
    with pytest.raises(BadSetting, match=r"schema_mapping\.shelves: there is no such table"):
        Settings.load()
