"""Promise: nobody reaches what is not theirs. Every route is tried with every wrong identity.

The routes are read off the application, so a new one is swept without anybody thinking of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple

import httpx
import pytest
from litestar import Litestar
from tests.support.app import Shop, client_of, good, opening
from tests.support.people import Person, person

from counterfoil.accounts import api_keys, assignments, roles, sessions, tenants, users
from counterfoil.accounts.permissions import PERMISSIONS
from counterfoil.accounts.tables import roles as roles_table
from counterfoil.accounts.tables import users as users_table
from counterfoil.accounts.types import DEFAULT_TENANT, Role
from counterfoil.api.app import API
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.http.declared import Declared, declared_routes
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.web.site import PAGES

OTHER = "ten_01jgkx0000000000000000000b"
ROUTES = declared_routes(Litestar(route_handlers=[*API, *PAGES], openapi_config=None))
GUARDED = [route for route in ROUTES if route.reach != "anybody"]
PERSONAL = {"signed_in"}


class Place(NamedTuple):
    """Where the sweep happens."""

    shop: Shop
    customers: dict[str, str]


class Wrong(NamedTuple):
    """Somebody who must be refused, and how."""

    http: httpx.AsyncClient
    prefix: str
    statuses: set[int]


@pytest.fixture
async def place(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Place]:
    async with opening(database_url, clock, master) as shop:
        made = {}
        for name, parent in (("msp", None), ("one", "msp"), ("two", "msp"), ("dept", "one"), ("alone", None)):
            body = {"kind": "organization", "name": name, **({"parent_id": made[parent]} if parent else {})}
            if name == "msp":
                body["level"] = 1
            made[name] = good(await shop.staff.post("/v1/customers", json=body))["id"]
        yield Place(shop, made)


def url_of(route: Declared, customer: str) -> str:
    path = re.sub(r"\{customer(_id)?(:[^}]*)?\}", customer, route.path)
    return re.sub(r"\{[^}]*\}", "cus_00000000000000000000000000", path)


async def ask(http: httpx.AsyncClient, route: Declared, customer: str, prefix: str = "") -> httpx.Response:
    body = {} if route.method == "GET" else {"json": {}}
    if not route.path.startswith("/v1/") and route.method != "GET":
        body = {"data": {"nothing": "here"}}  # type: ignore[dict-item]
    return await http.request(route.method, prefix + url_of(route, customer), **body)  # type: ignore[arg-type]


async def key(shop: Shop, scopes: list[str], *, tenant: str = DEFAULT_TENANT, customer: str | None = None,
              lasts: timedelta | None = None) -> tuple[str, httpx.AsyncClient]:  # fmt: skip
    secret = api_keys.new_secret()
    expires_at = shop.clock.now() + lasts if lasts else None
    made = await shop.house.scope(tenant).run(
        api_keys.create, "sweep", scopes, secret=secret, expires_at=expires_at, customer_id=customer
    )
    return made.key.id, client_of(shop.app, headers={"Authorization": f"Bearer {secret}"})


def _make_other(tx: Tx) -> None:
    tenants.create(tx, "other", "Other")
    roles.furnish(tx)


def _disable(tx: Tx, user_id: str) -> None:
    statement = users_table.update().where(mine(users_table), users_table.c.id == user_id).values(status="disabled")
    assert tx.execute(statement) == 1


async def strangers(place: Place) -> dict[str, Wrong]:
    """Those who must reach no guarded route at all."""
    shop = place.shop
    await shop.house.scope(OTHER).run(_make_other)
    found = {"nobody": Wrong(client_of(shop.app), "", {401})}
    theirs = await person(shop, "boss@other.example", staff="SuperAdmin", tenant=OTHER, app=shop.app)
    found["another tenant's staff"] = Wrong(theirs.http, "", {401})
    _, foreign = await key(shop, ["*"], tenant=OTHER)
    found["another tenant's key"] = Wrong(foreign, "/t/default", {401})
    _, expiring = await key(shop, ["*"], lasts=timedelta(minutes=1))
    key_id, revoked = await key(shop, ["*"])
    await shop.scope.run(api_keys.revoke, key_id)
    found["a revoked key"] = Wrong(revoked, "", {401})
    ended = await person(shop, "ended@example.com", staff="SuperAdmin", app=shop.app)
    await shop.scope.run(sessions.revoke_all, ended.id)
    found["a session that was ended"] = Wrong(ended.http, "", {401})
    disabled = await person(shop, "disabled@example.com", staff="SuperAdmin", app=shop.app)
    await shop.scope.run(_disable, disabled.id)
    found["a disabled user"] = Wrong(disabled.http, "", {401})
    shop.clock.advance(timedelta(minutes=1))
    found["an expired key"] = Wrong(expiring, "", {401})
    found["a made-up key"] = Wrong(
        client_of(shop.app, headers={"Authorization": f"Bearer {api_keys.new_secret()}"}), "", {401}
    )
    found["a made-up session"] = Wrong(client_of(shop.app, headers={"Cookie": "cf_session=made-up"}), "", {401})
    return found


def _all_but(tx: Tx, permission: str) -> str:
    rest = sorted(set(PERMISSIONS) - {permission})
    role = Role(
        id=tx.new_id("rol"), name=f"All but {permission}", permissions=rest, description="", built_in=False,
        created_at=tx.now, updated_at=tx.now,
    )  # fmt: skip
    tx.insert(roles_table, role)
    return role.id


def _only(tx: Tx, user_id: str, role_id: str, customer_id: str | None) -> None:
    users.get(tx, user_id)
    assignments.grant(tx, user_id, role_id, customer_id)


async def the_unfit(place: Place) -> dict[str, Wrong]:
    """Those who are known, and hold everything elsewhere, or nothing here."""
    shop, at = place.shop, place.customers

    async def member(email: str, *places: tuple[str, str]) -> Person:
        return await person(shop, email, at=tuple((role, at[name]) for role, name in places), app=shop.app)

    weak = await person(shop, "weak@example.com", staff="SuperAdmin", method="password", app=shop.app)
    found = {
        "staff without a passkey": Wrong(weak.http, "", {403}),
        "a user without any role": Wrong((await member("new@example.com")).http, "", {403, 404}),
    }
    for name in ("alone", "two", "dept"):
        owner = await member(f"{name}@example.com", ("SuperAdmin", name))
        found[f"whoever may do everything at {name}"] = Wrong(owner.http, "", {403, 404})
    for name in ("alone", "two", "dept"):
        _, limited = await key(shop, ["*"], customer=at[name])
        found[f"a key limited to {name}"] = Wrong(limited, "", {403, 404})
    return found


def refused(route: Declared, answer: httpx.Response, statuses: set[int]) -> bool:
    if route.path.startswith("/v1/"):
        return answer.status_code in statuses
    # A page sends strangers to sign in, and staff to show a passkey.
    to_sign_in = answer.status_code == 303 and "/sign-in" in answer.headers["location"]
    return to_sign_in or answer.status_code in statuses | {401, 403, 404}


async def test_strangers_reach_nothing(place: Place) -> None:
    found = await strangers(place)
    before = await place.shop.everything()
    for name, wrong in found.items():
        for route in GUARDED:
            answer = await ask(wrong.http, route, place.customers["one"], wrong.prefix)
            assert refused(route, answer, wrong.statuses), (name, route, answer.status_code, answer.text[:300])
        assert await place.shop.everything() == before, name


async def test_people_and_keys_reach_only_what_is_theirs(place: Place) -> None:
    found = await the_unfit(place)
    before = await place.shop.everything()
    for name, wrong in found.items():
        for route in GUARDED:
            if route.permission not in PERSONAL:
                answer = await ask(wrong.http, route, place.customers["one"], wrong.prefix)
                assert refused(route, answer, wrong.statuses), (name, route, answer.status_code, answer.text[:300])
        assert await place.shop.everything() == before, name


async def test_all_permissions_but_one_are_not_enough(place: Place) -> None:
    shop, customer = place.shop, place.customers["one"]
    for permission in sorted({route.permission for route in GUARDED} - PERSONAL):
        role_id = await shop.scope.run(_all_but, permission)
        slug = permission.replace(":", ".")
        staff = await person(shop, f"staff.{slug}@example.com", method="passkey", app=shop.app)
        await shop.scope.run(_only, staff.id, role_id, None)
        member = await person(shop, f"member.{slug}@example.com", app=shop.app)
        await shop.scope.run(_only, member.id, role_id, customer)
        _, program = await key(shop, sorted(set(PERMISSIONS) - {permission}))
        before = await shop.everything()
        for route in GUARDED:
            if route.permission == permission:
                for http in (staff.http, member.http, program):
                    answer = await ask(http, route, customer)
                    assert refused(route, answer, {403}), (route, answer.status_code, answer.text[:300])
        assert await shop.everything() == before, permission


_REFUSALS = {
    "unauthorized", "bad_api_key", "missing_permission", "missing_scope", "passkey_required", "customer_not_found",
    "key_limited_to_customer",
}  # fmt: skip


async def test_the_sweep_would_notice(place: Place) -> None:
    """Whoever holds everything is let through, so that what refuses the others is who they are."""
    shop = place.shop
    for route in GUARDED:
        if not route.path.startswith("/v1/"):
            continue
        body = {"kind": "organization", "name": "fresh"}
        fresh = good(await shop.staff.post("/v1/customers", json=body))["id"]
        boss = await person(shop, f"boss{fresh[-8:]}@example.com", staff="SuperAdmin", app=shop.app)
        answer = await ask(boss.http, route, fresh)
        assert answer.status_code < 500, (route, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["code"] not in _REFUSALS, (route, answer.text)


async def test_forms_of_other_sites_reach_nothing(place: Place) -> None:
    boss = await person(place.shop, "boss@example.com", staff="SuperAdmin", app=place.shop.app)
    before = await place.shop.everything()
    for route in ROUTES:
        if route.method == "GET":
            continue
        if route.path.startswith("/v1/") and route.reach == "anybody":
            continue  # what anybody may do anyway needs no disguise; signing in has tests of its own
        http = boss.http
        http.headers["Sec-Fetch-Site"] = "cross-site"
        answer = await ask(http, route, place.customers["one"])
        if route.path in _WITHOUT_COOKIES:
            continue
        assert answer.status_code == 403, (route, answer.status_code, answer.text[:300])
    assert await place.shop.everything() == before


_WITHOUT_COOKIES = {"/unsubscribe/{token}"}
"""What mail programs send by themselves (RFC 8058): its address is the secret."""
