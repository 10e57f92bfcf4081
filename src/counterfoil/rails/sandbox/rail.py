"""The sandbox rail.

Its "provider" is a page of our own that keeps no state: everything about one checkout travels in a
signed session token from page to page. What the tester does there becomes events that are signed and
sent over real HTTP, like any provider's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from counterfoil.kernel.clock import from_seconds
from counterfoil.kernel.secrets import hmac_sha256, same
from counterfoil.rails.base import (
    AsksNothing,
    BadSignature,
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    Notice,
    OpenedCheckout,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundIntent,
)
from counterfoil.rails.sandbox.session import SandboxEvent, Session, seal

SIGNATURE_HEADER = "sandbox-signature"
REFUSE, NO_ANSWER = "refuse", "no-answer"
"""Recipients of refunds that the sandbox refuses, or makes without an answer."""
TOLERANCE = timedelta(minutes=5)
"""How far a webhook's time may be from ours, either way."""


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the rail needs to know."""

    base_url: str
    secret: str

    def __repr__(self) -> str:
        return f"SandboxSettings(base_url={self.base_url!r})"


_decode_event = msgspec.json.Decoder(SandboxEvent).decode


def sign(body: bytes, secret: str, now: datetime) -> str:
    """The signature header: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``."""
    stamp = str(int(now.timestamp()))
    return f"t={stamp},v1={hmac_sha256(secret.encode(), stamp.encode() + b'.' + body)}"


class SandboxRail(AsksNothing):
    """Translates between the sandbox page and facts."""

    name = "sandbox"

    def assets(self, settings: SandboxSettings) -> frozenset[str] | None:
        """Any asset."""
        return None

    def open_request(self, settings: SandboxSettings, intent: CheckoutIntent) -> HttpRequest | OpenedCheckout:
        """Nothing needs to be asked: the page reads all it needs from its own address."""
        session = Session(
            reference="sbx_" + intent.checkout_id.partition("_")[2],
            checkout_id=intent.checkout_id,
            amount=intent.amount.amount,
            asset=intent.amount.asset,
            description=intent.description,
            return_url=intent.return_url,
            expires_at=intent.expires_at,
        )
        url = f"{settings.base_url}/sandbox/pay/{seal(session, settings.secret)}"
        return OpenedCheckout(reference=session.reference, url=url)

    def read_opened(self, settings: SandboxSettings, response: HttpResponse) -> OpenedCheckout:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("the sandbox has no API")

    def find_request(self, settings: SandboxSettings, checkout_id: str) -> HttpRequest | None:
        """Opening twice gives the same page, so there is nothing to look up."""
        return None

    def read_found(self, settings: SandboxSettings, response: HttpResponse, checkout_id: str) -> OpenedCheckout | None:
        """Never asked."""
        return None

    def read_webhook(self, settings: SandboxSettings, headers: Mapping[str, str], body: bytes, now: datetime) -> Notice:
        """Check signature and time, then read. The event carries its whole report. Raises BadSignature."""
        parts = dict(part.partition("=")[::2] for part in headers.get(SIGNATURE_HEADER, "").split(","))
        stamp, given = parts.get("t", ""), parts.get("v1", "")
        expected = hmac_sha256(settings.secret.encode(), stamp.encode() + b"." + body)
        if not same(given, expected):
            raise BadSignature("the sandbox signature does not match")
        if not stamp.isdecimal() or abs(from_seconds(int(stamp)) - now) > TOLERANCE:
            raise BadSignature("the sandbox webhook is too old or from the future")
        try:
            event = _decode_event(body)
        except msgspec.MsgspecError as error:
            raise BadSignature("the sandbox webhook cannot be read") from error
        return Notice(
            event_id=event.id,
            type=event.type,
            occurred_at=event.occurred_at,
            reference=event.report.reference,
            report=event.report,
        )

    def report_requests(self, settings: SandboxSettings, reference: str) -> tuple[HttpRequest, ...]:
        """The sandbox keeps nothing, so there is nothing to ask."""
        return ()

    def read_report(self, settings: SandboxSettings, responses: tuple[HttpResponse, ...]) -> CheckoutReport:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("the sandbox has no API")

    def refund_request(self, settings: SandboxSettings, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """Done at once, unless the recipient says otherwise. Raises RailRefused, RailUnavailable."""
        if intent.recipient == REFUSE:
            raise RailRefused("the sandbox was told to refuse this refund")
        if intent.recipient == NO_ANSWER:
            raise RailUnavailable("the sandbox was told not to answer")
        return _refunded(settings, intent)

    def read_refunded(self, settings: SandboxSettings, response: HttpResponse) -> RefundDone:
        """Never asked. Raises RailUnavailable."""
        raise RailUnavailable("the sandbox has no API")

    def find_refund_request(self, settings: SandboxSettings, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """The sandbox keeps nothing, but what it was asked it did, unless it refused."""
        return None if intent.recipient == REFUSE else _refunded(settings, intent)

    def read_found_refund(
        self, settings: SandboxSettings, intent: RefundIntent, response: HttpResponse
    ) -> RefundDone | None:
        """Never asked."""
        return None


def _refunded(settings: SandboxSettings, intent: RefundIntent) -> RefundDone:
    """The same for the same refund, and signed: nobody else could have named it so."""
    facts = f"refund.{intent.refund_id}.{intent.payment_reference}.{intent.amount.amount}.{intent.amount.asset}"
    return RefundDone(reference="sbxr_" + hmac_sha256(settings.secret.encode(), facts.encode())[:24])
