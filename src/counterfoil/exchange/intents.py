"""What a rail that keeps copies needs to know of a checkout: its lines, and the rail's names for what they refer to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from counterfoil.catalog import products
from counterfoil.catalog.types import Price
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange.pusher import Pusher
from counterfoil.exchange.variants import Named
from counterfoil.kernel.errors import RailFailed
from counterfoil.rails.base import CheckoutIntent, LineIntent
from counterfoil.rails.mirror import Rhythm
from counterfoil.sales import quotes
from counterfoil.sales.types import CartLine, Checkout
from counterfoil.settlement import links, subscribing


class _Read(msgspec.Struct, frozen=True):
    lines: list[CartLine]
    intents: tuple[LineIntent, ...]
    customer: str | None


def _read(tx: Tx, checkout: Checkout) -> _Read:
    lines = quotes.lines_of(tx, checkout.cart_id)
    of_prices = links.references(tx, checkout.rail, "price", [line.price_id for line in lines])
    of_products = links.references(tx, checkout.rail, "product", [line.product_id for line in lines])
    offers = quotes.offers_of(tx, [line.price_id for line in lines])
    categories = {one: products.get(tx, one).tax_category for one in {line.product_id for line in lines}}
    wanted = tuple(
        LineIntent(
            price_id=line.price_id,
            price_reference=_copy_of(line, offers[line.price_id].price, of_prices),
            product_reference=of_products.get(line.product_id),
            name=line.name,
            quantity=line.quantity,
            unit_amount=line.unit_amount if line.recurring is None else line.recurring["unit_amount"],
            total=line.total,
            tax_category=categories[line.product_id],
            tax_mode=offers[line.price_id].price.tax_mode,
            interval=line.recurring["interval"] if line.recurring else None,
            interval_count=line.recurring["interval_count"] if line.recurring else None,
            trial_days=line.recurring["trial_days"] if line.recurring else 0,
            by_country=bool(offers[line.price_id].price.country_overrides),
        )
        for line in lines
    )
    customer = links.get(tx, checkout.rail, "customer", checkout.customer_id) if checkout.customer_id else None
    return _Read(lines, wanted, customer.reference if customer else None)


def _copy_of(line: CartLine, price: Price, known: Mapping[str, str]) -> str | None:
    """The rail's name for a line's price. What is paid once is charged at what we said, whatever a copy says of it."""
    return None if line.recurring is None and price.country_overrides else known.get(line.price_id)


async def with_copies(scope: Scope, pusher: Pusher, checkout: Checkout, intent: CheckoutIntent) -> CheckoutIntent:
    """The intent with its lines. A subscription's prices, discount and customer are copied first where they are not.

    What is paid once needs no copies: its lines say all there is to say. Raises RailFailed, Unavailable; RailRefused,
    RailUnavailable.
    """
    read = await scope.read(_read, checkout)
    rhythm, discount_id = _rhythm(checkout, read.intents), subscribing.discount_of(read.lines)
    if rhythm is not None and discount_id is not None:  # what cannot be is refused before anything is made there
        await pusher.check_discount(scope, checkout.rail, discount_id, rhythm)
    customer = read.customer
    if customer is None and checkout.customer_id is not None:
        # Whom the rail refuses (there is no e-mail address, or another's) its own page asks who they are.
        with contextlib.suppress(RailFailed):
            customer = await pusher.ensure(scope, checkout.rail, "customer", checkout.customer_id)
    if rhythm is None:
        return msgspec.structs.replace(intent, lines=read.intents, customer_reference=customer)
    again = [line for line in read.intents if line.interval is not None]
    names = {line.price_id: await _name_of(scope, pusher, checkout, line) for line in again}
    discount = None
    if discount_id is not None:
        discount = await pusher.ensure_discount(scope, checkout.rail, discount_id, rhythm)
    read = await scope.read(_read, checkout)
    lines = tuple(
        msgspec.structs.replace(line, price_reference=name.reference, is_variant=name.is_variant)
        if (name := names.get(line.price_id)) is not None
        else line
        for line in read.intents
    )
    return msgspec.structs.replace(intent, lines=lines, discount_reference=discount, customer_reference=customer)


def _rhythm(checkout: Checkout, lines: Sequence[LineIntent]) -> Rhythm | None:
    """How what is paid again is paid, which is all alike; None where nothing is."""
    again = next((line for line in lines if line.interval is not None), None)
    if again is None or again.interval is None:
        return None
    return Rhythm(again.interval, again.interval_count or 1, again.trial_days, checkout.created_at)


async def _name_of(scope: Scope, pusher: Pusher, checkout: Checkout, line: LineIntent) -> Named:
    """The rail's name for the price of a line that is paid again, at what it costs in the buyer's country."""
    if line.price_reference is not None and not line.by_country:
        return Named(line.price_reference, is_variant=False)
    amount = line.unit_amount if line.by_country else None
    return await pusher.ensure_price(scope, checkout.rail, line.price_id, amount)
