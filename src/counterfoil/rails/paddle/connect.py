"""Connecting an account: look at the key, ask with it, and have Paddle send its webhooks to us.

Sources: Paddle's OpenAPI specification of 2025-05-27, operations ``list-event-types``,
``create-notification-setting``, ``list-notification-settings`` and ``delete-notification-setting``; its page about
API keys.

The readers raise RailRefused with words for the seller, RailBusy, and RailUnavailable for anything else but a
readable success.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from counterfoil.kernel.errors import Invalid
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.webhooks import EVENTS
from counterfoil.rails.paddle.wire import call, check, failure, read, read_page, shape

_PREFIXES: Final = {"pdl_live_apikey_": True, "pdl_sdbx_apikey_": False}
_LONGEST_DESCRIPTION: Final = 500


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where Paddle sends webhooks (schema ``notification_setting``). No representation of it shows the secret."""

    id: str
    url: str
    active: bool
    secret: str

    def __repr__(self) -> str:
        return f"Destination(id={self.id!r}, url={self.url!r}, active={self.active!r}, secret=...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich."""
        return [("id", self.id), ("url", self.url), ("active", self.active)]


class _Setting(msgspec.Struct):
    id: str
    destination: str
    type: str
    endpoint_secret_key: str
    active: bool = True


def check_key(api_key: str, *, livemode: bool) -> None:
    """Whether a key is of this mode. Older keys have no prefix that tells, and are taken for it.

    Raises Invalid (field ``api_key``).
    """
    if not 0 < len(api_key) <= 200 or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise Invalid.field("api_key", "This is not an API key of Paddle's.")
    found = next((mode for prefix, mode in _PREFIXES.items() if api_key.startswith(prefix)), livemode)
    if found != livemode:
        is_of, wanted = ("a live account", "a sandbox") if found else ("a sandbox", "a live account")
        raise Invalid.field("api_key", f"This key is of {is_of}; here the key of {wanted} is needed.")


def connection_request(settings: PaddleSettings) -> HttpRequest:
    """``GET /event-types``, which every key may ask for."""
    return call(settings, "GET", "event-types")


def read_connection(response: HttpResponse) -> None:
    """Whether the key works. Raises RailRefused when Paddle does not take it."""
    _check_key_works(response)
    read_page(response)


def destinations_request(settings: PaddleSettings) -> HttpRequest:
    """``GET /notification-settings``: all of them."""
    return call(settings, "GET", "notification-settings", query=[("per_page", "200")])


def read_destinations(response: HttpResponse, url: str) -> tuple[Destination, ...]:
    """Those that are ours: that send to ``url``."""
    _check_key_works(response)
    settings = [shape(_Setting, data) for data in read_page(response)[0]]
    return tuple(_destination(setting) for setting in settings if setting.type == "url" and setting.destination == url)


def create_destination_request(settings: PaddleSettings, url: str, description: str) -> HttpRequest:
    """``POST /notification-settings`` for :data:`~counterfoil.rails.paddle.webhooks.EVENTS`.

    Only what really happens is sent: Paddle's simulator could otherwise settle checkouts.
    """
    body = {
        "type": "url",
        "destination": url,
        "description": description[:_LONGEST_DESCRIPTION],
        "subscribed_events": EVENTS,
        "api_version": 1,
        "include_sensitive_fields": False,
        "traffic_source": "platform",
    }
    return call(settings, "POST", "notification-settings", body=body)


def read_destination(response: HttpResponse) -> Destination:
    """The destination that was made, with the secret that signs what it gets."""
    _check_key_works(response)
    return _destination(shape(_Setting, read(response)))


def delete_destination_request(settings: PaddleSettings, setting_id: str) -> HttpRequest:
    """``DELETE /notification-settings/{id}``."""
    return call(settings, "DELETE", "notification-settings", setting_id)


def read_destination_deleted(response: HttpResponse) -> None:
    """Nothing to read; 404 is fine too, since it is gone either way."""
    if response.status != 404:
        check(response)


def _check_key_works(response: HttpResponse) -> None:
    if response.status in {401, 403}:
        said = failure(response)
        words = said.words if said is not None else f"Paddle answered {response.status}"
        raise RailRefused(f"Paddle does not take this key for it: {words}")


def _destination(setting: _Setting) -> Destination:
    return Destination(
        id=setting.id, url=setting.destination, active=setting.active, secret=setting.endpoint_secret_key
    )
