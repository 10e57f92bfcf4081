"""What to measure carts, stock and orders with: five products that are counted, two discounts, a million orders."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from benchmarks.load import request
from benchmarks.seed import settings_for, webhook
from counterfoil.accounts import api_keys
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.catalog import benefits, discounts, prices, products, stock
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.discount_rules import NewDiscount
from counterfoil.catalog.prices import NewPrice
from counterfoil.catalog.products import NewProduct
from counterfoil.catalog.types import LicenseSpec
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.house import open_house
from counterfoil.sales import checkouts
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.tables import orders as orders_table
from counterfoil.sales.types import Checkout, Order
from counterfoil.settlement.checkout import OpenCheckout, open_checkout

LINES = 5
UNITS = 100
BUYERS = 1_000
_PLENTY = 1_000_000_000
_SCARCE = "bench-scarce"
_ROWS_AT_ONCE = 5_000


class Goods(msgspec.Struct, frozen=True):
    """What the runs send."""

    quote: bytes
    """A cart of five lines with two discounts, one of which is typed."""
    webhooks: list[bytes]
    """Each says that a checkout of five lines is paid."""
    buy: bytes
    """A checkout of one unit of what there are only ``UNITS`` of."""
    scarce: bytes
    """Asks how much of that there is."""
    page: bytes
    """The newest 20 orders."""


def _product(tx: Tx, slug: str, on_hand: int) -> str:
    """A product of which so many are counted; its price's id."""
    product = products.create(tx, NewProduct(slug=slug, name=slug.title()))
    benefits.put(tx, product.id, BenefitTerms(license=LicenseSpec(max_machines=1)))
    stock.set_(tx, product.id, on_hand=on_hand)
    return prices.create(tx, product.id, NewPrice(asset="USD", unit_amount=1_900)).id


def _catalog(tx: Tx) -> tuple[list[str], str]:
    many = [_product(tx, f"bench-line-{number}", _PLENTY) for number in range(LINES)]
    discounts.create(tx, NewDiscount(kind="percentage", amount=1_000, code="BENCH"))
    # Of these five only, so that it is no business of the other runs.
    ids = [prices.get(tx, price_id).product_id for price_id in many]
    discounts.create(tx, NewDiscount(kind="flat", amount=100, asset="USD", auto_apply=True, product_ids=ids))
    return many, _product(tx, _SCARCE, UNITS)


def _open(tx: Tx, price_ids: list[str], count: int) -> list[Checkout]:
    wanted = OpenCheckout(
        lines=[WantedLine(price_id=price_id) for price_id in price_ids],
        rail="sandbox",
        email="buyer@example.com",
        holds_for=timedelta(hours=2),
    )
    made = []
    for _ in range(count):
        checkout = open_checkout(tx, wanted).checkout
        made.append(checkouts.attach(tx, checkout.id, reference="sbx_" + checkout.id[4:], url="http://127.0.0.1/"))
    return made


def _count(tx: Tx) -> int:
    return int(tx.all(sa.select(sa.func.count()).select_from(orders_table))[0][0])


def _orders(tx: Tx, start: int, count: int) -> None:
    """Orders as rows: the operations would write three events beside each."""
    tx.insert(orders_table, *[_order(tx, number) for number in range(start, start + count)])


def _order(tx: Tx, number: int) -> Order:
    item = {"name": "Bench", "quantity": 1, "unit_amount": 1_900, "total": 1_900, "ships": False}
    return Order(
        id=tx.new_id("ord"),
        source="bench",
        purchase_reference=f"order-{number}",
        checkout_id=None,
        subscription_id=None,
        customer_id=None,
        user_id=None,
        status="paid" if number % 10 else "delivered",
        items=[item],
        amount=1_900,
        refunded=0,
        asset="USD",
        discount_total=0,
        tax_total=0,
        email=f"buyer-{number}@example.com",
        shipping=None,
        metadata={},
        status_updated_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )


async def _prepare(url: str, folder: Path, sales: int) -> Goods:
    async with open_house(settings_for(url, folder)) as house:
        scope = house.scope(DEFAULT_TENANT)
        key = (await scope.run(api_keys.create, "commerce", ["*"], secret=api_keys.new_secret())).secret
        price_ids, scarce = await scope.run(_catalog)
        secret = (await house.rails.get(DEFAULT_TENANT, "sandbox")).settings.secret
        opened: list[Checkout] = []
        while len(opened) < sales:
            opened += await scope.run(_open, price_ids, 200)
        now = house.database.clock.now()
        lines = [{"price_id": price_id} for price_id in price_ids]
        buy = {"lines": [{"price_id": scarce}], "rail": "sandbox"}
        bearer = f"Bearer {key}"
        return Goods(
            quote=request(
                "POST", "/v1/carts", json.dumps({"lines": lines, "rail": "sandbox", "code": "BENCH"}).encode()
            ),
            webhooks=[webhook(checkout, secret, now) for checkout in opened],
            buy=request("POST", "/v1/checkouts", json.dumps(buy).encode()),
            scarce=request("GET", f"/v1/stock?product={_SCARCE}", Authorization=bearer),
            page=request("GET", "/v1/orders?limit=20&order=desc", Authorization=bearer),
        )


def prepare(url: str, folder: Path, *, sales: int) -> Goods:
    """Five products whose stock is counted, two discounts, ``sales`` open checkouts of all five, and a rare thing."""
    return asyncio.run(_prepare(url, folder, sales))


def grow_orders(url: str, folder: Path, wanted: int) -> None:
    """Add orders until there are ``wanted``, and let the database look at them once."""

    async def grow() -> None:
        async with open_house(settings_for(url, folder)) as house:
            scope = house.scope(DEFAULT_TENANT)
            await _fill(scope, await scope.read(_count), wanted)
            await scope.run(_analyze)

    asyncio.run(grow())


async def _fill(scope: Scope, start: int, end: int) -> None:
    for first in range(start, end, _ROWS_AT_ONCE):
        await scope.run(_orders, first, min(_ROWS_AT_ONCE, end - first))


def _analyze(tx: Tx) -> None:
    tx.execute(sa.text("ANALYZE orders"))
