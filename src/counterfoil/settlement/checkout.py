"""Opening a checkout: where the catalog's prices and discounts meet a sale."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from counterfoil.accounts import customers
from counterfoil.catalog import discounts, prices
from counterfoil.catalog.products import check_text
from counterfoil.catalog.types import Discount
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.sales import checkouts, quotes
from counterfoil.sales.quotes import PricedLine, WantedLine
from counterfoil.sales.types import CartLine, Checkout
from counterfoil.settlement import holds
from counterfoil.settlement.settle import settle

FREE = "free"
"""The rail of a checkout that costs nothing: no provider is asked."""

_EMAIL = re.compile(r"[^\s@<>\x00-\x1f]{1,64}@[^\s@<>\x00-\x1f]{1,255}")


class OpenCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to open a checkout."""

    lines: list[WantedLine]
    rail: str
    rail_assets: frozenset[str] | None = None
    """The assets the rail takes; None = any."""
    code: str | None = None
    email: str | None = None
    note: str | None = None
    country: str | None = None
    return_url: str | None = None
    metadata: dict[str, Any] = {}
    customer_id: str | None = None
    """Who buys, where that is known; the nearest margin on its way to the top applies."""
    idempotency_key: str | None = None
    holds_for: timedelta
    must_be_free: bool = False
    """Refuse unless the code makes it cost nothing."""

    def hash(self) -> str:
        """The same for the same request; how long prices hold is ours to say and does not count."""
        body = msgspec.structs.replace(self, holds_for=timedelta(0), rail_assets=None)
        return hashlib.sha256(msgspec.json.encode(body)).hexdigest()


class Opened(msgspec.Struct, frozen=True):
    """A checkout, whether this request opened it, and what it is for in a few words."""

    checkout: Checkout
    is_new: bool
    description: str


class LostRace(Conflict):
    """Another request with the same key got in first; asking again finds its checkout."""

    default_code = "idempotency_key_in_use"
    retryable = True


def open_checkout(tx: Tx, wanted: OpenCheckout) -> Opened:
    """Price a cart, reserve its discounts, and open a checkout for it; free ones settle at once.

    A customer's margin comes off first, and a code off what is left. With an idempotency key, the checkout that
    the key opened before is the answer. Raises Invalid, NotFound, LostRace; Conflict (``customer_not_active``).
    """
    request_hash = wanted.hash() if wanted.idempotency_key else None
    if wanted.idempotency_key and request_hash:
        known = checkouts.by_idempotency_key(tx, wanted.idempotency_key, request_hash)
        if known is not None:
            return Opened(known, is_new=False, description=_describe(quotes.lines_of(tx, known.cart_id)))
    email = _checked(wanted)
    lines, applied = _reduce(tx, wanted, _quote(tx, wanted))
    total = sum(line.subtotal - line.discount_total for line in lines)
    if total and wanted.must_be_free:
        raise Invalid.field("code", "this code does not make it free", code="discount_not_applicable")
    if total and wanted.rail == FREE:
        raise Invalid.field("rail", "this is not free; name a rail to pay it on", code="rail_required")
    asset = lines[0].price.asset
    if total and wanted.rail_assets is not None and asset not in wanted.rail_assets:
        raise Invalid.field("rail", f"{wanted.rail} does not take {asset}", code="asset_not_supported")
    cart = quotes.save(
        tx,
        lines,
        customer_id=wanted.customer_id,
        country=wanted.country,
        holds_for=wanted.holds_for,
        metadata=wanted.metadata,
    )
    checkout = checkouts.create(
        tx,
        checkout_id=tx.new_id("chk"),
        cart_id=cart.id,
        customer_id=wanted.customer_id,
        rail=wanted.rail if total else FREE,
        total=Money(cart.total, cart.asset),
        expires_at=cart.expires_at,
        email=email,
        note=wanted.note,
        return_url=wanted.return_url,
        idempotency_key=wanted.idempotency_key,
        request_hash=request_hash,
    )
    if checkout is None:
        raise LostRace("Another request with this Idempotency-Key is in progress.")
    for discount in applied:
        discounts.reserve(tx, discount, checkout.id, Money(_taken(discount, lines), cart.asset))
    if not total:
        checkouts.attach(tx, checkout.id, reference=checkout.id, url="")
        settle(tx, _gift(tx, checkout))
        checkout = checkouts.get(tx, checkout.id)
    return Opened(checkout, is_new=True, description=_describe(lines))


def _quote(tx: Tx, wanted: OpenCheckout) -> list[PricedLine]:
    """Price the lines, and fix the terms of prices that are quoted for the first time."""
    lines = quotes.price_lines(tx, wanted.lines, country=wanted.country)
    fresh = [line.price.id for line in lines if line.price.locked_at is None]
    if not fresh:
        return lines
    prices.lock_terms(tx, fresh)
    # Their terms may have changed between our look and the lock; what is fixed now is what is quoted.
    return quotes.price_lines(tx, wanted.lines, country=wanted.country)


def _describe(lines: Sequence[PricedLine | CartLine]) -> str:
    first = lines[0].name + (f" x {lines[0].quantity}" if lines[0].quantity > 1 else "")
    return first if len(lines) == 1 else f"{first} and {len(lines) - 1} more"


def _checked(wanted: OpenCheckout) -> str | None:
    """Check what the buyer wrote; the address in the form we store and search it."""
    check_text("note", wanted.note or "", most=2000)
    check_metadata("metadata", wanted.metadata)
    if wanted.return_url is not None and not re.fullmatch(r"https?://[^\s\x00-\x1f<>\"]{1,2000}", wanted.return_url):
        raise Invalid.field("return_url", "must be an http or https address")
    if wanted.email is None:
        return None
    if not _EMAIL.fullmatch(wanted.email):
        raise Invalid.field("email", "not an e-mail address")
    return wanted.email.lower()


def _reduce(tx: Tx, wanted: OpenCheckout, lines: list[PricedLine]) -> tuple[list[PricedLine], list[Discount]]:
    """The lines with the customer's margin taken off, then the code off what is left; and what was taken off."""
    applied: list[Discount] = []
    if wanted.customer_id is not None:
        customer = customers.get(tx, wanted.customer_id)
        if customer.status != "active":
            raise Conflict("This customer is archived.", code="customer_not_active")
        margin = discounts.margin_for(tx, customer.path)
        if margin is not None and _covers_any(margin, lines):
            applied.append(margin)
    if wanted.code is not None:
        code = discounts.usable(tx, wanted.code)
        if not _covers_any(code, lines):
            raise Invalid.field("code", "this code is not for anything in the cart", code="discount_not_applicable")
        applied.append(code)
    for discount in applied:
        lines = apply_discount(discount, lines)
    return lines, applied


def _covers_any(discount: Discount, lines: list[PricedLine]) -> bool:
    return any(_covers(discount, line) for line in lines)


def _covers(discount: Discount, line: PricedLine) -> bool:
    return discounts.covers(discount, line.price.product_id, line.price.tier, line.price.asset)


def apply_discount(discount: Discount, lines: list[PricedLine]) -> list[PricedLine]:
    """Take a discount off what is left of every line it covers; a flat amount once, from the first lines on."""
    flat_left = discount.amount if discount.kind == "flat" else None
    reduced: list[PricedLine] = []
    for line in lines:
        if not _covers(discount, line):
            reduced.append(line)
            continue
        taken = discounts.reduction(discount, line.subtotal - line.discount_total, line.quantity)
        if flat_left is not None:
            taken = min(flat_left, taken)
            flat_left -= taken
        note = {"discount_id": discount.id, "code": discount.code, "amount": taken}
        off = line.discount_total + taken
        reduced.append(msgspec.structs.replace(line, discount_total=off, discounts=[*line.discounts, note]))
    return reduced


def _taken(discount: Discount, lines: list[PricedLine]) -> int:
    """What a discount took off the lines together."""
    return sum(note["amount"] for line in lines for note in line.discounts if note["discount_id"] == discount.id)


def _gift(tx: Tx, checkout: Checkout) -> CheckoutReport:
    nothing = PaymentFact(reference=checkout.id, amount=Money(0, checkout.asset), occurred_at=tx.now)
    return CheckoutReport(
        rail=FREE, reference=checkout.id, checkout_id=checkout.id, state="settled", payments=(nothing,), final=True
    )


def expire_due(tx: Tx, *, limit: int = 200) -> int:
    """Expire checkouts whose time is over, and give back what they hold; how many."""
    expired = checkouts.expire_due(tx, limit=limit)
    for checkout_id in expired:
        holds.release(tx, checkout_id)
    return len(expired)


def give_up(tx: Tx, checkout_id: str, *, why: str) -> None:
    """End a checkout that its rail refused, and give back what it holds."""
    if checkouts.fail(tx, checkout_id, why=why):
        holds.release(tx, checkout_id)
