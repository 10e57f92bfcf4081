"""Stock and goods on the command line."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.cli.conftest import Cli

from counterfoil.catalog.tables import stock_items
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.sales.quotes import WantedLine
from counterfoil.settlement.checkout import OpenCheckout, open_checkout

HOME = '{"name": "Ada Example", "line1": "1 Main Street", "city": "Springfield", "country": "US"}'


@pytest.fixture
def sandbox(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_SANDBOX", "true")


def test_stock_is_set_adjusted_shown_and_forgotten(cli: Cli, editor: dict[str, str]) -> None:
    item = cli.json("stock", "set", "editor", "5")
    assert (item["product_id"], item["price_id"], item["on_hand"], item["reserved"], item["policy"]) == (
        editor["product"], None, 5, 0, "deny",
    )  # fmt: skip
    assert cli.json("stock", "adjust", "editor", "-2", "--reason", "broken")["available"] == 3
    assert cli.json("stock", "adjust", "editor", "4")["available"] == 7
    assert cli.json("stock", "set", "editor", "--policy", "allow_backorder")["on_hand"] == 7
    variant = cli.json("stock", "set", "editor", "1", "--price", editor["price"])
    assert cli.json("stock", "show", "editor", "--price", editor["price"]) == variant
    shown = cli.json("stock", "list", "--product", "editor")["data"]
    assert sorted(one["on_hand"] for one in shown) == [1, 7]
    table = cli("stock", "list")
    assert table.splitlines()[0].split() == (
        ["PRODUCT", "PRICE", "ON", "HAND", "RESERVED", "AVAILABLE", "POLICY", "ID"]
    )
    cli("stock", "untrack", "editor", "--yes")
    assert "not counted" in cli.refused("stock", "show", "editor")
    assert len(cli.json("stock", "list")["data"]) == 1


def test_what_stock_refuses(cli: Cli, editor: dict[str, str]) -> None:
    assert "say how many" in cli.refused("stock", "set", "editor", code=2)
    assert "say how many" in cli.refused("stock", "set", "editor", "--policy", "deny")
    assert "not counted" in cli.refused("stock", "adjust", "editor", "1")
    cli("stock", "set", "editor", "1")
    assert "cannot be fewer" in cli.refused("stock", "adjust", "editor", "-2")
    cli.refused("stock", "set", "editor", "-1", code=2)
    cli.refused("stock", "set", "none", "1")


def test_reconcile_says_what_is_wrong(cli: Cli, editor: dict[str, str]) -> None:
    item = cli.json("stock", "set", "editor", "9")
    assert cli("stock", "reconcile") == "nothing is wrong\n"
    cli.on_database(_tamper, item["id"])
    code, shown = cli.attempt("stock", "reconcile")
    assert code == 1
    assert shown.splitlines()[1].split() == [editor["product"], "any", "9", "4", "0", "no", item["id"]]
    (found,) = cli.json("stock", "reconcile", "--fix")
    assert (found["reserved"], found["held"], found["fixed"]) == (4, 0, True)
    assert cli("stock", "reconcile", "--fix") == "nothing is wrong\n"
    assert cli.json("stock", "reconcile") == []


def _tamper(tx: Tx, item_id: str) -> None:
    tx.execute(sa.update(stock_items).where(mine(stock_items), stock_items.c.id == item_id).values(reserved=4))


def test_goods_are_promised_and_shipped_to_an_address(cli: Cli, editor: dict[str, str], sandbox: None) -> None:
    goods = cli.json("benefit", "set", "editor", "--goods", "--sku", "BOX-1", "--grams", "450")
    assert (goods["kind"], goods["spec"]) == ("goods", {"sku": "BOX-1", "weight_grams": 450})
    rows = [line.split() for line in cli("benefit", "list", "editor").splitlines()]
    assert {row[1] for row in rows[1:]} == {"license", "goods"}
    assert "goes without" in cli.refused("benefit", "set", "editor", "--goods", "--trial", code=2)
    cli.refused("benefit", "set", "editor", "--sku", "X", code=2)
    free = cli.json("price", "create", "editor", "--sats", "0")["id"]
    assert "ship" in cli.refused("checkout", "create", free)
    cli.refused("checkout", "create", free, "--shipping", "nowhere", code=2)
    cli.refused("checkout", "create", free, "--shipping", '{"name": "Ada"}', code=2)
    opened = cli.json("checkout", "create", free, "--shipping", HOME)
    assert (opened["status"], opened["shipping"]["country"]) == ("settled", "US")


def test_a_checkout_is_called_off(cli: Cli, editor: dict[str, str]) -> None:
    cli("stock", "set", "editor", "0", "--policy", "allow_backorder")
    free = cli.json("price", "create", "editor", "--sats", "0")["id"]
    done = cli.json("checkout", "create", free)
    assert "not open" in cli.refused("checkout", "cancel", done["id"])
    assert "no such checkout" in cli.refused("checkout", "cancel", "chk_01j00000000000000000000000")
    wanted = OpenCheckout(lines=[WantedLine(price_id=editor["price"])], rail="sandbox", holds_for=timedelta(minutes=15))
    opened = cli.on_database(open_checkout, wanted).checkout
    assert cli.json("stock", "show", "editor")["reserved"] == 1
    assert cli.json("checkout", "cancel", opened.id)["status"] == "canceled"
    assert cli.json("stock", "show", "editor")["reserved"] == 0
    assert [one["id"] for one in cli.json("checkout", "list", "--status", "canceled")["data"]] == [opened.id]
