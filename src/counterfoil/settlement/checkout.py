"""Opening a checkout: where the catalog's prices and discounts meet a sale."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from counterfoil.accounts import customers
from counterfoil.catalog import discounts, redemptions, stock_reservations
from counterfoil.catalog.products import check_text
from counterfoil.catalog.stock_reservations import Demand, OutOfStock
from counterfoil.catalog.types import Discount
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, CounterfoilError, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata
from counterfoil.kernel.money import Money
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.sales import carts, checkouts, quotes
from counterfoil.sales.quotes import PricedLine, WantedLine
from counterfoil.sales.shipping import ShippingAddress, check_shipping
from counterfoil.sales.types import Cart, CartLine, Checkout
from counterfoil.settlement import goods, holds
from counterfoil.settlement.pricing import Shelf, ask, count, full_price, reserve, taken_off
from counterfoil.settlement.settle import settle

FREE = "free"
"""The rail of a checkout that costs nothing: no provider is asked."""

_EMAIL = re.compile(r"[^\s@<>\x00-\x1f]{1,64}@[^\s@<>\x00-\x1f]{1,255}")


class OpenCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to open a checkout."""

    lines: list[WantedLine] = []
    cart_id: str | None = None
    """A saved quote to check out at its price, instead of lines."""
    rail: str
    rail_assets: frozenset[str] | None = None
    """The assets the rail takes; None = any."""
    rail_renews: bool = False
    """Whether the rail takes money again by itself, so that what is paid again can be sold on it."""
    code: str | None = None
    email: str | None = None
    note: str | None = None
    country: str | None = None
    return_url: str | None = None
    shipping: ShippingAddress | None = None
    """Where goods go."""
    metadata: dict[str, Any] = {}
    customer_id: str | None = None
    """Who buys, where that is known; the nearest margin on its way to the top applies."""
    idempotency_key: str | None = None
    holds_for: timedelta
    must_be_free: bool = False
    """Refuse unless the code makes it cost nothing."""

    def hash(self) -> str:
        """The same for the same request; how long prices hold is ours to say and does not count."""
        body = msgspec.structs.replace(self, holds_for=timedelta(0), rail_assets=None, rail_renews=False)
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
    """Price a cart, reserve its stock and its discounts, and open a checkout for it; free ones settle at once.

    A saved quote is sold at its price, for as long as it holds. With an idempotency key, the checkout that the key
    opened before is the answer. Raises Invalid, NotFound, LostRace; Conflict (``customer_not_active``,
    ``out_of_stock``, ``quote_expired``, ``cart_already_paid``).
    """
    request_hash = wanted.hash() if wanted.idempotency_key else None
    if wanted.idempotency_key and request_hash:
        known = checkouts.by_idempotency_key(tx, wanted.idempotency_key, request_hash)
        if known is not None:
            return Opened(known, is_new=False, description=_describe(quotes.lines_of(tx, known.cart_id)))
    email = _checked(wanted)
    checkout_id = tx.new_id("chk")
    sale = _sell(tx, wanted, email, checkout_id) if wanted.cart_id is None else _sell_saved(tx, wanted, checkout_id)
    cart, total = sale.cart, sale.cart.total
    checkout = checkouts.create(
        tx,
        checkout_id=checkout_id,
        cart_id=cart.id,
        customer_id=cart.customer_id,
        rail=wanted.rail if total or _renews(sale.lines) else FREE,
        total=Money(cart.total, cart.asset),
        expires_at=tx.now + wanted.holds_for,
        email=email or cart.email,
        note=wanted.note,
        return_url=wanted.return_url,
        idempotency_key=wanted.idempotency_key,
        request_hash=request_hash,
        shipping=_shipping(wanted, sale.lines),
    )
    if checkout is None:
        raise LostRace("Another request with this Idempotency-Key is in progress.")
    redemptions.reserve(tx, checkout.id, sale.uses, buyer=sale.buyer, asset=cart.asset)
    if checkout.rail == FREE:
        checkouts.attach(tx, checkout.id, reference=checkout.id, url="")
        settle(tx, _gift(tx, checkout))
        checkout = checkouts.get(tx, checkout.id)
    return Opened(checkout, is_new=True, description=_describe(sale.lines))


class _Sale(msgspec.Struct, frozen=True):
    """A saved cart whose stock and discounts are held for the checkout that follows."""

    cart: Cart
    lines: Sequence[PricedLine | CartLine]
    uses: list[tuple[Discount, int]]
    """The discounts, and what each takes off."""
    buyer: str | None


def _sell(tx: Tx, wanted: OpenCheckout, email: str | None, checkout_id: str) -> _Sale:
    """Price a new cart, and hold what it takes."""
    shelf = Shelf(tx)
    takes = _takes(shelf, full_price(shelf, wanted.lines, wanted.country))
    stock_reservations.check(takes)
    asked = ask(
        tx,
        wanted.lines,
        customer_id=wanted.customer_id,
        country=wanted.country,
        rail=wanted.rail,
        code=wanted.code,
        email=email,
        shelf=shelf,
    )
    # Stock before discounts, as everywhere, so that nobody waits for each other in a circle.
    stock_reservations.reserve(tx, checkout_id, takes, tx.now + wanted.holds_for)
    priced = reserve(tx, asked)
    if priced.total and wanted.must_be_free:
        raise Invalid.field("code", "this code does not make it free", code="discount_not_applicable")
    _check_rail(wanted, priced.total, priced.asset)
    _check_renewal(wanted, priced.lines)
    saved = quotes.draw_up(
        tx,
        priced.lines,
        customer_id=wanted.customer_id,
        country=wanted.country,
        rail=wanted.rail,
        code=None if asked.typed is None else asked.typed.code,
        email=email,
        holds_for=wanted.holds_for,
        metadata=wanted.metadata,
    )
    quotes.save(tx, [saved])
    return _Sale(saved.cart, priced.lines, [(one, priced.taken(one)) for one in priced.applied], asked.buyer)


def _takes(shelf: Shelf, lines: Sequence[PricedLine]) -> stock_reservations.Wanted:
    """What lines that were just priced take of which stock."""
    offered = shelf.offers(())
    return stock_reservations.of_offers(_demand(lines), {line.price_id: offered[line.price_id].stock for line in lines})


def look(tx: Tx, asked: list[OpenCheckout]) -> list[CounterfoilError | None]:
    """Say of each whether it would be refused now for want of stock; changes nothing."""
    shelf = Shelf(tx)
    shelf.offers(line for one in asked for line in one.lines)
    return [_look(shelf, one) for one in asked]


def _look(shelf: Shelf, wanted: OpenCheckout) -> OutOfStock | None:
    try:
        lines = full_price(shelf, wanted.lines, wanted.country, fix_terms=False)
        stock_reservations.check(_takes(shelf, lines))
    except OutOfStock as error:
        return error
    except CounterfoilError:  # for another reason: opening it says which
        return None
    return None


def _sell_saved(tx: Tx, wanted: OpenCheckout, checkout_id: str) -> _Sale:
    """Hold what a saved quote takes. Its discounts need not be in use any more, but they must not be used up."""
    assert wanted.cart_id is not None
    for name in ("lines", "code", "country", "metadata"):
        if getattr(wanted, name):
            raise Invalid.field(name, "the cart has this already", code="cart_is_fixed")
    found = carts.get(tx, wanted.cart_id)
    cart, lines = found.cart, found.lines
    if wanted.customer_id not in {None, cart.customer_id}:
        raise NotFound("There is no such cart.", code="cart_not_found")
    carts.check_payable(tx, cart)
    if cart.customer_id is not None and customers.get(tx, cart.customer_id).status != "active":
        raise Conflict("This customer is archived.", code="customer_not_active")
    if cart.rail not in {None, wanted.rail}:
        raise Invalid.field("rail", f"this cart was priced for {cart.rail}", code="cart_is_fixed")
    _check_rail(wanted, cart.total, cart.asset)
    _check_renewal(wanted, lines)
    takes = stock_reservations.look_up(tx, _demand(lines))
    stock_reservations.check(takes)
    stock_reservations.reserve(tx, checkout_id, takes, tx.now + wanted.holds_for)
    ids = sorted({note["discount_id"] for line in lines for note in line.discounts})
    applied = discounts.get_many(tx, ids) if ids else []
    buyer = redemptions.buyer_of(cart.customer_id, cart.email)
    if count(tx, applied, buyer) is not None:
        raise discounts.used_up("cart_id")
    return _Sale(cart, lines, [(one, taken_off(lines, one.id)) for one in applied], buyer)


def _check_rail(wanted: OpenCheckout, total: int, asset: str) -> None:
    if total and wanted.rail == FREE:
        raise Invalid.field("rail", "this is not free; name a rail to pay it on", code="rail_required")
    if total and wanted.rail_assets is not None and asset not in wanted.rail_assets:
        raise Invalid.field("rail", f"{wanted.rail} does not take {asset}", code="asset_not_supported")


def _renews(lines: Sequence[PricedLine | CartLine]) -> bool:
    return any(line.recurring is not None for line in lines)


def _check_renewal(wanted: OpenCheckout, lines: Sequence[PricedLine | CartLine]) -> None:
    """What is paid again needs a rail that takes money again, and has one discount at most: the rail applies it."""
    if not _renews(lines):
        return
    if not wanted.rail_renews:
        detail = f"{wanted.rail} takes no money by itself, and this is paid again and again"
        raise Invalid.field("rail", detail, code="recurring_not_supported")
    if len({note["discount_id"] for line in lines for note in line.discounts}) > 1:
        raise Invalid.field("code", "a subscription has one discount at most", code="too_many_discounts")


def _demand(lines: Sequence[PricedLine | CartLine]) -> list[Demand]:
    """What a cart takes from the shelves."""
    return [
        Demand(product_id=line.product_id, price_id=line.price_id, quantity=line.quantity, name=line.name, line=place)
        for place, line in enumerate(lines)
    ]


def _shipping(wanted: OpenCheckout, lines: Sequence[PricedLine | CartLine]) -> dict[str, Any] | None:
    """Where the goods of a cart go. Raises Invalid (``shipping_required``)."""
    if wanted.shipping is not None:
        return check_shipping(wanted.shipping)
    if any(goods.ships(line.benefits) for line in lines):
        raise Invalid.field("shipping", "say where to ship the goods", code="shipping_required")
    return None


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


def _gift(tx: Tx, checkout: Checkout) -> CheckoutReport:
    nothing = PaymentFact(reference=checkout.id, amount=Money(0, checkout.asset), occurred_at=tx.now)
    return CheckoutReport(
        rail=FREE, reference=checkout.id, checkout_id=checkout.id, state="settled", payments=(nothing,), final=True
    )


def expire_due(tx: Tx, *, limit: int = 200) -> int:
    """Expire checkouts whose time is over, and give back what they hold; how many."""
    expired = checkouts.expire_due(tx, limit=limit)
    if expired:
        holds.release(tx, *expired)
    return len(expired)


def cancel(tx: Tx, checkout_id: str) -> Checkout:
    """Call off a checkout that nobody has paid, and give back what it holds; twice is once.

    Money that comes all the same settles it if what it held can still be had. Raises NotFound; Conflict
    (``checkout_not_open``) when money is on its way or it is over.
    """
    if checkouts.cancel(tx, checkout_id):
        holds.release(tx, checkout_id)
        return checkouts.get(tx, checkout_id)
    checkout = checkouts.get(tx, checkout_id)
    if checkout.status != "canceled":
        raise Conflict(f"This checkout is {checkout.status}, not open.", code="checkout_not_open")
    return checkout


def give_up(tx: Tx, checkout_id: str, *, why: str) -> None:
    """End a checkout that its rail refused, and give back what it holds."""
    if checkouts.fail(tx, checkout_id, why=why):
        holds.release(tx, checkout_id)
