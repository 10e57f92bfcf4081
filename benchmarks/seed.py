"""Data to measure on, made through the product's own operations (the million products: in bulk)."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from benchmarks.load import request
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.catalog import benefits, prices, products
from counterfoil.catalog.benefits import BenefitTerms
from counterfoil.catalog.prices import NewPrice
from counterfoil.catalog.products import NewProduct
from counterfoil.catalog.tables import prices as prices_table
from counterfoil.catalog.tables import products as products_table
from counterfoil.catalog.types import LicenseSpec, Price, Product
from counterfoil.db.base import Scope
from counterfoil.db.migrate import migrate
from counterfoil.db.tx import Tx
from counterfoil.house import House, open_house
from counterfoil.licensing import licenses
from counterfoil.licensing.licenses import Issue
from counterfoil.licensing.types import License
from counterfoil.rails.sandbox.rail import sign
from counterfoil.rails.sandbox.session import Session, act
from counterfoil.sales import checkouts
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.types import Checkout
from counterfoil.settings import Settings
from counterfoil.settlement.checkout import OpenCheckout, open_checkout

LICENSES = 10_000
SLUG = "bench"


def settings_for(url: str, folder: Path, **others: Any) -> Settings:
    """The settings that the measured server has, too."""
    return Settings.load(database_url=url, master_key_file=folder / "master.key", sandbox=True, port=1, **others)


def _product(tx: Tx) -> Price:
    product = products.create(tx, NewProduct(slug=SLUG, name="Bench"))
    benefits.put(tx, product.id, BenefitTerms(license=LicenseSpec(max_machines=3, entitlements=["pro"])))
    return prices.create(tx, product.id, NewPrice(asset="SAT", unit_amount=21_000))


def _licenses(tx: Tx, product_id: str, count: int) -> list[License]:
    issue = Issue(product_id=product_id, spec=LicenseSpec(max_machines=3, entitlements=["pro"]))
    return licenses.issue(tx, [issue] * count)


def _checkouts(tx: Tx, price_id: str, count: int) -> list[Checkout]:
    wanted = OpenCheckout(
        lines=[WantedLine(price_id=price_id)], rail="sandbox", email="buyer@example.com", holds_for=timedelta(hours=2)
    )
    made = []
    for _ in range(count):
        checkout = open_checkout(tx, wanted).checkout
        made.append(checkouts.attach(tx, checkout.id, reference="sbx_" + checkout.id[4:], url="http://127.0.0.1/"))
    return made


def _catalog(tx: Tx, start: int, count: int) -> None:
    """Products with two prices each, as rows: the operations would write a million events beside them."""
    made, sold = [], []
    for number in range(start, start + count):
        product = Product(
            id=tx.new_id("pro"),
            slug=f"product-{number}",
            name=f"Product {number}",
            description="A product of a large catalog.",
            image_url=None,
            tax_category="standard",
            type="standard",
            status="active",
            metadata={},
            created_at=tx.now,
            updated_at=tx.now,
        )
        made.append(product)
        for asset, amount in (("SAT", 21_000), ("USD", 1_900)):
            sold.append(_price(tx, product.id, asset, amount))
    tx.insert(products_table, *made)
    tx.insert(prices_table, *sold)


def _price(tx: Tx, product_id: str, asset: str, amount: int) -> Price:
    return Price(
        id=tx.new_id("pri"),
        product_id=product_id,
        tier="default",
        name="",
        description="",
        asset=asset,
        unit_amount=amount,
        type="one_time",
        billing_scheme="per_unit",
        usage_type="licensed",
        tax_mode="account_setting",
        interval=None,
        interval_count=None,
        trial_days=0,
        country_overrides=[],
        quantity_min=1,
        quantity_max=100,
        status="active",
        locked_at=None,
        replaces=None,
        metadata={},
        created_at=tx.now,
        updated_at=tx.now,
    )


def webhook(checkout: Checkout, secret: str, now: datetime) -> bytes:
    """The sandbox's word that a checkout is paid."""
    assert checkout.rail_reference is not None
    session = Session(
        reference=checkout.rail_reference,
        checkout_id=checkout.id,
        amount=checkout.amount,
        asset=checkout.asset,
        description="Bench",
        return_url="http://127.0.0.1/",
        expires_at=checkout.expires_at,
    )
    event = act(session, "pay", "1", now)[1][-1]
    body = msgspec.json.encode(event)
    return request("POST", "/v1/webhooks/sandbox", body, Sandbox_Signature=sign(body, secret, now))


class Prepared(msgspec.Struct):
    """What the runs send."""

    validations: list[bytes]
    license_ids: list[str]
    webhooks: list[bytes]


async def _prepare(url: str, folder: Path, sales: int) -> Prepared:
    await asyncio.to_thread(migrate, url)
    async with open_house(settings_for(url, folder)) as house:
        scope = house.scope(DEFAULT_TENANT)
        price = await scope.run(_product)
        issued: list[License] = []
        for _ in range(LICENSES // 1000):
            issued += await scope.run(_licenses, price.product_id, 1000)
        ring = await house.keyring(DEFAULT_TENANT)
        validations = [
            request("POST", "/v1/validate", json.dumps({"key": ring.key_of(license_), "product_slug": SLUG}).encode())
            for license_ in issued
        ]
        webhooks = await _sales(house, scope, price.id, sales)
        await _fill(scope, 0, 10_000)
        return Prepared(validations, [license_.id for license_ in issued], webhooks)


async def _sales(house: House, scope: Scope, price_id: str, count: int) -> list[bytes]:
    secret = (await house.rails.get(DEFAULT_TENANT, "sandbox")).settings.secret
    made: list[Checkout] = []
    while len(made) < count:
        made += await scope.run(_checkouts, price_id, 500)
    now = house.database.clock.now()
    return [webhook(checkout, secret, now) for checkout in made]


async def _fill(scope: Scope, start: int, end: int) -> None:
    for first in range(start, end, 5000):
        await scope.run(_catalog, first, min(5000, end - first))


def prepare(url: str, folder: Path, *, sales: int) -> Prepared:
    """A migrated database with 10,000 licenses, ``sales`` open checkouts and 10,000 products."""
    return asyncio.run(_prepare(url, folder, sales))


def grow_catalog(url: str, folder: Path, products_wanted: int) -> None:
    """Add products up to ``products_wanted``, and let the database look at them once."""

    async def grow() -> None:
        async with open_house(settings_for(url, folder)) as house:
            scope = house.scope(DEFAULT_TENANT)
            await _fill(scope, 10_000, products_wanted)
            await scope.run(_analyze)

    asyncio.run(grow())


def _analyze(tx: Tx) -> None:
    for name in ("products", "prices"):
        tx.execute(sa.text(f"ANALYZE {name}"))
