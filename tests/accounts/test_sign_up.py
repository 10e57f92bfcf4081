"""Signing up: nothing exists until the link in the letter is used, and nobody learns which addresses are known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from tests.support.accounts import OTHER_PASSWORD, PASSWORD, letters_of, other_tenant, sign_in, sign_up, token_to
from tests.support.app import Shop, client_of, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import roles
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

FORM = {"email": "Ada@Example.com ", "first_name": "Ada", "last_name": "Lovelace"}


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master, sign_ins_per_minute=0) as opened:
        yield opened


async def ask(shop: Shop, **form: object) -> httpx.Response:
    return await shop.http.post("/v1/sign-up", json={**FORM, **form})


async def finish(visitor: httpx.AsyncClient, token: str, password: str = PASSWORD) -> httpx.Response:
    return await visitor.post("/v1/sign-up/finish", json={"token": token, "password": password})


async def test_signing_up(shop: Shop) -> None:
    answer = await ask(shop)
    assert (answer.status_code, answer.json()) == (202, {"detail": "We have sent a letter to this address."})
    for nothing in ("users", "user_emails", "customers", "sessions", "role_assignments"):
        assert await shop.count(nothing) == 0
    (letter,) = await shop.letters()
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    assert (letter.recipient, letter.template) == ("ada@example.com", "verify_sign_up")
    assert letter.context == {
        "link": f"http://127.0.0.1:8787/sign-up/finish?token={token}",
        "first_name": "Ada",
        "expires": "in one day",
    }
    assert token not in repr(await shop.everything())

    async with client_of(shop.app) as ada:
        made = await finish(ada, token)
        assert made.status_code == 201
        (user,) = await shop.rows("users")
        (customer,) = await shop.rows("customers")
        assert made.json() == {"user_id": user["id"], "customer_id": customer["id"]}
        assert (user["first_name"], user["last_name"], user["role"], user["status"]) == (
            "Ada",
            "Lovelace",
            "member",
            "active",
        )
        (email,) = await shop.rows("user_emails")
        assert (email["email"], email["is_primary"], email["via"]) == ("ada@example.com", True, "email:password")
        assert email["verified_at"] == shop.clock.now()
        assert (customer["kind"], customer["name"], customer["level"], customer["email"]) == (
            "person",
            "Ada Lovelace",
            2,
            "ada@example.com",
        )
        assert (customer["owner_user_id"], customer["is_default"]) == (user["id"], True)
        (assigned,) = await shop.rows("role_assignments")
        owner = await shop.scope.read(roles.by_name, "Owner")
        assert (assigned["user_id"], assigned["customer_id"], assigned["role_id"]) == (
            user["id"],
            customer["id"],
            owner.id,
        )
        assert await shop.events("user.created", "customer.created", "role.granted", "session.opened") == [
            "user.created",
            "customer.created",
            "role.granted",
            "session.opened",
        ]
        assert good(await ada.get("/v1/me"))["id"] == user["id"]
    cookies = {cookie.partition("=")[0]: cookie for cookie in made.headers.get_list("set-cookie")}
    assert set(cookies) == {"cf_session", "cf_device"}
    for cookie in cookies.values():
        assert {"httponly", "samesite=lax", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    everything = repr(await shop.everything())
    assert PASSWORD not in everything
    assert ada.cookies["cf_session"] not in everything
    async with client_of(shop.app) as again:
        good(await sign_in(again, "ADA@example.com"))


async def test_signing_up_for_an_organization(shop: Shop) -> None:
    async with client_of(shop.app) as ada:
        made = await sign_up(shop, ada, "ada@example.com", organization=" Analytical Engines ")
    customer = await shop.row("customers", id=made["customer_id"])
    assert (customer["kind"], customer["name"], customer["is_default"]) == ("organization", "Analytical Engines", True)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("Σωκράτης", ""),
        ("毛", "泽东"),
        ("بنت", "الشاطئ"),
        ("Nguyễn", "Thị Minh Khai"),
        ("O'Neil-Ng", "d\u2019Arc, Jr."),
        ("👩‍🚀", ""),
        ("<script>", "alert(1)"),
        ("Robert'); DROP TABLE users; --", "{{ 7*7 }}"),
    ],
)
async def test_names_of_any_script_are_kept_as_they_are(shop: Shop, first: str, last: str) -> None:
    async with client_of(shop.app) as visitor:
        await sign_up(shop, visitor, "a@example.com", first_name=first, last_name=last)
        me = good(await visitor.get("/v1/me"))
    assert (me["first_name"], me["last_name"]) == (first, last)
    assert (await shop.row("customers"))["name"] == f"{first} {last}".strip()


@pytest.mark.parametrize(
    ("form", "pointer"),
    [
        ({"email": ""}, "/email"),
        ({"email": "not an address"}, "/email"),
        ({"email": "a@b@example.com"}, "/email"),
        ({"email": "a" * 300 + "@example.com"}, "/email"),
        ({"email": "a@example.com\r\nBcc: b@example.com"}, "/email"),
        ({"first_name": ""}, "/first_name"),
        ({"first_name": "   "}, "/first_name"),
        ({"first_name": "x" * 201}, "/first_name"),
        ({"first_name": "A\u202eda"}, "/first_name"),
        ({"first_name": "A\x07da"}, "/first_name"),
        ({"last_name": "a\nb"}, "/last_name"),
        ({"last_name": "x" * 201}, "/last_name"),
        ({"organization": "x" * 201}, "/organization"),
        ({"organization": "a\tb"}, "/organization"),
        ({"first_name": 5}, "/first_name"),
    ],
)
async def test_what_cannot_be_is_refused(shop: Shop, form: dict[str, object], pointer: str) -> None:
    before = await shop.everything()
    told = problem(await ask(shop, **form), 422, "invalid_request")
    assert [error["pointer"] for error in told["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_what_no_form_has_is_refused(shop: Shop) -> None:
    before = await shop.everything()
    problem(await ask(shop, role="owner"), 422, "invalid_request")
    problem(await shop.http.post("/v1/sign-up", content=b"{"), 400, "malformed_request")
    problem(await ask(shop, first_name="a\x00b"), 422, "nul_character")
    assert await shop.everything() == before


async def test_an_address_with_an_account_gets_the_same_answer_and_another_letter(shop: Shop) -> None:
    await person(shop, "ada@example.com")
    known, unknown = await ask(shop), await ask(shop, email="new@example.com")
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    same = {name: value for name, value in known.headers.items() if name != "x-request-id"}
    assert same == {name: value for name, value in unknown.headers.items() if name != "x-request-id"}
    (letter,) = await shop.letters("ada@example.com")
    assert (letter.template, letter.context) == (
        "already_registered",
        {"link": "http://127.0.0.1:8787/sign-in", "reset_link": "http://127.0.0.1:8787/forgot"},
    )
    assert await shop.count("users") == 1
    assert await shop.count("one_time_tokens", purpose="sign_up") == 1
    # As much is written for the one as for the other.
    assert await shop.count("one_time_tokens") == 2


async def test_an_address_gets_three_letters_an_hour_and_nobody_is_told(shop: Shop) -> None:
    answers = [await ask(shop) for _ in range(5)]
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (202, b'{"detail":"We have sent a letter to this address."}')
    }
    assert len(await shop.letters("ada@example.com")) == 3
    await ask(shop, email="new@example.com")
    assert len(await shop.letters("new@example.com")) == 1


async def test_the_link_is_good_once(shop: Shop) -> None:
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    async with client_of(shop.app) as first, client_of(shop.app) as second:
        good(await finish(first, token))
        before = await shop.everything()
        problem(await finish(second, token), 422, "bad_token")
        assert not second.cookies
    assert await shop.everything() == before


async def test_the_link_is_good_for_a_day(shop: Shop) -> None:
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    shop.clock.advance(timedelta(hours=24))
    problem(await finish(shop.http, token), 422, "bad_token")
    assert await shop.count("users") == 0


async def test_no_other_token_makes_an_account(shop: Shop) -> None:
    async with client_of(shop.app) as ada:
        await sign_up(shop, ada, "ada@example.com")
        good(await shop.http.post("/v1/password-resets", json={"email": "ada@example.com"}))
        good(await ada.post("/v1/me/emails", json={"email": "more@example.com"}))
    await ask(shop, email="new@example.com")
    real = await token_to(shop, "new@example.com", "verify_sign_up")
    others = [
        await token_to(shop, "ada@example.com", "reset_password"),
        await token_to(shop, "more@example.com", "verify_address"),
        real.upper(),
        real[:-1],
        f"{real} ",
        "",
        "x" * 10_000,
        "' OR 1=1 --",
    ]
    before = await shop.everything()
    said = {(await finish(shop.http, token)).content for token in others}
    assert len(said) == 1
    problem(await finish(shop.http, others[0]), 422, "bad_token")
    assert await shop.everything() == before
    good(await finish(shop.http, real))


async def test_a_token_of_another_tenant_makes_no_account(shop: Shop) -> None:
    other = await other_tenant(shop)
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    before = await shop.everything()
    elsewhere = await shop.http.post("/t/other/v1/sign-up/finish", json={"token": token, "password": PASSWORD})
    problem(elsewhere, 422, "bad_token")
    assert await shop.everything() == before
    # The same address may have an account in each tenant; neither opens the other.
    good(await finish(shop.http, token))
    good(await shop.http.post("/t/other/v1/sign-up", json=FORM))
    assert await letters_of(other) == ["verify_sign_up"]
    body = {"email": "ada@example.com", "password": PASSWORD}
    problem(await shop.http.post("/t/other/v1/session", json=body), 401, "bad_credentials")


@pytest.mark.parametrize("password", ["short", "password123", "Ada Lovelace", "ada@example.com", "x" * 300])
async def test_a_weak_password_leaves_the_link_good(shop: Shop, password: str) -> None:
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    before = await shop.everything()
    told = problem(await finish(shop.http, token, password), 422, "weak_password")
    assert [error["pointer"] for error in told["errors"]] == ["/password"]
    assert await shop.everything() == before
    good(await finish(shop.http, token))


async def test_nobody_prepares_an_account_for_anothers_address(shop: Shop) -> None:
    # Whoever signs up with another's address chooses names, but never a password, and reads no letter.
    good(await ask(shop, first_name="Mallory"))
    shop.clock.advance(timedelta(minutes=1))
    async with client_of(shop.app) as ada:
        await sign_up(shop, ada, "ada@example.com", first_name="Ada")
        assert good(await ada.get("/v1/me"))["first_name"] == "Ada"
    # Mallory's letter is worth nothing now.
    mallorys = (await shop.letters("ada@example.com"))[0].context["link"].rpartition("=")[2]
    before = await shop.everything("one_time_tokens")
    async with client_of(shop.app) as mallory:
        problem(await finish(mallory, mallorys, OTHER_PASSWORD), 409, "email_taken")
        assert not mallory.cookies
    assert await shop.everything("one_time_tokens") == before


async def test_a_hundred_uses_of_one_link_make_one_account(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfoil.http.hashing.MOST_WAITING", 1000)
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    answers = await asyncio.gather(*[finish(shop.http, token) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 99
    for table in ("users", "user_emails", "customers", "role_assignments", "sessions"):
        assert await shop.count(table) == 1


async def test_a_hundred_links_for_one_address_make_one_account(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfoil.http.hashing.MOST_WAITING", 1000)
    monkeypatch.setattr("counterfoil.http.throttle.Throttle.allow_letter", lambda *_: True)
    for number in range(100):
        good(await ask(shop, first_name=f"Ada {number}"))
    tokens = [letter.context["link"].rpartition("=")[2] for letter in await shop.letters("ada@example.com")]
    answers = await asyncio.gather(*[finish(shop.http, token) for token in tokens])
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 99
    assert {answer.json().get("code") for answer in answers} == {None, "email_taken"}
    for table in ("users", "user_emails", "customers", "role_assignments", "sessions"):
        assert await shop.count(table) == 1


async def test_another_site_signs_nobody_up(shop: Shop) -> None:
    await ask(shop)
    token = await token_to(shop, "ada@example.com", "verify_sign_up")
    body = {"token": token, "password": PASSWORD}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}):
        problem(await shop.http.post("/v1/sign-up/finish", json=body, headers=headers), 403, "cross_site")
    assert await shop.count("users") == 0
