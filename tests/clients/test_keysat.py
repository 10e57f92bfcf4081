"""The published Python client of existing license servers, unmodified, against ours over real HTTP.

It is the PyPI package ``keysat-licensing-client`` with its ``online`` extra.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import keysat_licensing_client as keysat
import pytest
from tests.support.remote import Remote, connected
from tests.support.server import serving

from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
def remote(database_url: str, tmp_path: Path, master: MasterKey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    # The client reads the proxy settings of its environment.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with (
        serving(database_url, tmp_path / "server", master=master) as server,
        connected(server.url, database_url, master) as remote,
    ):
        yield remote


def stock(remote: Remote) -> None:
    """Two tiers for satoshis, one for dollars, and codes."""
    product = remote.staff("POST", "/v1/products", slug="editor", name="Editor", description="Writes.")["id"]
    promises: dict[str, dict[str, Any]] = {
        "solo": {"max_machines": 1, "entitlements": ["export"], "duration_seconds": 365 * 86_400},
        "team": {"max_machines": 3, "entitlements": ["export", "sync"]},
        "usd": {"max_machines": 99},
    }
    for tier, spec in promises.items():
        remote.staff("PUT", f"/v1/products/{product}/benefits", tier=tier, license=spec)
    for tier, asset, amount in [("solo", "SAT", 21_000), ("team", "SAT", 50_000), ("usd", "USD", 4900)]:
        remote.staff("POST", f"/v1/products/{product}/prices", tier=tier, asset=asset, unit_amount=amount)
    remote.staff("POST", "/v1/discounts", code="tenth", kind="percentage", amount=1000)
    remote.staff("POST", "/v1/discounts", code="gift", kind="free", tiers=["team"], usage_limit=1)


def test_the_published_client_from_tiers_to_deactivation(remote: Remote) -> None:
    assert version("keysat-licensing-client") == "0.3.0"
    stock(remote)
    client = keysat.Client(remote.url)

    # It lists tiers: in satoshis, cheapest first, and none that it could not pay for.
    tiers = client.list_public_policies("editor")
    assert tiers.product == keysat.PublicPoliciesProduct("editor", "Editor", "Writes.", 21_000, [])
    assert [(one.slug, one.name, one.price_sats, one.max_machines, one.entitlements) for one in tiers.policies] == [
        ("solo", "Solo", 21_000, 1, ["export"]),
        ("team", "Team", 50_000, 3, ["export", "sync"]),
    ]
    assert [one.duration_seconds for one in tiers.policies] == [365 * 86_400, 0]
    assert not any(one.is_trial or one.is_recurring or one.trial_days for one in tiers.policies)

    # It purchases, with a code.
    session = client.start_purchase(
        "editor",
        keysat.StartPurchaseOptions(
            buyer_email="ann@x.example",
            buyer_note="hi",
            policy_slug="team",
            code="tenth",
            redirect_url="http://x.example/",
        ),
    )
    assert (session.amount_sats, session.base_price_sats, session.discount_applied_sats) == (45_000, 50_000, 5_000)
    assert session.checkout_url.startswith(f"{remote.url}/sandbox/pay/")
    assert session.poll_url == f"{remote.url}/v1/purchase/{session.invoice_id}"
    waiting = client.poll_purchase(session.invoice_id)
    assert (waiting.status, waiting.license_key, waiting.license_id) == ("pending", None, None)
    assert waiting.amount_sats == 45_000

    # It polls until the key is there; meanwhile somebody pays.
    found: list[str] = []
    poller = threading.Thread(
        target=lambda: found.append(client.wait_for_license(session.invoice_id, interval_s=0.02, timeout_s=30))
    )
    poller.start()
    remote.pay(session.checkout_url)
    poller.join(30)
    (key,) = found
    settled = client.poll_purchase(session.invoice_id)
    assert (settled.status, settled.license_key) == ("settled", key)

    # It verifies the key offline with the public key it fetched.
    verifier = keysat.Verifier(keysat.PublicKey.from_pem(client.fetch_pubkey_pem()))
    offline = verifier.verify_with_time(key, int(time.time()))
    assert str(offline.license_id) == settled.license_id
    assert str(offline.product_id) == settled.product_id
    assert (offline.entitlements, offline.expires_at, offline.is_trial) == (["export", "sync"], 0, False)
    assert abs(offline.issued_at - time.time()) < 60
    with pytest.raises(keysat.LicensingError) as tampered:
        verifier.verify(_with_one_bit_changed(key))
    assert tampered.value.kind == "bad_signature"

    # It validates; a machine takes its place on the way.
    answer = client.validate(key, product_slug="editor", fingerprint="machine-1")
    assert (answer.ok, answer.reason, answer.status, answer.max_machines) == (True, None, "active", 3)
    assert (answer.license_id, answer.product_slug) == (settled.license_id, "editor")
    assert answer.entitlements == ["export", "sync"]
    assert answer.machine_id is not None
    assert client.validate(key, product_slug="viewer").reason == "product_mismatch"
    assert client.validate(_with_one_bit_changed(key)).reason == "bad_signature"
    assert client.validate("LIC1-nonsense").reason == "bad_format"

    # It activates up to the cap, and is refused one past it.
    again = client.activate(key, "machine-1", hostname="h", platform="linux")
    assert (again.ok, again.machine_id, again.active_count, again.max_machines) == (True, answer.machine_id, 1, 3)
    for place in (2, 3):
        activated = client.activate(key, f"machine-{place}")
        assert (activated.ok, activated.active_count, activated.reason) == (True, place, None)
    refused = client.activate(key, "machine-4")
    assert (refused.ok, refused.reason, refused.machine_id) == (False, "too_many_machines", None)
    assert (refused.active_count, refused.max_machines) == (3, 3)
    assert client.validate(key, fingerprint="machine-4").reason == "too_many_machines"

    # It heartbeats and deactivates, which frees a place.
    assert client.heartbeat(key, "machine-1").machine_id == answer.machine_id
    assert client.heartbeat(key, "machine-4").reason == "not_activated"
    assert client.deactivate(key, "machine-2", reason="sold").ok is True
    assert client.deactivate(key, "machine-2").reason == "not_found"
    assert client.activate(key, "machine-4").ok is True
    (license_,) = remote.staff("GET", "/v1/licenses")["data"]
    assert license_["machine_count"] == 3

    # It redeems a code for a free license, once: one that verifies and validates like the other.
    with pytest.raises(keysat.LicensingError, match="404"):
        client.redeem_free_license("nothing", "gift")
    redeemed = client.redeem_free_license("editor", "GIFT", keysat.RedeemFreeOptions(buyer_email="bob@x.example"))
    assert str(verifier.verify(redeemed.license_key).license_id) == redeemed.license_id
    assert client.validate(redeemed.license_key).max_machines == 3
    assert client.poll_purchase(redeemed.invoice_id).license_key == redeemed.license_key
    with pytest.raises(keysat.LicensingError, match="400") as spent:
        client.redeem_free_license("editor", "gift")
    assert spent.value.kind == "server_error"


def _with_one_bit_changed(key: str) -> str:
    prefix, payload, signature = key.split("-")
    raw = bytearray(base64.b32decode(payload + "=" * (-len(payload) % 8)))
    raw[40] ^= 1
    return f"{prefix}-{base64.b32encode(bytes(raw)).decode().rstrip('=')}-{signature}"


def test_refusals_as_the_published_client_meets_them(remote: Remote) -> None:
    stock(remote)
    client = keysat.Client(remote.url)
    refusals: list[tuple[str, Any]] = [
        ("404", lambda: client.start_purchase("nothing")),
        ("404", lambda: client.start_purchase("editor", keysat.StartPurchaseOptions(policy_slug="usd"))),
        ("400", lambda: client.start_purchase("editor", keysat.StartPurchaseOptions(code="unknown"))),
        ("400", lambda: client.start_purchase("editor", keysat.StartPurchaseOptions(buyer_email="nonsense"))),
        ("404", lambda: client.poll_purchase("pur_nothing")),
        ("404", lambda: client.list_public_policies("nothing")),
        ("400", lambda: client.redeem_free_license("editor", "tenth")),
        ("400", lambda: client.activate("LIC1-nonsense", "machine")),
    ]
    for status, call in refusals:
        with pytest.raises(keysat.LicensingError, match=f"HTTP {status}") as refusal:
            call()
        assert refusal.value.kind == "server_error"
    assert remote.staff("GET", "/v1/checkouts")["data"] == []
    assert remote.staff("GET", "/v1/licenses")["data"] == []


def test_a_stopped_license_as_the_published_client_meets_it(remote: Remote) -> None:
    stock(remote)
    client = keysat.Client(remote.url)
    made = remote.staff("POST", "/v1/licenses", product="editor", tier="solo")
    key = made["key"]
    assert client.validate(key, fingerprint="laptop").ok is True
    locked = client.validate(key, fingerprint="desktop")
    assert (locked.reason, locked.max_machines) == ("fingerprint_mismatch", 1)
    remote.staff("POST", f"/v1/licenses/{made['id']}/suspend", reason="unpaid")
    assert client.validate(key, fingerprint="laptop").reason == "suspended"
    stopped = client.activate(key, "laptop")
    assert (stopped.ok, stopped.reason, stopped.active_count) == (False, "suspended", 0)
    assert client.heartbeat(key, "laptop").reason == "suspended"
    remote.staff("POST", f"/v1/licenses/{made['id']}/revoke", reason="chargeback")
    assert client.validate(key).reason == "revoked"
    # Offline it still verifies: only the server knows.
    verifier = keysat.Verifier(keysat.PublicKey.from_pem(client.fetch_pubkey_pem()))
    assert verifier.verify(key).license_id == UUID(client_license_id(remote, made["id"]))


def client_license_id(remote: Remote, license_id: str) -> str:
    from counterfoil.kernel.ids import to_uuid

    return str(to_uuid(license_id))


def test_a_purchase_that_nobody_pays_ends_the_wait(remote: Remote) -> None:
    stock(remote)
    client = keysat.Client(remote.url)
    session = client.start_purchase("editor")
    assert session.amount_sats == 21_000  # without a wish, the cheapest tier
    remote.pay(session.checkout_url, "expire")
    with pytest.raises(keysat.LicensingError, match="expired"):
        client.wait_for_license(session.invoice_id, interval_s=0.01, timeout_s=10)


def test_the_fingerprint_is_kept_as_the_hash_the_clients_use(remote: Remote) -> None:
    """A bound key, should one be issued some day, would carry the same hash."""
    stock(remote)
    made = remote.staff("POST", "/v1/licenses", product="editor", tier="solo")
    keysat.Client(remote.url).activate(made["key"], "board-serial")
    (machine,) = remote.staff("GET", f"/v1/licenses/{made['id']}/machines")["data"]
    expected = keysat.hash_fingerprint("board-serial")
    assert machine["fingerprint_hash"] == expected == hashlib.sha256(b"board-serial").hexdigest()


def test_answers_leave_out_what_says_nothing(remote: Remote) -> None:
    """As the clients' own server does: absent, not null; but an activation names everything."""
    stock(remote)
    made = remote.staff("POST", "/v1/licenses", product="editor", tier="team")
    with httpx.Client(base_url=remote.url, trust_env=False) as http:
        answer = http.post("/v1/validate", json={"key": made["key"]}).json()
        assert set(answer) == {
            "ok", "license_id", "product_id", "product_slug", "issued_at", "entitlements", "status", "max_machines",
        }  # fmt: skip
        machine = http.post("/v1/machines/activate", json={"key": made["key"], "fingerprint": "m"}).json()
        assert set(machine) == {"ok", "machine_id", "active_count", "max_machines", "reason"}
        keys = http.get("/v1/issuer/public-key").json()
        assert (keys["key_algorithm"], keys["key_format_version"]) == ("ed25519", 2)
        assert keys["public_key_pem"] == http.get("/v1/pubkey").json()["public_key_pem"]
