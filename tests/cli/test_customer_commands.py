"""The commands on customers, their addresses and businesses, and margins."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Cli


@pytest.fixture
def acme(cli: Cli) -> dict[str, str]:
    """An MSP with a client and its department: their ids."""
    msp = cli.json("customer", "create", "Big MSP", "--msp", "--slug", "big")["id"]
    client = cli.json("customer", "create", "Zoë & Söhne", "--parent", "big", "--email", "Z@example.com")["id"]
    department = cli.json("customer", "create", "Lab", "--parent", client, "--slug", "lab")["id"]
    return {"msp": msp, "client": client, "department": department}


def test_customers_are_listed_and_shown(cli: Cli, acme: dict[str, str]) -> None:
    cli("customer", "create", "Ada", "--kind", "person")
    lines = cli("customer", "list").splitlines()
    assert lines[0].split() == ["NAME", "KIND", "LEVEL", "E-MAIL", "SLUG", "STATUS", "ID"]
    assert len(lines) == 5
    assert [one["name"] for one in cli.json("customer", "list", "--parent", "big")["data"]] == ["Zoë & Söhne"]
    assert [one["name"] for one in cli.json("customer", "list", "--kind", "person")["data"]] == ["Ada"]
    assert [one["name"] for one in cli.json("customer", "list", "--email", "z@EXAMPLE.com")["data"]] == ["Zoë & Söhne"]
    shown = cli("customer", "show", "lab")
    assert "level              department" in shown
    assert cli.json("customer", "show", "lab")["parent_id"] == acme["client"]


def test_a_customer_changes(cli: Cli, acme: dict[str, str]) -> None:
    changed = cli.json(
        "customer", "update", "lab", "--name", "Laboratory", "--slug", "", "--locale", "de-AT", "--marketing",
        "--notes", "Pays late.", "--metadata", '{"a": 1}',
    )  # fmt: skip
    wanted = {
        "name": "Laboratory",
        "slug": None,
        "locale": "de-AT",
        "marketing_consent": True,
        "internal_notes": "Pays late.",
        "metadata": {"a": 1},
        "level": 3,
    }
    assert {name: changed[name] for name in wanted} == wanted
    assert cli.json("customer", "update", acme["department"], "--no-marketing")["marketing_consent"] is False


def test_the_tree_is_drawn(cli: Cli, acme: dict[str, str]) -> None:
    cli("customer", "archive", "lab")
    assert [line.rstrip() for line in cli("customer", "tree", "big").splitlines()] == [
        f"Big MSP (MSP) {acme['msp']}",
        f"└── Zoë & Söhne (customer) {acme['client']}",
        f"    └── Lab (department, archived) {acme['department']}",
    ]
    nested = cli.json("customer", "tree", "big")
    assert nested["customers"][0]["customers"][0]["id"] == acme["department"]


def test_a_customer_moves_goes_and_comes_back(cli: Cli, acme: dict[str, str]) -> None:
    assert cli.json("customer", "move", "lab", "big")["level"] == 2
    assert cli.json("customer", "move", "lab", "--top")["parent_id"] is None
    assert cli.refused("customer", "move", "big", acme["client"]) == "error: A customer cannot be below itself.\n"
    assert "error: Invalid value: say the customer to be above it, or --top" in cli.refused(
        "customer", "move", "lab", code=2
    )
    assert cli.refused("customer", "delete", "big", "--yes") == "error: There are customers below this one.\n"
    assert cli.json("customer", "delete", "lab", "--yes")["deleted_at"] is not None
    assert cli.refused("customer", "show", "lab") == (
        "error: There is no such customer.\nhint:  counterfoil customer list\n"
    )
    assert cli.json("customer", "show", acme["department"])["name"] == "Lab"
    assert cli.json("customer", "restore", acme["department"])["deleted_at"] is None
    assert cli.json("customer", "archive", acme["department"])["status"] == "archived"
    assert cli.json("customer", "restore", acme["department"])["status"] == "active"


def test_addresses_and_businesses(cli: Cli, acme: dict[str, str]) -> None:
    made = cli.json("customer", "address", "create", "big", "--country", "AT", "--city", "Wien")["id"]
    assert cli.json("customer", "address", "update", "big", made, "--zip-code", "1010")["zip_code"] == "1010"
    assert "1010 Wien" in cli("customer", "address", "list", "big")
    assert "1010 Wien" in cli("customer", "show", "big")
    assert cli.json("customer", "address", "archive", "big", made)["status"] == "archived"
    assert cli.json("customer", "address", "restore", "big", made)["status"] == "active"
    assert cli.refused("customer", "address", "archive", "lab", made) == (
        "error: This customer has no such address.\nhint:  counterfoil customer address list CUSTOMER\n"
    )
    business = cli.json(
        "customer", "business", "create", "big", "Big GmbH", "--tax-identifier", "ATU12345678", "--contact",
        "Zoë=zoe@example.com",
    )  # fmt: skip
    assert business["contacts"] == [{"name": "Zoë", "email": "zoe@example.com"}]
    changed = cli.json("customer", "business", "update", "big", business["id"], "--tax-identifier", "")
    assert changed["tax_identifier"] is None
    assert "Zoë <zoe@example.com>" in cli("customer", "business", "list", "big")
    assert cli.json("customer", "business", "archive", "big", business["id"])["status"] == "archived"
    assert cli.json("customer", "business", "restore", "big", business["id"])["status"] == "active"
    assert "NAME=EMAIL" in cli.refused("customer", "business", "create", "big", "X", "--contact", "zoe", code=2)


def test_a_margin(cli: Cli, acme: dict[str, str]) -> None:
    made = cli.json("discount", "create", "--margin-of", "big", "--percent", "30")
    assert (made["customer_id"], made["code"], made["amount"]) == (acme["msp"], None, 3_000)
    assert f"margin of {acme['msp']}" in cli("discount", "list")
    cli.refused("discount", "create", "--percent", "30", code=2)
    cli.refused("discount", "create", "CODE", "--margin-of", "big", "--percent", "30", code=2)
