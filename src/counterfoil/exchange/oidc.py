"""Signing in with an OpenID Connect provider: asking it who somebody is, and believing no more than it proves.

The authorization code flow (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC 7636). What a provider says about
itself (Discovery 1.0) and its keys are remembered for an hour. An ID token counts when it is signed by one of those
keys, is for us, is of this moment, and answers the very request that it came back with.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

import msgspec

from counterfoil.accounts.identities import Proof
from counterfoil.exchange.client import RailClient
from counterfoil.kernel.clock import Clock, to_seconds
from counterfoil.kernel.errors import Invalid, NotFound, Unauthorized, Unavailable
from counterfoil.kernel.secrets import same
from counterfoil.kernel.text import clean_line, normalize_email
from counterfoil.logs import get_logger
from counterfoil.rails.base import HttpRequest, HttpResponse, RailUnavailable
from counterfoil.settings import OidcProvider, is_safe_url

_SECONDS = 10.0
"""How long a provider may take for one answer, all of it."""
_LARGEST = 512 * 1024
_REMEMBERED = timedelta(hours=1)
_KEYS_AGAIN = timedelta(minutes=1)
_LEEWAY = 60
"""By how many seconds a provider's clock may be off."""
_KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""How an ID token may be signed: with a private key only, so that nobody who can check it could have made it."""
_OUR_FAULT = ("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope")
"""Refusals (RFC 6749, section 5.2) that say that our settings are wrong, and nothing about a code."""
_GOOGLE = "https://accounts.google.com"
_MOST_NAME = 200

_log = get_logger(__name__)
T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to sign in, as it must come back."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str
    """The secret of PKCE: 43 to 128 letters and digits."""


class _Endpoints(msgspec.Struct, frozen=True):
    authorization: str
    token: str
    keys: str
    secret_in_form: bool


class _Remembered(Generic[T]):
    """Something fetched and kept for a while. Whoever asks while it is being fetched waits for the same answer."""

    def __init__(self, clock: Clock, fetch: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._clock = clock
        self._fetch = fetch
        self._kept: tuple[datetime, T] | None = None
        self._task: asyncio.Task[T] | None = None

    async def get(self, no_older_than: timedelta) -> T:
        """What is known, fetched again when it is as old as this."""
        now = self._clock.now()
        if self._kept is not None and timedelta(0) <= now - self._kept[0] < no_older_than:
            return self._kept[1]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fetch_and_keep(now))
            self._task.add_done_callback(_look)
        return await asyncio.shield(self._task)

    async def _fetch_and_keep(self, now: datetime) -> T:
        value = await self._fetch()
        self._kept = (now, value)
        return value


def _look(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # where everybody who waited has gone, nobody else looks


class Provider:
    """One provider."""

    def __init__(self, name: str, settings: OidcProvider, client: RailClient, clock: Clock) -> None:
        self.name = name
        self.label = settings.label or name.capitalize()
        self._settings = settings
        self._client = client
        self._clock = clock
        self._issuers = {settings.issuer}
        if settings.issuer == _GOOGLE:  # developers.google.com/identity/openid-connect: either form may come
            self._issuers.add("accounts.google.com")
        self._endpoints = _Remembered(clock, self._discover)
        self._keys = _Remembered(clock, self._fetch_keys)

    async def authorize_url(self, request: Request) -> str:
        """Where the browser goes to prove who it is. Raises Unavailable (``provider_unavailable``)."""
        endpoints = await self._endpoints.get(_REMEMBERED)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(request.verifier.encode()).digest()).decode().rstrip("=")
        parts = urlsplit(endpoints.authorization)
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": request.redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": request.state,
            "nonce": request.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in asked]
        return urlunsplit(parts._replace(query=urlencode([*kept, *asked.items()])))

    def is_issuer(self, issuer: str) -> bool:
        """Whether an answer that names its issuer (RFC 9207) is this provider's."""
        return issuer in self._issuers

    async def redeem(self, request: Request, code: str) -> Proof:
        """What the provider proves for a code.

        Raises Unauthorized (``code_refused``, ``bad_id_token``); Unavailable (``provider_unavailable``).
        """
        endpoints = await self._endpoints.get(_REMEMBERED)
        answer = await self._send(self._token_request(endpoints, request, code))
        body = _object(answer.body) or {}
        if answer.status == 400 and body.get("error") not in _OUR_FAULT:
            _log.info("provider refused a code", provider=self.name)
            raise Unauthorized(f"{self.label} did not confirm who you are. Start again.", code="code_refused")
        if answer.status != 200:
            self._away(f"its token endpoint answered {answer.status}")
        token = body.get("id_token")
        if not isinstance(token, str):
            self._bad_token("there is none")
        claims = await self._verified(token)
        self._check_claims(claims, request.nonce)
        return self._proof(claims)

    # -- what the provider says about itself -------------------------------------------------------

    async def _discover(self) -> _Endpoints:
        url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await self._get(url)
        if document.get("issuer") != self._settings.issuer:
            self._away("its discovery document is another issuer's")
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        basic = not isinstance(methods, list) or "client_secret_basic" in methods
        return _Endpoints(
            authorization=self._endpoint(document, "authorization_endpoint"),
            token=self._endpoint(document, "token_endpoint"),
            keys=self._endpoint(document, "jwks_uri"),
            secret_in_form=not basic and "client_secret_post" in methods,
        )

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str:
        url = document.get(name)
        # A provider elsewhere has no business on this machine.
        loopback = self._settings.issuer.startswith("http://")
        if not isinstance(url, str) or not is_safe_url(url, loopback=loopback):
            self._away(f"its {name} is no https address")
        return url

    async def _fetch_keys(self) -> list[dict[str, Any]]:
        document = await self._get((await self._endpoints.get(_REMEMBERED)).keys)
        keys = document.get("keys")
        if not isinstance(keys, list):
            self._away("its keys cannot be read")
        return [key for key in keys if isinstance(key, dict)]

    async def _get(self, url: str) -> dict[str, Any]:
        answer = await self._send(HttpRequest(method="GET", url=url, headers={"Accept": "application/json"}))
        document = _object(answer.body) if answer.status == 200 else None
        if document is None:
            self._away(f"{urlsplit(url).path} answered {answer.status} without a JSON object")
        return document

    async def _send(self, request: HttpRequest) -> HttpResponse:
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._client.send(request)
        except (RailUnavailable, TimeoutError) as error:
            self._away(str(error) or "it took too long")
        if len(answer.body) > _LARGEST:
            self._away("its answer is too long")
        return answer

    def _away(self, why: str) -> NoReturn:
        _log.warning("sign-in provider cannot be used", provider=self.name, why=why)
        raise Unavailable(f"{self.label} could not be reached. Try again.", code="provider_unavailable")

    def _token_request(self, endpoints: _Endpoints, request: Request, code: str) -> HttpRequest:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.redirect_uri,
            "code_verifier": request.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        client_id, secret = self._settings.client_id, self._settings.client_secret.reveal()
        if endpoints.secret_in_form:
            form |= {"client_id": client_id, "client_secret": secret}
        else:  # RFC 6749, section 2.3.1: each part is encoded as in a form first
            pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return HttpRequest(method="POST", url=endpoints.token, headers=headers, body=urlencode(form).encode())

    # -- what it says about somebody ---------------------------------------------------------------

    async def _verified(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature is good."""
        from jwt import PyJWK, PyJWS, PyJWTError  # noqa: PLC0415 # on first use: a start does not need it

        jws = PyJWS(algorithms=list(_KEY_TYPES), options={"verify_signature": True, "enforce_minimum_key_length": True})
        try:
            header = jws.get_unverified_header(token)
        except (PyJWTError, ValueError):
            self._bad_token("it cannot be read")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in _KEY_TYPES:
            self._bad_token("it is signed in a way that proves nothing")
        key = await self._key(algorithm, header.get("kid"))
        try:
            payload = jws.decode(token, PyJWK(key, algorithm), algorithms=[algorithm])
        except (PyJWTError, ValueError, TypeError, KeyError):
            self._bad_token("its signature is not good")
        claims = _object(payload)
        if claims is None:
            self._bad_token("it holds no claims")
        return claims

    async def _key(self, algorithm: str, key_id: str | None) -> dict[str, Any]:
        """The one key that can have signed a token. Keys unknown so far are asked for once a minute at most."""
        found: list[dict[str, Any]] = []
        for age in (_REMEMBERED, _KEYS_AGAIN):
            if len(found) != 1:
                found = [key for key in await self._keys.get(age) if _fits(key, algorithm, key_id)]
        if len(found) != 1:
            self._bad_token("the key it names is not among the provider's")
        return found[0]

    def _check_claims(self, claims: Mapping[str, Any], nonce: str) -> None:
        """OpenID Connect Core 1.0, section 3.1.3.7, by our own clock."""
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or not self.is_issuer(issuer):
            self._bad_token("another issuer made it")
        us = self._settings.client_id
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if us not in audiences:
            self._bad_token("it is for somebody else")
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != us:
            self._bad_token("somebody else asked for it")
        now = to_seconds(self._clock.now())
        expires, issued, starts = _time(claims.get("exp")), _time(claims.get("iat")), _time(claims.get("nbf", 0))
        if expires is None or issued is None or starts is None:
            self._bad_token("it does not say when it counts")
        if now >= expires + _LEEWAY:
            self._bad_token("it has expired")
        if max(issued, starts) > now + _LEEWAY:
            self._bad_token("it is from the future")
        answered = claims.get("nonce")
        if not isinstance(answered, str) or not same(answered, nonce):
            self._bad_token("it answers another request")

    def _proof(self, claims: Mapping[str, Any]) -> Proof:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject.isprintable() or not 1 <= len(subject) <= 255:
            self._bad_token("it names nobody")
        given, family = _name(claims, "given_name"), _name(claims, "family_name")
        return Proof(
            provider=self.name,
            subject=subject,
            email=_verified_email(claims),
            first_name=given or ("" if family else _name(claims, "name")),
            last_name=family,
        )

    def _bad_token(self, why: str) -> NoReturn:
        _log.warning("provider sent a bad ID token", provider=self.name, why=why)
        raise Unauthorized("The provider's answer proves nothing. Start again.", code="bad_id_token")


class Providers:
    """Every provider that can be used."""

    def __init__(self, settings: Mapping[str, OidcProvider], client: RailClient, clock: Clock) -> None:
        self._by_name = {name: Provider(name, one, client, clock) for name, one in settings.items()}

    def get(self, name: str) -> Provider:
        """Raises NotFound (``provider_not_found``)."""
        provider = self._by_name.get(name)
        if provider is None:
            raise NotFound("One cannot sign in with that here.", code="provider_not_found")
        return provider

    def names(self) -> list[tuple[str, str]]:
        """Each one's name and what people know it by, in the order of the settings."""
        return [(name, provider.label) for name, provider in self._by_name.items()]


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _fits(key: Mapping[str, Any], algorithm: str, key_id: str | None) -> bool:
    return (
        key.get("kty") == _KEY_TYPES[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (key_id is None or key.get("kid") == key_id)
        and "d" not in key  # a private key that is published proves nothing
    )


def _time(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _verified_email(claims: Mapping[str, Any]) -> str | None:
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):  # "true" is a text, not a promise
        return None
    try:
        return normalize_email("email", email)
    except Invalid:
        return None


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    return clean_line(value, most=_MOST_NAME) if isinstance(value, str) else ""
