"""Adding products and prices that were made elsewhere, many in one transaction."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

import msgspec

from counterfoil.catalog import prices as one_price
from counterfoil.catalog import products as one_product
from counterfoil.catalog.products import SLUG_MAX, NewProduct
from counterfoil.catalog.tables import prices, products
from counterfoil.catalog.types import CatalogStatus, Price, Product
from counterfoil.db.tx import Tx
from counterfoil.kernel import money
from counterfoil.kernel.errors import Invalid

_SUFFIX = 10
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """Something made elsewhere."""

    source: str
    """Where: a rail."""
    reference: str
    """What it is called there."""


class ImportedProduct(Import, frozen=True, kw_only=True):
    """A product made elsewhere."""

    name: str
    description: str
    image_url: str | None
    tax_category: str
    status: CatalogStatus
    metadata: dict[str, Any]


class ImportedPrice(Import, frozen=True, kw_only=True):
    """A price made elsewhere, of a product that is ours."""

    product_id: str
    price: one_price.NewPrice
    status: CatalogStatus


def slug_for(name: str) -> str:
    """A slug out of a name; ``product`` where it has no letter or digit that a slug can have."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _NOT_IN_SLUGS.sub("-", plain).strip("-")[: SLUG_MAX - _SUFFIX - 1].strip("-") or "product"


def check_product(new: ImportedProduct) -> None:
    """Raise Invalid for what no product of ours can be."""
    one_product.check(
        NewProduct(
            slug="product",
            name=new.name,
            description=new.description,
            image_url=new.image_url,
            tax_category=new.tax_category,
            metadata=new.metadata,
        )
    )


def add_product(tx: Tx, new: ImportedProduct) -> str:
    """Make it a product of ours; its id. Its slug comes of its name, with a suffix where another has it.

    Raises Invalid.
    """
    check_product(new)
    slug = slug_for(new.name)
    product = Product(
        id=tx.new_id("pro"),
        slug=slug,
        name=new.name,
        description=new.description,
        image_url=new.image_url,
        tax_category=new.tax_category,
        type="standard",
        status=new.status,
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    # The second is of what it is called there: unique, and the same whoever imports it.
    mark = hashlib.sha256(f"{new.source} {new.reference}".encode()).hexdigest()[:_SUFFIX]
    for each in (slug, f"{slug}-{mark}", f"{slug[:20]}-{product.id[4:].lower()}"):
        product = msgspec.structs.replace(product, slug=each)
        if tx.insert_if_new(products, product):
            break
    else:
        raise Invalid.field("slug", f"{slug!r} and what could stand for it are taken", code="slug_taken")
    tx.record("product.imported", "product", product.id, slug=product.slug, name=product.name, source=new.source)
    return product.id


def make_price(tx: Tx, new: ImportedPrice) -> Price:
    """The row of a price of ours, for :func:`add_prices`. Raises Invalid."""
    said = new.price
    if not money.is_known(said.asset):
        raise Invalid.field("asset", "not a currency (ISO 4217) or a token we know", code="unknown_asset")
    price = Price(
        id=tx.new_id("pri"),
        product_id=new.product_id,
        tier=said.tier,
        name=said.name,
        description=said.description,
        asset=said.asset,
        unit_amount=said.unit_amount,
        billing_scheme="per_unit",
        type=said.type,
        interval=said.interval,
        interval_count=said.interval_count,
        trial_days=said.trial_days,
        usage_type="licensed",
        tax_mode=said.tax_mode,
        country_overrides=[msgspec.to_builtins(override) for override in said.country_overrides],
        quantity_min=said.quantity_min,
        quantity_max=said.quantity_max,
        status=new.status,
        locked_at=tx.now,  # it may have been sold there
        replaces=None,
        metadata=said.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    one_price.check(price)
    return price


def add_prices(tx: Tx, source: str, rows: list[Price]) -> None:
    """Add rows that :func:`make_price` made, together."""
    tx.insert(prices, *rows)
    for row in rows:
        tx.record(
            "price.imported",
            "price",
            row.id,
            money=money.Money(row.unit_amount, row.asset),
            product_id=row.product_id,
            tier=row.tier,
            source=source,
        )
