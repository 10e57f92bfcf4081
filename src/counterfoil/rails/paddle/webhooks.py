"""Paddle's webhooks: who sent them, and what they say.

Sources: Paddle's OpenAPI specification of 2025-05-27, section ``webhooks``; its guide to verifying signatures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from counterfoil.kernel.clock import to_seconds
from counterfoil.kernel.secrets import hmac_sha256, same
from counterfoil.rails.base import BadSignature, HttpRequest, HttpResponse, Notice, RailUnavailable
from counterfoil.rails.facts import RailCopy
from counterfoil.rails.mirror import Kind
from counterfoil.rails.paddle import adjustments, catalog, subscriptions
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.transactions import Reading
from counterfoil.rails.paddle.wire import UNREADABLE, Json, call, moment, read

SIGNATURE_HEADER: Final = "paddle-signature"
TOLERANCE_SECONDS: Final = 5
"""How far a signature's time may be from ours, either way, as Paddle's own libraries have it."""

_COPIES: Final[dict[str, Kind]] = {
    "product": "product",
    "price": "price",
    "discount": "discount",
    "customer": "customer",
    "address": "address",
    "business": "business",
}
_COPY_NEWS: Final = ("created", "updated", "imported")
_SUBSCRIPTION_NEWS: Final = (
    "created", "trialing", "activated", "updated", "past_due", "paused", "resumed", "canceled", "imported",
)  # fmt: skip
_TRANSACTION_NEWS: Final = (
    "created", "ready", "billed", "paid", "completed", "updated", "past_due", "payment_failed", "canceled", "revised",
)  # fmt: skip

EVENTS: Final = (
    *(f"transaction.{news}" for news in _TRANSACTION_NEWS),
    *(f"subscription.{news}" for news in _SUBSCRIPTION_NEWS),
    "adjustment.created",
    "adjustment.updated",
    *(f"{kind}.{news}" for kind in _COPIES for news in _COPY_NEWS),
)
"""What we want to be told: all that changes a row of ours."""

_READ: Final = frozenset(EVENTS)
_WITHOUT_FACTS: Final = frozenset(
    {
        *(f"api_key.{news}" for news in ("created", "updated", "expired", "expiring", "revoked")),
        "payment_method.saved",
        "payment_method.deleted",
        "payout.created",
        "payout.paid",
        "report.created",
        "report.updated",
    }
)
"""What we understand, and need no row for."""

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_TIME: Final = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES: Final = 20
_LONGEST_NAME: Final = 200


class _Event(msgspec.Struct):
    event_id: str
    event_type: str
    occurred_at: str
    data: Any = None


def check_signature(secrets: tuple[str, ...], header: str, body: bytes, now: datetime) -> None:
    """Whether one of ``secrets`` has signed exactly these bytes just now. Raises BadSignature.

    The header is ``ts=<Unix seconds>;h1=<hex>``, with one ``h1`` for each key that is valid while keys are rotated;
    each is the HMAC-SHA256 of the time as it is written there, a colon, and the body. The key is the secret's whole
    text, prefix included.
    """
    parts = [part.partition("=") for part in header.split(";", _MOST_SIGNATURES)]
    times = [value for name, _, value in parts if name.strip() == "ts"]
    signatures = [value for name, _, value in parts if name.strip() == "h1" and _HEX.fullmatch(value)]
    if len(times) != 1 or _TIME.fullmatch(times[0]) is None or not signatures:
        raise BadSignature("Paddle-Signature is missing or not of the form ts=<seconds>;h1=<64 hex digits>")
    if abs(to_seconds(now) - int(times[0])) > TOLERANCE_SECONDS:
        raise BadSignature("Paddle-Signature is of another time: an old message, or a clock that is wrong")
    message = times[0].encode() + b":" + body
    expected = [hmac_sha256(secret.encode(), message) for secret in secrets if secret]
    if not expected:
        raise BadSignature("no webhook secret is set for this account")
    # All are compared, so that the time it takes tells nothing.
    if not any([same(said.lower(), right) for said in signatures for right in expected]):  # noqa: C419
        raise BadSignature("Paddle-Signature does not match the body")


class Webhooks:
    """The part of the rail about webhooks."""

    name: str

    def read_webhook(self, settings: PaddleSettings, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
        """Check ``Paddle-Signature``, then read. The body holds the whole object, so most of them prove all they say.

        ``event_id`` is the same for every destination and every redelivery. Adjustments with tax in them have a
        question: only their transaction tells what of them counts as our price. A signed event whose object cannot
        be read is a notice that is not known and says what its ``problem`` is: a later version may read it.

        Raises BadSignature also for a signed body that is no event.
        """
        check_signature(settings.webhook_secrets, headers.get(SIGNATURE_HEADER, ""), body, now)
        return self.read_event(settings, body)

    def read_event(self, settings: PaddleSettings, body: bytes) -> Notice:
        """The same for a body that is known to be Paddle's: verified before, or out of its list of events.

        Raises BadSignature when it is no event.
        """
        event = _decode(body)
        try:
            return self._notice(settings, event, None)
        except RailUnavailable as error:
            return _not_known(event, problem=str(error))

    def read_answer(self, settings: PaddleSettings, body: bytes, response: HttpResponse, now: datetime) -> Notice:
        """An adjustment, with its transaction. Raises BadSignature, RailRefused, RailBusy, RailUnavailable."""
        return self._notice(settings, _decode(body), Reading(settings, read(response)))

    def events_request(self, settings: PaddleSettings, after: str | None, since: datetime) -> HttpRequest:
        """``GET /events``, oldest first. Paddle keeps them for 90 days.

        It cannot be asked for those since a moment: without ``after``, the list begins with the oldest that is kept.
        """
        query = [("order_by", "id[ASC]"), ("per_page", "200")]
        return call(settings, "GET", "events", query=query + ([("after", after)] if after else []))

    def _notice(self, settings: PaddleSettings, event: _Event, transaction: Reading | None) -> Notice:
        if event.event_type not in _READ:
            return _not_known(event, is_known=event.event_type in _WITHOUT_FACTS)
        if not isinstance(event.data, dict):
            raise RailUnavailable("the event has no object")
        at = moment(event.occurred_at)
        family = event.event_type.partition(".")[0]
        base = Notice(event_id=event.event_id, type=event.event_type, occurred_at=at, reference=None)
        if family == "transaction":
            return self._of_transaction(base, Reading(settings, event.data))
        if family == "adjustment":
            return _of_adjustment(settings, base, event.data, transaction)
        if family == "subscription":
            fact = subscriptions.fact(event.data, at)
            return msgspec.structs.replace(base, facts=(fact,))
        copy: RailCopy = catalog.read(_COPIES[family], event.data, at)
        return msgspec.structs.replace(base, facts=(copy,))

    def _of_transaction(self, base: Notice, reading: Reading) -> Notice:
        invoice = reading.invoice(base.occurred_at)
        facts = () if invoice is None else (invoice,)
        if reading.checkout_id is None:
            return msgspec.structs.replace(base, facts=facts)
        report = reading.report(self.name, base.occurred_at)
        return msgspec.structs.replace(base, reference=report.reference, report=report, facts=facts)


def _of_adjustment(settings: PaddleSettings, base: Notice, data: Json, transaction: Reading | None) -> Notice:
    reading = adjustments.AdjustmentReading(data)
    if transaction is None and reading.has_tax:
        question = call(settings, "GET", "transactions", reading.entity.transaction_id)
        return msgspec.structs.replace(base, question=question)
    fact = reading.fact(transaction, base.occurred_at)
    return msgspec.structs.replace(base, facts=() if fact is None else (fact,))


def _decode(body: bytes) -> _Event:
    try:
        event = msgspec.json.decode(body, type=_Event)
        moment(event.occurred_at)
    except (*UNREADABLE, RailUnavailable) as error:
        raise BadSignature(f"the body is no event of Paddle's: {error}") from error
    names = (event.event_id, event.event_type)
    if not all(0 < len(name) <= _LONGEST_NAME and name.isprintable() for name in names):
        raise BadSignature("the body is no event of Paddle's: it has no id or no type")
    return event


def _not_known(event: _Event, *, is_known: bool = False, problem: str | None = None) -> Notice:
    return Notice(
        event_id=event.event_id,
        type=event.event_type,
        occurred_at=moment(event.occurred_at),
        reference=None,
        is_known=is_known,
        problem=problem,
    )
