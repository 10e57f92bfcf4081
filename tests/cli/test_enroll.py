"""The link that lets the first owner in."""

from __future__ import annotations

import re

import pytest
from tests.cli.conftest import Cli

from counterfoil.accounts import enrollment, roles


def test_a_link_is_printed_once_and_kept_as_a_hash(cli: Cli) -> None:
    output = cli("enroll", "Ada@Example.com", "--first-name", "Ada")
    match = re.fullmatch(
        r"e-mail  ada@example\.com\nrole    SuperAdmin\nuntil   \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\n"
        r"link    http://localhost:8787/enroll/([a-z2-7]{32})\n",
        output,
    )
    assert match is not None, output
    found = cli.on_database(enrollment.read, match[1])
    assert (found.email, found.first_name, found.known) == ("ada@example.com", "Ada", False)
    assert match[1] not in cli("event", "list", "--json")
    (event,) = cli.json("event", "list", "--type", "staff.invited")["data"]
    assert (event["actor_kind"], event["actor_id"], event["source"]) == ("system", "cli", "cli")


def test_a_link_for_another_role_as_json(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_PUBLIC_URL", "https://shop.example")
    made = cli.json("enroll", "bob@example.com", "--role", "BillingAdmin")
    assert made["link"].startswith("https://shop.example/enroll/")
    found = cli.on_database(enrollment.read, made["link"].rpartition("/")[2])
    assert (found.role, made["role"]) == ("BillingAdmin", "BillingAdmin")


def test_what_cannot_be_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not an e-mail address" in cli.refused("enroll", "ada")
    assert "There is no role 'Nobody'" in cli.refused("enroll", "ada@example.com", "--role", "Nobody")
    assert "control characters" in cli.refused("enroll", "ada@example.com", "--last-name", "a\nb")
    assert "Missing argument" in cli.refused("enroll", code=2)
    monkeypatch.setenv("COUNTERFOIL_PUBLIC_URL", "http://shop.example")
    assert "Set COUNTERFOIL_PUBLIC_URL" in cli.refused("enroll", "ada@example.com")
    assert cli.json("event", "list", "--type", "staff.invited")["data"] == []
    assert cli.on_database(roles.by_name, "SuperAdmin").built_in
