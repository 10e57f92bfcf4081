"""Invitations: who may send them, who may accept them, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.accounts.organizations import answers, invite, organization, owner_of, roles_at, token_for
from tests.support.app import Shop, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import api_keys, assignments, invitations, members, users
from counterfoil.accounts.invitations import EXPIRES, LASTS, MOST_A_DAY, NewInvitation
from counterfoil.accounts.tables import user_emails
from counterfoil.accounts.types import UserEmail
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey, fingerprint


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def test_whoever_is_invited_joins_with_the_role_and_the_limit(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    body = {"email": " Bob@Example.COM", "role": "BillingAdmin", "credit_limit": 500}
    made = good(await owner.http.post(f"/v1/customers/{acme}/invitations", json=body))
    assert made == {
        "id": made["id"],
        "customer_id": acme,
        "email": "bob@example.com",
        "role": "BillingAdmin",
        "status": "pending",
        "credit_limit": 500,
        "invited_by": owner.id,
        "accepted_by": None,
        "expires_at": "2026-01-09T03:04:05.678901Z",
        "created_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05.678901Z",
    }
    (letter,) = await shop.letters("bob@example.com")
    token = letter.context["link"].rpartition("/")[2]
    assert (letter.template, letter.context) == (
        "invitation",
        {
            "link": f"http://127.0.0.1:8787/invitations/{token}",
            "customer_name": "Acme",
            "inviter_name": "Owner",
            "role": "BillingAdmin",
            "expires": EXPIRES,
        },
    )
    assert token not in repr(await shop.everything())
    assert (await shop.row("invitations"))["token_hash"] == fingerprint(token)
    bob = await person(shop, "bob@example.com")
    joined = good(await bob.http.post("/v1/invitations/accept", json={"token": token}))
    assert joined == {"customer_id": acme, "name": "Acme"}
    listed = good(await owner.http.get(f"/v1/customers/{acme}/members"))
    assert [(one["user_id"], one["email"], one["roles"], one["credit_limit"]) for one in listed["data"]] == sorted(
        [(owner.id, "owner@example.com", ["Owner"], -1), (bob.id, "bob@example.com", ["BillingAdmin"], 500)]
    )
    assert (await shop.row("role_assignments", user_id=bob.id))["granted_by"] == owner.id
    assert sorted(await shop.events("invitation.created", "invitation.accepted", "role.granted")) == [
        "invitation.accepted",
        "invitation.created",
        "role.granted",
        "role.granted",
    ]
    pending = good(await owner.http.get(f"/v1/customers/{acme}/invitations", params={"status": "pending"}))
    accepted = good(await owner.http.get(f"/v1/customers/{acme}/invitations", params={"status": "accepted"}))
    assert (pending["data"], [one["accepted_by"] for one in accepted["data"]]) == ([], [bob.id])


async def test_an_invitation_is_for_the_address_it_went_to(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    mallory = await person(shop, "mallory@example.com")
    before = await shop.everything()
    refused = await mallory.http.post("/v1/invitations/accept", json={"token": token})
    assert "bob" not in problem(refused, 403, "invitation_for_another_address")["detail"].lower()
    problem(await shop.staff.post("/v1/invitations/accept", json={"token": token}), 403, "users_only")
    problem(await shop.http.post("/v1/invitations/accept", json={"token": token}), 401, "unauthorized")
    assert await shop.everything() == before


async def test_an_address_somebody_only_claims_is_not_enough(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    mallory = await person(shop, "mallory@example.com")
    row = (await shop.rows("user_emails", user_id=mallory.id))[0]

    def claim(tx: Tx) -> None:
        claimed = {**row, "id": tx.new_id("uem"), "email": "bob@example.com", "is_primary": False, "verified_at": None}
        tx.insert(user_emails, UserEmail(**claimed))

    await shop.scope.run(claim)
    refused = await mallory.http.post("/v1/invitations/accept", json={"token": token})
    problem(refused, 403, "invitation_for_another_address")


async def test_what_is_no_longer_good_looks_like_what_never_was(shop: Shop, clock: ManualClock) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    bob = await person(shop, "bob@example.com")
    base = f"/v1/customers/{acme}/invitations"

    async def refused(token: str) -> str:
        answer = await bob.http.post("/v1/invitations/accept", json={"token": token})
        return str(problem(answer, 404, "invitation_not_found"))

    unknown = await refused("a" * 32)
    revoked = await invite(shop, owner, acme, "bob@example.com")
    made = good(await owner.http.get(base))["data"][0]
    assert good(await owner.http.post(f"{base}/{made['id']}/revoke"))["status"] == "revoked"
    problem(await owner.http.post(f"{base}/{made['id']}/revoke"), 409, "invitation_not_pending")
    problem(await owner.http.post(f"{base}/{made['id']}/resend"), 409, "invitation_not_pending")
    problem(await owner.http.post(f"{base}/inv_x/revoke"), 404, "invitation_not_found")
    expired = await invite(shop, owner, acme, "bob@example.com")
    clock.advance(LASTS)
    bob = await person(shop, "bob@example.com")
    before = await shop.everything()
    assert await refused(revoked) == await refused(expired) == await refused("") == unknown
    assert await shop.everything() == before
    owner = await owner_of(shop, acme)
    accepted = await invite(shop, owner, acme, "bob@example.com")
    good(await bob.http.post("/v1/invitations/accept", json={"token": accepted}))
    assert await refused(accepted) == unknown
    surrogate = await bob.http.post("/v1/invitations/accept", content=b'{"token": "\\ud800"}')
    problem(surrogate, 400, "malformed_request")


async def test_an_expired_invitation_does_not_stand_in_the_way_of_the_next(shop: Shop, clock: ManualClock) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    await invite(shop, owner, acme, "bob@example.com")
    body = {"email": "BOB@example.com", "role": "Member"}
    base = f"/v1/customers/{acme}/invitations"
    problem(await owner.http.post(base, json=body), 409, "already_invited")
    clock.advance(LASTS - timedelta(seconds=1))
    owner = await owner_of(shop, acme)
    problem(await owner.http.post(base, json=body), 409, "already_invited")
    clock.advance(timedelta(seconds=1))
    good(await owner.http.post(base, json=body))
    assert [row["status"] for row in await shop.rows("invitations")] == ["revoked", "pending"]
    problem(
        await owner.http.post(base, json={"email": "owner@example.com", "role": "Member"}), 409, "already_member"
    )  # fmt: skip


async def test_sending_again_ends_the_link_before_and_waits_an_hour(shop: Shop, clock: ManualClock) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    first = await invite(shop, owner, acme, "bob@example.com")
    made = await shop.row("invitations")
    again = f"/v1/customers/{acme}/invitations/{made['id']}/resend"
    problem(await owner.http.post(again), 429, "rate_limited")
    clock.advance(timedelta(hours=1))
    sent = good(await owner.http.post(again))
    assert sent["expires_at"] == "2026-01-09T04:04:05.678901Z"
    problem(await owner.http.post(again), 429, "rate_limited")
    second = await token_for(shop, "bob@example.com")
    bob = await person(shop, "bob@example.com")
    problem(await bob.http.post("/v1/invitations/accept", json={"token": first}), 404, "invitation_not_found")
    good(await bob.http.post("/v1/invitations/accept", json={"token": second}))
    assert len(await shop.letters("bob@example.com")) == 2


async def test_an_invitation_is_worth_nothing_once_whoever_sent_it_could_not_send_it(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    second = await owner_of(shop, acme, "second@example.com")
    bob = await person(shop, "bob@example.com")
    token = await invite(shop, second, acme, "bob@example.com", "Owner")
    good(await owner.http.put(f"/v1/customers/{acme}/members/{second.id}", json={"role": "MSPAdmin"}))
    problem(await bob.http.post("/v1/invitations/accept", json={"token": token}), 404, "invitation_not_found")
    good(await owner.http.put(f"/v1/customers/{acme}/members/{second.id}", json={"role": "Owner"}))
    good(await bob.http.post("/v1/invitations/accept", json={"token": token}))
    key = good(
        await owner.http.post(f"/v1/customers/{acme}/api-keys", json={"name": "k", "scopes": ["customer_admin"]})
    )
    by_key = {"Authorization": f"Bearer {key['secret']}"}
    body = {"email": "carol@example.com", "role": "Member"}
    good(await shop.http.post(f"/v1/customers/{acme}/invitations", json=body, headers=by_key))
    carol = await person(shop, "carol@example.com")
    token = await token_for(shop, "carol@example.com")
    await shop.scope.run(api_keys.revoke, key["id"])
    problem(await carol.http.post("/v1/invitations/accept", json={"token": token}), 404, "invitation_not_found")


async def test_nobody_invites_to_more_than_they_hold(shop: Shop) -> None:
    acme = await organization(shop)
    admin = await person(shop, "admin@example.com", at=(("MSPAdmin", acme),))
    member = await person(shop, "member@example.com", at=(("Member", acme),))
    stranger = await person(shop, "stranger@example.com")
    path = f"/v1/customers/{acme}/invitations"
    before = await shop.everything()
    for role in ("Owner", "SuperAdmin", "TenantAdmin", "VaultUser"):
        answer = await admin.http.post(path, json={"email": "x@example.com", "role": role})
        problem(answer, 403, "cannot_grant")
    body = {"email": "x@example.com", "role": "Member"}
    problem(await member.http.post(path, json=body), 403, "missing_permission")
    problem(await stranger.http.post(path, json=body), 404, "customer_not_found")
    problem(await shop.http.post(path, json=body), 401, "unauthorized")
    assert await shop.everything() == before
    good(await admin.http.post(path, json=body))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"email": "nobody", "role": "Member"}, 422, "invalid_request"),
        ({"email": "a\nb@example.com", "role": "Member"}, 422, "invalid_request"),
        ({"email": "x@example.com", "role": "King"}, 404, "role_not_found"),
        ({"email": "x@example.com", "role": "Member", "credit_limit": -2}, 422, "invalid_request"),
        ({"email": "x@example.com", "role": "Member", "credit_limit": 2**63}, 422, "invalid_request"),
        ({"email": "x@example.com"}, 422, "invalid_request"),
        ({"email": "x@example.com", "role": "Member", "token": "x"}, 422, "invalid_request"),
    ],
)
async def test_bad_invitations_change_nothing(shop: Shop, body: dict[str, object], status: int, code: str) -> None:
    acme = await organization(shop)
    before = await shop.everything()
    problem(await shop.staff.post(f"/v1/customers/{acme}/invitations", json=body), status, code)
    assert await shop.everything() == before


async def test_a_customer_sends_so_many_a_day(shop: Shop, clock: ManualClock) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    path = f"/v1/customers/{acme}/invitations"
    sent = await answers(
        owner.http.post(path, json={"email": f"x{number}@example.com", "role": "Member"})
        for number in range(MOST_A_DAY + 5)
    )
    assert sent == {(201, ""): MOST_A_DAY, (429, "rate_limited"): 5}
    assert len(await shop.letters()) == MOST_A_DAY
    clock.advance(timedelta(days=1))
    good(await owner.http.post(path, json={"email": "late@example.com", "role": "Member"}))


async def test_a_hundred_accepts_make_one_membership(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    bob = await person(shop, "bob@example.com")
    found = await answers(bob.http.post("/v1/invitations/accept", json={"token": token}) for _ in range(100))
    assert found == {(200, ""): 1, (404, "invitation_not_found"): 99}
    assert await roles_at(shop, acme) == {owner.id: ["Owner"], bob.id: ["Member"]}
    assert await shop.events("invitation.accepted") == ["invitation.accepted"]


async def test_a_hundred_new_people_out_of_one_invitation_are_one(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    join = [
        shop.scope.run(invitations.accept_as_new, token, first_name="Bob", last_name="", password_hash="x")
        for _ in range(100)
    ]
    made = await asyncio.gather(*join, return_exceptions=True)
    assert len([one for one in made if not isinstance(one, BaseException)]) == 1
    assert {type(one).__name__ for one in made if isinstance(one, BaseException)} <= {"NotFound", "Conflict"}
    bob = await shop.scope.read(users.by_email, "bob@example.com")
    assert bob is not None
    assert await roles_at(shop, acme) == {owner.id: ["Owner"], bob.id: ["Member"]}
    assert await shop.count("users") == 2


async def test_a_hundred_invitations_of_one_address_are_one(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    body = {"email": "bob@example.com", "role": "Member"}
    found = await answers(owner.http.post(f"/v1/customers/{acme}/invitations", json=body) for _ in range(100))
    assert found == {(201, ""): 1, (409, "already_invited"): 99}
    assert await shop.count("invitations") == 1
    assert len(await shop.letters()) == 1


async def test_revoking_and_accepting_at_once_is_one_of_them(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    bob = await person(shop, "bob@example.com")
    made = await shop.row("invitations")
    revoke = f"/v1/customers/{acme}/invitations/{made['id']}/revoke"
    found = await answers([bob.http.post("/v1/invitations/accept", json={"token": token}), owner.http.post(revoke)])
    row = await shop.row("invitations")
    joined = bob.id in await roles_at(shop, acme)
    assert (row["status"], joined) in {("accepted", True), ("revoked", False)}
    assert found[200, ""] == 1


async def test_another_tenant_knows_nothing_of_it(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    token = await invite(shop, owner, acme, "bob@example.com")
    good(await shop.staff.post("/v1/tenants", json={"slug": "other", "name": "Other"}))
    other = good(await shop.staff.get("/v1/tenants/other"))["id"]
    theirs = await person(shop, "bob@example.com", tenant=other, path="/t/other")
    answer = await theirs.http.post("v1/invitations/accept", json={"token": token})
    problem(answer, 404, "invitation_not_found")
    answer = await theirs.http.get(f"v1/customers/{acme}/invitations")
    problem(answer, 404, "customer_not_found")


async def test_the_command_line_invites_without_asking_who(shop: Shop) -> None:
    acme = await organization(shop)
    letter = invitations.Letter("t" * 32, "https://example.com/x", "The shop")
    new = NewInvitation("bob@example.com", "SuperAdmin")
    await shop.scope.run(invitations.create, shop.house.master, None, acme, new, letter)
    bob = await person(shop, "bob@example.com")
    good(await bob.http.post("/v1/invitations/accept", json={"token": "t" * 32}))
    assert await roles_at(shop, acme) == {bob.id: ["SuperAdmin"]}
    assert [one.roles for one in await shop.scope.read(members.of_user, bob.id)] == [["SuperAdmin"]]
    assert len(await shop.scope.read(assignments.of_user, bob.id)) == 1
