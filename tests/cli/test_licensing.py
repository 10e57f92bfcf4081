from __future__ import annotations

import pytest
from tests.cli.conftest import Cli

from counterfoil.kernel.ids import to_uuid
from counterfoil.kernel.signing import PublicKey
from counterfoil.licensing import keys, machines
from counterfoil.licensing.machines import Device


@pytest.fixture
def license_(cli: Cli, editor: dict[str, str]) -> dict[str, str]:
    made: dict[str, str] = cli.json("license", "create", "editor", "--email", "Ada@Example.com", "--note", "a gift")
    return made


def test_license_by_hand_is_what_the_tier_promises(cli: Cli, editor: dict[str, str], license_: dict[str, str]) -> None:
    assert license_["product_id"] == editor["product"]
    assert (license_["max_machines"], license_["entitlements"]) == (2, ["sync"])
    assert (license_["email"], license_["order_id"], license_["note"]) == ("ada@example.com", None, "a gift")
    parsed = keys.parse(license_["key"])
    assert parsed.payload.license_id == to_uuid(license_["id"])
    public = PublicKey.from_pem(cli.json("keys", "show")["data"][0]["public_key_pem"])
    assert public.verify(parsed.signature, parsed.signed)


def test_license_by_hand_with_terms_of_its_own(cli: Cli, editor: dict[str, str]) -> None:
    own = cli.json("license", "create", "editor", "--duration", "30d", "--grace", "1d", "--machines", "0", "--trial")
    assert (own["max_machines"], own["grace_seconds"], own["is_trial"], own["entitlements"]) == (0, 86400, True, [])
    text = cli("license", "show", own["id"])
    assert "grace_seconds      1 day\n" in text
    assert "max_machines       any number\n" in text
    error = cli.refused("license", "create", "editor", "--tier", "gold")
    assert error == "error: license: this tier promises no license, so say what this one is to allow\n"


def test_license_is_found_by_id_uuid_and_key(cli: Cli, license_: dict[str, str]) -> None:
    for name in (license_["id"], str(to_uuid(license_["id"])), license_["key"]):
        assert cli.json("license", "show", name) == license_
    assert f"key                {license_['key']}\n" in cli("license", "show", license_["id"])


def test_list_shows_no_keys(cli: Cli, license_: dict[str, str]) -> None:
    for options in ([], ["--product", "editor"], ["--email", "ada@example.com"]):
        document = cli.json("license", "list", *options)
        assert [one["id"] for one in document["data"]] == [license_["id"]]
        assert "key" not in document["data"][0]
    assert "LIC1-" not in cli("license", "list")
    assert cli.refused("license", "list", "--product", "editor", "--email", "x", code=2).startswith("error: ")


def test_suspend_reinstate_revoke(cli: Cli, license_: dict[str, str]) -> None:
    suspended = cli.json("license", "suspend", license_["key"], "--reason", "chargeback")
    assert (suspended["status"], suspended["suspension_reason"]) == ("suspended", "chargeback")
    assert cli.refused("license", "suspend", license_["id"]) == "error: This license is suspended.\n"
    assert cli.json("license", "reinstate", license_["id"])["status"] == "active"
    revoked = cli.json("license", "revoke", license_["id"], "--reason", "refunded", "--yes")
    assert (revoked["status"], revoked["revocation_reason"]) == ("revoked", "refunded")
    assert cli.refused("license", "revoke", license_["id"], "--yes") == "error: This license is revoked.\n"
    events = cli("event", "list", "--object", license_["id"]).splitlines()
    assert [line.split()[2] for line in events[1:]] == [
        "license.issued",
        "license.suspended",
        "license.reinstated",
        "license.revoked",
    ]
    assert {line.split()[4] for line in events[1:]} == {"system/cli"}


def test_machines(cli: Cli, license_: dict[str, str]) -> None:
    device = Device("f" * 64, hostname="laptop\x1b[31m", platform="linux")
    done = cli.on_database(machines.activate, license_["id"], device)
    assert done.machine_id is not None
    table = cli("machine", "list", license_["key"])
    assert f"{done.machine_id}  laptop\\x1b[31m  linux     active" in table
    assert cli.json("machine", "deactivate", done.machine_id)["deactivation_reason"] == "by staff"
    assert "deactivated" in cli("machine", "list", license_["id"])
    assert cli.refused("machine", "deactivate", done.machine_id) == "error: This machine is already deactivated.\n"
    assert cli.refused("machine", "list", "lic_x").startswith("error: There is no such license.\n")


def test_rotated_keys_still_verify_what_they_signed(cli: Cli, license_: dict[str, str]) -> None:
    before = cli.json("keys", "show")["data"]
    after = cli.json("keys", "rotate")["data"]
    assert [one["status"] for one in after] == ["verify_only", "active"]
    assert after[0]["public_key_pem"] == before[0]["public_key_pem"]
    assert not {"private_key_sealed", "public_key"} & set(after[1])
    assert cli.json("license", "show", license_["key"])["id"] == license_["id"]
    fresh = cli.json("license", "create", "editor")
    parsed = keys.parse(fresh["key"])
    assert PublicKey.from_pem(after[1]["public_key_pem"]).verify(parsed.signature, parsed.signed)
    text = cli("keys", "show")
    assert text.endswith(after[1]["public_key_pem"])
    assert text.count("BEGIN PUBLIC KEY") == 1


def test_keys_that_are_not_ours(cli: Cli, license_: dict[str, str]) -> None:
    tampered = license_["key"][:-3] + ("A" if license_["key"][-3] != "A" else "B") + license_["key"][-2:]
    assert (
        cli.refused("license", "show", tampered) == "error: this license key is not good: not signed by this seller\n"
    )
    assert cli.refused("license", "show", "LIC1-x").startswith("error: this license key is not good: ")
    assert cli.refused("license", "show", "lic_x").startswith("error: There is no such license.\n")
