"""Operations on products."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import sqlalchemy as sa

from counterfoil.catalog.tables import benefits, prices, products
from counterfoil.catalog.types import Benefit, CatalogStatus, Price, Product, ProductType
from counterfoil.db.functions import any_of
from counterfoil.db.schema import columns, mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.metadata import check_metadata

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_IMAGE_URL = re.compile(r"https?://[^\s\x00-\x1f<>\"]{1,1992}")
SLUG_MAX = 80

_GET = sa.select(*columns(products)).where(mine(products), products.c.id == sa.bindparam("id"))
_FIND = sa.select(*columns(products)).where(mine(products), products.c.slug == sa.bindparam("slug"))
_PRICES = (
    sa.select(*columns(prices))
    .where(mine(prices), any_of(prices.c.product_id, "ids"), prices.c.status == "active")
    .order_by(prices.c.product_id, prices.c.id)
)
_BENEFITS = (
    sa.select(*columns(benefits))
    .where(mine(benefits), any_of(benefits.c.product_id, "ids"))
    .order_by(benefits.c.product_id, benefits.c.id)
)


class NewProduct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it takes to make a product."""

    slug: str
    name: str
    description: str = ""
    image_url: str | None = None
    tax_category: str = "standard"
    type: ProductType = "standard"
    metadata: dict[str, Any] = {}


class ProductChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a product; what is left out stays. The slug is for good: it is in links."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    image_url: str | msgspec.UnsetType | None = msgspec.UNSET
    tax_category: str | msgspec.UnsetType = msgspec.UNSET
    status: CatalogStatus | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Offer(msgspec.Struct, frozen=True):
    """A product with what is needed to sell it."""

    product: Product
    prices: list[Price]
    benefits: list[Benefit]


def check_slug(field: str, slug: str) -> None:
    """Raise Invalid unless ``slug`` is lower-case letters, digits and single hyphens, at most 80."""
    if len(slug) > SLUG_MAX or not _SLUG.fullmatch(slug):
        raise Invalid.field(field, f"use 1 to {SLUG_MAX} lower-case letters, digits and single hyphens")


def check_text(field: str, value: str, *, most: int, least: int = 0) -> None:
    """Raise Invalid unless ``value`` has a fitting length and no control characters but line breaks."""
    if not least <= len(value) <= most:
        raise Invalid.field(field, f"must have {least} to {most} characters")
    if any(ord(char) < 32 and char not in "\n\r\t" for char in value):
        raise Invalid.field(field, "must not contain control characters")


def check(fields: NewProduct | ProductChanges) -> None:
    """Raise Invalid for what no product can be."""
    if isinstance(fields.name, str):
        check_text("name", fields.name, most=200, least=1)
    if isinstance(fields.description, str):
        check_text("description", fields.description, most=10_000)
    if isinstance(fields.tax_category, str):
        check_text("tax_category", fields.tax_category, most=80, least=1)
    if isinstance(fields.image_url, str) and not _IMAGE_URL.fullmatch(fields.image_url):
        raise Invalid.field("image_url", "must be an http or https address of at most 2000 characters")
    if isinstance(fields.metadata, dict):
        check_metadata("metadata", fields.metadata)


def create(tx: Tx, new: NewProduct) -> Product:
    """Make a product. Raises Invalid; Conflict (``slug_taken``)."""
    check_slug("slug", new.slug)
    check(new)
    product = Product(
        id=tx.new_id("pro"),
        slug=new.slug,
        name=new.name,
        description=new.description,
        image_url=new.image_url,
        tax_category=new.tax_category,
        type=new.type,
        status="active",
        metadata=new.metadata,
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not tx.insert_if_new(products, product):
        raise Conflict(f"There is already a product with the slug {new.slug!r}.", code="slug_taken")
    tx.record("product.created", "product", product.id, slug=product.slug, name=product.name)
    return product


def get(tx: Tx, product_id: str) -> Product:
    """Raise NotFound (``product_not_found``) when there is none."""
    row = tx.one(_GET, {"id": product_id})
    if row is None:
        raise NotFound("There is no such product.", code="product_not_found")
    return Product(*row)


def find(tx: Tx, slug_or_id: str) -> Product:
    """Look up by slug or by id: the two never look alike. Raises NotFound."""
    if "_" in slug_or_id:
        return get(tx, slug_or_id)
    row = tx.one(_FIND, {"slug": slug_or_id})
    if row is None:
        raise NotFound("There is no such product.", code="product_not_found")
    return Product(*row)


def offer(tx: Tx, slug_or_id: str) -> Offer:
    """A product with its active prices and its benefits. Raises NotFound."""
    product = find(tx, slug_or_id)
    ids = {"ids": [product.id]}
    return Offer(
        product,
        [Price(*row) for row in tx.all(_PRICES, ids)],
        [Benefit(*row) for row in tx.all(_BENEFITS, ids)],
    )


def update(tx: Tx, slug_or_id: str, changes: ProductChanges) -> Product:
    """Change a product. Raises Invalid, NotFound."""
    check(changes)
    given = {
        name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not msgspec.UNSET
    }
    found = find(tx, slug_or_id)
    if not given:
        return found
    statement = (
        sa.update(products)
        .where(mine(products), products.c.id == sa.bindparam("product_id"))
        .values(**given, updated_at=tx.now)
        .returning(*columns(products))
    )
    row = tx.one(statement, {"product_id": found.id})
    assert row is not None  # products are archived, never removed
    product = Product(*row)
    verb = "archived" if given.get("status") == "archived" else "updated"
    tx.record(f"product.{verb}", "product", product.id, changed=sorted(given))
    return product
