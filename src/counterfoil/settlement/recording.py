"""Money proved outside of any rail, as staff writes it down: cash, a bank transfer, the books of before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from counterfoil.accounts import customers
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, CounterfoilError, Invalid
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.money import MAX_AMOUNT, Money, is_known
from counterfoil.kernel.text import check_line
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.sales import payments, payments_archive
from counterfoil.sales.payments_archive import KnownPayment
from counterfoil.settlement.settle import settle_by_id

MANUAL = "manual"
MOST = 100
"""Payments in one batch."""
_RAIL = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_AHEAD = timedelta(minutes=5)


class NewPayment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A payment to write down. Of ``checkout_id`` and ``customer_id`` at most one is given."""

    rail: str = MANUAL
    """How the money came, in a word of one's own; not a rail of this program."""
    reference: str
    """What tells it from all other money that came this way, for ever: a receipt's number, a bank's."""
    amount: int
    asset: str
    payer: str | None = None
    occurred_at: datetime | None = None
    """When it moved; now when left out."""
    checkout_id: str | None = None
    """What it pays. Without one it stands for itself, with nothing left to do about it."""
    customer_id: str | None = None
    details: dict[str, Any] = {}


def record(tx: Tx, new: NewPayment, rails: frozenset[str]) -> KnownPayment:
    """Write a payment down, and fulfill its checkout when that is paid now. ``rails``: names that are taken.

    Raises Invalid (``rail_taken``); NotFound; Conflict (``payment_exists``).
    """
    rail, reference, payer = _checked(tx, new, rails)
    money = Money(new.amount, new.asset)
    if new.checkout_id is None:
        if new.customer_id is not None:
            customers.get(tx, new.customer_id)
        added = payments.add_if_new(
            tx,
            rail=rail,
            reference=reference,
            checkout_id=None,
            customer_id=new.customer_id,
            payer=payer,
            money=money,
            status="settled",
            details=new.details,
            occurred_at=new.occurred_at or tx.now,
        )
        if added is None:
            raise _exists(rail, reference)
        return payments_archive.known(added)
    fact = PaymentFact(
        reference=reference, amount=money, occurred_at=new.occurred_at or tx.now, payer=payer, details=new.details
    )
    report = CheckoutReport(
        rail=rail,
        reference=reference,
        checkout_id=new.checkout_id,
        state="settled",
        payments=(fact,),
        final=False,
    )
    fresh = settle_by_id(tx, report, new.checkout_id).fresh
    if not fresh:
        raise _exists(rail, reference)
    return payments_archive.get(tx, fresh[0])


def record_many(tx: Tx, batch: Sequence[NewPayment], rails: frozenset[str]) -> list[KnownPayment]:
    """Write several payments down, all or none. Raises what :func:`record` raises, with the place it is about."""
    if not 1 <= len(batch) <= MOST:
        raise Invalid.field("payments", f"between 1 and {MOST} payments")
    done = []
    for place, new in enumerate(batch):
        try:
            done.append(record(tx, new, rails))
        except CounterfoilError as error:
            error.detail = f"payments/{place}: {error.detail}"
            error.errors = tuple(
                msgspec.structs.replace(field, pointer=f"/payments/{place}{field.pointer}") for field in error.errors
            )
            raise
    # What becomes of one may say more about another of the same checkout.
    return [payments_archive.get(tx, one.id) for one in done]


def _checked(tx: Tx, new: NewPayment, rails: frozenset[str]) -> tuple[str, str, str | None]:
    if not _RAIL.fullmatch(new.rail):
        raise Invalid.field("rail", "lower-case letters, digits, hyphens and underscores, 40 at most")
    if new.rail in rails:
        raise Invalid.field("rail", f"{new.rail} proves its own money; use a word of your own", code="rail_taken")
    reference = check_line("reference", new.reference, most=200, least=1)
    payer = check_line("payer", new.payer, most=200, least=1) if new.payer is not None else None
    if not 0 <= new.amount <= MAX_AMOUNT:
        raise Invalid.field("amount", f"between 0 and {MAX_AMOUNT}")
    if not is_known(new.asset):
        raise Invalid.field("asset", "not a currency or token we know")
    if new.occurred_at is not None and (new.occurred_at.tzinfo is None or new.occurred_at > tx.now + _AHEAD):
        raise Invalid.field("occurred_at", "a moment that has come, with its time zone")
    if new.checkout_id is not None and new.customer_id is not None:
        raise Invalid.field("customer_id", "comes with the checkout; leave it out")
    check_metadata("details", new.details)
    return new.rail, reference, payer


def _exists(rail: str, reference: str) -> Conflict:
    return Conflict(f"The payment {reference!r} on {rail} was recorded before.", code="payment_exists")
