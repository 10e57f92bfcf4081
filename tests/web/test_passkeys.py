"""The pages about passkeys, as a browser without a screen sees them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.support.app import Shop, client_of, problem
from tests.support.authenticator import Authenticator
from tests.support.people import person
from tests.web.html import Page

from counterfoil.accounts import enrollment

HOME = "http://localhost:8787"
EMAIL = "ada@example.com"


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A browser at the address passkeys belong to."""
    async with client_of(shop.app) as client:
        client.base_url = httpx.URL(HOME)
        yield client


def only_form(page: Page, action: str) -> dict[str, str]:
    """The fields of the form that leads there."""
    (found,) = [form for form in page.forms if form.action == f"{HOME}{action}"]
    return dict(found.fields)


def asked(page: Page) -> dict[str, Any]:
    """What the page has its script ask the browser."""
    (form,) = [form for form in page.all("form") if "data-passkey" in form.attributes]
    options: dict[str, Any] = json.loads(form.attributes["data-options"])
    return options


async def link(shop: Shop, email: str = EMAIL, **fields: Any) -> str:
    token = enrollment.new_token()
    await shop.scope.run(enrollment.invite, token, email=email, **fields)
    return f"/enroll/{token}"


async def get(browser: httpx.AsyncClient, path: str, status: int = 200) -> Page:
    page = Page(await browser.get(path))
    assert page.status == status, page.text
    return page


async def send(browser: httpx.AsyncClient, path: str, fields: dict[str, str], status: int = 200) -> Page:
    page = Page(await browser.post(path, data=fields))
    assert page.status == status, page.text
    return page


def codes_on(page: Page) -> list[str]:
    return page.one("pre", id="codes").text.split()


async def enroll(shop: Shop, browser: httpx.AsyncClient, key: Authenticator) -> list[str]:
    """Enroll by the pages; the recovery codes."""
    path = await link(shop)
    form = only_form(await get(browser, path), path)
    making = await send(browser, path, {**form, "first_name": "Ada", "last_name": "Lovelace"})
    fields = only_form(making, f"{path}/passkey")
    credential = json.dumps(key.make(asked(making)))
    return codes_on(await send(browser, f"{path}/passkey", {**fields, "credential": credential}))


async def show(browser: httpx.AsyncClient, key: Authenticator, **how: Any) -> httpx.Response:
    """Sign in by the pages."""
    page = await get(browser, "/sign-in/passkey?next=/account/passkeys")
    fields = only_form(page, "/sign-in/passkey")
    return await browser.post(
        "/sign-in/passkey", data={**fields, "credential": json.dumps(key.show(asked(page), **how))}
    )


async def test_enrolling_signing_in_and_a_second_passkey(shop: Shop, browser: httpx.AsyncClient) -> None:
    path, key = await link(shop, first_name="Augusta"), Authenticator()
    before = await shop.everything()
    page = await get(browser, path)
    assert await shop.everything() == before  # looking changes nothing
    page.assert_inert()
    assert "SuperAdmin" in page.text
    assert EMAIL in page.text
    form = only_form(page, path)
    assert (form["first_name"], form["last_name"], form["name"]) == ("Augusta", "", "Passkey")
    making = await send(browser, path, {**form, "first_name": "Ada", "last_name": "Lovelace", "name": "YubiKey"})
    making.assert_inert("passkeys")
    assert "needs JavaScript" in making.one("noscript").text
    options = asked(making)
    assert options["user"]["name"] == EMAIL
    assert options["user"]["displayName"] == "Ada Lovelace"
    fields = only_form(making, f"{path}/passkey")
    answer = await browser.post(f"{path}/passkey", data={**fields, "credential": json.dumps(key.make(options))})
    assert answer.headers["cache-control"] == "no-store"
    codes = Page(answer)
    codes.assert_inert()
    assert len(codes_on(codes)) == 10
    assert (await browser.get("/v1/orders")).status_code == 200
    assert [row["name"] for row in await shop.rows("passkeys")] == ["YubiKey"]
    await get(browser, path, 404)

    browser.cookies.clear()
    answer = await show(browser, key)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/passkeys")
    assert (await browser.get("/v1/orders")).status_code == 200

    own = await get(browser, "/account/passkeys")
    own.assert_inert()
    assert "10 of your recovery codes are left" in own.text
    adding = await send(browser, "/account/passkeys", {**only_form(own, "/account/passkeys"), "name": "Spare"})
    adding.assert_inert("passkeys")
    assert [one["id"] for one in asked(adding)["excludeCredentials"]] == [key.id]
    fields = only_form(adding, "/account/passkeys/add")
    spare = Authenticator()
    answer = await browser.post(
        "/account/passkeys/add", data={**fields, "credential": json.dumps(spare.make(asked(adding)))}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/passkeys")
    assert [one.text for one in (await get(browser, "/account/passkeys")).all("h2")][:2] in (
        ["YubiKey", "Spare"], ["Spare", "YubiKey"],
    )  # fmt: skip


async def test_who_has_an_account_becomes_staff_with_it(shop: Shop, browser: httpx.AsyncClient) -> None:
    known = await person(shop, EMAIL)
    path = await link(shop, role="BillingAdmin")
    page = await get(browser, path)
    form = only_form(page, path)
    assert form.keys() == {"csrf", "name"}
    making = await send(browser, path, form)
    assert asked(making)["user"]["displayName"] == "Ada"
    fields = only_form(making, f"{path}/passkey")
    credential = json.dumps(Authenticator().make(asked(making)))
    assert len(codes_on(await send(browser, f"{path}/passkey", {**fields, "credential": credential}))) == 10
    assert (await shop.row("passkeys"))["user_id"] == known.id
    assert (await browser.get("/v1/orders")).status_code == 200
    # A second link finds recovery codes there are already, and shows none.
    again = await link(shop, role="ReadOnly")
    making = await send(browser, again, only_form(await get(browser, again), again))
    fields = only_form(making, f"{again}/passkey")
    credential = json.dumps(Authenticator().make(asked(making)))
    answer = await browser.post(f"{again}/passkey", data={**fields, "credential": credential})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")


async def test_renaming_removing_and_new_codes(shop: Shop, browser: httpx.AsyncClient) -> None:
    old = await enroll(shop, browser, Authenticator())
    (row,) = await shop.rows("passkeys")
    path = f"/account/passkeys/{row['id']}"
    fields = only_form(await get(browser, "/account/passkeys"), f"{path}/rename")
    assert fields["name"] == "Passkey"
    answer = await browser.post(f"{path}/rename", data={**fields, "name": "Key ring"})
    assert answer.status_code == 303
    refused = await send(browser, f"{path}/rename", {**fields, "name": ""}, 422)
    assert "Key ring" in refused.text
    last = await send(browser, f"{path}/remove", {"csrf": fields["csrf"]}, 409)
    assert "Staff need a passkey" in last.one("div", class_="alarm").text
    fresh = codes_on(await send(browser, "/account/recovery-codes", {"csrf": fields["csrf"]}))
    assert not set(fresh) & set(old)
    assert await shop.count("passkeys", name="Key ring") == 1


async def test_forms_that_are_not_ours_are_refused(shop: Shop, browser: httpx.AsyncClient) -> None:
    path, key = await link(shop, "bob@example.com"), Authenticator()
    await enroll(shop, browser, key)
    (row,) = await shop.rows("passkeys")
    before = await shop.everything()
    for form in (
        path,
        f"{path}/passkey",
        "/sign-in/passkey",
        "/sign-in/passkey/email",
        "/sign-in/recovery",
        "/account/passkeys",
        "/account/passkeys/add",
        f"/account/passkeys/{row['id']}/rename",
        f"/account/passkeys/{row['id']}/remove",
        "/account/recovery-codes",
    ):
        await send(browser, form, {"name": "x"}, 403)
        crossing = await browser.post(form, data={"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
        assert crossing.status_code == 403
    assert await shop.everything() == before


async def test_mistakes_are_told_where_they_were_made(shop: Shop, browser: httpx.AsyncClient) -> None:
    path = await link(shop)
    form = only_form(await get(browser, path), path)
    page = await send(browser, path, {**form, "first_name": "x" * 201, "last_name": "Lovelace"}, 422)
    assert "200 characters" in page.one("p", id="first_name-error").text
    assert only_form(page, path)["last_name"] == "Lovelace"
    assert "1 to 100" in (await send(browser, path, {**form, "name": ""}, 422)).one("p", id="name-error").text
    making = await send(browser, path, form)
    fields = only_form(making, f"{path}/passkey")
    for credential in ("", "{", "[]", "{}", '{"response": {}}'):
        page = await send(browser, f"{path}/passkey", {**fields, "credential": credential}, 422)
        assert page.heading.startswith("Welcome")
        assert page.one("div", class_="alarm").text
    shop.clock.advance(timedelta(minutes=5))
    late = json.dumps(Authenticator().make(asked(making)))
    page = await send(browser, f"{path}/passkey", {**fields, "credential": late}, 409)
    assert "more than five minutes" in page.one("div", class_="alarm").text
    assert await shop.count("users") == 0


async def test_signing_in_badly_says_so_and_asks_again(shop: Shop, browser: httpx.AsyncClient) -> None:
    key = Authenticator()
    await enroll(shop, browser, key)
    browser.cookies.clear()
    answer = await show(browser, key, tamper=True)
    assert answer.status_code == 401
    assert "does not open an account" in Page(answer).one("div", class_="alarm").text
    assert "cf_session" not in browser.cookies
    cloned = await show(browser, key, counter=1)
    assert cloned.status_code == 403
    assert "a copy of it" in Page(cloned).text
    assert await shop.events("passkey.rollback_refused") == ["passkey.rollback_refused"]
    page = await get(browser, "/sign-in/passkey")
    fields = only_form(page, "/sign-in/passkey")
    await send(browser, "/sign-in/passkey", {**fields, "credential": "no"}, 422)
    assert (await show(browser, key, counter=9)).status_code == 303


async def test_a_security_key_that_asks_who(shop: Shop, browser: httpx.AsyncClient) -> None:
    key = Authenticator()
    await enroll(shop, browser, key)
    browser.cookies.clear()
    fields = only_form(await get(browser, "/sign-in/passkey?next=/x"), "/sign-in/passkey/email")
    assert fields["next"] == "/x"
    page = await send(browser, "/sign-in/passkey/email", {**fields, "email": EMAIL})
    assert [one["id"] for one in asked(page)["allowCredentials"]] == [key.id]
    sent = only_form(page, "/sign-in/passkey") | {"credential": json.dumps(key.show(asked(page)))}
    answer = await browser.post("/sign-in/passkey", data=sent)
    assert (answer.status_code, answer.headers["location"]) == (303, "/x")
    page = await send(browser, "/sign-in/passkey/email", {**fields, "email": "x"}, 403)  # another browser's form now


async def test_next_stays_on_this_site(shop: Shop, browser: httpx.AsyncClient) -> None:
    for wanted in ("https://evil.example", "//evil.example", "/\\evil.example"):
        page = await get(browser, f"/sign-in/passkey?next={wanted}")
        assert only_form(page, "/sign-in/passkey")["next"] == "/account"
        assert "evil" not in page.html


async def test_staff_with_a_password_are_sent_to_show_a_passkey(shop: Shop, browser: httpx.AsyncClient) -> None:
    key = Authenticator()
    await enroll(shop, browser, key)
    weak = await person(shop, EMAIL, method="password")
    browser.cookies.clear()
    browser.cookies.set("cf_session", weak.token, domain="localhost.local")
    problem(await browser.get("/v1/orders"), 403, "passkey_required")
    page = await get(browser, "/account/passkeys")
    adding = await browser.post("/account/passkeys", data=only_form(page, "/account/passkeys") | {"name": "New"})
    assert adding.status_code == 303
    assert adding.headers["location"].startswith("/sign-in/passkey?next=")
    page = await get(browser, "/sign-in/passkey")
    assert "signed in as Ada Lovelace" in page.text
    assert (await show(browser, key)).status_code == 303
    assert (await browser.get("/v1/orders")).status_code == 200
    assert browser.cookies["cf_session"] != weak.token


async def test_staff_without_a_passkey_are_told_how_to_get_one(shop: Shop, browser: httpx.AsyncClient) -> None:
    weak = await person(shop, EMAIL, staff="SuperAdmin", method="password")
    browser.cookies.set("cf_session", weak.token, domain="localhost.local")
    page = await get(browser, "/sign-in/passkey")
    assert "you have none yet" in page.text
    assert not [form for form in page.all("form") if "data-passkey" in form.attributes]


async def test_recovering(shop: Shop, browser: httpx.AsyncClient) -> None:
    codes = await enroll(shop, browser, Authenticator())
    browser.cookies.clear()
    page = await get(browser, "/sign-in/recovery")
    page.assert_inert()
    fields = only_form(page, "/sign-in/recovery") | {"email": EMAIL}
    wrong = await send(browser, "/sign-in/recovery", {**fields, "code": "aaaa"}, 401)
    assert only_form(wrong, "/sign-in/recovery")["email"] == EMAIL
    answer = await browser.post("/sign-in/recovery", data={**fields, "code": codes[0]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account/passkeys")
    problem(await browser.get("/v1/orders"), 403, "passkey_required")
    own = await get(browser, "/account/passkeys")
    assert "9 of your recovery codes are left" in own.text
    adding = await send(browser, "/account/passkeys", only_form(own, "/account/passkeys") | {"name": "New"})
    fields = only_form(adding, "/account/passkeys/add")
    credential = json.dumps(Authenticator().make(asked(adding)))
    answer = await browser.post("/account/passkeys/add", data={**fields, "credential": credential})
    assert answer.status_code == 303
    assert (await browser.get("/v1/orders")).status_code == 200


@pytest.mark.parametrize("path", ["/sign-in/passkey?next=/x", "/sign-in/recovery?next=/x"])
async def test_at_an_address_the_page_leads_to_the_name(shop: Shop, visitor: httpx.AsyncClient, path: str) -> None:
    before = await shop.everything()
    page = Page(await visitor.get(path))
    page.assert_inert()
    assert "127.0.0.1:8787" in page.text
    assert f"{HOME}{path}" in page.links
    enrolling = await link(shop)
    assert f"{HOME}{enrolling}" in Page(await visitor.get(enrolling)).links
    at_home = await person(shop, EMAIL)
    visitor.cookies.set("cf_session", at_home.token)
    assert f"{HOME}/account/passkeys" in Page(await visitor.get("/account/passkeys")).links
    changed = {name for name, rows in (await shop.everything()).items() if rows != before[name]}
    assert not changed & {"passkeys"}


async def test_who_is_not_signed_in_is_sent_to_sign_in(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/account/passkeys")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/account/passkeys")


async def test_hostile_names_do_not_run(shop: Shop, browser: httpx.AsyncClient) -> None:
    hostile = "\"><script>alert(1)</script>'"
    path = await link(shop)
    form = only_form(await get(browser, path), path)
    names = {"first_name": hostile, "last_name": hostile, "name": hostile}
    making = await send(browser, path, {**form, **names})
    making.assert_inert("passkeys")
    assert asked(making)["user"]["displayName"] == f"{hostile} {hostile}"
    fields = only_form(making, f"{path}/passkey")
    assert {name: fields[name] for name in names} == names
    credential = json.dumps(Authenticator().make(asked(making)))
    (await send(browser, f"{path}/passkey", {**fields, "credential": credential})).assert_inert()
    own = await get(browser, "/account/passkeys")
    own.assert_inert()
    assert hostile in own.text


async def test_the_script_is_ours_and_kept(browser: httpx.AsyncClient) -> None:
    page = await get(browser, "/sign-in/passkey")
    sources = [script.attributes["src"] for script in page.all("script")]
    answer = await browser.get(sources[1])
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "navigator.credentials" in answer.text
    shown = await browser.get("/sign-in/passkey")
    assert "script-src 'self'" in shown.headers["content-security-policy"]
    assert "connect-src" not in shown.headers["content-security-policy"]
    assert "default-src 'none'" in shown.headers["content-security-policy"]
