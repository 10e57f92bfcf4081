"""What is believed of an OpenID Connect provider: one over real HTTP that does right, or wrong on purpose."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.peers.oidc_provider import CLIENT_ID, Key, OidcPeer, running_provider

from counterfoil.accounts.identities import Proof
from counterfoil.config import BadSetting
from counterfoil.exchange import oidc
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.oidc import Provider, Providers, Request
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import CounterfoilError, NotFound
from counterfoil.settings import OidcProvider, Settings, is_safe_url

ASKED = Request(
    redirect_uri="http://127.0.0.1:8787/sign-in/with/peer/callback",
    state="s" * 32,
    nonce="n" * 32,
    verifier="v" * 64,
)
ADA = {
    "sub": "1",
    "email": "Ada@Example.com",
    "email_verified": True,
    "given_name": "Ada",
    "family_name": "Lovelace",
}
DISCOVERY, TOKEN, KEYS = "/.well-known/openid-configuration", "/token", "/keys"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def peer(clock: ManualClock) -> Iterator[OidcPeer]:
    with running_provider(clock.now) as running:
        running.person = dict(ADA)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[RailClient]:
    opened = RailClient()
    yield opened
    await opened.close()


@pytest.fixture
def provider(peer: OidcPeer, client: RailClient, clock: ManualClock) -> Provider:
    return Provider("peer", _provider(peer.settings), client, clock)


async def prove(provider: Provider, peer: OidcPeer, asked: Request = ASKED) -> Proof:
    """The whole way, with nobody in the browser."""
    url = await provider.authorize_url(asked)
    answer = dict(parse_qsl(urlsplit(peer.authorize(dict(parse_qsl(urlsplit(url).query)))).query))
    assert answer["state"] == asked.state
    return await provider.redeem(asked, answer["code"])


async def refused(provider: Provider, peer: OidcPeer) -> tuple[int, str]:
    with pytest.raises(CounterfoilError) as caught:
        await prove(provider, peer)
    return caught.value.status, caught.value.code


BAD_TOKEN = (401, "bad_id_token")
AWAY = (503, "provider_unavailable")


# -- what is right ------------------------------------------------------------------------------------


async def test_a_proof(provider: Provider, peer: OidcPeer) -> None:
    assert await prove(provider, peer) == Proof(
        provider="peer", subject="1", email="ada@example.com", first_name="Ada", last_name="Lovelace"
    )
    assert peer.asked == [DISCOVERY, TOKEN, KEYS]


async def test_what_is_asked(provider: Provider, peer: OidcPeer) -> None:
    url = await provider.authorize_url(ASKED)
    assert url.startswith(f"{peer.url}/authorize?")
    assert dict(parse_qsl(urlsplit(url).query)) == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": ASKED.redirect_uri,
        "scope": "openid email profile",
        "state": ASKED.state,
        "nonce": ASKED.nonce,
        "code_challenge": "w1TpKUdYE9hUAcNSeeSRFioHDxfUxuHho_JHAfZ_vDM",
        "code_challenge_method": "S256",
    }


async def test_what_an_endpoint_says_in_its_query_is_kept_and_cannot_speak_for_us(
    provider: Provider, peer: OidcPeer
) -> None:
    peer.discovery = {"authorization_endpoint": f"{peer.url}/authorize?tenant=one&state=theirs"}
    pairs = parse_qsl(urlsplit(await provider.authorize_url(ASKED)).query)
    assert ("tenant", "one") in pairs
    assert [value for name, value in pairs if name == "state"] == [ASKED.state]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("kid", ["k", None])
async def test_every_kind_of_signature(provider: Provider, peer: OidcPeer, algorithm: str, kid: str | None) -> None:
    peer.key = Key(algorithm, kid)
    peer.published = [peer.key.public]
    assert (await prove(provider, peer)).subject == "1"


async def test_the_secret_goes_into_the_form_where_nothing_else_is_taken(provider: Provider, peer: OidcPeer) -> None:
    peer.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await prove(provider, peer)).subject == "1"


async def test_the_secret_goes_into_the_header_where_either_is_taken(provider: Provider, peer: OidcPeer) -> None:
    peer.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"]}
    assert (await prove(provider, peer)).subject == "1"


async def test_clocks_may_differ_by_a_minute(provider: Provider, peer: OidcPeer, clock: ManualClock) -> None:
    now = int(clock.now().timestamp())
    for claims in ({"exp": now - 59}, {"iat": now + 60}, {"nbf": now + 60}, {"exp": now + 0.5, "iat": now - 1e6}):
        peer.claims = claims
        assert (await prove(provider, peer)).subject == "1"


async def test_several_audiences_when_it_was_us_who_asked(provider: Provider, peer: OidcPeer) -> None:
    peer.claims = {"aud": ["other", CLIENT_ID], "azp": CLIENT_ID}
    assert (await prove(provider, peer)).subject == "1"


async def test_what_is_known_is_remembered_for_an_hour(provider: Provider, peer: OidcPeer, clock: ManualClock) -> None:
    await prove(provider, peer)
    clock.advance(timedelta(minutes=59, seconds=59))
    await prove(provider, peer)
    assert peer.asked == [DISCOVERY, TOKEN, KEYS, TOKEN]
    clock.advance(timedelta(seconds=1))
    await prove(provider, peer)
    assert peer.asked == [DISCOVERY, TOKEN, KEYS, TOKEN, DISCOVERY, TOKEN, KEYS]


async def test_new_keys_are_found_at_most_once_a_minute(provider: Provider, peer: OidcPeer, clock: ManualClock) -> None:
    await prove(provider, peer)
    peer.key = Key("RS256", "second")
    peer.published.append(peer.key.public)
    assert await refused(provider, peer) == BAD_TOKEN
    assert peer.asked.count(KEYS) == 1
    clock.advance(MINUTE)
    assert (await prove(provider, peer)).subject == "1"
    assert peer.asked.count(KEYS) == 2
    peer.key = Key("RS256", "never published")
    clock.advance(MINUTE)
    answers = await asyncio.gather(*[refused(provider, peer) for _ in range(20)])
    assert answers == [BAD_TOKEN] * 20
    assert peer.asked.count(KEYS) == 3


async def test_many_who_come_at_once_ask_once(provider: Provider, peer: OidcPeer) -> None:
    proofs = await asyncio.gather(*[prove(provider, peer) for _ in range(100)])
    assert {proof.subject for proof in proofs} == {"1"}
    assert (peer.asked.count(DISCOVERY), peer.asked.count(TOKEN), peer.asked.count(KEYS)) == (1, 100, 1)


async def test_a_first_answer_that_nobody_waits_for_any_more_is_still_kept(provider: Provider, peer: OidcPeer) -> None:
    first = asyncio.create_task(provider.authorize_url(ASKED))
    second = asyncio.create_task(provider.authorize_url(ASKED))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).startswith(peer.url)
    assert peer.asked == [DISCOVERY]


# -- names and addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "person",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"email_verified": None},
        {"email": None},
        {"email": ["ada@example.com"]},
        {"email": "not an address"},
        {"email": "ada@example.com\u0000"},
        {"email": "a" * 300 + "@example.com"},
    ],
)
async def test_an_address_counts_when_it_is_one_and_verified(
    provider: Provider, peer: OidcPeer, person: dict[str, Any]
) -> None:
    peer.claims = person
    assert (await prove(provider, peer)).email is None


@pytest.mark.parametrize(
    ("person", "names"),
    [
        ({}, ("Ada", "Lovelace")),
        ({"given_name": None, "family_name": None, "name": "Ada L."}, ("Ada L.", "")),
        ({"given_name": None, "name": "Ada L."}, ("", "Lovelace")),
        ({"given_name": None, "family_name": None}, ("", "")),
        ({"given_name": 7, "family_name": {"a": 1}}, ("", "")),
        ({"given_name": " A\u0000d\u202ea\n "}, ("Ada", "Lovelace")),
        ({"given_name": "x" * 199 + " yz", "family_name": "é" * 300}, ("x" * 199, "é" * 200)),
    ],
)
async def test_names_are_cleaned(
    provider: Provider, peer: OidcPeer, person: dict[str, Any], names: tuple[str, str]
) -> None:
    peer.claims = person
    proof = await prove(provider, peer)
    assert (proof.first_name, proof.last_name) == names


# -- tokens that prove nothing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://accounts.example.com"},
        {"iss": None},
        {"iss": ["x"]},
        {"iss": "accounts.google.com"},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": [CLIENT_ID, "other"]},
        {"aud": [CLIENT_ID, "other"], "azp": "other"},
        {"azp": "other"},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["n" * 32]},
        {"exp": None},
        {"exp": "2999-01-01"},
        {"exp": True},
        {"iat": None},
        {"iat": {}},
        {"nbf": "now"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "1\u0000"},
    ],
)
async def test_claims_that_are_not_about_this_sign_in(
    provider: Provider, peer: OidcPeer, claims: dict[str, Any]
) -> None:
    peer.claims = claims
    assert await refused(provider, peer) == BAD_TOKEN


async def test_a_token_counts_at_its_time_only(provider: Provider, peer: OidcPeer, clock: ManualClock) -> None:
    now = int(clock.now().timestamp())
    for claims in ({"exp": now - 60}, {"iat": now + 61}, {"nbf": now + 61}, {"exp": -1e300}, {"iat": 10**30}):
        peer.claims = claims
        assert await refused(provider, peer) == BAD_TOKEN


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unsigned(claims: dict[str, Any]) -> str:
    return f"{_encoded({'alg': 'none', 'kid': 'first'})}.{_encoded(claims)}."


def _signed_with_the_public_key(claims: dict[str, Any]) -> str:
    """As if the public key were a shared secret: made by hand, since no library agrees to it."""
    import hashlib
    import hmac

    pem = Key("RS256", "first").private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    text = f"{_encoded({'alg': 'HS256', 'kid': 'first'})}.{_encoded(claims)}"
    made = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"


def _altered(claims: dict[str, Any]) -> str:
    header, _, signature = _right(claims).split(".")
    return f"{header}.{_encoded({**claims, 'sub': '2'})}.{signature}"


def _right(claims: dict[str, Any]) -> str:
    return OidcPeer(lambda: None).key.sign(claims)  # type: ignore[arg-type, return-value]


def _by_another_key(claims: dict[str, Any]) -> str:
    return Key("RS256", "first").sign(claims)


def _by_a_short_key(claims: dict[str, Any]) -> str:
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        return jwt.encode(claims, _SHORT, "RS256", headers={"kid": "short"})


_SHORT = rsa.generate_private_key(65537, 1024)
_STRANGE: list[Callable[[dict[str, Any]], str]] = [
    _unsigned,
    _signed_with_the_public_key,
    _altered,
    _by_another_key,
    _by_a_short_key,
    lambda claims: _right(claims)[:-10],
    lambda claims: _right(claims).rpartition(".")[0] + ".",
    lambda claims: Key("RS256", None).sign(claims, kid="nobody's"),
    lambda claims: OidcPeer(lambda: None).key.sign(claims, crit=["exp"], exp=1),  # type: ignore[arg-type, return-value]
    lambda _: "",
    lambda _: "a.b.c",
    lambda _: "ä.ö.ü",
    lambda _: "." * 1000,
    lambda _: _right([1, 2]),  # type: ignore[arg-type]
    lambda _: f"{_encoded([])}.{_encoded({})}.x",
    lambda _: f"{_encoded({'alg': ['RS256']})}.{_encoded({})}.x",
    lambda _: f"{_encoded({'alg': 'RS256', 'kid': 7})}.{_encoded({})}.x",
]


@pytest.mark.parametrize("make", _STRANGE)
async def test_tokens_that_nobody_signed(
    provider: Provider, peer: OidcPeer, make: Callable[[dict[str, Any]], str]
) -> None:
    short = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(_SHORT.public_key()))
    peer.published.append({**short, "kid": "short"})
    peer.make_token = make
    assert await refused(provider, peer) == BAD_TOKEN


@pytest.mark.parametrize(
    "published",
    [
        [],
        ["text", 7, None],
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256"}],
        [{"kty": "RSA", "kid": "first"}],
        [{"kty": "RSA", "kid": "first", "n": 7, "e": "AQAB"}],
        [{"kty": "RSA", "kid": "first", "n": "AQAB", "e": "AQAB"}],
        [{**OidcPeer(lambda: None).key.public, "use": "enc"}],  # type: ignore[arg-type, return-value]
        [{**OidcPeer(lambda: None).key.public, "alg": "RS512"}],  # type: ignore[arg-type, return-value]
        [{**OidcPeer(lambda: None).key.public, "kid": "other"}],  # type: ignore[arg-type, return-value]
        [{**OidcPeer(lambda: None).key.public, "d": "AQAB"}],  # type: ignore[arg-type, return-value]
        [OidcPeer(lambda: None).key.public] * 2,  # type: ignore[arg-type, return-value]
    ],
)
async def test_keys_that_cannot_be_the_one(provider: Provider, peer: OidcPeer, published: list[Any]) -> None:
    peer.published = published
    assert await refused(provider, peer) == BAD_TOKEN


async def test_a_key_is_used_as_it_says_only(provider: Provider, peer: OidcPeer) -> None:
    both = Key("RS256", "first")
    peer.published = [{**both.public, "alg": "PS256"}]
    peer.key = both
    assert await refused(provider, peer) == BAD_TOKEN


# -- providers that cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"issuer": None},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://example.com/authorize"},
        {"authorization_endpoint": "https://example.com/a b"},
        {"authorization_endpoint": "https://example.com/\r\nSet-Cookie: a=b"},
        {"token_endpoint": "http://example.com/token"},
        {"token_endpoint": "https://user@example.com/token"},
        {"token_endpoint": 7},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": "https://example.com:99999/keys"},
    ],
)
async def test_discovery_that_leads_astray(provider: Provider, peer: OidcPeer, discovery: dict[str, Any]) -> None:
    peer.discovery = discovery
    assert await refused(provider, peer) == AWAY
    assert peer.asked == [DISCOVERY]


@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, KEYS])
@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"),
        (429, b"{}"),
        (302, b""),
        (200, b"\x1f\x8b not JSON"),
        (200, b"[" * 100_000),
        (200, b"[]"),
        (200, b'{"keys": 7, "a": "' + b"x" * 600_000 + b'"}'),
        (200, b"x" * 5_000_000),
    ],
)
async def test_answers_that_are_none(provider: Provider, peer: OidcPeer, path: str, answer: tuple[int, bytes]) -> None:
    peer.answers[path] = answer
    no_token = path == TOKEN and answer[0] == 200 and len(answer[1]) < 500_000
    assert await refused(provider, peer) == (BAD_TOKEN if no_token else AWAY)
    del peer.answers[path]
    assert (await prove(provider, peer)).subject == "1"  # and nothing of it stays


@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, KEYS])
async def test_no_answer_in_time(
    provider: Provider, peer: OidcPeer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    assert oidc._SECONDS == 10
    monkeypatch.setattr(oidc, "_SECONDS", 0.3)
    peer.silent.add(path)
    assert await refused(provider, peer) == AWAY


async def test_nobody_there(client: RailClient, clock: ManualClock) -> None:
    settings = _provider({"issuer": "http://127.0.0.1:1", "client_id": "a", "client_secret": "b"})
    with pytest.raises(CounterfoilError) as caught:
        await Provider("peer", settings, client, clock).authorize_url(ASKED)
    assert (caught.value.status, caught.value.code) == AWAY
    assert caught.value.detail == "Peer could not be reached. Try again."


async def test_a_provider_that_does_not_know_us(peer: OidcPeer, client: RailClient, clock: ManualClock) -> None:
    settings = _provider({**peer.settings, "client_secret": "wrong"})
    assert await refused(Provider("peer", settings, client, clock), peer) == AWAY
    provider = Provider("peer", _provider(peer.settings), client, clock)
    peer.answers[TOKEN] = (400, b'{"error": "unauthorized_client"}')
    assert await refused(provider, peer) == AWAY


async def test_codes_that_are_not_good(provider: Provider, peer: OidcPeer) -> None:
    await prove(provider, peer)
    with pytest.raises(CounterfoilError) as caught:
        await provider.redeem(ASKED, "made up")
    assert (caught.value.status, caught.value.code) == (401, "code_refused")
    peer.answers[TOKEN] = (400, b"not JSON")
    assert await refused(provider, peer) == (401, "code_refused")


async def test_another_verifier_proves_nothing(provider: Provider, peer: OidcPeer) -> None:
    url = await provider.authorize_url(ASKED)
    code = dict(parse_qsl(urlsplit(peer.authorize(dict(parse_qsl(urlsplit(url).query)))).query))["code"]
    other = Request(redirect_uri=ASKED.redirect_uri, state=ASKED.state, nonce=ASKED.nonce, verifier="w" * 64)
    with pytest.raises(CounterfoilError) as caught:
        await provider.redeem(other, code)
    assert caught.value.code == "code_refused"


# -- settings -----------------------------------------------------------------------------------------


def _settings(**providers: Any) -> Settings:
    return Settings.load(oidc_providers=providers)


def _provider(given: dict[str, Any]) -> OidcProvider:
    return _settings(peer=given).oidc_providers["peer"]


async def test_google_needs_an_id_and_a_secret_only(client: RailClient, clock: ManualClock) -> None:
    made = _settings(google={"client_id": "a", "client_secret": "b"}, other={
        "issuer": "https://id.example.com/", "client_id": "c", "client_secret": "d", "label": "Our directory",
    })  # fmt: skip
    google = made.oidc_providers["google"]
    assert (google.issuer, google.label) == ("https://accounts.google.com", "Google")
    providers = Providers(made.oidc_providers, client, clock)
    assert providers.names() == [("google", "Google"), ("other", "Our directory")]
    assert providers.get("google").is_issuer("https://accounts.google.com")
    assert providers.get("google").is_issuer("accounts.google.com")
    assert not providers.get("other").is_issuer("accounts.google.com")
    assert not providers.get("other").is_issuer("https://id.example.com")
    with pytest.raises(NotFound) as caught:
        providers.get("none")
    assert caught.value.code == "provider_not_found"


def test_settings_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"google": {"client_id": "a", "client_secret": "hunter2"}}'
    monkeypatch.setenv("COUNTERFOIL_OIDC_PROVIDERS", text)
    made = Settings.load()
    assert made.oidc_providers["google"].client_secret.reveal() == "hunter2"
    assert "hunter2" not in repr(made)
    monkeypatch.setenv("COUNTERFOIL_OIDC_PROVIDERS", text.replace('"client_id": "a",', ""))
    with pytest.raises(BadSetting) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


GOOD = {"issuer": "https://id.example.com", "client_id": "a", "client_secret": "hunter2"}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Peer", {}),
        ("peer/x", {}),
        ("p" * 41, {}),
        ("invitation", {}),
        ("enrollment", {}),
        ("peer", {"issuer": "http://id.example.com"}),
        ("peer", {"issuer": "https://id.example.com?a=b"}),
        ("peer", {"issuer": "https://id.example.com#a"}),
        ("peer", {"issuer": "https://me@id.example.com"}),
        ("peer", {"issuer": ""}),
        ("peer", {"issuer": "https://"}),
        ("peer", {"client_id": ""}),
        ("peer", {"client_secret": ""}),
        ("peer", {"label": "a\nb"}),
        ("peer", {"scopes": ["email"]}),
        ("peer", {"scopes": ["openid", "a b"]}),
        ("peer", {"secret": "x"}),
    ],
)
def test_settings_that_are_wrong(name: str, given: dict[str, Any]) -> None:
    _settings(peer=GOOD)
    with pytest.raises(BadSetting) as caught:
        _settings(**{name: {**GOOD, **given}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example.com/a?b=c", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080/x", True),
        ("http://localhost/x", True),
        ("http://localhost.example.com/x", False),
        ("http://127.0.0.1.example.com/x", False),
        ("HTTPS://id.example.com", False),
        ("https://id.example.com\\@evil.example", False),
        ("https://[::1", False),
        ("https:///x", False),
    ],
)
def test_addresses_that_secrets_go_to(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe
    assert not is_safe_url(url, loopback=False) or url.startswith("https://")
