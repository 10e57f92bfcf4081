"""Money that goes back: refunds, credits and chargebacks, all of which Paddle calls adjustments.

Source: Paddle's OpenAPI specification of 2025-05-27, operations ``create-adjustment`` and ``list-adjustments``, schema
``adjustment``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from counterfoil.rails.base import (
    HttpRequest,
    HttpResponse,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundFailed,
    RefundIntent,
    RefundUnderWay,
)
from counterfoil.rails.facts import DisputeFact, DisputeStatus, RefundFact
from counterfoil.rails.mirror import MoreToAsk
from counterfoil.rails.paddle.entities import Adjustment, LineItem
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.transactions import Reading
from counterfoil.rails.paddle.wire import Json, call, minor, money, read, read_page, shape

_TAG: Final = re.compile(r"\s*\[(rfd_[0-9a-z]{1,40})\]\s*$")
"""How a refund's reason ends, for adjustments have no ``custom_data``."""
_LONGEST_REASON: Final = 300
_PLAN: Final = "refund_plan"
"""Where an intent's details have what :func:`_plan` says."""

_REFUNDS: Final[dict[str, Literal["refund", "credit"]]] = {"refund": "refund", "credit": "credit"}
_REFUND_STATES: Final[dict[str, Literal["pending", "processed", "failed"]]] = {
    "pending_approval": "pending",
    "approved": "processed",
    "rejected": "failed",
    "reversed": "failed",  # by a credit_reverse: the credit was taken back
}
_DISPUTES: Final[dict[str, DisputeStatus]] = {
    "chargeback_warning": "warning",
    "chargeback_warning_reverse": "won",
    "chargeback": "lost",
    "chargeback_reverse": "won",
}
_TAKES: Final = frozenset({"refund", "credit", "chargeback"})
"""What leaves less of a transaction to give back."""
_GONE: Final = frozenset({"rejected", "reversed"})
_DETAILS: Final = (
    "id", "action", "type", "status", "totals", "payout_totals", "items", "tax_rates_used", "subscription_id",
    "customer_id", "credit_applied_to_balance", "reason", "created_at", "updated_at",
)  # fmt: skip


class AdjustmentReading:
    """One adjustment, read. Raises RailUnavailable when it makes no sense."""

    def __init__(self, data: Json) -> None:
        self.data = data
        self.entity = shape(Adjustment, data)

    @property
    def has_tax(self) -> bool:
        """Whether some of it is tax, so that only its transaction tells what of it counts."""
        return minor(self.entity.totals.tax) != 0

    def counted(self, transaction: Reading | None) -> int:
        """What of it counts as our price, as :class:`Reading` has it."""
        entity = self.entity
        total, tax = minor(entity.totals.total), minor(entity.totals.tax)
        if transaction is None or not tax:
            return total
        lines = {line.id: line for line in transaction.entity.details.line_items}
        external = {line_id for line_id, line in lines.items() if transaction.is_external(line)}
        if not external:
            return total
        if len(external) == len(lines):
            return total - tax
        return total - sum(minor(item.totals.tax) for item in entity.items or () if item.item_id in external)

    def fact(self, transaction: Reading | None, at: datetime) -> RefundFact | DisputeFact | None:
        """What it tells us; None for a credit's reversal, which the credit itself tells, and for new actions.

        A payment has one dispute, named after its transaction: Paddle links a chargeback, the warning before it and
        the reversal after it by that alone. ``chargeback`` is ``lost``, for Paddle makes it once the buyer's bank has
        taken the money; ``chargeback_reverse`` is ``won``, and may come later.
        """
        entity = self.entity
        asset = entity.currency_code
        amount = money(abs(self.counted(transaction)), asset).amount
        details: dict[str, Any] = {key: self.data.get(key) for key in _DETAILS}
        if entity.action in _REFUNDS and entity.status in _REFUND_STATES:
            refund_id, reason = untag(entity.reason)
            status = _REFUND_STATES[entity.status]
            return RefundFact(
                reference=entity.id,
                refund_id=refund_id,
                payment_reference=entity.transaction_id,
                occurred_at=at,
                amount=amount,
                asset=asset,
                status=status,
                kind=_REFUNDS[entity.action],
                reason=reason,
                error=f"Paddle has {entity.status} it" if status == "failed" else None,
                details=details,
            )
        if entity.action in _DISPUTES:
            return DisputeFact(
                reference=entity.transaction_id,
                payment_reference=entity.transaction_id,
                occurred_at=at,
                amount=amount,
                asset=asset,
                status="won" if entity.status in _GONE else _DISPUTES[entity.action],
                reason=entity.reason,
                details=details,
            )
        return None


class Refunds:
    """The part of the rail about refunds."""

    def refund_question(self, settings: PaddleSettings, intent: RefundIntent) -> HttpRequest | None:
        """``GET /transactions/{id}`` with its adjustments: its lines, and what is left of each."""
        query = [("include", "adjustments")]
        return call(settings, "GET", "transactions", intent.payment_reference, query=query)

    def read_refund_question(
        self, settings: PaddleSettings, intent: RefundIntent, response: HttpResponse
    ) -> RefundIntent:
        """The intent with what to give back of each line; without, when Paddle has this refund already.

        Raises RailRefused when there is less left than that; RailUnavailable while Paddle is still booking the
        payment, which can be given back only after.
        """
        reading = Reading(settings, read(response))
        if any(untag(known.reason)[0] == intent.refund_id for known in reading.entity.adjustments):
            return intent
        if reading.entity.status == "paid":
            raise RailUnavailable("Paddle is still booking the payment, and gives it back only after that")
        if reading.entity.status != "completed":
            raise RailRefused(f"Paddle has no payment to give back: the transaction is {reading.entity.status}")
        if reading.entity.currency_code != intent.amount.asset:
            raise RailRefused(f"the payment was made in {reading.entity.currency_code}")
        plan = _plan(reading, intent.amount.amount)
        return msgspec.structs.replace(intent, details={**intent.details, _PLAN: plan})

    def refund_request(self, settings: PaddleSettings, intent: RefundIntent) -> HttpRequest | RefundDone | None:
        """``POST /adjustments``.

        Raises RailUnavailable without what :meth:`read_refund_question` adds: nobody has asked, or Paddle has this
        refund already, and :meth:`find_refund_request` tells what became of it.
        """
        plan = intent.details.get(_PLAN)
        if not isinstance(plan, dict):
            raise RailUnavailable("Paddle has to be asked first what was given back, and what can be")
        body = {
            "action": "refund",
            "transaction_id": intent.payment_reference,
            "reason": tag(intent.reason, intent.refund_id),
            **plan,
        }
        return call(settings, "POST", "adjustments", body=body)

    def read_refunded(self, settings: PaddleSettings, response: HttpResponse) -> RefundDone | RefundUnderWay:
        """The adjustment. Raises RailRefused, RailBusy, RailUnavailable."""
        return _outcome(shape(Adjustment, read(response)))

    def find_refund_request(
        self, settings: PaddleSettings, intent: RefundIntent, after: str | None = None
    ) -> HttpRequest | RefundDone | None:
        """``GET /adjustments`` of the transaction; ``after``: the last adjustment of the page before."""
        query = [
            ("transaction_id", intent.payment_reference),
            ("action", "refund"),
            ("order_by", "id[DESC]"),
            ("per_page", "50"),
        ]
        return call(settings, "GET", "adjustments", query=query + ([("after", after)] if after else []))

    def read_found_refund(
        self, settings: PaddleSettings, intent: RefundIntent, response: HttpResponse
    ) -> RefundDone | RefundUnderWay | None:
        """The adjustment whose reason names our refund. Raises RefundFailed when Paddle has rejected it; MoreToAsk."""
        page, after = read_page(response)
        for data in page:
            adjustment = shape(Adjustment, data)
            if untag(adjustment.reason)[0] == intent.refund_id:
                return _outcome(adjustment)
        if after is not None:
            more = self.find_refund_request(settings, intent, after)
            assert isinstance(more, HttpRequest)
            raise MoreToAsk("the refund may be on the next page of Paddle's list", more)
        return None


def tag(reason: str, refund_id: str) -> str:
    """A refund's reason, with our id where :func:`untag` finds it."""
    return f"{' '.join(reason.split())[:_LONGEST_REASON] or 'Refund'} [{refund_id}]"


def untag(reason: str) -> tuple[str | None, str]:
    """Our refund's id, None where Paddle's dashboard made it, and the reason itself."""
    found = _TAG.search(reason)
    return (None, reason) if found is None else (found[1], reason[: found.start()])


def split(amount: int, left: Iterable[tuple[str, int]]) -> dict[str, int]:
    """An amount over lines, in proportion to what is left of each, by largest remainders (ties: the first).

    No line gives more than it has. Raises ValueError when they have less together.
    """
    lines = [(line, rest) for line, rest in left if rest > 0]
    whole = sum(rest for _, rest in lines)
    if not 0 < amount <= whole:
        raise ValueError(f"{amount} of {whole}")
    shares = {line: amount * rest // whole for line, rest in lines}
    by_remainder = sorted(lines, key=lambda entry: -(amount * entry[1] % whole))
    for line, _ in by_remainder[: amount - sum(shares.values())]:
        shares[line] += 1
    return {line: share for line, share in shares.items() if share}


def _plan(transaction: Reading, amount: int) -> Json:
    """What of ``POST /adjustments`` says how much: all, or a part of each line. Raises RailRefused."""
    entity = transaction.entity
    taken = [at for at in entity.adjustments if at.action in _TAKES and at.status not in _GONE]
    if amount == transaction.amount and not taken:
        return {"type": "full"}
    lines = entity.details.line_items
    given = _given(transaction, taken)
    left = {line.id: transaction.counted(line) - given.get(line.id, 0) for line in lines}
    modes = {transaction.is_external(line) for line in lines}
    if len(modes) > 1:
        raise RailRefused("some of it was sold with tax, some without: give back a part of it in Paddle's dashboard")
    try:
        shares = split(amount, left.items())
    except ValueError as error:
        rest = sum(rest for rest in left.values() if rest > 0)
        words = f"Paddle has {max(0, rest)} {entity.currency_code} (minor units) left of the payment, not {amount}"
        raise RailRefused(words) from error
    return {
        "type": "partial",
        "tax_mode": "external" if modes == {True} else "internal",
        "items": [_slice(transaction, line, shares[line.id], given) for line in lines if line.id in shares],
    }


def _given(transaction: Reading, taken: list[Adjustment]) -> dict[str, int]:
    """What was given back of each line before, in our terms."""
    external = {line.id for line in transaction.entity.details.line_items if transaction.is_external(line)}
    given: dict[str, int] = {}
    for item in (item for adjustment in taken for item in adjustment.items or ()):
        counted = minor(item.totals.total) - (minor(item.totals.tax) if item.item_id in external else 0)
        given[item.item_id] = given.get(item.item_id, 0) + abs(counted)
    return given


def _slice(transaction: Reading, line: LineItem, share: int, given: dict[str, int]) -> Json:
    if share == transaction.counted(line) and not given.get(line.id):
        return {"item_id": line.id, "type": "full"}
    return {"item_id": line.id, "type": "partial", "amount": str(share)}


def _outcome(adjustment: Adjustment) -> RefundDone | RefundUnderWay:
    if adjustment.status == "approved":
        return RefundDone(reference=adjustment.id)
    if adjustment.status == "pending_approval":
        return RefundUnderWay(reference=adjustment.id)
    if adjustment.status in _GONE:
        raise RefundFailed(f"Paddle has {adjustment.status} the refund")
    raise RailUnavailable(f"Paddle says of the refund that it is {adjustment.status!r}, which we do not know")
