from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.peers.btcpay_server import API_KEY, STORE_ID
from tests.peers.fixtures import BTCPayPeer, running_btcpay

from counterfoil.accounts import api_keys, tenants
from counterfoil.cli.main import COMMANDS, run
from counterfoil.db.tx import Tx
from counterfoil.kernel.secrets import fingerprint


def test_api_key_is_shown_once(cli: Cli) -> None:
    made = cli.json("api-key", "create", "build", "--scope", "products:read", "--scope", "orders:read")
    assert made["secret"].startswith("cfk_")
    caller = cli.on_database(api_keys.identify, made["secret"], None)
    assert caller is not None
    assert caller.held == {"products:read", "orders:read"}
    for output in (cli("api-key", "list"), str(cli.json("api-key", "list"))):
        assert made["id"] in output
        assert made["secret"] not in output
        assert fingerprint(made["secret"]) not in output
    assert cli("api-key", "revoke", made["id"]) == f"{made['id']} is revoked\n"
    assert cli.on_database(api_keys.identify, made["secret"], None) is None
    assert cli.refused("api-key", "revoke", made["id"]) == (
        "error: There is no working API key with this id.\nhint:  counterfoil api-key list\n"
    )


def test_api_key_text(cli: Cli) -> None:
    lines = cli("api-key", "create", "build", "--scope", "*", "--expires", "2031-01-01").splitlines()
    assert [line.split()[0] for line in lines] == ["id", "name", "scopes", "customer", "expires", "secret"]
    assert lines[1:5] == ["name      build", "scopes    *", "customer  -", "expires   2031-01-01 00:00:00Z"]


def test_api_key_needs_scopes_that_exist(cli: Cli) -> None:
    assert "or --scope: products:read, " in cli.refused("api-key", "create", "x", code=2)
    assert cli.refused("api-key", "create", "x", "--scope", "world:rule") == "error: scopes: unknown: world:rule\n"
    assert cli.json("api-key", "list")["data"] == []


def test_health(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("health") == "database  ok\njobs      ok\n"
    assert cli.json("health") == {"status": "ok", "checks": {"database": "ok", "jobs": "ok"}}
    monkeypatch.setenv("COUNTERFOIL_PORT", "1")
    code, output = cli.attempt("health", "--server")
    assert (code, output.splitlines()[2].startswith("server    does not answer on 127.0.0.1:1 (")) == (1, True)


def test_events_name_the_command_line(cli: Cli, editor: dict[str, str]) -> None:
    lines = cli("event", "list", "--object", editor["price"]).splitlines()
    assert lines[0].split() == ["AT", "EVENT", "OBJECT", "BY", "AMOUNT"]
    assert lines[1].endswith(f"Z  price.created  {editor['price']}  system/cli  21,000 sats")
    event = cli.json("event", "list", "--object", editor["price"])["data"][0]
    assert (event["actor_kind"], event["actor_id"], event["amount"], event["asset"]) == ("system", "cli", 21000, "SAT")


def test_tenants_are_apart(cli: Cli, editor: dict[str, str]) -> None:
    def second(tx: Tx) -> None:
        tx.tenant = "ten_" + "1" * 26
        tenants.create(tx, "acme", "Acme")

    cli.on_database(second)
    assert cli("--tenant", "acme", "product", "list") == ""
    cli("--tenant", "acme", "product", "create", "editor")
    assert cli.json("--tenant", "acme", "product", "show", "editor")["id"] != editor["product"]
    assert len(cli.json("product", "list")["data"]) == 1


@pytest.fixture(scope="module")
def btcpay() -> Iterator[BTCPayPeer]:
    with running_btcpay() as peer:
        yield peer


def test_btcpay_connects_and_disconnects(cli: Cli, btcpay: BTCPayPeer, elsewhere: Path) -> None:
    (elsewhere / "btcpay.key").write_text(f"{API_KEY}\n")
    done = cli.json("rail", "connect-btcpay", btcpay.url, "--api-key-file", "btcpay.key")
    assert (done["rail"], done["base_url"], done["store_id"]) == ("btcpay", btcpay.url, STORE_ID)
    listed = cli("rail", "list")
    assert listed.splitlines()[1].startswith(f"btcpay  connected  {btcpay.url}")
    assert API_KEY not in listed + str(cli.json("rail", "list"))
    assert cli("rail", "disconnect", "btcpay", "--yes") == "btcpay is disconnected\n"
    assert cli.refused("rail", "disconnect", "btcpay", "--yes") == (
        "error: The rail 'btcpay' is not connected.\nhint:  counterfoil rail list\n"
    )


def test_btcpay_key_from_standard_input(cli: Cli, btcpay: BTCPayPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = btcpay.control("keys", permissions=["btcpay.store.canviewstoresettings"])["apiKey"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{weak}\n"))
    error = cli.refused("rail", "connect-btcpay", btcpay.url, "--api-key-file", "-")
    assert error.startswith("error: api_key: lacks btcpay.store.")
    assert weak not in error
    assert cli.json("rail", "list")["data"] == []


def test_btcpay_refusals(cli: Cli, btcpay: BTCPayPeer, elsewhere: Path) -> None:
    (elsewhere / "key").write_text("wrong")
    arguments = ("rail", "connect-btcpay")
    assert cli.refused(*arguments, btcpay.url, "--api-key-file", "key").startswith("error: BTCPay: ")
    assert cli.refused(*arguments, "http://127.0.0.1:1", "--api-key-file", "key").startswith(
        "error: BTCPay did not answer: "
    )
    assert cli.refused(*arguments, btcpay.url, "--api-key-file", "nope") == (
        "error: the API key cannot be read from nope: No such file or directory\n"
    )
    assert "address" in cli.refused(*arguments, "ftp://x", "--api-key-file", "key")


def test_every_command_has_help_that_fits_its_summary(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        assert run([name, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        first = command.summary.split(":")[0].split(" (")[0].removesuffix(".").split(",")[0]
        assert first.split()[0].lower() in shown.lower(), name
    assert run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: counterfoil ")
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("counterfoil ")
