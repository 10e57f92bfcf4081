from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.cli.conftest import Cli
from tests.support import fake_rails

from counterfoil.kernel.money import Money
from counterfoil.rails.base import PaymentFact
from counterfoil.rails.facts import DisputeFact, InvoiceFact
from counterfoil.settlement import billing, disputing, subscribing
from counterfoil.settlement.settle import settle

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> fake_rails.Provider:
    return fake_rails.connect_everywhere(monkeypatch)


@pytest.fixture
def price(cli: Cli) -> str:
    """The id of a price of EUR 10 a month."""
    cli("product", "create", "editor", "--name", "Editor")
    cli("benefit", "set", "editor", "--machines", "2")
    made = cli.json("price", "create", "editor", "--amount", "10", "--asset", "EUR", "--every", "month")
    return str(made["id"])


@pytest.fixture
def subscription(cli: Cli, rail: fake_rails.Provider, price: str) -> str:
    """The id of an active subscription to it."""
    opened = cli.json("checkout", "create", price, "--rail", fake_rails.NAME, "--email", "ada@example.com")
    report, fact = rail.sell(opened, {price: 1})
    cli.on_database(settle, report)
    cli.on_database(subscribing.apply, fake_rails.NAME, fact)
    return str(cli.json("subscription", "list")["data"][0]["id"])


def test_a_subscription_is_paused_resumed_changed_and_ended(
    cli: Cli, rail: fake_rails.Provider, subscription: str, price: str
) -> None:
    lines = cli("subscription", "list", "--email", "ada@example.com", "--status", "active").splitlines()
    assert lines[0].split() == ["ID", "STATUS", "RAIL", "EVERY", "PAID", "UNTIL", "ENDS", "CUSTOMER", "E-MAIL"]
    assert lines[1].split()[:4] == [subscription, "active", "stripe-test", "month"]
    paused = cli.json("subscription", "pause", subscription, "--at-once", "--until", "2999-01-01")
    assert (paused["status"], paused["changes"][0]["status"]) == ("paused", "done")
    assert rail.changes()[-1]["resume_at"] == "2999-01-01T00:00:00Z"
    assert cli.json("subscription", "resume", subscription)["status"] == "active"
    assert cli.refused("subscription", "change", subscription, price) == (
        "error: The subscription is for exactly this.\n"
    )
    ending = cli.json("subscription", "cancel", subscription)
    assert (ending["cancel_at_period_end"], ending["scheduled_change"]["action"]) == (True, "cancel")
    assert cli.json("subscription", "keep", subscription)["ends_at"] is None
    assert cli.json("subscription", "cancel", subscription, "--at-once", "--yes")["status"] == "canceled"
    assert cli.refused("subscription", "pause", subscription) == "error: This subscription is canceled, for good.\n"
    shown = cli("subscription", "show", subscription)
    assert "reference             sub-1\n" in shown
    assert [line.split()[2:4] for line in shown[shown.index("\nchanges") :].splitlines()[3:]] == [
        ["cancel", "done"], ["keep", "done"], ["cancel", "done"], ["resume", "done"], ["pause", "done"],
    ]  # fmt: skip


def test_another_plan_and_what_we_note(cli: Cli, rail: fake_rails.Provider, subscription: str, price: str) -> None:
    more = cli.json("price", "create", "editor", "--amount", "25", "--asset", "EUR", "--every", "month")["id"]
    changed = cli.json("subscription", "change", subscription, f"{more}:1", "--proration", "none")
    assert [(item["price_id"], item["quantity"]) for item in changed["items"]] == [(more, 1)]
    assert rail.changes()[-1]["proration"] == "none"
    assert cli.refused("subscription", "change", subscription, f"{more}:x", code=2).count("say PRICE or PRICE:2") == 1
    noted = cli.json("subscription", "update", subscription, "--vault", "v1", "--metadata", '{"a": 1}')
    assert (noted["vault_l0"], noted["metadata"]) == ("v1", {"a": 1})
    assert cli.json("subscription", "list", "--vault", "v1")["data"][0]["id"] == subscription
    assert cli.json("subscription", "update", subscription, "--vault", "")["vault_l0"] is None
    assert cli.json("subscription", "portal", subscription) == {
        "url": "https://rail.example/p/cus-1", "update_payment_method": None, "cancel": "sub-1",
    }  # fmt: skip
    assert cli("subscription", "portal", subscription).splitlines()[0].split() == [
        "url", "https://rail.example/p/cus-1",
    ]  # fmt: skip
    assert cli.refused("subscription", "show", "sub_x") == (
        "error: There is no such subscription.\nhint:  counterfoil subscription list\n"
    )


def test_a_discount_by_hand(cli: Cli, rail: fake_rails.Provider, subscription: str) -> None:
    gift = cli.json("discount", "create", "GIFT", "--percent", "20", "--periods", "0")["id"]
    given = cli.json("subscription", "discount", subscription, gift)
    assert (given["discount_id"], given["changes"][0]["action"], given["changes"][0]["status"]) == (
        gift, "discount", "done",
    )  # fmt: skip
    assert f"discount_id           {gift}\n" in cli("subscription", "show", subscription)
    assert cli.refused("subscription", "discount", subscription, gift) == (
        "error: The subscription carries this discount already.\n"
    )
    assert cli.json("subscription", "discount", subscription, "--none")["discount_id"] is None
    assert cli.refused("subscription", "discount", subscription, "dsc_x") == (
        "error: There is no such discount.\nhint:  counterfoil discount list\n"
    )
    cli("discount", "archive", gift)
    assert "is not in use" in cli.refused("subscription", "discount", subscription, gift)
    for wrong in ((), (gift, "--none")):
        assert "either the discount" in cli.refused("subscription", "discount", subscription, *wrong, code=2)
    assert len(rail.changes()) == 2


def test_a_rail_that_is_away_is_asked_later(cli: Cli, rail: fake_rails.Provider, subscription: str) -> None:
    rail.connected = False
    asked = cli.json("subscription", "cancel", subscription)
    assert cli.error == "stripe-test is not connected: it is asked once it is\n"
    assert (asked["status"], asked["changes"][0]["status"]) == ("active", "owed")
    assert rail.changes() == []
    assert cli.refused("subscription", "portal", subscription).startswith("error: The rail is not connected.\n")


def test_invoices_and_disputes(cli: Cli, subscription: str) -> None:
    paid = PaymentFact(reference="pi-9", amount=Money(1_000, "EUR"), occurred_at=AT)
    bill = InvoiceFact(
        reference="in-9", occurred_at=AT, status="paid", amount=1_000, tax=160, asset="EUR", number="A-9",
        subscription_reference="sub-1", period_start=AT, period_end=datetime(2026, 4, 1, tzinfo=UTC), payment=paid,
        paid_at=AT,
    )  # fmt: skip
    cli.on_database(billing.bill, fake_rails.NAME, bill)
    case = DisputeFact(
        reference="dp-1", payment_reference="pi-9", occurred_at=AT, amount=1_000, asset="EUR", status="needs_response",
        reason="fraudulent",
    )  # fmt: skip
    cli.on_database(disputing.apply, fake_rails.NAME, case)
    (invoice,) = cli.json("invoice", "list", "--subscription", subscription, "--status", "paid")["data"]
    assert (invoice["number"], invoice["amount"], invoice["tax"]) == ("A-9", 1_000, 160)
    lines = cli("invoice", "list").splitlines()
    assert lines[0].split() == ["ID", "STATUS", "NUMBER", "AMOUNT", "RAIL", "SUBSCRIPTION", "PAID"]
    assert "tax              €1.60\n" in cli("invoice", "show", invoice["id"])
    assert cli.json("invoice", "show", invoice["id"]) == invoice
    assert cli.json("invoice", "list", "--status", "open")["data"] == []
    (dispute,) = cli.json("dispute", "list", "--status", "needs_response")["data"]
    assert (dispute["reason"], dispute["amount"], dispute["grants_policy"]) == ("fraudulent", 1_000, "suspend")
    assert cli("dispute", "list").splitlines()[1].split()[:4] == [
        dispute["id"],
        "needs_response",
        "€10.00",
        "fraudulent",
    ]
    assert "status             needs_response\n" in cli("dispute", "show", dispute["id"])
    for kind in ("invoice", "dispute"):
        assert cli.refused(kind, "show", "x") == f"error: There is no such {kind}.\nhint:  counterfoil {kind} list\n"
