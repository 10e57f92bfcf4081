"""Paddle's own SDK as a judge: it has to understand what the stand-in says, and believe how it signs.

The SDK's wheel brings a package named ``tests``; ours comes first wherever this folder can be imported from.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

from paddle_billing.Entities.Address import Address
from paddle_billing.Entities.Adjustment import Adjustment
from paddle_billing.Entities.Business import Business
from paddle_billing.Entities.Customer import Customer
from paddle_billing.Entities.CustomerPortalSession import CustomerPortalSession
from paddle_billing.Entities.Discount import Discount
from paddle_billing.Entities.Event import Event
from paddle_billing.Entities.EventType import EventType
from paddle_billing.Entities.Notification import Notification
from paddle_billing.Entities.NotificationLog import NotificationLog
from paddle_billing.Entities.Notifications import NotificationEvent
from paddle_billing.Entities.NotificationSetting import NotificationSetting
from paddle_billing.Entities.Price import Price
from paddle_billing.Entities.Product import Product
from paddle_billing.Entities.Subscription import Subscription
from paddle_billing.Entities.Transaction import Transaction
from paddle_billing.Notifications import PaddleSignature, Secret, Verifier

_ENTITIES: dict[str, Any] = {
    "addresses": Address,
    "adjustments": Adjustment,
    "businesses": Business,
    "customers": Customer,
    "discounts": Discount,
    "event-types": EventType,
    "events": Event,
    "logs": NotificationLog,
    "notification-settings": NotificationSetting,
    "notifications": Notification,
    "portal-sessions": CustomerPortalSession,
    "prices": Price,
    "products": Product,
    "subscriptions": Subscription,
    "transactions": Transaction,
}
_ACTIONS = {"activate", "cancel", "charge", "pause", "resume"}


def understand(path: str, answer: bytes) -> list[Any]:
    """Every object in an answer, as the SDK reads it. Raises what the SDK raises for what it does not expect."""
    parts = path.partition("?")[0].split("/")
    names = [part for part in parts if re.fullmatch(r"[a-z-]+", part) and part not in _ACTIONS]
    data = json.loads(answer)["data"]
    kind = _ENTITIES[names[-1]]
    return [kind.from_dict(row) for row in (data if isinstance(data, list) else [data])]


def understand_webhook(body: bytes) -> Any:
    """A webhook, as the SDK reads it."""
    return NotificationEvent.from_dict(json.loads(body))


def believes(header: str, body: bytes, *secrets: str, tolerance: int = 5) -> bool:
    """Whether the SDK takes a webhook for genuine, now; ``tolerance`` 0: at any time."""
    request: Any = SimpleNamespace(headers={"Paddle-Signature": header}, body=body)
    verifier = Verifier(tolerance)
    return any(verifier.verify(request, Secret(secret)) for secret in secrets)


def signature(secret: str, ts: int, body: bytes) -> str:
    """The ``h1`` that the SDK works out."""
    return str(PaddleSignature.calculate_hmac(secret, f"{ts}:".encode() + body).hexdigest())
