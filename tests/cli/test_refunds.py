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


@pytest.fixture
def order(cli: Cli) -> str:
    """The id of a paid order of $19.90."""

    async def furnish() -> None:
        async with open_house(Settings.load(sandbox=True)):
            pass

    asyncio.run(furnish())
    cli("product", "create", "editor", "--name", "Editor")
    cli("benefit", "set", "editor", "--machines", "2")
    price = cli.json("price", "create", "editor", "--amount", "19.90", "--asset", "USD")
    opened = cli.json("checkout", "create", price["id"])
    fact = PaymentFact(reference="r1", amount=Money(1_990, "USD"), occurred_at=datetime.now(UTC))
    report = CheckoutReport(
        rail="sandbox", reference=opened["rail_reference"], checkout_id=opened["id"], state="settled",
        payments=(fact,), final=True,
    )  # fmt: skip
    cli.on_database(settle, report)
    return str(cli.json("order", "list")["data"][0]["id"])


def test_a_refund_is_asked_for_approved_and_given_back(cli: Cli, order: str) -> None:
    part = cli.json("refund", "request", "--order", order, "--amount", "9.90", "--reason", "half broken")
    assert (part["status"], part["amount"], part["requested_by"]) == ("pending", 990, "system:cli")
    assert (part["type"], part["grants_policy"], part["reason"]) == ("partial", "keep", "half broken")
    done = cli.json("refund", "approve", part["id"])
    assert (done["status"], done["processed_by"], done["rail_reference"][:5]) == ("processed", "rail:sandbox", "sbxr_")
    payment = cli.json("payment", "list")["data"][0]["id"]
    rest = cli.json("refund", "request", "--payment", payment, "--grants", "suspend")
    assert (rest["amount"], rest["grants_policy"]) == (1_000, "suspend")
    lines = cli("refund", "list").splitlines()
    assert lines[0].split() == ["ID", "STATUS", "AMOUNT", "RAIL", "PAYMENT", "ORDER", "ASKED", "ERROR"]
    assert lines[1].split()[:4] == [done["id"], "processed", "$9.90", "sandbox"]
    assert [one["id"] for one in cli.json("refund", "list", "--status", "pending", "--order", order)["data"]] == [
        rest["id"]
    ]
    assert "amount           $10.00\n" in cli("refund", "approve", rest["id"], "--grants", "revoke")
    assert cli.json("refund", "show", rest["id"])["status"] == "processed"
    assert [one["status"] for one in cli.json("license", "list")["data"]] == ["revoked"]
    assert cli.refused("refund", "request", "--order", order) == (
        "error: Of what was paid, nothing is left to give back.\n"
    )


def test_a_refund_is_denied_withdrawn_or_settled_by_hand(cli: Cli, order: str) -> None:
    one, two = [cli.json("refund", "request", "--order", order, "--amount", "1")["id"] for _ in range(2)]
    denied = cli.json("refund", "deny", one, "--note", "too late")
    assert (denied["status"], denied["error"]) == ("denied", "too late")
    assert cli.json("refund", "withdraw", two)["error"] == "withdrawn"
    assert cli.refused("refund", "approve", two) == "error: This refund is denied.\n"
    refused = cli.json("refund", "request", "--order", order, "--recipient", "refuse", "--expires", "2999-01-01")["id"]
    assert cli.json("refund", "approve", refused)["status"] == "failed"
    settled = cli.json("refund", "settle", refused, "--reference", "IBAN 1")
    assert (settled["status"], settled["rail_reference"], settled["processed_by"]) == (
        "processed",
        "IBAN 1",
        "system:cli",
    )
    assert cli.refused("refund", "settle", refused, "--reference", "x") == "error: This refund is processed.\n"


def test_refunds_that_make_no_sense(cli: Cli, order: str) -> None:
    assert "say --order or --payment" in cli.refused("refund", "request", code=2)
    for amount in ("19.901", "x"):
        assert "--amount" in cli.refused("refund", "request", "--order", order, f"--amount={amount}", code=2)
    for amount in ("0", "-1"):
        assert "amount: from 1 to" in cli.refused("refund", "request", "--order", order, f"--amount={amount}")
    for restock in ("1", "=", "0=1=2", "0=x", "-1=1"):
        assert "--restock" in cli.refused("refund", "request", "--order", order, f"--restock={restock}", code=2)
    assert "restock/0/line" in cli.refused("refund", "request", "--order", order, "--restock", "1=1")
    assert cli.refused("refund", "show", "rfd_x") == "error: There is no such refund.\nhint:  counterfoil refund list\n"
    assert "There is no such order" in cli.refused("refund", "request", "--order", "x", "--amount", "1")
    assert cli.json("refund", "list")["data"] == []
