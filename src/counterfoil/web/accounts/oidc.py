"""Signing in with OpenID Connect providers, and linking them to an account."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ControllerRouterHandler

from counterfoil.accounts import identities, one_time_tokens
from counterfoil.accounts.access import Identity
from counterfoil.accounts.identities import Proof, ProofNotEnough
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.exchange.oidc import Provider, Request
from counterfoil.house import House
from counterfoil.http.access import (
    Asker,
    address_of,
    find_identity,
    house_of,
    public_scope,
    scope_of,
    source_of,
    tenant_of,
    user_agent_of,
    user_of,
)
from counterfoil.http.signing_in import Proved, safe_next, sign_in_by
from counterfoil.http.throttle import check_sign_ins
from counterfoil.kernel.errors import Conflict, CounterfoilError, Forbidden, TooManyRequests, Unauthorized, Unavailable
from counterfoil.kernel.paging import MAX_LIMIT, decode_cursor
from counterfoil.kernel.secrets import fingerprint, new_secret, same
from counterfoil.web.accounts.parts import OPEN, OWN, account_page
from counterfoil.web.forms import read_form
from counterfoil.web.render import proper_address, root_of, see_other

_LASTS = timedelta(minutes=10)
_TOKEN_BYTES = 20
_TOKEN = re.compile(r"[a-z2-7]{32}")
_MOST_CODE = 4096
_TRIES = 3
_FASTER = {"email_taken", "identity_taken"}
"""What an operation says when the same person came in another way at the same moment: the second look finds them."""


class _Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What we remember of somebody while they are at a provider."""

    nonce: str
    verifier: str
    """Sealed, in base 64."""
    browser: str
    """The hash of what is in the cookie of the browser that set out."""
    next: str
    link_to: str | None
    """The user who links the provider; None for signing in."""


def providers(house: House) -> list[tuple[str, str]]:
    """The providers to sign in with, each with its name and label; ``/sign-in/with/{name}?next=...`` leads there."""
    return house.oidc.names()


# -- to the provider ----------------------------------------------------------------------------------


@get("/sign-in/with/{provider:str}", **OPEN)
async def sign_in_with(
    request: Asker, provider: FromPath[str], wanted: Annotated[str | None, QueryParameter(name="next")] = None
) -> Response[Any]:
    """Send the browser to a provider. Nothing changes until it comes back."""
    if (home := proper_address(request)) is not None:  # it comes back to that one, and needs its cookie there
        return see_other(home)
    return await _explained(request, provider, _set_out(request, provider, _next(request, wanted), None))


def _next(request: Asker, wanted: str | None) -> str:
    return safe_next(wanted, f"{root_of(request)}/account")


async def _set_out(request: Asker, name: str, after: str, link_to: str | None) -> Response[Any]:
    house, scope = house_of(request), await public_scope(request)
    check_sign_ins(request, scope.tenant)
    provider = house.oidc.get(name)
    asked = Request(
        redirect_uri=await _callback_url(house, scope.tenant, name),
        state=new_secret(_TOKEN_BYTES),
        nonce=new_secret(_TOKEN_BYTES),
        verifier=new_secret(40),
    )
    url = await provider.authorize_url(asked)
    browser = _browser_of(request) or new_secret(_TOKEN_BYTES)
    sealed = house.master.seal(asked.verifier.encode(), _sealed_for(scope.tenant, asked.state))
    attempt = _Attempt(
        nonce=asked.nonce,
        verifier=base64.b64encode(sealed).decode(),
        browser=fingerprint(browser),
        next=after,
        link_to=link_to,
    )
    details: dict[str, Any] = msgspec.to_builtins(attempt)
    await scope.run(one_time_tokens.create, f"oidc:{name}", asked.state, lasts=_LASTS, details=details)
    return see_other(url, [_browser_cookie(house, browser)])


async def _callback_url(house: House, tenant: str, name: str) -> str:
    return f"{await house.base_url(tenant)}/sign-in/with/{name}/callback"


def _sealed_for(tenant: str, state: str) -> str:
    return f"oidc_verifier/{tenant}/{fingerprint(state)}"


# A link that signs in must work in the browser that asked for it only: else a stranger could sign somebody into
# the stranger's own account, and wait for what they leave there.


def _browser_cookie_name(house: House) -> str:
    return "__Host-cf_provider" if house.settings.base_url.startswith("https://") else "cf_provider"


def _browser_of(request: Asker) -> str | None:
    value = request.cookies.get(_browser_cookie_name(house_of(request)), "")
    return value if _TOKEN.fullmatch(value) else None


def _browser_cookie(house: House, value: str) -> Cookie:
    return Cookie(
        key=_browser_cookie_name(house),
        value=value,
        max_age=int(_LASTS.total_seconds()),
        path="/",
        httponly=True,
        secure=house.settings.base_url.startswith("https://"),
        samesite="lax",
    )


# -- and back -----------------------------------------------------------------------------------------


@get("/sign-in/with/{provider:str}/callback", **OPEN)
async def come_back(
    request: Asker,
    provider: FromPath[str],
    given_state: Annotated[str | None, QueryParameter(name="state")] = None,
    code: FromQuery[str | None] = None,
    error: FromQuery[str | None] = None,
    iss: FromQuery[str | None] = None,
) -> Response[Any]:
    """Where a provider sends the browser back to."""
    answer = {"state": given_state or "", "code": code or "", "error": error or "", "iss": iss or ""}
    return await _explained(request, provider, _arrive(request, provider, answer))


async def _arrive(request: Asker, name: str, answer: Mapping[str, str]) -> Response[Any]:
    house, scope = house_of(request), await public_scope(request)
    check_sign_ins(request, scope.tenant)
    provider = house.oidc.get(name)
    state, browser = answer["state"], _browser_of(request)
    if not _TOKEN.fullmatch(state):
        raise _bad_state()
    details = await scope.run(one_time_tokens.spend, f"oidc:{name}", state)
    if details is None:
        raise _bad_state()
    attempt = msgspec.convert(details, _Attempt)
    if browser is None or not same(fingerprint(browser), attempt.browser):
        raise _bad_state()
    _check_answer(provider, answer)
    verifier = house.master.open(base64.b64decode(attempt.verifier), _sealed_for(scope.tenant, state))
    asked = Request(
        redirect_uri=await _callback_url(house, scope.tenant, name),
        state=state,
        nonce=attempt.nonce,
        verifier=verifier.decode(),
    )
    proof = await provider.redeem(asked, answer["code"])
    if attempt.link_to is not None:
        return await _link(request, attempt.link_to, proof, attempt.next)
    return await _enter(request, provider, proof, attempt.next)


def _bad_state() -> Unauthorized:
    return Unauthorized(
        "This way in was used before, is older than ten minutes, or began in another browser. Start again.",
        code="bad_state",
    )


def _check_answer(provider: Provider, answer: Mapping[str, str]) -> None:
    """Raises Unauthorized, Forbidden, Unavailable."""
    if answer["iss"] and not provider.is_issuer(answer["iss"]):
        raise Unauthorized("Another provider answered. Start again.", code="wrong_provider")
    match answer["error"]:
        case "":
            pass
        case "temporarily_unavailable" | "server_error":
            raise Unavailable(f"{provider.label} could not do it now. Try again.", code="provider_unavailable")
        case "access_denied":
            raise Forbidden(f"You did not let {provider.label} tell us who you are.", code="access_denied")
        case _:
            raise Forbidden(f"{provider.label} refused.", code="provider_refused")
    if not (1 <= len(answer["code"]) <= _MOST_CODE and answer["code"].isprintable()):
        raise Unauthorized("The provider's answer holds no code. Start again.", code="code_refused")


async def _enter(request: Asker, provider: Provider, proof: Proof, after: str) -> Response[Any]:
    actor = (await public_scope(request)).actor
    signed_in = await _signed_in(request)

    def prove(tx: Tx) -> Proved[None]:
        return Proved(identities.enter(tx, proof, signed_in.id if signed_in else None).id)

    for left in reversed(range(_TRIES)):
        try:
            _, cookies = await sign_in_by(request, actor, "oidc", prove)
        except ProofNotEnough as error:
            return await account_page(
                request, "link_first.html", status=error.status, provider=provider.name, label=provider.label,
                email=proof.email, code=error.code, signed_in=signed_in is not None,
            )  # fmt: skip
        except Conflict as error:
            if error.code not in _FASTER or not left:
                raise
        else:
            return see_other(after, cookies)
    raise AssertionError("the last try returns or raises")


async def _signed_in(request: Asker) -> Identity | None:
    """The person whose browser it is, if they are signed in."""
    try:
        identity = await find_identity(request)
    except Unauthorized:  # an API key that is no good has no bearing on this
        return None
    return identity if identity is not None and identity.session_id is not None else None


async def _link(request: Asker, user_id: str, proof: Proof, after: str) -> Response[Any]:
    signed_in = await _signed_in(request)
    if signed_in is None or signed_in.id != user_id:
        raise Forbidden("You were signed out meanwhile. Sign in, then connect it again.", code="not_signed_in")
    actor = Actor("user", user_id, address_of(request), user_agent_of(request), source_of(request))
    await house_of(request).scope(await tenant_of(request), actor).run(identities.link, user_id, proof)
    return see_other(after)


async def _explained(request: Asker, name: str, work: Awaitable[Response[Any]]) -> Response[Any]:
    """The answer, or the page that says why there is none."""
    try:
        return await work
    except CounterfoilError as error:
        known = dict(providers(house_of(request)))
        answer = await account_page(
            request, "provider_failed.html", status=error.status, detail=error.detail, code=error.code,
            provider=name if name in known else None, label=known.get(name, ""),
        )  # fmt: skip
        if isinstance(error, TooManyRequests):
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer


# -- what is linked -----------------------------------------------------------------------------------


@get("/account/providers", **OWN)
async def linked(request: Asker, after: FromQuery[str | None] = None) -> Response[Any]:
    """The providers that open the account of whoever asks."""
    if (home := proper_address(request)) is not None:
        return see_other(home)
    return await _linked_page(request, str(decode_cursor(after, (str,))[0]) if after else "")


async def _linked_page(request: Asker, after: str = "", error: CounterfoilError | None = None) -> Response[Any]:
    house, user = house_of(request), user_of(request)
    shown = await scope_of(request).read(identities.list_, user.id, after=after, limit=MAX_LIMIT)
    labels = dict(providers(house))
    rows = [
        {"id": one.id, "label": labels.get(one.provider, one.provider), "email": one.email, "since": one.created_at}
        for one in shown.data
    ]
    return await account_page(
        request, "providers.html", status=error.status if error else 200, form_action=_form_action(house),
        errors={"form": error.detail} if error else None, rows=rows, next=shown.next, providers=providers(house),
    )  # fmt: skip


def _form_action(house: House) -> str:
    """Where connecting leads: to a provider and from there wherever it asks people who they are."""
    plain = {
        f"http://{urlsplit(one.issuer).netloc}"
        for one in house.settings.oidc_providers.values()
        if one.issuer.startswith("http://")
    }
    return " ".join(["'self'", "https:", *sorted(plain)])


@post("/account/providers/{provider:str}/connect", status_code=303, **OWN)
async def connect(request: Asker, provider: FromPath[str]) -> Response[Any]:
    """Send the browser to a provider, to link it to the account of whoever asks."""
    user = user_of(request)
    await read_form(request)
    after = f"{root_of(request)}/account/providers"
    return await _explained(request, provider, _set_out(request, provider, after, user.id))


@post("/account/providers/{identity_id:str}/remove", status_code=303, **OWN)
async def disconnect(request: Asker, identity_id: FromPath[str]) -> Response[Any]:
    """Let a provider open the account no longer."""
    user, house = user_of(request), house_of(request)
    await read_form(request)
    usable = {name for name, _ in providers(house)}
    try:
        await scope_of(request).run(identities.unlink, user.id, identity_id, providers=usable)
    except Conflict as error:
        return await _linked_page(request, error=error)
    return see_other(f"{root_of(request)}/account/providers")


HANDLERS: list[ControllerRouterHandler] = [sign_in_with, come_back, linked, connect, disconnect]
