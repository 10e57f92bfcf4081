"""Signing in with an OpenID Connect provider, over real HTTP, on both databases."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from tests.peers.oidc_provider import OidcPeer, running_provider
from tests.support.app import MINUTE, TRANSACTIONS_OVERLAP, Shop, client_of, competitor, good, opening, problem
from tests.support.people import Person, person
from tests.web.html import Page

from counterfoil.accounts import closing, identities, roles, tenants, users
from counterfoil.accounts.identities import Proof
from counterfoil.accounts.tables import users as users_table
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.tx import Tx
from counterfoil.exchange import oidc
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey

OTHER = "ten_01jgkx0000000000000000000b"
ADA = {
    "sub": "ada-1",
    "email": "ada@example.com",
    "email_verified": True,
    "given_name": "Ada",
    "family_name": "Lovelace",
}
START, BACK = "/sign-in/with/peer", "/sign-in/with/peer/callback"
MINE = "/v1/me/identities"
BY_COMING = ("one_time_tokens", "sessions", "events")
"""What changes whenever somebody comes and goes."""


@pytest.fixture
def peer(clock: ManualClock) -> Iterator[OidcPeer]:
    with running_provider(clock.now) as running:
        running.person = dict(ADA)
        yield running


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey, peer: OidcPeer) -> AsyncIterator[Shop]:
    second = {**peer.settings, "label": "The <Second>"}
    both = {"peer": peer.settings, "second": second}
    async with opening(database_url, clock, master, oidc_providers=both, sign_ins_per_minute=0) as opened:
        yield opened


async def set_out(visitor: httpx.AsyncClient, path: str = START, **params: str) -> str:
    """Where a browser is sent to."""
    return sent(await visitor.get(path, params=params))


def sent(response: httpx.Response) -> str:
    assert response.status_code == 303, response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "same-origin"
    return response.headers["location"]


def agree(peer: OidcPeer, url: str) -> str:
    """Where the provider sends a person back to who lets it tell who they are."""
    assert url.startswith(f"{peer.url}/authorize?")
    return peer.authorize(dict(parse_qsl(urlsplit(url).query)))


async def come(visitor: httpx.AsyncClient, peer: OidcPeer, **params: str) -> httpx.Response:
    """The whole way."""
    return await visitor.get(agree(peer, await set_out(visitor, **params)))


def failed(response: httpx.Response, status: int, code: str) -> Page:
    """A friendly page that says why, with its code; nobody is signed in by it."""
    assert response.status_code == status, response.text
    assert not [name for name in response.cookies if "session" in name]
    page = Page(response)
    page.assert_inert()
    assert page.one("span", class_="mono").text == code
    return page


async def who(visitor: httpx.AsyncClient) -> list[tuple[str, str | None]]:
    """What opens the account of whoever is signed in."""
    return [(one["provider"], one["email"]) for one in good(await visitor.get(MINE))["data"]]


def new_visitor(shop: Shop) -> httpx.AsyncClient:
    return client_of(shop.app)


async def someone(shop: Shop, email: str = "ada@example.com", **more: Any) -> Person:
    """Somebody with an account that no provider made, signed in."""
    made = await person(shop, email, app=shop.app, **more)
    del made.http.headers["Cookie"]  # in the jar instead, so that the browser can be given others
    made.http.cookies.set("cf_session", made.token, domain="127.0.0.1")
    return made


async def open_other(shop: Shop) -> None:
    """A second tenant."""
    await shop.house.scope(OTHER).run(_make_other)
    shop.house.forget_tenants()


def _make_other(tx: Tx) -> None:
    tenants.create(tx, "other", "Other")
    roles.furnish(tx)


def _set(tx: Tx, user_id: str, values: dict[str, Any]) -> None:
    tx.execute(sa.update(users_table).where(users_table.c.id == user_id).values(**values))


# -- a provider that others wrote ---------------------------------------------------------------------


@contextmanager
def local_provider() -> Iterator[str]:
    """oidc-provider-mock, a real provider in a thread; its address."""
    with warnings.catch_warnings():
        from authlib.deprecate import AuthlibDeprecationWarning

        # It uses parts of Authlib that are to go.
        warnings.simplefilter("ignore", AuthlibDeprecationWarning)
        warnings.filterwarnings("ignore", r"get_jwt_config\(self, grant\) is deprecated", DeprecationWarning)
        import oidc_provider_mock

        person_ = oidc_provider_mock.User(sub="ada-1", claims={key: ADA[key] for key in ADA if key != "sub"})
        with oidc_provider_mock.run_server_in_thread(user_claims=[person_]) as server:
            yield f"http://localhost:{server.server_port}"


async def test_the_whole_way_with_a_real_provider(database_url: str, master: MasterKey) -> None:
    clock = ManualClock(datetime.now(UTC))  # the provider goes by the machine's
    with local_provider() as issuer:
        provider = {"issuer": issuer, "client_id": "counterfoil", "client_secret": "s3cret", "label": "Local"}
        async with opening(database_url, clock, master, oidc_providers={"local": provider}) as shop:
            visitor, stranger = new_visitor(shop), httpx.AsyncClient(trust_env=False)
            async with visitor, stranger:
                url = await set_out(visitor, "/sign-in/with/local", next="/account?tab=orders")
                assert url.startswith(f"{issuer}/oauth2/authorize?")
                page = await stranger.get(url)
                assert page.status_code == 200, page.text
                agreed = await stranger.post(url, data={"sub": "ada-1"})
                assert agreed.status_code == 302, agreed.text
                assert sent(await visitor.get(agreed.headers["location"])) == "/account?tab=orders"
                assert await who(visitor) == [("local", "ada@example.com")]
                user = await shop.row("users")
                assert (user["first_name"], user["last_name"]) == ("Ada", "Lovelace")
                denied = await stranger.post(await set_out(visitor, "/sign-in/with/local"), data={"action": "deny"})
                location = denied.headers["location"]
                assert dict(parse_qsl(urlsplit(location).query))["error"] == "access_denied"
                failed(await visitor.get(location), 401, "bad_state")  # this provider forgets the state then


# -- coming in ----------------------------------------------------------------------------------------


async def test_the_first_time_makes_an_account(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    assert sent(await come(visitor, peer)) == "/account"
    user, email, identity = await shop.row("users"), await shop.row("user_emails"), await shop.row("identities")
    assert (user["first_name"], user["last_name"], user["password_hash"], user["status"], user["role"]) == (
        "Ada", "Lovelace", None, "active", "member",
    )  # fmt: skip
    assert (email["email"], email["verified_at"], email["is_primary"], email["via"]) == (
        "ada@example.com", shop.clock.now(), True, "peer",
    )  # fmt: skip
    assert (identity["user_id"], identity["provider"], identity["subject"], identity["email"]) == (
        user["id"], "peer", "ada-1", "ada@example.com",
    )  # fmt: skip
    customer, role = await shop.row("customers"), await shop.row("role_assignments")
    assert (customer["kind"], customer["name"], customer["email"]) == ("person", "Ada Lovelace", "ada@example.com")
    assert (customer["owner_user_id"], customer["is_default"]) == (user["id"], True)
    assert (role["user_id"], role["customer_id"]) == (user["id"], customer["id"])
    assert (await shop.row("sessions"))["method"] == "oidc"
    assert set(await shop.events()) >= {"user.created", "customer.created", "identity.linked", "session.opened"}


async def test_the_next_time_it_is_the_same_account_whatever_its_address(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    before = await shop.everything(*BY_COMING)
    for person_ in (ADA, {"sub": "ada-1"}, {**ADA, "email": "new@example.com", "email_verified": False}):
        peer.person = person_
        sent(await come(other_visitor, peer))
    assert await shop.everything(*BY_COMING) == before
    assert await who(other_visitor) == [("peer", "ada@example.com")]


async def test_somebody_without_a_name_buys_under_their_address(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient
) -> None:
    peer.person = {"sub": "1", "email": "ada@example.com", "email_verified": True}
    sent(await come(visitor, peer))
    assert (await shop.row("customers"))["name"] == "ada@example.com"


async def test_subjects_are_told_apart_by_every_letter(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    peer.person = {**ADA, "sub": "ADA-1", "email": "other@example.com"}
    await come(other_visitor, peer)
    assert await shop.count("users") == 2


async def test_an_address_that_is_not_verified_makes_no_account(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient
) -> None:
    await someone(shop)  # whose address it is
    before = await shop.everything("one_time_tokens")
    for claims in ({"email_verified": False}, {"email_verified": "true"}, {"email_verified": None}, {"email": None}):
        peer.claims = claims
        page = failed(await come(visitor, peer), 403, "email_not_verified")
        assert "has not verified your e-mail address" in page.text
    assert await shop.everything("one_time_tokens") == before


async def test_strange_names_make_no_trouble(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    peer.person = {**ADA, "given_name": "<b>\u0000\u202eĀda\n", "family_name": "x" * 500}
    sent(await come(visitor, peer))
    user = await shop.row("users")
    assert (user["first_name"], user["last_name"]) == ("<b>Āda", "x" * 200)


async def test_coming_in_ends_the_session_that_was_there(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    first = visitor.cookies["cf_session"]
    shop.clock.advance(MINUTE)
    await come(visitor, peer)
    assert visitor.cookies["cf_session"] != first
    assert [row["revoked_at"] is None for row in await shop.rows("sessions")] == [False, True]


# -- accounts that were there before ------------------------------------------------------------------


async def test_an_account_that_was_there_is_not_opened(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    await someone(shop)
    before = await shop.everything("one_time_tokens")
    page = failed(await come(visitor, peer), 409, "sign_in_to_link")
    assert page.heading == "You have an account already"
    assert "/sign-in?next=/account/providers" in page.links
    assert await shop.everything("one_time_tokens") == before


async def test_whoever_is_signed_in_to_it_links_at_once(shop: Shop, peer: OidcPeer) -> None:
    ada = await someone(shop)
    sent(await come(ada.http, peer))
    assert await who(ada.http) == [("peer", "ada@example.com")]
    async with new_visitor(shop) as visitor:
        sent(await come(visitor, peer))
    assert [row["user_id"] for row in await shop.rows("identities")] == [ada.id]
    assert await shop.count("users") == 1


async def test_being_signed_in_as_somebody_else_does_not_help(shop: Shop, peer: OidcPeer) -> None:
    await someone(shop)
    bob = await someone(shop, "bob@example.com")
    page = failed(await come(bob.http, peer), 409, "sign_in_to_link")
    assert "somebody else is signed in" in page.text
    assert await shop.count("identities") == 0


async def test_an_account_that_the_provider_made_is_linked_again(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    peer.person = {**ADA, "sub": "ada-2"}
    async with new_visitor(shop) as again:
        sent(await come(again, peer))
        assert await who(again) == [("peer", "ada@example.com")] * 2
    assert await shop.count("users") == 1


async def test_an_account_that_another_provider_made_is_not(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    failed(
        await other_visitor.get(agree(peer, await set_out(other_visitor, "/sign-in/with/second"))),
        409,
        "sign_in_to_link",
    )
    assert await shop.count("identities") == 1


@pytest.mark.parametrize("linked", [True, False])
async def test_a_disabled_account_stays_closed(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient, linked: bool
) -> None:
    await come(visitor, peer)
    await shop.scope.run(_set, (await shop.row("users"))["id"], {"status": "disabled"})
    if not linked:
        peer.person = {**ADA, "sub": "ada-2"}
    before = await shop.everything("one_time_tokens")
    for browser in (visitor, other_visitor):
        failed(await come(browser, peer), 403, "user_disabled")
    assert await shop.everything("one_time_tokens") == before


async def test_a_deleted_account_is_not_found_again(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await come(visitor, peer)
    gone = (await shop.row("users"))["id"]
    await shop.scope.run(closing.delete, gone)
    sent(await come(other_visitor, peer))
    assert [row["user_id"] for row in await shop.rows("identities")] != [gone]
    assert await shop.count("users") == 2


# -- the state ----------------------------------------------------------------------------------------


async def test_a_way_in_is_used_once(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    back = agree(peer, await set_out(visitor))
    sent(await visitor.get(back))
    before = await shop.everything()
    failed(await visitor.get(back), 401, "bad_state")
    assert await shop.everything() == before


async def test_a_way_in_works_in_its_own_browser_only(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    back = agree(peer, await set_out(visitor))
    failed(await other_visitor.get(back), 401, "bad_state")  # without a cookie
    failed(await visitor.get(back), 401, "bad_state")  # and it is spent
    back = agree(peer, await set_out(visitor))
    await set_out(other_visitor)
    failed(await other_visitor.get(back), 401, "bad_state")  # with a cookie of its own
    assert await shop.count("sessions") == await shop.count("users") == 0
    assert peer.asked.count("/token") == 0


async def test_a_way_in_leads_to_its_own_provider_only(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    back = agree(peer, await set_out(visitor))
    failed(await visitor.get(back.replace("/with/peer/", "/with/second/")), 401, "bad_state")
    sent(await visitor.get(back))


async def test_a_way_in_is_open_for_ten_minutes(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    back = agree(peer, await set_out(visitor))
    shop.clock.advance(timedelta(minutes=10))
    failed(await visitor.get(back), 401, "bad_state")
    back = agree(peer, await set_out(visitor))
    shop.clock.advance(timedelta(minutes=10) - timedelta(microseconds=1))
    peer.claims = {"iat": int(shop.clock.now().timestamp())}
    sent(await visitor.get(back))


async def test_a_way_in_of_another_shop_is_none_here(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    await open_other(shop)
    url = await set_out(visitor, f"/t/other{START}")
    assert dict(parse_qsl(urlsplit(url).query))["redirect_uri"] == f"http://127.0.0.1:8787/t/other{BACK}"
    back = agree(peer, url)
    failed(await visitor.get(back.replace("/t/other", "")), 401, "bad_state")
    assert sent(await visitor.get(back)) == "/t/other/account"
    assert await shop.count("users") == 0
    assert [one["provider"] for one in good(await visitor.get(f"/t/other{MINE}"))["data"]] == ["peer"]


async def test_two_ways_in_at_once_in_one_browser(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    first, second = agree(peer, await set_out(visitor, next="/a")), agree(peer, await set_out(visitor, next="/b"))
    assert sent(await visitor.get(second)) == "/b"
    assert sent(await visitor.get(first)) == "/a"


async def test_a_state_that_is_none(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await set_out(visitor)
    before = await shop.everything()
    for state in ("", "x", "a" * 32, "ä" * 32, "a" * 33, "a" * 5000, "\ud800", "' OR 1=1"):
        query = urlencode({"code": "x", "state": state}, errors="surrogatepass")
        failed(await visitor.get(f"{BACK}?{query}"), 401, "bad_state")
    failed(await visitor.get(f"{BACK}?code=x"), 401, "bad_state")
    failed(await visitor.get(BACK), 401, "bad_state")
    assert await shop.everything() == before


async def test_a_cookie_that_is_none(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    for cookie in ("", "x", "a" * 32, "%ff%fe", '"quoted"', "ä"):
        header = [("Cookie", f"cf_provider={cookie}".encode())]
        async with client_of(shop.app, headers=header) as strange:  # type: ignore[arg-type]
            failed(await strange.get(agree(peer, await set_out(visitor))), 401, "bad_state")
            assert (await strange.get(START)).status_code == 303
    assert await shop.count("sessions") == 0


async def test_the_cookie_of_the_browser_that_set_out(shop: Shop, visitor: httpx.AsyncClient) -> None:
    header = (await visitor.get(START)).headers["set-cookie"]
    name, _, rest = header.partition("=")
    value, *attributes = [part.strip() for part in rest.split(";")]
    assert name == "cf_provider"
    assert len(value) == 32
    assert {part.lower() for part in attributes} == {"httponly", "max-age=600", "path=/", "samesite=lax"}


async def test_whoever_comes_by_another_name_of_this_machine_goes_on_by_ours(
    shop: Shop, visitor: httpx.AsyncClient
) -> None:
    visitor.base_url = "http://localhost:8787"
    assert await set_out(visitor, next="/a?b=c") == f"http://127.0.0.1:8787{START}?next=%2Fa%3Fb%3Dc"
    assert await shop.count("one_time_tokens") == 0


async def test_the_cookie_where_there_is_tls(
    database_url: str, clock: ManualClock, master: MasterKey, peer: OidcPeer
) -> None:
    async with (
        opening(
            database_url, clock, master, oidc_providers={"peer": peer.settings}, public_url="https://shop.example.com"
        ) as shop,
        new_visitor(shop) as visitor,
    ):
        visitor.base_url = "https://shop.example.com"
        answer = await visitor.get(START)
        assert dict(parse_qsl(urlsplit(sent(answer)).query))["redirect_uri"] == f"https://shop.example.com{BACK}"
        assert answer.headers["set-cookie"].startswith("__Host-cf_provider=")
        assert "secure" in answer.headers["set-cookie"].lower().split("; ")
        sent(await visitor.get(agree(peer, sent(answer))))


async def test_no_secret_can_be_read_in_the_database(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    url = await set_out(visitor)
    state = dict(parse_qsl(urlsplit(url).query))["state"]
    code = dict(parse_qsl(urlsplit(agree(peer, url)).query))["code"]
    row = await shop.row("one_time_tokens")
    assert row["purpose"] == "oidc:peer"
    assert set(row["details"]) == {"nonce", "verifier", "browser", "next", "link_to"}
    await visitor.get(f"{BACK}?{urlencode({'state': state, 'code': code})}")
    (verifier,) = peer.verifiers
    written = json.dumps(await shop.everything(), default=str)
    for secret in (state, code, verifier, visitor.cookies["cf_provider"], visitor.cookies["cf_session"]):
        assert secret not in written


# -- answers that are none ----------------------------------------------------------------------------


REFUSALS: list[tuple[dict[str, str], int, str]] = [
    ({"error": "access_denied"}, 403, "access_denied"),
    ({"error": "login_required", "error_description": "<script>alert(1)</script>"}, 403, "provider_refused"),
    ({"error": "server_error"}, 503, "provider_unavailable"),
    ({"error": "temporarily_unavailable", "code": "x"}, 503, "provider_unavailable"),
    ({"error": "x" * 5000}, 403, "provider_refused"),
    ({}, 401, "code_refused"),
    ({"code": ""}, 401, "code_refused"),
    ({"code": "x" * 5000}, 401, "code_refused"),
    ({"code": "a\nb"}, 401, "code_refused"),
    ({"code": "made up"}, 401, "code_refused"),
    ({"code": "x", "iss": "https://evil.example"}, 401, "wrong_provider"),
]


async def test_a_provider_that_does_not_agree(shop: Shop, visitor: httpx.AsyncClient) -> None:
    before = await shop.everything("one_time_tokens")
    for answer, status, code in REFUSALS:
        state = dict(parse_qsl(urlsplit(await set_out(visitor)).query))["state"]
        page = failed(await visitor.get(BACK, params={"state": state, **answer}), status, code)
        assert START in page.links
        assert "alert" not in page.html
        failed(await visitor.get(BACK, params={"state": state, **answer}), 401, "bad_state")
    assert await shop.everything("one_time_tokens") == before


async def test_an_answer_that_names_its_issuer(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    back = agree(peer, await set_out(visitor))
    sent(await visitor.get(f"{back}&{urlencode({'iss': peer.url})}"))


async def test_a_token_that_proves_nothing(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    before = await shop.everything("one_time_tokens")
    for claims in ({"nonce": "another"}, {"aud": "another"}, {"iss": "https://evil.example"}, {"exp": 1}):
        peer.claims = claims
        failed(await come(visitor, peer), 401, "bad_id_token")
    assert await shop.everything("one_time_tokens") == before


async def test_a_provider_that_is_away(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await shop.everything()
    peer.answers["/.well-known/openid-configuration"] = (500, b"")
    page = failed(await visitor.get(START), 503, "provider_unavailable")
    assert "The Peer could not be reached. Try again." in page.text
    assert await shop.everything() == before
    del peer.answers["/.well-known/openid-configuration"]
    monkeypatch.setattr(oidc, "_SECONDS", 0.3)
    peer.silent.add("/token")
    failed(await come(visitor, peer), 503, "provider_unavailable")
    assert await shop.count("users") == 0


async def test_a_provider_there_is_not(shop: Shop, visitor: httpx.AsyncClient) -> None:
    for path in (
        "/sign-in/with/none",
        "/sign-in/with/none/callback",
        "/sign-in/with/%3Cb%3E",
        "/sign-in/with/" + "x" * 3000,
    ):
        page = failed(await visitor.get(path), 404, "provider_not_found")
        assert "/sign-in" in page.links


async def test_too_many_at_once_from_one_address(
    database_url: str, clock: ManualClock, master: MasterKey, peer: OidcPeer
) -> None:
    async with (
        opening(
            database_url, clock, master, oidc_providers={"peer": peer.settings}, sign_ins_per_minute=3
        ) as shop,
        new_visitor(shop) as visitor,
    ):  # fmt: skip
        for _ in range(3):
            await set_out(visitor)
        refused = await visitor.get(START)
        failed(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert await shop.count("one_time_tokens") == 3


PLACES = [
    ("/account/licenses?a=b#c", "/account/licenses?a=b#c"),
    ("//evil.example", "/account"),
    ("/\\evil.example", "/account"),
    ("https://evil.example", "/account"),
    ("javascript:alert(1)", "/account"),
    ("/a\r\nSet-Cookie: a=b", "/account"),
    ("/\t/evil.example", "/account"),
    ("", "/account"),
    ("/" + "x" * 3000, "/account"),
]


async def test_afterwards_one_is_on_this_site(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    for wanted, goes_to in PLACES:
        assert sent(await come(visitor, peer, next=wanted)) == goes_to


# -- at the same moment -------------------------------------------------------------------------------


async def test_one_way_in_used_by_a_hundred_at_once(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    back = agree(peer, await set_out(visitor))
    answers = await asyncio.gather(*[visitor.get(back) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [303] + [401] * 99
    assert await shop.count("users") == await shop.count("sessions") == 1
    assert peer.asked.count("/token") == 1


async def test_a_hundred_first_sign_ins_of_one_person_make_one_account(shop: Shop, peer: OidcPeer) -> None:
    visitors = [new_visitor(shop) for _ in range(100)]
    ways = [agree(peer, await set_out(visitor)) for visitor in visitors]
    answers = await asyncio.gather(*[visitor.get(back) for visitor, back in zip(visitors, ways, strict=True)])
    assert {sent(answer) for answer in answers} == {"/account"}
    assert await shop.count("users") == await shop.count("user_emails") == await shop.count("identities") == 1
    assert await shop.count("sessions") == 100
    assert sorted(await shop.events("user.created", "identity.linked")) == ["identity.linked", "user.created"]


@TRANSACTIONS_OVERLAP
async def test_the_same_person_a_moment_earlier(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof(provider="peer", subject="ada-1", email="ada@example.com", first_name="", last_name="")
    competitor(monkeypatch, users, "create", shop.scope, identities.enter, proof, None)
    sent(await come(visitor, peer))
    assert await shop.count("users") == await shop.count("identities") == 1


@TRANSACTIONS_OVERLAP
async def test_somebody_else_with_the_address_a_moment_earlier(
    shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"email": "ada@example.com", "first_name": "", "last_name": "", "via": "email:password"}
    competitor(monkeypatch, users, "create", shop.scope, users.create, **made)
    failed(await come(visitor, peer), 409, "sign_in_to_link")
    assert await shop.count("identities") == 0


# -- what is linked -----------------------------------------------------------------------------------


async def press(visitor: httpx.AsyncClient, action: str, path: str = "/account/providers") -> httpx.Response:
    """Press the button of the form that goes to a path ending so."""
    page = Page(await visitor.get(path))
    (form,) = [form for form in page.forms if form.action.endswith(action)]
    return await visitor.post(form.action, data=form.fields)


async def test_connecting_and_disconnecting(shop: Shop, peer: OidcPeer) -> None:
    bob = await someone(shop, "bob@example.com")
    page = Page(await bob.http.get("/account/providers"))
    page.assert_inert()
    assert "None is connected." in page.text
    assert "Connect The <Second>" in page.text
    back = agree(peer, sent(await press(bob.http, "/peer/connect")))
    assert sent(await bob.http.get(back)) == "/account/providers"
    assert await who(bob.http) == [("peer", "ada@example.com")]  # whose it is there matters not: they proved both
    assert "The Peer, ada@example.com, since 2026-01-02" in Page(await bob.http.get("/account/providers")).text
    refused = Page(await press(bob.http, "/remove"))
    assert (refused.status, refused.one("div", role="alert").text) == (
        409, "This is the only way into your account. Set a password or add a passkey first.",
    )  # fmt: skip
    await shop.scope.run(users.set_password, bob.id, "$argon2id$")
    shop.clock.advance(MINUTE)
    assert sent(await press(bob.http, "/remove")) == "/account/providers"
    assert await who(bob.http) == []
    assert await shop.events("identity.linked", "identity.unlinked") == ["identity.linked", "identity.unlinked"]


async def test_connecting_needs_no_verified_address(shop: Shop, peer: OidcPeer) -> None:
    bob = await someone(shop, "bob@example.com")
    peer.person = {"sub": "7"}
    sent(await bob.http.get(agree(peer, sent(await press(bob.http, "/peer/connect")))))
    assert await who(bob.http) == [("peer", None)]
    sent(await bob.http.get(agree(peer, sent(await press(bob.http, "/peer/connect")))))  # once more changes nothing
    assert await who(bob.http) == [("peer", None)]


async def test_connecting_what_is_anothers(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    await come(visitor, peer)
    bob = await someone(shop, "bob@example.com")
    back = agree(peer, sent(await press(bob.http, "/peer/connect")))
    before = await shop.everything("one_time_tokens")
    failed(await bob.http.get(back), 409, "identity_taken")
    assert await shop.everything("one_time_tokens") == before


async def test_connecting_asks_again_who_is_there(shop: Shop, peer: OidcPeer) -> None:
    bob, eve = await someone(shop, "bob@example.com"), await someone(shop, "eve@example.com")
    for cookie in ("", f"cf_session={eve.token}"):
        answer = await press(bob.http, "/peer/connect")
        back = agree(peer, sent(answer))
        async with new_visitor(shop) as meanwhile:  # the same browser, after somebody signed out
            provider = f"cf_provider={answer.cookies.get('cf_provider') or bob.http.cookies['cf_provider']}"
            headers = {"Cookie": f"{provider}; {cookie}"}
            failed(await meanwhile.get(back, headers=headers), 403, "not_signed_in")
    assert await shop.count("identities") == 0


async def test_other_pages_cannot_connect_or_disconnect(shop: Shop, peer: OidcPeer) -> None:
    ada = await someone(shop)
    await come(ada.http, peer)
    await shop.scope.run(users.set_password, ada.id, "$argon2id$")
    (one,) = good(await ada.http.get(MINE))["data"]
    token = Page(await ada.http.get("/account/providers")).forms[0].fields
    before = await shop.everything()
    for path in ("/account/providers/second/connect", f"/account/providers/{one['id']}/remove"):
        assert (await ada.http.post(path, data={"csrf": "made up"})).status_code == 403
        assert (await ada.http.post(path, data=token, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
        assert (await ada.http.post(path, json=token)).status_code == 415
        assert (await ada.http.get(path)).status_code == 405
    headers = {"Sec-Fetch-Site": "cross-site"}
    problem(await ada.http.delete(f"{MINE}/{one['id']}", headers=headers), 403, "cross_site")
    assert await shop.everything() == before


async def test_strangers_are_asked_to_sign_in(shop: Shop, visitor: httpx.AsyncClient) -> None:
    assert sent(await visitor.get("/account/providers")) == "/sign-in?next=/account/providers"
    problem(await visitor.get(MINE), 401, "unauthorized")
    problem(await shop.staff.get(MINE), 403, "users_only")


async def test_ones_own_over_the_api(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    await come(visitor, peer)
    (one,) = good(await visitor.get(MINE))["data"]
    row = await shop.row("identities")
    assert one == {
        "id": row["id"],
        "provider": "peer",
        "email": "ada@example.com",
        "created_at": shop.clock.now().isoformat().replace("+00:00", "Z"),
    }
    bob = await someone(shop, "bob@example.com")
    before = await shop.everything()
    problem(await bob.http.delete(f"{MINE}/{one['id']}"), 404, "identity_not_found")
    problem(await visitor.delete(f"{MINE}/{one['id']}"), 409, "last_sign_in")
    problem(await visitor.delete(f"{MINE}/idn_x"), 404, "identity_not_found")
    assert await shop.everything() == before
    peer.person = {**ADA, "sub": "ada-2"}
    shop.clock.advance(MINUTE)
    await come(visitor, peer)
    page = good(await visitor.get(MINE, params={"limit": 1}))
    second = good(await visitor.get(MINE, params={"limit": 1, "after": page["next"]}))
    assert (page["data"], second["data"][0]["provider"], second["next"]) == ([one], "peer", None)
    assert (await visitor.delete(f"{MINE}/{one['id']}")).status_code == 204
    problem(await visitor.delete(f"{MINE}/{second['data'][0]['id']}"), 409, "last_sign_in")


async def test_a_provider_that_cannot_be_used_any_more_is_no_way_in(shop: Shop, peer: OidcPeer) -> None:
    ada = await someone(shop)
    await come(ada.http, peer)
    shop.clock.advance(MINUTE)
    old = Proof(provider="gone", subject="1", email=None, first_name="", last_name="")
    await shop.scope.run(identities.link, ada.id, old)
    first, second = good(await ada.http.get(MINE))["data"]
    problem(await ada.http.delete(f"{MINE}/{first['id']}"), 409, "last_sign_in")
    assert (await ada.http.delete(f"{MINE}/{second['id']}")).status_code == 204


async def test_of_a_hundred_ways_in_one_stays(shop: Shop, peer: OidcPeer) -> None:
    ada = await someone(shop)
    for number in range(100):
        proof = Proof(provider="peer", subject=str(number), email=None, first_name="", last_name="")
        await shop.scope.run(identities.link, ada.id, proof)
    ids = [one["id"] for one in good(await ada.http.get(MINE, params={"limit": 100}))["data"]]
    answers = await asyncio.gather(*[ada.http.delete(f"{MINE}/{one}") for one in ids])
    assert sorted(answer.status_code for answer in answers) == [204] * 99 + [409]
    assert await shop.count("identities") == 1


async def test_tenants_do_not_share_people(shop: Shop, peer: OidcPeer, visitor: httpx.AsyncClient) -> None:
    await open_other(shop)
    await come(visitor, peer)
    async with new_visitor(shop) as there:
        sent(await there.get(agree(peer, await set_out(there, f"/t/other{START}"))))
    assert len(await shop.house.scope(OTHER).read(_users)) == 1
    assert await shop.house.scope(OTHER).read(_users) != await shop.house.scope(DEFAULT_TENANT).read(_users)


def _users(tx: Tx) -> list[str]:
    return [row.id for row in tx.all(sa.select(users_table.c.id).where(users_table.c.tenant_id == tx.tenant))]
