"""The pages of organizations: members, invitations, and joining."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from tests.accounts.organizations import invite, organization, owner_of, roles_at, token_for
from tests.support.app import Shop, good
from tests.support.people import Person, person
from tests.web.html import Form, Page

from counterfoil.accounts import members, users
from counterfoil.kernel.clock import ManualClock

PASSWORD = "plenty of stapled horses"


async def visitor_at(shop: Shop, email: str, **fields: object) -> Person:
    return await person(shop, email, app=shop.app, **fields)  # type: ignore[arg-type]


async def owner_at(shop: Shop, customer_id: str) -> Person:
    return await visitor_at(shop, "owner@example.com", at=(("Owner", customer_id),))


def form(page: Page, end: str) -> Form:
    (only,) = [one for one in page.forms if one.action.endswith(end)]
    return only


async def send(http: httpx.AsyncClient, found: Form, **fields: str) -> httpx.Response:
    return await http.post(found.action, data={**found.fields, **fields})


async def read(http: httpx.AsyncClient, path: str, status: int = 200) -> Page:
    answer = await http.get(path)
    assert answer.status_code == status, answer.text
    page = Page(answer)
    page.assert_inert()
    return page


async def test_somebody_makes_an_organization_and_owns_it(shop: Shop) -> None:
    ada = await visitor_at(shop, "ada@example.com")
    page = await read(ada.http, "/account/organizations")
    assert "You are a member of none." in page.text
    wrong = await send(ada.http, page.form, name=" ")
    assert wrong.status_code == 422
    assert "Must have 1 to 200 characters." in Page(wrong).text
    made = await send(ada.http, page.form, name="<b>Acme</b> & Söhne")
    assert made.status_code == 303
    page = await read(ada.http, made.headers["location"])
    assert page.heading == "<b>Acme</b> & Söhne"
    row = await shop.row("customers")
    assert (row["name"], row["kind"], row["owner_user_id"]) == ("<b>Acme</b> & Söhne", "organization", ada.id)
    assert await roles_at(shop, row["id"]) == {ada.id: ["Owner"]}
    page = await read(ada.http, "/account/organizations")
    assert f"/account/organizations/{row['id']}" in page.links


async def test_an_owner_invites_and_a_stranger_joins_with_a_new_account(
    shop: Shop, visitor: httpx.AsyncClient
) -> None:  # fmt: skip
    acme = await organization(shop)
    owner = await owner_at(shop, acme)
    own = f"/account/organizations/{acme}"
    sent = await send(owner.http, form(await read(owner.http, own), "/invitations"), email="bob@example.com")
    assert sent.status_code == 404, "no role was chosen"
    chosen = form(await read(owner.http, own), "/invitations")
    sent = await send(owner.http, chosen, email="bob@example.com", role="Member")
    assert (sent.status_code, sent.headers["location"]) == (303, own)
    token = await token_for(shop, "bob@example.com")
    before = await shop.everything()
    page = await read(visitor, f"/invitations/{token}")
    assert await shop.everything() == before
    assert page.heading == "Join Acme"
    assert "bob@example.com" not in page.html
    weak = await send(visitor, page.form, first_name="Bob", password="short")
    assert weak.status_code == 422
    assert "Must have 10 to 256 characters." in Page(weak).text
    nameless = await send(visitor, page.form, password=PASSWORD)
    assert nameless.status_code == 422
    joined = await send(visitor, page.form, first_name="Bob", last_name="Builder", password=PASSWORD)
    assert (joined.status_code, joined.headers["location"]) == (303, own)
    bob = await shop.scope.read(users.by_email, "bob@example.com")
    assert bob is not None
    assert (bob.first_name, bob.last_name) == ("Bob", "Builder")
    (address,) = await shop.rows("user_emails", user_id=bob.id)
    assert (address["via"], address["verified_at"] is not None) == ("invitation", True)
    assert (await roles_at(shop, acme))[bob.id] == ["Member"]
    assert "(you)" in (await read(visitor, own)).text
    await read(visitor, f"/invitations/{token}", 404)


async def test_whoever_has_an_account_signs_in_to_join(shop: Shop, visitor: httpx.AsyncClient) -> None:
    acme = await organization(shop)
    owner = await owner_of(shop, acme)
    bob = await visitor_at(shop, "bob@example.com")
    token = await invite(shop, owner, acme, "bob@example.com")
    page = await read(visitor, f"/invitations/{token}")
    assert page.forms == []
    assert f"/sign-in?next=/invitations/{token}" in page.links
    forced = await visitor.post(f"/invitations/{token}/join", data={"first_name": "X", "password": PASSWORD})
    assert forced.status_code == 403
    mallory = await visitor_at(shop, "mallory@example.com")
    refused = await send(mallory.http, (await read(mallory.http, f"/invitations/{token}")).form)
    assert refused.status_code == 403
    assert "another address" in Page(refused).text
    assert "bob@example.com" not in refused.text
    page = await read(bob.http, f"/invitations/{token}")
    assert (await send(bob.http, page.form)).status_code == 303
    assert (await roles_at(shop, acme))[bob.id] == ["Member"]
    assert (await send(bob.http, page.form)).status_code == 404


async def test_members_change_roles_are_removed_and_leave(shop: Shop) -> None:
    acme = await organization(shop)
    owner = await owner_at(shop, acme)
    bob = await visitor_at(shop, "bob@example.com", at=(("Member", acme),))
    carol = await visitor_at(shop, "carol@example.com", at=(("Member", acme),))
    own = f"/account/organizations/{acme}"
    page = await read(owner.http, own)
    assert "SuperAdmin" not in page.html  # not the owner's to grant
    changed = await send(owner.http, form(page, f"/members/{bob.id}/role"), role="BillingAdmin")
    assert changed.status_code == 303
    removed = await send(owner.http, form(page, f"/members/{carol.id}/remove"))
    assert removed.status_code == 303
    assert await roles_at(shop, acme) == {owner.id: ["Owner"], bob.id: ["BillingAdmin"]}
    more = await send(owner.http, form(page, f"/members/{bob.id}/role"), role="SuperAdmin")
    assert (more.status_code, "cannot grant" in Page(more).text) == (403, True)
    last = await send(owner.http, form(page, "/leave"))
    assert (last.status_code, "The last owner stays" in Page(last).text) == (409, True)
    await shop.scope.run(members.add, None, acme, bob.id, "Owner")
    left = await send(owner.http, form(page, "/leave"))
    assert (left.status_code, left.headers["location"]) == (303, "/account/organizations")
    assert (await owner.http.get(own)).status_code == 404


async def test_invitations_are_sent_again_and_taken_back(shop: Shop, clock: ManualClock) -> None:
    acme = await organization(shop)
    owner = await owner_at(shop, acme)
    await invite(shop, owner, acme, "bob@example.com")
    own = f"/account/organizations/{acme}"
    page = await read(owner.http, own)
    assert "bob@example.com" in page.text
    early = await send(owner.http, form(page, "/resend"))
    assert (early.status_code, "less than an hour old" in Page(early).text) == (429, True)
    again = await send(owner.http, form(page, "/invitations"), email="bob@example.com", role="Member")
    assert (again.status_code, "invited already" in Page(again).text) == (409, True)
    clock.advance(timedelta(hours=1))
    assert (await send(owner.http, form(page, "/resend"))).status_code == 303
    assert (await send(owner.http, form(page, "/revoke"))).status_code == 303
    assert "bob@example.com" not in (await read(owner.http, own)).text


async def test_a_member_sees_and_changes_nothing_more(shop: Shop, visitor: httpx.AsyncClient) -> None:
    acme = await organization(shop)
    owner = await owner_at(shop, acme)
    bob = await visitor_at(shop, "bob@example.com", at=(("Member", acme),))
    stranger = await visitor_at(shop, "stranger@example.com")
    own = f"/account/organizations/{acme}"
    page = await read(bob.http, own)
    assert [one.action.rpartition("/")[2] for one in page.forms] == ["leave"]
    fields = page.form.fields
    before = await shop.everything()
    for path in (f"/members/{owner.id}/remove", f"/members/{bob.id}/role", "/invitations", "/invitations/x/revoke"):
        refused = await bob.http.post(own + path, data={**fields, "role": "Owner", "email": "x@example.com"})
        assert refused.status_code == 403, path
        assert (await stranger.http.post(own + path, data=fields)).status_code == 404
    assert (await stranger.http.get(own)).status_code == 404
    for path in ("/account/organizations", own):
        away = await visitor.get(path)
        assert (away.status_code, away.headers["location"]) == (303, f"/sign-in?next={path}")
    assert await shop.everything() == before


@pytest.mark.parametrize("path", ["members/{bob}/remove", "members/{bob}/role", "invitations", "leave"])
async def test_forms_of_other_sites_change_nothing(shop: Shop, path: str) -> None:
    acme = await organization(shop)
    owner = await owner_at(shop, acme)
    await owner_of(shop, acme, "second@example.com")
    bob = await person(shop, "bob@example.com", at=(("Member", acme),))
    before = await shop.everything()
    url = f"/account/organizations/{acme}/{path.format(bob=bob.id)}"
    fields = {"role": "Owner", "email": "x@example.com"}
    token = form(await read(owner.http, f"/account/organizations/{acme}"), "/leave").fields
    assert (await owner.http.post(url, data=fields)).status_code == 403
    assert (await owner.http.post(url, data={**fields, "csrf": "x"})).status_code == 403
    theirs = await owner.http.post(url, data={**fields, **token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert theirs.status_code == 403
    assert await shop.everything() == before
    assert good(await shop.staff.get(f"/v1/customers/{acme}/members"))["next"] is None
