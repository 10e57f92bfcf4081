from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Cli

from counterfoil.db.tx import Tx


def _record(tx: Tx, count: int) -> None:
    for number in range(count):
        tx.record("test.done", "thing", f"thi_{number}", number=number)


def test_audit(cli: Cli, elsewhere: Path) -> None:
    made = cli.json("product", "create", "editor", "--name", "Editor")
    assert cli.refused("audit", "verify", "--head", "3", code=2).startswith("error: ")
    count = len(cli.json("event", "list", "--limit", "100")["data"])
    assert cli("audit", "seal") == f"{count} events sealed\n"
    assert cli("audit", "seal") == "0 events sealed\n"
    report = cli.json("audit", "verify")
    assert report == {"good": count, "signed": count, "head": report["head"], "fault": None, "ok": True}
    assert cli("audit", "verify", "--head", report["head"]).splitlines() == [
        "result  nothing was changed",
        f"good    {count}",
        f"signed  {count}",
        f"head    {report['head']}",
    ]
    code, output = cli.attempt("audit", "verify", "--head", f"{count + 1}:{'0' * 64}", "--json")
    document = msgspec.json.decode(output)
    assert (code, document["ok"], document["fault"]["problem"]) == (1, False, "truncated")
    lines = cli("audit", "export").splitlines()
    assert cli("audit", "export", "record.jsonl") == ""
    assert (elsewhere / "record.jsonl").read_text().splitlines() == lines
    assert msgspec.json.decode(lines[-1])["event"]["object_id"] == made["id"]


def test_an_export_is_checked_without_a_database(cli: Cli, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("product", "list")  # which makes the key
    cli("audit", "seal")
    report = cli.json("audit", "verify")
    cli("audit", "export", "record.jsonl")
    (key,) = cli.json("keys", "show")["data"]
    (elsewhere / "key.pem").write_text(key["public_key_pem"])
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    offline = ("audit", "verify", "--file", "record.jsonl", "--public-key", "key.pem")
    assert cli.json(*offline) == report
    assert cli.refused("audit", "verify", "--file", "record.jsonl", code=2) == (
        "error: Invalid value: --file and --public-key go together\nhint:  counterfoil audit verify --help\n"
    )
    assert "the export cannot be read" in cli.refused("audit", "verify", "--file", "no", "--public-key", "key.pem")
    assert "a public key cannot be read" in cli.refused(*offline[:-1], "record.jsonl")
    whole = (elsewhere / "record.jsonl").read_bytes()
    (elsewhere / "record.jsonl").write_bytes(whole.replace(b"system", b"System", 1))
    code, output = cli.attempt(*offline)
    assert (code, output.splitlines()[:2]) == (1, ["result  event_changed", "link    1"])


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_changed_event_is_named(cli: Cli, database_url: str) -> None:
    cli("product", "create", "editor", "--name", "Editor")
    cli("audit", "seal")
    event = cli.json("event", "list", "--type", "product.created")["data"][0]
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as file, file:
        file.execute("UPDATE events SET actor_id = 'clj' WHERE id = ?", (event["id"],))
        (seq,) = file.execute("SELECT seq FROM event_seals WHERE id = ?", (event["id"],)).fetchone()
    code, output = cli.attempt("audit", "verify")
    assert code == 1
    assert output.splitlines()[:5] == [
        "result  event_changed",
        f"link    {seq}",
        f"event   {event['id']}",
        "what    the event is not the one that was sealed here",
        f"good    {seq - 1}",
    ]


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_bar_on_a_terminal_and_nowhere_else(cli: Cli) -> None:
    cli("product", "list")
    cli.on_database(_record, 6000)
    cli("audit", "seal")
    assert cli.error == ""
    cli("audit", "verify")
    assert cli.error == ""
    program = [sys.executable, "-m", "counterfoil.cli.main", "audit"]
    screen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    for command, title in (("verify", b"Checking"), ("export", b"Writing")):
        done = subprocess.run(
            [*program, command], stdout=subprocess.PIPE, stderr=terminal, env=environment, timeout=60, check=True
        )
        shown = os.read(screen, 65_536)
        assert title in shown
        assert b"100%" in shown
        assert title not in done.stdout
    os.close(terminal)
    os.close(screen)


def test_event_list_filters(cli: Cli) -> None:
    cli("product", "create", "editor", "--name", "Editor")
    types = [event["type"] for event in cli.json("event", "list")["data"]]
    newest = [event["type"] for event in cli.json("event", "list", "--order", "desc")["data"]]
    assert newest[0] == types[-1] == "product.created"
    assert sorted(newest) == sorted(types)
    assert cli("event", "list", "--type", "product.created", "--actor", "cli").count("product.created") == 1
    assert cli.json("event", "list", "--type", "product.created", "--until", "2026-01-01")["data"] == []
    assert len(cli.json("event", "list", "--type", "product.created", "--since", "2026-01-01")["data"]) == 1
    assert cli.json("event", "list", "--customer", "cus_x", "--object", "x")["data"] == []
    assert "is not a time" in cli.refused("event", "list", "--since", "soon", code=2)
