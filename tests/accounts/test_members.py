"""Members: their roles, leaving, and the owner who stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.util import await_only
from tests.accounts.organizations import answers, organization, owner_of, roles_at
from tests.support.app import MINUTE, TRANSACTIONS_OVERLAP, Shop, competitor, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import customers, members, roles
from counterfoil.accounts.customers import NewCustomer
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.secrets import MasterKey


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def test_a_members_role_changes_and_they_are_removed(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    bob = await person(shop, "bob@example.com", at=(("Member", acme), ("VaultUser", acme)))
    path = f"/v1/customers/{acme}/members"
    changed = good(await owner.http.put(f"{path}/{bob.id}", json={"role": "BillingAdmin"}))
    assert (changed["user_id"], changed["first_name"], changed["roles"]) == (bob.id, "Bob", ["BillingAdmin"])
    assert good(await owner.http.put(f"{path}/{bob.id}", json={"role": "BillingAdmin"})) == changed
    assert await roles_at(shop, acme) == {owner.id: ["Owner"], bob.id: ["BillingAdmin"]}
    gone = await owner.http.delete(f"{path}/{bob.id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await roles_at(shop, acme) == {owner.id: ["Owner"]}
    problem(await owner.http.delete(f"{path}/{bob.id}"), 404, "member_not_found")
    problem(await owner.http.put(f"{path}/{bob.id}", json={"role": "Member"}), 404, "member_not_found")
    problem(await owner.http.put(f"{path}/{owner.id}", json={"role": "Queen"}), 404, "role_not_found")
    assert await shop.events("member.removed") == ["member.removed"]


async def test_a_list_of_members_comes_in_pages(shop: Shop) -> None:
    acme = await organization(shop)
    below = await organization(shop, "Below", parent_id=acme)
    people = [await person(shop, f"p{number}@example.com", at=(("Member", acme),)) for number in range(5)]
    await person(shop, "elsewhere@example.com", at=(("Member", below),))
    first = good(await people[0].http.get(f"/v1/customers/{acme}/members", params={"limit": 3}))
    rest = good(await people[0].http.get(f"/v1/customers/{acme}/members", params={"after": first["next"]}))
    assert [one["user_id"] for one in [*first["data"], *rest["data"]]] == sorted(one.id for one in people)
    assert rest["next"] is None


async def test_the_last_owner_stays(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    await person(shop, "bob@example.com", at=(("Member", acme),))
    path = f"/v1/customers/{acme}/members/{owner.id}"
    before = await shop.everything()
    problem(await owner.http.delete(path), 409, "last_owner")
    problem(await owner.http.put(path, json={"role": "Member"}), 409, "last_owner")
    problem(await owner.http.post("/v1/me/leave", json={"customer_id": acme}), 409, "last_owner")
    problem(await shop.staff.delete(path), 409, "last_owner")
    assert await shop.everything() == before


async def test_ownership_goes_to_whoever_has_been_owner_longest(shop: Shop) -> None:
    ada = await person(shop, "ada@example.com")
    acme = (await shop.scope.run(members.found, NewCustomer(kind="organization", name="Acme"), ada.id)).id
    shop.clock.advance(MINUTE)
    bob = await owner_of(shop, acme, "bob@example.com")
    assert (await shop.row("customers"))["owner_user_id"] == ada.id
    assert (await ada.http.post("/v1/me/leave", json={"customer_id": acme})).status_code == 204
    row = await shop.row("customers")
    assert (row["owner_user_id"], row["is_default"]) == (bob.id, False)
    assert await shop.events("customer.owner_changed", "member.left") in (
        ["customer.owner_changed", "member.left"],
        ["member.left", "customer.owner_changed"],
    )
    problem(await ada.http.post("/v1/me/leave", json={"customer_id": acme}), 404, "member_not_found")
    problem(await ada.http.post("/v1/me/leave", json={"customer_id": "cus_x"}), 404, "member_not_found")
    problem(await shop.staff.post("/v1/me/leave", json={"customer_id": acme}), 403, "users_only")


async def test_a_default_customer_that_changes_hands_is_nobodys_default(shop: Shop) -> None:
    ada = await person(shop, "ada@example.com")
    bob = await person(shop, "bob@example.com")

    for one in (ada, bob):
        new = NewCustomer(kind="person", name=one.email)
        made = await shop.scope.run(customers.create, new, owner_user_id=one.id, is_default=True)
        await shop.scope.run(members.add, None, made.id, one.id, "Owner")
    adas = (await shop.row("customers", owner_user_id=ada.id))["id"]
    await shop.scope.run(members.add, None, adas, bob.id, "Owner")
    await shop.scope.run(members.leave, ada.id, adas)
    rows = {row["id"]: (row["owner_user_id"], row["is_default"]) for row in await shop.rows("customers")}
    assert rows.pop(adas) == (bob.id, False)
    assert list(rows.values()) == [(bob.id, True)]


async def test_nobody_gives_or_takes_what_they_do_not_hold(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    admin = await person(shop, "admin@example.com", at=(("MSPAdmin", acme),))
    bob = await person(shop, "bob@example.com", at=(("Member", acme),))
    path = f"/v1/customers/{acme}/members"
    before = await shop.everything()
    problem(await admin.http.put(f"{path}/{bob.id}", json={"role": "Owner"}), 403, "cannot_grant")
    problem(await admin.http.put(f"{path}/{admin.id}", json={"role": "Owner"}), 403, "cannot_grant")
    problem(await admin.http.put(f"{path}/{owner.id}", json={"role": "Member"}), 403, "cannot_grant")
    problem(await admin.http.delete(f"{path}/{owner.id}"), 403, "cannot_grant")
    problem(await bob.http.delete(f"{path}/{bob.id}"), 403, "missing_permission")
    problem(await bob.http.put(f"{path}/{bob.id}", json={"role": "Member"}), 403, "missing_permission")
    assert await shop.everything() == before
    good(await admin.http.put(f"{path}/{bob.id}", json={"role": "MSPAdmin"}))
    assert (await bob.http.post("/v1/me/leave", json={"customer_id": acme})).status_code == 204


async def test_a_role_reaches_what_is_below_and_nothing_else(shop: Shop) -> None:
    msp = await organization(shop, "MSP", level=1)
    one = await organization(shop, "One", parent_id=msp)
    other = await organization(shop, "Other")
    admin = await person(shop, "admin@example.com", at=(("MSPAdmin", msp),))
    bob = await person(shop, "bob@example.com", at=(("Member", one), ("Member", other)))
    problem(
        await admin.http.put(f"/v1/customers/{one}/members/{bob.id}", json={"role": "BillingAdmin"}),
        403,
        "cannot_grant",
    )  # invoices are not an MSP's to pay
    good(await admin.http.put(f"/v1/customers/{one}/members/{bob.id}", json={"role": "MSPAdmin"}))
    problem(await bob.http.get(f"/v1/customers/{msp}/members"), 404, "customer_not_found")
    problem(
        await admin.http.put(f"/v1/customers/{other}/members/{bob.id}", json={"role": "Member"}),
        404,
        "customer_not_found",
    )


# -- races --------------------------------------------------------------------------------------------


async def test_of_two_owners_who_leave_at_once_one_stays(shop: Shop) -> None:
    for number in range(5):
        acme = await organization(shop, f"Acme {number}")
        pair = [await owner_of(shop, acme, f"{name}{number}@example.com") for name in ("ada", "bob")]
        found = await answers(one.http.post("/v1/me/leave", json={"customer_id": acme}) for one in pair)
        assert found[204, ""] == 1
        assert found[409, "last_owner"] == 1
        assert list((await roles_at(shop, acme)).values()) == [["Owner"]]


async def test_of_many_owners_who_are_removed_demoted_or_leave_at_once_one_stays(shop: Shop) -> None:
    acme = await organization(shop)
    owners = [await owner_of(shop, acme, f"o{number}@example.com") for number in range(34)]
    path = f"/v1/customers/{acme}/members"
    found = await answers(
        request
        for one in owners
        for request in (
            one.http.post("/v1/me/leave", json={"customer_id": acme}),
            shop.staff.put(f"{path}/{one.id}", json={"role": "Member"}),
            shop.staff.delete(f"{path}/{one.id}"),
        )
    )
    assert not [status for status, _ in found if status >= 500]
    held = await roles_at(shop, acme)
    assert [names for names in held.values() if "Owner" in names] == [["Owner"]]
    assert found[409, "last_owner"] >= 1


@TRANSACTIONS_OVERLAP
@pytest.mark.parametrize("rival", ["leave", "demote", "remove"])
async def test_whoever_takes_an_owner_away_waits_for_one_who_is_leaving(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, rival: str
) -> None:
    acme = await organization(shop)
    ada, bob = [await owner_of(shop, acme, f"{name}@example.com") for name in ("ada", "bob")]
    rivals: dict[str, tuple[Any, ...]] = {
        "leave": (members.leave, bob.id, acme),
        "demote": (members.set_role, None, acme, bob.id, "Member"),
        "remove": (members.remove, None, acme, bob.id),
    }
    take_away, started = members._take_away, list[asyncio.Future[Any]]()

    def slowly(*args: Any) -> None:
        if not started:
            started.append(asyncio.ensure_future(shop.scope.run(*rivals[rival])))
            done, _ = await_only(asyncio.wait(started, timeout=0.2))
            assert not done  # it waits for us
        take_away(*args)

    monkeypatch.setattr(members, "_take_away", slowly)
    await shop.scope.run(members.leave, ada.id, acme)
    with pytest.raises(Conflict) as refused:
        await started[0]
    assert refused.value.code == "last_owner"
    assert await roles_at(shop, acme) == {bob.id: ["Owner"]}


async def test_the_same_role_granted_a_hundred_times_is_one(shop: Shop) -> None:
    acme = await organization(shop)
    bob = await person(shop, "bob@example.com")
    await asyncio.gather(*[shop.scope.run(members.add, None, acme, bob.id, "Member") for _ in range(100)])
    assert await roles_at(shop, acme) == {bob.id: ["Member"]}
    assert await shop.events("role.granted") == ["role.granted"]


@pytest.mark.parametrize("becomes", ["Member", None])
async def test_nothing_is_granted_once_the_right_to_grant_is_gone(shop: Shop, becomes: str | None) -> None:
    acme = await organization(shop)
    ada = await owner_of(shop, acme, "ada@example.com")
    chief = await owner_of(shop, acme, "chief@example.com")
    people = [await person(shop, f"p{number}@example.com", at=(("ReadOnly", acme),)) for number in range(100)]
    path = f"/v1/customers/{acme}/members"

    async def demote() -> int:
        if becomes is None:
            answer = await chief.http.delete(f"{path}/{ada.id}")
        else:
            answer = await chief.http.put(f"{path}/{ada.id}", json={"role": becomes})
        assert answer.is_success, answer.text
        return len(await granted())

    async def granted() -> set[str]:
        return {user for user, names in (await roles_at(shop, acme)).items() if names == ["VaultUser"]}

    half = len(people) // 2
    grants = [ada.http.put(f"{path}/{one.id}", json={"role": "VaultUser"}) for one in people]
    first = asyncio.gather(*grants[:half])
    demotion = asyncio.ensure_future(demote())
    second = asyncio.gather(*grants[half:])
    statuses = [one.status_code for one in [*await first, *await second]]
    at_the_moment = await demotion
    # Whoever read the members after the demotion was durable sees all that Ada will ever have granted.
    assert len(await granted()) == at_the_moment == statuses.count(200)
    assert set(statuses) <= {200, 403, 404}
    later = await ada.http.put(f"{path}/{people[0].id}", json={"role": "VaultUser"})
    assert later.status_code in {403, 404}


async def test_of_two_who_demote_each_other_one_does(shop: Shop) -> None:
    """Each elsewhere: at one customer they take turns anyway."""
    msp = await organization(shop, "MSP", level=1)
    one = await organization(shop, "One", parent_id=msp)
    ada = await person(shop, "ada@example.com", at=(("Owner", msp), ("Member", one)))
    bob = await person(shop, "bob@example.com", at=(("Owner", msp), ("Member", one)))
    await owner_of(shop, msp)
    found = await answers(
        [
            ada.http.delete(f"/v1/customers/{msp}/members/{bob.id}"),
            bob.http.delete(f"/v1/customers/{msp}/members/{ada.id}"),
        ]
    )
    assert found[204, ""] == 1
    held = await roles_at(shop, msp)
    assert len([one_ for one_ in (ada.id, bob.id) if one_ in held]) == 1
    assert (await shop.scope.read(roles.by_name, "Owner")).built_in


@TRANSACTIONS_OVERLAP
@pytest.mark.parametrize("role", ["VaultUser", "Member"])
async def test_a_role_taken_away_in_between_grants_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Between the look at who asks and the transaction; also what the demoted could still grant, had they the right."""
    acme = await organization(shop)
    ada = await owner_of(shop, acme, "ada@example.com")
    await owner_of(shop, acme, "chief@example.com")
    bob = await person(shop, "bob@example.com", at=(("ReadOnly", acme),))
    ran = competitor(monkeypatch, members, "lock", shop.scope, members.set_role, None, acme, ada.id, "Member")
    answer = await ada.http.put(f"/v1/customers/{acme}/members/{bob.id}", json={"role": role})
    problem(answer, 403, "missing_permission")
    assert ran
    assert (await roles_at(shop, acme))[bob.id] == ["ReadOnly"]
