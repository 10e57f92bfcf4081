"""Tenants over HTTP, and whose a request is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.app import Shop, good, opening, problem
from tests.support.people import Person, person

from counterfoil.accounts import api_keys, sessions, tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import rail_settings
from counterfoil.house import open_house
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.licensing import signing_keys
from counterfoil.mail import outgoing
from counterfoil.settings import Settings


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def tenant(shop: Shop, slug: str = "other", **fields: Any) -> str:
    body = {"slug": slug, "name": slug.title(), **fields}
    return str(good(await shop.staff.post("/v1/tenants", json=body))["id"])


async def key_of(shop: Shop, tenant_id: str, *scopes: str) -> dict[str, str]:
    secret = api_keys.new_secret()
    await shop.house.scope(tenant_id).run(api_keys.create, "k", list(scopes), secret=secret)
    return {"Authorization": f"Bearer {secret}"}


async def nonce(who: Person | Shop) -> dict[str, str]:
    http = who.staff if isinstance(who, Shop) else who.http
    return {"Nonce": good(await http.post("/v1/nonces", json={"purpose": "tenant.suspend"}))["nonce"]}


async def products(shop: Shop, path: str = "", **headers: str) -> list[str]:
    """Whose products a request is shown."""
    answer = good(await shop.http.get(f"{path}/v1/products", headers=headers))
    return [one["slug"] for one in answer["data"]]


async def stocked(shop: Shop, tenant_id: str, slug: str) -> None:
    headers = await key_of(shop, tenant_id, "products:write")
    good(await shop.http.post("/v1/products", json={"slug": slug, "name": slug}, headers=headers))


async def test_a_new_tenant_is_ready_to_sell(shop: Shop) -> None:
    body = {"slug": "other", "name": "Other", "hosts": ["Shop.Example"], "owner_email": "boss@example.com"}
    made = good(await shop.staff.post("/v1/tenants", json=body))
    assert made == {
        "id": made["id"],
        "name": "Other",
        "slug": "other",
        "hosts": ["shop.example"],
        "settings": {},
        "status": "active",
        "created_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05.678901Z",
    }
    scope = shop.house.scope(made["id"])
    (key,) = await scope.read(signing_keys.everyone)
    (mine,) = await shop.scope.read(signing_keys.everyone)
    assert key.public_key != mine.public_key
    (rail,) = await scope.read(rail_settings.list_)
    assert (rail.rail, rail.status, rail.public) == ("sandbox", "active", {"base_url": "http://shop.example"})
    headers = await key_of(shop, made["id"], "*")
    assert len(good(await shop.http.get("/v1/roles", headers=headers))) == 8
    product = good(await shop.http.post("/v1/products", json={"slug": "e", "name": "E"}, headers=headers))
    terms = {"license": {"max_machines": 1}}
    good(await shop.http.put(f"/v1/products/{product['id']}/benefits", json=terms, headers=headers))
    body = {"asset": "SAT", "unit_amount": 5}
    price = good(await shop.http.post(f"/v1/products/{product['id']}/prices", json=body, headers=headers))
    order = {"lines": [{"price_id": price["id"]}]}
    opened = good(await shop.http.post("/t/other/v1/checkouts", json=order))
    assert opened["url"].startswith("http://shop.example/sandbox/pay/")
    assert good(await shop.staff.get("/v1/tenants"))[1] == made
    assert good(await shop.staff.get(f"/v1/tenants/{made['id']}")) == made
    assert good(await shop.staff.get("/v1/tenants/other")) == made
    events = good(await shop.http.get("/v1/events", headers=headers))["data"]
    assert "tenant.created" in {one["type"] for one in events}


async def test_its_owner_gets_a_letter_that_lets_them_in(shop: Shop) -> None:
    made = await tenant(shop, owner_email="Boss@Example.com")
    scope = shop.house.scope(made)
    page = await scope.read(outgoing.list_)
    (letter,) = page.data
    assert (letter.recipient, letter.template) == ("boss@example.com", "staff_enrollment")
    link = outgoing.unseal(letter, made, shop.house.master)["link"]
    assert link.startswith("http://127.0.0.1:8787/t/other/enroll/")
    assert await shop.letters() == []


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"slug": "default"}, 422, "slug_reserved"),
        ({"slug": "Other"}, 422, "invalid_request"),
        ({"slug": "taken"}, 409, "slug_taken"),
        ({"slug": "x", "hosts": ["taken.example"]}, 409, "host_taken"),
        ({"slug": "x", "hosts": ["TAKEN.example."]}, 409, "host_taken"),
        ({"slug": "x", "hosts": ["127.0.0.1"]}, 422, "invalid_request"),
        ({"slug": "x", "hosts": ["localhost"]}, 422, "host_reserved"),
        ({"slug": "x", "name": ""}, 422, "invalid_request"),
        ({"slug": "x", "owner_email": "nobody"}, 422, "invalid_request"),
        ({"slug": "x", "status": "active"}, 422, "invalid_request"),
    ],
)
async def test_bad_tenants_change_nothing(shop: Shop, fields: dict[str, Any], status: int, code: str) -> None:
    await tenant(shop, "taken", hosts=["taken.example"])
    before = await shop.everything()
    everyone = await shop.scope.read(tenants.list_)
    problem(await shop.staff.post("/v1/tenants", json={"name": "X", **fields}), status, code)
    assert await shop.everything() == before
    assert await shop.scope.read(tenants.list_) == everyone


async def test_only_the_default_tenants_staff_sees_tenants(shop: Shop) -> None:
    other = await tenant(shop)
    theirs = await key_of(shop, other, "*")
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", tenant=other, path="/t/other")
    everyone = await shop.scope.read(tenants.list_)
    for method, path, body in (
        ("GET", "v1/tenants", None),
        ("POST", "v1/tenants", {"slug": "x", "name": "X"}),
        ("GET", f"v1/tenants/{other}", None),
        ("PATCH", f"v1/tenants/{other}", {"name": "X"}),
        ("POST", f"v1/tenants/{other}/suspend", None),
        ("POST", f"v1/tenants/{other}/resume", None),
        ("GET", f"v1/tenants/{DEFAULT_TENANT}", None),
    ):
        problem(await shop.http.request(method, path, json=body, headers=theirs), 403, "missing_scope")
        problem(await boss.http.request(method, path, json=body), 403, "missing_permission")
        problem(await shop.http.request(method, path, json=body), 401, "unauthorized")
    assert await shop.scope.read(tenants.list_) == everyone
    assert good(await boss.http.get("v1/tenant"))["id"] == other
    changed = good(await boss.http.patch("v1/tenant", json={"name": "Ours", "settings": {"brand_color": "#abcdef"}}))
    assert (changed["id"], changed["name"], changed["settings"]) == (other, "Ours", {"brand_color": "#abcdef"})
    problem(await boss.http.patch("v1/tenant", json={"hosts": ["x.example"]}), 422, "invalid_request")
    assert good(await shop.staff.get("/v1/tenant"))["name"] == "Default"


async def test_a_tenant_changes_and_its_sandbox_follows_its_address(shop: Shop) -> None:
    other = await tenant(shop)

    async def sandbox() -> str:
        return str((await shop.house.rails.get(other, "sandbox")).settings.base_url)

    assert await sandbox() == "http://127.0.0.1:8787/t/other"
    changed = good(await shop.staff.patch(f"/v1/tenants/{other}", json={"hosts": ["new.example"], "name": "New"}))
    assert (changed["name"], changed["hosts"]) == ("New", ["new.example"])
    assert await sandbox() == "http://new.example"
    assert good(await shop.staff.patch("/v1/tenants/other", json={})) == changed
    problem(await shop.staff.patch("/v1/tenants/nobody", json={"name": "X"}), 404, "tenant_not_found")
    problem(await shop.staff.patch(f"/v1/tenants/{DEFAULT_TENANT}", json={"hosts": ["new.example"]}), 409, "host_taken")


async def test_at_a_start_every_tenant_gets_what_it_lacks(
    shop: Shop, database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    bare = shop.house.scope("ten_01jgkx0000000000000000000b")
    await bare.run(tenants.create, "bare", "Bare")
    given = Settings.load(database_url=database_url, jobs=False, master_key=master.to_text(), sandbox=True)
    async with open_house(given, clock) as house:
        (key,) = await bare.read(signing_keys.everyone)
        assert key.status == "active"
        connected = (await house.rails.get(bare.tenant, "sandbox")).settings
        assert connected.base_url == "http://127.0.0.1:8787/t/bare"
    off = Settings.load(database_url=database_url, jobs=False, master_key=master.to_text(), sandbox=False)
    async with open_house(off, clock):
        assert [row.status for row in await bare.read(rail_settings.list_)] == ["disconnected"]


async def test_a_suspended_tenant_lets_nobody_in_and_loses_nothing(shop: Shop) -> None:
    other = await tenant(shop, hosts=["other.example"])
    await stocked(shop, other, "theirs")
    headers = await key_of(shop, other, "*")
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", tenant=other, path="/t/other")
    good(await boss.http.get("v1/tenant"))
    path = f"/v1/tenants/{other}"
    problem(await shop.staff.post(f"{path}/suspend"), 403, "nonce_required")
    header = await nonce(shop)
    assert good(await shop.staff.post(f"{path}/suspend", headers=header))["status"] == "suspended"
    problem(await shop.staff.post(f"{path}/suspend", headers=header), 403, "nonce_already_used")
    problem(await shop.http.get("/t/other/v1/products"), 404, "tenant_not_found")
    problem(await shop.http.get("/v1/products", headers={"Host": "other.example"}), 404, "tenant_not_found")
    problem(await shop.http.get("/v1/tenant", headers=headers), 401, "bad_api_key")
    problem(await boss.http.get("v1/tenant"), 401, "unauthorized")
    in_another_process = await shop.house.scope(other).read(_identify, boss.token, shop)
    assert in_another_process is None
    assert good(await shop.staff.post(f"{path}/resume"))["status"] == "active"
    assert await products(shop, "/t/other") == ["theirs"]
    good(await boss.http.get("v1/tenant"))
    assert sorted(await shop.events("tenant.suspended", "tenant.resumed")) == ["tenant.resumed", "tenant.suspended"]
    default = await shop.staff.post(f"/v1/tenants/{DEFAULT_TENANT}/suspend", headers=await nonce(shop))
    problem(default, 409, "default_tenant")
    problem(await shop.staff.post("/v1/tenants/default/suspend", headers=await nonce(shop)), 409, "default_tenant")
    problem(await shop.staff.post("/v1/tenants/nobody/suspend", headers=await nonce(shop)), 404, "tenant_not_found")


def _identify(tx: Any, token: str, shop: Shop) -> Any:
    return sessions.identify(tx, token, None, shop.house.session_lasts)


async def test_whose_a_request_is(shop: Shop) -> None:
    other = await tenant(shop, hosts=["shop.example", "xn--bcher-kva.example"])
    await tenant(shop, "third", hosts=["third.example"])
    await stocked(shop, other, "theirs")
    await stocked(shop, DEFAULT_TENANT, "ours")
    for host in ("shop.example", "shop.example:8787", "SHOP.Example", "Shop.Example.:443", "xn--bcher-kva.example"):
        assert await products(shop, Host=host) == ["theirs"], host
    for host in ("127.0.0.1:8787", "[::1]:8787", "x.shop.example", "shop.example.evil", "shop", "", "third.example.x"):
        assert await products(shop, Host=host) == ["ours"], host
    # The path wins over the host.
    assert await products(shop, "/t/third", Host="shop.example") == []
    assert await products(shop, "/t/other", Host="third.example") == ["theirs"]
    assert await products(shop, "/t/default", Host="shop.example") == ["ours"]
    # What any client can set says nothing.
    for name in ("X-Forwarded-Host", "X-Host", "X-Tenant", "X-Tenant-Id", "X-Original-Host", "X-Forwarded-Server"):
        for value in ("shop.example", "other", other):
            assert await products(shop, **{name: value}) == ["ours"]
    assert await products(shop, Forwarded="host=shop.example;proto=https") == ["ours"]
    assert await products(shop, **{"X-Original-URL": "/t/other/", "X-Rewrite-URL": "/t/other/"}) == ["ours"]
    # A key belongs to its tenant, whatever the host name.
    headers = await key_of(shop, other, "tenant:read")
    for host in ("127.0.0.1:8787", "shop.example", "third.example"):
        assert good(await shop.http.get("/v1/tenant", headers={**headers, "Host": host}))["id"] == other
    problem(await shop.http.get("/t/third/v1/tenant", headers=headers), 401, "bad_api_key")
    assert good(await shop.http.get("/t/other/v1/tenant", headers=headers))["id"] == other


async def test_a_session_is_good_at_its_own_tenant_only(shop: Shop) -> None:
    other = await tenant(shop, hosts=["shop.example"])
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", tenant=other)
    by_host = {"Host": "shop.example", "Cookie": f"cf_session={boss.token}"}
    assert good(await shop.http.get("/v1/tenant", headers=by_host))["id"] == other
    by_path = {"Cookie": f"cf_session_other={boss.token}"}
    assert good(await shop.http.get("/t/other/v1/tenant", headers=by_path))["id"] == other
    for path, cookie, host in (
        ("/v1/tenant", "cf_session", "127.0.0.1"),
        ("/t/default/v1/tenant", "cf_session_default", "127.0.0.1"),
        ("/t/nobody/v1/tenant", "cf_session_nobody", "127.0.0.1"),
        ("/t/other/v1/tenant", "cf_session", "127.0.0.1"),
    ):
        answer = await shop.http.get(path, headers={"Cookie": f"{cookie}={boss.token}", "Host": host})
        problem(answer, 401, "unauthorized")
    forged = {"Cookie": f"cf_session={boss.token}", "X-Forwarded-Host": "shop.example"}
    problem(await shop.http.get("/v1/tenant", headers=forged), 401, "unauthorized")
