"""Rows for tests of the ground floor, which knows no operations on them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from counterfoil.catalog.tables import prices, products
from counterfoil.catalog.types import Price, Product
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.events.types import Event

_PRODUCTS = sa.select(*columns(products)).where(mine(products)).order_by(products.c.id)
_PRICES = sa.select(*columns(prices)).where(mine(prices)).order_by(prices.c.id)
_EVENTS = sa.select(*columns(events)).where(mine(events)).order_by(events.c.id)


def product(tx: Tx, name: str = "n", **changes: Any) -> Product:
    """A product, not stored."""
    fields: dict[str, Any] = {
        "id": tx.new_id("prd"),
        "slug": tx.new_id("slug"),
        "name": name,
        "description": "",
        "image_url": None,
        "tax_category": "standard",
        "type": "standard",
        "status": "active",
        "metadata": {},
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    return Product(**(fields | changes))


def price(tx: Tx, product_id: str, **changes: Any) -> Price:
    """A price, not stored."""
    fields: dict[str, Any] = {
        "id": tx.new_id("prc"),
        "product_id": product_id,
        "tier": "default",
        "name": "n",
        "description": "",
        "asset": "USD",
        "unit_amount": 100,
        "billing_scheme": "per_unit",
        "type": "one_time",
        "interval": None,
        "interval_count": None,
        "trial_days": 0,
        "usage_type": "licensed",
        "tax_mode": "account_setting",
        "country_overrides": [],
        "quantity_min": 1,
        "quantity_max": 1,
        "status": "active",
        "locked_at": None,
        "replaces": None,
        "metadata": {},
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    return Price(**(fields | changes))


def add_product(tx: Tx, name: str = "n", **changes: Any) -> Product:
    """Store a product, and say so."""
    made = product(tx, name, **changes)
    tx.insert(products, made)
    tx.record("test.added", "product", made.id, name=name)
    return made


def all_products(tx: Tx) -> list[Product]:
    return [Product(*row) for row in tx.all(_PRODUCTS)]


def all_prices(tx: Tx) -> list[Price]:
    return [Price(*row) for row in tx.all(_PRICES)]


def all_events(tx: Tx) -> list[Event]:
    """The record of this file's own events."""
    return [event for event in (Event(*row) for row in tx.all(_EVENTS)) if event.type.startswith("test.")]


def names(tx: Tx) -> list[str]:
    """The products' names, sorted."""
    return sorted(found.name for found in all_products(tx))
