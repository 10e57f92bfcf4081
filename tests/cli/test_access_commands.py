"""Commands on tenants, roles, staff, members and keys."""

from __future__ import annotations

from tests.cli.conftest import Cli

from counterfoil.accounts import api_keys, users
from counterfoil.accounts.permissions import KEY_ROLES


def _user(cli: Cli, email: str) -> str:
    made = cli.on_database(users.create, email=email, first_name="Ada", last_name="Lovelace", via="tests")
    return made.id


def test_tenants_come_and_change(cli: Cli) -> None:
    assert [one["slug"] for one in cli.json("tenant", "list")["data"]] == ["default"]
    made = cli.json("tenant", "create", "acme", "--host", "Acme.Example", "--owner", "boss@example.com")
    assert (made["name"], made["hosts"], made["status"]) == ("Acme", ["acme.example"], "active")
    assert cli("--tenant", "acme", "product", "list") == ""
    assert len(cli.json("--tenant", "acme", "role", "list")["data"]) == 8
    changed = cli.json("tenant", "update", "acme", "--name", "Acme Ltd", "--support-email", "help@acme.example")
    assert (changed["name"], changed["settings"]) == ("Acme Ltd", {"support_email": "help@acme.example"})
    assert cli.json("tenant", "update", made["id"], "--no-hosts", "--support-email", "")["hosts"] == []
    assert cli.json("tenant", "show", "acme")["settings"] == {}
    assert cli.json("tenant", "suspend", "acme", "--yes")["status"] == "suspended"
    assert cli("tenant", "list").splitlines()[2].split()[:4] == ["acme", "Acme", "Ltd", "-"]
    assert cli.json("tenant", "resume", "acme")["status"] == "active"
    assert cli.refused("tenant", "suspend", "default", "-y") == "error: The default tenant cannot be suspended.\n"
    assert cli.refused("tenant", "show", "nobody") == (
        "error: There is no such tenant.\nhint:  counterfoil tenant list\n"
    )
    assert "reserved" in cli.refused("tenant", "create", "admin")


def test_roles_come_and_go(cli: Cli) -> None:
    made = cli.json("role", "create", "Support", "--permission", "orders:read", "--permission", "billing_view")
    assert made["permissions"] == ["billing_view", "orders:read"]
    assert cli.json("role", "update", "Support", "--permission", "licenses:read")["permissions"] == ["licenses:read"]
    assert cli.json("role", "show", made["id"])["name"] == "Support"
    assert cli("role", "list").splitlines()[-1].split() == ["Support", "licenses:read", "no", made["id"]]
    assert cli("role", "delete", "Support", "--yes") == "Support is deleted\n"
    assert cli.refused("role", "delete", "Owner", "-y") == "error: Owner is built in and stays as it is.\n"
    assert cli.refused("role", "show", "Support").endswith("hint:  counterfoil role list\n")
    assert cli.refused("role", "create", "X", "--permission", "a:b") == "error: permissions: unknown: a:b\n"


def test_staff_is_made_and_unmade(cli: Cli) -> None:
    cli("tenant", "list")  # the first command makes the tenant
    ada = _user(cli, "ada@example.com")
    assert cli("staff", "grant", "Ada@example.com") == "Ada@example.com is SuperAdmin now\n"
    assert cli("staff", "grant", ada) == f"{ada} was SuperAdmin already\n"
    assert cli("staff", "grant", ada, "--role", "BillingAdmin") == f"{ada} is BillingAdmin now\n"
    lines = cli("staff", "list").splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["ada@example.com", "Ada", "Lovelace", "SuperAdmin"],
        ["ada@example.com", "Ada", "Lovelace", "BillingAdmin"],
    ]
    assert cli("staff", "revoke", ada, "--role", "BillingAdmin", "-y") == f"{ada} is BillingAdmin no longer\n"
    assert cli.refused("staff", "revoke", ada, "--role", "SuperAdmin", "-y") == (
        "error: The last SuperAdmin stays.\n"
    )  # fmt: skip
    assert "Nobody has an account" in cli.refused("staff", "grant", "bob@example.com")


def test_members_are_added_changed_invited_and_removed(cli: Cli) -> None:
    acme = cli.json("customer", "create", "Acme", "--slug", "acme")
    ada, bob = _user(cli, "ada@example.com"), _user(cli, "bob@example.com")
    assert cli.json("member", "add", "acme", "ada@example.com", "--role", "Owner")["roles"] == ["Owner"]
    assert cli.json("member", "add", acme["id"], bob)["roles"] == ["Member"]
    assert cli.json("member", "set-role", "acme", bob, "--role", "VaultUser")["roles"] == ["VaultUser"]
    assert len(cli("member", "list", "acme").splitlines()) == 3
    assert cli("member", "remove", "acme", bob, "-y") == f"{bob} is a member no longer\n"
    assert cli.refused("member", "remove", "acme", ada, "-y") == (
        "error: The last owner stays; make somebody else an owner first.\n"
    )
    sent = cli.json("member", "invite", "acme", "carol@example.com", "--credit-limit", "50")
    assert (sent["status"], sent["role"], sent["credit_limit"], sent["invited_by"]) == ("pending", "Member", 50, None)
    assert [one["id"] for one in cli.json("member", "invitations", "acme")["data"]] == [sent["id"]]
    assert cli.refused("member", "remove", "acme", bob, "-y").endswith("hint:  counterfoil member list CUSTOMER\n")


def test_a_key_with_a_role_for_one_customer(cli: Cli) -> None:
    acme = cli.json("customer", "create", "Acme", "--slug", "acme")
    made = cli.json("api-key", "create", "till", "--role", "support", "--customer", "acme")
    assert (made["customer_id"], made["role"], made["scopes"]) == (acme["id"], "support", sorted(KEY_ROLES["support"]))
    known = cli.on_database(api_keys.identify, made["secret"], acme["id"])
    assert known is not None
    assert known.held == set(KEY_ROLES["support"])
    assert "one of read-only" in cli.refused("api-key", "create", "x", "--role", "king")
    assert "no such customer" in cli.refused("api-key", "create", "x", "--role", "support", "--customer", "nobody")
