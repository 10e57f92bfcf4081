"""Reports and comparisons on the command line."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.peers.paddle_fixtures import running_paddle
from tests.peers.paddle_world import API_KEY

from counterfoil.db.tx import Tx
from counterfoil.exchange import rail_settings
from counterfoil.house import load_master_key
from counterfoil.kernel.money import Money
from counterfoil.rails.paddle import PaddleSettings
from counterfoil.sales import payments
from counterfoil.settings import Settings


def test_margins(cli: Cli, editor: dict[str, str]) -> None:
    assert cli("report", "margins") == ""
    assert cli.error == "nothing found\n"
    cli("discount", "create", "gift", "--free")
    cli("checkout", "create", editor["price"], "--rail", "free", "--code", "gift", "--email", "a@example.com")
    (row,) = cli.json("report", "margins")["data"]
    assert (row["code"], row["orders"], row["net"], row["taken_off"]) == ("GIFT", 1, 0, row["gross"])
    shown = cli("report", "margins").splitlines()
    assert shown[0].split() == [
        "DISCOUNT", "CODE", "MARGIN", "OF", "TAKES", "ORDERS", "CUSTOMERS", "GROSS", "TAKEN", "OFF", "NET", "TAX",
        "REFUNDED",
    ]  # fmt: skip
    assert shown[1].split()[1:6] == ["GIFT", "-", "free", "1", "1"]
    (line,) = csv.DictReader(io.StringIO(cli("report", "margins", "--csv")))
    assert (line["code"], line["orders"], line["discount_id"]) == ("GIFT", "1", row["discount_id"])
    assert cli.json("report", "margins", "--from", "2200-01-01") == {"data": []}
    assert "json or" in cli.refused("report", "margins", "--csv", "--json", code=2)
    assert "is not a time" in cli.refused("report", "margins", "--from", "tomorrow", code=2)


def _connect(tx: Tx, url: str) -> None:
    settings = PaddleSettings(base_url=url, api_key=API_KEY, webhook_secrets=("pdl_ntfset_x",), livemode=False)
    rail_settings.save(tx, load_master_key(Settings.load()), "paddle-test", settings, {})


def _pay(tx: Tx, at: datetime) -> None:
    named: dict[str, Any] = {"checkout_id": None, "customer_id": None, "payer": None, "details": {}}
    payments.add_if_new(
        tx, rail="paddle-test", reference="txn_x", money=Money(900, "USD"), status="unmatched", occurred_at=at, **named
    )


@pytest.mark.xdist_group("mirrors")
def test_a_day_compared(cli: Cli) -> None:
    day = datetime.now(UTC)
    on = ("--day", day.date().isoformat())
    with running_paddle() as peer:
        assert "not connected" in cli.refused("rail", "compare", "paddle-test", *on)
        cli.on_database(_connect, peer.url)
        assert cli.json("rail", "compare", "paddle-test", *on)["same"] is True
        assert cli.json("rail", "compare", "paddle-test")["theirs"] == 0
        assert "is not a day" in cli.refused("rail", "compare", "paddle-test", "--day", "today", code=2)
        cli.on_database(_pay, day)
        code, shown = cli.attempt("rail", "compare", "paddle-test", *on)
        assert code == 1
        assert shown.splitlines()[2].split() == ["result", "1", "differences"]
        assert shown.splitlines()[-1].split()[:3] == ["missing", "there", "txn_x"]
        assert cli.error == ""
