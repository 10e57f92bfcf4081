"""Connecting an account: a pasted key is looked at, tried, and given a webhook endpoint of ours.

Sources: specification 2026-08-26.dahlia, ``GetAccount``, ``GetBalance``, ``GetWebhookEndpoints``,
``PostWebhookEndpoints`` and ``DeleteWebhookEndpointsWebhookEndpoint``; Stripe's page "API keys" (prefixes).

A person waits for the answers, so the readers raise RailRefused for a refused key (401, 403), too.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from counterfoil.kernel.errors import Invalid
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.stripe.settings import StripeSettings
from counterfoil.rails.stripe.webhooks import TYPES
from counterfoil.rails.stripe.wire import (
    OURS,
    PAGE,
    REFUSALS,
    Object,
    call,
    check,
    child,
    metadata,
    need,
    read,
    read_page,
    text,
    words,
)

_KEY: Final = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{1,240}")
_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/=_-]{1,240}")
_MARK: Final = "webhook"
_FORBIDDEN: Final = 403
_GONE: Final = 404


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the key belongs to."""

    id: str
    name: str | None
    country: str | None
    currency: str | None
    """Its own currency, in capitals."""
    charges_enabled: bool
    """Whether it may take money yet."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook endpoint of ours at Stripe."""

    id: str
    url: str
    enabled: bool
    api_version: str | None
    types: tuple[str, ...]
    secret: str | None = None
    """Told once, when it is made."""


def check_key(rail: str, api_key: str) -> bool:
    """Whether the key moves real money.

    Raises Invalid (field ``api_key``) for anything but a secret or restricted key, and for one of the other mode:
    the rail ``stripe-test`` takes test keys, every other live ones.
    """
    found = _KEY.fullmatch(api_key)
    if found is None:
        raise Invalid.field("api_key", "This is no secret key of Stripe: they start with sk_ or rk_.")
    live, wants_live = found[2] == "live", not rail.endswith("-test")
    if live != wants_live:
        is_, wants = ("live", "test") if live else ("test", "live")
        raise Invalid.field("api_key", f"This is a {is_} key; {rail} takes {wants} keys.")
    return live


def check_secret(secret: str) -> str:
    """A webhook's signing secret that a seller pastes. Raises Invalid (field ``webhook_secret``)."""
    if not _SECRET.fullmatch(secret):
        raise Invalid.field("webhook_secret", "This is no signing secret of Stripe: they start with whsec_.")
    return secret


def account_request(settings: StripeSettings) -> HttpRequest:
    """``GET /v1/account``."""
    return call(settings, "GET", "account")


def read_account(response: HttpResponse) -> Account | None:
    """The account; None when the key, being restricted, may not read it: then :func:`balance_request` tells."""
    if response.status == _FORBIDDEN:
        return None
    account = _read(response)
    return Account(
        id=need(account, "id"),
        name=text(child(account, "settings", "dashboard"), "display_name"),
        country=text(account, "country"),
        currency=(text(account, "default_currency") or "").upper() or None,
        charges_enabled=account.get("charges_enabled") is True,
    )


def balance_request(settings: StripeSettings) -> HttpRequest:
    """``GET /v1/balance``: what even a narrow key may read, and what says in which mode it is."""
    return call(settings, "GET", "balance")


def read_balance(response: HttpResponse) -> bool:
    """Whether the key moves real money, by Stripe's own word."""
    livemode = _read(response).get("livemode")
    if not isinstance(livemode, bool):
        raise RailUnavailable("Stripe does not say whether the key is a live one")
    return livemode


def create_webhook_request(settings: StripeSettings, url: str, key: str) -> HttpRequest:
    """``POST /v1/webhook_endpoints`` for all types that we know, in our version's shapes; ``key``: for this attempt.

    With the same key, Stripe gives the same answer for 24 hours, the secret included.
    """
    form = {
        "url": url,
        "enabled_events": sorted(TYPES),
        "api_version": settings.api_version,
        "description": "Counterfoil",
        "metadata": {OURS: _MARK},
    }
    return call(settings, "POST", "webhook_endpoints", form=form, key=key)


def read_webhook_created(response: HttpResponse) -> Endpoint:
    """The new endpoint, with its secret, which Stripe never tells again."""
    made = _read(response)
    need(made, "secret")
    return _endpoint(made)


def webhooks_request(settings: StripeSettings) -> HttpRequest:
    """``GET /v1/webhook_endpoints``. An account has at most 16, so one page has them all."""
    return call(settings, "GET", "webhook_endpoints", query={"limit": PAGE})


def read_webhooks(response: HttpResponse) -> tuple[Endpoint, ...]:
    """Those that we made, newest first."""
    _check(response)
    found, _ = read_page(response)
    return tuple(_endpoint(endpoint) for endpoint in found if metadata(endpoint).get(OURS) == _MARK)


def delete_webhook_request(settings: StripeSettings, webhook_id: str) -> HttpRequest:
    """``DELETE /v1/webhook_endpoints/{id}``."""
    return call(settings, "DELETE", "webhook_endpoints", webhook_id)


def read_webhook_deleted(response: HttpResponse) -> None:
    """Nothing to read; 404 is fine too, since it is gone either way."""
    if response.status != _GONE:
        _check(response)


def _read(response: HttpResponse) -> Object:
    _check(response)
    return read(response)


def _check(response: HttpResponse) -> None:
    if response.status in {401, 403}:
        raise RailRefused(f"the key was refused: {words(response)}")
    check(response, REFUSALS)


def _endpoint(data: Object) -> Endpoint:
    types = data.get("enabled_events")
    return Endpoint(
        id=need(data, "id"),
        url=need(data, "url"),
        enabled=text(data, "status") == "enabled",
        api_version=text(data, "api_version"),
        types=tuple(name for name in types if isinstance(name, str)) if isinstance(types, list) else (),
        secret=text(data, "secret"),
    )
