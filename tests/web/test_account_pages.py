"""The pages about accounts, in this process, on both databases."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from tests.support.accounts import OTHER_PASSWORD, PASSWORD, other_tenant, token_to
from tests.support.app import Shop, client_of, good, opening
from tests.support.people import person
from tests.web.html import Form, Page

from counterfoil.http.unsubscribing import unsubscribe_url
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

ADA = "ada@example.com"
EVERYTHING = {"marketing": True, "product_updates": True, "payment_receipts": True}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master, sign_ins_per_minute=0) as opened:
        yield opened


async def see(visitor: httpx.AsyncClient, path: str, status: int = 200) -> Page:
    return check(await visitor.get(path), status)


def check(response: httpx.Response, status: int = 200) -> Page:
    """A page that nobody keeps, that runs nothing, and whose address no other site learns."""
    assert response.status_code == status, response.text
    headers = response.headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["form-action"] == "'self' http://127.0.0.1:8787"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "strict-origin"
    assert "noindex" in headers["x-robots-tag"]
    page = Page(response)
    page.assert_inert()
    for control in page.all("input"):
        if control.attributes.get("type") != "hidden" and "hidden" not in control.attributes:
            labeled = control.attributes.get("type") == "checkbox" or page.all(
                "label", **{"for": control.attributes["id"]}
            )
            assert labeled, control
            assert control.attributes.get("type") == "checkbox" or control.attributes["autocomplete"]
    for form in page.forms:
        assert "csrf" in form.fields or "/unsubscribe/" in form.action, form.action
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    return page


def form_at(page: Page, path: str) -> Form:
    """The page's form that leads there; the last one of several."""
    return [form for form in page.forms if httpx.URL(form.action).path == path][-1]


async def send(visitor: httpx.AsyncClient, page: Page, path: str, **fields: str) -> httpx.Response:
    form = form_at(page, path)
    return await visitor.post(form.action, data={**form.fields, **fields})


def leads_to(response: httpx.Response) -> str:
    assert response.status_code == 303, response.text
    assert response.headers["cache-control"] == "no-store"
    return str(response.headers["location"])


async def signed_up(shop: Shop, visitor: httpx.AsyncClient, email: str = ADA, **fields: str) -> None:
    """By the pages."""
    given = {"email": email, "first_name": "Ada", "last_name": "Lovelace", **fields}
    check(await send(visitor, await see(visitor, "/sign-up"), "/sign-up", **given))
    token = await token_to(shop, email, "verify_sign_up")
    page = await see(visitor, f"/sign-up/finish?token={token}")
    assert leads_to(await send(visitor, page, "/sign-up/finish", password=PASSWORD)) == "/account?done=signed_up"


async def sign_in(
    visitor: httpx.AsyncClient, email: str = ADA, password: str = PASSWORD, path: str = "/sign-in"
) -> httpx.Response:
    return await send(visitor, await see(visitor, path), "/sign-in", email=email, password=password)


async def test_a_person_signs_up_out_and_in(shop: Shop, visitor: httpx.AsyncClient) -> None:
    page = check(
        await send(
            visitor,
            await see(visitor, "/sign-up"),
            "/sign-up",
            email=ADA,
            first_name="Ada",
            last_name="",
            organization="Analytical Engines",
        )
    )
    assert page.heading == "Look into your mailbox"
    assert ADA in page.text
    assert await shop.count("users") == 0
    token = await token_to(shop, ADA, "verify_sign_up")
    before = await shop.everything()
    page = await see(visitor, f"/sign-up/finish?token={token}")
    await see(visitor, f"/sign-up/finish?token={token}")
    assert await shop.everything() == before  # looking at the link changes nothing
    assert page.heading == "Welcome, Ada"
    assert "Analytical Engines" in page.text
    assert page.one("input", name="password").attributes["autocomplete"] == "new-password"
    weak = check(await send(visitor, page, "/sign-up/finish", password="short"), 422)
    assert weak.one("p", id="password-error").text == "Must have 10 to 256 characters."
    assert "autofocus" in weak.one("input", name="password").attributes
    assert "short" not in weak.html
    assert leads_to(await send(visitor, weak, "/sign-up/finish", password=PASSWORD)) == "/account?done=signed_up"
    account = await see(visitor, "/account?done=signed_up")
    assert account.one("p", role="status").text == "Welcome. Your account is ready."
    assert (await see(visitor, f"/sign-up/finish?token={token}", 422)).heading == "This link does not work any more"
    assert leads_to(await send(visitor, account, "/sign-out")) == "/"
    assert leads_to(await visitor.get("/account")) == "/sign-in?next=/account"
    assert leads_to(await sign_in(visitor, path="/sign-in?next=/account")) == "/account"
    assert (await see(visitor, "/account")).heading == "Your account"
    # Who is signed in need not sign in.
    assert leads_to(await visitor.get("/sign-in?next=/account/passkeys")) == "/account/passkeys"


async def test_known_and_unknown_addresses_look_alike(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await person(shop, ADA)
    disabled = await person(shop, "off@example.com")
    good(await shop.staff.post(f"/v1/users/{disabled.id}/disable"))
    for path, fields in (
        ("/sign-up", {"first_name": "Ada"}),
        ("/forgot", {}),
        ("/sign-in", {"password": "not the password"}),
    ):
        page = await see(visitor, path)
        seen = set()
        for email in (ADA, "new@example.com", "off@example.com"):
            answer = await send(visitor, page, path, email=email, **fields)
            headers = [
                (name, value)
                for name, value in answer.headers.items()
                if name not in {"x-request-id", "content-length"}
            ]
            seen.add((answer.status_code, answer.text.replace(email, "E"), str(headers)))
        assert len(seen) == 1, path


async def test_signing_in_fails_the_same_way_always(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await person(shop, ADA)
    page = check(await sign_in(visitor, password="not the password"), 401)
    assert page.one("div", role="alert").text == "The e-mail address or the password is wrong."
    assert page.one("input", name="email").attributes["value"] == ADA
    assert "not the password" not in page.html
    assert set(visitor.cookies) == {"cf_visitor"}


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "\\\\evil.test",
        "///evil.test",
        "javascript:alert(1)",
        "http:evil.test",
        "/\t/evil.test",
        "/%0d%0aLocation: https://evil.test\r\n",
        "account",
        "",
        "/" + "x" * 3000,
        "/é",
    ],
)
async def test_signing_in_leads_to_no_other_site(shop: Shop, visitor: httpx.AsyncClient, wanted: str) -> None:
    await signed_up(shop, visitor)
    for where in ("query", "field"):
        visitor.cookies.clear()
        page = check(await visitor.get("/sign-in", params={"next": wanted} if where == "query" else {}))
        fields = {"next": wanted} if where == "field" else {}
        location = leads_to(await send(visitor, page, "/sign-in", email=ADA, password=PASSWORD, **fields))
        assert location == "/account" or (location.startswith("/%0d%0a") and "\r" not in location)
        assert leads_to(await visitor.get("/sign-in", params={"next": wanted})) == location


async def test_pages_that_need_somebody_lead_to_signing_in_and_back(shop: Shop, visitor: httpx.AsyncClient) -> None:
    for path, way in [
        ("/account", "/sign-in?next=/account"),
        ("/account/delete", "/sign-in?next=/account/delete"),
        ("/verify-address?token=abc&x=%26", "/sign-in?next=/verify-address%3Ftoken%3Dabc%26x%3D%2526"),
    ]:
        assert leads_to(await visitor.get(path)) == way
    await signed_up(shop, visitor)
    visitor.cookies.clear()
    page = await see(visitor, "/sign-in?next=/verify-address%3Ftoken%3Dabc%26x%3D%2526")
    answer = await send(visitor, page, "/sign-in", email=ADA, password=PASSWORD)
    assert leads_to(answer) == "/verify-address?token=abc&x=%26"


async def test_a_form_sent_without_a_session_is_lost(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, visitor)
    page = await see(visitor, "/account")
    shop.clock.advance(timedelta(days=40))
    before = await shop.everything()
    assert leads_to(await send(visitor, page, "/account/names", first_name="Eve")) == "/sign-in?next=/account"
    assert await shop.everything() == before


async def test_every_form_is_refused_from_elsewhere(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await signed_up(shop, visitor)
    await signed_up(shop, other_visitor, "eve@example.com")
    good(await visitor.post("/v1/me/emails", json={"email": "second@example.com"}))
    other_page = await see(other_visitor, "/account")
    pages = [await see(visitor, "/account"), await see(visitor, "/account/delete")]
    forms = [form for page in pages for form in page.forms]
    async with client_of(shop.app) as stranger:
        own = [form for path in ("/sign-in", "/sign-up", "/forgot") for form in (await see(stranger, path)).forms]
        assert len(forms) == 8
        before = await shop.everything()
        for form in forms:
            for csrf in ("", "0" * 40, other_page.forms[0].fields["csrf"]):
                check_refused(await visitor.post(form.action, data={**form.fields, "csrf": csrf}))
            for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}, {"Origin": "null"}):
                check_refused(await visitor.post(form.action, data=form.fields, headers=headers))
        for form in own:
            for csrf in ("", "0" * 40):
                check_refused(await stranger.post(form.action, data={**form.fields, "csrf": csrf}))
            check_refused(await stranger.post(form.action, data=form.fields, headers={"Sec-Fetch-Site": "cross-site"}))
    assert await shop.everything() == before


def check_refused(response: httpx.Response) -> None:
    assert response.status_code == 403, response.text
    assert not response.headers.get_list("set-cookie")


async def test_mistakes_in_signing_up_are_told_beside_their_field(shop: Shop, visitor: httpx.AsyncClient) -> None:
    before = await shop.everything()
    for field, value, said in [
        ("email", "not an address", "Not an e-mail address."),
        ("first_name", "", "Must have 1 to 200 characters."),
        ("first_name", "a\u202eb", "Must not contain control characters."),
        ("last_name", "x" * 201, "Must have 0 to 200 characters."),
        ("organization", "a\x07b", "Must not contain control characters."),
    ]:
        given = {"email": ADA, "first_name": "<b>Ada</b>", field: value}
        page = check(await send(visitor, await see(visitor, "/sign-up"), "/sign-up", **given), 422)
        assert page.one("p", id=f"{field}-error").text == said
        control = page.one("input", name=field)
        assert control.attributes["aria-invalid"] == "true"
        assert f"{field}-error" in control.attributes["aria-describedby"].split()
        assert [one.attributes["name"] for one in page.all("input") if "autofocus" in one.attributes] == [field]
        if field != "first_name":
            assert page.one("input", name="first_name").attributes["value"] == "<b>Ada</b>"
    assert await shop.everything() == before


async def test_a_forgotten_password(shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, other_visitor)
    page = check(await send(visitor, await see(visitor, "/forgot"), "/forgot", email=ADA))
    assert page.heading == "Look into your mailbox"
    token = await token_to(shop, ADA, "reset_password")
    before = await shop.everything()
    page = await see(visitor, f"/reset?token={token}")
    assert await shop.everything() == before
    weak = check(await send(visitor, page, "/reset", password="Ada Lovelace"), 422)
    assert weak.one("p", id="password-error").text == "Must not be your name or your address."
    assert leads_to(await send(visitor, page, "/reset", password=OTHER_PASSWORD)) == "/account?done=password"
    assert "signed out everywhere else" in (await see(visitor, "/account?done=password")).text
    assert leads_to(await other_visitor.get("/account")) == "/sign-in?next=/account"
    assert (await see(visitor, f"/reset?token={token}", 422)).heading == "This link does not work any more"
    for bad in ("", "x", "é", "x" * 5000, await token_to(shop, ADA, "verify_sign_up")):
        again = await visitor.get("/reset", params={"token": bad})
        assert check(again, 422).heading == "This link does not work any more"
        assert "/forgot" in check(again, 422).links


async def test_ones_names_addresses_and_password(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, visitor)
    page = await see(visitor, "/account")
    answer = await send(visitor, page, "/account/names", first_name="毛", last_name="", username="mao", avatar_url="")
    assert leads_to(answer) == "/account?done=names#names"
    page = await see(visitor, "/account?done=names")
    fields = form_at(page, "/account/names").fields
    assert (fields["first_name"], fields["last_name"], fields["username"]) == ("毛", "", "mao")
    wrong = check(await send(visitor, page, "/account/names", username="No Such Name", first_name="Kept"), 422)
    assert wrong.one("p", id="username-error")
    assert form_at(wrong, "/account/names").fields["first_name"] == "Kept"
    await person(shop, "other@example.com")
    good(await (await person(shop, "other@example.com")).http.patch("/v1/me", json={"username": "taken"}))
    taken = check(await send(visitor, page, "/account/names", username="taken"), 409)
    assert taken.one("p", id="username-error").text == "Somebody else has this username."

    assert (
        leads_to(await send(visitor, page, "/account/emails", email="2@example.com")) == "/account?done=letter#emails"
    )
    token = await token_to(shop, "2@example.com", "verify_address")
    before = await shop.everything()
    page = await see(visitor, f"/verify-address?token={token}")
    assert "2@example.com" in page.text
    assert await shop.everything() == before
    assert leads_to(await send(visitor, page, "/verify-address")) == "/account?done=verified#emails"
    assert (await see(visitor, f"/verify-address?token={token}", 422)).heading == "This link does not work any more"
    page = await see(visitor, "/account")
    second = await shop.row("user_emails", email="2@example.com")
    assert (
        leads_to(await send(visitor, page, f"/account/emails/{second['id']}/primary")) == "/account?done=primary#emails"
    )
    page = await see(visitor, "/account")
    first = await shop.row("user_emails", email=ADA)
    assert (
        leads_to(await send(visitor, page, f"/account/emails/{first['id']}/remove")) == "/account?done=removed#emails"
    )
    # A page that was open elsewhere meanwhile.
    late = check(await send(visitor, page, f"/account/emails/{first['id']}/remove"), 404)
    assert late.one("div", role="alert").text == "You have no such address."

    page = await see(visitor, "/account")
    wrong = check(
        await send(visitor, page, "/account/password", current_password="wrong one", new_password=OTHER_PASSWORD), 422
    )
    assert wrong.one("p", id="current_password-error").text == "Is not your password."
    assert "wrong one" not in wrong.html
    answer = await send(visitor, page, "/account/password", current_password=PASSWORD, new_password=OTHER_PASSWORD)
    assert leads_to(answer) == "/account?done=password#password"


async def test_who_has_no_password_is_led_to_a_letter(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com", app=shop.app)
    page = await see(bob.http, "/account")
    assert not [form for form in page.forms if form.action.endswith("/account/password")]
    assert "/forgot" in page.links


async def test_sessions_are_listed_and_ended(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await signed_up(shop, visitor)
    other_visitor.headers["User-Agent"] = "<script>alert(1)</script>"
    assert leads_to(await sign_in(other_visitor)) == "/account"
    page = await see(visitor, "/account")
    assert "<script>alert(1)</script>" in page.text
    assert "This browser" in page.text
    (form,) = [form for form in page.forms if re.search(r"/account/sessions/ses_\w+/end$", form.action)]
    assert leads_to(await visitor.post(form.action, data=form.fields)) == "/account?done=session#sessions"
    assert leads_to(await other_visitor.get("/account")) == "/sign-in?next=/account"
    check(await visitor.post(form.action, data=form.fields), 404)
    other_visitor.cookies.clear()
    await sign_in(other_visitor)
    page = await see(visitor, "/account")
    assert leads_to(await send(visitor, page, "/account/sessions/end-others")) == "/account?done=sessions#sessions"
    assert leads_to(await other_visitor.get("/account")) == "/sign-in?next=/account"
    assert (await see(visitor, "/account")).heading == "Your account"


async def test_nobody_touches_what_is_anothers(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await signed_up(shop, visitor)
    await signed_up(shop, other_visitor, "eve@example.com")
    good(await visitor.post("/v1/me/emails", json={"email": "second@example.com"}))
    token = await token_to(shop, "second@example.com", "verify_address")
    ada = await shop.row("user_emails", email="second@example.com")
    session = await shop.row("sessions", user_id=ada["user_id"])
    csrf = (await see(other_visitor, "/account")).forms[0].fields["csrf"]
    before = await shop.everything()
    for path in (
        f"/account/emails/{ada['id']}/primary",
        f"/account/emails/{ada['id']}/remove",
        f"/account/sessions/{session['id']}/end",
    ):
        check(await other_visitor.post(path, data={"csrf": csrf}), 404)
    check(await other_visitor.get(f"/verify-address?token={token}"), 422)
    check(await other_visitor.post("/verify-address", data={"csrf": csrf, "token": token}), 422)
    assert await shop.everything() == before


async def test_preferences(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, visitor)
    page = await see(visitor, "/account")
    form = form_at(page, "/account/preferences")
    # Nobody gets offers who has not asked for them.
    assert set(form.fields) == {"csrf", "product_updates", "payment_receipts"}
    for wanted in ({"payment_receipts"}, {"marketing", "product_updates"}, set()):
        kept = {"csrf": form.fields["csrf"], **dict.fromkeys(wanted, "yes")}
        assert leads_to(await visitor.post(form.action, data=kept)) == "/account?done=preferences#letters"
        form = form_at(await see(visitor, "/account"), "/account/preferences")
        assert set(form.fields) == {"csrf", *wanted}


async def test_one_click_unsubscribes_without_signing_in(shop: Shop, visitor: httpx.AsyncClient) -> None:
    bob = await person(shop, "bob@example.com")
    good(await bob.http.put("/v1/me/email-preferences", json=EVERYTHING))
    url = await unsubscribe_url(shop.house, shop.scope.tenant, bob.id, "marketing")
    assert url.startswith("http://127.0.0.1:8787/unsubscribe/usr_")
    before = await shop.everything()
    page = await see(visitor, url)
    await see(visitor, url)
    assert await shop.everything() == before
    assert "Offers" in page.text
    page = check(await visitor.post(page.form.action, data=page.form.fields))
    assert page.heading == "You are unsubscribed"
    wanted = {"marketing": False, "product_updates": True, "payment_receipts": True}
    assert good(await bob.http.get("/v1/me/email-preferences")) == wanted
    assert not visitor.cookies


async def test_a_mail_program_unsubscribes_in_one_request(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com")
    good(await bob.http.put("/v1/me/email-preferences", json=EVERYTHING))
    for kind, sent in (
        ("marketing", {"data": {"List-Unsubscribe": "One-Click"}}),
        ("product_updates", {"files": {"List-Unsubscribe": (None, "One-Click")}}),
        (
            "payment_receipts",
            {"content": b"", "headers": {"Origin": "https://mail.test", "Sec-Fetch-Site": "cross-site"}},
        ),
    ):
        url = await unsubscribe_url(shop.house, shop.scope.tenant, bob.id, kind)  # type: ignore[arg-type]
        for _ in range(3):
            async with client_of(shop.app) as program:
                answer = await program.post(url, **sent)  # type: ignore[arg-type]
                assert answer.status_code == 200
                assert not answer.headers.get_list("set-cookie")
    assert set(good(await bob.http.get("/v1/me/email-preferences")).values()) == {False}
    assert await shop.events("email_preference.unsubscribed") == ["email_preference.unsubscribed"] * 3


async def test_made_up_links_unsubscribe_nobody(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await other_tenant(shop)
    bob, eve = await person(shop, "bob@example.com"), await person(shop, "eve@example.com")
    url = await unsubscribe_url(shop.house, shop.scope.tenant, bob.id, "marketing")
    token = url.rpartition("/")[2]
    user_id, kind, mac = token.split(".")
    before = await shop.everything()
    for made_up in (
        f"{eve.id}.{kind}.{mac}",
        f"{user_id}.product_updates.{mac}",
        f"{user_id}.everything.{mac}",
        f"{user_id}.{kind}.{'0' * 40}",
        f"{user_id}.{kind}",
        token[:-1],
        f"{token}0",
        token.upper(),
        "x",
        "é",
        "x" * 3000,
    ):
        check_gone(await visitor.get(f"/unsubscribe/{made_up}"))
        check_gone(await visitor.post(f"/unsubscribe/{made_up}", data={"List-Unsubscribe": "One-Click"}))
    check_gone(await visitor.post(f"/t/other/unsubscribe/{token}"))
    assert await shop.everything() == before


def check_gone(response: httpx.Response) -> None:
    assert response.status_code == 404
    assert Page(response).heading == "We cannot find that page"


async def test_whoever_left_can_still_unsubscribe(shop: Shop, visitor: httpx.AsyncClient) -> None:
    bob = await person(shop, "bob@example.com")
    url = await unsubscribe_url(shop.house, shop.scope.tenant, bob.id, "marketing")
    shop.clock.advance(timedelta(days=4000))
    check(await visitor.post(url))
    bob = await person(shop, "bob@example.com")
    assert (await bob.http.delete("/v1/me")).status_code == 204
    before = await shop.everything()
    check(await visitor.post(url))
    assert await shop.everything() == before


async def test_leaving_for_good(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, visitor)
    assert "/account/delete" in (await see(visitor, "/account")).links
    page = await see(visitor, "/account/delete")
    assert await shop.count("users", deleted_at=None) == 1
    assert leads_to(await send(visitor, page, "/account/delete")) == "/"
    assert await shop.count("users", deleted_at=None) == 0
    assert "cf_session" not in visitor.cookies
    assert check(await sign_in(visitor), 401)


async def test_the_only_owner_is_told_why_not(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await signed_up(shop, visitor, organization="Engines")
    customer = (await shop.row("customers"))["id"]
    await person(shop, "bob@example.com", at=(("Member", customer),))
    page = check(await send(visitor, await see(visitor, "/account/delete"), "/account/delete"), 409)
    assert "owner" in page.one("div", role="alert").text
    assert await shop.count("users", deleted_at=None) == 2


async def test_too_many_tries_are_told_to_wait(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with (
        opening(database_url, clock, master, sign_ins_per_minute=2) as shop,
        client_of(shop.app) as visitor,
    ):
        for _ in range(2):
            check(await sign_in(visitor), 401)
        answer = await sign_in(visitor)
        assert answer.status_code == 429
        assert Page(answer).heading == "One moment, please"
        assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_an_account_of_another_tenant(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await other_tenant(shop)
    await signed_up(shop, visitor)
    assert leads_to(await visitor.get("/t/other/account")) == "/t/other/sign-in?next=/t/other/account"
    page = await see(visitor, "/t/other/sign-in?next=/t/other/account")
    assert page.form.action.endswith("/t/other/sign-in")
    assert check(await send(visitor, page, "/t/other/sign-in", email=ADA, password=PASSWORD), 401)
    assert (await see(visitor, "/account")).heading == "Your account"
    assert "/account" in (await see_shop(visitor)).links


async def see_shop(visitor: httpx.AsyncClient) -> Page:
    return Page(await visitor.get("/"))


async def test_staff_is_led_to_the_passkey(shop: Shop) -> None:
    staff = await person(shop, "staff@example.com", staff="SuperAdmin", method="password", app=shop.app)
    page = await see(staff.http, "/account")
    assert "/sign-in/passkey?next=/account" in page.links


async def test_a_key_has_no_pages(shop: Shop) -> None:
    async with client_of(shop.app, headers=dict(shop.staff.headers)) as robot:
        answer = await robot.get("/account")
    assert answer.status_code == 403
    async with client_of(shop.app, headers={"Authorization": "Bearer nonsense"}) as robot:
        await see(robot, "/sign-in")
