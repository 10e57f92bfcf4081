from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.cli.conftest import Cli

from counterfoil.house import open_house
from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.settings import Settings
from counterfoil.settlement.settle import settle


def _report(checkout: dict[str, str], amount: int, asset: str = "SAT", reference: str = "r1") -> CheckoutReport:
    fact = PaymentFact(reference=reference, amount=Money(amount, asset), occurred_at=datetime.now(UTC))
    return CheckoutReport(
        rail="sandbox",
        reference=checkout["rail_reference"],
        checkout_id=checkout["id"],
        state="settled",
        payments=(fact,),
        final=True,
    )


@pytest.fixture
def sandbox(cli: Cli) -> None:
    """The sandbox rail, as a server with these settings leaves it."""

    async def furnish() -> None:
        async with open_house(Settings.load(sandbox=True)):
            pass

    asyncio.run(furnish())


def test_free_checkout_is_an_order_at_once(cli: Cli, editor: dict[str, str]) -> None:
    cli("discount", "create", "gift", "--free")
    done = cli.json(
        "checkout", "create", editor["price"], "--rail", "free", "--code", "gift", "--email", "Ada@Example.com"
    )
    assert (done["status"], done["amount"], done["email"]) == ("settled", 0, "ada@example.com")
    assert done["claim"].startswith("pur_")
    orders = cli.json("order", "list", "--email", "ada@example.com")["data"]
    assert [order["checkout_id"] for order in orders] == [done["id"]]
    shown = cli.json("order", "show", orders[0]["id"])
    assert [one["order_id"] for one in shown["licenses"]] == [orders[0]["id"]]
    assert [one["amount"] for one in shown["payments"]] == [0]


@pytest.mark.usefixtures("sandbox")
def test_paid_checkout(cli: Cli, editor: dict[str, str]) -> None:
    opened = cli.json("checkout", "create", f"{editor['price']}:2", "--email", "ada@example.com")
    assert (opened["status"], opened["amount"], opened["rail"]) == ("open", 42_000, "sandbox")
    assert opened["url"].startswith("http://127.0.0.1:8787/sandbox/pay/")
    assert not {"idempotency_key", "request_hash"} & set(opened)
    cli.on_database(settle, _report(opened, 42_000))
    shown = cli.json("checkout", "show", opened["id"])
    assert (shown["status"], "claim" in shown) == ("settled", False)
    assert [one["id"] for one in cli.json("checkout", "list", "--status", "settled")["data"]] == [opened["id"]]
    assert cli.json("checkout", "list", "--status", "open")["data"] == []
    order = cli.json("order", "list")["data"][0]
    text = cli("order", "show", order["id"])
    assert "amount              42,000 sats\n" in text
    assert (
        "\nitems\n"
        "NAME    TIER     QUANTITY         EACH        TOTAL\n"
        "Editor  default         2  21,000 sats  42,000 sats\n"
    ) in text
    assert text.count("default  active  never    0 of 2    ada@example.com") == 2
    assert "settled  42,000 sats  sandbox" in text
    assert "42,000 sats  2 x Editor  sandbox  ada@example.com" in cli("order", "list")


@pytest.mark.usefixtures("sandbox")
def test_short_payment_waits_for_a_person(cli: Cli, editor: dict[str, str]) -> None:
    opened = cli.json("checkout", "create", editor["price"])
    cli.on_database(settle, _report(opened, 20_000))
    waiting = cli.json("payment", "list", "--attention")["data"]
    assert [one["status"] for one in waiting] == ["underpaid"]
    payment = waiting[0]["id"]
    assert cli.json("order", "list")["data"] == []
    assert cli.refused("payment", "resolve", payment, code=2).startswith("error: ")
    done = cli.json("payment", "resolve", payment, "--accept", "--note", "close enough")
    assert (done["resolution"], done["resolution_note"]) == ("accepted", "close enough")
    assert cli.json("payment", "show", payment) == done
    assert "accepted  20,000 sats  sandbox" in cli("payment", "list")
    assert len(cli.json("order", "list")["data"]) == 1
    assert cli.json("payment", "list", "--attention")["data"] == []
    assert cli.refused("payment", "resolve", payment, "--dismiss") == (
        "error: There is nothing left to resolve about this payment.\n"
    )


@pytest.mark.usefixtures("sandbox")
def test_money_for_nothing_we_know_can_be_dismissed(cli: Cli) -> None:
    stranger = {"id": "chk_" + "0" * 26, "rail_reference": "sbx_unknown"}
    cli.on_database(settle, _report(stranger, 7))
    payment = cli.json("payment", "list", "--attention")["data"][0]
    assert payment["status"] == "unmatched"
    assert "belongs to no checkout" in cli.refused("payment", "resolve", payment["id"], "--accept")
    assert cli.json("payment", "resolve", payment["id"], "--dismiss")["resolution"] == "dismissed"


@pytest.mark.usefixtures("sandbox")
def test_command_beside_a_server_leaves_its_sandbox_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cli.json("rail", "list")
    monkeypatch.setenv("COUNTERFOIL_SANDBOX", "false")
    monkeypatch.setenv("COUNTERFOIL_PORT", "9999")
    assert cli.json("rail", "list") == before
    assert before["data"][0]["details"] == {"base_url": "http://127.0.0.1:8787"}


def test_refusals(cli: Cli, editor: dict[str, str]) -> None:
    assert cli.refused("checkout", "create", editor["price"]) == (
        "error: No rail is connected yet.\nhint:  counterfoil rail list\n"
    )
    assert cli.refused("checkout", "create", f"{editor['price']}:x", code=2).startswith("error: ")
    assert "lines/0/quantity" in cli.refused("checkout", "create", f"{editor['price']}:0", "--rail", "free")
    assert cli.refused("order", "show", "ord_x") == "error: There is no such order.\nhint:  counterfoil order list\n"
    assert cli.refused("checkout", "show", "x").startswith("error: There is no such checkout.\n")
    assert cli.refused("payment", "show", "x").startswith("error: There is no such payment.\n")
    assert cli.json("checkout", "list")["data"] == []


def test_money_outside_of_the_rails(cli: Cli) -> None:
    made = cli.json("payment", "record", "receipt 7", "--amount", "12.00", "--asset", "EUR", "--payer", "Ada")
    assert (made["rail"], made["amount"], made["status"], made["archived_at"]) == ("manual", 1200, "settled", None)
    assert cli.json("payment", "find", "manual", "receipt 7") == made
    assert cli.refused("payment", "record", "receipt 7", "--sats", "1").startswith(
        "error: The payment 'receipt 7' on manual was recorded before.\n"
    )
    assert "sandbox proves its own money" in cli.refused("payment", "record", "8", "--sats", "1", "--rail", "sandbox")
    assert cli("payment", "archive") == "archived 0\n"
    assert cli("payment", "archive", "--older-than", "0") == "archived 1\n"
    assert cli.json("payment", "list")["data"] == []
    (old,) = cli.json("payment", "list", "--archived")["data"]
    assert (old["id"], old["archived_at"] is None) == (made["id"], False)
    assert cli.json("payment", "show", made["id"]) == cli.json("payment", "find", "manual", "receipt 7") == old
    assert cli.refused("payment", "find", "manual", "9").startswith("error: There is no payment by this reference.\n")
    assert cli.refused("payment", "list", "--archived", "--attention", code=2).startswith("error: ")
