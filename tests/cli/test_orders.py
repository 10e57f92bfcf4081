"""Commands on orders and parcels."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Cli
from tests.support.orders import new_order


@pytest.fixture
def order(cli: Cli, elsewhere: Path) -> dict[str, str]:
    """An order of three units, made elsewhere."""
    (elsewhere / "order.json").write_bytes(msgspec.json.encode(new_order("Stand 1", 2, 1, email="ada@example.com")))
    made: dict[str, str] = cli.json("order", "import", "order.json")
    return made


def test_from_the_order_to_the_door(cli: Cli, order: dict[str, str]) -> None:
    assert cli.json("order", "import", "order.json")["id"] == order["id"]
    parcel = cli.json("fulfillment", "create", order["id"], "--item", "0:2", "--carrier", "DHL")
    assert parcel["items"] == [{"line": 0, "quantity": 2}]
    assert "quantity_exceeds" not in cli.refused("fulfillment", "create", order["id"], "--item", "0:1")
    assert cli.refused("fulfillment", "create", order["id"], "--item", "0", code=2).startswith(
        "error: Invalid value for --item: '0': say 0:2 for two of the first item"
    )
    second = cli.json("fulfillment", "create", order["id"], "--item", "1:1")
    shipped = cli.json("fulfillment", "ship", parcel["id"], "--tracking-number", "JD01")
    assert (shipped["status"], shipped["carrier"], shipped["tracking_number"]) == ("shipped", "DHL", "JD01")
    tracked = cli.json("fulfillment", "track", parcel["id"], "--tracking-url", "https://example.com/JD01")
    assert tracked["tracking_url"] == "https://example.com/JD01"
    cli("fulfillment", "cancel", second["id"])
    cli("fulfillment", "deliver", parcel["id"])
    assert cli.json("fulfillment", "show", parcel["id"])["status"] == "delivered"
    assert [one["id"] for one in cli.json("fulfillment", "list", order["id"])["data"]] == [parcel["id"], second["id"]]
    assert "2 of 0  DHL      JD01" in cli("fulfillment", "list", order["id"])
    assert "items            2 of 0\n" in cli("fulfillment", "show", parcel["id"])
    assert cli.refused("fulfillment", "ship", parcel["id"]).startswith(
        "error: A parcel cannot go from delivered to shipped.\n"
    )
    shown = cli.json("order", "status", order["id"], "delivered", "--note", "picked up")
    assert (shown["status"], shown["history"][-1]["note"]) == ("delivered", "picked up")
    text = cli("order", "show", order["id"])
    assert "\nparcels\n" in text
    assert "\nhistory\n" in text
    assert "partially_fulfilled  delivered            cli  picked up" in text
    assert cli.refused("order", "status", order["id"], "paid").startswith(
        "error: An order cannot go from delivered to paid.\n"
    )
    assert "counterfoil order status --help" in cli.refused("order", "status", order["id"], "gone", code=2)


def test_lists(cli: Cli, order: dict[str, str]) -> None:
    listed = cli.json("order", "list", "--status", "paid", "--status", "shipped", "--search", "ada", "--total")
    assert [one["id"] for one in listed["data"]] == [order["id"]]
    assert listed["total"] == {"count": 1, "is_exact": True}
    assert f"{order['id']}  paid" in cli("order", "list", "--newest-first", "--total", "--created-after", "2026-01-01")
    assert cli.error == "1 in all\n"
    assert cli.json("order", "list", "--partially-refunded")["data"] == []
    assert "say one of created, paid" in cli.refused("order", "list", "--status", "gone", code=2)
    assert cli.json("order", "list", "--created-before", "2001-01-01", "--customer", "cus_x")["data"] == []


def test_export(cli: Cli, order: dict[str, str], elsewhere: Path) -> None:
    assert cli("order", "export", "--format", "csv", "--output", "orders.csv") == ""
    header, line, end = (elsewhere / "orders.csv").read_bytes().decode().split("\r\n")
    assert header.startswith("id,created_at,status,")
    assert line.endswith(",fair,Stand 1,,ada@example.com,2 x Thing 0; 1 x Thing 1,USD,15.00,0.00,0.00,0.00")
    assert (line.split(",")[0], end) == (order["id"], "")
    assert cli("order", "export", "--status", "shipped").splitlines() == [header]
    assert "say csv" in cli.refused("order", "export", "--format", "xml", code=2)
    assert "cannot be written" in cli.refused("order", "export", "--output", "no/orders.csv")


def test_bad_imports(cli: Cli, elsewhere: Path) -> None:
    (elsewhere / "bad.json").write_text("{")
    assert cli.refused("order", "import", "bad.json").startswith("error: this is not an order: ")
    (elsewhere / "bad.json").write_bytes(msgspec.json.encode(new_order("1", amount=7)))
    assert "not 7" in cli.refused("order", "import", "bad.json")
    assert cli.json("order", "list")["data"] == []


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_bar_on_a_terminal_and_nowhere_else(cli: Cli, order: dict[str, str], elsewhere: Path) -> None:
    command = [sys.executable, "-m", "counterfoil.cli.main", "order", "export", "--output", "orders.csv"]
    quiet = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")
    ours, theirs = pty.openpty()
    try:
        subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60)
        assert b"Writing" in os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert len((elsewhere / "orders.csv").read_bytes().splitlines()) == 2
