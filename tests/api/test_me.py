"""Signing in and out over HTTP, new passwords, sessions, and who one is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from tests.support.accounts import OTHER_PASSWORD, PASSWORD, other_tenant, sign_in, sign_up, token_to
from tests.support.app import Shop, client_of, good, opening, problem
from tests.support.people import person

from counterfoil.accounts import api_keys, assignments, passwords, roles, users
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

ADA = "ada@example.com"
HOUR = timedelta(hours=1)


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master, sign_ins_per_minute=0) as opened:
        yield opened


@pytest.fixture
async def ada(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with an account, signed in."""
    async with client_of(shop.app) as client:
        await sign_up(shop, client, ADA)
        yield client


@pytest.fixture
async def stranger(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.app) as client:
        yield client


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every password that is looked at, whether there was a hash of its own to look at."""
    seen: list[bool] = []
    real = passwords.verify

    def watch(stored: str | None, text: str) -> bool:
        seen.append(stored is not None)
        return real(stored, text)

    monkeypatch.setattr(passwords, "verify", watch)
    return seen


async def me(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = good(await client.get("/v1/me"))
    return found


async def is_in(client: httpx.AsyncClient) -> bool:
    return (await client.get("/v1/me")).status_code == 200


def told(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that a stranger gets to see."""
    return (
        response.status_code,
        response.content,
        [(name, value) for name, value in response.headers.items() if name != "x-request-id"],
    )


# -- who one is ---------------------------------------------------------------------------------------


async def test_who_a_person_is(shop: Shop, ada: httpx.AsyncClient) -> None:
    found = await me(ada)
    (email,) = await shop.rows("user_emails")
    (customer,) = await shop.rows("customers")
    owner = await shop.scope.read(roles.by_name, "Owner")
    assert found == {
        "kind": "user",
        "id": email["user_id"],
        "first_name": "Ada",
        "last_name": "Lovelace",
        "username": None,
        "avatar_url": None,
        "emails": [
            {
                "id": email["id"],
                "email": ADA,
                "via": "email:password",
                "is_primary": True,
                "verified_at": "2026-01-02T03:04:05.678901Z",
            }
        ],
        "roles": [
            {"role_id": owner.id, "role": "Owner", "customer_id": customer["id"], "customer_name": "Ada Lovelace"}
        ],
        "is_staff": False,
        "passkey_required": False,
        "created_at": "2026-01-02T03:04:05.678901Z",
    }


async def test_staff_is_told_when_a_passkey_is_wanted(shop: Shop) -> None:
    for method, wanted in (("passkey", False), ("password", True)):
        staff = await person(shop, f"{method}@example.com", staff="ReadOnly", method=method)  # type: ignore[arg-type]
        found = await me(staff.http)
        assert (found["is_staff"], found["passkey_required"]) == (True, wanted)
        assert [(role["role"], role["customer_id"]) for role in found["roles"]] == [("ReadOnly", None)]


async def test_roles_at_deleted_customers_are_not_told(shop: Shop, ada: httpx.AsyncClient) -> None:
    shop.clock.advance(timedelta(seconds=1))
    gone = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "Gone"}))
    member = await shop.scope.read(roles.by_name, "Member")
    await shop.scope.run(assignments.grant, (await me(ada))["id"], member.id, gone["id"])
    assert [role["customer_name"] for role in (await me(ada))["roles"]] == ["Ada Lovelace", "Gone"]
    assert (await shop.staff.delete(f"/v1/customers/{gone['id']}")).is_success
    assert [role["customer_name"] for role in (await me(ada))["roles"]] == ["Ada Lovelace"]


async def test_who_a_key_is(shop: Shop) -> None:
    customer = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": "One"}))["id"]
    for limit in (None, customer):
        secret = api_keys.new_secret()
        made = await shop.scope.run(
            api_keys.create, "robot", ["orders:read", "billing_view"], secret=secret, customer_id=limit
        )
        answer = await shop.http.get("/v1/me", headers={"Authorization": f"Bearer {secret}"})
        assert good(answer) == {
            "kind": "key",
            "id": made.key.id,
            "name": "robot",
            "scopes": ["billing_view", "orders:read"],
            "tenant": shop.scope.tenant,
            "customer_id": limit,
        }


async def test_it_costs_one_statement_for_a_key_and_two_for_a_person(
    shop: Shop, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    for name in ("one", "all", "execute"):
        real: Callable[..., Any] = getattr(Tx, name)

        def watch(self: Tx, statement: Any, params: Any = {}, *, _real: Callable[..., Any] = real) -> Any:  # noqa: B006
            counted.append(str(statement)[:40])
            return _real(self, statement, params)

        monkeypatch.setattr(Tx, name, watch)
    for client, statements in ((shop.staff, 1), (ada, 2)):
        counted.clear()
        good(await client.get("/v1/me"))
        assert len(counted) == statements, counted


async def test_a_key_has_no_account(shop: Shop) -> None:
    before = await shop.everything()
    refused = [
        await shop.staff.patch("/v1/me", json={"first_name": "R2"}),
        await shop.staff.delete("/v1/me"),
        await shop.staff.get("/v1/me/emails"),
        await shop.staff.post("/v1/me/emails", json={"email": "r2@example.com"}),
        await shop.staff.put("/v1/me/password", json={"current_password": "a", "new_password": "b"}),
        await shop.staff.get("/v1/me/sessions"),
        await shop.staff.delete("/v1/me/sessions"),
        await shop.staff.get("/v1/me/email-preferences"),
        await shop.staff.delete("/v1/session"),
    ]
    for answer in refused:
        problem(answer, 403, "users_only")
    assert await shop.everything() == before


async def test_strangers_are_nobody(shop: Shop, stranger: httpx.AsyncClient) -> None:
    for path in ("/v1/me", "/v1/me/emails", "/v1/me/sessions", "/v1/me/email-preferences", "/v1/users"):
        problem(await stranger.get(path), 401, "unauthorized")
    problem(await stranger.delete("/v1/session"), 401, "unauthorized")
    problem(await stranger.delete("/v1/me"), 401, "unauthorized")


async def test_changing_ones_names(shop: Shop, ada: httpx.AsyncClient) -> None:
    changes = {
        "first_name": " Augusta Ada ",
        "last_name": "King",
        "username": "ada_1815-x",
        "avatar_url": "https://pictures.example.com/ada.png",
    }
    found = good(await ada.patch("/v1/me", json=changes))
    assert {name: found[name] for name in changes} == {**changes, "first_name": "Augusta Ada"}
    assert found == await me(ada)
    found = good(await ada.patch("/v1/me", json={"username": None, "avatar_url": None}))
    assert (found["username"], found["avatar_url"], found["first_name"]) == (None, None, "Augusta Ada")
    before = await shop.everything()
    assert good(await ada.patch("/v1/me", json={})) == found
    assert await shop.everything() == before
    (first, second) = await shop.rows("events", type="user.updated")
    assert sorted(map(len, (first["details"]["changed"], second["details"]["changed"]))) == [2, 4]
    assert "King" not in repr((first, second))


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"first_name": ""}, "/first_name"),
        ({"first_name": None}, "/first_name"),
        ({"first_name": "a\u2066b"}, "/first_name"),
        ({"last_name": "x" * 201}, "/last_name"),
        ({"username": "ab"}, "/username"),
        ({"username": "Ada"}, "/username"),
        ({"username": "a" * 41}, "/username"),
        ({"username": "a b c"}, "/username"),
        ({"username": "ädä"}, "/username"),
        ({"username": "ada\n"}, "/username"),
        ({"avatar_url": "http://example.com/a.png"}, "/avatar_url"),
        ({"avatar_url": "javascript:alert(1)"}, "/avatar_url"),
        ({"avatar_url": "https://example.com/\"onload='a"}, "/avatar_url"),
        ({"avatar_url": ""}, "/avatar_url"),
    ],
)
async def test_what_nobody_is_called(
    shop: Shop, ada: httpx.AsyncClient, changes: dict[str, object], pointer: str
) -> None:
    before = await shop.everything()
    answer = problem(await ada.patch("/v1/me", json=changes), 422, "invalid_request")
    assert [error["pointer"] for error in answer["errors"]] == [pointer]
    assert await shop.everything() == before


async def test_nobody_makes_themselves_more_than_they_are(shop: Shop, ada: httpx.AsyncClient) -> None:
    before = await shop.everything()
    for changes in ({"role": "owner"}, {"status": "active"}, {"password_hash": "x"}, {"id": "usr_1"}, {"emails": []}):
        problem(await ada.patch("/v1/me", json=changes), 422, "invalid_request")
    assert await shop.everything() == before


async def test_one_username_is_one_persons(shop: Shop, ada: httpx.AsyncClient) -> None:
    people = [await person(shop, f"{number}@example.com") for number in range(20)]
    answers = await asyncio.gather(*[one.http.patch("/v1/me", json={"username": "wanted"}) for one in people])
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert {answer.json().get("code") for answer in answers} == {None, "username_taken"}
    assert await shop.count("users", username="wanted") == 1
    problem(await ada.patch("/v1/me", json={"username": "wanted", "first_name": "X"}), 409, "username_taken")
    assert (await me(ada))["first_name"] == "Ada"


# -- signing in ---------------------------------------------------------------------------------------


async def test_signing_in_and_out(shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    answer = await sign_in(stranger, " ADA@Example.com", f" {PASSWORD} ")
    assert answer.status_code == 200
    assert answer.json() == {"user_id": (await me(ada))["id"]}
    session = next(cookie for cookie in answer.headers.get_list("set-cookie") if cookie.startswith("cf_session="))
    attributes = {part.strip().lower() for part in session.split(";")[1:]}
    assert attributes == {"httponly", "path=/", "samesite=lax", f"max-age={30 * 86_400}"}
    assert await is_in(stranger)
    kept = stranger.cookies["cf_session"]
    gone = await stranger.delete("/v1/session")
    assert gone.status_code == 204
    assert "cf_session" not in stranger.cookies
    assert not await is_in(stranger)
    # The cookie that somebody copied is worth nothing either.
    async with client_of(shop.app, headers={"Cookie": f"cf_session={kept}"}) as thief:
        assert not await is_in(thief)
    assert await is_in(ada)


async def test_over_tls_the_cookies_are_for_this_host_and_tls_only(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with (
        opening(database_url, clock, master, public_url="https://shop.test") as shop,
        client_of(shop.app) as visitor,
    ):
        visitor.base_url = "https://shop.test"  # type: ignore[assignment]
        await sign_up(shop, visitor, ADA)
        assert set(visitor.cookies) == {"__Host-cf_session", "__Host-cf_device"}
        assert all(cookie.secure for cookie in visitor.cookies.jar)
        assert await is_in(visitor)


async def test_unknown_and_wrong_look_alike_and_cost_the_same(
    shop: Shop, ada: httpx.AsyncClient, verified: list[bool]
) -> None:
    ada_id = (await me(ada))["id"]
    await person(shop, "no-password@example.com")
    disabled = await person(shop, "disabled@example.com")
    hash_ = await asyncio.to_thread(passwords.hash_, PASSWORD)
    await shop.scope.run(users.set_password, disabled.id, hash_)
    good(await shop.staff.post(f"/v1/users/{disabled.id}/disable"))
    await ada.post("/v1/me/emails", json={"email": "unverified@example.com"})
    before = await shop.everything()
    tried = [
        (ADA, "not the password"),
        (ADA, ""),
        (ADA, PASSWORD.upper()),
        ("nobody@example.com", PASSWORD),
        ("no-password@example.com", PASSWORD),
        ("disabled@example.com", PASSWORD),
        ("unverified@example.com", PASSWORD),
        ("not an address", PASSWORD),
        ("", ""),
        (ada_id, PASSWORD),
        ("' OR 1=1 --", "' OR 1=1 --"),
        (ADA, "x" * 100_000),
        ("x" * 100_000, "x"),
    ]
    answers = []
    for email, password in tried:
        verified.clear()
        async with client_of(shop.app) as stranger:
            answers.append(told(await sign_in(stranger, email, password)))
            assert not stranger.cookies
        assert len(verified) == 1, email
    assert len({str(answer) for answer in answers}) == 1
    assert answers[0][0] == 401
    assert b'"code":"bad_credentials"' in answers[0][1]
    assert await shop.everything() == before


async def test_a_disabled_user_with_the_right_password_is_verified_against_nobodys(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient, verified: list[bool]
) -> None:
    good(await sign_in(stranger, ADA))
    assert verified == [True]
    good(await shop.staff.post(f"/v1/users/{(await me(ada))['id']}/disable"))
    problem(await sign_in(stranger, ADA), 401, "bad_credentials")
    assert verified == [True, False]


async def test_a_user_disabled_while_the_password_is_looked_at_stays_out(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = (await me(ada))["id"]
    from counterfoil.http.hashing import Hashing

    real = Hashing.verify

    async def slow(self: Hashing, stored: str | None, password: str) -> bool:
        right = await real(self, stored, password)
        good(await shop.staff.post(f"/v1/users/{user_id}/disable"))
        return right

    monkeypatch.setattr(Hashing, "verify", slow)
    problem(await sign_in(stranger, ADA), 401, "bad_credentials")
    assert not stranger.cookies
    assert await shop.count("sessions") == 1


async def test_signing_in_ends_the_session_before(shop: Shop, ada: httpx.AsyncClient) -> None:
    before = ada.cookies["cf_session"]
    good(await sign_in(ada, ADA))
    assert ada.cookies["cf_session"] != before
    async with client_of(shop.app, headers={"Cookie": f"cf_session={before}"}) as old:
        assert not await is_in(old)
    assert await is_in(ada)


async def test_a_session_planted_by_another_does_not_become_ones_own(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    mallory = await person(shop, "mallory@example.com")
    stranger.cookies.set("cf_session", mallory.token, domain="127.0.0.1", path="/")
    good(await sign_in(stranger, ADA))
    assert stranger.cookies["cf_session"] != mallory.token
    assert not await is_in(mallory.http)
    assert (await me(stranger))["id"] == (await me(ada))["id"]


async def test_a_session_ends_when_idle_and_at_the_latest(shop: Shop, ada: httpx.AsyncClient) -> None:
    idle, longest = shop.house.session_lasts.idle, shop.house.session_lasts.longest
    left = longest
    while left > idle:
        shop.clock.advance(idle - HOUR)
        left -= idle - HOUR
        assert await is_in(ada)
        await shop.house.uses.flush()
    shop.clock.advance(left - timedelta(seconds=1))
    assert await is_in(ada)
    await shop.house.uses.flush()
    shop.clock.advance(timedelta(seconds=1))
    assert not await is_in(ada)
    good(await sign_in(ada, ADA))
    shop.clock.advance(idle - HOUR)
    assert await is_in(ada)  # and this use is never noted
    shop.clock.advance(HOUR)
    problem(await ada.get("/v1/me"), 401, "unauthorized")


async def test_no_other_site_signs_anybody_in_or_out(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    good(await shop.http.post("/v1/password-resets", json={"email": ADA}))
    token = await token_to(shop, ADA, "reset_password")
    before = await shop.everything()
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ):
        credentials = {"email": ADA, "password": PASSWORD}
        problem(await stranger.post("/v1/session", json=credentials, headers=headers), 403, "cross_site")
        reset = {"token": token, "password": OTHER_PASSWORD}
        problem(await stranger.post("/v1/password-resets/finish", json=reset, headers=headers), 403, "cross_site")
        problem(await ada.delete("/v1/session", headers=headers), 403, "cross_site")
        problem(await ada.delete("/v1/me", headers=headers), 403, "cross_site")
    assert await shop.everything() == before
    assert not stranger.cookies


async def test_a_form_is_not_json(shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post("/v1/session", data={"email": ADA, "password": PASSWORD})
    assert answer.status_code in {400, 415, 422}
    assert not stranger.cookies


async def test_one_tenants_account_opens_nothing_in_another(shop: Shop, ada: httpx.AsyncClient) -> None:
    await other_tenant(shop)
    async with client_of(shop.app) as elsewhere:
        problem(
            await elsewhere.post("/t/other/v1/session", json={"email": ADA, "password": PASSWORD}),
            401,
            "bad_credentials",
        )
        for name in ("cf_session", "cf_session_other"):
            elsewhere.cookies.set(name, ada.cookies["cf_session"], domain="127.0.0.1", path="/")
        problem(await elsewhere.get("/t/other/v1/me"), 401, "unauthorized")


@pytest.mark.usefixtures("real_passwords")
async def test_a_hash_of_old_parameters_is_made_anew(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    user_id = (await me(ada))["id"]
    await shop.scope.run(users.set_password, user_id, old)
    problem(await sign_in(stranger, ADA, "not the password"), 401, "bad_credentials")
    assert (await shop.row("users"))["password_hash"] == old
    good(await sign_in(stranger, ADA))
    fresh = (await shop.row("users"))["password_hash"]
    assert fresh.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await shop.events("user.password_rehashed") == ["user.password_rehashed"]
    good(await sign_in(stranger, ADA))
    assert (await shop.row("users"))["password_hash"] == fresh


# -- too often ----------------------------------------------------------------------------------------


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the time by which tries are counted."""
    import time

    moved = [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + moved[0])
    for module in ("limits.storage.memory", "limits.strategies", "counterfoil.http.throttle"):
        monkeypatch.setattr(f"{module}.time", clock)
    return lambda by: moved.__setitem__(0, moved[0] + by.total_seconds())


async def test_ten_failures_lock_strangers_out_but_not_the_owner(
    shop: Shop, ada: httpx.AsyncClient, wait: Callable[[timedelta], None], verified: list[bool]
) -> None:
    async with client_of(shop.app) as guesser, client_of(shop.app, address="203.0.113.9") as another:
        for number in range(10):
            problem(await sign_in(guesser, ADA, f"guess number {number}"), 401, "bad_credentials")
        for client in (guesser, another):  # from wherever, and with the right password too
            refused = await sign_in(client, ADA)
            problem(refused, 429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 15 * 60
        assert len(verified) == 10
        # The owner's own browser holds a device cookie; signing out does not take it away.
        assert (await ada.delete("/v1/session")).status_code == 204
        for _ in range(3):
            good(await sign_in(ada, ADA))
        problem(await sign_in(another, ADA), 429, "rate_limited")
        # Another's account is not concerned.
        problem(await sign_in(another, "bob@example.com"), 401, "bad_credentials")
        wait(timedelta(minutes=15))
        good(await sign_in(another, ADA))


async def test_an_unknown_address_is_counted_like_a_known_one(shop: Shop, ada: httpx.AsyncClient) -> None:
    seen = []
    for email in (ADA, "nobody@example.com"):
        async with client_of(shop.app) as guesser:
            answers = [await sign_in(guesser, email, "not the password") for _ in range(11)]
        seen.append([(answer.status_code, answer.content) for answer in answers])
    assert seen[0] == seen[1]
    assert [status for status, _ in seen[0]] == [401] * 10 + [429]


async def test_a_device_cookie_is_for_its_owner_only_and_opens_nothing(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    device = ada.cookies["cf_device"]
    user_id, nonce, mac = device.split(".")
    bob_id = (await person(shop, "bob@example.com")).id
    forged = [
        "",
        "x",
        f"{user_id}.{nonce}.{'0' * 40}",
        f"{user_id}.{nonce[::-1]}.{mac}",
        f"{bob_id}.{nonce}.{mac}",
        f"{device}0",
        f"{user_id}.{nonce}",
    ]
    for _ in range(10):
        problem(await sign_in(stranger, ADA, "not the password"), 401, "bad_credentials")
    for cookie in forged:
        async with client_of(shop.app, headers={"Cookie": f"cf_device={cookie}"}) as guesser:
            problem(await sign_in(guesser, ADA), 429, "rate_limited")
    async with client_of(shop.app, headers={"Cookie": f"cf_device={device}"}) as thief:
        assert not await is_in(thief)
        # Whoever stole it has ten tries, too, and they are not the owner's in another browser.
        for _ in range(10):
            problem(await sign_in(thief, ADA, "not the password"), 401, "bad_credentials")
        problem(await sign_in(thief, ADA), 429, "rate_limited")
        # It is no device of Bob's.
        for _ in range(10):
            problem(await sign_in(thief, "bob@example.com", "not the password"), 401, "bad_credentials")
        problem(await sign_in(stranger, "bob@example.com", "x"), 429, "rate_limited")


async def test_a_hundred_guesses_at_once_are_no_more_than_ten(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient, verified: list[bool]
) -> None:
    answers = await asyncio.gather(*[sign_in(stranger, ADA, f"guess number {number}") for number in range(100)])
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 90
    assert len(verified) == 10


async def test_signing_in_often_is_no_failure(shop: Shop, ada: httpx.AsyncClient) -> None:
    for _ in range(12):
        async with client_of(shop.app) as browser:
            good(await sign_in(browser, ADA))


async def test_one_address_tries_so_often_a_minute(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, sign_ins_per_minute=4) as shop:
        busy, calm = client_of(shop.app, address="203.0.113.9"), client_of(shop.app)
        async with busy, calm:
            sent = [
                await sign_in(busy, "a@example.com"),
                await busy.post("/v1/sign-up", json={"email": "a@example.com", "first_name": "A"}),
                await busy.post("/v1/password-resets", json={"email": "a@example.com"}),
                await busy.post("/v1/sign-up/finish", json={"token": "x", "password": "y"}),
            ]
            assert [answer.status_code for answer in sent] == [401, 202, 202, 422]
            before = await shop.everything()
            refused = [
                await sign_in(busy, "b@example.com"),
                await busy.post("/v1/sign-up", json={"email": "b@example.com", "first_name": "A"}),
                await busy.post("/v1/password-resets", json={"email": "b@example.com"}),
                await busy.post("/v1/password-resets/finish", json={"token": "x", "password": "y"}),
            ]
            for answer in refused:
                problem(answer, 429, "rate_limited")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert await shop.everything() == before
            assert (await sign_in(calm, "a@example.com")).status_code == 401


async def test_passwords_wait_in_line_but_not_for_ever(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    under_way = 0
    go_on = threading.Event()
    real = passwords.verify

    def watch(stored: str | None, text: str) -> bool:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        go_on.wait(60)
        try:
            return real(stored, text)
        finally:
            under_way -= 1

    monkeypatch.setattr(passwords, "verify", watch)
    monkeypatch.setattr("counterfoil.http.hashing.MOST_WAITING", 8)
    waiting = {asyncio.create_task(sign_in(stranger, f"{number}@example.com")) for number in range(30)}
    done: set[asyncio.Task[httpx.Response]] = set()
    while len(done) < 20:  # who is not even let into the line is answered at once
        fresh, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= fresh
    go_on.set()
    answers = [task.result() for task in done] + await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [429] * 20 + [401] * 10
    assert max(at_once) <= 2
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "2"
    good(await sign_in(stranger, ADA))


# -- a new password -----------------------------------------------------------------------------------


async def forgot(shop: Shop, email: str = ADA) -> httpx.Response:
    return await shop.http.post("/v1/password-resets", json={"email": email})


async def reset(client: httpx.AsyncClient, token: str, password: str = OTHER_PASSWORD) -> httpx.Response:
    return await client.post("/v1/password-resets/finish", json={"token": token, "password": password})


async def test_a_forgotten_password(shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    async with client_of(shop.app) as elsewhere:
        good(await sign_in(elsewhere, ADA))
        answer = await forgot(shop, " ADA@example.com")
        assert answer.status_code == 202
        assert answer.json() == {"detail": "If there is an account with this address, we have sent a letter to it."}
        token = await token_to(shop, ADA, "reset_password")
        (letter,) = [one for one in await shop.letters(ADA) if one.template == "reset_password"]
        assert letter.context == {"link": f"http://127.0.0.1:8787/reset?token={token}", "expires": "in one hour"}
        assert token not in repr(await shop.everything())
        assert await is_in(elsewhere)  # asking changes nothing
        done = await reset(stranger, token)
        assert done.status_code == 204
        assert await is_in(stranger)
        assert not await is_in(ada)
        assert not await is_in(elsewhere)
        problem(await sign_in(elsewhere, ADA), 401, "bad_credentials")
        good(await sign_in(elsewhere, ADA, OTHER_PASSWORD))
    assert [one.template for one in await shop.letters(ADA)].count("password_changed") == 1
    assert OTHER_PASSWORD not in repr(await shop.everything())


async def test_asking_tells_nobody_whether_there_is_an_account(shop: Shop, ada: httpx.AsyncClient) -> None:
    disabled = await person(shop, "disabled@example.com")
    good(await shop.staff.post(f"/v1/users/{disabled.id}/disable"))
    await ada.post("/v1/me/emails", json={"email": "unverified@example.com"})
    tokens = await shop.count("one_time_tokens")
    answers = []
    for email in (ADA, "nobody@example.com", "disabled@example.com", "unverified@example.com"):
        answers.append(told(await forgot(shop, email)))
        tokens += 1  # as much is written for strangers, but it is good for nothing
        assert await shop.count("one_time_tokens") == tokens
    assert len({str(answer) for answer in answers}) == 1
    assert [(one.recipient, one.template) for one in await shop.letters() if one.template == "reset_password"] == [
        (ADA, "reset_password")
    ]
    problem(await forgot(shop, "not an address"), 422, "invalid_request")


async def test_three_letters_an_hour(shop: Shop, ada: httpx.AsyncClient, wait: Callable[[timedelta], None]) -> None:
    wait(HOUR)
    answers = {(await forgot(shop)).content for _ in range(6)}
    assert len(answers) == 1
    assert [one.template for one in await shop.letters(ADA)].count("reset_password") == 3
    wait(HOUR)
    await forgot(shop)
    assert [one.template for one in await shop.letters(ADA)].count("reset_password") == 4


async def test_a_reset_link_is_good_once_for_an_hour_and_only_the_newest(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    await forgot(shop)
    first = await token_to(shop, ADA, "reset_password")
    shop.clock.advance(timedelta(minutes=1))
    await forgot(shop)
    second = await token_to(shop, ADA, "reset_password")
    before = await shop.everything()
    problem(await reset(stranger, first), 422, "bad_token")
    problem(await reset(stranger, second, "short"), 422, "weak_password")
    problem(await reset(stranger, second, ADA), 422, "weak_password")
    assert await shop.everything() == before
    assert (await reset(stranger, second)).status_code == 204
    before = await shop.everything()
    async with client_of(shop.app) as late:
        problem(await reset(late, second), 422, "bad_token")
        shop.clock.advance(HOUR)
    assert await shop.everything() == before
    await forgot(shop)
    third = await token_to(shop, ADA, "reset_password")
    shop.clock.advance(HOUR)
    problem(await reset(stranger, third), 422, "bad_token")


async def test_no_other_token_resets_a_password(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    good(await ada.post("/v1/me/emails", json={"email": "more@example.com"}))
    good(await shop.http.post("/v1/sign-up", json={"email": "new@example.com", "first_name": "New"}))
    await other_tenant(shop)
    await forgot(shop)
    real = await token_to(shop, ADA, "reset_password")
    others = [
        await token_to(shop, "more@example.com", "verify_address"),
        await token_to(shop, "new@example.com", "verify_sign_up"),
        ada.cookies["cf_session"],
        real[:-1],
        "",
        "\u00e9",
    ]
    before = await shop.everything()
    answers = {(await reset(stranger, token)).content for token in others}
    answers.add(
        (
            await stranger.post("/t/other/v1/password-resets/finish", json={"token": real, "password": OTHER_PASSWORD})
        ).content
    )
    assert len(answers) == 1
    assert b'"code":"bad_token"' in answers.pop()
    assert await shop.everything() == before
    assert not stranger.cookies


async def test_a_link_of_somebody_disabled_or_deleted_resets_nothing(
    shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    await forgot(shop)
    token = await token_to(shop, ADA, "reset_password")
    user_id = (await me(ada))["id"]
    good(await shop.staff.post(f"/v1/users/{user_id}/disable"))
    problem(await reset(stranger, token), 422, "bad_token")
    good(await shop.staff.post(f"/v1/users/{user_id}/enable"))
    good(await sign_in(ada, ADA))
    assert (await ada.delete("/v1/me")).status_code == 204
    problem(await reset(stranger, token), 422, "bad_token")


async def test_a_hundred_uses_of_one_reset_link_set_one_password(
    shop: Shop, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil.http.hashing.MOST_WAITING", 1000)
    await forgot(shop)
    token = await token_to(shop, ADA, "reset_password")
    answers = await asyncio.gather(*[reset(shop.http, token, f"password number {number}") for number in range(100)])
    assert sorted(answer.status_code for answer in answers) == [204] + [422] * 99
    assert await shop.events("user.password_set") == ["user.password_set"]


async def test_changing_the_password(shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    good(await sign_in(stranger, ADA))
    await forgot(shop)
    token = await token_to(shop, ADA, "reset_password")
    before = await shop.everything()
    wrong = {"current_password": "not the password", "new_password": OTHER_PASSWORD}
    told_ = problem(await ada.put("/v1/me/password", json=wrong), 422, "wrong_password")
    assert [error["pointer"] for error in told_["errors"]] == ["/current_password"]
    weak = {"current_password": PASSWORD, "new_password": "Ada Lovelace"}
    told_ = problem(await ada.put("/v1/me/password", json=weak), 422, "weak_password")
    assert [error["pointer"] for error in told_["errors"]] == ["/new_password"]
    assert await shop.everything() == before
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await ada.put("/v1/me/password", json=change)).status_code == 204
    assert await is_in(ada)
    assert not await is_in(stranger)
    problem(await sign_in(stranger, ADA), 401, "bad_credentials")
    good(await sign_in(stranger, ADA, OTHER_PASSWORD))
    assert [one.template for one in await shop.letters(ADA)].count("password_changed") == 1
    problem(await reset(stranger, token), 422, "bad_token")


async def test_whoever_found_a_browser_open_has_ten_tries(shop: Shop, ada: httpx.AsyncClient) -> None:
    change = {"current_password": "not the password", "new_password": OTHER_PASSWORD}
    for _ in range(10):
        problem(await ada.put("/v1/me/password", json=change), 422, "wrong_password")
    problem(await ada.put("/v1/me/password", json={**change, "current_password": PASSWORD}), 429, "rate_limited")


async def test_who_has_no_password_gets_one_by_letter(shop: Shop, stranger: httpx.AsyncClient) -> None:
    bob = await person(shop, "bob@example.com")
    change = {"current_password": "", "new_password": OTHER_PASSWORD}
    problem(await bob.http.put("/v1/me/password", json=change), 422, "wrong_password")
    await forgot(shop, "bob@example.com")
    token = await token_to(shop, "bob@example.com", "reset_password")
    assert (await reset(stranger, token)).status_code == 204
    assert not await is_in(bob.http)


# -- sessions -----------------------------------------------------------------------------------------


async def test_seeing_and_ending_sessions(shop: Shop, ada: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    async with client_of(shop.app, address="203.0.113.9", headers={"User-Agent": "Other/1.0 " + "x" * 400}) as other:
        shop.clock.advance(timedelta(minutes=1))
        good(await sign_in(other, ADA))
        page = good(await ada.get("/v1/me/sessions"))
        first, second = page["data"]
        assert (first["is_current"], second["is_current"], page["next"]) == (True, False, None)
        assert (second["address"], second["method"]) == ("203.0.113.9", "password")
        assert second["user_agent"] == ("Other/1.0 " + "x" * 400)[:300]
        assert second["last_seen_at"] == second["created_at"] == "2026-01-02T03:05:05.678901Z"
        assert second["expires_at"] == "2026-02-01T03:05:05.678901Z"
        assert "token" not in repr(page)
        small = good(await ada.get("/v1/me/sessions?limit=1"))
        rest = good(await ada.get(f"/v1/me/sessions?limit=1&after={small['next']}"))
        assert [small["data"][0]["id"], rest["data"][0]["id"]] == [first["id"], second["id"]]
        # Nobody ends another's.
        bob = await person(shop, "bob@example.com")
        before = await shop.everything()
        problem(await bob.http.delete(f"/v1/me/sessions/{second['id']}"), 404, "session_not_found")
        problem(await ada.delete("/v1/me/sessions/ses_nothing"), 404, "session_not_found")
        assert await shop.everything() == before
        assert (await ada.delete(f"/v1/me/sessions/{second['id']}")).status_code == 204
        assert not await is_in(other)
        problem(await ada.delete(f"/v1/me/sessions/{second['id']}"), 404, "session_not_found")
        good(await sign_in(other, ADA))
        good(await sign_in(stranger, ADA))
        assert (await ada.delete("/v1/me/sessions")).status_code == 204
        assert [await is_in(client) for client in (ada, other, stranger, bob.http)] == [True, False, False, True]
        assert len(good(await ada.get("/v1/me/sessions"))["data"]) == 1
