from __future__ import annotations

import pytest
from tests.cli.conftest import Cli

from counterfoil.db.tx import Tx
from counterfoil.webhooks import fan_out

URL = "https://10.0.0.1.example.invalid/in"


def happen(tx: Tx) -> None:
    event = {"id": tx.new_id("evt"), "type": "thing.changed", "object_kind": "thing", "object_id": "thi_1"}
    event |= {"amount": None, "asset": None, "details": {}, "created_at": tx.now}
    fan_out.fan_out(tx, [event])


def test_endpoints_from_the_command_line(cli: Cli) -> None:
    made = cli.json("webhook", "create", "--url", URL, "--event", "thing.*", "--event", "order.paid")
    assert (made["url"], made["event_types"], made["status"]) == (URL, ["thing.*", "order.paid"], "enabled")
    assert made["secret"].startswith("whsec_")
    lines = cli("webhook", "list").splitlines()
    assert lines[0].split() == ["ID", "STATUS", "EVENTS", "URL", "FAILING", "SINCE"]
    assert lines[1].split()[:2] == [made["id"], "enabled"]
    shown = cli.json("webhook", "show", made["id"])
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert made["public_key"] in cli("webhook", "show", made["id"])
    assert cli.json("webhook", "update", made["id"], "--description", "ours")["description"] == "ours"
    rotated = cli.json("webhook", "rotate-secret", made["id"])
    assert rotated["secret"] != made["secret"]
    assert cli.json("webhook", "disable", made["id"])["disabled_reason"] == "by_hand"
    assert "webhook endpoint" not in cli("webhook", "enable", made["id"])
    assert cli("webhook", "delete", made["id"], "--yes") == f"{made['id']} is deleted\n"
    assert "There is no such webhook endpoint." in cli.refused("webhook", "show", made["id"])
    assert "must be an https address" in cli.refused("webhook", "create", "--url", "http://example.com")
    assert "say order.paid" in cli.refused("webhook", "create", "--url", URL, "--event", "paid")


def test_deliveries_from_the_command_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_WEBHOOKS_ALLOW_LOOPBACK", "true")
    # Nobody listens at port 1.
    endpoint = cli.json("webhook", "create", "--url", "http://127.0.0.1:1/", "--event", "thing.*")["id"]
    cli.on_database(happen)
    (queued,) = cli.json("webhook", "deliveries")["data"]
    assert (queued["status"], queued["payload"]["type"], queued["attempts"]) == ("pending", "thing.changed", 0)
    assert cli.json("webhook", "delivery", queued["id"]) == queued
    tested = cli.json("webhook", "test", endpoint)
    assert (tested["event_type"], tested["attempts"]) == ("webhook.test", 1)
    assert tested["last_error"].startswith("ConnectError")
    assert (
        cli.json("webhook", "deliveries", "--event", "thing.changed", "--endpoint", endpoint)["data"][0]["attempts"]
        == 1
    )
    assert cli.json("webhook", "deliveries", "--status", "success")["data"] == []
    assert cli.json("webhook", "retry", queued["id"])["attempts"] == 0
    assert cli("webhook", "replay", endpoint, "--since", "2026-01-01") == "2 queued again\n"
    assert cli("webhook", "delete-delivery", queued["id"], "--yes") == f"{queued['id']} is deleted\n"
    assert "There is no such delivery." in cli.refused("webhook", "delivery", queued["id"])
    assert "ConnectError" in cli("webhook", "deliveries")
    assert "is not a time" in cli.refused("webhook", "replay", endpoint, "--since", "soon", code=2)
