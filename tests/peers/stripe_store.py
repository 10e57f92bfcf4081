"""What our part of the Stripe peer keeps for one account, and how it reaches the world's part.

Part of the Stripe peer (stripe_world.py says how it runs).
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any

from seahaven_stripe_world.dispatch import dispatch
from seahaven_stripe_world.resources import events
from seahaven_stripe_world.stripe_errors import StripeApiError, invalid_request, resource_missing

_KEY = "counterfoil"
_ALPHABET = string.ascii_letters + string.digits


@dataclass
class Store:
    """Objects by id, oldest first. Written last in a request: what the world refuses rolls back without them."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    wishes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a session was asked to do when it is paid, by the session's id."""
    webhooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    """The webhooks' signing secrets."""
    intents: dict[str, str] = field(default_factory=dict)
    """The payment intent of an invoice. One that was rolled back is not in the database."""


def store(ctx: Any) -> Store:
    """This account's."""
    return ctx.state.setdefault(_KEY, Store())  # type: ignore[no-any-return]


def call(ctx: Any, method: str, path: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """One of the world's own operations. Raises StripeApiError, also for a refusal whose rows stay."""
    answer = dispatch(ctx, method, path, params or {}, idempotency_key=None)
    if answer.status >= 400:
        raise Declined(answer.status, answer.body)
    return answer.body  # type: ignore[no-any-return]


class Declined(Exception):
    """The world answered with an error, and what it wrote stays."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body["error"]["message"])
        self.status = status
        self.body = body


def emit(ctx: Any, kind: str, value: dict[str, Any], previous: dict[str, Any] | None = None) -> None:
    """Add an event with the object as it is now."""
    events.emit_event(ctx, type=kind, obj=value, previous=previous)


def now(ctx: Any) -> int:
    """The account's time, in seconds since 1970."""
    return int(ctx.clock.now().timestamp())


def livemode(ctx: Any) -> bool:
    """Whether the account is live."""
    return bool(ctx.state["account"]["livemode"])


def token(ctx: Any, prefix: str, length: int = 24) -> str:
    """A new id."""
    return prefix + "".join(ctx.ids.random.choice(_ALPHABET) for _ in range(length))


def one(objects: dict[str, dict[str, Any]], name: str, object_id: str) -> dict[str, Any]:
    """The object; a refusal as Stripe's when there is none."""
    if object_id not in objects:
        raise resource_missing(name, object_id, param="id")
    return objects[object_id]


def page(objects: list[dict[str, Any]], params: dict[str, Any], url: str, name: str) -> dict[str, Any]:
    """A list's page, newest first, of objects that are given oldest first."""
    newest = objects[::-1]
    limit = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise invalid_request("Invalid integer: limit must be between 1 and 100", param="limit")
    ids = [each["id"] for each in newest]
    for cursor in ("starting_after", "ending_before"):
        if params.get(cursor) is not None and params[cursor] not in ids:
            raise resource_missing(name, params[cursor], param=cursor, status=400)
    if params.get("starting_after") is not None:
        newest = newest[ids.index(params["starting_after"]) + 1 :]
    elif params.get("ending_before") is not None:
        newest = newest[: ids.index(params["ending_before"])]
        return {"object": "list", "data": newest[-limit:], "has_more": len(newest) > limit, "url": url}
    return {"object": "list", "data": newest[:limit], "has_more": len(newest) > limit, "url": url}


_EXPANDABLE = {
    "customer": "/v1/customers",
    "invoice": "/v1/invoices",
    "payment_intent": "/v1/payment_intents",
    "subscription": "/v1/subscriptions",
}


def expand(ctx: Any, value: dict[str, Any], paths: list[str], extra: dict[str, Any]) -> dict[str, Any]:
    """The object with the references named in ``paths`` replaced; ``extra`` has those only it can have."""
    value = dict(value)
    for path in paths:
        first, _, rest = path.partition(".")
        if first in extra:
            value[first] = extra[first]
        elif first not in _EXPANDABLE or first not in value:
            raise invalid_request(f"This property cannot be expanded ({path}).", pre_execution=True)
        elif isinstance(value[first], str):
            inner = {"expand": [rest]} if rest else {}
            value[first] = call(ctx, "GET", f"{_EXPANDABLE[first]}/{value[first]}", inner)
    return value


__all__ = [
    "Declined",
    "Store",
    "StripeApiError",
    "call",
    "emit",
    "expand",
    "invalid_request",
    "livemode",
    "now",
    "one",
    "page",
    "store",
    "token",
]
