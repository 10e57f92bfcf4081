"""Connecting a BTCPay store: by a pasted key, or by the authorize flow in the seller's browser.

Checking a connection and ending it are for every rail.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from counterfoil.accounts import one_time_tokens
from counterfoil.db.base import Scope
from counterfoil.exchange import connect_mirrors, outbox, rail_settings
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.connect_mirrors import Checked
from counterfoil.exchange.rails import Rails
from counterfoil.kernel.errors import Invalid, RailFailed, Unauthorized, Unavailable
from counterfoil.kernel.secrets import MasterKey, new_secret
from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.rails.btcpay import BTCPaySettings, connect, normalize_base_url

_PURPOSE = "connect:btcpay"
_STATE_LASTS = timedelta(minutes=30)
APP_NAME = "Counterfoil"
APP_IDENTIFIER = "counterfoil"


class Connected(msgspec.Struct, frozen=True):
    """A store that is connected."""

    rail: str
    base_url: str
    store_id: str
    store_name: str
    payment_methods: list[str]


async def authorize_url(scope: Scope, base_url: str, callback_url: str) -> str:
    """Where the seller's browser goes to grant access; good for half an hour, once. Raises Invalid."""
    base = normalize_base_url(base_url)
    state = new_secret(20)
    details = {"base_url": base}
    await scope.run(one_time_tokens.create, _PURPOSE, state, lasts=_STATE_LASTS, details=details)
    return connect.authorize_url(base, f"{callback_url}?state={state}", APP_NAME, APP_IDENTIFIER)


async def finish_authorize(scope: Scope, state: str, form: Mapping[str, list[str]]) -> tuple[str, str]:
    """BTCPay's address and the key it handed over, for :func:`connect_btcpay`.

    Raises Unauthorized (``bad_state``) for a state that is unknown, used or too old; RailFailed.
    """
    details = await scope.run(one_time_tokens.spend, _PURPOSE, state)
    if details is None:
        raise Unauthorized("This link was used before or is too old; start again.", code="bad_state")
    try:
        return details["base_url"], connect.read_authorize_callback(form)
    except RailRefused as error:
        raise RailFailed(str(error)) from error


async def connect_btcpay(
    scope: Scope,
    rails: Rails,
    client: RailClient,
    master: MasterKey,
    *,
    base_url: str,
    api_key: str,
    store_id: str | None,
    webhook_url: str,
) -> Connected:
    """Check the key, pick the store, register our webhook there, and keep it all sealed.

    Raises Invalid (missing permissions are named), RailFailed, Unavailable.
    """
    base = normalize_base_url(base_url)
    try:
        granted = connect.read_current_key(await client.send(connect.current_key_request(base, api_key)))
        stores = connect.read_stores(await client.send(connect.stores_request(base, api_key)))
        store = next((one for one in stores if store_id in {None, one.id}), None)
        if store is None:
            raise Invalid.field("store_id", "this key reaches no such store", code="store_not_found")
        missing = connect.missing_permissions(granted, store.id)
        if missing:
            raise Invalid.field("api_key", f"lacks {', '.join(missing)}", code="missing_permissions")
        methods = connect.read_payment_methods(
            await client.send(connect.payment_methods_request(base, api_key, store.id))
        )
        secret = new_secret(40)
        request = connect.create_webhook_request(base, api_key, store.id, webhook_url, secret)
        webhook_id = connect.read_webhook_created(await client.send(request))
    except RailRefused as error:
        raise RailFailed(f"BTCPay: {error}") from error
    except RailUnavailable as error:
        raise Unavailable(f"BTCPay did not answer: {error}", code="rail_unavailable") from error
    settings = BTCPaySettings(
        base_url=base, store_id=store.id, api_key=api_key, webhook_id=webhook_id, webhook_secret=secret
    )
    names = [method.payment_method_id for method in methods]
    public = {"base_url": base, "store_id": store.id, "store_name": store.name, "payment_methods": names}
    await scope.run(rail_settings.save, master, "btcpay", settings, public)
    rails.forget(scope.tenant, "btcpay")
    return Connected("btcpay", base, store.id, store.name, names)


async def check(rails: Rails, client: RailClient, tenant: str, name: str, webhook_url: str) -> Checked:
    """Whether a connected rail answers, and its key may do what it has to. Raises NotFound."""
    connection = await rails.get(tenant, name, fresh=True)
    if name in outbox.MIRRORED:
        return await connect_mirrors.check(client, connection, webhook_url)
    settings = connection.settings
    if not isinstance(settings, BTCPaySettings):
        return Checked(name, True, None, [])  # it is ourselves
    problems = []
    try:
        request = connect.current_key_request(settings.base_url, settings.api_key)
        granted = connect.read_current_key(await client.send(request))
        problems = [f"the key lacks {one}" for one in connect.missing_permissions(granted, settings.store_id)]
    except (RailRefused, RailUnavailable) as error:
        problems.append(str(error))
    return Checked(name, not problems, settings.store_id, problems)


async def disconnect(scope: Scope, rails: Rails, client: RailClient, name: str) -> list[str]:
    """Forget a rail, and take our webhook back there if it can be reached; what could not be done there.

    Raises NotFound when it is not connected.
    """
    connection = await rails.get(scope.tenant, name, fresh=True)
    left: list[str] = []
    settings = connection.settings
    if name in outbox.MIRRORED:
        left = await connect_mirrors.take_webhook_back(client, connection)
    if isinstance(settings, BTCPaySettings) and settings.webhook_id is not None:
        request = connect.delete_webhook_request(
            settings.base_url, settings.api_key, settings.store_id, settings.webhook_id
        )
        try:
            connect.read_webhook_deleted(await client.send(request))
        except (RailRefused, RailUnavailable) as error:
            left.append(f"the webhook {settings.webhook_id} is still at BTCPay: {error}")
    await scope.run(rail_settings.disconnect, name)
    rails.forget(scope.tenant, name)
    return left
