"""Licenses: issued by hand or by an order, stopped, resumed, ended; their keys follow from their rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from keysat_licensing_client import LicensingError, PublicKey, Verifier
from tests.support.app import Shop, good, opening, problem

from counterfoil.accounts import tenants
from counterfoil.catalog.types import LicenseSpec
from counterfoil.kernel.clock import ManualClock, to_seconds
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.ids import to_uuid
from counterfoil.kernel.secrets import MasterKey
from counterfoil.licensing import licenses as license_ops
from counterfoil.licensing.licenses import Issue


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def verifier(shop: Shop) -> Verifier:
    pem = good(await shop.http.get("/v1/pubkey"))["public_key_pem"]
    return Verifier(PublicKey.from_pem(pem))


async def move(shop: Shop, license_id: str, verb: str, reason: str = "") -> dict[str, Any]:
    body = {"reason": reason} if verb != "reinstate" else None
    return good(await shop.staff.post(f"/v1/licenses/{license_id}/{verb}", json=body))


# -- issuing ------------------------------------------------------------------------------------------


async def test_a_license_by_hand_promises_what_its_tier_promises(shop: Shop) -> None:
    spec = {"duration_seconds": 3600, "grace_seconds": 60, "max_machines": 7, "entitlements": ["b", "a"]}
    sold = await shop.tier(tier="team", license=spec)
    body = {"product": "editor", "tier": "team", "email": "Ann@X.example", "note": "a gift", "metadata": {"case": 7}}
    made = good(await shop.staff.post("/v1/licenses", json=body))
    assert {name: made[name] for name in ("product_id", "order_id", "tier", "status", "machine_count", "is_trial")} == {
        "product_id": sold.product_id,
        "order_id": None,
        "tier": "team",
        "status": "active",
        "machine_count": 0,
        "is_trial": False,
    }
    assert {name: made[name] for name in spec if name != "duration_seconds"} == {
        name: value for name, value in spec.items() if name != "duration_seconds"
    }
    assert (made["issued_at"], made["expires_at"]) == ("2026-01-02T03:04:05Z", "2026-01-02T04:04:05Z")
    assert (made["email"], made["note"], made["metadata"]) == ("ann@x.example", "a gift", {"case": 7})
    assert good(await shop.staff.get(f"/v1/licenses/{made['id']}")) == made
    assert await shop.events("license.issued") == ["license.issued"]


async def test_the_key_says_what_the_row_says(shop: Shop) -> None:
    sold = await shop.tier()
    made = await shop.license(sold, duration_seconds=3600, is_trial=True, entitlements=["pro", "Straße"])
    read = (await verifier(shop)).verify(made["key"])
    assert read.license_id == to_uuid(made["id"])
    assert read.product_id == to_uuid(sold.product_id)
    assert read.issued_at == to_seconds(shop.clock.now())
    assert read.expires_at == read.issued_at + 3600
    assert (read.is_trial, read.entitlements) == (True, ["pro", "Straße"])
    assert (read.is_fingerprint_bound, read.fingerprint_hash) == (False, bytes(32))
    with pytest.raises(LicensingError, match="expired"):
        (await verifier(shop)).verify_with_time(made["key"], read.expires_at)


async def test_the_same_row_gives_the_same_key(shop: Shop) -> None:
    made = await shop.license(await shop.tier())
    shop.clock.advance(timedelta(days=400))
    await move(shop, made["id"], "suspend")
    for _ in range(2):
        assert good(await shop.staff.get(f"/v1/licenses/{made['id']}"))["key"] == made["key"]


async def test_terms_of_ones_own_beat_the_tiers(shop: Shop) -> None:
    sold = await shop.tier(license={"max_machines": 1})
    made = await shop.license(sold, max_machines=50)
    assert made["max_machines"] == 50
    assert (await shop.license(sold))["max_machines"] == 1


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"max_machines": -1}, "/license/max_machines"),
        ({"max_machines": 1_000_001}, "/license/max_machines"),
        ({"duration_seconds": -1}, "/license/duration_seconds"),
        ({"duration_seconds": 10**12}, "/license/duration_seconds"),
        ({"grace_seconds": -1}, "/license/grace_seconds"),
        ({"entitlements": ["a", "a"]}, "/license/entitlements"),
        ({"entitlements": [str(place) for place in range(256)]}, "/license/entitlements"),
        ({"entitlements": ["ok", ""]}, "/license/entitlements/1"),
        ({"entitlements": ["é" * 128]}, "/license/entitlements/0"),
        ({"entitlements": ["a\nb"]}, "/license/entitlements/0"),
    ],
)
async def test_a_license_that_no_key_could_carry_is_refused(shop: Shop, spec: dict[str, Any], pointer: str) -> None:
    sold = await shop.tier()
    before = await shop.everything()
    answer = problem(
        await shop.staff.post("/v1/licenses", json={"product": sold.slug, "license": spec}), 422, "invalid_request"
    )
    assert [error["pointer"] for error in answer["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_the_most_a_key_can_carry(shop: Shop) -> None:
    wide = [f"{place:03}" + "x" * 252 for place in range(255)]
    made = await shop.license(await shop.tier(), entitlements=wide)
    assert (await verifier(shop)).verify(made["key"]).entitlements == wide
    answer = good(await shop.http.post("/v1/validate", json={"key": made["key"]}))
    assert answer["entitlements"] == wide


async def test_a_tier_that_promises_no_license_needs_terms(shop: Shop) -> None:
    sold = await shop.tier()
    before = await shop.everything()
    body = {"product": sold.slug, "tier": "gold"}
    answer = problem(await shop.staff.post("/v1/licenses", json=body), 422, "invalid_request")
    assert answer["errors"][0]["pointer"] == "/license"
    problem(await shop.staff.post("/v1/licenses", json={"product": "nothing"}), 404, "product_not_found")
    assert await shop.everything() == before


# -- stopping, resuming, ending -----------------------------------------------------------------------


async def test_the_states_and_their_refusals(shop: Shop) -> None:
    made = await shop.license(await shop.tier())
    at = f"/v1/licenses/{made['id']}"

    async def refuses(verb: str, code: str) -> None:
        before = await shop.everything()
        problem(await shop.staff.post(f"{at}/{verb}", json={} if verb != "reinstate" else None), 409, code)
        assert await shop.everything() == before

    await refuses("reinstate", "license_not_suspended")
    stopped = await move(shop, made["id"], "suspend", "unpaid")
    assert (stopped["status"], stopped["suspension_reason"]) == ("suspended", "unpaid")
    assert stopped["suspended_at"] is not None
    await refuses("suspend", "license_not_active")
    resumed = await move(shop, made["id"], "reinstate")
    assert (resumed["status"], resumed["suspended_at"], resumed["suspension_reason"]) == ("active", None, None)
    await move(shop, made["id"], "suspend")
    ended = await move(shop, made["id"], "revoke", "chargeback")
    assert (ended["status"], ended["revocation_reason"]) == ("revoked", "chargeback")
    assert ended["revoked_at"] is not None
    for verb, code in [
        ("suspend", "license_not_active"),
        ("reinstate", "license_not_suspended"),
        ("revoke", "license_revoked"),
    ]:
        await refuses(verb, code)
    kinds = ("license.suspended", "license.reinstated", "license.revoked")
    assert sorted(await shop.events(*kinds)) == [
        "license.reinstated", "license.revoked", "license.suspended", "license.suspended",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["suspend", "reinstate", "revoke"])
async def test_no_such_license(shop: Shop, verb: str) -> None:
    body = {} if verb != "reinstate" else None
    at = "/v1/licenses/lic_01j00000000000000000000000"
    problem(await shop.staff.post(f"{at}/{verb}", json=body), 404, "license_not_found")
    problem(await shop.staff.get(at), 404, "license_not_found")


async def test_revoked_once_however_many_ask(shop: Shop) -> None:
    made = await shop.license(await shop.tier())
    answers = await asyncio.gather(
        *(shop.staff.post(f"/v1/licenses/{made['id']}/revoke", json={"reason": f"{place}"}) for place in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await shop.row("licenses"))["revocation_reason"] == winner["revocation_reason"]
    assert await shop.events("license.revoked") == ["license.revoked"]


# -- finding ------------------------------------------------------------------------------------------


async def test_licenses_are_found_by_product_and_by_address(shop: Shop) -> None:
    editor, viewer = await shop.tier("editor"), await shop.tier("viewer")
    made = {}
    for slug, email in [("editor", "ann@x.example"), ("viewer", "ann@x.example"), ("editor", "bob@x.example")]:
        body = {"product": slug, "email": email}
        made[slug, email] = good(await shop.staff.post("/v1/licenses", json=body))["id"]
        shop.clock.advance(timedelta(seconds=1))

    async def ids(**query: Any) -> list[str]:
        return [one["id"] for one in good(await shop.staff.get("/v1/licenses", params=query))["data"]]

    assert await ids() == list(made.values())
    assert await ids(product_id=editor.product_id) == [
        made["editor", "ann@x.example"], made["editor", "bob@x.example"],
    ]  # fmt: skip
    assert await ids(product_id=viewer.product_id) == [made["viewer", "ann@x.example"]]
    assert await ids(email="ANN@x.example") == [made["editor", "ann@x.example"], made["viewer", "ann@x.example"]]
    assert await ids(email="nobody@x.example") == []
    page = good(await shop.staff.get("/v1/licenses", params={"limit": 2}))
    rest = good(await shop.staff.get("/v1/licenses", params={"limit": 2, "after": page["next"]}))
    assert [one["id"] for one in page["data"] + rest["data"]] == list(made.values())
    assert rest["next"] is None


async def test_another_tenant_sees_and_changes_nothing(shop: Shop) -> None:
    made = await shop.license(await shop.tier())
    other = shop.house.scope("ten_01j00000000000000000000000")
    await other.run(tenants.create, "other", "Other")
    before = await shop.everything()
    for attempt in (
        other.read(license_ops.get, made["id"]),
        other.run(license_ops.revoke, made["id"], reason="mischief"),
        other.run(license_ops.suspend, made["id"], reason="mischief"),
    ):
        with pytest.raises(NotFound) as refusal:
            await attempt
        assert refusal.value.code == "license_not_found"
    assert (await other.read(license_ops.list_)).data == []
    assert await shop.everything() == before


async def test_without_a_signing_key_nothing_is_issued(shop: Shop) -> None:
    other = shop.house.scope("ten_01j00000000000000000000000")
    await other.run(tenants.create, "other", "Other")
    wanted = Issue(product_id="pro_01j00000000000000000000000", spec=LicenseSpec())
    with pytest.raises(NotFound) as refusal:
        await other.run(license_ops.issue, [wanted])
    assert refusal.value.code == "signing_key_not_found"
