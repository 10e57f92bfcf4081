"""Connecting a store: by a pasted API key, or by the authorize flow, in which BTCPay hands one over.

Both end the same way: read what the key may do, pick a store, look at its payment methods, register a
webhook. Sources: the Greenfield specification 2.4.1, operations ``ApiKeys_Authorize``,
``ApiKeys_GetCurrentApiKey``, ``Stores_GetStores``, ``StorePaymentMethods_GetStorePaymentMethods``,
``Webhooks_CreateWebhook`` and ``Webhooks_DeleteWebhook``.

The readers raise RailRefused for 400, 401, 403, 404 and 422 with BTCPay's words, and RailUnavailable for
anything else but a readable success.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused
from counterfoil.rails.btcpay.wire import address, call, check, read

PERMISSIONS: Final = (
    "btcpay.store.canviewstoresettings",
    "btcpay.store.cancreateinvoice",
    "btcpay.store.canviewinvoices",
    "btcpay.store.canmodifyinvoices",
    "btcpay.store.webhooks.canmodifywebhooks",
)
"""All that the rail needs, and all it asks for."""

EVENTS: Final = (
    "InvoiceReceivedPayment",
    "InvoicePaymentSettled",
    "InvoiceProcessing",
    "InvoiceSettled",
    "InvoiceExpired",
    "InvoiceInvalid",
)
"""Whatever can change a report. InvoiceCreated cannot: we created it."""

# Which permissions BTCPay grants along with others (GET /misc/permissions), as far as PERMISSIONS go.
_INCLUDED: Final = {
    "unrestricted": frozenset(PERMISSIONS),
    "btcpay.store.canmodifystoresettings": frozenset(PERMISSIONS),
    "btcpay.store.canmodifyinvoices": frozenset({"btcpay.store.canviewinvoices", "btcpay.store.cancreateinvoice"}),
    "btcpay.store.canviewstoresettings": frozenset({"btcpay.store.canviewinvoices"}),
}


class Store(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A store that the key can see (schema ``StoreData``)."""

    id: str
    name: str
    default_currency: str | None = None


class StoreMethod(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A way to pay that the store has set up: ``BTC-CHAIN``, ``BTC-LN``, ``BTC-LNURL`` ..."""

    payment_method_id: str
    enabled: bool = True


class _Key(msgspec.Struct):
    permissions: list[str]


class _Webhook(msgspec.Struct):
    id: str


def authorize_url(base_url: str, redirect_url_with_state: str, app_name: str, app_identifier: str) -> str:
    """Where to send the seller's browser (``GET /api-keys/authorize``).

    The state against forged callbacks must be inside ``redirect_url_with_state``: BTCPay carries nothing
    else back. Permissions are strict (all or none) and limited to the stores the seller selects.
    """
    query = [
        *(("permissions", permission) for permission in PERMISSIONS),
        ("applicationName", app_name),
        ("applicationIdentifier", app_identifier),
        ("strict", "true"),
        ("selectiveStores", "true"),
        ("redirect", redirect_url_with_state),
    ]
    return address(base_url, "api-keys", "authorize", query=query)


def read_authorize_callback(form: Mapping[str, list[str]]) -> str:
    """The API key in the form that the seller's browser posts back. Raises RailRefused when there is none.

    BTCPay renders a form with ``apiKey``, ``userId`` and ``permissions[]`` that submits itself (its
    specification speaks of JSON). The permissions in it are not read: the browser could have changed
    them, so ask :func:`current_key_request`.
    """
    keys = {key.strip() for key in form.get("apiKey", ())} - {""}
    if len(keys) != 1:
        raise RailRefused("BTCPay handed over no API key")
    return keys.pop()


def current_key_request(base_url: str, api_key: str) -> HttpRequest:
    """``GET /api-keys/current``: what the key may do."""
    return call(base_url, api_key, "GET", "api-keys", "current")


def read_current_key(response: HttpResponse) -> tuple[str, ...]:
    """The key's permissions, each possibly scoped to one store (``permission:storeId``)."""
    return tuple(read(response, _Key).permissions)


def missing_permissions(granted: Iterable[str], store_id: str) -> tuple[str, ...]:
    """The names in :data:`PERMISSIONS` that a key with ``granted`` lacks for this store."""
    held: set[str] = set()
    for permission in granted:
        name, _, scope = permission.partition(":")
        if scope in {"", store_id}:
            held |= {name} | _INCLUDED.get(name, frozenset())
    return tuple(permission for permission in PERMISSIONS if permission not in held)


def stores_request(base_url: str, api_key: str) -> HttpRequest:
    """``GET /stores``: which stores the key reaches."""
    return call(base_url, api_key, "GET", "stores")


def read_stores(response: HttpResponse) -> tuple[Store, ...]:
    """The stores, in BTCPay's order."""
    return tuple(read(response, list[Store]))


def payment_methods_request(base_url: str, api_key: str, store_id: str) -> HttpRequest:
    """``GET /stores/{storeId}/payment-methods?onlyEnabled=true``: how the store can be paid."""
    path = ("stores", store_id, "payment-methods")
    return call(base_url, api_key, "GET", *path, query=[("onlyEnabled", "true")])


def read_payment_methods(response: HttpResponse) -> tuple[StoreMethod, ...]:
    """The store's payment methods that are switched on; none means that buyers cannot pay."""
    return tuple(method for method in read(response, list[StoreMethod]) if method.enabled)


def create_webhook_request(base_url: str, api_key: str, store_id: str, url: str, secret: str) -> HttpRequest:
    """``POST /stores/{storeId}/webhooks`` for :data:`EVENTS`, redelivered automatically, signed with ``secret``."""
    body = {
        "url": url,
        "secret": secret,
        "enabled": True,
        "automaticRedelivery": True,
        "authorizedEvents": {"everything": False, "specificEvents": EVENTS},
    }
    return call(base_url, api_key, "POST", "stores", store_id, "webhooks", body=body)


def read_webhook_created(response: HttpResponse) -> str:
    """The new webhook's id."""
    return read(response, _Webhook).id


def delete_webhook_request(base_url: str, api_key: str, store_id: str, webhook_id: str) -> HttpRequest:
    """``DELETE /stores/{storeId}/webhooks/{webhookId}``."""
    return call(base_url, api_key, "DELETE", "stores", store_id, "webhooks", webhook_id)


def read_webhook_deleted(response: HttpResponse) -> None:
    """Nothing to read; 404 is fine too, since it is gone either way."""
    if response.status != 404:
        check(response)
