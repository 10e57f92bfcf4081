"""What the sandbox page knows of one checkout, and what a tester can do there."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import hmac_sha256, same
from counterfoil.rails.base import CheckoutReport, CheckoutState, PaymentFact

Action = Literal["pay", "underpay", "overpay", "pay_late", "wrong_asset", "expire", "decline"]
"""What a tester can do."""


class BadSession(ValueError):
    """The token was not made by this installation."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One checkout as the sandbox sees it. The page carries it along, signed."""

    reference: str
    checkout_id: str
    amount: int
    asset: str
    description: str
    return_url: str
    expires_at: datetime
    state: CheckoutState = "open"
    payments: tuple[PaymentFact, ...] = ()

    @property
    def due(self) -> int:
        """What is left to pay, in minor units."""
        paid = sum(payment.amount.amount for payment in self.payments if payment.amount.asset == self.asset)
        return max(0, self.amount - paid)


class SandboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of news that follows from an action: the body of a webhook."""

    id: str
    type: str
    occurred_at: datetime
    report: CheckoutReport


_decode = msgspec.json.Decoder(Session).decode


def seal(session: Session, secret: str) -> str:
    """The session as a token for a URL or a form."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(session)).decode().rstrip("=")
    return f"{body}.{_mac(body, secret)}"


def unseal(token: str, secret: str) -> Session:
    """Undo :func:`seal`. Raises BadSession."""
    body, _, mac = token.rpartition(".")
    if not same(mac, _mac(body, secret)):
        raise BadSession("not a sandbox session of this installation")
    try:
        return _decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise BadSession("not a sandbox session of this installation") from error


def _mac(body: str, secret: str) -> str:
    return hmac_sha256(secret.encode(), b"session." + body.encode())[:32]


def act(session: Session, action: Action, attempt: str, now: datetime) -> tuple[Session, list[SandboxEvent]]:
    """What an action makes of the session, and the news it sends, in order.

    ``attempt`` names this one press of the button: pressing it twice is the same payment.
    """
    moment = now
    amount, asset, payer = session.due, session.asset, "sandbox-tester"
    match action:
        case "expire":
            return _news(session, attempt, [("checkout.expired", "expired", moment, None)])
        case "decline":
            return _news(session, attempt, [("payment.declined", "open", moment, None)])
        case "underpay":
            amount = max(1, session.due // 2)
        case "overpay":
            amount = session.due + max(1, session.amount // 10)
        case "wrong_asset":
            asset = "EUR" if session.asset != "EUR" else "USD"
        case "pay_late":
            moment = max(now, session.expires_at + timedelta(seconds=1))
        case "pay":
            pass
    fact = PaymentFact(
        reference="sbxp_" + hashlib.sha256(f"{session.reference}/{attempt}".encode()).hexdigest()[:24],
        amount=Money(amount, asset),
        occurred_at=moment,
        payer=payer,
        details={"action": action},
    )
    steps: list[tuple[str, CheckoutState, datetime, PaymentFact | None]] = []
    if action == "pay_late":
        steps.append(("checkout.expired", "expired", session.expires_at, None))
    if action in {"underpay", "wrong_asset"}:
        steps.append(("payment.received", session.state, moment, fact))
    else:
        steps.append(("payment.processing", "processing", moment, None))
        steps.append(("checkout.settled", "settled", moment, fact))
    return _news(session, attempt, steps)


def _news(
    session: Session, attempt: str, steps: list[tuple[str, CheckoutState, datetime, PaymentFact | None]]
) -> tuple[Session, list[SandboxEvent]]:
    made = []
    for place, (type_, state, moment, fact) in enumerate(steps):
        payments = (*session.payments, fact) if fact else session.payments
        session = msgspec.structs.replace(session, state=state, payments=payments)
        report = CheckoutReport(
            rail="sandbox",
            reference=session.reference,
            checkout_id=session.checkout_id,
            state=state,
            payments=payments,
            final=state == "settled",
        )
        event_id = "sbxe_" + hashlib.sha256(f"{session.reference}/{attempt}/{place}".encode()).hexdigest()[:24]
        made.append(SandboxEvent(id=event_id, type=type_, occurred_at=moment, report=report))
    return session, made
