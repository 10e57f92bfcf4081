"""Who holds what, where: the tree of customers, the tenant, passkeys, and keys with limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from tests.support.app import Shop, client_of, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import api_keys, sessions
from counterfoil.accounts.access import SIGNED_IN, Identity, decide, may_grant
from counterfoil.accounts.permissions import (
    A_LA_CARTE,
    ALL,
    BUNDLES,
    KEY_ROLES,
    PERMISSIONS,
    ROLES,
    expand,
    unknown,
)
from counterfoil.http.declared import UndeclaredRoute, declared_routes
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Forbidden, NotFound
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def customer(shop: Shop, name: str, **fields: object) -> str:
    return str(
        good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": name, **fields}))["id"]
    )


async def tree(shop: Shop) -> dict[str, str]:
    """An MSP with two customers, one of which has a department, and a customer of nobody."""
    made = {"msp": await customer(shop, "MSP", level=1)}
    made["one"] = await customer(shop, "One", parent_id=made["msp"])
    made["two"] = await customer(shop, "Two", parent_id=made["msp"])
    made["dept"] = await customer(shop, "Department", parent_id=made["one"])
    made["alone"] = await customer(shop, "Alone")
    return made


async def reach(http: httpx.AsyncClient, made: dict[str, str]) -> dict[str, int]:
    """What reading each customer answers."""
    return {name: (await http.get(f"/v1/customers/{one}")).status_code for name, one in made.items()}


# -- the vocabulary -----------------------------------------------------------------------------------


def test_bundles_and_roles_hold_what_exists() -> None:
    for held in BUNDLES.values():
        assert held <= ALL
    for role in ROLES.values():
        assert unknown(role.permissions) == []
    for scopes in KEY_ROLES.values():
        assert set(scopes) <= ALL - A_LA_CARTE
    assert unknown(["orders:read", "all", "orders:fly", "ReadOnly"]) == ["ReadOnly", "orders:fly"]
    assert expand(["all"]) == expand(["*"]) == set(PERMISSIONS)
    assert expand(["orders:fly"]) == set()


def test_the_built_in_roles_are_those_of_the_plan() -> None:
    assert {name: role.permissions for name, role in ROLES.items() if name not in {"Owner", "Member"}} == {
        "SuperAdmin": ["all"],
        "MSPAdmin": ["customer_admin", "billing_view"],
        "TenantAdmin": ["vault_create", "agent_create", "device_enroll"],
        "VaultUser": ["vault_read", "vault_write"],
        "BillingAdmin": ["billing_view", "invoices"],
        "ReadOnly": ["vault_read"],
    }
    assert list(KEY_ROLES) == ["read-only", "license-issuer", "support", "merchant-onboard", "full-admin"]
    assert set(KEY_ROLES["full-admin"]) == ALL - A_LA_CARTE
    assert all(name.endswith(":read") for name in KEY_ROLES["read-only"])
    assert set(KEY_ROLES["support"]) - set(KEY_ROLES["read-only"]) == {"subscriptions:write", "machines:write"}


async def test_every_tenant_has_them(shop: Shop) -> None:
    rows = {row["name"]: row["permissions"] for row in await shop.rows("roles")}
    assert rows == {name: role.permissions for name, role in ROLES.items()}


# -- the decision -------------------------------------------------------------------------------------


def asker(**fields: object) -> Identity:
    given: dict[str, object] = {"tenant": "t", "kind": "user", "id": "usr_1", "name": "", "held": frozenset(), **fields}
    return Identity(**given)  # type: ignore[arg-type]


def test_the_decision() -> None:
    some = frozenset({"orders:read"})
    decide(asker(held=some), "orders:read")
    decide(asker(held=some, target="cus_1", target_exists=True), "orders:read")
    decide(asker(), SIGNED_IN)
    refused = [
        (asker(), Forbidden, "missing_permission"),
        (asker(kind="key"), Forbidden, "missing_scope"),
        (asker(kind="key", customer_id="cus_1"), Forbidden, "key_limited_to_customer"),
        (asker(locked=some), Forbidden, "passkey_required"),
        (asker(held=some, target="cus_1"), NotFound, "customer_not_found"),
        (asker(target="cus_1", target_exists=True), NotFound, "customer_not_found"),
        (asker(held=frozenset({"events:read"}), target="c", target_exists=True), Forbidden, "missing_permission"),
        (asker(locked=some, target="c", target_exists=True), Forbidden, "passkey_required"),
    ]
    for identity, kind, code in refused:
        with pytest.raises(kind) as caught:
            decide(identity, "orders:read")
        assert caught.value.code == code, identity


def test_nobody_grants_what_they_do_not_hold() -> None:
    may_grant(asker(held=expand(["customer_admin"])), expand(["customers:read", "members:write"]))
    with pytest.raises(Forbidden) as caught:
        may_grant(asker(held=expand(["customer_admin"])), expand(["customers:read", "orders:read", "staff:write"]))
    assert caught.value.code == "cannot_grant"
    assert str(caught.value) == "You cannot grant what you do not hold: orders:read, staff:write."


# -- over HTTP ----------------------------------------------------------------------------------------


async def test_a_role_reaches_down_the_tree_and_nowhere_else(shop: Shop) -> None:
    made = await tree(shop)
    everything = {"msp": 200, "one": 200, "two": 200, "dept": 200, "alone": 200}
    nothing = dict.fromkeys(made, 404)
    ann = await person(shop, "ann@example.com", at=(("MSPAdmin", made["msp"]),))
    assert await reach(ann.http, made) == {**everything, "alone": 404}
    bob = await person(shop, "bob@example.com", at=(("Owner", made["one"]),))
    assert await reach(bob.http, made) == {**nothing, "one": 200, "dept": 200}
    cyd = await person(shop, "cyd@example.com", at=(("Member", made["dept"]), ("Member", made["alone"])))
    assert await reach(cyd.http, made) == {**nothing, "dept": 200, "alone": 200}
    # A role that does not hold the permission shows that there is something, and no more.
    dan = await person(shop, "dan@example.com", at=(("ReadOnly", made["one"]),))
    assert await reach(dan.http, made) == {**nothing, "one": 403, "dept": 403}
    eve = await person(shop, "eve@example.com")
    assert await reach(eve.http, made) == nothing
    boss = await person(shop, "boss@example.com", staff="SuperAdmin")
    assert await reach(boss.http, {**made, "none": "cus_none"}) == {**everything, "none": 404}


async def test_staff_needs_a_passkey_and_a_fresh_one(shop: Shop) -> None:
    boss = await person(shop, "boss@example.com", staff="SuperAdmin", method="password")
    problem(await boss.http.get("/v1/orders"), 403, "passkey_required")
    good(await boss.http.get("/v1/me"))
    strong = await person(shop, "boss@example.com", staff="SuperAdmin")
    good(await strong.http.get("/v1/orders"))
    shop.clock.advance(timedelta(hours=12))
    problem(await strong.http.get("/v1/orders"), 403, "passkey_required")
    problem(await boss.http.get("/v1/customers/cus_none"), 404, "customer_not_found")


async def test_a_session_ends_when_idle_and_at_its_time(shop: Shop) -> None:
    ann = await person(shop, "ann@example.com")
    for _ in range(5):
        shop.clock.advance(timedelta(days=6))
        if _ < 4:
            good(await ann.http.get("/v1/me"))
            await shop.house.uses.flush()
    problem(await ann.http.get("/v1/me"), 401, "unauthorized")  # 30 days, however busy
    idle = await person(shop, "ann@example.com")
    shop.clock.advance(timedelta(days=7))
    problem(await idle.http.get("/v1/me"), 401, "unauthorized")
    ended = await person(shop, "ann@example.com")
    session_id = (await shop.rows("sessions"))[-1]["id"]
    await shop.scope.run(sessions.revoke, ended.id, session_id)
    problem(await ended.http.get("/v1/me"), 401, "unauthorized")


async def test_use_is_noted_now_and_then_without_a_write_in_the_request(shop: Shop) -> None:
    ann = await person(shop, "ann@example.com")
    began = shop.clock.now()
    shop.clock.advance(timedelta(minutes=5))
    good(await ann.http.get("/v1/me"))
    await shop.house.uses.flush()
    assert (await shop.row("sessions"))["last_seen_at"] == began
    shop.clock.advance(timedelta(seconds=1))
    good(await ann.http.get("/v1/me"))
    assert (await shop.row("sessions"))["last_seen_at"] == began
    await shop.house.uses.flush()
    assert (await shop.row("sessions"))["last_seen_at"] == shop.clock.now()
    good(await shop.staff.get("/v1/me"))
    await shop.house.uses.flush()
    assert (await shop.row("api_keys"))["last_used_at"] == shop.clock.now()


async def test_a_key_limited_to_a_customer(shop: Shop) -> None:
    made = await tree(shop)
    secret = api_keys.new_secret()
    await shop.scope.run(api_keys.create, "limited", ["*"], secret=secret, customer_id=made["one"])
    async with client_of(shop.app, headers={"Authorization": f"Bearer {secret}"}) as limited:
        assert await reach(limited, made) == {"msp": 404, "one": 200, "two": 404, "dept": 200, "alone": 404}
        before = await shop.everything()
        for path in ("/v1/customers", "/v1/orders", "/v1/events", "/v1/api-keys"):
            problem(await limited.get(path), 403, "key_limited_to_customer")
        problem(
            await limited.post("/v1/customers", json={"kind": "person", "name": "X"}), 403, "key_limited_to_customer"
        )
        assert await shop.everything() == before


async def test_a_session_cannot_be_used_by_pages_of_other_sites(shop: Shop) -> None:
    boss = await person(shop, "boss@example.com", staff="SuperAdmin")
    body = {"slug": "new", "name": "New"}
    before = await shop.everything()
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ):
        problem(await boss.http.post("/v1/products", json=body, headers=headers), 403, "cross_site")
    assert await shop.everything() == before
    good(await boss.http.post("/v1/products", json=body, headers={"Sec-Fetch-Site": "same-origin"}))
    # An API key is no cookie: nothing sends it by itself.
    good(await shop.staff.post("/v1/products", json={**body, "slug": "b"}, headers={"Origin": "https://x.example"}))


async def test_signing_in_at_one_tenant_means_nothing_at_another(shop: Shop) -> None:
    good(await shop.staff.post("/v1/tenants", json={"slug": "other", "name": "Other"}))
    boss = await person(shop, "boss@example.com", staff="SuperAdmin")
    good(await boss.http.get("/v1/orders"))
    problem(await boss.http.get("/t/other/v1/orders"), 401, "unauthorized")
    borrowed = {"Cookie": f"cf_session_other={boss.token}"}
    problem(await boss.http.get("/t/other/v1/orders", headers=borrowed), 401, "unauthorized")


def test_a_route_without_a_permission_is_not_served() -> None:
    from litestar import Litestar, get

    @get("/v1/forgotten")
    async def forgotten() -> None: ...

    @get("/v1/misspelled", opt={"access": "orders:raed"})
    async def misspelled() -> None: ...

    for handler in (forgotten, misspelled):
        with pytest.raises(UndeclaredRoute):
            declared_routes(Litestar([handler], openapi_config=None))
