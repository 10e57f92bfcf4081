"""Roles made here, and staff."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.accounts.organizations import answers, invite, organization, owner_of, roles_at
from tests.support.app import Shop, good, opening, problem
from tests.support.people import Person, person

from counterfoil.accounts.permissions import BUNDLES, PERMISSIONS, ROLES
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def clerk(shop: Shop, *permissions: str, email: str = "clerk@example.com") -> Person:
    """Staff with a role of just these permissions."""
    body = {"name": f"of {email}", "permissions": list(permissions)}
    good(await shop.staff.post("/v1/roles", json=body))
    return await person(shop, email, staff=f"of {email}")


async def nonce(who: Person, purpose: str = "staff.grant") -> dict[str, str]:
    return {"Nonce": good(await who.http.post("/v1/nonces", json={"purpose": purpose}))["nonce"]}


async def test_the_vocabulary_is_told(shop: Shop) -> None:
    told = good(await shop.staff.get("/v1/permissions"))
    assert [one["name"] for one in told] == list(PERMISSIONS)
    by_name = {one["name"]: one for one in told}
    assert by_name["vaults:read"] == {
        "name": "vaults:read",
        "description": PERMISSIONS["vaults:read"],
        "bundles": ["*", "all", "vault_read"],
    }
    assert {bundle for one in told for bundle in one["bundles"]} == set(BUNDLES)
    listed = good(await shop.staff.get("/v1/roles"))
    assert {one["name"]: (one["permissions"], one["built_in"]) for one in listed} == {
        name: (role.permissions, True) for name, role in ROLES.items()
    }


async def test_a_role_is_made_changed_and_deleted(shop: Shop) -> None:
    body = {"name": " Support ", "permissions": ["orders:read", "billing_view", "orders:read"], "description": "Helps"}
    made = good(await shop.staff.post("/v1/roles", json=body))
    assert (made["name"], made["permissions"], made["description"], made["built_in"]) == (
        "Support",
        ["billing_view", "orders:read"],
        "Helps",
        False,
    )
    path = f"/v1/roles/{made['id']}"
    changed = good(await shop.staff.patch(path, json={"permissions": ["licenses:read"]}))
    assert (changed["name"], changed["permissions"]) == ("Support", ["licenses:read"])
    bob = await person(shop, "bob@example.com", staff="Support")
    good(await bob.http.get("/v1/licenses"))
    problem(await shop.staff.delete(path), 409, "role_in_use")
    good(await shop.staff.patch(path, json={"permissions": ["orders:read"]}))
    problem(await bob.http.get("/v1/licenses"), 403, "missing_permission")
    assert (await shop.staff.delete(f"/v1/staff/{bob.id}/{made['id']}")).status_code == 204
    assert (await shop.staff.delete(path)).status_code == 204
    assert sorted(await shop.events("role.created", "role.updated")) == ["role.created", "role.updated", "role.updated"]


async def test_a_role_in_use_or_offered_stays(shop: Shop) -> None:
    made = good(await shop.staff.post("/v1/roles", json={"name": "Reader", "permissions": ["customers:read"]}))
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    await invite(shop, owner, acme, "bob@example.com", "Reader")
    before = await shop.everything()
    problem(await shop.staff.delete(f"/v1/roles/{made['id']}"), 409, "role_in_use")
    assert await shop.everything() == before
    free = good(await shop.staff.post("/v1/roles", json={"name": "Free", "permissions": []}))
    assert (await shop.staff.delete(f"/v1/roles/{free['id']}")).status_code == 204
    problem(await shop.staff.delete(f"/v1/roles/{free['id']}"), 404, "role_not_found")


async def test_built_in_roles_stay_as_they_are(shop: Shop) -> None:
    before = await shop.everything()
    for role in await shop.rows("roles"):
        path = f"/v1/roles/{role['id']}"
        problem(await shop.staff.patch(path, json={"permissions": []}), 409, "built_in_role")
        problem(await shop.staff.delete(path), 409, "built_in_role")
    for name in ("SuperAdmin", "superadmin", " OWNER "):
        problem(await shop.staff.post("/v1/roles", json={"name": name, "permissions": []}), 409, "role_name_taken")
    assert await shop.everything() == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "X", "permissions": ["world:rule", "orders:read"]}, 422, "unknown_permission"),
        ({"name": "", "permissions": []}, 422, "invalid_request"),
        ({"name": "x" * 101, "permissions": []}, 422, "invalid_request"),
        ({"name": "a\tb", "permissions": []}, 422, "invalid_request"),
        ({"name": "Taken", "permissions": []}, 409, "role_name_taken"),
        ({"name": "X"}, 422, "invalid_request"),
        ({"name": "X", "permissions": [], "built_in": True}, 422, "invalid_request"),
    ],
)
async def test_bad_roles_change_nothing(shop: Shop, body: dict[str, object], status: int, code: str) -> None:
    good(await shop.staff.post("/v1/roles", json={"name": "Taken", "permissions": []}))
    other = good(await shop.staff.post("/v1/roles", json={"name": "Other", "permissions": []}))
    before = await shop.everything()
    problem(await shop.staff.post("/v1/roles", json=body), status, code)
    if "permissions" in body:
        problem(await shop.staff.patch(f"/v1/roles/{other['id']}", json=body), status, code)
    problem(await shop.staff.patch("/v1/roles/rol_x", json={"name": "Y"}), 404, "role_not_found")
    assert await shop.everything() == before


async def test_nobody_puts_into_a_role_what_they_do_not_hold(shop: Shop) -> None:
    who = await clerk(shop, "roles:read", "roles:write", "orders:read")
    strong = good(await shop.staff.post("/v1/roles", json={"name": "Strong", "permissions": ["payments:write"]}))
    weak = good(await who.http.post("/v1/roles", json={"name": "Weak", "permissions": ["orders:read"]}))
    before = await shop.everything()
    for permissions in (["payments:write"], ["*"], ["billing_view"]):
        body = {"name": "More", "permissions": permissions}
        problem(await who.http.post("/v1/roles", json=body), 403, "cannot_grant")
        problem(await who.http.patch(f"/v1/roles/{weak['id']}", json={"permissions": permissions}), 403, "cannot_grant")
    problem(await who.http.patch(f"/v1/roles/{strong['id']}", json={"permissions": []}), 403, "cannot_grant")
    problem(await who.http.delete(f"/v1/roles/{strong['id']}"), 403, "cannot_grant")
    assert await shop.everything() == before


async def test_a_name_claimed_a_hundred_times_is_one_role(shop: Shop) -> None:
    body = {"name": "Support", "permissions": ["orders:read"]}
    found = await answers(shop.staff.post("/v1/roles", json=body) for _ in range(100))
    assert found == {(201, ""): 1, (409, "role_name_taken"): 99}
    others = [good(await shop.staff.post("/v1/roles", json={**body, "name": f"R{number}"})) for number in range(20)]
    renamed = await answers(shop.staff.patch(f"/v1/roles/{one['id']}", json={"name": "One"}) for one in others)
    assert renamed == {(200, ""): 1, (409, "role_name_taken"): 19}


async def test_granting_and_deleting_a_role_at_once_is_never_half_done(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    for number in range(8):
        role = good(await shop.staff.post("/v1/roles", json={"name": f"R{number}", "permissions": ["customers:read"]}))
        bob = await person(shop, f"bob{number}@example.com", at=(("Member", acme),))
        found = await answers(
            [
                owner.http.put(f"/v1/customers/{acme}/members/{bob.id}", json={"role": f"R{number}"}),
                shop.staff.delete(f"/v1/roles/{role['id']}"),
            ]
        )
        held = (await roles_at(shop, acme))[bob.id]
        if found[200, ""]:
            assert (found[409, "role_in_use"], held) == (1, [f"R{number}"])
        else:
            assert (found[404, "role_not_found"], found[204, ""], held) == (1, 1, ["Member"])


# -- staff --------------------------------------------------------------------------------------------


async def test_staff_is_made_and_unmade(shop: Shop) -> None:
    chief = await person(shop, "chief@example.com", staff="SuperAdmin")
    bob = await person(shop, "bob@example.com")
    body = {"user_id": bob.id, "role": "BillingAdmin"}
    made = good(await chief.http.post("/v1/staff", json=body, headers=await nonce(chief)))
    assert made == {**body, "new": True}
    again = good(await chief.http.post("/v1/staff", json=body, headers=await nonce(chief)))
    assert again == {**body, "new": False}
    listed = good(await chief.http.get("/v1/staff"))["data"]
    assert sorted((one["email"], one["role"], one["granted_by"]) for one in listed) == [
        ("bob@example.com", "BillingAdmin", chief.id),
        ("chief@example.com", "SuperAdmin", None),
    ]
    role_id = next(one["role_id"] for one in listed if one["user_id"] == bob.id)
    assert (await chief.http.delete(f"/v1/staff/{bob.id}/{role_id}")).status_code == 204
    problem(await chief.http.delete(f"/v1/staff/{bob.id}/{role_id}"), 404, "staff_not_found")
    problem(await chief.http.delete(f"/v1/staff/{bob.id}/rol_x"), 404, "role_not_found")
    assert await roles_at(shop, None) == {chief.id: ["SuperAdmin"]}
    nobody = {"user_id": "usr_x", "role": "BillingAdmin"}
    problem(await chief.http.post("/v1/staff", json=nobody, headers=await nonce(chief)), 404, "user_not_found")


async def test_making_staff_takes_a_passkey_a_nonce_and_the_permissions_themselves(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com")
    who = await clerk(shop, "staff:read", "staff:write", "orders:read")
    by_password = await person(shop, "boss@example.com", staff="SuperAdmin", method="password")
    body = {"user_id": bob.id, "role": "SuperAdmin"}
    header = await nonce(who)
    before = await shop.everything()
    problem(await by_password.http.post("/v1/staff", json=body), 403, "passkey_required")
    problem(await bob.http.post("/v1/staff", json=body), 403, "missing_permission")
    problem(await who.http.post("/v1/staff", json=body), 403, "nonce_required")
    problem(await who.http.post("/v1/staff", json=body, headers=header), 403, "cannot_grant")
    super_admin = next(row["id"] for row in await shop.rows("roles", name="SuperAdmin"))
    problem(await who.http.delete(f"/v1/staff/{by_password.id}/{super_admin}"), 403, "cannot_grant")
    assert await shop.everything() == before  # nor is the nonce used up by what was not done


async def test_of_all_super_admins_who_are_unmade_at_once_one_stays(shop: Shop) -> None:
    admins = [await person(shop, f"a{number}@example.com", staff="SuperAdmin") for number in range(20)]
    super_admin = next(row["id"] for row in await shop.rows("roles", name="SuperAdmin"))
    found = await answers(
        request
        for one in admins
        for request in (
            one.http.delete(f"/v1/staff/{one.id}/{super_admin}"),
            *[shop.staff.delete(f"/v1/staff/{one.id}/{super_admin}") for _ in range(4)],
        )
    )
    assert found[204, ""] == 19
    assert list((await roles_at(shop, None)).values()) == [["SuperAdmin"]]
    assert not [status for status, _ in found if status >= 500]


async def test_a_hundred_grants_make_one_row(shop: Shop) -> None:
    chief = await person(shop, "chief@example.com", staff="SuperAdmin")
    bob = await person(shop, "bob@example.com")
    headers = [await nonce(chief) for _ in range(100)]
    body = {"user_id": bob.id, "role": "BillingAdmin"}
    made = await asyncio.gather(*[chief.http.post("/v1/staff", json=body, headers=one) for one in headers])
    assert sorted(good(one)["new"] for one in made) == [False] * 99 + [True]
    assert await roles_at(shop, None) == {chief.id: ["SuperAdmin"], bob.id: ["BillingAdmin"]}
