"""API keys over HTTP: whose they are, how far they reach, and who may make them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.accounts.organizations import organization, owner_of
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, competitor, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import api_keys, customers, members
from counterfoil.accounts.permissions import A_LA_CARTE, KEY_ROLES
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


def by(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['secret']}"}


async def test_a_keys_secret_is_shown_once(shop: Shop) -> None:
    body = {"name": "build", "role": "read-only", "scopes": ["licenses:write"], "expires_at": "2027-01-01T00:00:00Z"}
    made = good(await shop.staff.post("/v1/api-keys", json=body))
    assert api_keys.looks_right(made["secret"])
    seen = good(await shop.staff.get(f"/v1/api-keys/{made['id']}"))
    assert seen == {name: value for name, value in made.items() if name != "secret"}
    assert (seen["role"], seen["expires_at"], seen["customer_id"]) == ("read-only", "2027-01-01T00:00:00Z", None)
    assert seen["scopes"] == sorted([*KEY_ROLES["read-only"], "licenses:write"])
    listed = await shop.staff.get("/v1/api-keys")
    assert made["secret"] not in listed.text
    assert "secret_hash" not in listed.text
    assert made["secret"] not in repr(await shop.everything())
    assert (await shop.staff.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
    problem(await shop.http.get("/v1/api-keys", headers=by(made)), 401, "bad_api_key")
    problem(await shop.staff.delete(f"/v1/api-keys/{made['id']}"), 404, "api_key_not_found")
    problem(await shop.staff.get("/v1/api-keys/key_x"), 404, "api_key_not_found")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"role": "king"}, "unknown_role"),
        ({"scopes": ["world:rule"]}, "unknown_scope"),
        ({"scopes": ["orders:read"], "expires_at": "2026-01-02T03:04:05Z"}, "invalid_request"),
        ({"scopes": ["orders:read"], "expires_at": "2027-01-01T00:00:00"}, "invalid_request"),
        ({"name": "a\nb"}, "invalid_request"),
        ({"name": ""}, "invalid_request"),
        ({"customer_id": "cus_x"}, "invalid_request"),
    ],
)
async def test_bad_keys_change_nothing(shop: Shop, fields: dict[str, Any], code: str) -> None:
    before = await shop.everything()
    problem(await shop.staff.post("/v1/api-keys", json={"name": "x", **fields}), 422, code)
    assert await shop.everything() == before


@pytest.mark.parametrize("role", sorted(KEY_ROLES))
async def test_named_sets_hold_nothing_that_must_be_spelled_out(shop: Shop, role: str) -> None:
    made = good(await shop.staff.post("/v1/api-keys", json={"name": role, "role": role}))
    assert not A_LA_CARTE & set(made["scopes"])
    spelled = good(await shop.staff.post("/v1/api-keys", json={"name": role, "role": role, "scopes": ["rails:write"]}))
    assert A_LA_CARTE & set(spelled["scopes"]) == {"rails:write"}


async def test_nobody_gives_a_key_what_they_do_not_hold(shop: Shop) -> None:
    body = {"name": "maker", "scopes": ["api_keys:write", "orders:read"]}
    maker = good(await shop.staff.post("/v1/api-keys", json=body))
    before = await shop.everything()
    for more in ({"scopes": ["payments:read"]}, {"scopes": ["*"]}, {"role": "read-only"}):
        answer = await shop.http.post("/v1/api-keys", json={"name": "x", **more}, headers=by(maker))
        problem(answer, 403, "cannot_grant")
    problem(await shop.http.get("/v1/api-keys", headers=by(maker)), 403, "missing_scope")
    assert await shop.everything() == before
    good(await shop.http.post("/v1/api-keys", json={"name": "x", "scopes": ["orders:read"]}, headers=by(maker)))


async def test_a_customers_keys_are_its_own(shop: Shop) -> None:
    msp = await organization(shop, "MSP", level=1)
    acme = await organization(shop, "Acme", parent_id=msp)
    other = await organization(shop, "Other", parent_id=msp)
    owner = await owner_of(shop, acme)
    path = f"/v1/customers/{acme}/api-keys"
    wide = good(await shop.staff.post("/v1/api-keys", json={"name": "wide", "scopes": ["api_keys:read"]}))
    scopes = ["api_keys:read", "api_keys:write", "customers:read"]
    made = good(await owner.http.post(path, json={"name": "own", "scopes": scopes}))
    assert made["customer_id"] == acme
    assert [one["id"] for one in good(await owner.http.get(path))["data"]] == [made["id"]]
    assert good(await owner.http.get(f"{path}/{made['id']}"))["name"] == "own"
    problem(await owner.http.get(f"{path}/{wide['id']}"), 404, "api_key_not_found")
    problem(await owner.http.delete(f"{path}/{wide['id']}"), 404, "api_key_not_found")
    problem(await owner.http.get("/v1/api-keys"), 403, "missing_permission")
    problem(await owner.http.post(path, json={"name": "x", "scopes": ["staff:write"]}), 403, "cannot_grant")
    # The key itself goes as far as its customer.
    good(await shop.http.get(f"/v1/customers/{acme}", headers=by(made)))
    problem(await shop.http.get(f"/v1/customers/{other}", headers=by(made)), 404, "customer_not_found")
    problem(await shop.http.get(f"/v1/customers/{msp}", headers=by(made)), 404, "customer_not_found")
    problem(await shop.http.get("/v1/api-keys", headers=by(made)), 403, "key_limited_to_customer")
    child = good(await shop.http.post(path, json={"name": "c", "scopes": ["customers:read"]}, headers=by(made)))
    assert child["customer_id"] == acme
    beyond = f"/v1/customers/{other}/api-keys"
    problem(await shop.http.post(beyond, json={"name": "c"}, headers=by(made)), 404, "customer_not_found")
    member = await person(shop, "member@example.com", at=(("Member", acme),))
    problem(await member.http.post(path, json={"name": "x"}), 403, "missing_permission")
    assert (await owner.http.delete(f"{path}/{made['id']}")).status_code == 204
    problem(await shop.http.get(f"/v1/customers/{acme}", headers=by(made)), 401, "bad_api_key")
    assert len(good(await shop.staff.get("/v1/api-keys"))["data"]) == 4


async def test_last_use_is_noted_coarsely(shop: Shop, clock: ManualClock) -> None:
    made = good(await shop.staff.post("/v1/api-keys", json={"name": "x", "scopes": ["api_keys:read"]}))

    async def last_used() -> Any:
        good(await shop.http.get("/v1/api-keys", headers=by(made)))
        await shop.house.uses.flush()
        return good(await shop.staff.get(f"/v1/api-keys/{made['id']}"))["last_used_at"]

    first = await last_used()
    assert first == "2026-01-02T03:04:05.678901Z"
    clock.advance(api_keys.WORN_AFTER)
    assert await last_used() == first
    clock.advance(timedelta(microseconds=1))
    assert await last_used() == "2026-01-02T03:09:05.678902Z"


@TRANSACTIONS_OVERLAP
async def test_who_was_just_removed_makes_no_key(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await organization(shop)
    ada = await owner_of(shop, acme, "ada@example.com")
    await owner_of(shop, acme, "chief@example.com")
    before = await shop.count("api_keys")
    ran = competitor(monkeypatch, customers, "hold", shop.scope, members.remove, None, acme, ada.id)
    answer = await ada.http.post(f"/v1/customers/{acme}/api-keys", json={"name": "x", "scopes": ["customers:read"]})
    problem(answer, 404, "customer_not_found")
    assert ran
    assert await shop.count("api_keys") == before


@TRANSACTIONS_OVERLAP
async def test_a_key_just_revoked_makes_no_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = good(await shop.staff.post("/v1/api-keys", json={"name": "x", "scopes": ["api_keys:write"]}))
    ran = competitor(monkeypatch, api_keys, "held_by", shop.scope, api_keys.revoke, made["id"])
    answer = await shop.http.post("/v1/api-keys", json={"name": "y", "scopes": ["api_keys:write"]}, headers=by(made))
    problem(answer, 403, "missing_scope")
    assert ran
    assert await shop.count("api_keys") == 2
